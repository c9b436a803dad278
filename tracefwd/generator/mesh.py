"""The mesh: which spans a request to Bookinfo causes, in which sidecars, and how long each takes.

Pure but for the ``random.Random`` that the caller seeds: the same seed gives the same scripts.

1. A ``Script`` is one request's story, timings included: its steps are spans in the order in which they end, which
   is the order in which Envoys buffer them (children mostly before parents).
2. A ``Template`` is the JSON text of one sort of span, cut at the places that differ from span to span.  Key
   order is random, as Envoy's is, but drawn here, once, and not per span.
3. Nothing here knows batches, connections or the wire; ``posts.py`` does.

Fields and tags are those that Envoy 1.40 under Istio sends (tests hold them to captured bodies).
"""

import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

SLOTS = (
    "trace",
    "id",
    "parent",
    "start",
    "duration",
    "end",
    "request",
    "agent",
    "ip",
    "pod",
    "peer",
)
"""What differs from span to span; a template's text has them as ``$name$``."""

# Key orders per sort of span: enough that no reader can lean on one, few enough to keep in a cache.
ORDERS = 8
# So many are made in 50 ms and fit under 1 MiB; durations then repeat only every 1,900 spans.
SCRIPTS = 256

OUTSIDE = -1
"""A peer beyond the mesh: the user in front of the gateway.  An index, as ``NO_PARENT`` is, of the last."""

NO_PARENT = -1


class Workload(NamedTuple):
    """One deployment.  ``name`` is also the head of its pods' names."""

    name: str
    service: str
    revision: str
    namespace: str
    node_type: str
    replica_set: str


WORKLOADS = (
    Workload(
        "istio-ingressgateway",
        "istio-ingressgateway",
        "latest",
        "istio-system",
        "router",
        "5c8fbb6f9d",
    ),
    Workload("productpage-v1", "productpage", "v1", "default", "sidecar", "67894999b5"),
    Workload("details-v1", "details", "v1", "default", "sidecar", "6997d94bb9"),
    Workload("reviews-v1", "reviews", "v1", "default", "sidecar", "7f99cc4496"),
    Workload("reviews-v2", "reviews", "v2", "default", "sidecar", "7d79d5bd5d"),
    Workload("reviews-v3", "reviews", "v3", "default", "sidecar", "7dbcdcbc56"),
    Workload("ratings-v1", "ratings", "v1", "default", "sidecar", "b6994bb9c4"),
)
GATEWAY, PRODUCTPAGE, DETAILS, REVIEWS_V1, REVIEWS_V2, REVIEWS_V3, RATINGS = range(len(WORKLOADS))

# Spans that each workload's Envoys write in 64 requests of the mix below; connections are dealt out by it.
SPAN_SHARES = (126, 166, 52, 18, 34, 34, 36)


class Form(NamedTuple):
    """One sort of span: everything that is the same for all its spans.

    ``role`` is ``gateway`` (the SERVER root), ``egress`` (the gateway's upstream half), ``client`` or
    ``server``.  ``upstream`` is a cluster's name, "" where no route was found.
    """

    role: str
    workload: int
    name: str
    url: str
    upstream: str
    status: int = 200
    flags: str = "-"
    method: str = "GET"
    request_bytes: int = 0
    response_bytes: int = 66
    is_root: bool = False


class Template(NamedTuple):
    """A span's JSON: ``pieces[0] slots[0] pieces[1] slots[1] ... pieces[-1]``; slots are indices in ``SLOTS``."""

    pieces: tuple[bytes, ...]
    slots: tuple[int, ...]


class Step(NamedTuple):
    """One span of a script.  ``parent`` is a step's index in the script, or ``NO_PARENT``.

    ``peer`` is the workload whose pod ``$peer$`` names, or ``OUTSIDE``.  ``start_us`` and ``end_us`` (of the
    annotation) count from the script's begin.
    """

    template: Template
    workload: int
    parent: int
    peer: int
    start_us: int
    duration: bytes
    end_us: int


