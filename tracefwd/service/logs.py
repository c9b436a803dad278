"""What tracefwd says while it runs: JSON lines for machines, short text on a terminal, always on one stream.

1. ERROR is lost data or a human needed, WARNING is something that healed; nothing is said per span.
2. The same sentence (logger, level and template) is said ``REPEATS_MAX`` times per ``REPEATS_INTERVAL_S``; what was
   held back is told afterwards: ``suppressed n``.  So a template is a constant, and what varies is an argument; a
   record whose template has no words of its own names its sentence (``extra={"sentence": ...}``).
3. No secret leaves: every finished text goes through ``masking.redact``, tracebacks included.
4. One record is one line of JSON.  In text, control characters are escaped: clients choose some of the words.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from tracefwd.service.masking import redact
from tracefwd.settings import ServiceSettings

# One sentence every 6 s keeps a failing target visible and a disk alive.
REPEATS_MAX = 10
REPEATS_INTERVAL_S = 60.0
# Templates are constants in the code, a few hundred with the libraries'; more means that one is not a constant.
TEMPLATES_MAX = 512

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_COLOURS: Final = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_PLAIN: Final = "\x1b[0m"
# What a record may say of itself where its template is many sentences': what its repeats are counted by.
_SENTENCE: Final = "sentence"
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def setup(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:  # noqa: A002
    """Replace whatever handler was there.  ``format`` is auto, json or text; ``stream`` defaults to stderr.

    Libraries are heard from WARNING on, whatever ``level`` says below that.
    """
    out = sys.stderr if stream is None else stream
    terminal = out.isatty()
    formatter: logging.Formatter
    if format == "json" or (format == "auto" and not terminal):
        formatter = JsonFormatter()
    else:
        formatter = TextFormatter(colour=terminal and colour_allowed())
    handler = Handler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, Handler):
            old.close()
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    logging.getLogger("tracefwd").setLevel(_LEVELS[level])
    logging.captureWarnings(capture=True)


def configure(service: ServiceSettings) -> None:
    """``setup`` as the configuration says."""
    setup(service.log_level, service.log_format)


def colour_allowed() -> bool:
    """https://no-color.org: any value but the empty one switches colour off."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _level_name(record: logging.LogRecord) -> str:
    return "error" if record.levelno >= logging.ERROR else record.levelname.lower()


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(record).items()
        if key not in _STANDARD and key != _SENTENCE
    }


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message", ...extras, "exception"?}``; time is UTC in milliseconds."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": _level_name(record),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        for key, value in _extras(record).items():
            # By name too: a field called token is a secret whatever its text looks like.
            fields.setdefault(key, _json_value(key, value))
        if record.exc_info:
            fields["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False)


def _json_value(key: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        # NaN and infinities are no JSON.
        return value if value - value == 0 else str(value)
    mark = f"{key}="
    return redact(f"{mark}{value}").removeprefix(mark)


class TextFormatter(logging.Formatter):
    """``12:00:01 WARNING message key=value (logger)``; one line, but for a traceback below it."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = _level_name(record)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
        logger = record.name.removeprefix("tracefwd.")
        line = _one_line(redact(f"{record.getMessage()}{extras} ({logger})"))
        start = f"{clock} {level.upper():7} "
        if self._colour and level in _COLOURS:
            start = f"{_COLOURS[level]}{start}{_PLAIN}"
        if record.exc_info:
            below = redact(self.formatException(record.exc_info)).split("\n")
            line = "\n".join([line, *map(_one_line, below)])
        return start + line


def _one_line(text: str) -> str:
    """Escapes what a terminal or a reader of lines would act upon."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


@dataclass(slots=True)
class _Sentence:
    """How often one template was said in its current interval."""

    since_s: float
    said: int = 0
    suppressed: int = 0


class RepeatFilter(logging.Filter):
    """Lets a template pass ``times`` per ``interval_s``; ``due`` gives back what it held when the interval is over."""

    def __init__(
        self,
        times: int = REPEATS_MAX,
        interval_s: float = REPEATS_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._times = times
        self._interval_s = interval_s
        self._clock = clock
        self._sentences: dict[tuple[str, int, str], _Sentence] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        sentence_of = getattr(record, _SENTENCE, record.msg)
        key = (record.name, record.levelno, str(sentence_of))
        sentence = self._sentences.get(key)
        if sentence is None:
            sentence = self._sentences[key] = _Sentence(self._clock())
        sentence.said += 1
        if sentence.said <= self._times:
            return True
        sentence.suppressed += 1
        return False

    def due(self, *, everything: bool = False) -> list[logging.LogRecord]:
        """Records that tell how much was held back; forgets the sentences whose interval is over.

        To be called before ``filter``, so that a record finds a fresh interval.
        """
        now = self._clock()
        everything = everything or len(self._sentences) >= TEMPLATES_MAX
        over = [
            (key, sentence)
            for key, sentence in self._sentences.items()
            if everything or now - sentence.since_s >= self._interval_s
        ]
        records: list[logging.LogRecord] = []
        for key, sentence in over:
            del self._sentences[key]
            if sentence.suppressed:
                name, level, template = key
                args = (sentence.suppressed, now - sentence.since_s, template)
                text = "suppressed %d more in %.0f s like: %s"
                records.append(logging.LogRecord(name, level, __file__, 0, text, args, None))
        return records


class Handler(logging.StreamHandler[TextIO]):
    """Writes what the repeat filter lets pass, and its accounts when they are due or at the end."""

    def __init__(self, stream: TextIO, repeats: RepeatFilter | None = None) -> None:
        super().__init__(stream)
        self._repeats = repeats or RepeatFilter()

    def handle(self, record: logging.LogRecord) -> bool:
        with self._guard():
            for account in self._repeats.due():
                self.emit(account)
            if not self._repeats.filter(record):
                return False
            self.emit(record)
        return True

    def _guard(self) -> Any:
        # createHandler made a reentrant lock: logging from within emit must not stop the process.
        assert self.lock is not None
        return self.lock

    def close(self) -> None:
        """Tell what is still held back; called at exit by ``logging.shutdown``, too."""
        with self._guard():
            for account in self._repeats.due(everything=True):
                if not self.stream.closed:
                    self.emit(account)
        super().close()


__all__ = [
    "Handler",
    "JsonFormatter",
    "RepeatFilter",
    "TextFormatter",
    "colour_allowed",
    "configure",
    "setup",
]
