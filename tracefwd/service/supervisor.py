"""The parent process: owns the ports, keeps a worker in every slot, speaks for all of them.

1. It binds before it starts anything, so a taken port fails once and clearly.
2. It never touches a span, and its death costs none: a worker that loses its channel drains and leaves.
3. Every read of the ledger asks all workers at once; each answers with one whole snapshot.
4. The first worker that cannot start ends the whole service: the next one could not, either.

Stop: not ready, workers drain (each within ``service.drain_timeout``), one line about the balance, exit.  The
admin port answers until the last worker has left.
"""

import asyncio
import logging
import platform
import signal
import socket
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tracefwd import __version__, metrics
from tracefwd.errors import StartError
from tracefwd.service import logs, sockets, tally
from tracefwd.service.slot import Slot

if TYPE_CHECKING:
    from tracefwd.service.admin import Admin
    from tracefwd.service.config import Loaded

LOG = logging.getLogger(__name__)

# What is left to a drain after a second signal.
HURRY_S = 2.0


class Service:
    """A running tracefwd, to be used as ``async with Service(loaded) as service``.

    Inside the block it is ready; at its end it has drained and ``ledger()`` is final.  ``compose``
    (``module:function``) names other parts for the workers than the real ones.
    """

    def __init__(self, loaded: "Loaded", *, compose: str = "") -> None:
        self.loaded = loaded
        self.intake_url = ""
        # "" without a port for span lines.
        self.lines_url = ""
        self.admin_url = ""
        self._compose = compose
        self._tally = tally.Tally()
        self._sockets: list[socket.socket] = []
        self._line_sockets: list[socket.socket] = []
        self._slots: list[Slot] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._admin: Admin | None = None
        self._changed = asyncio.Event()
        self._failure: StartError | None = None
        self._draining = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Return when every worker listens.  Raises ``StartError``; then nothing is left running."""
        try:
            await self._open()
            await self._all_listen()
        except BaseException:
            await self.stop(0.0)
            raise
        loops = ", ".join(sorted({slot.loop for slot in self._slots}))
        LOG.info(
            "ready: intake %s (workers: %d, on %s)%s, admin %s",
            self.intake_url,
            len(self._slots),
            loops,
            f", span lines {self.lines_url}" if self.lines_url else "",
            self.admin_url,
        )

    async def failed(self) -> StartError:
        """Wait until a worker's replacement could not start; the service can then only be stopped."""
        while self._failure is None:
            self._changed.clear()
            await self._changed.wait()
        return self._failure

    async def stop(self, budget_s: float | None = None) -> None:
        """Drain all workers, then close the ports.  A second call does nothing."""
        if budget_s is None:
            budget_s = self.loaded.settings.service.drain_timeout
        self._draining = True
        for slot in self._slots:
            slot.drain(budget_s)
        # Each lives on for as long as its worker accepts.  Kept open here, it would then take connections that
        # nobody serves.
        for sock in (*self._sockets, *self._line_sockets):
            sock.close()
        self._sockets.clear()
        self._line_sockets.clear()
        if self._keepers:
            await asyncio.wait(self._keepers)
        if self._admin is not None:
            await self._admin.stop()
            self._admin = None

    def hurry(self) -> None:
        """Leave a drain no more than a moment."""
        for slot in self._slots:
            slot.drain(HURRY_S)

    @property
    def ready(self) -> bool:
        """Whether every worker listens and none is leaving."""
        return not self._draining and bool(self._slots) and all(slot.ready for slot in self._slots)

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def slots(self) -> list[Slot]:
        return self._slots

    async def ledger(self) -> dict[str, Any]:
        """The sum over all workers, living and dead; it balances."""
        await self._refresh()
        return self._tally.ledger()

    async def samples(self) -> metrics.Samples:
        """Every metric that workers count, and the parent's own."""
        await self._refresh()
        total = self._tally.samples()
        states = tally.by_state(self._tally.ledger())  # type: ignore[arg-type]
        own: metrics.Samples = {
            "tracefwd_ledger_spans": {(state,): states[state] for state in tally.STATES},
            "tracefwd_workers": {(): sum(slot.ready and not slot.stale for slot in self._slots)},
            "tracefwd_worker_restarts_total": {(): sum(slot.restarts for slot in self._slots)},
            "tracefwd_build_info": {(__version__, platform.python_version()): 1},
        }
        return total | own

    async def rejected_samples(self) -> list[dict[str, str]]:
        await self._refresh(rejected=True)
        return self._tally.rejected_samples()

    def problems(self) -> dict[int, list[str]]:
        """What workers say is wrong outside, by slot, as of their last snapshot."""
        found = ((slot.number, self._tally.latest(slot.number)) for slot in self._slots)
        return {number: latest.problems for number, latest in found if latest is not None}

    async def _open(self) -> None:
        from tracefwd.service.admin import Admin

        settings = self.loaded.settings
        count = settings.service.workers
        receiver = settings.receiver
        self._sockets = sockets.listen_shared(
            receiver.listen, "receiver.listen", flag="--listen", count=count
        )
        if receiver.trace_listen:
            self._line_sockets = sockets.listen_shared(
                receiver.trace_listen, "receiver.trace_listen", flag="--trace-listen", count=count
            )
            self.lines_url = sockets.url(self._line_sockets[0])
        admin_socket = sockets.listen(settings.admin.listen, "admin.listen", flag="--admin")
        self.intake_url = sockets.url(self._sockets[0])
        self.admin_url = sockets.url(admin_socket)
        self._admin = Admin(self)
        await self._admin.start(admin_socket)
        for number, sock in enumerate(self._sockets):
            slot = Slot(
                number,
                sock,
                settings,
                self._tally,
                compose=self._compose,
                changed=self._changed.set,
                line_sock=self._line_sockets[number] if self._line_sockets else None,
            )
            self._slots.append(slot)
            keeper = asyncio.create_task(slot.keep(), name=f"slot {number}")
            keeper.add_done_callback(self._kept)
            self._keepers.append(keeper)

    async def _refresh(self, *, rejected: bool = False) -> None:
        """Renew every worker's snapshot; one that does not answer within a second keeps its last."""
        await asyncio.gather(*(slot.ask(rejected=rejected) for slot in self._slots))

    async def _all_listen(self) -> None:
        while not self.ready:
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            await self._changed.wait()

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        """A slot is no longer served: we are draining, or its worker could not start."""
        error = keeper.exception()
        if error is None:
            return
        if not isinstance(error, StartError):
            LOG.error("%s failed", keeper.get_name(), exc_info=error)
            error = StartError(f"{keeper.get_name()} failed: {type(error).__name__}")
        self._failure = self._failure or error
        self._changed.set()


