"""OTLP over gRPC: one method, whose messages are read by our own reader and never by grpc.

1. grpc opens the port itself, because it cannot be given a listening socket: the parent keeps it with one that is bound
   and does not listen, and each worker's listener shares it by SO_REUSEPORT.  So unlike at the other ports, connections
   that a dead worker had not yet taken are reset; exporters connect anew.
2. A call is answered once its spans are held, like a post over HTTP; long messages take turns (``turns.py``), short
   ones are gathered for five milliseconds.
3. Refusals that will pass are UNAVAILABLE with ``RetryInfo``, all others must not be sent again.
4. Drain: calls are served until ``stop`` has lingered, then each client gets GOAWAY and calls under way are answered.
   With a successor at the port GOAWAY comes at once.  A call that crosses it on the wire is CANCELLED by grpc before we
   see it, which an exporter answers by sending again; now and then grpc forgets it instead, and we cancel it.
5. grpc weighs some 20 MB, so that it is imported by ``start``.
"""

import asyncio
import ipaddress
import logging
import os
import socket
from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tracefwd import metrics
from tracefwd.doorways import Answer, HeldAnswer, Ingest, IngestAll
from tracefwd.errors import StartError
from tracefwd.receiver import http_messages as say
from tracefwd.receiver import otlp_answers
from tracefwd.receiver.credentials import Credentials
from tracefwd.receiver.guard import Guard
from tracefwd.receiver.intake import Failures
from tracefwd.receiver.refusals import Refusals
from tracefwd.receiver.turns import LONG_BODY_BYTES, Turns
from tracefwd.receiver.weight import too_heavy_otlp
from tracefwd.settings import ReceiverSettings

if TYPE_CHECKING:
    import grpc.aio

_log = logging.getLogger("tracefwd.receiver")

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_METHOD = "Export"
# Calls under way on one connection; an Envoy has one per worker thread.
_STREAMS_MAX = 100
# How often a client may ping; the usual exporters' shortest is 10 s.
_PING_INTERVAL_MS_MIN = 5_000
# Calls wait this long for others, and so many are worked off in one bout of about 2 ms, stage by stage: that costs half
# of what each alone does between grpc's own steps.  No request of a mesh waits for an export.
_GATHER_S = 0.005
_GATHERED_MAX = 32
_GATHERED_BYTES_MAX = 256 * 2**10
_REFRESH_S = 1.0
# Above every budget of a worker.
_FOR_EVER_S = 1e6
# After GOAWAY, when no call is in our hands for so long, what grpc still holds never came to us and is cancelled.  In 4
# of 308 changes of workers on a busy machine a call that crossed GOAWAY was so, and had no answer before its deadline.
_FORGOTTEN_S = 1.0
_NOT_ALLOWED = Answer(403, b"This address may not connect (receiver.allowed_networks).\n")
# Metrics call codes by their names.
_OK = "OK"


