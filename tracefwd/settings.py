"""Every option, where it is declared, with its default, unit and meaning.

The tree is frozen and complete: ``service/config.py`` fills it once from file, environment and flags, nothing
re-reads the environment afterwards.  README's table and ``print-config`` are made from these fields.

``unit`` tells the loader how a value is written: ``duration`` ("5s", kept in seconds as float), ``size`` ("64MiB",
kept in bytes), ``address`` ("HOST:PORT"), ``url``, ``query_url`` (with a query that is kept as it is written), ``path``,
``secret_path`` (a file whose content is never shown), ``secret`` (never shown), or "" (as the type says).

Keys of ``prometheus_sources`` are spelled as Wavefront's collector for Kubernetes spells them.
"""

from dataclasses import dataclass, field
from typing import Any


def option(
    default: Any, doc: str, *, unit: str = "", choices: tuple[str, ...] = (), old_name: str = ""
) -> Any:
    """A dataclass field that knows how it is written and what it means; ``old_name`` is taken as well."""
    metadata = {"doc": doc, "unit": unit, "choices": choices, "old_name": old_name}
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def section(kind: type, doc: str) -> Any:
    """A nested part of the tree with its own defaults."""
    return field(default_factory=kind, metadata={"doc": doc, "unit": "section", "choices": ()})


@dataclass(frozen=True, kw_only=True)
class IntakeTlsSettings:
    cert_file: str = option(
        "",
        "Certificate chain (PEM); with it the ports speak TLS only; read again when it changes.",
        unit="path",
    )
    key_file: str = option("", "Its private key (PEM, without a passphrase).", unit="secret_path")
    client_ca_file: str = option(
        "", "Authorities (PEM) of which clients must show a certificate: mTLS.", unit="path"
    )


@dataclass(frozen=True, kw_only=True)
class OtlpPortSettings:
    listen: str = option("", "HOST:PORT; empty is no such port.", unit="address")


@dataclass(frozen=True, kw_only=True)
class OtlpSettings:
    http: OtlpPortSettings = section(
        OtlpPortSettings,
        "OTLP over HTTP at /v1/traces, in protobuf and JSON; receiver.listen takes it as well.",
    )
    grpc: OtlpPortSettings = section(OtlpPortSettings, "OTLP over gRPC.")


@dataclass(frozen=True, kw_only=True)
class ReceiverSettings:
    listen: str = option("0.0.0.0:9411", "Where Envoys post their spans.", unit="address")
    trace_listen: str = option(
        "",
        "Also take Wavefront span lines and span logs here, over HTTP and TCP, as the proxy's traceListenerPorts.",
        unit="address",
    )
    otlp: OtlpSettings = section(OtlpSettings, "Traces by OTLP.")
    paths: list[str] = option(
        [], "More paths that take spans, beside /api/v2/spans and /api/v1/spans."
    )
    body_bytes_max: int = option(
        16 * 2**20, "Largest body after inflation; above it 413.", unit="size"
    )
    header_bytes_max: int = option(
        16 * 2**10, "Largest request line and headers together; above it 431.", unit="size"
    )
    header_timeout: float = option(
        10.0, "A begun request's headers must be complete within this.", unit="duration"
    )
    body_timeout: float = option(
        10.0, "A body must arrive within this after its headers.", unit="duration"
    )
    idle_timeout: float = option(
        900.0,
        "An idle connection is closed after this; Envoy keeps its own for an hour.",
        unit="duration",
    )
    connection_age_max: float = option(
        300.0,
        "After this age (each connection's own, ±10 %) an answer says 'Connection: close', so that Envoys spread over new replicas; 0 is never.",
        unit="duration",
    )
    connections_max: int = option(
        20_000, "Open connections per worker; further ones are refused and counted."
    )
    connections_per_address_max: int = option(
        0,
        "Open connections per client address and worker; further ones are closed and counted; 0 is no limit, as a gateway or sidecar shows one address for many clients.",
    )
    unfinished_bytes_max: int = option(
        64 * 2**20,
        "Bytes of requests being read or waiting their turn, over all connections of a worker; from half of it on requests above their fair share are refused with 503; at least two bodies of receiver.body_bytes_max.",
        unit="size",
    )
    allowed_networks: list[str] = option(
        [],
        "Client networks (CIDR) that may connect, others are closed without an answer and counted; empty allows all.",
    )
    token_file: str = option(
        "",
        "File with the bearer tokens of which a request must show one, one a line; read again when it changes; empty asks for none.",
        unit="secret_path",
    )
    tls: IntakeTlsSettings = section(IntakeTlsSettings, "TLS on the intake ports.")
    proto_ids: str = option(
        "auto",
        "Byte order of span and parent ids in proto3 bodies: 'auto' turns them round for a whole body if one of its spans is an Envoy's (istio profile).",
        choices=("auto", "keep", "reverse"),
    )