class Script(NamedTuple):
    """One request.  ``steps`` in the order of their ends; ``root`` is an index in them."""

    steps: tuple[Step, ...]
    root: int
    duration_us: int


class Mood(NamedTuple):
    """How the mesh is doing: in what share of its calls ratings breaks off, and how long details usually takes."""

    ratings_fail: float
    details_us: float


HEALTHY = Mood(ratings_fail=0.03, details_us=600)
# One service fails and one is slow, so that whoever looks for the first time has something to find.
TROUBLED = Mood(ratings_fail=0.25, details_us=180_000)


def scripts(rng: random.Random, mood: Mood = HEALTHY) -> list[Script]:
    """``SCRIPTS`` requests in the mix of a mesh with its usual few faults, in random order."""
    plots = [plot for plot, weight in _PLOTS for _ in range(weight)]
    writer = _TemplateWriter(rng)
    made = []
    for index in range(SCRIPTS):
        draft = _Draft(rng, writer, mood)
        plots[index % len(plots)](draft)
        made.append(draft.script())
    rng.shuffle(made)
    return made


# --- the stories --------------------------------------------------------------------------------


class _Node:
    """A span that is being written; times in microseconds since the script's begin."""

    __slots__ = ("closed_us", "form", "opened_us", "parent", "peer")

    def __init__(self, form: Form, parent: "_Node | None", peer: int, opened_us: float) -> None:
        self.form = form
        self.parent = parent
        self.peer = peer
        self.opened_us = opened_us
        self.closed_us = opened_us


class _Draft:
    """A script in the making: a clock that work moves on, and the spans that open and close along it."""

    def __init__(self, rng: random.Random, writer: "_TemplateWriter", mood: Mood) -> None:
        self.mood = mood
        self._rng = rng
        self._writer = writer
        self._clock_us = 0.0
        self._nodes: list[_Node] = []

    def chance(self, share: float) -> bool:
        return self._rng.random() < share

    def work(self, median_us: float, spread: float = 0.35) -> None:
        """Latencies are log-normal: mostly near the median, with a long tail."""
        self._clock_us += median_us * self._rng.lognormvariate(0.0, spread)

    def open(self, form: Form, parent: _Node | None, peer: int) -> _Node:
        node = _Node(form, parent, peer, self._clock_us)
        self._nodes.append(node)
        # A sidecar needs some 100 us before it speaks to anybody.
        self.work(120)
        return node

    def close(self, node: _Node) -> None:
        self.work(60)
        node.closed_us = self._clock_us

    def script(self) -> Script:
        nodes = sorted(self._nodes, key=lambda node: node.closed_us)
        place = {id(node): index for index, node in enumerate(nodes)}
        steps = []
        for node in nodes:
            start_us = int(node.opened_us)
            duration_us = max(1, int(node.closed_us) - start_us)
            steps.append(
                Step(
                    template=self._writer.template(node.form),
                    workload=node.form.workload,
                    parent=NO_PARENT if node.parent is None else place[id(node.parent)],
                    peer=node.peer,
                    start_us=start_us,
                    duration=b"%d" % duration_us,
                    # Envoy annotates some 80 us after the span's own end.
                    end_us=start_us + duration_us + self._rng.randrange(20, 140),
                )
            )
        return Script(tuple(steps), place[id(self._nodes[0])], int(self._clock_us))


def _enter(draft: _Draft, path: str, name: str, **more: Any) -> tuple[_Node, _Node, _Node]:
    """The way of every routed request: the gateway's two spans and productpage's own."""
    url = f"http://bookinfo.example.com{path}"
    operation = f"productpage.default.svc.cluster.local:9080{name}"
    cluster = "outbound|9080||productpage.default.svc.cluster.local"
    root_form = Form("gateway", GATEWAY, operation, url, cluster, is_root=True)
    root_form = root_form._replace(**more)
    root = draft.open(root_form, None, OUTSIDE)
    egress_name = f"router {cluster} egress"
    egress = draft.open(Form("egress", GATEWAY, egress_name, "", cluster), root, PRODUCTPAGE)
    form = Form("server", PRODUCTPAGE, operation, url, "inbound|9080||")._replace(**more)
    return root, egress, draft.open(form, egress, GATEWAY)


