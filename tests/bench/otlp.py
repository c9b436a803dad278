"""OTLP in, beside what it is measured by: over HTTP the Zipkin JSON path, over gRPC an empty handler of ``grpc.aio``.

Run: ``python tests/bench/otlp.py [--seconds N] [--rounds N] [--json FILE]``

* HTTP: spans delivered per CPU-second of the whole process tree at the limit, the same spans as protobuf to
  ``/v1/traces`` and as JSON to ``/api/v2/spans``.  Wanted: 60 %.
* gRPC: calls per CPU-second of the server's process tree, five spans a call as Envoys send them; the empty handler has
  the same options, and gets the same bodies over as many connections, right before or after.  Wanted: 70 %.  What the
  figure of tracefwd holds beside the transport is everything up to the delivered line.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import grpc.aio  # noqa: E402

from tests.bench import harness, machine  # noqa: E402
from tests.bench.bodies import Traffic  # noqa: E402
from tests.bench.harness import Result, Row, Rows, bench  # noqa: E402
from tests.bench.servers import Running, Server, SinkPorts, Started, tracefwd  # noqa: E402
from tracefwd.receiver.otlp_grpc import SERVICE  # noqa: E402

METHOD = f"/{SERVICE}/Export"
# Envoy's two worker threads each, of sixteen sidecars.
CONNECTIONS = 32
WARM_UP_S = 1.5
_READY_TIMEOUT_S = 30.0
HTTP_SHARE_MIN, GRPC_SHARE_MIN = 0.60, 0.70

_EMPTY = """
import sys, asyncio, uvloop, grpc.aio
from tracefwd.receiver.otlp_grpc import server_options
from tracefwd.settings import ReceiverSettings
async def main():
    async def export(request, context):
        return b""
    server = grpc.aio.server(options=server_options(ReceiverSettings()))
    method = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    server.add_insecure_port("127.0.0.1:" + sys.argv[1])
    await server.start()
    def ready(_, writer):
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
        writer.close()
    await asyncio.start_server(ready, "127.0.0.1", int(sys.argv[2]))
    await server.wait_for_termination()
uvloop.run(main())
"""


def over_http(seconds: float) -> Rows:
    rows = {}
    for name, encoding in (("zipkin json", "v2"), ("otlp/http", "otlp")):
        with bench(tracefwd(), Traffic(encoding=encoding)) as one:
            rows[name] = one.limit(seconds)
    return harness.cut(rows, "spans/CPU-s", "us/span", "spans/s", "lost", "not 202", "p99 ms")


def over_grpc(seconds: float) -> Rows:
    bodies = [
        [request.body for request in envoy]
        for envoy in Traffic(encoding="otlp", connections=CONNECTIONS).envoys(
            time.time_ns() // 1000
        )
    ]
    rows = {}
    with harness.Sink() as sink:
        for name in ("empty handler", "otlp/grpc"):
            port = machine.free_port()
            server = _empty(port) if name == "empty handler" else _tracefwd(port)
            with Running(server, sink.ports) as running:
                warmed, _, _ = asyncio.run(_drive(port, bodies, WARM_UP_S))
                if server.delivers:
                    # Else delivering them would be paid for by the calls that are measured.
                    _until_delivered(sink, 5 * warmed)
                before, cpu = sink.counts()["spans"], machine.cpu(running.pid)
                calls, failed, wall_s = asyncio.run(_drive(port, bodies, seconds))
                if server.delivers:
                    _until_delivered(sink, before + 5 * calls)
                spent = machine.cpu(running.pid).since(cpu)
                delivered = sink.counts()["spans"] - before
            rows[name] = _row(calls, failed, spent.total_s, wall_s)
            rows[name]["lost"] = 5 * calls - delivered if server.delivers else 0
    return rows


def _row(calls: int, failed: int, cpu_s: float, wall_s: float) -> Row:
    return {
        "calls/CPU-s": calls / cpu_s,
        "us/call": cpu_s / max(calls, 1) * 1e6,
        "spans/CPU-s": 5 * calls / cpu_s,
        "calls/s": calls / wall_s,
        "failed": failed,
    }


def _until_delivered(sink: harness.Sink, wanted: int) -> None:
    deadline = time.monotonic() + 30
    while sink.counts()["spans"] < wanted and time.monotonic() < deadline:
        time.sleep(0.1)


async def _drive(port: int, envoys: list[list[bytes]], seconds: float) -> tuple[int, int, float]:
    """(calls answered, calls that failed, seconds): each connection calls again when it was answered."""
    await _until_served(port)
    begin = time.perf_counter()
    end = begin + seconds
    failed = 0

    async def envoy(bodies: list[bytes]) -> int:
        nonlocal failed
        options = [("grpc.use_local_subchannel_pool", 1)]
        answered = 0
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            call = channel.unary_unary(METHOD)
            while time.perf_counter() < end:
                try:
                    await call(bodies[answered % len(bodies)], timeout=10)
                except grpc.aio.AioRpcError:
                    failed += 1
                answered += 1
        return answered

    answered = sum(await asyncio.gather(*map(envoy, envoys)))
    return answered - failed, failed, time.perf_counter() - begin


async def _until_served(port: int) -> None:
    """A server that has answered its health page may have yet to open this port."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), _READY_TIMEOUT_S)


def _empty(port: int) -> Server:
    def start(_port: int, _sinks: SinkPorts, _folder: Path) -> Started:
        ready = machine.free_port()
        command = [sys.executable, "-c", _EMPTY, str(port), str(ready)]
        return Started(command, f"http://127.0.0.1:{ready}/")

    return Server("empty", start, delivers=False)


def _tracefwd(port: int) -> Server:
    return tracefwd(RECEIVER__OTLP__GRPC__LISTEN=f"127.0.0.1:{port}")


def measure(arguments: argparse.Namespace) -> Result:
    seconds = arguments.seconds
    cells = [lambda: over_http(seconds), lambda: over_grpc(seconds)]
    result = harness.run_rounds("OTLP in", cells, arguments.rounds)
    http = result.ratio("otlp/http", "zipkin json", "spans/CPU-s")
    over = result.ratio("otlp/grpc", "empty handler", "calls/CPU-s")
    result.notes += [
        f"OTLP/HTTP reaches {http:.0%} of Zipkin JSON's spans per CPU-second (wanted: {HTTP_SHARE_MIN:.0%})",
        f"OTLP/gRPC reaches {over:.0%} of the empty handler's calls per CPU-second (wanted: {GRPC_SHARE_MIN:.0%})",
    ]
    return result


if __name__ == "__main__":
    sys.exit(harness.command(harness.parser(__doc__, seconds=4.0), measure))