@dataclass(frozen=True, kw_only=True)
class OperationSettings:
    template: list[str] = option(
        ["{@name}"],
        "Where the operation's name comes from: the first template whose parts are all there.",
    )
    rules: list[dict[str, str]] = option(
        [],
        "Rewrites, in order: {match: RE2 expression, replace: text with \\1}; every find is replaced.",
    )
    names_max: int = option(
        2_000,
        "Different operation names per worker; a further one is sent as _other, with its own name in the tag operation.name.",
    )
    expiry: float = option(
        3600.0, "A name not seen for this long makes room for another.", unit="duration"
    )


@dataclass(frozen=True, kw_only=True)
class ErrorSettings:
    http_4xx: str = option(
        "none", "Which sides count 4xx as an error.", choices=("none", "client", "server", "both")
    )
    http_5xx: str = option(
        "both", "Which sides count 5xx as an error.", choices=("none", "client", "server", "both")
    )
    grpc_codes: list[int] = option(
        [2, 4, 8, 12, 13, 14, 15],
        "gRPC status codes that are errors (UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS).",
    )
    response_flags: list[str] = option(
        [
            "UF",
            "UH",
            "UO",
            "UT",
            "UC",
            "UR",
            "UPE",
            "URX",
            "LH",
            "LR",
            "NC",
            "NFCF",
            "UMSDR",
            "OM",
            "DT",
        ],
        "Envoy response flags that are errors whatever the status says.",
    )


@dataclass(frozen=True, kw_only=True)
class MappingSettings:
    profile: str = option(
        "istio",
        "'istio' maps Istio's own tags; 'wavefront-proxy' does what the Java proxy's Zipkin listener does.",
        choices=("istio", "wavefront-proxy"),
    )
    exact: bool = option(False, "Profile wavefront-proxy: copy the Java proxy's defects, too.")
    deviations: dict[str, bool] = option(
        {},
        "wavefront-proxy: single differences from the Java proxy, {NAME: false} does as the proxy does; the table above has the names. With mapping.exact all are off.",
    )
    application: list[str] = option(
        ["{application}", "{istio.namespace}", "{@namespace}", "{service.namespace}", "none"],
        "istio: the application; the first template whose parts are all there.",
    )
    service: list[str] = option(
        ["{service}", "{istio.canonical_service}", "{@app}", "none"], "istio: the service."
    )
    cluster: list[str] = option(
        ["{cluster}", "{istio.cluster_id}", "{istio.mesh_id}", "{k8s.cluster.name}", "none"],
        "istio: the cluster.",
    )
    shard: list[str] = option(
        ["{shard}", "{istio.canonical_revision}", "{service.version}", "none"],
        "istio: the shard.",
    )
    source: list[str] = option(
        ["{source}", "{@pod}", "{@service_name}", "tracefwd"], "istio: the span's source."
    )
    overrides: dict[str, dict[str, dict[str, Any]]] = option(
        {"namespaces": {}, "services": {}},
        "istio: other templates for application, service, cluster, shard, source per namespace (key NAMESPACE) and per service (key SERVICE.NAMESPACE or SERVICE); the service's win.",
    )
    operation: OperationSettings = section(
        OperationSettings, "istio: operation names and their bound."
    )
    errors: ErrorSettings = section(
        ErrorSettings, "istio: what counts as an error beside the error tag."
    )
    url_query: str = option(
        "mask",
        "istio: query strings in URLs: keep them, mask their values, or drop them; the profile wavefront-proxy ignores this and sends URLs as they are.",
        choices=("keep", "mask", "drop"),
    )
    span_logs: str = option(
        "auto",
        "Which annotations become span logs: 'auto' is all but Zipkin's core ones (cs, cr, ss, sr) under istio and all under wavefront-proxy.",
        choices=("auto", "all", "none"),
    )
    long_values: str = option(
        "cut",
        "istio: a value above 128 is cut and ends in '...'; 'span_log' also sends the whole value as a span log.",
        choices=("cut", "span_log"),
    )
    application_name: str = option(
        "Zipkin",
        "wavefront-proxy: the application of spans without an application tag (traceZipkinApplicationName).",
    )


