"""Java's character classes, named and bracketed, as RE2 writes them.

Java nests classes and intersects them (``[a-z&&[^aeiou]]``), RE2 does neither.  What is only a union is flattened;
an intersection of ranges is worked out on code points.  What depends on the Java version (a negated class with
another class inside) or needs Unicode's tables is refused.  Pure.
"""

from tracefwd.processor.rules.dialect import Refused, Scanner

Ranges = list[tuple[int, int]]

_LAST = 0x10FFFF
# Escapes that stand for a set of characters; capitals are the rest.  RE2's \s lacks the vertical tab, its \v is one.
_ESCAPED: dict[str, Ranges] = {
    "d": [(0x30, 0x39)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "s": [(0x09, 0x0D), (0x20, 0x20)],
    "h": [
        (0x09, 0x09),
        (0x20, 0x20),
        (0xA0, 0xA0),
        (0x1680, 0x1680),
        (0x180E, 0x180E),
        (0x2000, 0x200A),
        (0x202F, 0x202F),
        (0x205F, 0x205F),
        (0x3000, 0x3000),
    ],
    "v": [(0x0A, 0x0D), (0x85, 0x85), (0x2028, 0x2029)],
}
# \p{...} of POSIX: US-ASCII only.
_POSIX: dict[str, Ranges] = {
    "Lower": [(0x61, 0x7A)],
    "Upper": [(0x41, 0x5A)],
    "ASCII": [(0x00, 0x7F)],
    "Alpha": [(0x41, 0x5A), (0x61, 0x7A)],
    "Digit": [(0x30, 0x39)],
    "Alnum": [(0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)],
    "Punct": [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)],
    "Graph": [(0x21, 0x7E)],
    "Print": [(0x20, 0x7E)],
    "Blank": [(0x09, 0x09), (0x20, 0x20)],
    "Cntrl": [(0x00, 0x1F), (0x7F, 0x7F)],
    "XDigit": [(0x30, 0x39), (0x41, 0x46), (0x61, 0x66)],
    "Space": [(0x09, 0x0D), (0x20, 0x20)],
}
_CATEGORIES = frozenset(
    f"{major}{minor}"
    for major, minors in {
        "L": "ultmo",
        "M": "nce",
        "N": "dlo",
        "P": "cdseifo",
        "S": "mcko",
        "Z": "slp",
        "C": "cfo",
    }.items()
    for minor in ["", *minors]
)
# Unicode properties that look like scripts; RE2 has none of them.
_BINARY = frozenset(
    {
        "Alphabetic",
        "Assigned",
        "Control",
        "Ideographic",
        "Letter",
        "Lowercase",
        "Punctuation",
        "Titlecase",
        "Uppercase",
    }
)
# Java's end of line, which its dot does not match.
DOT = "[^\\n\\r\\x{85}\\x{2028}\\x{2029}]"


def code_point(code: int) -> str:
    """One character as RE2 takes it in and out of a class."""
    char = chr(code)
    if char.isascii() and (char.isalnum() or char == "_"):
        return char
    return f"\\{char}" if "!" <= char <= "~" else f"\\x{{{code:x}}}"


def escaped_set(letter: str) -> Ranges | None:
    """What ``\\d`` and its kin stand for; None when ``letter`` is none of them."""
    ranges = _ESCAPED.get(letter.lower())
    if ranges is None:
        return None
    return ranges if letter.islower() else _negated(ranges)


def named(scanner: Scanner, *, negative: bool) -> tuple[str, Ranges | None]:
    """``\\p{Name}`` after its p: as an item of a class, and as ranges where they are few enough to know."""
    start = scanner.at - 2
    if scanner.take("{"):
        name = scanner.until("}")
    else:
        name = scanner.next()
    plain = name
    if "=" in name:
        prefix, _, plain = name.partition("=")
        if prefix.lower() not in {"sc", "script", "gc", "general_category"}:
            raise Refused(start, f"\\p{{{name}}} has no counterpart", "use a category as in \\p{L}")
    posix = _POSIX.get(plain)
    if posix is not None and plain == name:
        ranges = _negated(posix) if negative else posix
        return text_of(ranges), ranges
    plain = plain.removeprefix("Is")
    if plain in _CATEGORIES or (plain.isalpha() and plain.istitle() and plain not in _BINARY):
        # A script that RE2 does not know is refused when the expression is compiled.
        return f"\\{'P' if negative else 'p'}{{{plain}}}", None
    suggestion = "use a category such as \\p{L} or \\p{Lu}, a script such as \\p{Greek}, or ranges"
    raise Refused(start, f"\\p{{{name}}} has no counterpart", suggestion)


