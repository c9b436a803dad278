"""Edges: who calls whom, as single spans say; no traces are joined.

A CLIENT or PRODUCER span names its callee (Istio's ``upstream_cluster``, else ``peer.service``), a SERVER or CONSUMER
span may name its caller (``downstream_cluster``, ``peer.service``).  Both sides may tell of one call, so an edge counts
what one side told: the caller's, if there is any.  Workers count what they examine; the parent scales it up.

Pure: time is an argument.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tracefwd.console.seen import EdgeRow
from tracefwd.limits import CONSOLE_EDGES_MAX, MEMO_ENTRIES_MAX
from tracefwd.model import WavefrontSpan

WINDOW_MINUTES = 5
_CALLS_OUT = frozenset({"client", "producer"})
_CALLS_IN = frozenset({"server", "consumer"})


class Peer(NamedTuple):
    """``outside``: a host that is no service of the mesh, or nobody knows."""

    application: str
    service: str
    outside: bool


_NOBODY = Peer("", "", outside=True)


def peer_of_cluster(cluster: str) -> Peer:
    """``outbound|9080|v1|reviews.default.svc.cluster.local`` is reviews in default, as if that were its application."""
    parts = cluster.split("|")
    if len(parts) != 4:
        return Peer("", cluster, outside=True) if cluster.endswith("Cluster") else _NOBODY
    if not parts[0].startswith("outbound"):
        return _NOBODY
    return peer_of_host(parts[3])


def peer_of_host(host: str) -> Peer:
    name, _, rest = host.partition(".")
    namespace, _, kind = rest.partition(".")
    if kind == "svc" or kind.startswith("svc."):
        return Peer(namespace, name, outside=False)
    return Peer("", host, outside=True) if host else _NOBODY


def peer_of_name(name: str) -> Peer:
    """``reviews.default``, as Envoys call themselves, or just a name."""
    service, _, namespace = name.partition(".")
    if not service or name == "-":
        return _NOBODY
    if "." in namespace:
        return peer_of_host(name)
    return Peer(namespace, service, outside=False)


class EdgeCounts:
    """A worker's: what was examined since it was last taken."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Any, ...], list[int]] = {}
        self._peers: dict[str, Peer] = {}
        self.left_out = 0

    def observe(self, span: WavefrontSpan) -> None:
        tags, kind = span.tags, span.kind
        read: Callable[[str], Peer]
        if kind in _CALLS_OUT:
            side, text, read = "client", tags.get("upstream_cluster", ""), peer_of_cluster
        elif kind in _CALLS_IN:
            side, text, read = "server", tags.get("downstream_cluster", ""), peer_of_name
        else:
            return
        if not text or text == "-":
            text, read = tags.get("peer.service", ""), peer_of_name
            if not text:
                return
        peer = self._peers.get(text)
        if peer is None:
            if len(self._peers) >= MEMO_ENTRIES_MAX:
                self._peers.clear()
            peer = self._peers[text] = read(text)
        if not peer.service:
            return
        identity = span.identity
        key = (side, identity.application, identity.service, peer)
        counts = self._rows.get(key)
        if counts is None:
            if len(self._rows) >= CONSOLE_EDGES_MAX:
                self.left_out += 1
                return
            counts = self._rows[key] = [0, 0, 0]
        counts[0] += 1
        counts[1] += span.error
        counts[2] += span.duration_us

    def take(self) -> list[EdgeRow]:
        rows = [
            EdgeRow(side, application, service, *peer, *counts)
            for (side, application, service, peer), counts in self._rows.items()
        ]
        self._rows.clear()
        return rows


Place = tuple[str, str]
"""Application and service."""


class _Edge:
    __slots__ = ("minutes",)

    def __init__(self) -> None:
        # Minute -> by side: calls, errors, microseconds.
        self.minutes: dict[int, list[float]] = {}

    def add(self, minute: int, row: EdgeRow, weight: float) -> None:
        counts = self.minutes.setdefault(minute, [0.0] * 6)
        at = 0 if row.side == "client" else 3
        for place, number in enumerate((row.calls, row.errors, row.micros)):
            counts[at + place] += number * weight
        for old in [each for each in self.minutes if each < minute - WINDOW_MINUTES]:
            del self.minutes[old]

    def add_to(self, sums: list[float], first: int) -> None:
        for minute, counts in self.minutes.items():
            if minute >= first:
                for place, number in enumerate(counts):
                    sums[place] += number