@dataclass(frozen=True, kw_only=True)
class RulesSettings:
    file: str = option(
        "",
        "The Wavefront proxy's preprocessor rules file, for spans and scraped points; read again when it changes and on SIGHUP, a bad one keeps the rules that hold.",
        unit="path",
    )
    port: str = option(
        "",
        "Which port's section of the file holds for Zipkin spans; empty is the port of receiver.listen.",
    )
    trace_port: str = option(
        "",
        "Which port's section of the file holds for span lines; empty is the port of receiver.trace_listen if the file names it, else the section for Zipkin spans.",
    )
    metrics_port: str = option("2878", "Which port's section of the file holds for scraped points.")


@dataclass(frozen=True, kw_only=True)
class RedSettings:
    enabled: bool = option(True, "Derive RED metrics and heartbeats.")
    interval: float = option(60.0, "How often they are sent.", unit="duration")
    spans: str = option(
        "all",
        "'all': every span counts under its own service, operation and span.kind; 'entry' leaves out CLIENT spans that somebody served.",
        choices=("all", "entry"),
    )
    source: list[str] = option(
        ["{service}"],
        "istio: source of RED metrics and heartbeats, from {application} {service} {cluster} {shard} or tags; never a pod: every rollout would multiply the series.",
    )
    tags: list[str] = option(
        [], "More RED dimensions: span tags by their cleaned key (traceDerivedCustomTagKeys)."
    )
    series_max: int = option(
        10_000,
        "RED series per worker; further ones count under operationName=_other of their application and service.",
    )
    series_expiry: float = option(
        300.0, "A series without spans for this long makes room for another.", unit="duration"
    )
    centroids_max: int = option(
        100, "Centroids in one distribution line; neighbours with the least difference are merged."
    )


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    rate: float = option(
        1.0,
        "Share of traces to keep, by trace id with the Java proxy's formula; RED counts all spans.",
    )
    duration: float = option(
        0.0,
        "With a rate below 1, keep spans longer than this as well; without one, keep only them (traceSamplingDuration); 0 is off.",
        unit="duration",
    )
    as_documented: bool = option(
        True,
        "Rate 0 keeps nothing, and duration works without a rate, as the Java proxy documents it; false (and always with mapping.exact) is what it does: rate 0 keeps 1 in 10,000, duration alone has no effect.",
    )
    keep_errors: bool = option(
        False, "Keep spans that are errors whatever their rate; first within the ceiling."
    )
    keep_slow: float = option(
        0.0,
        "Keep spans longer than this whatever their rate; first within the ceiling; 0 is off.",
        unit="duration",
    )
    rates: dict[str, dict[str, float]] = option(
        {"applications": {}, "services": {}},
        "Other rates than sampling.rate, per application (key APPLICATION) and per service (key APPLICATION/SERVICE); the service's win.",
    )
    spans_per_second_max: int = option(
        0,
        "Ceiling per worker: above it a lower share of the traces is kept, the same under the same load; debug spans always go, errors and slow spans (if they are kept) come first; 0 is none.",
    )


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    backoff_base: float = option(
        0.5,
        "First wait after a failed attempt; doubled each time, fully jittered.",
        unit="duration",
    )
    backoff_max: float = option(30.0, "Longest wait.", unit="duration")
    age_max: float = option(
        3600.0,
        "A batch that could not be delivered for this long is dropped and counted; in the spool, spool.age_max holds.",
        unit="duration",
    )


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    name: str = option("primary", "Name in the ledger and in metrics.")
    kind: str = option(
        "proxy",
        "A Wavefront proxy, direct ingestion, or whatever takes OTLP.",
        choices=("proxy", "direct", "otlp"),
    )
    role: str = option(
        "primary",
        "primary, failover (gets batches while the primary is down) or tee (gets a copy of all).",
        choices=("primary", "failover", "tee"),
    )
    traces: str = option(
        "", "proxy: http://HOST:30000 (traceListenerPorts), or tcp://HOST:30000.", unit="url"
    )
    metrics: str = option(
        "", "proxy: http://HOST:2878 (pushListenerPorts), or tcp://HOST:2878.", unit="url"
    )
    url: str = option(
        "",
        "direct: https://INSTANCE.wavefront.com; otlp: http://HOST:4318 (http) or http://HOST:4317 (grpc), https:// with TLS.",
        unit="url",
    )
    protocol: str = option(
        "http",
        "otlp: protobuf over HTTP (/v1/traces and /v1/metrics behind the URL), or gRPC.",
        choices=("http", "grpc"),
    )
    token_file: str = option(
        "",
        "File with the API token (direct, otlp, or a proxy with authMethod); read again when it changes.",
        unit="secret_path",
    )
    token_header: str = option(
        "Authorization",
        "otlp: the header for the token; Authorization has 'Bearer TOKEN', any other the bare token.",
    )
    headers: dict[str, str] = option(
        {},
        "otlp: further headers of each request (gRPC: metadata), {NAME: value}; a value may be ${VARIABLE}, and is never shown.",
        unit="secret",
    )
    header_files: dict[str, str] = option(
        {},
        "otlp: the same with values from files, {NAME: path}; read again when they change.",
        unit="secret_path",
    )
    compression: str = option(
        "auto",
        "otlp: how requests are packed; auto is as exporter.gzip says.",
        choices=("auto", "gzip", "none"),
    )
    csp_base: str = option(
        "https://console.cloud.vmware.com", "direct: base of the CSP token exchange.", unit="url"
    )
    csp_token_file: str = option(
        "", "direct: file with a CSP API token to exchange.", unit="secret_path"
    )
    csp_app_id: str = option("", "direct: CSP OAuth app id; its secret is in csp_app_secret_file.")
    csp_app_secret_file: str = option(
        "", "direct: file with the CSP OAuth app's secret.", unit="secret_path"
    )
    csp_org_id: str = option("", "direct: CSP organisation of the OAuth app.")
    ca_file: str = option(
        "", "Certificate authorities for this target instead of the system's.", unit="path"
    )
    cert_file: str = option(
        "",
        "Our certificate (PEM, with its chain) for a target that asks for one: mTLS; read again when it changes.",
        unit="path",
    )
    key_file: str = option("", "Its private key (PEM, without a passphrase).", unit="secret_path")
    tls_verify: bool = option(True, "Verify the target's certificate; switch off only in a test.")
    http_proxy: str = option(
        "",
        "HTTP proxy for this target; empty honours HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
        unit="url",
    )


