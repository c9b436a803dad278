"""Rules on the text of a line, before it is read (``scope: pointLine`` or ``inputText``).

They see metric lines, and span lines on the ports that take them; a Zipkin span never was a line.
"""

from tracefwd.processor.rules.arguments import Arguments
from tracefwd.processor.rules.matching import replacing
from tracefwd.processor.rules.rule import BLOCK, PASS, Filter, LineTransform
from tracefwd.processor.rules.subject import Subject

SCOPES = frozenset({"pointLine", "inputText"})


def replace_line(arguments: Arguments) -> LineTransform:
    """``{{...}}`` means nothing here: there are no tags yet."""
    search = arguments.pattern("search")
    rewrite = replacing(
        search, arguments.raw_replacement("replace", search), arguments.iterations()
    )
    match = arguments.optional_pattern("match")
    nothing = Subject("", "", [])

    def transform(line: str) -> str | None:
        if match is not None and not match.full[line]:
            return None
        return rewrite(line, nothing)

    return transform


def block_line(arguments: Arguments) -> Filter[str]:
    full = arguments.pattern("match").full
    return lambda line: BLOCK if full[line] else PASS


def allow_line(arguments: Arguments) -> Filter[str]:
    full = arguments.pattern("match").full
    return lambda line: PASS if full[line] else BLOCK
