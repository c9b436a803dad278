"""Posts batches of one signal to one URL and says what came of it.

Status codes decide (``verdicts.py``); this module adds the words for a person.  A body that a target sends back is
shown cut and with every secret of ours taken out: a target may well repeat a header.
"""

import re
import time
from collections.abc import Iterable

from tracefwd.exporter import verdicts
from tracefwd.exporter.auth import Credentials, CredentialsError, FreeHeaders
from tracefwd.exporter.endpoint import shown
from tracefwd.exporter.http_client import HttpClient, Response, UnreachableError
from tracefwd.exporter.retry import retry_after_ms
from tracefwd.model import Outcome

# Of an answer's text, shown to a person: the first sentence, not a page.
DETAIL_LENGTH_MAX = 200
# Of that text, where the sentence is looked for.
_TEXT_LENGTH_MAX = 4_096
_CONTENT_TYPES = {
    "proxy": "text/plain; charset=utf-8",
    "direct": "application/octet-stream",
    "otlp": "application/x-protobuf",
}
_AUTHORIZATION = re.compile(r"\b(bearer|basic)\s+\S+", re.IGNORECASE)
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")

_ADVICE = {
    404: "nothing takes lines at this path; check the URL",
    405: "nothing takes lines at this path; check the URL",
    406: "it asks us to slow down",
    407: "the HTTP proxy wants a user and password in http_proxy",
    429: "it asks us to slow down",
}
_REDIRECT = "redirects are not followed, they would carry the token elsewhere; set the final URL"


class HttpSender:
    """``send`` never raises for what a target, a network or a file of credentials can do."""

    takes_gzip = True

    def __init__(
        self,
        client: HttpClient,
        auth: Credentials,
        kind: str,
        url: str,
        auth_header: str = "Authorization",
        free_headers: FreeHeaders | None = None,
    ) -> None:
        self.shown = shown(url)
        self._client = client
        self._auth = auth
        self._kind = kind
        self._url = url
        self._headers = {"Content-Type": _CONTENT_TYPES[kind]}
        self._auth_header = auth_header
        self._free_headers = free_headers

    async def send(self, data: bytes, encoding: str) -> Outcome:
        headers = self._headers.copy()
        if encoding:
            headers["Content-Encoding"] = encoding
        try:
            if self._free_headers is not None:
                headers |= self._free_headers.read()
            authorization = await self._auth.header()
            if authorization:
                headers |= authorizing(self._auth_header, authorization)
            answer = await self._client.post(self._url, data, headers)
        except CredentialsError as problem:
            return Outcome(verdicts.RETRY, "auth", str(problem))
        except UnreachableError as failure:
            sent = failure.may_have_arrived
            return Outcome(verdicts.RETRY, failure.reason, str(failure), ambiguous=sent)
        return self._judge(answer, authorization)

    async def close(self) -> None:
        """The client and the credentials belong to the target, which closes them."""

    def _judge(self, answer: Response, authorization: str) -> Outcome:
        verdict = verdicts.verdict(self._kind, answer.status)
        if verdict == verdicts.DELIVERED:
            return self._delivered(answer)
        if verdict == verdicts.RETRY and answer.status in (401, 403):
            self._auth.refused(authorization)
            if self._free_headers is not None:
                self._free_headers.refused()
        wait_ms = retry_after_ms(answer.retry_after, time.time())
        return Outcome(
            verdict,
            verdicts.reason(answer.status),
            self._detail(answer),
            wait_ms,
            ambiguous=verdicts.is_ambiguous(answer.status),
        )

    def _delivered(self, answer: Response) -> Outcome:
        return Outcome(verdicts.DELIVERED)

    def _detail(self, answer: Response) -> str:
        words = f"HTTP {answer.status}"
        if answer.status // 100 == 3:
            words += f" to {self._goal(answer.location or 'nowhere')}; {_REDIRECT}"
        elif answer.status in (401, 403) and (answer.status == 401 or self._kind != "proxy"):
            words += f"; {self._auth.advice()}"
        elif answer.status in _ADVICE:
            words += f"; {_ADVICE[answer.status]}"
        text = self._shown(self._words(answer))
        return f"{words}: {text}" if text else words

    def _goal(self, location: str) -> str:
        try:
            return self._shown(shown(self._masked(location)))
        except ValueError:
            return "what is no URL"

    def _words(self, answer: Response) -> str:
        """What the target says for a person."""
        return answer.text

    def _shown(self, text: str) -> str:
        return shown_words(text, self._secrets())

    def _masked(self, text: str) -> str:
        return masked(text, self._secrets())

    def _secrets(self) -> tuple[str, ...]:
        free = () if self._free_headers is None else self._free_headers.secrets()
        return (*self._auth.secrets(), *free)


def authorizing(header: str, authorization: str) -> dict[str, str]:
    """Only ``Authorization`` names the scheme."""
    is_usual = header.lower() == "authorization"
    return {header: authorization if is_usual else authorization.removeprefix("Bearer ")}


def masked(text: str, secrets: Iterable[str]) -> str:
    # The longest first: one may hold another.
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "***")
    return _AUTHORIZATION.sub(r"\1 ***", text)


def shown_words(text: str, secrets: Iterable[str]) -> str:
    """A target's words on one line, short, without secrets of ours."""
    text = _BLANKS.sub(" ", masked(text[:_TEXT_LENGTH_MAX], secrets)).strip()
    return text if len(text) <= DETAIL_LENGTH_MAX else text[: DETAIL_LENGTH_MAX - 3] + "..."
