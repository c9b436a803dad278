"""What Java calls blank, trimmed, ordered and cut: facts of its strings that the Wavefront proxy's output rests on.

Java's strings are UTF-16: it compares, counts and cuts code units.  Python's are code points, and its idea of
white space is another one, too.  Pure.
"""

from tracefwd import naming

# String.trim: everything up to the blank.
_TRIMMED = "".join(map(chr, range(0x21)))
_CONTROLS = bytes(range(0x20))

is_blank = naming.is_blank


def sanitised(text: str) -> str:
    """A span's name or tag value as the proxy cleans it: trimmed, line feeds as backslash and n."""
    return text.strip(_TRIMMED).replace("\n", "\\n")


def order(text: str) -> bytes:
    """Sort key of ``String.compareTo``: by code unit, so that U+FFFD comes after an emoji."""
    return text.encode("utf-16-be", "surrogatepass")


def cut(text: str, length_max: int) -> str:
    """The first ``length_max`` code units; half of a surrogate pair goes out as ``?``."""
    if text.isascii():
        return text[:length_max]
    whole = naming.cut(text, length_max)
    if naming.length(whole) < length_max < naming.length(text):
        return whole + "?"
    return whole


def is_plain(text: str, length_max: int) -> bool:
    """Whether cleaning and cutting would leave ``text`` alone: short ASCII with something at both ends."""
    return (
        0 < len(text) <= length_max
        and text.isascii()
        and text[0] > " "
        and text[-1] > " "
        and text[-1] != "\\"
        and "\n" not in text
    )


def all_plain(texts: list[str], length_max: int) -> bool:
    """Whether every text ``is_plain`` and holds neither quotes, backslashes nor control characters.

    Searches one joined text, at a tenth of the price of looking at each.
    """
    if not texts:
        return True
    joined = '"'.join(["", *texts, ""])
    return (
        joined.isascii()
        and "\\" not in joined
        and joined.count('"') == len(texts) + 1
        and '""' not in joined
        and '" ' not in joined
        and ' "' not in joined
        and len(joined.encode().translate(None, _CONTROLS)) == len(joined)
        and max(map(len, texts)) <= length_max
    )
