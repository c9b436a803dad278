"""One share of the ports: a listening socket of each and whichever worker process serves them now.

A socket belongs to the parent and outlives every worker: connections that wait while a dead worker is
replaced are served by the next one.  (Closing a socket that somebody waits at resets them.)

A worker that dies or falls silent is replaced: at once, then after 0.5 s, 1 s, ... 10 s.  One that fails to
start is not: the next would fail, too, so ``keep`` raises ``StartError`` with its message.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable

import msgspec

from tracefwd.errors import StartError
from tracefwd.service.control import (
    EXIT_FAILED_TO_START,
    Ask,
    Channel,
    Drain,
    Failed,
    FromWorker,
    Ready,
    Snapshot,
    Start,
)
from tracefwd.service.tally import Tally
from tracefwd.settings import Settings

LOG = logging.getLogger(__name__)

_WORKER = "tracefwd.service.worker"
# worker.EXIT_FAILED_TO_START: importing the worker would bring its imports along.
# A read of the ledger waits no longer for a worker that is busy.
ANSWER_TIMEOUT_S = 1.0
# Workers speak each second; one that has not for this long does not serve its clients either.
SILENCE_S_MAX = 60.0
BACKOFF_BASE_S = 0.5
BACKOFF_S_MAX = 10.0
# A worker that lived this long did not die of starting.
SETTLED_S = 60.0
# After its budget a worker still says goodbye; after this it is killed and what it held counts as crashed.
DRAIN_GRACE_S = 3.0


class Slot:
    """``keep`` runs until ``drain``; everything else may be called at any time."""

    def __init__(
        self,
        number: int,
        sock: socket.socket,
        settings: Settings,
        tally: Tally,
        *,
        compose: str,
        changed: Callable[[], None],
        line_sock: socket.socket | None = None,
    ) -> None:
        """``line_sock`` is the one for span lines, if there is a port for them."""
        self.number = number
        self.restarts = 0
        self.ready = False
        self.stale = False
        self.pid: int | None = None
        self.loop = ""
        self._sock = sock
        self._line_sock = line_sock
        self._settings = settings
        self._tally = tally
        self._compose = compose
        self._changed = changed
        self._channel: Channel[FromWorker] | None = None
        self._failure: str | None = None
        self._asks: dict[int, asyncio.Future[None]] = {}
        self._ask_number = 0
        self._heard_at = 0.0
        self._draining = asyncio.Event()
        self._kill_at: float | None = None

    async def keep(self) -> None:
        """Have a worker in this slot until ``drain``.  Raises ``StartError`` if one cannot start."""
        loop = asyncio.get_running_loop()
        backoff_s = 0.0
        while not self._draining.is_set():
            started_at = loop.time()
            cause, lost = await self._one_worker()
            if self._draining.is_set():
                return
            if self._failure is not None:
                raise StartError(self._failure)
            self.restarts += 1
            if loop.time() - started_at > SETTLED_S:
                backoff_s = 0.0
            LOG.log(
                logging.ERROR if lost else logging.WARNING,
                "worker %d %s; replaced %s",
                self.number,
                cause,
                f"in {backoff_s:g} s" if backoff_s else "at once",
            )
            if await self._drains_within(backoff_s):
                return
            backoff_s = min(max(backoff_s * 2, BACKOFF_BASE_S), BACKOFF_S_MAX)

    async def ask(self, *, rejected: bool = False) -> None:
        """Have the tally's snapshot of this worker renewed; after a second without answer it stays as it is."""
        channel = self._channel
        if channel is None or not self.ready:
            return
        if channel.congested:
            self.stale = True
            return
        self._ask_number += 1
        number = self._ask_number
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asks[number] = answered
        channel.send(Ask(number, rejected))
        try:
            await asyncio.wait_for(answered, ANSWER_TIMEOUT_S)
        except TimeoutError:
            self.stale = True
        finally:
            self._asks.pop(number, None)

    def drain(self, budget_s: float) -> None:
        """Let the worker leave within the budget and do not replace it.  Called again, it can only hurry."""
        kill_at = asyncio.get_running_loop().time() + budget_s + DRAIN_GRACE_S
        if self._kill_at is None or kill_at < self._kill_at:
            self._kill_at = kill_at
        self._draining.set()
        if self._channel is not None:
            self._channel.send(Drain(budget_s))

    async def _one_worker(self) -> tuple[str, bool]:
        """The life of one process: what became of it, and whether something may have been lost."""
        try:
            process = await self._spawn()
        except OSError as error:
            return f"could not be started: {error}", False
        channel = self._channel
        assert channel is not None
        code = await self._watch(process)
        # Its last words may still be in the channel.
        await channel.closed.wait()
        self._channel = None
        self.pid = None
        self._set_ready(ready=False)
        for answered in self._asks.values():
            if not answered.done():
                answered.set_result(None)
        lost = self._tally.retire(self.number)
        if lost:
            LOG.error("worker %d held %d spans when it died: dropped", self.number, lost)
        if code == EXIT_FAILED_TO_START and self._failure is None:
            self._failure = f"worker {self.number} could not start"
        cause = f"was killed by signal {-code}" if code < 0 else f"left with exit code {code}"
        return cause, code != 0

    async def _spawn(self) -> asyncio.subprocess.Process:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        served = [self._sock] if self._line_sock is None else [self._sock, self._line_sock]
        listening = [sock.fileno() for sock in served]
        arguments = [",".join(map(str, listening)), str(theirs.fileno())]
        if self._compose:
            arguments.append(self._compose)
        # The worker runs the very code that the parent runs, wherever that was found.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    _WORKER,
                    *arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(*listening, theirs.fileno()),
                    # Signals to the parent's group (Ctrl-C) are for the parent, who then says "drain".
                    start_new_session=True,
                    env=environment,
                )
            except BaseException:
                ours.close()
                raise
        self.pid = process.pid
        self._heard_at = loop.time()
        channel: Channel[FromWorker] = Channel(FromWorker, self._receive)
        await loop.create_unix_connection(lambda: channel, sock=ours)
        self._channel = channel
        channel.send(Start(self.number, msgspec.Raw(msgspec.json.encode(self._settings))))
        if self._draining.is_set():
            channel.send(Drain(0.0))
        return process

    async def _watch(self, process: asyncio.subprocess.Process) -> int:
        """Wait for its end, and bring it about when it is silent or overstays."""
        loop = asyncio.get_running_loop()
        exited = asyncio.create_task(process.wait())
        while not exited.done():
            silent_at = self._heard_at + SILENCE_S_MAX
            due = silent_at if self._kill_at is None else min(silent_at, self._kill_at)
            if loop.time() >= due:
                LOG.error("worker %d does not answer: killed", self.number)
                process.kill()
                break
            # Short, because a drain sets an earlier time.
            await asyncio.wait({exited}, timeout=min(1.0, due - loop.time()))
        return await exited

    def _receive(self, message: FromWorker) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        match message:
            case Ready(loop=loop):
                self.loop = loop
                self._set_ready(ready=True)
            case Failed(message=reason):
                self._failure = reason
            case Snapshot(id=number):
                self._tally.update(self.number, message)
                self.stale = False
                answered = self._asks.get(number)
                if answered is not None and not answered.done():
                    answered.set_result(None)

    def _set_ready(self, *, ready: bool) -> None:
        self.ready = ready
        self.stale = False
        self._changed()

    async def _drains_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._draining.wait(), seconds)
        except TimeoutError:
            return False
        return True
