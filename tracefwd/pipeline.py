"""The hot path on one screen: plan what requests change, then change it.

    bodies -> decode -> map -> sample -> render        ``plan``: pure, changes nothing outside
           -> counters, RED, queues                     ``commit``: no await, happens whole

Requests that came in one turn of the loop go through each stage together, a request that came alone does so alone.

Span lines and clients' span logs, which have a port of their own, join it behind the mapping (``ingest_lines``).

``ingest`` answers before anything is forwarded.  With a journal the answer is held until its spans are durable:
``commit`` then returns a ``HeldAnswer`` (the receiver keeps the pipelining order); in memory it returns a constant and
pays nothing.

The pipeline knows neither HTTP nor Wavefront: it is handed a decoder, a mapper, writers and targets.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

from tracefwd import ledger, span_log
from tracefwd.doorways import Answer, Decode, HeldAnswer, Post
from tracefwd.ledger import Account
from tracefwd.metrics import Samples
from tracefwd.metrics import add as add_samples
from tracefwd.model import (
    Decoded,
    Encoding,
    Heartbeat,
    Lines,
    Mapped,
    Mapper,
    Payload,
    RedPoint,
    Refused,
    Reject,
    Signal,
    SpanLog,
    WavefrontSpan,
)
from tracefwd.plan import Destination, Journal, LineParts, LinePlan, Part, Plan, Writer
from tracefwd.processor.red import RedAggregator, slices
from tracefwd.processor.ruled import RuledMapper
from tracefwd.processor.sampler import SpanSampler
from tracefwd.processor.shed import Shedder
from tracefwd.quarantine import Quarantine

ACCEPTED = Answer(202)


def _decoded_all(posts: Sequence[Post], decode: Decode) -> list[Decoded]:
    requests = [decode(body, content_type) for body, content_type in posts]
    for decoded, post in zip(requests, posts, strict=True):
        decoded.body = post[0]
    return requests


def target_sections(targets: Sequence[Destination]) -> dict[str, dict[str, ledger.Section]]:
    """Every target's own accounts, and its failovers', as the ledger shows them."""
    return {
        name: {signal.value: accounts[signal].show() for signal in Signal}
        for target in targets
        for name, accounts in {target.name: target.accounts, **target.failover_accounts()}.items()
    }


class Pipeline:
    """``outlets`` pairs each writer with the targets that want its bytes; ``lines`` is None without their port."""

    def __init__(
        self,
        *,
        decode: Decode,
        mapper: Mapper,
        ruled: RuledMapper | None = None,
        lines: LineParts | None = None,
        sampler: SpanSampler | None,
        red: RedAggregator | None,
        shedder: Shedder | None = None,
        outlets: Sequence[tuple[Writer, Sequence[Destination]]],
        now_us: Callable[[], int],
    ) -> None:
        self._decode = decode
        self._map = mapper
        self.ruled = ruled
        self._lines = lines
        self.line_ruled = None if lines is None else lines.ruled
        self._sampler = sampler
        self._red = red
        self.shedder = shedder or Shedder()
        self._outlets = outlets
        self._writers = [writer for writer, _ in outlets]
        self._now_us = now_us
        self._destinations = [target for _, targets in outlets for target in targets]
        self._primary = next(target for target in self._destinations if target.role == "primary")
        self._account = Account(self._held)
        # Clients' span logs before they come to a target, where nothing waits.
        self._log_account = Account(lambda: 0)
        self._quarantine = Quarantine()
        self.journal: Journal | None = None
        # Sees every request, for people who look.
        self.watch: Callable[[Part, int], None] | None = None
        self._accepted: dict[str, int] = {}
        self._repairs: dict[str, int] = {}

    # The hot path

    def ingest(
        self, body: bytes, content_type: str, decode: Decode | None = None
    ) -> Answer | HeldAnswer:
        """``decode`` is for formats that have paths of their own; None takes Zipkin's."""
        requests = _decoded_all(((body, content_type),), decode or self._decode)
        now_us = self._now_us()
        return self.commit(self.plan(requests, now_us), now_us)[0]

    def ingest_all(
        self, posts: Sequence[Post], decode: Decode | None = None
    ) -> list[Answer | HeldAnswer] | None:
        """``ingest`` for several requests, stage by stage: each stage finds its code and tables in the caches.

        None: one of them shows a bug, and nothing has changed; taken alone, the others fare as ever.
        """
        now_us = self._now_us()
        try:
            plan = self.plan(_decoded_all(posts, decode or self._decode), now_us)
        except Exception:  # noqa: BLE001 - whoever takes them one by one meets it again
            return None
        return self.commit(plan, now_us)

    def plan(self, requests: Sequence[Decoded], now_us: int) -> Plan:
        """Work out everything these requests would change, and change nothing."""
        mapped = [self._map(decoded, now_us) for decoded in requests]
        parts = [self._sift(*both, now_us) for both in zip(requests, mapped, strict=True)]
        good = parts[0].good if len(parts) == 1 else [s for part in parts for s in part.good]
        payloads = [writer.write(good) for writer in self._writers] if good else []
        refused = [span for part in parts for span in part.mapped.red_only]
        return Plan(parts, self._with_logs_of(refused, payloads, now_us) if refused else payloads)

    def _with_logs_of(
        self, refused: Sequence[WavefrontSpan], payloads: list[list[Payload]], now_us: int
    ) -> list[list[Payload]]:
        """``payloads`` and the span logs of these spans, which sampling keeps or not like any other's."""
        logs = [
            log
            for span, log in zip(refused, map(span_log.alone, refused), strict=True)
            if log is not None and not self._log_held_back(span, now_us)
        ]
        if not logs:
            return payloads
        before = payloads or [[] for _ in self._writers]
        return [
            [*those, *writer.write_span_logs(logs)]
            for those, writer in zip(before, self._writers, strict=True)
        ]

    def _log_held_back(self, span: WavefrontSpan, now_us: int) -> str:
        """Why the log of this span is not sent: ``sampled_out`` or ``shed``; "" if it is."""
        if self._sampler is not None and self._sampler.judge_logs(span, now_us):
            return "sampled_out"
        return "shed" if self.shedder.on and not self.shedder.sift([span]) else ""

    def _sift(self, decoded: Decoded, mapped: Mapped, now_us: int) -> Part:
        kept, sampled_out = mapped.spans, None
        if self._sampler is not None:
            kept, sampled_out = self._sampler.sift(mapped.spans, now_us)
        sampled = kept
        if self.shedder.on:
            kept = self.shedder.sift(kept)
        return Part(decoded, mapped, kept, sampled_out, len(sampled) - len(kept))

    def commit(self, plan: Plan, now_us: int) -> list[Answer | HeldAnswer]:
        """Apply a plan.  No await in here: it happens whole, or not at all."""
        self._apply(plan, now_us)
        return [self._answer_to(part, now_us) for part in plan.parts]

    def _apply(self, plan: Plan, now_us: int) -> None:
        """Everything about the spans of a plan, but for the rejects."""
        account, red, now_s = self._account, self._red, now_us // 1_000_000
        facts: list[int] | None = None if self.journal is None else []
        for part in plan.parts:
            decoded, mapped = part.decoded, part.mapped
            spans = len(mapped.spans)
            account.received += spans + mapped.blocked
            account.blocked += mapped.blocked
            account.sampled_out += spans - len(part.good) - part.shed
            if part.shed:
                account.drop("shed", part.shed)
            if part.sampled_out is not None and self._sampler is not None:
                self._sampler.count(part.sampled_out)
            self._accept(decoded.encoding, len(decoded.spans))
            if decoded.repairs or mapped.repairs:
                self._count_repairs(decoded.repairs, mapped.repairs)
        if red is not None:
            counted = [
                spans for part in plan.parts for spans in (part.mapped.spans, part.mapped.red_only)
            ]
            red.observe(chain.from_iterable(counted), now_s, facts)
        self._offer(plan.payloads, facts, now_s)
        if self.watch is not None:
            for part in plan.parts:
                self.watch(part, now_us)

    def _accept(self, encoding: Encoding, spans: int) -> None:
        self._accepted[encoding] = self._accepted.get(encoding, 0) + spans

    def _answer_to(self, part: Part, now_us: int) -> Answer | HeldAnswer:
        is_clean = not (part.decoded.rejects or part.mapped.rejects)
        answer = ACCEPTED if is_clean else self._reject(part.decoded, part.mapped, now_us)
        return answer if self.journal is None else self.journal.hold(answer)

    def _offer(
        self, payloads_by_writer: list[list[Payload]], facts: Sequence[int] | None, now_s: int
    ) -> int:
        """Hand everything to its targets; the seq of its entry in the journal, 0 without one."""
        if self.journal is not None:
            return self._offer_durably(self.journal, payloads_by_writer, facts, now_s)
        for (_, targets), payloads in zip(self._outlets, payloads_by_writer, strict=False):
            for target in targets:
                for payload in payloads:
                    target.offer(payload)
        return 0

    def _offer_durably(
        self,
        journal: Journal,
        payloads_by_writer: list[list[Payload]],
        facts: Sequence[int] | None,
        now_s: int,
    ) -> int:
        offers = [
            (target, payload)
            for (_, targets), payloads in zip(self._outlets, payloads_by_writer, strict=False)
            for target in targets
            for payload in payloads
        ]
        seq = journal.entry(offers, facts, now_s)
        for target, payload in offers:
            target.offer(payload, seq)
        return seq

    def _reject(self, decoded: Decoded, mapped: Mapped, now_us: int) -> Answer:
        rejects: list[Reject] = [*decoded.rejects, *mapped.rejects]
        self._account.received += len(rejects)
        for reject in rejects:
            self._account.reject(reject.reason)
        self._quarantine.add(rejects, now_us)
        first = mapped.broken or rejects[0]
        more = f" (and {len(rejects) - 1} more)" if len(rejects) > 1 else ""
        text = f"{first.where}: {first.detail}{more}\n"
        # Envoy takes anything but 202 for loss, so one good span is enough for 202.
        if decoded.spans and mapped.broken is None:
            return Answer(202, rejected=len(rejects), detail=text)
        what = "No readable span" if mapped.broken is None else "The rest of the batch is lost"
        return Answer(400, f"{what}: {text}".encode("utf-8", "replace"))

    def _count_repairs(self, *parts: dict[str, int] | None) -> None:
        for part in parts:
            for kind, number in (part or {}).items():
                self._repairs[kind] = self._repairs.get(kind, 0) + number

    # Span lines and clients' span logs

    def ingest_lines(self, body: bytes, content_type: str) -> Answer | HeldAnswer:
        """202 whatever the lines hold, as the proxy's port says; 400 if nothing in the body is text."""
        now_us = self._now_us()
        return self.commit_lines(self.plan_lines(body, now_us), now_us)

    def refuse_line(self, reject: Reject, *, is_log: bool) -> None:
        """Count a line that never became one: too long for its port, or cut off by the connection's end."""
        refused = Refused()
        refused.add(reject)
        self._refuse(self._log_account if is_log else self._account, refused, self._now_us())

    def plan_lines(self, body: bytes, now_us: int) -> LinePlan:
        """Like ``plan``; RED is not derived, and the check comes last, as behind the proxy's port."""
        assert self._lines is not None, "there is no port for lines"
        ruled = self.line_ruled
        lines = self._lines.read(body, None if ruled is None else ruled.line_rules)
        spans, blocked = lines.spans, lines.blocked
        if ruled is not None:
            spans, more = ruled.filter(spans, lines.repairs)
            blocked += more
        part = self._sift(
            Decoded(Encoding.WAVEFRONT, [], repairs=lines.repairs), Mapped(spans), now_us
        )
        kept = part.good
        checked = self._lines.check(kept, now_us)
        if checked.rejects:
            # Rejected spans count as such alone.
            good, tried = set(map(id, checked.spans)), set(map(id, kept))
            spans = [span for span in spans if id(span) in good or id(span) not in tried]
        part.mapped = Mapped(spans, checked.rejects, blocked, checked.repairs)
        part.good = checked.spans
        payloads = [writer.write(part.good) for writer in self._writers] if part.good else []
        plan = Plan([part], payloads)
        return self._plan_logs(lines, plan, now_us)

    def _plan_logs(self, lines: Lines, plan: Plan, now_us: int) -> LinePlan:
        kept: list[SpanLog] = []
        blocked, sampled_out, shed = lines.logs_blocked, 0, 0
        for log in lines.logs:
            span = log.span
            if span is not None and self.line_ruled is not None:
                passed, _ = self.line_ruled.filter([span], {})
                if not passed:
                    blocked += 1
                    continue
                span = passed[0]
            held_back = "" if span is None else self._log_held_back(span, now_us)
            sampled_out += held_back == "sampled_out"
            shed += held_back == "shed"
            if not held_back:
                kept.append(log)
        payloads = [writer.write_span_logs(kept) for writer in self._writers] if kept else []
        return LinePlan(lines, plan, blocked, sampled_out, shed, payloads)

    def commit_lines(self, plan: LinePlan, now_us: int) -> Answer | HeldAnswer:
        lines = plan.lines
        self._apply(plan.spans, now_us)
        self._accept(lines.encoding, len(lines.spans))
        logs = self._log_account
        logs.received += plan.logs_blocked + plan.logs_sampled_out + plan.logs_shed
        logs.blocked += plan.logs_blocked
        logs.sampled_out += plan.logs_sampled_out
        if plan.logs_shed:
            logs.drop("shed", plan.logs_shed)
        self._offer(plan.log_payloads, None, now_us // 1_000_000)
        for part in plan.spans.parts:
            for reject in part.mapped.rejects:
                lines.refused.add(reject)
        self._refuse(self._account, lines.refused, now_us)
        self._refuse(logs, lines.logs_refused, now_us)
        if lines.is_text or lines.spans or lines.logs:
            return ACCEPTED if self.journal is None else self.journal.hold(ACCEPTED)
        return Answer(400, b"No line of the body is text; send span lines in UTF-8.\n")

    def _refuse(self, account: Account, refused: Refused, now_us: int) -> None:
        for reason, number in refused.counts.items():
            account.received += number
            account.reject(reason, number)
        self._quarantine.add(refused.shown, now_us)

    # The tick

    def tick(self) -> Iterator[list[RedPoint]]:
        """Send what RED gathered; yields each slice when it is sent, so that answers can be given in between."""
        if self._red is None:
            return
        now_s = self._now_us() // 1_000_000
        journal = self.journal
        if journal is not None:
            journal.tick_begins()
        for part in slices(self._red.drain(now_s)):
            points = [item for item in part if isinstance(item, RedPoint)]
            beats = [item for item in part if isinstance(item, Heartbeat)]
            payloads = [
                [*writer.write_red(points, now_s), *writer.write_heartbeats(beats, now_s)]
                for writer in self._writers
            ]
            seq = self._offer(payloads, None, now_s)
            if journal is not None:
                journal.drained(seq, [point.number for point in points])
            yield points
        if journal is not None:
            journal.tick_ended()

    # What an earlier process left

    @property
    def accounts(self) -> dict[str, Account]:
        """The pipeline's own, by section of the ledger; the targets have theirs."""
        return {Signal.SPANS.value: self._account, Signal.SPAN_LOGS.value: self._log_account}

    @property
    def primary(self) -> Destination:
        return self._primary

    @property
    def red(self) -> RedAggregator | None:
        return self._red

    def offer_again(self, target: Destination, payload: Payload, seq: int) -> None:
        """Lines that an earlier process had accepted; its history is in the accounts without them."""
        self.found_again(target, payload.signal, payload.items)
        target.offer(payload, seq)

    def found_again(self, target: Destination, signal: Signal, items: int) -> None:
        """So many lines that an earlier process had accepted are in the target's lane again."""
        if target is self._primary and signal is Signal.SPANS:
            self._account.received += items

    # What is seen from outside

    def ledger(self) -> dict[str, Any]:
        """Spans for the primary target at the top, then its other signals, then every target's own."""
        shown: dict[str, Any] = dict(self._account.show())
        primary = self._primary.accounts[Signal.SPANS]
        shown["delivered"] = primary.delivered
        for key, part in (("rejected", primary.rejected), ("dropped", primary.dropped)):
            ledger.add(shown[key], part)
        for signal in (Signal.SPAN_LOGS, Signal.POINTS, Signal.DISTRIBUTIONS):
            shown[signal] = self._primary.accounts[signal].show()
        ledger.add(shown[Signal.SPAN_LOGS], {**self._log_account.show()})
        shown["targets"] = target_sections(self._destinations)
        return shown

    @property
    def shed_spans(self) -> int:
        """Let go of for want of memory, since the start."""
        return self._account.dropped.get("shed", 0)

    @property
    def red_bytes(self) -> int:
        """About what RED's tables weigh."""
        return 0 if self._red is None else self._red.memory_bytes

    def _held(self) -> int:
        return self._primary.accounts[Signal.SPANS].held()

    def samples(self) -> Samples:
        """The processor's and the targets' metrics; the receiver has its own."""
        samples: Samples = {
            "tracefwd_receiver_accepted_spans_total": {(k,): v for k, v in self._accepted.items()},
            "tracefwd_receiver_rejected_spans_total": {
                (k,): v for k, v in self._account.rejected.items()
            },
            "tracefwd_mapper_repairs_total": {(k,): v for k, v in self._repairs.items()},
            "tracefwd_shed_spans_total": {(): self.shed_spans},
        }
        if self._lines is not None:
            samples["tracefwd_receiver_rejected_span_logs_total"] = {
                (k,): v for k, v in self._log_account.rejected.items()
            }
        if self._sampler is not None:
            samples["tracefwd_sampler_sampled_out_spans_total"] = {
                (k,): v for k, v in self._sampler.counts().items()
            }
        for ruled in (self.ruled, self.line_ruled):
            if ruled is not None:
                add_samples(samples, {"tracefwd_rules_spans_total": ruled.samples()})
        if self._red is not None:
            samples["tracefwd_red_active_series"] = {(): self._red.active}
            samples["tracefwd_red_series_limit"] = {(): self._red.series_max}
            samples["tracefwd_red_overflow_spans_total"] = {(): self._red.overflow_spans}
        for target in self._destinations:
            add_samples(samples, target.samples())
        return samples

    def rejected_samples(self) -> list[dict[str, str]]:
        return self._quarantine.show()
