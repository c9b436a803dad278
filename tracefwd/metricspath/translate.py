"""From chunks of an exposition to payloads of point lines: the hot path of the metrics room.

A run of lines with one name is judged once.  If the name is filtered, its lines are counted and not read.  Else a
line is ``name{block} value stamp``: the block of labels is looked up as text (blocks repeat over families and scrapes),
value and timestamp are short texts that repeat, too.  What is not found or does not look like this is read by
``parser.py``.

A ``Translation`` lasts as long as its source's settings and holds all memo tables; a ``Scrape`` is one body.  Pure.
"""

import math
from collections.abc import Sequence

from tracefwd.limits import FAMILY_POINTS_MAX
from tracefwd.metricspath import go_numbers
from tracefwd.metricspath.histograms import Family, Group
from tracefwd.metricspath.memo import remember
from tracefwd.metricspath.names import FamilyReader, NamePlan
from tracefwd.metricspath.parser import (
    NAME,
    LineError,
    LineSplitter,
    Sample,
    read_comment,
    read_sample,
    write_labels,
)
from tracefwd.metricspath.points import Counts, PayloadBuffer, PointBuffer, count
from tracefwd.metricspath.report import Report
from tracefwd.metricspath.tables import ODD, Tables, check
from tracefwd.metricspath.tags import Rendered
from tracefwd.model import Payload, Signal
from tracefwd.settings import MetricsSettings, PrometheusSourceSettings

_OPENMETRICS = "openmetrics"
# From here on Wavefront reads a time as milliseconds.
_SECONDS_MAX = 1e12 - 1
# What may stand right behind a label's closing quote, but not in front of a value's first character.
_NOT_A_VALUE = ("", '"', ",", "}", " ", "\t")


class Translation:
    """One source's way to points.  Raises ``ConfigError`` if a glob cannot be used or deltas would be wrong.

    ``where`` is the option that holds the source, for what is said of its mistakes.
    """

    def __init__(
        self, source: PrometheusSourceSettings, metrics: MetricsSettings, where: str = "source"
    ) -> None:
        self._tables = Tables(source, metrics, where)

    def begin(self, now_s: float, content_type: str = "") -> "Scrape":
        """A body that is scraped at ``now_s`` (epoch seconds); its content type tells OpenMetrics from text 0.0.4."""
        return Scrape(self._tables, now_s, is_openmetrics=_OPENMETRICS in content_type.lower())

    def report(self) -> Report:
        """Since the start, over all scrapes."""
        return self._tables.watch.report()