def text_of(ranges: Ranges) -> str:
    """The inside of a class."""
    return "".join(
        code_point(low) if low == high else f"{code_point(low)}-{code_point(high)}"
        for low, high in ranges
    )


def bracketed(scanner: Scanner) -> str:
    """The class whose ``[`` has just been read, as RE2 takes it."""
    start = scanner.at - 1
    negative, items, ranges = _read(scanner, start, negative=scanner.take("^"))
    if ranges is not None and not ranges:
        raise Refused(start, "the class matches no character at all", "check its intersection")
    return f"[{'^' if negative else ''}{''.join(items)}]"


def _read(scanner: Scanner, start: int, *, negative: bool) -> tuple[bool, list[str], Ranges | None]:
    """(negated, items, ranges without the negation or None if they need Unicode's tables)."""
    items: list[str] = []
    ranges: Ranges | None = []
    first = True
    while True:
        if scanner.done():
            raise Refused(start, "the class is not closed", "close it with ], or write \\[")
        if scanner.peek() == "]" and not first:
            scanner.next()
            return negative, items, ranges
        if scanner.take("&&"):
            if negative:
                raise Refused(
                    start, "a negated intersection means different things to different Javas", ""
                )
            # Up to the end of the class, which is consumed; further intersections included.
            _, _, other = _read(scanner, start, negative=False)
            if ranges is None or other is None:
                raise Refused(start, "this intersection needs Unicode's tables", "write it out")
            ranges = _intersection(ranges, other)
            items = [text_of(ranges)]
            return False, items, ranges
        text, more = _item(scanner, start, negative=negative)
        first = False
        items.append(text)
        ranges = None if ranges is None or more is None else _union(ranges, more)


def _item(scanner: Scanner, start: int, *, negative: bool) -> tuple[str, Ranges | None]:
    char = scanner.next()
    if char == "[":
        if negative:
            raise Refused(
                start,
                "a class inside a negated class means different things to different Javas",
                "write the characters into one class, or \\[ for a bracket",
            )
        inner_negative, items, ranges = _read(scanner, scanner.at - 1, negative=scanner.take("^"))
        if not inner_negative:
            return "".join(items), ranges
        if ranges is None:
            raise Refused(start, "a negated class inside a class needs Unicode's tables", "")
        return text_of(_negated(ranges)), _negated(ranges)
    if char == "\\":
        letter = scanner.peek()
        if letter in {"p", "P"}:
            scanner.next()
            return named(scanner, negative=letter == "P")
        known = escaped_set(letter)
        if known is not None:
            scanner.next()
            return text_of(known), known
        low = scanner.escape()
    else:
        low = ord(char)
    return _range(scanner, low)


def _range(scanner: Scanner, low: int) -> tuple[str, Ranges]:
    high = low
    if scanner.peek() == "-" and scanner.peek(1) not in {"]", "[", ""}:
        dash = scanner.at
        scanner.next()
        char = scanner.next()
        if char == "\\":
            if escaped_set(scanner.peek()) is not None or scanner.peek() in {"p", "P"}:
                raise Refused(dash, "a range cannot end in a set", "write the dash as \\-")
            high = scanner.escape()
        else:
            high = ord(char)
        if high < low:
            raise Refused(dash, "the range runs backwards", "exchange its ends")
    return text_of([(low, high)]), [(low, high)]


def _union(left: Ranges, right: Ranges) -> Ranges:
    merged: Ranges = []
    for low, high in sorted([*left, *right]):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _negated(ranges: Ranges) -> Ranges:
    rest: Ranges = []
    after = 0
    for low, high in _union(ranges, []):
        if low > after:
            rest.append((after, low - 1))
        after = high + 1
    if after <= _LAST:
        rest.append((after, _LAST))
    return rest


def _intersection(left: Ranges, right: Ranges) -> Ranges:
    return _negated(_union(_negated(left), _negated(right)))
