"""What the options of ``prometheus_sources`` mean together, who scrapes, and which of their files cannot be read.

A source that would send something else than its author meant is refused: a glob that cannot be read, two sources of one
name, two ways of authentication.  Files are looked at by ``check_source_files`` alone: at a scrape they may be there.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from tracefwd.service.config_report import Report
from tracefwd.service.masking import mask_secret_path
from tracefwd.settings import (
    HttpConfigSettings,
    PrometheusSourceSettings,
    Settings,
)

# A label value of our own metrics, and what a log line shows.
_NAME_LENGTH_MAX = 128
_KEY = "prometheus_sources"


def source_name(source: PrometheusSourceSettings) -> str:
    """What a source is called in metrics and logs: no credentials, no query."""
    if source.name:
        return source.name
    parts = urlsplit(source.url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"


def wants_scraper(settings: Settings) -> bool:
    """Whether this tracefwd scrapes: replicas share one file, and the sources in it may be another's."""
    return bool(settings.prometheus_sources) and settings.service.only != "spans"


def check_sources(settings: Settings, report: Report) -> None:
    seen: dict[str, int] = {}
    for index, source in enumerate(settings.prometheus_sources):
        key = f"{_KEY}[{index}]"
        if key in report.broken:
            continue
        if not source.url and not report.is_broken(f"{key}.url"):
            reason = "a source needs it; write http://HOST:9090/federate?match[]={…}"
            report.refuse(f"{key}.url", reason, place=report.places.get(key, ""))
        _check_name(source, key, seen, index, report)
        _check_http(source.httpConfig, f"{key}.httpConfig", report)
        _check_collection(source, f"{key}.collection", report)
        for name in source.tags:
            if not name.strip():
                report.refuse(f"{key}.tags", "has a blank key; write {KEY: value}")
    if settings.prometheus_sources:
        _check_translation(settings, report)


def _check_name(
    source: PrometheusSourceSettings, key: str, seen: dict[str, int], index: int, report: Report
) -> None:
    if report.is_broken(f"{key}.url") or report.is_broken(f"{key}.name"):
        return
    if len(source.name) > _NAME_LENGTH_MAX or not source.name.isprintable():
        reason = f"is no name; write at most {_NAME_LENGTH_MAX} printable characters"
        report.refuse(f"{key}.name", reason, shown=source.name)
        return
    name = source_name(source)
    if name in seen:
        reason = f"is what {_KEY}[{seen[name]}] is called, too; give each a name of its own"
        report.refuse(f"{key}.name", reason, shown=name)
    seen.setdefault(name, index)


def _check_http(http: HttpConfigSettings, key: str, report: Report) -> None:
    if report.is_broken(key):
        return
    basic, tls = http.basic_auth, http.tls_config
    if basic.password and basic.password_file:
        reason = "password and password_file are given, but there is one password; keep one of them"
        report.refuse(f"{key}.basic_auth", reason)
    elif (basic.password or basic.password_file) and not basic.username:
        report.refuse(f"{key}.basic_auth", "a password needs its username; give both")
    if ":" in basic.username:
        report.refuse(f"{key}.basic_auth.username", "a user's name holds no colon; remove it")
    if basic.username and (http.bearer_token or http.bearer_token_file):
        reason = (
            "basic_auth and a bearer token are given, but a request bears one of them; keep one"
        )
        report.refuse(key, reason)
    if bool(tls.cert_file) != bool(tls.key_file):
        reason = "cert_file and key_file go together; give both or neither"
        report.refuse(f"{key}.tls_config", reason)


def _check_translation(settings: Settings, report: Report) -> None:
    """A glob that cannot be read would let everything through, or nothing: neither was meant."""
    from tracefwd.metricspath import filters, tags, translate  # only who scrapes pays for them

    cluster = settings.metrics.cluster
    if cluster.strip(tags.BLANKS) in tags.EMPTY_VALUES and not report.is_broken("metrics.cluster"):
        reason = "says nothing, but dashboards select by it; write the cluster's name"
        report.refuse("metrics.cluster", reason, shown=cluster)
    sentences = filters.check(settings.metrics.filters, "metrics.filters")
    for index, source in enumerate(settings.prometheus_sources):
        sentences += translate.check(source, f"{_KEY}[{index}]")
    for sentence in sentences:
        key, _, reason = sentence.partition(": ")
        if not report.is_broken(key):
            report.refuse(key, reason)


def _check_collection(source: PrometheusSourceSettings, key: str, report: Report) -> None:
    for name in ("interval", "timeout"):
        if getattr(source.collection, name) <= 0 and not report.is_broken(f"{key}.{name}"):
            report.refuse(
                f"{key}.{name}", "must be above zero; write a duration such as 30s", shown="0s"
            )


def check_source_files(settings: Settings) -> Iterator[str]:
    """Files that sources name and that cannot be used now; their scrapes will fail until they can."""
    for index, source in enumerate(settings.prometheus_sources):
        for problem in _unusable_files(source.httpConfig):
            yield f"{_KEY}[{index}].httpConfig.{problem}; until then its scrapes fail."


def _unusable_files(http: HttpConfigSettings) -> Iterator[str]:
    # Only who scrapes pays for them.
    from tracefwd.service.file_checks import unreadable
    from tracefwd.service.scrape_files import ScrapeFailed, TlsFiles, read_secret

    tls, unread = http.tls_config, set[str]()
    secrets = (
        ("bearer_token_file", http.bearer_token_file),
        ("basic_auth.password_file", http.basic_auth.password_file),
    )
    certificates = (
        ("tls_config.ca_file", tls.ca_file),
        ("tls_config.cert_file", tls.cert_file),
        ("tls_config.key_file", tls.key_file),
    )
    for name, path in secrets + certificates:
        reason = unreadable(path) if path else None
        if reason is not None:
            unread.add(name)
            yield f"{name} = {mask_secret_path(path)!r}: {reason}"
    for name, path in secrets:
        if path and name not in unread:
            try:
                read_secret(path, name)
            except ScrapeFailed as failure:
                yield str(failure)
    if unread.isdisjoint(name for name, _ in certificates):
        try:
            TlsFiles(tls).context(needed=False)
        except ScrapeFailed as failure:
            yield f"{failure}; give PEM files that belong together"


__all__ = ["check_source_files", "check_sources", "source_name", "wants_scraper"]
