"""The console's page as text: a frame that already says the verdict and the balance, and the files beside it.

Everything that is filled in is escaped; the script goes on from the first document, which stands in the page as data.
Pure: the files are part of the package.
"""

import json
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib import resources
from string import Template
from typing import Any

# By path of the admin port: file and content type.
ASSETS = {
    "/console.css": ("console.css", "text/css"),
    "/console.js": ("console.js", "text/javascript"),
}
_TERMS = ("delivered", "sampled_out", "blocked", "rejected", "dropped", "held")


@cache
def asset(name: str) -> str:
    return resources.files("tracefwd.console").joinpath("page", name).read_text("utf-8")


def console(flow: Mapping[str, Any]) -> str:
    """The page with the document ``Flow`` of the API in it."""
    verdict, whole = flow["verdict"], flow["ledger"]
    return Template(asset("console.html")).substitute(
        level=escape(verdict["level"]),
        line=escape(verdict["line"]),
        todo=escape(verdict["todo"]),
        version=escape(flow["version"]),
        balance="balances" if whole["balanced"] else "does not balance",
        sum=_sum(whole["sections"][0]),
        first=as_data(flow),
    )


def sign_in(problem: str = "") -> str:
    """The page that asks for a token; it works without a script."""
    return Template(asset("signin.html")).substitute(problem=escape(problem))


def as_data(document: Any) -> str:
    """JSON that no parser of HTML takes for markup."""
    text = json.dumps(document, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sum(spans: Mapping[str, Any]) -> str:
    terms = " + ".join(f"{spans[name]:,} {name.replace('_', ' ')}" for name in _TERMS)
    return escape(f"{spans['received']:,} received = {terms}")


__all__ = ["ASSETS", "asset", "console", "sign_in"]
