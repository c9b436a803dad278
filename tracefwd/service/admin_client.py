"""The admin API from outside: what ``tap`` and ``top`` share.

``AdminError`` says in words what a person can do; a connection that fails or ends is one with ``is_passing`` set, so
that whoever watches can come again.
"""

import argparse
import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from tracefwd.console.visible import visible
from tracefwd.errors import ConfigError, TracefwdError
from tracefwd.service.client_files import tls_to, token_of
from tracefwd.service.masking import mask_url
from tracefwd.service.units import UnitError, check_url

AGAIN_S = 2.0
_URLS = {"http": "http://HOST:9412", "https": "https://HOST:9412"}
_CONNECT_S = 5.0
# A stream says something every few seconds; one that is silent for so long is dead.
SILENCE_S = 15.0
# A document of ten thousand operations has 5 MB.
_EVENT_BYTES_MAX = 32 * 2**20
# The first that fits: what its own words would not say to a person.
_FAILURES: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ConnectionTimeoutError, f"no connection within {_CONNECT_S:g} s; see --admin"),
    (TimeoutError, f"it has said nothing for {SILENCE_S:g} s"),
    (aiohttp.ClientConnectorSSLError, "no TLS connection; is it an https port?"),
    (
        aiohttp.ServerDisconnectedError,
        "it closed the connection without an answer; if it speaks TLS, write --admin https://",
    ),
    (aiohttp.ClientConnectorDNSError, "its name does not resolve; see --admin"),
)


class AdminError(TracefwdError):
    """``is_passing``: it may be there again soon."""

    def __init__(self, message: str, *, is_passing: bool) -> None:
        super().__init__(message)
        self.is_passing = is_passing


@dataclass(frozen=True)
class Reach:
    """Where a running tracefwd is, and what to show it."""

    url: str
    token: str = ""
    tls: ssl.SSLContext | None = None

    @property
    def shown(self) -> str:
        return mask_url(self.url)


def reach(arguments: argparse.Namespace) -> Reach:
    """Raises ``StartError`` for a file that cannot be used, ``ConfigError`` for what is no URL."""
    url = arguments.admin if "://" in arguments.admin else f"http://{arguments.admin}"
    try:
        check_url(url, _URLS)
    except UnitError as error:
        raise ConfigError([f"--admin {mask_url(arguments.admin)!r}: {error}"]) from error
    token = token_of(arguments.token_file)
    tls = tls_to(url, arguments.ca_file, arguments.cert_file, "--admin")
    return Reach(url.rstrip("/"), token, tls)


class AdminClient:
    """Use as ``async with AdminClient(reach) as client``."""

    def __init__(self, where: Reach) -> None:
        self._where = where
        headers = {"Authorization": f"Bearer {where.token}"} if where.token else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=SILENCE_S)
        connector = aiohttp.TCPConnector(ssl=where.tls or True)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str) -> Any:
        """A document."""
        async with self._open(path, query) as answer:
            return await answer.json()

    async def events(self, *views: str) -> AsyncIterator[tuple[str, Any]]:
        """(view, document), until the connection ends with an ``AdminError``."""
        async with self._open("/api/v1/events", {"views": ",".join(views)}) as answer:
            buffer = b""
            async for piece in answer.content.iter_any():
                buffer += piece
                *whole, buffer = buffer.split(b"\n\n")
                for text in whole:
                    name, data = _read_event(text)
                    if name:
                        yield name, json.loads(data)
                if len(buffer) > _EVENT_BYTES_MAX:
                    raise AdminError("an event is too large", is_passing=False)
        raise AdminError("the connection has ended", is_passing=True)

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Lines of a stream, likewise; an empty one says that there is nothing to say."""
        async with self._open(path, query) as answer:
            buffer = b""
            async for piece in answer.content.iter_any():
                *whole, buffer = (buffer + piece).split(b"\n")
                for line in whole:
                    yield line
        raise AdminError("the connection has ended", is_passing=True)

    @asynccontextmanager
    async def _open(
        self, path: str, query: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self._where.url + path
        try:
            async with self._session.get(url, params=query, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise await _refusal(answer)
                yield answer
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            text = f"{self._where.shown} is no URL of an admin port"
            raise AdminError(text, is_passing=False) from error
        except aiohttp.ClientConnectorCertificateError as error:
            text = f"{self._where.shown}: its certificate is not trusted; see --ca-file"
            raise AdminError(text, is_passing=False) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = _reason(error)
            raise AdminError(f"{self._where.shown}: {reason}", is_passing=True) from error


def _reason(error: BaseException) -> str:
    for kind, words in _FAILURES:
        if isinstance(error, kind):
            return words
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno:
        why = os.strerror(error.errno)
        return (
            f"no connection ({why}); is tracefwd running, and is that its admin port? See --admin"
        )
    return visible(str(error)) or type(error).__name__


async def _refusal(answer: aiohttp.ClientResponse) -> AdminError:
    """In the words of the API, if it is one."""
    try:
        document = json.loads(await answer.content.read(65_536))
        text = visible(f"{document['message']}; {document['todo']}".strip("; "), 400)
    except (ValueError, KeyError, TypeError):
        text = "this is no admin port of tracefwd (or one without an API)"
    return AdminError(f"{answer.status}: {text}", is_passing=answer.status >= 500)


def _read_event(text: bytes) -> tuple[str, bytes]:
    name, data = "", b""
    for line in text.split(b"\n"):
        if line.startswith(b"event: "):
            name = line[7:].decode()
        elif line.startswith(b"data: "):
            data = line[6:]
    return name, data


async def again() -> None:
    """Before the next attempt."""
    await asyncio.sleep(AGAIN_S)


__all__ = ["AGAIN_S", "AdminClient", "AdminError", "Reach", "again", "reach"]