@dataclass(frozen=True, kw_only=True)
class ExporterSettings:
    targets: list[TargetSettings] = option(
        [],
        "Where everything goes; the flags --proxy-traces, --proxy-metrics and --direct are short for one.",
    )
    proxy_version: str = option(
        "current",
        "Oldest Wavefront proxy among the targets, such as 4.35; below 4.37 no span logs are sent.",
    )
    gzip: bool = option(True, "Compress request bodies.")
    batch_items_max: int = option(5_000, "Lines in one request; the proxy's own batch is 5,000.")
    batch_bytes_max: int = option(
        4 * 2**20,
        "Bytes in one request before compression; to a target of OTLP 2 MiB at most.",
        unit="size",
    )
    batch_age_max: float = option(
        1.0, "A batch is sent when its first line is this old.", unit="duration"
    )
    queue_bytes_max: int = option(
        64 * 2**20,
        "Bytes waiting in memory per target and signal; near it batches go to the spool, above it the oldest is dropped and counted.",
        unit="size",
    )
    concurrency: int = option(4, "Requests in flight per target and signal.")
    connect_timeout: float = option(5.0, "For a connection to a target.", unit="duration")
    request_timeout: float = option(
        15.0, "For a request to a target, answer included.", unit="duration"
    )
    retry: RetrySettings = section(RetrySettings, "What happens after a failed attempt.")


