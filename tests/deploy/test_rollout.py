"""Rolled, scaled and killed behind a balancer, with the Envoys that our files make: nothing refused, nothing lost.

As Kubernetes does it: SIGTERM first, then the endpoint leaves the balancer, while the replica serves on for
``service.pre_stop_delay``.
"""

import os
import signal
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.balancer import Balancer, Endpoint
from tests.deploy.recorded import SPANS_PER_REQUEST, RecordedMesh
from tests.e2e.mesh import Collector
from tests.e2e.parts import Forwarder, StandIn, forwarder, stand_in
from tests.e2e.processes import eventually, get_json, request
from tests.e2e.test_envoys import Traffic

# As in deploy/kubernetes/base, but for the lengths of time.
CONFIG = {
    "service": {"pre_stop_delay": "700ms", "drain_timeout": "10s"},
    "red": {"interval": "1s"},
    # So that a new replica gets its share soon.
    "receiver": {"connection_age_max": "400ms"},
}


def endpoint(part: Forwarder) -> Endpoint:
    return part.host, part.port


class Replicas:
    """What a Deployment does, one step at a time."""

    def __init__(self, wavefront: StandIn, folder: Path, stack: ExitStack) -> None:
        self._wavefront, self._folder, self._stack = wavefront, folder, stack
        self.running: list[Forwarder] = []
        self.delivered = 0
        self._started = 0

    def start(self, volume: str = "") -> Forwarder:
        """Returns when it is ready; the balancer does not know it yet.  ``volume``: one that was there before."""
        self._started += 1
        name = f"replica-{self._started}"
        spool = {"folder": str(self._folder / "volumes" / (volume or name))}
        config = {**CONFIG, "spool": spool}
        part = self._stack.enter_context(
            forwarder(self._folder, self._wavefront.proxy, name=name, **config)
        )
        self.running.append(part)
        return part

    def stop(self, part: Forwarder, balancer: Balancer) -> None:
        self.running.remove(part)
        part.process.terminate()
        eventually(lambda: request("GET", f"{part.admin}/readyz")[0] == 503, "it is not ready")
        balancer.leave(endpoint(part))
        last_words = part.farewell()
        count = int(last_words.rpartition(" ")[2])
        assert last_words == f"ledger balanced: received {count} = delivered {count}"
        self.delivered += count


def gets_spans(part: Forwarder) -> None:
    before = part.ledger()["received"]
    eventually(lambda: part.ledger()["received"] > before + 50, "50 more spans at this replica")


@dataclass
class Shop:
    """Two replicas behind a balancer, and a mesh that reports to it."""

    replicas: Replicas
    balancer: Balancer
    mesh: RecordedMesh
    traffic: Traffic
    envoys: ExitStack

    def close(self) -> dict[str, int]:
        """What the Envoys say of every span, before they leave; replicas wait a while for idle clients."""
        counts = self.mesh.all_sent(self.traffic.requests * SPANS_PER_REQUEST)
        wanted = counts["spans_sent"] - 5 * counts["reports_dropped"] - self.replicas.delivered

        def received() -> int:
            return sum(part.ledger()["received"] for part in self.replicas.running)

        eventually(lambda: received() >= wanted, lambda: f"{wanted} received, now {received()}")
        counts = self.mesh.reports()
        self.envoys.close()
        return counts

    def assert_nothing_was_lost(self, wavefront: StandIn) -> None:
        spans = self.traffic.requests * SPANS_PER_REQUEST
        counts = self.close()
        assert counts["spans_sent"] == spans
        assert counts["reports_dropped"] == counts["reports_skipped_no_cluster"] == 0
        assert self.balancer.refused == 0

        for part in list(self.replicas.running):
            self.replicas.stop(part, self.balancer)
        assert self.replicas.delivered == spans
        totals = wavefront.totals()
        assert (totals["spans"]["accepted"], totals["duplicates"]) == (spans, 0)
        assert totals["deltas"]["red"]["invocation.count"] == spans
        assert wavefront.refused() == {}


def opened(stack: ExitStack, wavefront: StandIn, envoy: Path, folder: Path) -> Shop:
    replicas = Replicas(wavefront, folder, stack)
    first, second = replicas.start(), replicas.start()
    balancer = stack.enter_context(Balancer(endpoint(first), endpoint(second)))
    collector = Collector(balancer.host, balancer.port)
    envoys = stack.enter_context(ExitStack())
    mesh = envoys.enter_context(RecordedMesh("provider-zipkin", envoy, folder, [collector]))
    return Shop(replicas, balancer, mesh, Traffic(mesh), envoys)


def test_rolling_and_scaling_under_load_refuses_and_loses_nothing(
    envoy: Path, tmp_path: Path
) -> None:
    with stand_in(tmp_path) as wavefront, ExitStack() as stack:
        shop = opened(stack, wavefront, envoy, tmp_path)
        replicas, balancer = shop.replicas, shop.balancer
        with shop.traffic.flowing():
            for part in replicas.running:
                gets_spans(part)
            # A rollout: maxSurge 1, maxUnavailable 0.
            for old in list(replicas.running):
                new = replicas.start()
                balancer.join(endpoint(new))
                gets_spans(new)
                replicas.stop(old, balancer)
            # Up to three, and down to one.
            third = replicas.start()
            balancer.join(endpoint(third))
            gets_spans(third)
            for part in replicas.running[:2]:
                replicas.stop(part, balancer)
            gets_spans(third)
        shop.assert_nothing_was_lost(wavefront)


def test_a_killed_replica_loses_nothing_that_it_acknowledged(envoy: Path, tmp_path: Path) -> None:
    """Its container starts again on the same volume; what was on the wire is lost, as Envoy sends nothing twice."""
    with stand_in(tmp_path) as wavefront, ExitStack() as stack:
        shop = opened(stack, wavefront, envoy, tmp_path)
        replicas, balancer = shop.replicas, shop.balancer
        dying, staying = replicas.running
        with shop.traffic.flowing():
            for part in replicas.running:
                gets_spans(part)
            kill(dying)
            balancer.leave(endpoint(dying))
            replicas.running.remove(dying)
            again = replicas.start("replica-1")
            balancer.join(endpoint(again))
            gets_spans(again)
            gets_spans(staying)
        counts = shop.close()
        for part in (again, staying):
            part.stop()
        totals = wavefront.totals()
        arrived = totals["spans"]["accepted"] - totals["duplicates"]
        # A report has five spans at most.
        assert counts["spans_sent"] - 5 * counts["reports_dropped"] <= arrived
        assert arrived <= counts["spans_sent"]


def kill(part: Forwarder) -> None:
    """As the kernel does it to a container: the first process, and with it all others."""
    workers = [each["pid"] for each in get_json(f"{part.admin}/ledger?verbose")["workers"]]
    part.process.signal(signal.SIGKILL)
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    part.process.kill()