class Edges:
    """The parent's sum."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self._edges: dict[tuple[Place, Place, bool], _Edge] = {}
        self._looks: dict[int, list[int]] = {}
        self._left_out = 0
        self._forgot = 0

    def add(
        self, rows: Iterable[EdgeRow], *, spans: int, examined: int, left_out: int, now_s: float
    ) -> None:
        """What a worker examined of so many spans."""
        minute = int(now_s // 60)
        looks = self._looks.setdefault(minute, [0, 0])
        looks[0] += spans
        looks[1] += examined
        for old in [each for each in self._looks if each < minute - WINDOW_MINUTES]:
            del self._looks[old]
        self._left_out += left_out
        weight = max(1.0, spans / examined) if examined else 1.0
        for row in rows:
            mine, theirs = (row.application, row.service), (row.peer_application, row.peer_service)
            pair = (mine, theirs) if row.side == "client" else (theirs, mine)
            key = (*pair, row.peer_outside)
            edge = self._edges.get(key)
            if edge is None:
                if len(self._edges) >= CONSOLE_EDGES_MAX:
                    self._forget(minute)
                if len(self._edges) >= CONSOLE_EDGES_MAX:
                    self._left_out += 1
                    continue
                edge = self._edges[key] = _Edge()
            edge.add(minute, row, weight)

    def _forget(self, minute: int) -> None:
        """Once a minute: there are many."""
        if minute == self._forgot:
            return
        self._forgot = minute
        idle = [k for k, e in self._edges.items() if max(e.minutes) < minute - WINDOW_MINUTES]
        for key in idle:
            del self._edges[key]

    def show(self, now_s: float, known: Iterable[Place], limit: int) -> dict[str, Any]:
        """The document ``Edges``; ``known`` are services that send spans themselves."""
        first = int(now_s // 60) - WINDOW_MINUTES + 1
        window = round(max(10.0, now_s - max(self._started_s, first * 60.0)), 1)
        find = _Finder(known)
        sums: dict[tuple[Place, Place], list[float]] = {}
        for (begin, end, _), edge in self._edges.items():
            edge.add_to(sums.setdefault((find.place(begin), find.place(end)), [0.0] * 6), first)
        told = {ends: each[:3] if each[0] else each[3:] for ends, each in sums.items()}
        seen = [(ends, each) for ends, each in told.items() if each[0]]
        ordered = sorted(seen, key=lambda item: (-item[1][0], item[0]))
        nodes: dict[Place, dict[str, Any]] = {}
        edges = []
        for (begin, end), (calls, errors, micros) in ordered[:limit]:
            ends = [_node(nodes, place, outside=place not in find.known) for place in (begin, end)]
            ends[0]["calls_out"] = round(ends[0]["calls_out"] + calls / window, 3)
            ends[1]["calls_in"] = round(ends[1]["calls_in"] + calls / window, 3)
            edges.append(
                {
                    "from": ends[0]["id"],
                    "to": ends[1]["id"],
                    "calls": round(calls / window, 3),
                    "errors": round(errors / window, 3),
                    "mean_ms": round(micros / calls / 1e3, 3),
                }
            )
        spans = sum(look[0] for look in self._looks.values())
        examined = sum(look[1] for look in self._looks.values())
        return {
            "at": now_s,
            "window_s": window,
            "examined_share": round(examined / spans, 4) if spans else 1.0,
            "nodes": list(nodes.values()),
            "edges": edges,
            "left_out": max(0, len(ordered) - limit) + self._left_out,
        }


class _Finder:
    """Which service a peer is: the templates may call its application something else than its namespace."""

    def __init__(self, known: Iterable[Place]) -> None:
        self.known = set(known)
        self._by_service: dict[str, list[Place]] = {}
        for place in self.known:
            self._by_service.setdefault(place[1], []).append(place)

    def place(self, peer: Place) -> Place:
        if peer in self.known:
            return peer
        same = self._by_service.get(peer[1], [])
        return same[0] if len(same) == 1 else peer


def _node(nodes: dict[Place, dict[str, Any]], place: Place, *, outside: bool) -> dict[str, Any]:
    found = nodes.get(place)
    if found is None:
        found = nodes[place] = {
            "id": len(nodes),
            "application": place[0],
            "service": place[1],
            "outside": outside,
            "calls_in": 0.0,
            "calls_out": 0.0,
        }
    return found


__all__ = ["EdgeCounts", "Edges", "Peer", "peer_of_cluster", "peer_of_host", "peer_of_name"]
