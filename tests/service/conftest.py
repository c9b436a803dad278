"""What a whole service in a test delivers to."""

from collections.abc import AsyncIterator

import pytest

from tracefwd.emulator.server import Emulator, EmulatorSettings

LOOPBACK = "127.0.0.1:0"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    running = Emulator(EmulatorSettings(listen=LOOPBACK, trace_listen=LOOPBACK))
    await running.start()
    yield running
    await running.stop()
