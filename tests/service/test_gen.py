"""``tracefwd gen`` at an intake that asks who calls."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.receiver.test_credentials import Authority, authorities
from tests.receiver.test_http import serving
from tracefwd.settings import IntakeTlsSettings

__all__ = ["authorities"]  # a fixture

TOKEN = "tok-51c0ffee-of-gen"


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return str(file)


async def gen(*arguments: str) -> tuple[int, str]:
    """Exit code, and all that it said."""
    command = (sys.executable, "-m", "tracefwd", "gen", "--rate", "100", "--seconds", "0.2")
    process = await asyncio.create_subprocess_exec(
        *(*command, "--connections", "2", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_posts_go_over_tls_with_a_certificate_and_a_token(
    authorities: tuple[Authority, Authority], token_file: str, tmp_path: Path
) -> None:
    ours, strangers = authorities
    cert, key = map(str, ours.issue("server"))
    tls = IntakeTlsSettings(cert_file=cert, key_file=key, client_ca_file=str(ours.cert))
    pair = tmp_path / "pair"
    pair.write_bytes(b"".join(each.read_bytes() for each in ours.issue("someone")))
    async with serving(tls=tls, token_file=token_file) as server:
        to = ("--to", f"https://127.0.0.1:{server.port}", "--cert-file", str(pair))
        trusting = ("--ca-file", str(ours.cert))
        code, said = await gen(*to, *trusting, "--token-file", token_file)
        assert code == 0, said
        assert TOKEN not in said
        posts = len(server.got)
        assert posts
        code, said = await gen(*to, *trusting)
        assert code == 1
        assert "401" in said
        code, said = await gen(*to, "--ca-file", str(strangers.cert), "--token-file", token_file)
        assert code == 1
        assert "certificate verify failed" in said
        code, _ = await gen("--to", f"http://127.0.0.1:{server.port}", "--token-file", token_file)
        assert code == 1
        assert len(server.got) == posts


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("--to", "http://127.0.0.1:1", "--ca-file", "ca.pem"), 2, "write --to https://HOST:PORT"),
        (("--to", "https://127.0.0.1:1", "--ca-file", "/nowhere"), 1, "--ca-file or --cert-file"),
        (("--to", "http://127.0.0.1:1", "--token-file", "/nowhere"), 1, "--token-file /nowhere"),
        (("--to", "https://127.0.0.1:1", "--protocol", "otlp-grpc"), 2, "take otlp-http"),
        (("--to", "http://127.0.0.1:1", "--rate", "1e99"), 2, "at most 1000000 spans per second"),
        (("--to", "http://nosuch.invalid:9411"), 1, "the name nosuch.invalid does not resolve"),
    ],
)
async def test_what_cannot_be_used_is_said_before_anything_is_sent(
    arguments: tuple[str, ...], exit_code: int, words: str
) -> None:
    code, said = await gen(*arguments)
    assert code == exit_code
    assert words in said
    assert "Traceback" not in said
