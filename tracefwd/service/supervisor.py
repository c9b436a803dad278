"""The parent process: owns the ports, keeps a worker in every slot and a scraper beside them, speaks for all.

1. It binds before it starts anything, so a taken port fails once and clearly.
2. It never touches a span, and its death costs none: a worker that loses its channel drains and leaves.
3. Every read of the ledger asks all workers at once; each answers with one whole snapshot.
4. The first worker that cannot start ends the whole service: the next one could not, either.

Stop: not ready, all is served as before for ``service.pre_stop_delay`` (so that nobody is sent here any more), workers
drain (each within ``service.drain_timeout``), one line about the balance, exit.  The admin port answers until the last
worker has left.  A second signal leaves all that ``HURRY_S``.
"""

import asyncio
import logging
import os
import platform
import resource
import signal
import socket
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tracefwd import __version__, metrics
from tracefwd.errors import StartError
from tracefwd.service import logs, reload, signals, sockets, tally
from tracefwd.service.child import DRAIN_GRACE_S
from tracefwd.service.slot import Slot
from tracefwd.service.source_checks import wants_scraper
from tracefwd.service.systemd import Systemd
from tracefwd.service.views import Views
from tracefwd.settings import Settings

if TYPE_CHECKING:
    from tracefwd.service.admin import Admin
    from tracefwd.service.config import Loaded

LOG = logging.getLogger(__name__)

# What is left to a drain after a second signal.
HURRY_S = 2.0
# What the scraper's process is made of.
_SCRAPER = "tracefwd.service.scraper_parts:compose"


