"""Reading a Java expression character by character, and saying where it cannot be followed."""

_OCTAL = frozenset("01234567")
_HEX = frozenset("0123456789abcdefABCDEF")
_CONTROL = {"t": 0x09, "n": 0x0A, "r": 0x0D, "f": 0x0C, "a": 0x07, "e": 0x1B}


class Refused(Exception):  # noqa: N818 - said to the operator, never seen by a caller of the room
    """Something that RE2 cannot do as Java does: position in the expression (from 0), reason, suggestion."""

    def __init__(self, position: int, reason: str, suggestion: str) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason
        self.suggestion = suggestion


class Scanner:
    """A cursor over an expression."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def done(self) -> bool:
        return self.at >= len(self.text)

    def peek(self, ahead: int = 0) -> str:
        """The character at the cursor, "" at the end."""
        return self.text[self.at + ahead : self.at + ahead + 1]

    def next(self) -> str:
        if self.done():
            raise Refused(self.at, "the expression ends too early", "")
        char = self.text[self.at]
        self.at += 1
        return char

    def take(self, wanted: str) -> bool:
        """Step over ``wanted`` if it comes next."""
        if self.text.startswith(wanted, self.at):
            self.at += len(wanted)
            return True
        return False

    def until(self, end: str) -> str:
        """The text up to ``end``, which is stepped over."""
        stop = self.text.find(end, self.at)
        if stop < 0:
            raise Refused(self.at, f"'{end}' is missing", "")
        found = self.text[self.at : stop]
        self.at = stop + len(end)
        return found

    def escape(self) -> int:
        """The character that a backslash, already read, and what follows it stand for, as its code point."""
        start = self.at - 1
        letter = self.next()
        if letter in _CONTROL:
            return _CONTROL[letter]
        if letter == "x":
            return self._hex(start)
        if letter == "u":
            return self._utf16(start)
        if letter == "0":
            return self._octal(start)
        if letter == "c":
            return ord(self.next()) ^ 64
        if letter.isascii() and letter.isalnum():
            raise Refused(start, f"\\{letter} is nothing that can be matched here", "")
        return ord(letter)

    def _digits(self, start: int, count: int) -> int:
        digits = self.text[self.at : self.at + count]
        if len(digits) < count or not _HEX.issuperset(digits):
            raise Refused(start, f"{count} hexadecimal digits are missing", "")
        self.at += count
        return int(digits, 16)

    def _hex(self, start: int) -> int:
        if not self.take("{"):
            return self._digits(start, 2)
        digits = self.until("}")
        if not digits or not _HEX.issuperset(digits) or int(digits, 16) > 0x10FFFF:
            raise Refused(start, "\\x{...} wants a code point in hexadecimal digits", "")
        return int(digits, 16)

    def _utf16(self, start: int) -> int:
        unit = self._digits(start, 4)
        if 0xD800 <= unit < 0xDC00 and self.take("\\u"):
            low = self._digits(start, 4)
            if 0xDC00 <= low < 0xE000:
                return 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
        if 0xD800 <= unit < 0xE000:
            raise Refused(start, "half of a surrogate pair is no character", "write both halves")
        return unit

    def _octal(self, start: int) -> int:
        digits = ""
        while len(digits) < 3 and self.peek() in _OCTAL and self.peek():
            if len(digits) == 2 and digits[0] > "3":
                break
            digits += self.next()
        if not digits:
            raise Refused(start, "\\0 wants an octal number", "")
        return int(digits, 8)