def _leave(draft: _Draft, root: _Node, egress: _Node, page: _Node) -> None:
    draft.close(page)
    draft.close(egress)
    draft.close(root)


def _forms(caller: int, callee: int, response_bytes: int, status: int = 200) -> tuple[Form, Form]:
    """A hop's CLIENT span at the caller and SERVER span at the callee."""
    service = WORKLOADS[callee].service
    name = f"{service}.default.svc.cluster.local:9080/*"
    url = f"http://{service}:9080/{service}/0"
    cluster = f"outbound|9080||{service}.default.svc.cluster.local"
    client = Form("client", caller, name, url, cluster, status, response_bytes=response_bytes)
    return client, client._replace(role="server", workload=callee, upstream="inbound|9080||")


def _details(draft: _Draft, page: _Node) -> None:
    client_form, server_form = _forms(PRODUCTPAGE, DETAILS, 178)
    client = draft.open(client_form, page, PRODUCTPAGE)
    server = draft.open(server_form, client, PRODUCTPAGE)
    draft.work(draft.mood.details_us)
    draft.close(server)
    draft.close(client)


def _reviews(
    draft: _Draft, page: _Node, version: int, *, slow: bool = False, status: int = 200
) -> None:
    client_form, server_form = _forms(PRODUCTPAGE, version, 358, status)
    client = draft.open(client_form, page, PRODUCTPAGE)
    server = draft.open(server_form, client, PRODUCTPAGE)
    draft.work(900_000 if slow else 2_500)
    if version != REVIEWS_V1 and status == 200:
        _ratings(draft, server, version, failing=draft.chance(draft.mood.ratings_fail))
    draft.close(server)
    draft.close(client)


def _ratings(draft: _Draft, reviews: _Node, caller: int, *, failing: bool) -> None:
    """Ratings; when it breaks off its answers (UC), Istio's two retries make three SERVER spans with one parent."""
    client_form, server_form = _forms(caller, RATINGS, 95 if failing else 48)
    if failing:
        client_form = client_form._replace(status=503, flags="URX")
        server_form = server_form._replace(status=503, flags="UC")
    client = draft.open(client_form, reviews, caller)
    for attempt in range(3 if failing else 1):
        if attempt:
            draft.work(25_000)
        server = draft.open(server_form, client, caller)
        draft.work(700)
        draft.close(server)
    draft.close(client)


def _page(draft: _Draft, version: int, *, slow: bool = False, reviews_status: int = 200) -> None:
    path = "/productpage?u=normal" if draft.chance(0.1) else "/productpage"
    root, egress, page = _enter(draft, path, "/productpage", response_bytes=5290)
    draft.work(1_500)
    _details(draft, page)
    draft.work(300)
    _reviews(draft, page, version, slow=slow, status=reviews_status)
    draft.work(1_200)
    _leave(draft, root, egress, page)


def _page_v3(draft: _Draft) -> None:
    _page(draft, REVIEWS_V3, slow=draft.chance(0.1))


def _static(draft: _Draft) -> None:
    path = "/static/bootstrap/css/bootstrap.min.css"
    spans = _enter(draft, path, "/static*", response_bytes=12148)
    draft.work(400)
    _leave(draft, *spans)


def _login(draft: _Draft) -> None:
    spans = _enter(draft, "/login", "/login", method="POST", request_bytes=28, response_bytes=209)
    draft.work(900)
    _leave(draft, *spans)


