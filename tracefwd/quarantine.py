"""The ring of rejected samples: what a sender did wrong, without what its spans say.

Newest first, bounded, values masked: the shape of a span and its field names are kept, every text value is not.
Nothing here may grow with input: a sample was cut by the decoder already.
"""

import re
from collections import deque
from collections.abc import Iterable

from tracefwd.limits import REJECT_SAMPLES_MAX
from tracefwd.model import Reject

# A JSON text, closed or cut off at the end of the sample.
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*(?:"|$)', re.DOTALL)
# What names a field or a well-known tag, and tells a person where they are; everything else is a value.
_NUMBER = re.compile(r"-?\d[\d.eE+-]*")
# What a span line is made of: quoted text (a backslash escapes its quote), "=", anything else up to a blank or "=".
_LINE_PIECE = re.compile(r'"(?:[^"\\]|\\"|\\(?!"))*(?:"|$)|=|[^\s="]+|"')
# Who sent a span, as Istio's tags or its endpoint say; the first that is there.
_SENDERS = tuple(
    re.compile(rf'"{key}"\s*:\s*"([^"\\]{{1,128}})"'.encode())
    for key in ("istio.canonical_service", "serviceName")
)
_NAMESPACE = re.compile(rb'"istio.namespace"\s*:\s*"([^"\\]{1,128})"')
_SHOWN_KEY_MAX = 66
_SHOWN_DETAIL_MAX = 300


def mask(sample: bytes) -> str:
    """Field names and structure; texts as "***", numbers as 0, what is neither JSON nor a span line as its length."""
    text = sample.decode("utf-8", "replace")
    if "=" in text and not text.lstrip().startswith(("{", "[")):
        return _mask_line(text)
    if not text.lstrip("\ufeff \t\r\n").startswith(("{", "[", '"')):
        return f"({len(sample)} bytes that are not JSON)"
    shown: list[str] = []
    last = 0
    for match in _TEXT.finditer(text):
        shown.append(_NUMBER.sub("0", text[last : match.start()]))
        is_key = text[match.end() : match.end() + 8].lstrip()[:1] == ":"
        shown.append(match[0] if is_key and len(match[0]) <= _SHOWN_KEY_MAX else '"***"')
        last = match.end()
    shown.append(_NUMBER.sub("0", text[last:]))
    return "".join(shown)


def _mask_line(text: str) -> str:
    """Keys of a span line, which stand before "=", as they are; everything else masked."""
    pieces = _LINE_PIECE.findall(text)
    shown: list[str] = []
    for piece, follower in zip(pieces, [*pieces[1:], ""], strict=True):
        if piece == "=":
            shown.append(piece)
        elif follower == "=" and shown[-1:] != ["="] and len(piece) <= _SHOWN_KEY_MAX:
            shown.append(f" {piece}")
        else:
            masked = "0" if piece.isdecimal() else '"***"'
            shown.append(masked if shown[-1:] == ["="] else f" {masked}")
    return "".join(shown).strip()


def sender(sample: bytes) -> str:
    """The workload that sent a span (``reviews.default``), as far as its text can be read; "" if not."""
    for pattern in _SENDERS:
        if found := pattern.search(sample):
            name = found[1].decode("utf-8", "replace")
            space = _NAMESPACE.search(sample)
            if space is None or "." in name:
                return name
            return f"{name}.{space[1].decode('utf-8', 'replace')}"
    return ""


class Quarantine:
    """The newest rejected samples of a worker."""

    def __init__(self) -> None:
        self._ring: deque[tuple[int, Reject]] = deque(maxlen=REJECT_SAMPLES_MAX)

    def add(self, rejects: Iterable[Reject], now_us: int) -> None:
        self._ring.extend((now_us, reject) for reject in rejects)

    def show(self) -> list[dict[str, str]]:
        """``at`` (epoch seconds), ``reason``, ``where``, ``detail``, ``sender``, ``sample`` (masked)."""
        return [
            {
                "at": f"{now_us / 1e6:.3f}",
                "reason": reject.reason,
                "where": reject.where,
                "detail": reject.detail[:_SHOWN_DETAIL_MAX],
                "sender": sender(reject.sample),
                "sample": mask(reject.sample),
            }
            for now_us, reject in reversed(self._ring)
        ]
