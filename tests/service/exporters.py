"""A scraped server that says byte for byte what a test wants, and certificates for it."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest


class Unfinished(bytes):
    """Bytes after which the server keeps silent, with the connection open."""


BODY = b"# TYPE up untyped\nup 1\n"


def answer(
    body: bytes = BODY,
    *,
    status: str = "200 OK",
    content_type: str = "text/plain; version=0.0.4; charset=utf-8",
    length: int | None = None,
    **headers: str,
) -> bytes:
    """A whole answer; ``length`` other than the body's makes it a lie.  Underscores in header names become hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Exporter:
    """``say`` gives the answer to a request's head, or None to keep silent; heads are kept in ``heads``."""

    def __init__(self, say: Callable[[str], bytes | None]) -> None:
        self.say = say
        self.heads: list[str] = []
        self.url = ""
        self.connections = 0

    @property
    def targets(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]

    def header(self, name: str) -> str | None:
        """Of the latest request."""
        for line in self.heads[-1].split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name.lower():
                return value
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip()
                self.heads.append(head)
                said = self.say(head)
                if said is None:
                    await reader.read()
                    return
                writer.write(said)
                await writer.drain()
                if isinstance(said, Unfinished):
                    await reader.read()
                    return
                begun, _, body = said.partition(b"\r\n\r\n")
                promised = f"Content-Length: {len(body)}".encode() in begun
                if not promised:
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def exporter(
    say: Callable[[str], bytes | None] | bytes, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Exporter]:
    made = Exporter((lambda _: say) if isinstance(say, bytes) else say)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await made.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Authority:
    """A certificate authority in a folder, made with openssl."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("NO OPENSSL: certificates for the test cannot be made")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.ca_file = folder / "ca.crt"
        self._key = folder / "ca.key"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-days", "2", "-subj", "/CN=test authority", "-keyout", self._key, "-out", self.ca_file,
                 "-addext", "basicConstraints=critical,CA:TRUE",
                 "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip

    def issue(
        self, name: str, alternatives: Sequence[str] = ("IP:127.0.0.1",), *, days: int = 2
    ) -> tuple[Path, Path]:
        """Certificate and key; ``days`` below 0 is one that has ended."""
        cert, key, request = (self._folder / f"{name}.{end}" for end in ("crt", "key", "csr"))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(alternatives)}\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-subj", f"/CN={name}", "-keyout", key, "-out", request)  # fmt: skip
        _openssl("x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", self._key, "-CAcreateserial",
                 "-days", str(days), "-out", cert, "-extfile", extensions)  # fmt: skip
        return cert, key

    def server_context(self, name: str = "server", *, client_certs: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.issue(name))
        if client_certs:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca_file)
        return context


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