class GrpcReceiver:
    """Serves at the port of one bound socket and counts what it serves; ``guard`` is shared with the other ports.

    ``ingest_all`` takes calls that came together; without it they are ingested one by one.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        ingest: Ingest,
        guard: Guard,
        ingest_all: IngestAll | None = None,
    ) -> None:
        self._settings = settings
        self._ingest = ingest
        self._ingest_all = ingest_all
        self._guard = guard
        self._turns = Turns(guard)
        self._refusals = Refusals()
        self._credentials = Credentials(settings)
        self._networks = [ipaddress.ip_network(text) for text in settings.allowed_networks]
        self._server: grpc.aio.Server | None = None
        self._health: Any = None
        self._codes: dict[int, Any] = {}
        self._stopping: asyncio.Task[None] | None = None
        self._refresher: asyncio.TimerHandle | None = None
        self._draining = False
        # Kept, because a task that nobody holds may be collected.
        self._farewell: asyncio.Future[None] | None = None
        self._called = False
        self._in_hands = 0
        self._in_flight_bytes = 0
        self._gathered: list[tuple[asyncio.Future[Answer | HeldAnswer], bytes]] = []
        self._gathered_bytes = 0
        self._bout: asyncio.TimerHandle | None = None
        self._counts: Counter[str] = Counter()
        self._bytes_read = 0
        self._buckets = [0] * (len(metrics.ANSWER_BUCKETS_S) + 1)
        self._seconds = 0.0
        self._failures = Failures("%d call(s) failed inside tracefwd")

    # Its life

    async def start(self, sock: socket.socket) -> None:
        """Serve at the address of ``sock``, which is bound with SO_REUSEPORT and stays its owner's.

        ``StartError`` for a file of tokens or certificates, or a port, that cannot be used.
        """
        # grpc's own log goes past ours, and says nothing that the counts do not.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc.aio
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        if self._credentials.are_asked_for:
            self._credentials.load()
            self._guard.ask_for(self._credentials.tokens)
        self._codes = {code.value[0]: code for code in grpc.StatusCode}
        server = grpc.aio.server(options=server_options(self._settings))
        method: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(self._export)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {_METHOD: method}),)
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        host, port = sock.getsockname()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._settings.tls.cert_file:
                server.add_secure_port(address, self._tls())
            else:
                server.add_insecure_port(address)
        except RuntimeError as error:
            await server.stop(None)
            raise StartError(
                f"receiver.otlp.grpc.listen {address}: grpc cannot listen there; "
                "choose another with --otlp-grpc HOST:PORT"
            ) from error
        await server.start()
        self._server = server
        self._refresh()

    def set_overloaded(self, overloaded: bool) -> None:
        """While memory is short, calls get UNAVAILABLE."""
        self._guard.set_overloaded(overloaded)

    def drain(self) -> None:
        """Say in the health service that this one leaves; calls are served on."""
        if not self._draining and self._health is not None:
            self._draining = True
            self._farewell = asyncio.ensure_future(self._health.enter_graceful_shutdown())

    def leave_port(self) -> None:
        """Another process serves at the port: send everybody there."""
        self._begin_stop()

    async def stop(self, linger_s: float = 6.0) -> None:
        """Drain, linger if anybody has ever called, and return when the last call is answered.

        An answer that is held for ever holds this for ever; cancelling it ends what is left.
        """
        self.drain()
        if self._server is None:
            return
        try:
            if self._stopping is None and self._called:
                await asyncio.sleep(linger_s)
            await asyncio.shield(self._begin_stop())
            await self._turns.over.wait()
        finally:
            self._turns.forget()
            if self._refresher is not None:
                self._refresher.cancel()
            self._tell_refusals(last=True)
            server, self._server = self._server, None
            if server is not None:
                await server.stop(None)

    def _begin_stop(self) -> "asyncio.Task[None]":
        if self._stopping is None:
            assert self._server is not None
            self._stopping = asyncio.ensure_future(self._see_off(self._server))
        return self._stopping

    async def _see_off(self, server: "grpc.aio.Server") -> None:
        """Return when every call in our hands is answered, however long that takes: the worker's own budget ends it."""
        stopped = asyncio.ensure_future(server.stop(_FOR_EVER_S))
        was_quiet = False
        while not (await asyncio.wait([stopped], timeout=_FORGOTTEN_S))[0]:
            is_quiet = not self._in_hands
            if was_quiet and is_quiet:
                await server.stop(None)
            was_quiet = is_quiet
        await stopped

    def _tls(self) -> Any:
        """Credentials that are read again when their files have changed; a handshake asks."""
        import grpc

        files = self._settings.tls
        names = [files.cert_file, files.key_file, files.client_ca_file]
        shown: dict[str, Any] = {"seen": None}

        def read() -> Any:
            chain, key = Path(files.cert_file).read_bytes(), Path(files.key_file).read_bytes()
            roots = Path(files.client_ca_file).read_bytes() if files.client_ca_file else None
            return grpc.ssl_server_certificate_configuration([(key, chain)], roots)

        def seen() -> Any:
            found = [Path(name).stat() for name in names if name]
            return [(each.st_ino, each.st_mtime_ns, each.st_size) for each in found]

        def fetch() -> Any:
            """In a thread of grpc's: what has changed, None if nothing has or it cannot be read."""
            try:
                now = seen()
                if now == shown["seen"]:
                    return None
                shown["seen"] = now
                return read()
            except OSError:
                # ``Credentials`` looks at the same files and says so.
                return None

        shown["seen"] = seen()
        return grpc.dynamic_ssl_server_credentials(
            read(), fetch, require_client_authentication=bool(files.client_ca_file)
        )

    # A call

    async def _export(self, body: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        began = perf_counter()
        self._called = True
        size = len(body)
        self._bytes_read += size
        self._in_hands += 1
        self._in_flight_bytes += size
        try:
            answer = self._refusal_of(context) or await self._answer_to(body)
            if isinstance(answer, HeldAnswer):
                answer = await _released(answer)
        finally:
            self._in_hands -= 1
            self._in_flight_bytes -= size
        seconds = perf_counter() - began
        self._buckets[bisect_left(metrics.ANSWER_BUCKETS_S, seconds)] += 1
        self._seconds += seconds
        if answer.status < 300:
            self._counts[_OK] += 1
            if not answer.rejected:
                return b""
            return otlp_answers.response(answer.rejected, otlp_answers.message_of(answer))
        self._refusals.request(answer, size)
        code = self._codes[otlp_answers.code_of(answer)]
        self._counts[code.name] += 1
        message = otlp_answers.message_of(answer)
        details = otlp_answers.status_with_retry(answer)
        await context.abort(code, message, (("grpc-status-details-bin", details),))
        raise AssertionError("abort raises")

    def _refusal_of(self, context: Any) -> Answer | None:
        if self._networks and not self._is_allowed(context.peer()):
            self._refusals.connection("not_allowed", context.peer())
            return _NOT_ALLOWED
        if self._guard.looks:
            return self._guard.refusal(
                _authorization(context) if self._guard.asks_for_token else b""
            )
        return None

    async def _answer_to(self, body: bytes) -> Answer | HeldAnswer:
        if len(body) > LONG_BODY_BYTES:
            return (
                self._turns.wait(lambda: self._take(body, otlp_answers.PROTOBUF), len(body))
                or say.NO_ROOM
            )
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer | HeldAnswer] = loop.create_future()
        self._gathered.append((answered, body))
        self._gathered_bytes += len(body)
        if len(self._gathered) >= _GATHERED_MAX or self._gathered_bytes >= _GATHERED_BYTES_MAX:
            self._serve_gathered()
        elif self._bout is None:
            self._bout = loop.call_later(_GATHER_S, self._serve_gathered)
        return await answered

    def _serve_gathered(self) -> None:
        if self._bout is not None:
            self._bout.cancel()
            self._bout = None
        # A client that went away has cancelled it; nothing of it is taken.
        waiting = [each for each in self._gathered if not each[0].done()]
        self._gathered, self._gathered_bytes = [], 0
        posts = [(body, otlp_answers.PROTOBUF) for _, body in waiting]
        answers = self._failures.take_all(posts, self._ingest_all, self._take)
        for (answered, _), answer in zip(waiting, answers, strict=True):
            answered.set_result(answer)

    def _take(self, body: bytes, content_type: str) -> Answer | HeldAnswer:
        try:
            if len(body) > LONG_BODY_BYTES and (reason := too_heavy_otlp(body)):
                return Answer(413, f"{reason}\n".encode())
            return self._ingest(body, content_type)
        except Exception as error:  # noqa: BLE001 - counted, logged and answered; the next call may fare better
            return self._failures.answer(error)

    def _is_allowed(self, peer: str) -> bool:
        """``peer`` as grpc writes it: ``ipv4:1.2.3.4:5``, ``ipv6:[::1]:5`` with escapes."""
        host = unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]").partition("%")[0]
        try:
            found = ipaddress.ip_address(host)
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._networks)

    # Beside

    def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        if self._credentials.are_asked_for and self._credentials.refresh():
            self._guard.ask_for(self._credentials.tokens)
        self._tell_refusals()
        self._refresher = loop.call_later(_REFRESH_S, self._refresh)

    def _tell_refusals(self, *, last: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        for is_loss, text in self._refusals.tell(now, last=last):
            _log.log(logging.ERROR if is_loss else logging.WARNING, "%s", text)

    @property
    def memory_bytes(self) -> int:
        """About what calls under way weigh; what grpc itself holds is seen by the process's size alone."""
        return self._in_flight_bytes

    def samples(self) -> metrics.Samples:
        """What was counted so far, in the families of ``metrics.CATALOGUE``."""
        duration = "tracefwd_receiver_request_duration_seconds"
        edges = [f"{edge:g}" for edge in metrics.ANSWER_BUCKETS_S] + ["+Inf"]
        sums = list(accumulate(self._buckets))
        return {
            "tracefwd_receiver_grpc_requests_total": {(k,): n for k, n in self._counts.items()},
            "tracefwd_receiver_request_bytes_total": {(): self._bytes_read},
            f"{duration}_bucket": {(edge,): n for edge, n in zip(edges, sums, strict=True)},
            f"{duration}_sum": {(): self._seconds},
            f"{duration}_count": {(): sums[-1]},
            "tracefwd_receiver_refused_requests_total": {
                (why,): n for why, n in self._refusals.requests.items()
            },
            "tracefwd_receiver_refused_bytes_total": {
                (why,): n for why, n in self._refusals.bytes.items()
            },
        }


def server_options(settings: ReceiverSettings) -> list[tuple[str, int]]:
    """What grpc is told about its connections, and the benchmark's empty handler, too."""
    options = {
        "grpc.so_reuseport": 1,
        "grpc.max_receive_message_length": settings.body_bytes_max,
        "grpc.max_metadata_size": settings.header_bytes_max,
        "grpc.absolute_max_metadata_size": 2 * settings.header_bytes_max,
        "grpc.max_concurrent_streams": _STREAMS_MAX,
        "grpc.server_handshake_timeout_ms": round(settings.header_timeout * 1000),
        "grpc.max_connection_idle_ms": round(settings.idle_timeout * 1000),
        "grpc.max_connection_age_grace_ms": round(settings.body_timeout * 1000),
        # Finds clients that went without a word.
        "grpc.keepalive_time_ms": round(settings.idle_timeout * 1000),
        "grpc.keepalive_timeout_ms": round(settings.body_timeout * 1000),
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": _PING_INTERVAL_MS_MIN,
    }
    if settings.connection_age_max > 0:
        # It adds a jitter of a tenth itself.
        options["grpc.max_connection_age_ms"] = round(settings.connection_age_max * 1000)
    return list(options.items())


def _authorization(context: Any) -> bytes:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return value if isinstance(value, bytes) else value.encode("utf-8", "replace")
    return b""


async def _released(held: HeldAnswer) -> Answer:
    released: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def release() -> None:
        # A client that went away has cancelled the waiting.
        if not released.done():
            released.set_result(None)

    held.when_released(release)
    await released
    assert held.answer is not None
    return held.answer
