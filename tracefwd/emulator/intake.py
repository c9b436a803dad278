"""Lines in, verdicts out: the way from a port's bytes to the store, the same for HTTP and TCP.

No sockets here and no clock: a port hands over its text and the time of day.
"""

from collections.abc import Iterable

from tracefwd.emulator.metric_reader import MetricReader
from tracefwd.emulator.ports import Port, ProxyVersion, Signal, count_lines, signal_of
from tracefwd.emulator.record import Recorder
from tracefwd.emulator.rules import Limits, Refused
from tracefwd.emulator.span_log_reader import SpanLogReader
from tracefwd.emulator.span_reader import SpanReader
from tracefwd.emulator.store import Store


class Intake:
    """Judges lines and keeps the books."""

    def __init__(
        self,
        *,
        limits: Limits,
        version: ProxyVersion,
        store: Store,
        recorder: Recorder | None = None,
        count_only: bool = False,
    ) -> None:
        self.version = version
        self.count_only = count_only
        self._store = store
        self._recorder = recorder
        self._metrics = MetricReader(limits)
        proxy_spans = SpanReader(limits, samples=True)
        direct_spans = SpanReader(limits, samples=False)
        proxy_logs = SpanLogReader(limits, span_member=version.span_member_read)
        direct_logs = SpanLogReader(limits, policy_member=True)
        self._spans = {"trace": proxy_spans, "metrics": proxy_spans, "direct": direct_spans}
        self._span_logs = {"trace": proxy_logs, "metrics": proxy_logs, "direct": direct_logs}

    def count(self, body: bytes, *, port: Port, form: Signal | None) -> None:
        """``count_only``: every line is accepted unseen."""
        for signal, lines in count_lines(body, port=port, form=form).items():
            self._store.tallies[signal].accepted += lines

    def take(self, lines: Iterable[str], *, port: Port, form: Signal | None, now_ms: int) -> None:
        """Trimmed lines, none empty."""
        store, recorder = self._store, self._recorder
        for line in lines:
            signal, refused = signal_of(line, port=port, form=form, version=self.version)
            if refused is None:
                refused = self._judge(signal, line, port, now_ms)
            if refused is not None:
                store.reject(signal, line, port, refused.reason, str(refused))
            if recorder is not None:
                recorder.note(signal, line, port, refused.reason if refused is not None else None)
        if recorder is not None:
            recorder.flush()

    def refuse(self, line: str, port: Port, reason: str, message: str) -> None:
        """A line that no reader may see: too long for the port."""
        signal, _ = signal_of(line, port=port, form=None, version=self.version)
        self._store.reject(signal, line, port, reason, message)

    def _judge(self, signal: Signal, line: str, port: Port, now_ms: int) -> Refused | None:
        store = self._store
        try:
            if signal == "spans":
                span = self._spans[port].read(line, now_ms)
                store.accept(signal, line, port, span.warnings)
                store.doubles.see(span.identity)
            elif signal == "span_logs":
                log = self._span_logs[port].read(line, now_ms)
                store.accept(signal, line, port, log.warnings)
                store.span_log_entries += log.entries
            elif signal == "points":
                point = self._metrics.read_point(line, now_ms)
                store.accept(signal, line, port, point.warnings)
                store.series.add_point(point)
            else:
                distribution = self._metrics.read_distribution(line, now_ms)
                store.accept(signal, line, port, distribution.warnings)
                store.series.add_distribution(distribution)
        except Refused as refused:
            return refused
        return None
