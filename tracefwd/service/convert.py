"""``tracefwd convert``: Zipkin bodies in, the span and span log lines that ``run`` would send out.

Uses the same parts as ``run`` (``compose.py``), for the first primary target of the configuration, or for a proxy when
there is none.  Lines go to standard output and nothing else does; what was refused goes to standard error.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tracefwd.compose import Parts, decode_anything, make_parts, make_writer
from tracefwd.model import Decoded, WavefrontSpan
from tracefwd.settings import Settings, TargetSettings

if TYPE_CHECKING:
    from tracefwd.service.config import Loaded


def run(loaded: "Loaded", files: Sequence[str]) -> int:
    """0 when every file gave at least one span (or is an empty list), 1 otherwise."""
    settings = loaded.settings
    parts = make_parts(settings)
    decode = decode_anything(parts)
    writer = make_writer(first_target(settings), settings)
    worst = 0
    for file in files:
        body = read_body(file)
        if body is None:
            worst = 1
            continue
        decoded = decode(body, "")
        for payload in writer.write(kept_spans(parts, decoded)):
            sys.stdout.buffer.write(payload.data)
        complain(file, decoded)
        if decoded.rejects and not decoded.spans:
            worst = 1
    sys.stdout.buffer.flush()
    return worst


def first_target(settings: Settings) -> TargetSettings:
    primaries = [target for target in settings.exporter.targets if target.role == "primary"]
    return primaries[0] if primaries else TargetSettings()


def kept_spans(parts: Parts, decoded: Decoded) -> list[WavefrontSpan]:
    """What mapping and sampling leave of a body that arrives now."""
    spans = parts.mapper(decoded, time.time_ns() // 1_000).spans
    if parts.sampler is None:
        return spans
    return [span for span in spans if not parts.sampler.judge(span)]


def read_body(file: str) -> bytes | None:
    """A file's bytes (``-`` is standard input); None, with a word on standard error, when it cannot be read."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        print(
            f"tracefwd: {file}: {error.strerror}: give a readable file, or - for standard input",
            file=sys.stderr,
        )
        return None


def complain(file: str, decoded: Decoded) -> None:
    for reject in decoded.rejects:
        print(
            f"tracefwd: {file}: rejected ({reject.reason}): {reject.where}: {reject.detail}",
            file=sys.stderr,
        )
