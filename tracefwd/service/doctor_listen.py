"""What ``tracefwd doctor`` says of the addresses that ``run`` would listen on.

A port that a tracefwd holds already is fine: inside a pod the doctor runs beside the one that it is asked about, and
repeats what that one says of itself.  Who holds a port shows to the same user only; otherwise the admin port is asked.
"""

import errno
from collections.abc import Iterator

from tracefwd.errors import StartError
from tracefwd.service import sockets
from tracefwd.service.doctor_findings import MACHINE, Finding
from tracefwd.service.doctor_holder import Holder, holder_of
from tracefwd.service.scrape_client import ScrapeClient, ScrapeFailed
from tracefwd.service.units import format_address, parse_address
from tracefwd.settings import (
    AdminSettings,
    CollectionSettings,
    HttpConfigSettings,
    PrometheusSourceSettings,
    Settings,
    TlsConfigSettings,
)

_ANSWERS = (
    "held by somebody else's process; a tracefwd answers at the admin port, so it is likely its own"
)
_PAGE_BYTES_MAX = 16 * 2**20
# The end of a line of /readyz?verbose that tells a problem.
_TROUBLE = " (does not count)"


def addresses(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Option, address and flag of all that ``run`` would listen on."""
    receiver = settings.receiver
    if settings.service.only != "metrics":
        yield "receiver.listen", receiver.listen, "--listen"
        for option, address, flag in (
            ("receiver.trace_listen", receiver.trace_listen, "--trace-listen"),
            ("receiver.otlp.http.listen", receiver.otlp.http.listen, "--otlp-http"),
            ("receiver.otlp.grpc.listen", receiver.otlp.grpc.listen, "--otlp-grpc"),
        ):
            if address:
                yield option, address, flag
    yield "admin.listen", settings.admin.listen, "--admin"


async def listening(settings: Settings, timeout_s: float) -> list[Finding]:
    """Free, or held by a tracefwd that runs here; by anybody else is a cross."""
    found: list[Finding] = []
    runs_here: bool | None = None
    for option, address, flag in addresses(settings):
        check = f"listen {address}"
        try:
            sockets.listen(address, option, flag=flag).close()
        except StartError as error:
            cause = error.__cause__
            is_taken = isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
            holder = holder_of(parse_address(address)[1]) if is_taken else None
            if is_taken and holder is None:
                if runs_here is None:
                    runs_here = await _is_tracefwd(settings.admin, timeout_s)
                if runs_here:
                    found.append(MACHINE.ok(check, f"{option}: {_ANSWERS}"))
                    continue
            found.append(_held(check, option, address, error, holder))
            runs_here = runs_here or (holder is not None and holder.is_forwarder)
        else:
            found.append(MACHINE.ok(check, f"{option}: free"))
    if runs_here:
        found.append(await _running(settings.admin, timeout_s))
    return found


def _held(
    check: str, option: str, address: str, error: StartError, holder: Holder | None
) -> Finding:
    if holder is not None and holder.is_forwarder:
        return MACHINE.ok(check, f"{option}: held by a tracefwd that runs here ({holder})")
    what, _, todo = str(error).removeprefix(f"{option} {address}: ").partition("; ")
    if holder is not None:
        what = f"{what}: {holder}"
    return MACHINE.cross(check, f"{option}: {what}", todo or "give another address")


async def _is_tracefwd(admin: AdminSettings, timeout_s: float) -> bool:
    """Whether one is at the admin port: /metrics is open to everybody who reaches it."""
    try:
        return "tracefwd_build_info" in await _read(admin, "/metrics", timeout_s)
    except ScrapeFailed:
        return False


async def _running(admin: AdminSettings, timeout_s: float) -> Finding:
    """What the tracefwd that runs here says of itself."""
    try:
        head, *lines = (await _read(admin, "/readyz?verbose", timeout_s)).splitlines() or [""]
    except ScrapeFailed as failure:
        todo = "read its log, and the other crosses here"
        return MACHINE.cross("running tracefwd", f"is not ready ({failure})", todo)
    troubles = [line.removesuffix(_TROUBLE) for line in lines if line.endswith(_TROUBLE)]
    if not troubles:
        return MACHINE.ok("running tracefwd", f"{head}, without a problem")
    todo = "see its log; what is wrong with a target or the disk shows below, too"
    return MACHINE.warning("running tracefwd", f"{head}; {'; '.join(troubles)}", todo)


async def _read(admin: AdminSettings, path: str, timeout_s: float) -> str:
    """A page of the admin port, with the means of a scrape.  Raises ``ScrapeFailed``."""
    host, port = parse_address(admin.listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    scheme = "https" if admin.tls.cert_file else "http"
    source = PrometheusSourceSettings(
        url=f"{scheme}://{format_address(host, port)}{path}",
        # Nothing is told to it, and its certificate bears the name of a Service.
        httpConfig=HttpConfigSettings(tls_config=TlsConfigSettings(insecure_skip_verify=True)),
        collection=CollectionSettings(timeout=timeout_s),
    )
    body = bytearray()
    client = ScrapeClient(source, body_bytes_max=_PAGE_BYTES_MAX)
    await client.open()
    try:
        await client.scrape(lambda _: body.extend)
    finally:
        await client.close()
    return body.decode("utf-8", "replace")


__all__ = ["addresses", "listening"]
