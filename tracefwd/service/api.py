"""``/api/v1``: the paths of ``console/openapi.yaml``, which tests hold equal to the table here.

Parameters are checked before anything is looked up; what is wrong with one is said in the words of the document's
``Error``.  Every document is JSON; what a browser or a command needs beyond that is in ``streams.py``.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from tracefwd.console.seen import Sample, TapWish
from tracefwd.service.access import COOKIE, Access, ApiError
from tracefwd.service.views import VIEWS, Views

if TYPE_CHECKING:
    from tracefwd.service.supervisor import Service

TOKEN_BYTES_MAX = 8_192
# What a token may take on its way.
TOKEN_S_MAX = 10.0
TAP_RATE_MAX = 1_000.0
LIMIT_MAX = 1_000
_TEXT_MAX = 500
_SORTS = ("rate", "errors", "error_share", "p50", "p95", "p99", "name")
_WORDS = {"true": True, "1": True, "false": False, "0": False}


class Api:
    """``routes`` is the whole table: method, path, handler."""

    def __init__(
        self,
        service: "Service",
        views: Views,
        access: Access,
        hearing: Callable[[web.Request], AbstractContextManager[None]],
    ) -> None:
        """``hearing`` is for whatever waits for a client."""
        self._hearing = hearing
        self._service = service
        self._views = views
        self._access = access
        # An explanation builds the whole pipeline anew; one at a time is enough for people.
        self._explaining = asyncio.Semaphore(1)
        self.routes: tuple[tuple[str, str, Callable[..., Awaitable[web.StreamResponse]]], ...] = (
            ("GET", "/api/v1/openapi.json", self._document),
            ("GET", "/api/v1/session", self._session),
            ("POST", "/api/v1/session", self._open_session),
            ("DELETE", "/api/v1/session", self._close_session),
            ("GET", "/api/v1/flow", self._flow),
            ("GET", "/api/v1/history", self._history),
            ("GET", "/api/v1/services", self._services),
            ("GET", "/api/v1/operations", self._operations),
            ("GET", "/api/v1/edges", self._edges),
            ("GET", "/api/v1/spans", self._spans),
            ("GET", "/api/v1/spans/{id}", self._span),
            ("GET", "/api/v1/refused", self._refused),
            ("GET", "/api/v1/metrics-path", self._metrics_path),
            ("GET", "/api/v1/configuration", self._configuration),
            ("GET", "/api/v1/events", self._events),
            ("GET", "/api/v1/tap", self._tap),
        )

    def add_to(self, router: web.UrlDispatcher) -> None:
        for method, path, handler in self.routes:
            # A HEAD would open a stream that nobody reads.
            if method == "GET":
                router.add_get(path, handler, allow_head=False)
            else:
                router.add_route(method, path, handler)

    # Access

    async def _document(self, request: web.Request) -> web.Response:
        _query(request)
        return web.Response(body=_openapi(), content_type="application/json")

    async def _session(self, request: web.Request) -> web.Response:
        _query(request)
        shown = self._access.admit(request)
        return _json({"by": shown.by, "expires_at": shown.expires_at})

    async def _open_session(self, request: web.Request) -> web.Response:
        if not self._access.asks_for_token:
            raise ApiError(404, "not_found", "there is no token to ask for", "set admin.token_file")
        with self._hearing(request):
            body = await _short_body(request)
        is_form = request.content_type == "application/x-www-form-urlencoded"
        token = _form_token(body) if is_form else _json_token(body)
        self._access.check_token(token)
        answer = web.Response(status=204)
        if is_form:
            answer = web.Response(status=303, headers={"Location": "/"})
        self._access.open_session(answer, secure=request.secure)
        return answer

    async def _close_session(self, request: web.Request) -> web.Response:
        answer = web.Response(status=204)
        answer.del_cookie(COOKIE, path="/")
        return answer

    # Views

    async def _flow(self, request: web.Request) -> web.Response:
        _query(request)
        return _json(self._views.flow())

    async def _history(self, request: web.Request) -> web.Response:
        _query(request)
        return _json(self._views.history())

    async def _services(self, request: web.Request) -> web.Response:
        query = _query(request, "search")
        self._views.look()
        return _json(self._views.services(_text(query, "search")))

    async def _operations(self, request: web.Request) -> web.Response:
        query = _query(request, "application", "service", "search", "sort", "limit")
        self._views.look()
        sort = query.get("sort", "rate")
        if sort not in _SORTS:
            raise _bad("sort", f"one of {', '.join(_SORTS)}")
        return _json(
            self._views.operations(
                application=_text(query, "application") if "application" in query else None,
                service=_text(query, "service") if "service" in query else None,
                search=_text(query, "search"),
                sort=sort,
                limit=_limit(query),
            )
        )

    async def _edges(self, request: web.Request) -> web.Response:
        _query(request)
        self._views.look()
        return _json(self._views.edges())

    async def _spans(self, request: web.Request) -> web.Response:
        names = ("service", "error", "slow", "min_duration_ms", "text", "limit")
        query = _query(request, *names)
        return _json(
            self._views.spans(
                service=_text(query, "service"),
                error=_flag(query, "error"),
                slow=_flag(query, "slow"),
                min_duration_ms=_number(query, "min_duration_ms", 0.0, 1e12),
                text=_text(query, "text"),
                limit=_limit(query),
            )
        )

    async def _span(self, request: web.Request) -> web.Response:
        _query(request)
        sample = self._views.samples.find(request.match_info["id"])
        if sample is None:
            raise ApiError(
                404, "gone", "this span is no longer among the samples", "list the spans again"
            )
        async with self._explaining:
            return _json(await asyncio.to_thread(self._explained, sample))

    def _explained(self, sample: Sample) -> dict[str, Any]:
        from tracefwd.service.explain import explain

        masks = self._views.samples.masks
        report: dict[str, Any] = {}
        if sample.received:
            body = sample.received.encode("utf-8", "replace")
            report = next(explain(self._service.loaded.settings, b"[" + body + b"]"), {})
        fields = []
        for field in report.get("fields", ()):
            value, reason = masks.field(field["path"], field["value"], field["reason"])
            fields.append({**field, "value": value, "reason": reason})
        return {
            "row": msgspec.to_builtins(sample.row),
            "received": masks.received(sample.received) if sample.received else "",
            "received_as": sample.received_as,
            "sent": [masks.line(line) for line in sample.sent],
            "fields": fields,
            "red": [masks.line(line) for line in report.get("red", ())],
            "sampling": report.get("sampling", ""),
            "repairs": report.get("repairs", {}),
        }

    async def _refused(self, request: web.Request) -> web.Response:
        _query(request)
        return _json(await self._views.refused())

    async def _metrics_path(self, request: web.Request) -> web.Response:
        _query(request)
        return _json(await self._views.metrics_path())

    async def _configuration(self, request: web.Request) -> web.Response:
        return _json(self._views.configuration(_text(_query(request, "search"), "search")))

    # Streams

    async def _events(self, request: web.Request) -> web.StreamResponse:
        query = _query(request, "views")
        views = [name for name in query.get("views", "flow").split(",") if name]
        if not views or set(views) - set(VIEWS):
            raise _bad("views", f"some of {', '.join(VIEWS)}, separated by commas")
        if {"services", "edges"} & set(views):
            self._views.look()
        first = [
            (name, await self._views.document(name))
            for name in VIEWS
            if name in views and name != "history"
        ]
        return await self._views.streams.serve_events(request, views, first)

    async def _tap(self, request: web.Request) -> web.StreamResponse:
        query = _query(request, "service", "error", "min_duration_ms", "rate")
        rate = _number(query, "rate", 0.0, TAP_RATE_MAX, default=20.0)
        if not rate:
            raise _bad("rate", "a number above zero")
        wish = TapWish(
            _text(query, "service").casefold(),
            _flag(query, "error"),
            int(_number(query, "min_duration_ms", 0.0, 1e12) * 1_000),
            rate,
        )
        return await self._views.streams.serve_tap(request, wish)


@cache
def _openapi() -> bytes:
    import yaml

    text = resources.files("tracefwd.console").joinpath("openapi.yaml").read_text("utf-8")
    return json.dumps(yaml.safe_load(text)).encode()


def _json(document: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")


def _query(request: web.Request, *known: str) -> dict[str, str]:
    """The parameters; a ``ApiError`` for one that is unknown or doubled."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known:
            shown = ", ".join(known) or "there are none"
            raise ApiError(400, "parameter", "there is no such parameter here", f"known: {shown}")
        if name in found:
            raise _bad(name, "one value")
        found[name] = value
    return found


