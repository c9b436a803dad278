"""``if`` as an expression: ``{{http.status_code}} in ("404", "410") and not $duration > 1000``.

What is understood::

    expression  := negation (("and" | "or") negation)*        and, or: the same rank, from left to right
    negation    := "not" negation | relation
    relation    := operand (("=" | "!=" | "<" | "<=" | ">" | ">=") operand)*
    operand     := number | "$" property | "(" expression ")" | comparison
    comparison  := text operator text | text "in" "(" text ("," text)* ")"
                 | placeholder ("any" | "all" | "none") operator text
    text        := "quoted" | 'quoted' | placeholder | "(" text ")"

That ``and`` does not bind tighter than ``or`` is the proxy's grammar, so it is ours: a file must mean what it meant.
A quoted text may hold ``{{placeholders}}``.  A number may end in an SI suffix (``5k``).  Of numbers, all but 0 are
true.  The proxy's functions, arithmetic, bit operators and ``? :`` are refused with their position.
"""

import operator as op
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from tracefwd.processor.rules import comparisons, templates
from tracefwd.processor.rules.dialect import Refused
from tracefwd.processor.rules.subject import Kind, Subject, Test, Text, all_values

Number = Callable[[Subject], float]
T = TypeVar("T")

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r\n]+|/\*.*?\*/|//[^\r\n]*)
    |(?P<placeholder>\{\{\s*(?:"[^"]*"|'[^']*'|[^}"']+?)\s*\}\})
    |(?P<quoted>"(?:\\"|[^"])*"|'(?:\\'|[^'])*')
    |(?P<number>0x[0-9A-Fa-f]+|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
    |(?P<property>\$[ \t]*[A-Za-z]+)
    |(?P<word>[A-Za-zµ][A-Za-z0-9]*)
    |(?P<relation>[<>!][ \t]*=|[<>](?![<>])|=)
    |(?P<mark>[(),])
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "=": op.eq,
    "!=": op.ne,
    "<": op.lt,
    "<=": op.le,
    ">": op.gt,
    ">=": op.ge,
}
_SI_UP = dict(zip(["k", "M", "G", "T", "P", "E", "Z", "Y"], range(3, 25, 3), strict=True))
_SI_DOWN = dict(zip(["m", "µ", "n", "p", "f", "a", "z", "y"], range(-3, -25, -3), strict=True))
_SI = {
    name: float(f"1e{power}")
    for name, power in (_SI_UP | _SI_DOWN | {"h": 2, "da": 1, "d": -1, "c": -2}).items()
}
# Smaller numbers are as good as 0 where truth is asked.
_TRUE_ABOVE = 1e-6
# Parentheses and nots in each other; Python's own limit would raise something else.
_DEPTH_MAX = 50
_HINTS = {
    "+": 'write "{{a}}{{b}}" to join texts; numbers cannot be added',
    ".": "compare the value itself, with an IgnoreCase operator or regexMatch",
    "?": "write two rules",
    "{": "a placeholder is {{key}}",
    '"': "close the quotes",
    "'": "close the quotes",
}


class _Token(NamedTuple):
    sort: str
    text: str
    at: int


class _Operand(NamedTuple):
    """``text`` or ``number`` is set.  ``key`` is a bare placeholder's, ``constant`` a text without placeholders."""

    at: int
    number: Number | None = None
    text: Text | None = None
    key: str | None = None
    constant: str | None = None


def parse_expression(kind: Kind, expression: str) -> Test:
    """The expression as a predicate; raises ``Refused`` with the position (from 0)."""
    parser = _Parser(kind, expression)
    operand = parser.expression()
    token = parser.peek()
    if token.sort != "end":
        raise _unexpected(token)
    return _truth(_number(operand))


def _tokens(text: str) -> list[_Token]:
    found = [
        _Token(str(match.lastgroup), match[0], match.start())
        for match in _TOKEN.finditer(text)
        if match.lastgroup != "skip"
    ]
    return [*found, _Token("end", "", len(text))]


def _unexpected(token: _Token) -> Refused:
    if token.sort == "end":
        return Refused(token.at, "the expression ends too early", "")
    return Refused(
        token.at,
        f"'{token.text}' cannot stand here or is not supported",
        _HINTS.get(token.text, ""),
    )


def _number(operand: _Operand) -> Number:
    if operand.number is None:
        raise Refused(operand.at, "a text alone is not true or false", 'compare it: = "text"')
    return operand.number


def _truth(number: Number) -> Test:
    return lambda subject: abs(number(subject)) > _TRUE_ABOVE


class _Parser:
    def __init__(self, kind: Kind, expression: str) -> None:
        self.kind = kind
        self.tokens = _tokens(expression)
        self.next = 0
        self.depth = 0

    def peek(self) -> _Token:
        return self.tokens[self.next]

    def take(self, *texts: str) -> _Token | None:
        """The next token if it is one of ``texts`` and no quoted text."""
        token = self.peek()
        if token.text not in texts or token.sort == "quoted":
            return None
        self.next += 1
        return token

    def expect(self, text: str) -> None:
        if self.take(text) is None:
            token = self.peek()
            raise Refused(token.at, f"'{text}' is missing", "")

    def expression(self) -> _Operand:
        left = self.negation()
        while (token := self.take("and", "AND", "or", "OR")) is not None:
            first, second = _truth(_number(left)), _truth(_number(self.negation()))
            left = _Operand(left.at, _combined(token.text.lower(), first, second))
        return left

    def negation(self) -> _Operand:
        token = self.take("not", "NOT")
        if token is None:
            return self.relation()
        self._deeper(token)
        inner = _truth(_number(self.negation()))
        self.depth -= 1
        return _Operand(token.at, lambda subject: not inner(subject))

    def relation(self) -> _Operand:
        left = self.operand()
        while self.peek().sort == "relation" and left.number is not None:
            token = self.tokens[self.next]
            self.next += 1
            compare = _RELATIONS[re.sub(r"\s", "", token.text)]
            right = self.operand()
            if right.number is None:
                raise Refused(token.at, f"'{token.text}' compares a number with a text", "")
            left = _Operand(left.at, _related(compare, left.number, right.number))
        return left

    def operand(self) -> _Operand:
        token = self.peek()
        if token.sort in {"quoted", "placeholder"} or self._text_in_parentheses():
            return self.comparison(self.text())
        self.next += 1
        if token.text == "(" and token.sort == "mark":
            self._deeper(token)
            inner = self.expression()
            self.depth -= 1
            self.expect(")")
            return inner
        if token.sort == "property":
            return self.property(token)
        if token.sort == "number" or (token.text in {"-", "+"} and self.peek().sort == "number"):
            return self.number(token)
        raise _unexpected(token) if token.sort != "word" else _function(token)

    def _deeper(self, token: _Token) -> None:
        self.depth += 1
        if self.depth > _DEPTH_MAX:
            raise Refused(token.at, f"it is nested more than {_DEPTH_MAX} deep", "")

    def _text_in_parentheses(self) -> bool:
        """Whether ``(`` opens a text: ``("a") = "a"``, not ``("a" = "a")``."""
        opened = 0
        while self.tokens[self.next + opened][:2] == ("mark", "("):
            opened += 1
        after = self.tokens[self.next + opened + 1 :][:opened]
        return (
            0 < opened == len(after)
            and self.tokens[self.next + opened].sort in {"quoted", "placeholder"}
            and all(token[:2] == ("mark", ")") for token in after)
        )

    def text(self) -> _Operand:
        token = self.peek()
        self.next += 1
        if token.sort == "placeholder":
            key = token.text[2:-2].strip()
            if key[0] in "\"'":
                key = key[1:-1]
            return _Operand(token.at, text=templates.placeholder(self.kind, key), key=key)
        if token.sort == "quoted":
            quote = token.text[0]
            text = token.text[1:-1].replace(f"\\{quote}", quote)
            parts = templates.pieces(self.kind, text)
            fixed = text if all(isinstance(part, str) for part in parts) else None
            return _Operand(token.at, text=templates.filler(parts), constant=fixed)
        if token.text == "(" and token.sort == "mark":
            self._deeper(token)
            inner = self.text()
            self.depth -= 1
            self.expect(")")
            return inner
        raise Refused(token.at, "a text is missing", 'write "text" or {{key}}')

    def comparison(self, left: _Operand) -> _Operand:
        if left.text is None:
            return left
        many = self.take("any", "ANY", "all", "ALL", "none", "NONE")
        token = self.peek()
        if many is None and self.take("in") is not None:
            return _Operand(left.at, _contained(left.text, self._list()))
        if token.text not in comparisons.OPERATORS or token.sort not in {"word", "relation"}:
            # Whoever holds the text says what is wrong: alone, or before something that is not supported.
            if many is None and token.sort in {"end", "mark"}:
                return left
            if token.sort == "relation":
                raise Refused(token.at, f"'{token.text}' compares numbers", "use regexMatch")
            raise _unexpected(token)
        self.next += 1
        right = self.text()
        if many is None:
            return _Operand(left.at, _compared(left.text, token, right))
        if left.key is None:
            raise Refused(many.at, f"'{many.text}' wants {{{{key}}}} before it", "")
        values = all_values(self.kind, left.key)
        return _Operand(left.at, _multiple(many.text.lower(), values, token, right))

    def _list(self) -> list[_Operand]:
        self.expect("(")
        options = [self.text()]
        while self.take(",") is not None:
            options.append(self.text())
        self.expect(")")
        return options

    def property(self, token: _Token) -> _Operand:
        name = token.text[1:].strip()
        read = self.kind.properties.get(name)
        if read is None:
            known = " and ".join(f"${known}" for known in self.kind.properties)
            raise Refused(token.at, f"a {self.kind.noun} has no ${name}", f"it has {known}")
        return _Operand(token.at, read)

    def number(self, token: _Token) -> _Operand:
        sign = 1.0
        if token.sort != "number":
            sign = -1.0 if token.text == "-" else 1.0
            token = self.peek()
            self.next += 1
        text = token.text
        value = float(int(text, 16)) if text.startswith("0x") else float(text)
        suffix = self.peek()
        if suffix.sort == "word" and suffix.text in _SI:
            self.next += 1
            value *= _SI[suffix.text]
        constant = sign * value
        return _Operand(token.at, lambda _: constant)


def _function(token: _Token) -> Refused:
    return Refused(
        token.at,
        f"'{token.text}' cannot stand here or is not supported",
        "functions and bare words are not: compare {{key}} or $duration with a constant",
    )


def _combined(word: str, first: Test, second: Test) -> Number:
    if word == "and":
        return lambda subject: bool(first(subject) and second(subject))
    return lambda subject: bool(first(subject) or second(subject))


def _related(compare: Callable[[float, float], bool], left: Number, right: Number) -> Number:
    return lambda subject: compare(left(subject), right(subject))


def _contained(left: Text, options: list[_Operand]) -> Number:
    wanted = frozenset(option.constant for option in options)
    if None not in wanted:
        return lambda subject: left(subject) in wanted
    texts = [option.text for option in options if option.text is not None]
    return lambda subject: any(left(subject) == text(subject) for text in texts)


def _compared(left: Text, token: _Token, right: _Operand) -> Number:
    if right.constant is not None:
        test = _at(right, lambda: comparisons.against(token.text, right.constant or ""))
        return lambda subject: test(left(subject))
    compare = _at(right, lambda: comparisons.between(token.text))
    other = right.text
    assert other is not None
    return lambda subject: compare(left(subject), other(subject))


def _multiple(
    word: str, values: Callable[[Subject], list[str]], token: _Token, right: _Operand
) -> Number:
    compare = _at(right, lambda: _pairwise(token.text, right))
    if word == "all":
        return lambda subject: all(compare(value, subject) for value in values(subject))
    if word == "any":
        return lambda subject: any(compare(value, subject) for value in values(subject))
    return lambda subject: not any(compare(value, subject) for value in values(subject))


def _pairwise(name: str, right: _Operand) -> Callable[[str, Subject], bool]:
    if right.constant is not None:
        test = comparisons.against(name, right.constant)
        return lambda value, _: test(value)
    compare, other = comparisons.between(name), right.text
    assert other is not None
    return lambda value, subject: compare(value, other(subject))


def _at(operand: _Operand, build: Callable[[], T]) -> T:
    """``build()``, whose refusal is told with the operand's place."""
    try:
        return build()
    except Refused as refused:
        raise Refused(operand.at, refused.reason, refused.suggestion) from refused
