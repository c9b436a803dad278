"""Secrets made unreadable before text leaves the process: logs, errors, the effective configuration.

Masking errs on the side of hiding: where a password's end cannot be told, everything up to the last place where it
could end is hidden.  Nothing here is a licence to log a secret; it is the net below.  Pure.
"""

import re

HIDDEN = "***"

# Bounded, so that a hostile text costs linear time; credentials are shorter than this.
_SECRET_LENGTH_MAX = 2048
_WORD = "token|secret|password|passwd|api[-_]?key|credentials?"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(rf"\b(bearer|basic)\s+[^\s\"',;]{{1,{_SECRET_LENGTH_MAX}}}", re.IGNORECASE),
        rf"\1 {HIDDEN}",
    ),
    (re.compile(r"\b(authorization[\"']?\s*[:=]\s*)[^\n]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (
        re.compile(
            rf"((?:{_WORD})[\"']?\s?[:=]\s?)"
            rf"(?:\"[^\"]{{0,{_SECRET_LENGTH_MAX}}}\"|'[^']{{0,{_SECRET_LENGTH_MAX}}}'|[^\s&,;}}]{{1,{_SECRET_LENGTH_MAX}}})",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(rf"//[^\s]{{0,{_SECRET_LENGTH_MAX}}}@"), f"//{HIDDEN}@"),
)
# Every rule needs one of these; most log lines have none and skip the expressions.
_HINT = re.compile(
    r"bearer|basic|authorization|token|secret|passw|api[-_]?key|credential", re.IGNORECASE
)
# Only schemes that people write: any other word before the colon may be a secret in the wrong place.
_SCHEME = re.compile(r"(?:https?|tcp|ftp|grpcs?|socks5h?)://", re.IGNORECASE)
_PASTED_TOKEN = re.compile(r"(?=.*[0-9])[A-Za-z0-9_\-=+]{20,}|eyJ[A-Za-z0-9_\-]+\..*")
# A blank (as in "Bearer TOKEN"), '#', '$', '!' and the like: passwords have them, files' names hardly ever.
_NO_NAME = re.compile(r"[^\w.~@+,:=-]")
# Base64 with its slashes; who writes a path begins it with one, or writes words of one case.
_SLASHED_TOKEN = re.compile(r"(?=.*[0-9])(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9+][A-Za-z0-9+/=]{31,}")


def redact(text: str) -> str:
    """Free text with the values of ``Bearer …``, ``token=…`` and the like, and of URL credentials, hidden."""
    if "@" not in text and not _HINT.search(text):
        return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def mask_url(text: str) -> str:
    """A URL, well formed or not, without its credentials and without the values of its query."""
    head, mark, rest = text.rpartition("@")
    if mark:
        scheme = _SCHEME.match(head)
        prefix = scheme[0] if scheme else ""
        # An '@' behind '?' or '#': the rest may be a query's or a password's tail.  Show neither.
        if "?" in head or "#" in head:
            return prefix + HIDDEN
        text = f"{prefix}{HIDDEN}@{rest}"
    query = re.search(r"[?#]", text)
    return f"{text[: query.end()]}{HIDDEN}" if query else text


def mask_query_url(text: str) -> str:
    """The same for a URL whose query selects series: ``match[]`` is no secret, every other value is hidden."""
    head, mark, query = text.partition("?")
    others = [part for part in query.split("&") if not part.startswith("match[]=")]
    # An '@' there may end a password that holds a '?'.
    if not mark or any("@" in part for part in others):
        return mask_url(text)
    shown = (
        part
        if part.startswith("match[]=")
        else f"{part.partition('=')[0]}={HIDDEN}"
        if "=" in part
        else HIDDEN
        for part in query.split("&")
    )
    return f"{mask_url(head)}?{'&'.join(shown)}"


def mask_secret_path(text: str) -> str:
    """The path of a secret's file; hidden when somebody put the secret itself where its path belongs.

    What begins with a slash or a dot is a path.  A short plain word is shown: nothing tells it from a file's name, and
    whoever mistyped that wants to see it.
    """
    bare = text.strip()
    if bare.startswith(("/", ".", "~/")):
        return text
    is_secret = looks_like_token(bare) or _SLASHED_TOKEN.fullmatch(bare)
    return HIDDEN if is_secret or ("/" not in bare and _NO_NAME.search(bare)) else text


def looks_like_token(path: str) -> bool:
    """A long bare word with a digit and neither slash nor dot, or a JSON web token, is hardly the name of a file."""
    return bool(_PASTED_TOKEN.fullmatch(path))


__all__ = ["HIDDEN", "looks_like_token", "mask_query_url", "mask_secret_path", "mask_url", "redact"]
