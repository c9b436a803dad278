"""Whose span it is: what all spans of a workload share under the istio profile.

Identity, source and the head of the line come from templates over tags and fields, with overrides per namespace and
service.  They are worked out once and remembered under the very values they were made from, so a memo table can
be emptied at any time.  Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tracefwd import naming
from tracefwd.limits import MEMO_ENTRIES_MAX, SOURCE_LENGTH_MAX, TAG_VALUE_LENGTH_MAX
from tracefwd.model import Identity, Span
from tracefwd.processor import tags as tagging
from tracefwd.processor.tags import Repairs, count
from tracefwd.processor.templates import Chain, Context
from tracefwd.settings import MappingSettings, RedSettings

KINDS = {
    None: "",
    "CLIENT": "client",
    "SERVER": "server",
    "PRODUCER": "producer",
    "CONSUMER": "consumer",
}
# What a span without a kind may call itself in the tag span.kind.
HEAD_KINDS = (*KINDS.values(), "internal", "local")
_FIELDS = ("application", "service", "cluster", "shard", "source")
_UNSOURCED = "tracefwd"
# Names, namespaces, pods and ids of a workload are under 64 characters each in Kubernetes.
_MEMO_KEY_CHARS_MAX = 2_048


class Workload:
    """``heads`` are the head pairs by span kind; ``repairs`` what had to be mended to make them, or None.

    ``shapes`` are the mapper's: the last one of each kind that a plain span had.
    """

    __slots__ = ("heads", "identity", "repairs", "shapes", "source")

    def __init__(
        self, identity: Identity, source: str, pairs: list[tuple[str, str]], repairs: Repairs
    ) -> None:
        self.identity = identity
        self.source = source
        self.heads: dict[str, tuple[tuple[str, str], ...]] = {
            kind: (*pairs, ("span.kind", kind)) if kind else tuple(pairs) for kind in HEAD_KINDS
        }
        self.repairs = repairs or None
        self.shapes: dict[str | None, Any] = {}


class Workloads:
    def __init__(self, mapping: MappingSettings, red: RedSettings) -> None:
        self._chains = {name: Chain(getattr(mapping, name)) for name in _FIELDS}
        self._namespaces = _compile(mapping.overrides.get("namespaces", {}))
        self._services = _compile(mapping.overrides.get("services", {}))
        self._namespace = Chain(["{istio.namespace}", "{@namespace}"])
        self._red_source = Chain([*red.source, _UNSOURCED])
        overrides = [*self._namespaces.values(), *self._services.values()]
        chains = [*self._chains.values(), self._red_source, self._namespace]
        chains += [chain for fields in overrides for chain in fields.values()]
        # Beside the templates' keys: what the identity has, and what keeps an address out of the head.
        keys = {"component", "ipv4", "ipv6"}.union(*(chain.tag_keys for chain in chains))
        if any("@pod" in chain.fields for chain in chains):
            keys.add("node_id")
        self.memo_keys = tuple(sorted(keys))
        """The tags that tell workloads apart."""
        self._memo_names = any({"@name", "@kind"} & chain.fields for chain in chains)
        self._memo: dict[Any, Workload] = {}

    def __len__(self) -> int:
        return len(self._memo)

    def knows_by_tags(self) -> bool:
        """Whether spans with the same ``memo_keys`` and local endpoint are always of one workload."""
        return not self._memo_names

    def find(self, span: Span, tags: Mapping[str, str]) -> Workload:
        local = span.local
        said = (*map(tags.get, self.memo_keys),)
        key: Any = (said, local.service_name, local.ipv4, local.ipv6) if local is not None else said
        if self._memo_names:
            key = (key, span.name, span.kind)
        try:
            return self._memo[key]
        except KeyError:
            return self._learn(key, span, tags)

    def _learn(self, key: Any, span: Span, tags: Mapping[str, str]) -> Workload:
        if len(self._memo) >= MEMO_ENTRIES_MAX:
            self._memo.clear()
        found = self._make(span, tags)
        if is_small(key):
            self._memo[key] = found
        return found

    def _make(self, span: Span, tags: Mapping[str, str]) -> Workload:
        repairs: Repairs = {}
        context = Context(tags, span)
        values = {name: self._resolve(name, self._chains, context) for name in _FIELDS}
        for chains in self._overriding(values["service"], self._namespace.resolve(context) or ""):
            values |= {name: self._resolve(name, chains, context) for name in chains}
        fields = {name: tagging.clean_value(values[name], repairs) or "none" for name in _FIELDS}
        fields["source"] = clean_source(values["source"], repairs)
        shown = Context({**tags, **fields}, span)
        identity = Identity(
            fields["application"],
            fields["service"],
            fields["cluster"],
            fields["shard"],
            tagging.clean_value(tags.get("component", ""), repairs) or "none",
            clean_source(self._red_source.resolve(shown) or _UNSOURCED, repairs),
        )
        pairs = [(name, fields[name]) for name in _FIELDS[:4]]
        if span.local is not None:
            for name, address in (("ipv4", span.local.ipv4), ("ipv6", span.local.ipv6)):
                if address and name not in tags:
                    pairs.append((name, address[:TAG_VALUE_LENGTH_MAX]))
        return Workload(identity, fields["source"], pairs, repairs)

    def _resolve(self, name: str, chains: Mapping[str, Chain], context: Context) -> str:
        return chains[name].resolve(context) or self._chains[name].resolve(context) or "none"

    def _overriding(self, service: str, namespace: str) -> list[dict[str, Chain]]:
        """From the most general to the most particular, so that later ones win."""
        found = [
            self._namespaces.get(namespace),
            self._services.get(service),
            self._services.get(f"{service}.{namespace}"),
        ]
        return [chains for chains in found if chains is not None]


def _compile(part: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Chain]]:
    return {
        key: {name: Chain(_as_list(value)) for name, value in fields.items()}
        for key, fields in part.items()
    }


def _as_list(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def clean_source(text: str, repairs: Repairs) -> str:
    text = text.strip()
    if naming.length(text) > SOURCE_LENGTH_MAX:
        count(repairs, "source_cut")
        text = naming.cut(text, SOURCE_LENGTH_MAX)
    return naming.clean_key(text) if text else _UNSOURCED


def is_small(key: tuple[Any, ...]) -> bool:
    """Whether a memo table may keep this key: a client chose how long its texts are."""
    return len(repr(key)) <= _MEMO_KEY_CHARS_MAX