@dataclass(frozen=True, kw_only=True)
class TlsConfigSettings:
    ca_file: str = option(
        "",
        "Certificate authorities instead of the system's; read again when it changes.",
        unit="path",
    )
    cert_file: str = option(
        "",
        "Our certificate (with its chain), with key_file; read again when it changes.",
        unit="path",
    )
    key_file: str = option("", "The key of cert_file.", unit="secret_path")
    server_name: str = option(
        "", "The name that the server's certificate must bear (and SNI); empty is the URL's host."
    )
    insecure_skip_verify: bool = option(False, "Take any certificate.")


@dataclass(frozen=True, kw_only=True)
class BasicAuthSettings:
    username: str = option("", "User of HTTP basic authentication.")
    password: str = option("", "Its password; better in password_file.", unit="secret")
    password_file: str = option(
        "", "File with the password; read again at each scrape.", unit="secret_path"
    )


@dataclass(frozen=True, kw_only=True)
class HttpConfigSettings:
    bearer_token: str = option("", "A token; better in bearer_token_file.", unit="secret")
    bearer_token_file: str = option(
        "", "File with a token; read again at each scrape.", unit="secret_path"
    )
    basic_auth: BasicAuthSettings = section(BasicAuthSettings, "HTTP basic authentication.")
    proxy_url: str = option(
        "",
        "HTTP proxy for this source; empty honours HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
        unit="url",
    )
    tls_config: TlsConfigSettings = section(TlsConfigSettings, "TLS of an https URL.")


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    metricAllowList: list[str] = option(
        [],
        "Globs over the whole final name: a point must match one (no list: every name passes).",
        old_name="metricWhitelist",
    )
    metricDenyList: list[str] = option(
        [], "Globs over the whole final name: a point must match none.", old_name="metricBlacklist"
    )
    metricTagAllowList: dict[str, list[str]] = option(
        {},
        "Globs by tag: a point must have one of these tags with a value that matches.",
        old_name="metricTagWhitelist",
    )
    metricTagDenyList: dict[str, list[str]] = option(
        {},
        "Globs by tag: a point must have none of these tags with a value that matches.",
        old_name="metricTagBlacklist",
    )
    tagInclude: list[str] = option([], "Globs over tag keys: only these tags are kept.")
    tagExclude: list[str] = option([], "Globs over tag keys: these tags are taken off.")
    tagGuaranteeList: list[str] = option(
        [], "Tag keys (no globs) that are kept whatever else says."
    )


@dataclass(frozen=True, kw_only=True)
class CollectionSettings:
    interval: float = option(
        60.0, "From one scrape to the next; a scrape that takes longer skips some.", unit="duration"
    )
    timeout: float = option(
        30.0,
        "For one scrape, the whole body included; after it the scrape has failed.",
        unit="duration",
    )


@dataclass(frozen=True, kw_only=True)
class DeltaSettings:
    names: list[str] = option(
        [],
        "Globs over final names: these cumulative counters are sent as delta counters (∆name), what came since the last scrape; only for series of single pods.",
    )
    without: list[str] = option(
        [
            "instance",
            "pod",
            "kubernetes_pod_name",
            "pod_template_hash",
        ],
        "Labels that tell pods apart: differences are taken for each series, then summed over these labels.",
    )
    series_max: int = option(
        50_000, "Series remembered for their next difference; further ones are dropped and counted."
    )
    expiry: float = option(3600.0, "A series not seen for this long is forgotten.", unit="duration")


