"""One client's connection: bytes become calls of ``ingest``, its answers go back in order.

1. Answers leave in the order of their requests; all that one read produced leave in one write.
2. A request that was handed to ``ingest`` gets its answer: ``Connection: close`` stands only on a connection's
   last one.  Only requests of which nothing was ingested go unanswered behind it (RFC 9112, 9.6).
3. No answer is lost to a reset: after the last one we shut down our side, read on and discard, and close when
   the client has, or after ``_LINGER_S``.
4. Memory: the request being read (``http_request.py``), ``_HELD_MAX`` held answers plus those of one read, and a write
   buffer of the transport's high-water mark plus the answers of one read.
5. Fairness: of one read, ``_BITE_BYTES`` are worked off in a turn of the loop, and long bodies wait in line
   (``turns.py``); meanwhile the connection is not read.

No request sets a timer or looks at the loop's clock: deadlines are set and kept by the receiver's sweep.
"""

import asyncio
from collections import deque
from math import inf
from time import perf_counter
from typing import cast

import httptools

from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.receiver import http_messages as say
from tracefwd.receiver.handler import ZIPKIN_FORM, Form
from tracefwd.receiver.http_request import HEADERS, IDLE, RequestReader
from tracefwd.receiver.intake import Intake
from tracefwd.receiver.turns import LONG_BODY_BYTES

# How long a client may take to close after our last answer; by then the answer has arrived or never will.
_LINGER_S = 2.0
# Answers that may wait for durability on one connection before we stop reading it; Envoy never has more than one.
_HELD_MAX = 64
# Small requests back to back are 900 in 16 KiB, which take 7 ms; a post of five spans has 6 KiB.
_BITE_BYTES = 16 * 2**10
# Connections being refused at the same time; further ones are reset without a word.
_TURNED_AWAY_MAX = 256


