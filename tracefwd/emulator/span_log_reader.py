"""Reads span logs: one JSON object per line.

    {"traceId": …, "spanId": …, "logs": [{"timestamp": µs, "fields": {…}}], "spanSecondaryId": …, "span": …}

``span`` is where proxies and backend part: a proxy's port parses it as a span line and loses the log if it is none;
direct ingestion also understands ``_sampledByPolicy=…``.  Pure.
"""

from typing import Any, NamedTuple

import msgspec

from tracefwd.emulator.rules import Limits, Refused
from tracefwd.emulator.span_reader import parse_span

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_POLICY = "_sampledByPolicy="
_LONG_MAX = 2**63 - 1


class TakenSpanLog(NamedTuple):
    """``identity`` as a span's; ``entries``: how many log entries the line holds."""

    identity: tuple[str, str, str]
    entries: int
    warnings: tuple[str, ...]


class SpanLogReader:
    """The verdict on span log lines.

    ``policy_member``: ``span`` may be ``_sampledByPolicy=…`` (direct ingestion).  ``span_member``: ``span`` is looked
    at at all (proxies from 8.1 on).
    """

    def __init__(
        self, limits: Limits, *, policy_member: bool = False, span_member: bool = True
    ) -> None:
        self._limits = limits
        self._policy_member = policy_member
        self._span_member = span_member

    def read(self, line: str, now_ms: int) -> TakenSpanLog:
        """``now_ms`` is for the readers' common shape: a span log's times are not checked."""
        warnings = []
        size = len(line) if line.isascii() else len(line.encode("utf-8", "replace"))
        if size > self._limits.span_log_backend_bytes_max:
            warnings.append("span_log_above_backend_limit")
        if self._limits.span_log_bytes_max is not None and size > self._limits.span_log_bytes_max:
            limit = self._limits.span_log_bytes_max
            raise Refused("span_log_too_long", f"Span log is too long ({size} bytes, max: {limit})")
        try:
            log = _decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Refused("json", f"Not a JSON object: {error}") from None
        trace_id, span_id = _text(log, "traceId"), _text(log, "spanId")
        secondary = log.get("spanSecondaryId")
        if secondary is None:
            secondary = log.get("_spanSecondaryId")
        entries = _entries(log.get("logs"), warnings)
        self._check_span_member(log.get("span"))
        identity = (trace_id, span_id, secondary if isinstance(secondary, str) else "")
        return TakenSpanLog(identity, entries, tuple(warnings))

    def _check_span_member(self, member: Any) -> None:
        if not isinstance(member, str) or not self._span_member:
            return
        if self._policy_member and member.startswith(_POLICY):
            return
        try:
            parse_span(member)
        except Refused as refused:
            raise Refused("span_member", f"span is no span line: {refused}") from None


def _text(log: dict[str, Any], key: str) -> str:
    value = log.get(key)
    if not isinstance(value, str):
        raise Refused("json", f"{key} must be a text")
    return value


def _entries(logs: Any, warnings: list[str]) -> int:
    if not isinstance(logs, list):
        raise Refused("json", "logs must be a list")
    for entry in logs:
        if not isinstance(entry, dict):
            raise Refused("json", "an entry of logs must be an object")
        timestamp = entry.get("timestamp")
        if type(timestamp) is not int or abs(timestamp) > _LONG_MAX:
            raise Refused("json", "timestamp must be an integer, in microseconds")
        fields = entry.get("fields")
        if not isinstance(fields, dict):
            raise Refused("json", "fields must be an object")
        # The format knows texts only; the proxy takes such a log and loses it when it writes it.
        if not all(isinstance(value, str) for value in fields.values()):
            warnings.append("field_no_text")
    return len(logs)