@dataclass(frozen=True, kw_only=True)
class PrometheusSourceSettings:
    url: str = option(
        "",
        "What to scrape; its query goes out as it is written here, several match[] included.",
        unit="query_url",
    )
    name: str = option("", "Name in metrics and logs; empty is host, port and path of the URL.")
    prefix: str = option("", "Stands before every name, as it is: bring your own trailing dot.")
    strip_prefix: str = option(
        "", "Taken off the beginning of a family's name before all else, such as federate: ."
    )
    source: str = option("", "Wavefront source of the points; empty is metrics.source.")
    tags: dict[str, str] = option({}, "Tags of every point; a label of the same name wins.")
    filters: FilterSettings = section(FilterSettings, "Which points and tags are sent.")
    convertHistograms: bool = option(
        False, "Typed histograms become Wavefront distributions of what came since the last scrape."
    )
    deltas: DeltaSettings = section(DeltaSettings, "Cumulative counters as delta counters.")
    httpConfig: HttpConfigSettings = section(HttpConfigSettings, "How it is asked.")
    collection: CollectionSettings = section(CollectionSettings, "When it is asked.")


@dataclass(frozen=True, kw_only=True)
class MetricsSettings:
    mode: str = option(
        "default",
        "'collector' translates as Wavefront's collector for Kubernetes does, traps included; 'default' is ours.",
        choices=("default", "collector"),
    )
    cluster: str = option(
        "k8s-cluster", "The point tag cluster of every point; dashboards select by it."
    )
    source: str = option("prom_source", "Wavefront source of points whose source gives none.")
    prefix: str = option("", "Stands before every name with a dot; filters see names without it.")
    tags: dict[str, str] = option(
        {}, "Tags of every point instead of labels of the same name; an empty one takes it off."
    )
    filters: FilterSettings = section(
        FilterSettings, "Which points and tags are sent, after each source's own filters."
    )
    omit_bucket_suffix: bool = option(
        False, "Buckets of typed histograms are called as their histogram, without .bucket."
    )
    untyped: bool = option(
        False,
        "Translate typed families as if they were untyped (name.value), as they come through federation: a direct scrape then gives the names of the dashboards.",
    )
    honor_timestamps: bool = option(
        True, "Stamp points with the exposed times; false stamps them with the time of the scrape."
    )
    age_max: float = option(
        600.0,
        "A sample with an older exposed time is dropped and counted; 0 is never.",
        unit="duration",
    )
    ahead_max: float = option(
        600.0,
        "A sample with an exposed time further in the future is dropped and counted; 0 is never.",
        unit="duration",
    )
    tags_max: int = option(
        20, "Point tags of one point; above it tags are taken off in a fixed order, counted."
    )
    body_bytes_max: int = option(
        512 * 2**20,
        "Largest body of a scrape after inflation; reading ends there, and the scrape has failed.",
        unit="size",
    )


@dataclass(frozen=True, kw_only=True)
class SpoolSettings:
    folder: str = option(
        "",
        "Folder for what was accepted and not yet delivered, with a subfolder per worker; empty is memory only (--spool).",
        unit="path",
    )
    durability: str = option(
        "auto",
        "What a 202 survives: 'memory' no crash (beyond spooled batches), 'disk' a crash of any process, 'fsync' a loss of power; 'auto' is disk where there is a folder.",
        choices=("auto", "memory", "disk", "fsync"),
    )
    bytes_max: int = option(
        2**30,
        "Most bytes on disk per worker, of spooled batches and of the journal each; with too many batches spool.full decides.",
        unit="size",
    )
    age_max: float = option(
        24 * 3600.0, "Spooled batches older than this are dropped and counted.", unit="duration"
    )
    after: float = option(
        30.0,
        "A batch that is not delivered for this long is spooled, and then has a quarter of exporter.concurrency while there are fresh ones.",
        unit="duration",
    )
    full: str = option(
        "drop_oldest",
        "When bytes_max is reached: drop the oldest batch of the lane that has most, or the newest.",
        choices=("drop_oldest", "drop_newest"),
    )


@dataclass(frozen=True, kw_only=True)
class AdminTlsSettings:
    cert_file: str = option(
        "",
        "Certificate chain (PEM); with it the admin port speaks TLS only; read again when it changes.",
        unit="path",
    )
    key_file: str = option("", "Its private key (PEM, without a passphrase).", unit="secret_path")
    client_ca_file: str = option(
        "",
        "Authorities (PEM): a client with a certificate of theirs needs no token; probes and /metrics need none.",
        unit="path",
    )