def run(loaded: "Loaded") -> int:
    """The service in the foreground until SIGTERM or SIGINT; the exit code."""
    logs.configure(loaded.settings.service)
    return asyncio.run(_run(loaded))


async def _run(loaded: "Loaded") -> int:
    service = Service(loaded)
    stop = asyncio.Event()
    _obey_signals(service, stop)
    told = asyncio.create_task(stop.wait())
    start = asyncio.create_task(service.start())
    await asyncio.wait({told, start}, return_when=asyncio.FIRST_COMPLETED)
    if not start.done():
        start.cancel()
        await asyncio.wait({start})
        return 0
    try:
        start.result()
    except StartError as error:
        LOG.error("not started: %s", error)  # noqa: TRY400  # the message says it all
        return 1
    failed = asyncio.create_task(service.failed())
    await asyncio.wait({told, failed}, return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        LOG.error("stopping: a worker could not be replaced: %s", failed.result())
    else:
        LOG.info("draining for at most %g s", loaded.settings.service.drain_timeout)
    await service.stop()
    balanced, line = tally.balance(await service.ledger())
    LOG.log(logging.INFO if balanced else logging.ERROR, "%s", line)
    return 1 if failed.done() or not balanced else 0


def _obey_signals(service: Service, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def leave() -> None:
        if stop.is_set():
            LOG.warning("hurrying: what is not delivered in %g s is dropped", HURRY_S)
            service.hurry()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    loop.add_signal_handler(
        signal.SIGHUP,
        lambda: LOG.warning(
            "the configuration is read at start only: restart to apply a change; a changed rules file "
            "is read within a second"
        ),
    )