class Scrape:
    """One body.  ``counts`` may be read at any time; ``truncated``: the body's last line was thrown away."""

    def __init__(self, tables: Tables, now_s: float, *, is_openmetrics: bool) -> None:
        self.counts = Counts()
        self.truncated = False
        self._own = tables
        self._now_s = now_s
        self._is_openmetrics = is_openmetrics
        self._is_collector = tables.is_collector
        metrics = tables.metrics
        self._honors = metrics.honor_timestamps and not self._is_collector
        self._oldest_s = max(0.0, now_s - metrics.age_max) if metrics.age_max else 0.0
        self._latest_s = now_s + metrics.ahead_max if metrics.ahead_max else _SECONDS_MAX
        self._splitter = LineSplitter(self.counts.bad_lines)
        self._families = FamilyReader(tables.names, is_openmetrics=is_openmetrics)
        self._points = PointBuffer(
            self.counts, finds_duplicates=not self._is_collector, sent=tables.watch.sent
        )
        self._stamps: dict[str, str] = {}
        self._family = ""
        self._grouped: dict[str, Family] = {}
        self._grouped_samples = 0
        self._distributions = PayloadBuffer(Signal.DISTRIBUTIONS)
        self._deltas = tables.deltas.begin()
        self._has_ended = False

    def feed(self, chunk: bytes) -> list[Payload]:
        """Take some of the inflated body."""
        self.counts.bytes += len(chunk)
        for lines in self._splitter.feed(chunk):
            self._read(lines)
        return [*self._points.take(), *self._distributions.take()]

    def finish(self, complete: bool) -> list[Payload]:
        """The body has ended, as it should (``complete``) or early; call it once, also after a failure.

        An OpenMetrics body without its ``# EOF`` has ended early, however well it came.
        """
        last = self._splitter.finish(complete=complete)
        if self._is_openmetrics and not self._has_ended and last and not _is_end(last[-1]):
            self._splitter.cut_off()
            last = []
        self._read(last)
        complete = complete and self.has_ended
        self.truncated = "cut_off" in self.counts.bad_lines
        if not complete:
            self._leave_unfinished()
        self._end_grouped()
        self._points.end_family()
        lines = self._deltas.finish(self._now_s, complete=complete)
        for kind, number in self._deltas.repairs.items():
            count(self.counts.repairs, kind, number)
        self._points.add_lines(lines)
        self.counts.delta_points += len(lines)
        self.counts.points += len(lines)
        for line in lines:
            self._own.watch.sent(line[1:].partition('"')[0], 1)
        self._points.cut()
        self._distributions.cut()
        return [*self._points.take(), *self._distributions.take()]

    @property
    def has_ended(self) -> bool:
        """Whether an OpenMetrics body has had its ``# EOF``; a text body has no such mark."""
        return self._has_ended or not self._is_openmetrics

    # Runs of lines

    def _read(self, lines: Sequence[str]) -> None:
        at, end = 0, len(lines)
        known = self._families.known
        while at < end:
            line = lines[at]
            name, brace, _ = line.partition("{")
            plan = known.get(name) if brace else None
            if plan is None and brace and NAME.fullmatch(name):
                plan = self._families.plan(name)
            if plan is None or plan.is_grouped or plan.is_delta:
                at += 1
                self._read_line(line)
                continue
            if plan.family != self._family:
                self._begin_family(plan)
            head = f"{name}{{"
            if plan.reason:
                first = at
                while at < end and lines[at].startswith(head):
                    at += 1
                self.counts.samples += at - first
                self._lose(plan, plan.reason, at - first)
            else:
                at = self._read_run(lines, at, head, plan)

    def _read_run(self, lines: Sequence[str], at: int, head: str, plan: NamePlan) -> int:
        """Lines of one name that is sent; returns where the run ends."""
        own, skip, stop, first = self._own, len(head), len(lines), at
        blocks, values, stamps, denied = (
            own.blocks[plan.label],
            own.values,
            self._stamps,
            own.denied,
        )
        rows = self._points.rows(plan)
        push = rows.append
        others = refused = 0
        while at < stop:
            line = lines[at]
            if not line.startswith(head):
                break
            at += 1
            block, brace, tail = line[skip:].rpartition("} ")
            if denied and _is_denied(block, denied):
                refused += 1
                continue
            value, _, stamp = tail.partition(" ")
            end = blocks.get(block) or own.learn(block, plan.label)
            shown = values.get(value) or own.value(value)
            when = stamps.get(stamp) or self._stamp(stamp)
            if brace and type(end) is str and shown and shown[0] != "!" and when and when[0] != "!":
                push((end, shown, when, stamp, block))
            elif not brace or not self._push_odd(plan, (end, shown, when, stamp, block)):
                # Here and now: series that are equal keep their order.
                others += 1
                self._read_line(line)
        self.counts.samples += at - first - others
        if refused:
            self._lose(plan, "tag_denied", refused)
        self._points.end_full_family()
        return at

    def _push_odd(self, plan: NamePlan, row: tuple[str | Rendered, str, str, str, str]) -> bool:
        """A line that was taken apart but is not just written; False if it must be read again."""
        end, shown, when, stamp, block = row
        if end is ODD or not shown or not when:
            return False
        reason = end.reason if isinstance(end, Rendered) else ""
        reason = reason or (shown[1:] if shown[0] == "!" else "")
        reason = reason or (when[1:] if when[0] == "!" else "")
        if reason:
            self._lose(plan, reason)
            return True
        if isinstance(end, Rendered):
            for kind, number in (end.repairs or {}).items():
                count(self.counts.repairs, kind, number)
            end = end.text
        self._points.rows(plan).append((end, shown, when, stamp, block))
        return True

    # Single lines

    def _read_line(self, line: str) -> None:
        """Any line, thoroughly."""
        if not line or line.isspace():
            return
        comment = read_comment(line)
        if comment is not None:
            if self._families.begins(comment, is_indented=line[0] != "#"):
                self._end_grouped()
            self._has_ended = comment.keyword == "EOF"
            bad = self._families.comment(comment, is_indented=line[0] != "#")
            if bad:
                count(self.counts.bad_lines, bad)
            return
        try:
            self._take(read_sample(line, lenient=self._is_collector))
        except LineError as bad_line:
            count(self.counts.bad_lines, bad_line.reason)

    def _take(self, sample: Sample) -> None:
        """Raises ``LineError``."""
        plan, labels = self._families.plan(sample.name), sample.labels
        if plan.part == "quantile" and "quantile" not in labels and not plan.is_grouped:
            plan = self._families.value_plan(sample.name)
        if plan.is_grouped:
            self._group(plan, sample)
            return
        if plan.family != self._family:
            self._begin_family(plan)
        if plan.reason:
            self.counts.samples += 1
            self._lose(plan, plan.reason)
            return
        block = write_labels(labels)
        end = self._own.blocks[plan.label].get(block) or self._own.learn(block, plan.label)
        if end is ODD:
            raise LineError("labels")
        when = self._stamps.get(sample.stamp) or self._stamp(sample.stamp)
        if not when:
            raise LineError("timestamp")
        self.counts.samples += 1
        row = (end, self._own.value(sample.value), when, sample.stamp, block)
        if plan.is_delta and not (isinstance(end, Rendered) and end.reason):
            self._take_delta(plan, labels, row)
            return
        self._push_odd(plan, row)
        self._points.end_full_family()

    def _take_delta(
        self, plan: NamePlan, labels: dict[str, str], row: tuple[str | Rendered, str, str, str, str]
    ) -> None:
        _, shown, when, stamp, _ = row
        if shown[0] == "!" or when[0] == "!":
            self._push_odd(plan, row)
            return
        if ":" in plan.family:
            # A recording rule's name: whatever labels are left, it is no pod's own counter.
            self._lose(plan, "not_per_pod")
            return
        if plan.label:
            bound = go_numbers.parse(labels[plan.label])
            assert bound is not None, "the block was read before"
            labels = {**labels, plan.label: go_numbers.shortest(bound)}
        self._lose(plan, self._deltas.add(plan.wire, labels, float(shown), self._moment(stamp)))

    def _moment(self, stamp: str) -> float:
        """An exposed time in seconds; without one, not a number."""
        exact = go_numbers.parse(stamp) if stamp else math.nan
        assert exact is not None, "it was read before"
        return exact if self._is_openmetrics else exact / 1000

    def _stamp(self, text: str) -> str:
        """A timestamp as whole seconds: "" if it is none, ``!REASON`` if its sample is not sent."""
        if not text or self._is_collector:
            return str(int(self._now_s))
        exact = go_numbers.parse(text) if self._is_openmetrics else go_numbers.parse_int64(text)
        if exact is None or not math.isfinite(exact):
            return ""
        seconds = exact if self._is_openmetrics else exact / 1000
        if not self._honors:
            shown = str(int(self._now_s))
        elif seconds < self._oldest_s:
            shown = "!too_old"
        elif seconds > self._latest_s:
            shown = "!ahead"
        else:
            shown = str(math.floor(seconds))
        return remember(self._stamps, text, shown, length=len(text))

    # Families

    def _begin_family(self, plan: NamePlan) -> None:
        self._points.end_family()
        self._family = plan.family
        self.counts.families += 1

    def _lose(self, plan: NamePlan, reason: str, number: int = 1) -> None:
        count(self.counts.dropped, reason, number)
        self._own.watch.lost(plan.final, reason, number)

    def _group(self, plan: NamePlan, sample: Sample) -> None:
        family = self._grouped.get(plan.family)
        if family is None:
            self.counts.families += 1
            family = self._grouped[plan.family] = Family(plan)
        value = go_numbers.parse(sample.value)
        assert value is not None, "read_sample has looked at it"
        if not family.add(plan, sample.labels, value):
            raise LineError("labels")
        self.counts.samples += 1
        self._grouped_samples += 1
        if self._grouped_samples >= FAMILY_POINTS_MAX:
            self._grouped.pop(plan.family)
            groups = family.take_all_but_last()
            self._end_grouped()
            self._send_groups(family, groups)
            self._grouped[plan.family] = family

    def _end_grouped(self) -> None:
        for family in self._grouped.values():
            self._send_groups(family, family.take_all())
        self._grouped.clear()
        self._grouped_samples = 0

    def _leave_unfinished(self) -> None:
        """A histogram that may lack buckets is not compared: what it counted comes with the next scrape's."""
        family = next(reversed(self._grouped.values()), None)
        if family is None or family.kind != "histogram" or not self._own.converts:
            return
        group = family.take_last()
        if group is not None:
            plan = self._own.names.plan("histogram", family.name, "none")
            self._lose(plan, plan.reason or "merged", group.samples)

    def _send_groups(self, family: Family, groups: Sequence[Group]) -> None:
        names, counts = self._own.names, self.counts
        for group in groups:
            if family.kind == "histogram" and self._own.converts:
                self._send_distribution(names.plan("histogram", family.name, "none"), group)
                continue
            parts = group.parts()
            counts.added += max(0, len(parts) - group.samples)
            if len(parts) < group.samples:
                plan = names.plan(family.kind, family.name, "count")
                self._lose(plan, "merged", group.samples - len(parts))
            for part, labels, value in parts:
                plan = names.plan(family.kind, family.name, part)
                end = plan.reason or self._own.rules.render(labels)
                self._send(plan, end, value, write_labels(labels))
        self._points.end_family()

    def _send(self, plan: NamePlan, end: str | Rendered, value: str, block: str) -> None:
        if plan.reason:
            self._lose(plan, plan.reason)
        else:
            self._push_odd(plan, (end, value, self._stamp(""), "", block))

    def _send_distribution(self, plan: NamePlan, group: Group) -> None:
        if plan.reason:
            self._lose(plan, plan.reason, group.samples)
            return
        end = self._own.rules.render(group.labels)
        if isinstance(end, Rendered):
            if end.reason:
                self._lose(plan, end.reason, group.samples)
                return
            for kind, number in (end.repairs or {}).items():
                count(self.counts.repairs, kind, number)
            end = end.text
        bins = self._own.distributions.bins(plan.wire, group, self._now_s)
        if isinstance(bins, str):
            self._lose(plan, bins, group.samples)
            return
        self._lose(plan, "merged", group.samples)
        if bins:
            shown = " ".join([f"#{number} {go_numbers.plain(value)}" for number, value in bins])
            line = f"!M {int(self._now_s)} {shown} {plan.wire}{end}\n"
            self._distributions.add_lines([line])
            self.counts.distributions += 1


def _is_end(line: str) -> bool:
    comment = read_comment(line)
    return comment is not None and comment.keyword == "EOF"


def _is_denied(block: str, needles: Sequence[str]) -> bool:
    """Whether a label is there that any value denies; False where only reading the block would tell.

    Without a backslash a quote ends a value, so ``,key="`` inside one is followed by what follows a closing quote.
    """
    for needle in needles:
        at = block.find(needle)
        if at >= 0:
            after = at + len(needle)
            if (
                block[after : after + 1] not in _NOT_A_VALUE
                and "\\" not in block
                and '"} ' not in block
            ):
                return True
    return False


__all__ = ["Scrape", "Translation", "check"]
