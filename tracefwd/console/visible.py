"""Texts of strangers on a terminal: what would move the cursor, colour, ring or turn the writing round is written out.

Control characters, escape sequences, right-to-left marks, lone surrogates and invisible characters come out as
``\\x1b`` or ``\\u202e``; a text that is too long is cut, and says so.  Pure.
"""

import unicodedata

# Other: control, format, surrogate, private, unassigned; and the separators of lines and paragraphs.
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str, chars_max: int = 200) -> str:
    """One line of at most ``chars_max`` characters that no terminal takes for more than text."""
    cut = len(text) > chars_max
    piece = text[:chars_max] if cut else text
    if not (piece.isascii() and piece.isprintable()):
        piece = "".join(_shown(char) for char in piece)
        cut = cut or len(piece) > chars_max
    return piece[: chars_max - 1] + "…" if cut else piece


def _shown(char: str) -> str:
    if unicodedata.category(char) not in _HARMFUL:
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


__all__ = ["visible"]
