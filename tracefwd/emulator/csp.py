"""The CSP token exchange in front of direct ingestion, as much of it as a sender sees.

    POST /csp/gateway/am/api/auth/api-tokens/authorize   grant_type=api_token, refresh_token=… (or api_token=…)
    POST /csp/gateway/am/api/auth/authorize              Basic id:secret, grant_type=client_credentials[&orgId=…]

Both answer ``{"access_token": …, "expires_in": seconds, …}``.  Pure: the time is an argument.
"""

import base64
import binascii
import hmac
from typing import Any

API_TOKEN_PATH = "/csp/gateway/am/api/auth/api-tokens/authorize"  # noqa: S105 - a path
OAUTH_PATH = "/csp/gateway/am/api/auth/authorize"
# A sender holds one or two at a time.
ISSUED_MAX = 64


class TokenDesk:
    """Issues bearer tokens and knows them again until they expire.

    ``token`` is the one secret of the stand-in: API token, CSP API token and OAuth secret alike; None lets everybody
    in.
    """

    def __init__(self, token: str | None, expires_in: int) -> None:
        self._token = token
        self._expires_in = expires_in
        self._issued: dict[str, float] = {}
        self._serial = 0

    @property
    def issued_total(self) -> int:
        return self._serial

    def admits(self, authorization: str | None, now: float) -> bool:
        """Whether direct ingestion lets this ``Authorization`` header in."""
        if self._token is None:
            return True
        scheme, _, bearer = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        expires_at = self._issued.get(bearer.strip())
        if expires_at is not None:
            return now < expires_at
        return _same(bearer.strip(), self._token)

    def exchange(
        self, path: str, form: dict[str, str], authorization: str | None, now: float
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer."""
        if path == API_TOKEN_PATH:
            secret = form.get("refresh_token") or form.get("api_token")
        else:
            secret = _basic_secret(authorization)
            if secret is not None and form.get("grant_type") != "client_credentials":
                return 400, {"message": "grant_type must be client_credentials"}
        if secret is None or not (self._token is None or _same(secret, self._token)):
            return 401, {"message": "invalid credentials"}
        self._serial += 1
        issued = f"issued-{self._serial}"
        self._issued[issued] = now + self._expires_in
        if len(self._issued) > ISSUED_MAX:
            del self._issued[next(iter(self._issued))]
        return 200, {
            "access_token": issued,
            "expires_in": self._expires_in,
            "token_type": "bearer",
            "scope": "aoa:directDataIngestion",
        }


def _basic_secret(authorization: str | None) -> str | None:
    scheme, _, text = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(text.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    identity, colon, secret = decoded.partition(":")
    return secret if colon and identity else None


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