def _bad(name: str, wanted: str) -> ApiError:
    return ApiError(400, "parameter", f"{name} cannot be read", f"give {wanted}")


def _text(query: dict[str, str], name: str) -> str:
    value = query.get(name, "")
    if len(value) > _TEXT_MAX:
        raise _bad(name, f"at most {_TEXT_MAX} characters")
    return value


def _flag(query: dict[str, str], name: str) -> bool:
    value = query.get(name, "false")
    if value not in _WORDS:
        raise _bad(name, "true or false")
    return _WORDS[value]


def _number(
    query: dict[str, str], name: str, low: float, high: float, default: float = 0.0
) -> float:
    try:
        value = float(query.get(name, default))
    except ValueError:
        value = high + 1
    if not low <= value <= high:
        raise _bad(name, f"a number from {low:g} to {high:g}")
    return value


def _limit(query: dict[str, str]) -> int:
    text = query.get("limit", "200")
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= LIMIT_MAX):
        raise _bad("limit", f"a whole number from 1 to {LIMIT_MAX}")
    return int(text)


class _Credentials(msgspec.Struct, forbid_unknown_fields=True):
    token: str


def _json_token(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Credentials).token
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ApiError(
            400, "parameter", "this is no JSON with a token", '{"token": "..."}'
        ) from error


async def _short_body(request: web.Request) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(TOKEN_S_MAX):
            while len(body) <= TOKEN_BYTES_MAX and not request.content.at_eof():
                body += await request.content.read(TOKEN_BYTES_MAX + 1 - len(body))
    except TimeoutError:
        raise ApiError(
            408, "too_slow", f"no whole token has come within {TOKEN_S_MAX:g} s", "send it at once"
        ) from None
    except (ConnectionError, web.RequestPayloadError):
        # Gone, or sent away; or its chunks are none.
        raise ApiError(400, "parameter", "the token has not come whole", "send it again") from None
    if len(body) > TOKEN_BYTES_MAX:
        raise ApiError(413, "too_large", "this is more than a token", "send the token alone")
    return body


def _form_token(body: bytes) -> str:
    from urllib.parse import parse_qs

    values = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8).get("token", [])
    if len(values) != 1:
        raise ApiError(400, "parameter", "the form has no token", "send token=TOKEN")
    return values[0]


__all__ = ["Api"]