class Service:
    """A running tracefwd, to be used as ``async with Service(loaded) as service``.

    Inside the block it is ready; at its end it has drained and ``ledger()`` is final.  ``compose``
    (``module:function``) names other parts for the workers than the real ones.
    """

    def __init__(self, loaded: "Loaded", *, compose: str = "") -> None:
        self.loaded = loaded
        self.intake_url = ""
        # "" without a port of the kind.
        self.lines_url = ""
        self.otlp_http_url = ""
        self.otlp_grpc_url = ""
        self.admin_url = ""
        self.reloads = 0
        self.reloads_refused = 0
        self._compose = compose
        self.views = Views(self)
        self._tally = tally.Tally(self.views.hear)
        # One of each port for each worker.
        self._sockets: dict[str, list[socket.socket]] = {}
        self._slots: list[Slot] = []
        self._scraper: Slot | None = None
        self._gone_restarts = 0
        self._keepers: list[asyncio.Task[None]] = []
        self._admin: Admin | None = None
        self._changed = asyncio.Event()
        self._failure: StartError | None = None
        self._draining = False
        self._hurried = asyncio.Event()

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
        except asyncio.CancelledError:
            # A worker that listens already may have taken spans: it has as long for them as ever.
            await self.stop(self.loaded.settings.service.drain_timeout)
            raise
        except BaseException:
            await self.stop(0.0)
            raise
        LOG.info("ready: %s", self._ready_parts())

    async def failed(self) -> StartError:
        """Wait until a worker's replacement could not start; the service can then only be stopped."""
        while self._failure is None:
            self._changed.clear()
            await self._changed.wait()
        return self._failure

    async def reload(self, loaded: "Loaded") -> None:
        """Exchange the workers one by one for such with these settings; nobody is refused meanwhile.

        Raises ``StartError`` when one cannot start: then those before it have the new settings, it and those after it
        the old ones, and all serve.
        """
        change = reload.change(self.loaded, loaded)
        for key in change.kept:
            LOG.warning("%s has changed, which needs a restart; what it was before goes on", key)
        scrapes = wants_scraper(change.loaded.settings)
        exchanged = [slot for slot in self._slots if slot is not self._scraper or scrapes]
        for number, slot in enumerate(exchanged):
            try:
                await slot.exchange(change.loaded.settings)
            except StartError as error:
                if not number:
                    raise
                raise StartError(f"{error} (workers below {number} have it already)") from error
        await self._fit_scraper(change.loaded.settings)
        if self._draining:
            return
        self.loaded = change.loaded
        self.reloads += 1
        LOG.info(
            "configuration read again, %d workers exchanged; changed: %s",
            len(exchanged),
            change.summary,
        )

    async def stop(self, budget_s: float | None = None) -> None:
        """Drain all workers, then close the ports.  A second call does nothing.

        Without a budget it is as the settings say, and the pre-stop delay comes before it.
        """
        service = self.loaded.settings.service
        self._draining = True
        if budget_s is None:
            budget_s = service.drain_timeout
            await self._serve_on(service.pre_stop_delay)
            LOG.info("draining for at most %g s", budget_s)
        for slot in self._slots:
            slot.drain(min(budget_s, HURRY_S) if self._hurried.is_set() else budget_s)
        # Each lives on for as long as its worker accepts.  Kept open here, it would then take connections that
        # nobody serves.
        for opened in self._sockets.values():
            for sock in opened:
                sock.close()
        self._sockets.clear()
        if self._keepers:
            await asyncio.wait(self._keepers)
        if self._admin is not None:
            await self.views.stop()
            await self._admin.stop()
            self._admin = None

    def hurry(self) -> None:
        """Leave a drain no more than a moment."""
        self._hurried.set()
        if self._sockets:
            # The drain has yet to begin.
            return
        for slot in self._slots:
            slot.drain(HURRY_S)

    async def answers(self) -> bool:
        """Whether every worker that there ought to be answers within a second."""
        await self._refresh()
        if any(slot.stale for slot in self._slots):
            return False
        return self._draining or self.ready

    @property
    def status(self) -> str:
        """One line for people."""
        served = f"intake {self.intake_url}, {len(self.workers)} workers, "
        return f"{served if self.workers else ''}admin {self.admin_url}"

    @property
    def ready(self) -> bool:
        """Whether every worker listens and none is leaving.

        The scraper counts only where it is alone: without it spans are taken as before.
        """
        counted = self.workers or self._slots
        return not self._draining and bool(counted) and all(slot.ready for slot in counted)

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def slots(self) -> list[Slot]:
        """All of them; the scraper's, if there is one, is the last."""
        return self._slots

    @property
    def tally(self) -> tally.Tally:
        return self._tally

    @property
    def workers(self) -> list[Slot]:
        return [slot for slot in self._slots if slot is not self._scraper]

    async def ledger(self) -> dict[str, Any]:
        """The sum over all workers, living and dead; it balances."""
        await self._refresh()
        return self._tally.ledger()

    async def samples(self) -> metrics.Samples:
        """Every metric that workers count, and the parent's own."""
        await self._refresh()
        return self.latest_samples()

    def latest_samples(self) -> metrics.Samples:
        """The same as workers said last, which is a second ago at most."""
        total = self._tally.samples()
        whole = self._tally.ledger()
        states, points = tally.by_state(whole), tally.by_state(whole["points"])  # type: ignore[arg-type]
        own: metrics.Samples = {
            "tracefwd_ledger_spans": {(state,): states[state] for state in tally.STATES},
            "tracefwd_ledger_points": {(state,): points[state] for state in tally.STATES},
            "tracefwd_workers": {(): sum(slot.ready and not slot.stale for slot in self.workers)},
            "tracefwd_worker_restarts_total": {
                (): self._gone_restarts + sum(slot.restarts for slot in self._slots)
            },
            "tracefwd_config_reloads_total": {
                ("applied",): self.reloads,
                ("refused",): self.reloads_refused,
            },
            "tracefwd_open_files_max": {(): resource.getrlimit(resource.RLIMIT_NOFILE)[0]},
            "tracefwd_build_info": {(__version__, platform.python_version()): 1},
        }
        return total | own

    async def rejected_samples(self) -> list[dict[str, str]]:
        await self._refresh(rejected=True)
        return self._tally.rejected_samples()

    async def sources(self) -> list[dict[str, Any]]:
        """How each scraped source is doing, and which of its names were missed or not sent."""
        if self._scraper is None:
            return []
        await self._scraper.ask(sources=True)
        return self._scraper.sources

    def problems(self) -> dict[str, list[str]]:
        """What workers say is wrong outside, by name, as of their last snapshot."""
        return {slot.name: slot.problems for slot in self._slots}

    async def _open(self) -> None:
        from tracefwd.service.admin import Admin

        settings = self.loaded.settings
        if settings.service.only != "metrics":
            self._listen(settings)
        admin_socket = sockets.listen(settings.admin.listen, "admin.listen", flag="--admin")
        self.admin_url = sockets.url(admin_socket, tls=bool(settings.admin.tls.cert_file))
        self._admin = Admin(self, is_loopback=sockets.is_loopback(admin_socket))
        await self._admin.start(admin_socket)
        await self.views.start()
        for number in range(len(self._sockets.get("spans", ()))):
            slot = Slot(
                number,
                {port: opened[number] for port, opened in self._sockets.items()},
                settings,
                self._tally,
                compose=self._compose,
                changed=self._changed.set,
            )
            self._keep(slot)
        if wants_scraper(settings):
            self._start_scraper(settings)

    def _listen(self, settings: Settings) -> None:
        receiver, tls = settings.receiver, bool(settings.receiver.tls.cert_file)
        ports = {
            "spans": (receiver.listen, "receiver.listen", "--listen"),
            "lines": (receiver.trace_listen, "receiver.trace_listen", "--trace-listen"),
            "otlp_http": (receiver.otlp.http.listen, "receiver.otlp.http.listen", "--otlp-http"),
            "otlp_grpc": (receiver.otlp.grpc.listen, "receiver.otlp.grpc.listen", "--otlp-grpc"),
        }
        urls: dict[str, str] = {}
        for port, (address, option, flag) in ports.items():
            if not address:
                continue
            self._sockets[port] = sockets.listen_shared(
                address,
                option,
                flag=flag,
                count=settings.service.workers,
                # grpc opens its own, and cannot be given one.
                bound_only=port == "otlp_grpc",
            )
            urls[port] = sockets.url(self._sockets[port][0], tls=tls)
        self.intake_url = urls["spans"]
        self.lines_url = urls.get("lines", "")
        self.otlp_http_url = urls.get("otlp_http", "")
        self.otlp_grpc_url = urls.get("otlp_grpc", "")

    def _keep(self, slot: Slot) -> None:
        self._slots.append(slot)
        keeper = asyncio.create_task(slot.keep(), name=slot.name)
        keeper.add_done_callback(self._kept)
        self._keepers.append(keeper)

    def _start_scraper(self, settings: Settings) -> None:
        self._scraper = Slot(
            # Above every worker's, so that the tally tells them apart.
            settings.service.workers,
            {},
            settings,
            self._tally,
            compose=_SCRAPER,
            changed=self._changed.set,
            name="scraper",
        )
        self._keep(self._scraper)

    async def _fit_scraper(self, settings: Settings) -> None:
        """After a reload: sources came where there were none, or the last one is gone."""
        if self._draining or wants_scraper(settings) == (self._scraper is not None):
            return
        if self._scraper is None:
            self._start_scraper(settings)
            return
        scraper, self._scraper = self._scraper, None
        scraper.drain(settings.service.drain_timeout)
        await scraper.gone()
        self._slots.remove(scraper)
        self._gone_restarts += scraper.restarts

    def _ready_parts(self) -> str:
        loops = ", ".join(sorted({slot.loop for slot in self._slots}))
        parts = []
        if self.workers:
            parts.append(f"intake {self.intake_url} (workers: {len(self.workers)}, on {loops})")
        if self.lines_url:
            parts.append(f"span lines {self.lines_url}")
        if self.otlp_http_url:
            parts.append(f"OTLP over HTTP {self.otlp_http_url}")
        if self.otlp_grpc_url:
            parts.append(f"OTLP over gRPC {self.otlp_grpc_url.partition('//')[2]}")
        if self._scraper is not None:
            parts.append(f"scraping {len(self.loaded.settings.prometheus_sources)} sources")
        return ", ".join([*parts, f"admin {self.admin_url}"])

    async def _refresh(self, *, rejected: bool = False) -> None:
        """Renew every worker's snapshot; one that does not answer within a second keeps its last."""
        await asyncio.gather(*(slot.ask(rejected=rejected) for slot in self._slots))

    async def _all_listen(self) -> None:
        while not (self.ready and all(slot.ready for slot in self._slots)):
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            await self._changed.wait()

    async def _serve_on(self, seconds: float) -> None:
        if not seconds:
            return
        LOG.info("not ready, and serving on for %g s (service.pre_stop_delay)", seconds)
        try:
            await asyncio.wait_for(self._hurried.wait(), seconds)
        except TimeoutError:
            return

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


