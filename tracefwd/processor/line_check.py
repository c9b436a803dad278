"""The proxy's check of spans that came as lines: after rules and sampling, before anything is written.

Refused, in the proxy's order and its words: a start more than 24 h ahead, no source or one that is too long, a name
that is too long, over 50 tags, a key that is too long or outside of the alphabet, a blank value.  Values that are too
long are cut; the whole ones go into a span log of their own.

Six switches of ``wavefront_proxy_rules.Deviations`` concern lines, too; off, the proxy's defects are copied: a cut
splits a character (``whole_characters``), an end in a backslash swallows its quote (``trailing_backslash``), a start of
0 or before September 2001 is read as seconds (``missing_start``, ``past_start``), a duration longer than since 1970 is
read as an end (``impossible_duration``), and a source may be longer than the backend takes (``cut_not_refused``).  The
others are about what only Zipkin's spans have, or would mend what such senders are told of by a reject.

Nothing else is changed: such senders clean their own keys and values.  Pure but for a bounded memo of keys.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from tracefwd import naming
from tracefwd.limits import (
    FUTURE_START_MS_MAX,
    MEMO_ENTRIES_MAX,
    NAME_LENGTH_MAX,
    SOURCE_LENGTH_MAX,
    SPAN_TAGS_MAX,
    START_MS_MIN,
    TAG_KEY_LENGTH_MAX,
    TAG_VALUE_LENGTH_MAX,
)
from tracefwd.model import LineCheck, Mapped, Reject, WavefrontSpan
from tracefwd.processor import java_text
from tracefwd.processor.wavefront_proxy_rules import (
    PROXY_SOURCE_LENGTH_MAX,
    Deviations,
    Repairs,
    note,
)

SPAN_LOGS = "_spanLogs"
_KEY = re.compile("(?:[\u2206\u0394]~?|~)?[A-Za-z0-9,./_-]*")
_NO_KEYS = frozenset({"", "\u2206", "\u0394"})


class _RefusedError(Exception):
    def __init__(self, where: str, detail: str) -> None:
        super().__init__(detail)
        self.where = where


def make_line_check(deviations: Deviations) -> LineCheck:
    """Spans are changed in place; those of the answer may go out."""
    checker = _Checker(deviations)

    def check(spans: Sequence[WavefrontSpan], now_us: int) -> Mapped:
        good: list[WavefrontSpan] = []
        rejects: list[Reject] = []
        repairs: Repairs = {}
        for span in spans:
            try:
                checker.check(span, now_us, repairs)
            except _RefusedError as refused:
                rejects.append(Reject("invalid", refused.where, str(refused)))
            else:
                good.append(span)
        return Mapped(good, rejects, repairs=repairs or None)

    return check


class _Checker:
    def __init__(self, deviations: Deviations) -> None:
        self._deviations = deviations
        whole = deviations.whole_characters
        self._cut: Callable[[str, int], str] = naming.cut if whole else java_text.cut
        self._good_keys: set[str] = set()

    def check(self, span: WavefrontSpan, now_us: int, repairs: Repairs) -> None:
        """Mends the span and counts that; raises ``_RefusedError``."""
        if span.start_ms > now_us // 1_000 + FUTURE_START_MS_MAX:
            raise _RefusedError("start", "Span outside of reasonable timeframe")
        self._mend_times(span, now_us, repairs)
        self._check_source(span, repairs)
        self._check_name(span, repairs)
        count = len(span.head) + len(span.tags) + len(span.tail) + (span.parent_id is not None)
        if count > SPAN_TAGS_MAX:
            detail = f"Span has too many annotations ({count}, max {SPAN_TAGS_MAX})"
            raise _RefusedError("tags", f"WF-430: {detail}")
        if not span.tail and not span.head and self._is_usual(span.tags):
            return
        self._check_tags(span, repairs)

    def _is_usual(self, tags: Mapping[str, str]) -> bool:
        """Whether nothing about these tags needs a second look; a few searches instead of one per tag."""
        return self._good_keys.issuperset(tags) and java_text.all_plain(
            [*tags.values()], TAG_VALUE_LENGTH_MAX
        )

    def _mend_times(self, span: WavefrontSpan, now_us: int, repairs: Repairs) -> None:
        """A line's readers take small starts for seconds, and durations above the start for ends.

        Seconds beyond 64 bits of milliseconds have come out negative.
        """
        deviations = self._deviations
        start_ms = span.start_ms
        if start_ms < START_MS_MIN and (
            deviations.past_start if start_ms else deviations.missing_start
        ):
            note(repairs, "past_start" if start_ms else "no_timestamp")
            span.start_ms = max(now_us // 1_000 - max(span.duration_ms, 0), START_MS_MIN)
        if deviations.impossible_duration and not 0 <= span.duration_ms < max(span.start_ms, 1):
            note(repairs, "duration")
            span.duration_ms = span.duration_us = 0

    def _check_source(self, span: WavefrontSpan, repairs: Repairs) -> None:
        source = span.source
        if java_text.is_blank(source):
            raise _RefusedError("source", "WF-426: Span source/host name is required")
        length = naming.length(source)
        if length > PROXY_SOURCE_LENGTH_MAX:
            detail = f"Span source/host name is too long ({length} characters, max: {PROXY_SOURCE_LENGTH_MAX})"
            raise _RefusedError("source", f"WF-427: {detail}")
        if length > SOURCE_LENGTH_MAX and self._deviations.cut_not_refused:
            note(repairs, "source_cut")
            source = self._cut(source, SOURCE_LENGTH_MAX)
            length = SOURCE_LENGTH_MAX
        span.source = self._ended(source, max(length, SOURCE_LENGTH_MAX), repairs)

    def _check_name(self, span: WavefrontSpan, repairs: Repairs) -> None:
        name = span.name.replace("*", "-")
        length = naming.length(name)
        if length > NAME_LENGTH_MAX:
            detail = f"Span name is too long ({length} characters, max: {NAME_LENGTH_MAX})"
            raise _RefusedError("name", f"WF-428: {detail}")
        span.name = self._ended(name, NAME_LENGTH_MAX, repairs)

    def _check_tags(self, span: WavefrontSpan, repairs: Repairs) -> None:
        oversize: dict[str, str] = {}
        self._check_keys(key for key, _ in (*span.head, *span.tail))
        self._check_keys(span.tags)
        tags = {key: self._value(key, span.tags[key], oversize, repairs) for key in span.tags}
        head = self._pairs(span.head, oversize, repairs)
        tail = self._pairs(span.tail, oversize, repairs)
        if oversize:
            span.oversize = oversize
            # The writer adds it where the target takes span logs; the proxy sets the first one that is there.
            if tags.pop(SPAN_LOGS, None) is None:
                tail = _without_first(tail, SPAN_LOGS)
        span.tags, span.head, span.tail = tags, head, tail

    def _check_keys(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self._good_keys:
                continue
            if (length := naming.length(key)) > TAG_KEY_LENGTH_MAX:
                detail = f"Span annotation key is too long ({length} characters, max: {TAG_KEY_LENGTH_MAX})"
                raise _RefusedError("tags", f"WF-432: {detail}")
            if key in _NO_KEYS or not _KEY.fullmatch(key):
                raise _RefusedError(
                    "tags", f"WF-416: Span annotation key has illegal character(s): {key}"
                )
            if len(self._good_keys) >= MEMO_ENTRIES_MAX:
                self._good_keys.clear()
            self._good_keys.add(key)

    def _pairs(
        self, pairs: tuple[tuple[str, str], ...], oversize: dict[str, str], repairs: Repairs
    ) -> tuple[tuple[str, str], ...]:
        if not pairs:
            return pairs
        return tuple((key, self._value(key, value, oversize, repairs)) for key, value in pairs)

    def _value(self, key: str, value: str, oversize: dict[str, str], repairs: Repairs) -> str:
        if java_text.is_plain(value, TAG_VALUE_LENGTH_MAX):
            return value
        if java_text.is_blank(value):
            detail = f"Span annotation value for {key} is empty or missing"
            raise _RefusedError("tags", f"WF-434: {detail}")
        if naming.length(value) > TAG_VALUE_LENGTH_MAX:
            note(repairs, "value_cut")
            oversize[key] = value
            value = self._cut(value, TAG_VALUE_LENGTH_MAX)
        return self._ended(value, TAG_VALUE_LENGTH_MAX, repairs)

    def _ended(self, text: str, length_max: int, repairs: Repairs) -> str:
        if not self._deviations.trailing_backslash or not text.endswith("\\"):
            return text
        note(repairs, "trailing_backslash")
        return naming.guard_end(naming.cut(text, length_max - 1))


def _without_first(pairs: tuple[tuple[str, str], ...], key: str) -> tuple[tuple[str, str], ...]:
    at = next((index for index, pair in enumerate(pairs) if pair[0] == key), len(pairs))
    return pairs[:at] + pairs[at + 1 :]


__all__ = ["make_line_check"]