class Connection(asyncio.Protocol):
    """``retire_at`` is when, on the loop's clock, it has reached its age."""

    __slots__ = (
        "_arrived",
        "_deadline",
        "_eof",
        "_flushing",
        "_gathered",
        "_going_on",
        "_intake",
        "_last",
        "_later",
        "_lingering",
        "_paused",
        "_queue",
        "_reader",
        "_reason",
        "_retire_at",
        "_retiring",
        "_stage",
        "_stalled",
        "_transport",
        "_turned_away",
        "_waiting",
        "address",
    )

    def __init__(self, intake: Intake, retire_at: float) -> None:
        self._intake = intake
        self._transport: asyncio.Transport | None = None
        self._reader = RequestReader(
            intake.settings,
            intake.handlers,
            self._serve,
            self._invite_body,
            intake.guard,
            exact=intake.exact,
        )
        # Set where connections are counted by address.
        self.address = ""
        self._retire_at = retire_at
        # The next answer ought to be the last: too old, or draining.
        self._retiring = False
        # Why it is we who close; "" when it is the client's wish.
        self._reason = ""
        self._turned_away = False
        # (answer, manner, form, when its request was complete), in the order of requests.
        self._queue: deque[tuple[Answer | HeldAnswer, int, Form, float]] = deque()
        # Nothing is read any more: what is in the queue is all that will be answered.
        self._last = False
        # All is said, and it is the client's turn to close.
        self._lingering = False
        self._eof = False
        self._stalled = False
        self._paused = False
        self._flushing = False
        # What later turns of the loop will read of the last read.
        self._later = memoryview(b"")
        self._going_on = False
        # A request of ours is among the intake's gathered ones.
        self._gathered = False
        # Bodies that wait for their turn.
        self._waiting = 0
        self._arrived = 0.0
        # On the loop's clock; 0 lets the next sweep set it, as does a change of the reader's stage.
        self._deadline = 0.0
        self._stage = 0

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._intake.admit(self):
            self._turn_away(self._transport)
        elif self._intake.draining:
            self.retire("drain")

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if self._last or transport is None:
            return
        if self._gathered:
            self._intake.serve_gathered()
        self._arrived = perf_counter()
        if not self._queue and not self._retiring:
            reader = self._reader
            body = reader.express(data)
            if body is not None:
                self._take_express(reader, body)
                return
        if len(data) > _BITE_BYTES:
            self._later = memoryview(data)[_BITE_BYTES:]
            data = data[:_BITE_BYTES]
        self._read(data)
        if self._later:
            self._balance_reading()

    def _read(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except say.Refused as refused:
            self._refuse(refused)
        except httptools.HttpParserCallbackError as error:
            self._refuse(say.Refused(self._intake.failures.answer(error.__context__), "protocol"))
        self._flush()
        if len(self._queue) >= _HELD_MAX:
            self._balance_reading()

    def _go_on(self) -> None:
        """The next bite of what was read, unless answers are stuck; then ``_balance_reading`` calls again."""
        self._going_on = False
        if not self._later or self._is_full():
            return
        bite, self._later = bytes(self._later[:_BITE_BYTES]), self._later[_BITE_BYTES:]
        if self._last:
            self._later = memoryview(b"")
        else:
            self._arrived = perf_counter()
            self._read(bite)
        self._balance_reading()

    def eof_received(self) -> bool:
        """The client will send no more.  True keeps our side open for answers that are still held."""
        if self._gathered:
            self._intake.serve_gathered()
        self._eof = self._last = True
        self._lingering = not self._queue
        self._deadline = 0.0
        # TLS ends both ways at once.
        return (
            not self._lingering and self._transport is not None and self._transport.can_write_eof()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if self._gathered:
            self._intake.serve_gathered()
        self._reader.close()
        self._transport = None
        self._last = True
        self._later = memoryview(b"")
        self._queue.clear()
        self._intake.forget(self, turned_away=self._turned_away)

    def pause_writing(self) -> None:
        self._stalled = True
        self._deadline = 0.0
        self._balance_reading()

    def resume_writing(self) -> None:
        self._stalled = False
        self._deadline = 0.0
        self._balance_reading()

    # What the receiver tells.

    def retire(self, reason: str) -> None:
        """Make the next answer the last one."""
        self._retire_at = inf
        if not self._retiring and not self._last:
            self._retiring = True
            self._reason = reason

    def close_if_idle(self, reason: str) -> None:
        """Close if no request has begun and no answer is owed; otherwise leave everything as it is."""
        idle = self._reader.phase == IDLE and not self._gathered
        if idle and not self._queue and not self._last:
            self._reason = reason
            self._end()

    def forget_head(self) -> None:
        """What is asked of a request's head has changed."""
        self._reader.forget_head()

    def balance(self) -> None:
        """Whether to read may have changed for a reason outside."""
        self._balance_reading()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def look_at_clock(self, now: float) -> None:
        if now >= self._retire_at:
            self.retire("age")
        stage = self._reader.stage
        if self._deadline == 0.0 or stage != self._stage:
            self._stage = stage
            self._deadline = now + self._patience()
        elif now >= self._deadline:
            self._deadline = inf
            self._expire()

    def _patience(self) -> float:
        """Seconds that the present state may last."""
        settings, phase = self._intake.settings, self._reader.phase
        if self._lingering:
            return _LINGER_S
        if self._stalled:
            return settings.body_timeout
        if self._paused or self._last:
            return inf
        if phase == IDLE:
            return inf if self._queue else settings.idle_timeout
        return settings.header_timeout if phase == HEADERS else settings.body_timeout

    def _expire(self) -> None:
        if self._lingering:
            self.abort()
        elif self._stalled:
            self._intake.closed["slow_reader"] += 1
            self.abort()
        elif self._reader.phase == IDLE:
            self.close_if_idle("idle")
        else:
            self._arrived = perf_counter()
            headers = self._reader.phase == HEADERS
            answer = say.LATE_HEADERS if headers else say.LATE_BODY
            self._refuse(say.Refused(answer, "slow_headers" if headers else "slow_body"))
            self._flush()

    def _turn_away(self, transport: asyncio.Transport) -> None:
        self._turned_away = True
        overloaded = self._intake.guard.overloaded
        self._reason = "memory" if overloaded else "too_many"
        if self._intake.turned_away > _TURNED_AWAY_MAX:
            self._last = True
            self._intake.closed[self._reason] += 1
            self._intake.refusals.connection(self._reason)
            transport.abort()
        else:
            # Said before anything is read: whoever connects has a post to send.
            answer = self._refused(say.OVERLOADED if overloaded else say.FULL)
            self._intake.codes[answer.status] += 1
            transport.write(say.render(_shaped(answer, self._reader.form), 0, last=True))
            self._end()

    # What the reader tells.

    def _serve(self, body: bytes) -> bool:
        """Queue the answer to a request; False when it is the last one."""
        reader = self._reader
        self._intake.bytes_read += reader.size
        if reader.refusal is None:
            answer = self._answer_to(body)
        else:
            answer = self._refused(reader.refusal)
        self._last = reader.close_after or self._retiring
        self._queue.append((answer, reader.manner, reader.form, self._arrived))
        if isinstance(answer, HeldAnswer) and answer.answer is None:
            answer.when_released(self._flush_soon)
        return not self._last

    def _take_express(self, reader: RequestReader, body: bytes) -> None:
        handler = reader.handler
        if handler is None or reader.coding or self._waiting or len(body) > LONG_BODY_BYTES:
            self._serve(body)
            self._flush()
        else:
            self._gathered = True
            self._intake.gather(self, handler, (body, reader.content_type))

    def serve_gathered(self, size: int, answer: Answer | HeldAnswer) -> None:
        """``_serve`` where nothing is pending and nothing special: the usual answer leaves at once."""
        self._gathered = False
        intake, transport = self._intake, self._transport
        intake.bytes_read += size
        if (
            isinstance(answer, HeldAnswer)
            or answer.status != 202
            or answer.body
            or answer.rejected
            or self._retiring
            or transport is None
        ):
            self._last |= self._retiring
            self._queue.append((answer, 0, self._reader.form, self._arrived))
            if isinstance(answer, HeldAnswer):
                answer.when_released(self._flush_soon)
            self._flush()
            return
        form = self._reader.form
        transport.write(form.taken)
        intake.codes[202 if form.shape is None else 200] += 1
        intake.observe(perf_counter() - self._arrived)

    def _answer_to(self, body: bytes) -> Answer | HeldAnswer:
        intake, reader = self._intake, self._reader
        if intake.guard.overloaded:
            return self._refused(say.OVERLOADED)
        # A later request of this connection does not overtake one that waits.
        if reader.coding or self._waiting or len(body) > LONG_BODY_BYTES:
            return self._wait_turn(body, reader.coding, reader.content_type)
        handler = reader.handler
        assert handler is not None, "what is for nobody has been refused"
        return intake.take(handler, body, "", reader.content_type)

    def _refused(self, answer: Answer) -> Answer:
        self._intake.refusals.request(answer, self._reader.size)
        return answer

    def _wait_turn(self, body: bytes, coding: str, content_type: str) -> Answer | HeldAnswer:
        intake, handler = self._intake, self._reader.handler
        assert handler is not None, "what is for nobody has been refused"

        def work() -> Answer | HeldAnswer:
            self._waiting -= 1
            answer = intake.take(handler, body, coding, content_type)
            self._balance_reading()
            return answer

        held = intake.turns.wait(work, len(body))
        if held is None:
            return self._refused(say.NO_ROOM)
        self._waiting += 1
        self._balance_reading()
        return held

    def _invite_body(self) -> None:
        self._queue.append((say.CONTINUE, 0, ZIPKIN_FORM, self._arrived))

    # Answering.

    def _refuse(self, refused: say.Refused) -> None:
        """Answer the request that is being read, and read nothing more."""
        reader = self._reader
        self._refused(refused.answer)
        manner = 0 if reader.phase == HEADERS else reader.manner
        self._queue.append((refused.answer, manner, reader.form, self._arrived))
        self._reason = refused.reason
        self._last = True
        self._deadline = 0.0
        reader.close()

    def _flush_soon(self) -> None:
        """A held answer was released: write once per turn of the loop, because whole groups are released at a time."""
        if not self._flushing and self._transport is not None:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Write every answer whose turn has come, all at once."""
        self._flushing = False
        queue, intake, transport = self._queue, self._intake, self._transport
        out: list[bytes] = []
        arrivals: list[float] = []
        ended = False
        while queue and transport is not None:
            held, manner, form, arrived = queue[0]
            answer = held.answer if isinstance(held, HeldAnswer) else held
            if answer is None:
                break
            queue.popleft()
            ended = not queue and (self._last or (self._retiring and self._reader.phase == IDLE))
            answer = _shaped(answer, form)
            if answer.status == 202 and not manner and not answer.body:
                out.append(say.ACCEPTED_LAST if ended else say.ACCEPTED)
            else:
                out.append(say.render(answer, manner, last=ended))
            if answer is not say.CONTINUE:
                intake.codes[answer.status] += 1
                arrivals.append(arrived)
        if transport is None or not out:
            return
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        now = perf_counter()
        for arrived in arrivals:
            intake.observe(now - arrived)
        if self._reader.phase == IDLE:
            # What was owed no longer keeps it open; a body on its way keeps its own deadline.
            self._deadline = 0.0
        if ended:
            self._end()
        elif self._paused:
            self._balance_reading()

    def _end(self) -> None:
        """Nothing more to say: shut down our side and wait for the client's (see ``_expire``)."""
        self._last = True
        if self._reason:
            self._intake.closed[self._reason] += 1
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._lingering = True
        self._deadline = 0.0
        self._half_close(transport)
        self._balance_reading()

    def _half_close(self, transport: asyncio.Transport) -> None:
        """Say that nothing more comes, and go on reading where that can be said."""
        if self._eof or not transport.can_write_eof():
            # TLS has no half of a close; its transport says goodbye and waits for the answer by itself.
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:
            # The client has reset the connection and the loop has yet to tell us.
            transport.abort()

    def _is_full(self) -> bool:
        return not self._lingering and (
            self._stalled or self._waiting > 0 or len(self._queue) >= _HELD_MAX
        )

    def _balance_reading(self) -> None:
        """Read only while answers can leave."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        full = self._is_full()
        if self._later and not full and not self._going_on:
            self._going_on = True
            asyncio.get_running_loop().call_soon(self._go_on)
        pause = full or bool(self._later)
        if pause != self._paused:
            self._paused = pause
            self._deadline = 0.0
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()


def _shaped(answer: Answer, form: Form) -> Answer:
    return answer if form.shape is None else form.shape(answer)
