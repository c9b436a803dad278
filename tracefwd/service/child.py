"""One worker process as its parent sees it: started, listened to, told to leave, outlived.

1. Its end is awaited together with its channel's, so its last words count.
2. Silence and overstaying are ended by a kill; what it held then counts as the tally says.
3. It knows nothing of other workers: who serves a slot and who only takes leave is the slot's affair.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from tracefwd.service.control import (
    EXIT_FAILED_TO_START,
    Ask,
    Channel,
    Drain,
    Failed,
    FromWorker,
    Gathered,
    Leaving,
    Look,
    Noticed,
    Ready,
    Snapshot,
    Start,
)
from tracefwd.service.tally import Life, Tally
from tracefwd.settings import Settings

LOG = logging.getLogger(__name__)

_WORKER = "tracefwd.service.worker"
# A read of the ledger waits no longer for a worker that is busy.
ANSWER_TIMEOUT_S = 1.0
# Workers speak each second; one that has not for this long does not serve its clients either.
SILENCE_S_MAX = 60.0
# After its budget a worker still says goodbye; after this it is killed and what it held counts as crashed.
DRAIN_GRACE_S = 3.0


@dataclass(frozen=True)
class End:
    """How a process ended, in words that follow its name; ``well`` is false where something may have been lost."""

    cause: str
    well: bool


class Child:
    """Made by ``start_child``; ``ended`` finishes when the process has ended and the tally knows."""

    ended: "asyncio.Task[End]"

    def __init__(self, life: Life, name: str, tally: Tally, changed: Callable[[], None]) -> None:
        """``changed`` is called when ``ready``, ``leaving`` or ``ended`` changes."""
        self.life = life
        self.name = name
        self.pid: int | None = None
        # Its event loop's implementation, as it said when it was ready.
        self.loop = ""
        # It has said that it listens, and lives.
        self.ready = False
        # It leaves without having been told to; "" or why.
        self.leaving = ""
        # It did not answer the last time it was asked.
        self.stale = False
        # Why it could not start; another one could not, either.
        self.failure: str | None = None
        self._tally = tally
        self._changed = changed
        self._channel: Channel[FromWorker] = Channel(FromWorker, self._receive)
        self._asks: dict[int, asyncio.Future[None]] = {}
        self._ask_number = 0
        # Nobody looks, as at its start.
        self._looks = 0
        self._heard_at = asyncio.get_running_loop().time()
        self._kill_at: float | None = None
        self._news = asyncio.Event()

    async def listens(self) -> bool:
        """Wait until it is ready (True) or has ended."""
        while not self.ready and not self.ended.done():
            self._news.clear()
            await self._news.wait()
        return self.ready

    async def ask(self, *, rejected: bool = False, sources: bool = False) -> None:
        """Have the tally's snapshot of it renewed; after a second without answer it stays as it is."""
        if not self.ready:
            return
        if self._channel.congested:
            self.stale = True
            return
        self._ask_number += 1
        number = self._ask_number
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asks[number] = answered
        self._channel.send(Ask(number, rejected, sources))
        try:
            await asyncio.wait_for(answered, ANSWER_TIMEOUT_S)
        except TimeoutError:
            self.stale = True
        finally:
            self._asks.pop(number, None)

    @property
    def silent_s(self) -> float:
        """Since it spoke last."""
        return asyncio.get_running_loop().time() - self._heard_at

    def look(self, look: Look) -> None:
        """Tell it what people look at, unless it knows."""
        if self.ready and self._looks != look.number and not self._channel.congested:
            self._looks = look.number
            self._channel.send(look)

    def drain(self, budget_s: float, *, handed_over: bool = False) -> None:
        """Let it leave within the budget.  Called again, it can only hurry.

        ``handed_over``: another worker accepts at its sockets, so it need not.
        """
        kill_at = asyncio.get_running_loop().time() + budget_s + DRAIN_GRACE_S
        if self._kill_at is None or kill_at < self._kill_at:
            self._kill_at = kill_at
        self._channel.send(Drain(budget_s, handed_over))

    async def open(
        self,
        process: asyncio.subprocess.Process,
        control: socket.socket,
        settings: Settings,
        beside: int,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.pid = process.pid
        await loop.create_unix_connection(lambda: self._channel, sock=control)
        settings_json = msgspec.Raw(msgspec.json.encode(settings))
        self._channel.send(Start(self.life.slot, settings_json, beside))
        self.ended = asyncio.create_task(self._live(process), name=self.name)
        self.ended.add_done_callback(lambda _: self._tell())

    async def _live(self, process: asyncio.subprocess.Process) -> End:
        code = await self._watch(process)
        # Its last words may still be in the channel.
        await self._channel.closed.wait()
        self.pid = None
        self.ready = False
        self.stale = False
        for answered in self._asks.values():
            if not answered.done():
                answered.set_result(None)
        lost = self._tally.retire(self.life)
        if lost:
            LOG.error("%s held %d spans when it died: dropped", self.name, lost)
        if code == EXIT_FAILED_TO_START and self.failure is None:
            self.failure = f"{self.name} could not start"
        cause = f"was killed by signal {-code}" if code < 0 else f"left with exit code {code}"
        return End(cause, well=code == 0)

    async def _watch(self, process: asyncio.subprocess.Process) -> int:
        """Wait for its end, and bring it about when it is silent or overstays."""
        loop = asyncio.get_running_loop()
        exited = asyncio.create_task(process.wait())
        while not exited.done():
            silent_at = self._heard_at + SILENCE_S_MAX
            due = silent_at if self._kill_at is None else min(silent_at, self._kill_at)
            if loop.time() >= due:
                LOG.error("%s does not answer: killed", self.name)
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
                self.ready = True
                self._tell()
            case Leaving(reason=reason):
                self.leaving = reason
                self._tell()
            case Failed(message=reason):
                self.failure = reason
            case Noticed() | Gathered():
                self._tally.hear(self.life, message)
            case Snapshot(id=number):
                self._tally.update(self.life, message)
                self.stale = False
                answered = self._asks.get(number)
                if answered is not None and not answered.done():
                    answered.set_result(None)

    def _tell(self) -> None:
        self._news.set()
        self._changed()


async def start_child(
    life: Life,
    name: str,
    listening: Mapping[str, socket.socket],
    settings: Settings,
    tally: Tally,
    *,
    compose: str,
    changed: Callable[[], None],
    beside: int = 0,
) -> Child:
    """A worker process that is starting, ``beside`` another one if it is not 0.  Raises ``OSError`` when there is none.

    ``name`` is for people.  It borrows the listening sockets, if any, which stay the parent's.  ``compose``
    (``module:function``) names other parts than a receiver's.
    """
    ours, theirs = socket.socketpair()
    numbers = {port: sock.fileno() for port, sock in listening.items()}
    named = ",".join(f"{port}={number}" for port, number in numbers.items())
    arguments = [named, str(theirs.fileno())]
    if compose:
        arguments.append(compose)
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
                pass_fds=(*numbers.values(), theirs.fileno()),
                # Signals to the parent's group (Ctrl-C) are for the parent, who then says "drain".
                start_new_session=True,
                env=environment,
            )
        except BaseException:
            ours.close()
            raise
    child = Child(life, name, tally, changed)
    await child.open(process, ours, settings, beside)
    return child