def _no_route(draft: _Draft) -> None:
    """A scanner: Envoy names the span after the Host header, and no upstream was asked."""
    url = "http://bookinfo.example.com/nothing/here"
    form = Form(
        "gateway", GATEWAY, "bookinfo.example.com", url, "", 404, "NR", response_bytes=0
    )._replace(is_root=True)
    draft.close(draft.open(form, None, OUTSIDE))


# Weights add up to 64, so that SCRIPTS holds every story in this ratio exactly.
_PLOTS: tuple[tuple[Callable[[_Draft], None], int], ...] = (
    (partial(_page, version=REVIEWS_V1), 17),
    (partial(_page, version=REVIEWS_V2), 17),
    (_page_v3, 17),
    (partial(_page, version=REVIEWS_V1, reviews_status=404), 1),
    (_static, 8),
    (_login, 2),
    (_no_route, 2),
)


# --- templates ----------------------------------------------------------------------------------


class _TemplateWriter:
    """Writes each form in ``ORDERS`` random key orders, once, and deals them out."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._written: dict[Form, list[Template]] = {}

    def template(self, form: Form) -> Template:
        templates = self._written.get(form)
        if templates is None:
            templates = [self._write(form) for _ in range(ORDERS)]
            self._written[form] = templates
        return self._rng.choice(templates)

    def _write(self, form: Form) -> Template:
        workload = WORKLOADS[form.workload]
        kind, event = ("CLIENT", "cr") if form.role in {"client", "egress"} else ("SERVER", "ss")
        annotation = self._object({"value": f'"{event}"', "timestamp": "$end$"})
        fields = {
            "traceId": '"$trace$"',
            "id": '"$id$"',
            "name": f'"{form.name}"',
            "kind": f'"{kind}"',
            "timestamp": "$start$",
            "duration": "$duration$",
            "localEndpoint": self._object(
                {
                    "serviceName": f'"{workload.service}.{workload.namespace}"',
                    "ipv4": '"$ip$"',
                    "port": "0",
                }
            ),
            "annotations": f"[{annotation}]",
            "tags": self._object({key: f'"{value}"' for key, value in _tags(form).items()}),
        }
        if not form.is_root:
            fields["parentId"] = '"$parent$"'
        # No text of ours needs escaping, so the values can be written as they are.
        parts = re.split(r"\$(\w+)\$", self._object(fields))
        return Template(
            tuple(part.encode() for part in parts[::2]),
            tuple(SLOTS.index(slot) for slot in parts[1::2]),
        )

    def _object(self, members: dict[str, str]) -> str:
        keys = list(members)
        self._rng.shuffle(keys)
        return "{" + ",".join(f'"{key}":{members[key]}' for key in keys) + "}"


def _tags(form: Form) -> dict[str, str]:
    workload = WORKLOADS[form.workload]
    tags = {
        "component": "proxy",
        "http.protocol": "HTTP/1.1",
        "http.status_code": str(form.status),
        "response_flags": form.flags,
        "istio.canonical_service": workload.service,
        "istio.canonical_revision": workload.revision,
        "istio.namespace": workload.namespace,
        "istio.cluster_id": "Kubernetes",
        "istio.mesh_id": "cluster.local",
    }
    if form.upstream:
        tags["upstream_cluster"] = tags["upstream_cluster.name"] = form.upstream
    if form.status >= 500:
        tags["error"] = "true"
    if form.role == "egress":
        return tags | {"peer.address": "$peer$:9080", "upstream_address": "$peer$:9080"}
    domain = f"{workload.namespace}.svc.cluster.local"
    node = f"{workload.node_type}~$ip$~$pod$.{workload.namespace}~{domain}"
    return tags | {
        "node_id": node,
        "zone": "us-east-1a",
        "guid:x-request-id": "$request$",
        "http.url": form.url,
        "http.method": form.method,
        "user_agent": "$agent$",
        "request_size": str(form.request_bytes),
        "response_size": str(form.response_bytes),
        "downstream_cluster": "-",
        "peer.address": "$peer$",
    }
