"""Templates: where a field of the Wavefront span comes from.

A template is text with parts in braces: ``{istio.namespace}`` is a span's tag, ``{@pod}`` something read off the
span itself (``FIELDS``).  A list of templates is a fallback chain: the first one whose parts are all there, and whose
result is not blank, gives the value.  Pure.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tracefwd.model import Span

_PART = re.compile(r"\{([^{}]+)\}")


class Context(NamedTuple):
    """What templates may read: the tags, and the span for ``@`` fields."""

    tags: Mapping[str, str]
    span: Span


def _service_name(context: Context) -> str | None:
    return context.span.local.service_name if context.span.local else None


def _app(context: Context) -> str | None:
    """Istio's default service name is ``<app label>.<namespace>``; labels may hold dots, namespaces not."""
    name = _service_name(context)
    return name.rpartition(".")[0] or name if name else None


def _namespace(context: Context) -> str | None:
    name = _service_name(context)
    return name.rpartition(".")[2] if name and "." in name else None


def _pod(context: Context) -> str | None:
    """Istio's node id is ``<type>~<ip>~<pod>.<namespace>~<domain>``."""
    parts = context.tags.get("node_id", "").split("~")
    return parts[2].rpartition(".")[0] or parts[2] if len(parts) == 4 else None


FIELDS: dict[str, Callable[[Context], str | None]] = {
    "@name": lambda context: context.span.name,
    "@kind": lambda context: context.span.kind,
    "@service_name": _service_name,
    "@app": _app,
    "@namespace": _namespace,
    "@pod": _pod,
    "@ipv4": lambda context: context.span.local.ipv4 if context.span.local else None,
}
"""``@app`` and ``@namespace`` split ``serviceName`` at its last dot; ``@pod`` is read off Istio's node id."""


def problem(template: str) -> str | None:
    """What is wrong with a template's text, in words; None when it is fine."""
    rest = _PART.sub("", template)
    if "{" in rest or "}" in rest:
        return "its braces do not balance"
    if not template.strip():
        return "it is blank"
    for part in _PART.findall(template):
        if part.startswith("@") and part not in FIELDS:
            return f"there is no field {part}; fields are {', '.join(FIELDS)}"
    return None


class Chain:
    """A compiled fallback chain.  ``tag_keys`` are the tags it reads, ``fields`` the ``@`` fields."""

    def __init__(self, templates: Sequence[str]) -> None:
        self._templates = tuple(
            (template, tuple(_PART.findall(template))) for template in templates
        )
        parts = {part for _, names in self._templates for part in names}
        self.fields = frozenset(part for part in parts if part.startswith("@"))
        self.tag_keys = frozenset(parts - self.fields)

    def resolve(self, context: Context) -> str | None:
        """The first template that resolves, stripped; None when none does."""
        for template, names in self._templates:
            values: dict[str, str] = {}
            for name in names:
                value = FIELDS[name](context) if name in self.fields else context.tags.get(name)
                if value is None or not value.strip():
                    break
                values[name] = value
            else:
                text = _PART.sub(lambda match: values[match[1]], template).strip()  # noqa: B023
                if text:
                    return text
        return None
