"""One kept connection over gRPC: a call at a time, as an Envoy's worker thread makes them.

It keeps no count; its ``Listener`` hears of every answer (the number of gRPC's status) and of the call that got none.
"""

import asyncio
from typing import Any

import grpc.aio

from tracefwd.generator.connection import PROTOCOLS, Flight, Listener, Target

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_OK = 0
# What grpc says when the connection broke and not the call.
_UNAVAILABLE = 14


class GrpcConnection:
    """``open`` comes first; ``flight`` is what is on its way, or None when idle."""

    def __init__(self, target: Target, listener: Listener, slot: int | None) -> None:
        self.slot = slot
        self.flight: Flight | None = None
        self.closing = False
        self._listener = listener
        host = f"[{target.host}]" if ":" in target.host else target.host
        self._channel = grpc.aio.insecure_channel(
            f"{host}:{target.port}",
            # Each is a connection of its own, and a refused one is not tried for ever.
            [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)],
        )
        self._call: Any = self._channel.unary_unary(_METHOD)
        self._timeout_s = PROTOCOLS[target.protocol].timeout_ms / 1000
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """OSError when nobody listens."""
        state = self._channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                await self._channel.close()
                raise ConnectionRefusedError("Connection refused")
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state()

    def send(self, flight: Flight) -> None:
        assert self.flight is None
        self.flight = flight
        self._task = asyncio.get_running_loop().create_task(self._export(flight))

    def abort(self) -> None:
        """Ends at once; ``closed`` follows."""
        self.closing = True
        if self._task is not None:
            self._task.cancel()
        else:
            self._task = asyncio.get_running_loop().create_task(self._close(None))

    async def _export(self, flight: Flight) -> None:
        try:
            await self._call(flight.post.body, timeout=self._timeout_s)
            status = _OK
        except grpc.aio.AioRpcError as error:
            status = error.code().value[0]
        except asyncio.CancelledError:
            await self._close(flight)
            return
        self.flight = self._task = None
        self.closing = self.closing or status == _UNAVAILABLE
        self._listener.answered(self, flight, status)
        if self.closing:
            await self._close(None)

    async def _close(self, flight: Flight | None) -> None:
        self.flight = None
        self._listener.closed(self, flight)
        await self._channel.close()
