"""``tracefwd report``: asks a running tracefwd for what its console shows, and writes it as one HTML file."""

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tracefwd.console.report import Documents, render
from tracefwd.errors import StartError
from tracefwd.service.admin_client import AdminClient, AdminError, Reach

# Between the two readings of RED: workers tell more than they drain once somebody has asked.
_LOOK_S = 1.5


@dataclass(frozen=True)
class ReportOptions:
    """``output``: a file, or ``-`` for standard output.  ``since_s``: how far history and samples look back."""

    output: str
    since_s: float


def run(where: Reach, options: ReportOptions) -> int:
    """The exit code.  Raises ``StartError`` when there is nobody to ask, or nowhere to write."""
    try:
        documents = asyncio.run(fetch(where))
    except AdminError as error:
        raise StartError(str(error)) from error
    page = render(documents, since_s=options.since_s, where=where.shown, tell=_tell)
    if options.output == "-":
        sys.stdout.write(page)
        return 0
    try:
        Path(options.output).write_text(page, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise StartError(f"--output {options.output}: {reason}; choose another file") from error
    print(f"{options.output}: {len(page.encode()) / 1024:,.0f} KiB, needs no script and no net")
    return 0


async def fetch(where: Reach) -> Documents:
    async with AdminClient(where) as client:
        # Tells the workers that somebody looks.
        await client.get("/api/v1/services")
        await asyncio.sleep(_LOOK_S)
        return Documents(
            flow=await client.get("/api/v1/flow"),
            history=await client.get("/api/v1/history"),
            services=await client.get("/api/v1/services"),
            operations=await client.get("/api/v1/operations"),
            edges=await client.get("/api/v1/edges"),
            refused=await client.get("/api/v1/refused"),
            metrics_path=await client.get("/api/v1/metrics-path"),
            configuration=await client.get("/api/v1/configuration"),
        )


def _tell(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))


__all__ = ["ReportOptions", "fetch", "run"]