@dataclass(frozen=True, kw_only=True)
class AdminSettings:
    listen: str = option(
        "127.0.0.1:9412",
        "Health, metrics, console and its API; beyond loopback console and API are off until there is a token_file or a tls.client_ca_file.",
        unit="address",
    )
    token_file: str = option(
        "",
        "File with the bearer tokens of which console and API demand one, one a line; read again when it changes.",
        unit="secret_path",
    )
    tls: AdminTlsSettings = section(AdminTlsSettings, "TLS on the admin port.")
    allowed_hosts: list[str] = option(
        [],
        "Names under which a browser may reach console and API on loopback, beside localhost and addresses (others are taken for DNS rebinding).",
    )
    masked_tags: list[str] = option(
        [
            "*authorization*",
            "*cookie*",
            "*credential*",
            "*password*",
            "*passwd*",
            "*secret*",
            "*token*",
            "*api?key*",
            "*apikey*",
        ],
        "Globs on tags whose values console, API and tap never show; letter case does not count.",
    )


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    only: str = option(
        "all",
        "'spans' scrapes no prometheus_sources, 'metrics' does nothing else (no intake port): so that many replicas share one file and one of them scrapes.",
        choices=("all", "spans", "metrics"),
    )
    workers: int = option(1, "Processes that share the port; one per core.")
    pre_stop_delay: float = option(
        0.0,
        "After SIGTERM, be not ready but serve on for this long, until nobody is sent here any more; in Kubernetes 5s, and terminationGracePeriodSeconds above this and drain_timeout together.",
        unit="duration",
    )
    drain_timeout: float = option(
        20.0, "Time for delivering what is queued after SIGTERM.", unit="duration"
    )
    memory_max: int = option(
        0,
        "Memory of all processes together, shared out among the workers; near it whole traces are shed (RED counts them), at the last posts are refused with 503; 0 is the cgroup's limit, or half of the machine's memory where there is none.",
        unit="size",
    )
    log_level: str = option("info", "", choices=("debug", "info", "warning", "error"))
    log_format: str = option(
        "auto",
        "'auto' is JSON lines, or plain text on a terminal.",
        choices=("auto", "json", "text"),
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    receiver: ReceiverSettings = section(ReceiverSettings, "The intake port.")
    mapping: MappingSettings = section(
        MappingSettings, "How a Zipkin span becomes a Wavefront span."
    )
    rules: RulesSettings = section(
        RulesSettings, "Changes to mapped spans, by an operator's rules."
    )
    red: RedSettings = section(RedSettings, "RED metrics and heartbeats.")
    sampling: SamplingSettings = section(SamplingSettings, "Which spans are forwarded.")
    exporter: ExporterSettings = section(ExporterSettings, "Delivery.")
    spool: SpoolSettings = section(SpoolSettings, "What is held on disk.")
    prometheus_sources: list[PrometheusSourceSettings] = option(
        [],
        "Expositions to scrape for points, usually /federate of the mesh's Prometheus; one process of its own scrapes them.",
    )
    metrics: MetricsSettings = section(MetricsSettings, "From scraped samples to points.")
    admin: AdminSettings = section(AdminSettings, "The admin port.")
    service: ServiceSettings = section(ServiceSettings, "The process.")


__all__ = [
    "AdminSettings",
    "AdminTlsSettings",
    "BasicAuthSettings",
    "CollectionSettings",
    "DeltaSettings",
    "ErrorSettings",
    "ExporterSettings",
    "FilterSettings",
    "HttpConfigSettings",
    "IntakeTlsSettings",
    "MappingSettings",
    "MetricsSettings",
    "OperationSettings",
    "PrometheusSourceSettings",
    "ReceiverSettings",
    "RedSettings",
    "RetrySettings",
    "RulesSettings",
    "SamplingSettings",
    "ServiceSettings",
    "Settings",
    "SpoolSettings",
    "TargetSettings",
    "TlsConfigSettings",
]