def run(loaded: "Loaded", reread: Callable[[], "Loaded"] | None = None) -> int:
    """The service in the foreground until SIGTERM or SIGINT; the exit code.

    ``reread`` is asked for the configuration at SIGHUP; None has the workers exchanged only.
    """
    logs.configure(loaded.settings.service)
    _allow_files()
    return asyncio.run(_run(loaded, reread))


def _allow_files() -> None:
    """Every connection is an open file.  Most systems start processes with 1,024 and allow many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        # macOS says "unlimited" and means less.
        LOG.warning("open files: at most %d per process; not raised to %d: %s", soft, hard, error)
        return
    LOG.info("open files: at most %d per process (%d at the start)", hard, soft)


async def _run(loaded: "Loaded", reread: Callable[[], "Loaded"] | None) -> int:
    try:
        return await _serve(loaded, reread)
    finally:
        signals.after_the_loop(asyncio.get_running_loop())


async def _serve(loaded: "Loaded", reread: Callable[[], "Loaded"] | None) -> int:
    service = Service(loaded)
    systemd = Systemd(os.environ, os.getpid())
    reloader = reload.Reloader(service, reread, systemd)
    stop = asyncio.Event()
    _obey_signals(service, stop, reloader)
    told = asyncio.create_task(stop.wait())
    start = asyncio.create_task(service.start())
    await asyncio.wait({told, start}, return_when=asyncio.FIRST_COMPLETED)
    if not start.done():
        start.cancel()
        await asyncio.wait({start})
        return 0 if await _tell_balance(service) else 1
    try:
        start.result()
    except StartError as error:
        LOG.error("not started: %s", error)  # noqa: TRY400  # the message says it all
        return 1
    systemd.ready(service.status)
    beside = [
        asyncio.create_task(reloader.run(), name="reloader"),
        asyncio.create_task(systemd.watch(service.answers), name="watchdog"),
    ]
    failed = asyncio.create_task(service.failed())
    await asyncio.wait({told, failed}, return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        LOG.error("stopping: a worker could not be replaced: %s", failed.result())
    await _leave(service, systemd)
    for task in beside:
        task.cancel()
    await asyncio.wait(beside)
    return 0 if await _tell_balance(service) and not failed.done() else 1


async def _tell_balance(service: Service) -> bool:
    """The last word about every span; whether it adds up."""
    balanced, line = tally.balance(await service.ledger(), ended=True)
    LOG.log(logging.INFO if balanced else logging.ERROR, "%s", line)
    return balanced


async def _leave(service: Service, systemd: Systemd) -> None:
    options = service.loaded.settings.service
    within_s = options.pre_stop_delay + options.drain_timeout
    systemd.stopping("draining", within_s + DRAIN_GRACE_S + HURRY_S)
    await service.stop()


def _obey_signals(service: Service, stop: asyncio.Event, reloader: reload.Reloader) -> None:
    loop = asyncio.get_running_loop()

    def leave() -> None:
        if stop.is_set():
            LOG.warning("hurrying: what is not delivered in %g s is dropped", HURRY_S)
            service.hurry()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    loop.add_signal_handler(signal.SIGHUP, reloader.wish)
