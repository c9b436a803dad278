"""Which path's requests go where, and how they are answered: a table, filled at construction.

The rooms behind say what became of a request in one way (``doorways.Answer``); a ``Form`` turns that into what the
path's clients understand: Zipkin's know statuses, OTLP's want messages of their own.  Pure.
"""

from collections.abc import Callable, Container, Mapping
from typing import NamedTuple

from tracefwd.doorways import Answer, Ingest, IngestAll
from tracefwd.receiver import http_messages as say
from tracefwd.receiver.weight import too_heavy


class Form(NamedTuple):
    """``shape`` makes an answer what goes out (None: it is that already); ``taken`` is the usual answer's bytes."""

    shape: Callable[[Answer], Answer] | None
    taken: bytes


class Handler(NamedTuple):
    """``form_of`` is told the request's content type, ``too_heavy`` its inflated body, if that is long.

    ``ingest_all`` takes short ones that came together; without it they are ingested one by one.
    """

    ingest: Ingest
    form_of: Callable[[str], Form]
    too_heavy: Callable[[bytes], str]
    ingest_all: IngestAll | None = None


ZIPKIN_FORM = Form(None, say.ACCEPTED)


def as_zipkin(_: str) -> Form:
    return ZIPKIN_FORM


def zipkin_handler(ingest: Ingest, ingest_all: IngestAll | None = None) -> Handler:
    return Handler(ingest, as_zipkin, too_heavy, ingest_all)


class Handlers(Container[bytes]):
    """Handlers by decoded path.  ``stray`` forms answers to requests that are for none of them.

    ``everywhere`` is for a port that takes requests at any path.
    """

    def __init__(
        self,
        by_path: Mapping[bytes, Handler],
        *,
        stray: Callable[[str], Form] = as_zipkin,
        not_found: Answer = say.NOT_FOUND,
        everywhere: Handler | None = None,
    ) -> None:
        self._by_path = dict(by_path)
        self._everywhere = everywhere
        self.stray = stray
        self.not_found = not_found

    def find(self, target: bytes) -> Handler | None:
        """For a request target as it was sent."""
        by_path = self._by_path
        return by_path.get(target) or by_path.get(say.path_of(target)) or self._everywhere

    def __contains__(self, path: object) -> bool:
        return path in self._by_path or self._everywhere is not None


def zipkin_handlers(
    paths: list[str], ingest: Ingest, ingest_all: IngestAll | None = None
) -> dict[bytes, Handler]:
    """At Zipkin's own paths and these (``receiver.paths``)."""
    return dict.fromkeys(say.served_paths(paths), zipkin_handler(ingest, ingest_all))
