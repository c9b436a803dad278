"""Tables in Markdown pages, made from what they describe and put between their markers."""

from collections.abc import Callable, Mapping


def fill(text: str, tables: Mapping[str, Callable[[], str]], maker: str) -> str:
    """The page's text with every table as it is made now; ``maker`` is the script that its markers name."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}: made by {maker} -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        assert found, f"the page has no place for the table of {name}"
        _, found, after = rest.partition(end)
        assert found, f"the page's table of {name} has no end"
        text = f"{before}{begin}{table()}\n{end}{after}"
    return text
