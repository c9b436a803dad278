"""What each option of the Wavefront proxy's ``wavefront.conf`` means to tracefwd, as tables.

Every option that a proxy from 4.35 to 14.1 reads stands in exactly one of them:

* ``TAKEN``: carried over; the rule turns the proxy's value into values of our own options.
* ``TARGET_NAMES``: together they make one direct target; ``wavefront_conf.py`` puts them together.
* ``ELSEWHERE``: something here serves the same end, but with another measure, so the value is not carried over.
* ``MEANINGLESS`` and its families: nothing here corresponds, and why.

Pure.
"""

import re
from collections.abc import Mapping

from tracefwd.service import wavefront_values as values
from tracefwd.service.wavefront_values import Rule

TAKEN: Mapping[str, Rule] = {
    "traceZipkinListenerPorts": values.first_port("receiver.listen"),
    "traceListenerPorts": values.first_port("receiver.trace_listen"),
    "traceListenerHttpBufferSize": values.count("receiver.body_bytes_max", "16777216"),
    "listenerIdleConnectionTimeout": values.seconds_or_never("receiver.idle_timeout", "300"),
    "traceZipkinApplicationName": values.as_it_is("mapping.application_name"),
    "preprocessorConfigFile": values.path("rules.file"),
    "traceDerivedCustomTagKeys": values.words("red.tags"),
    "traceSamplingRate": values.sampling_rate,
    "traceSamplingDuration": values.sampling_duration,
    "gzipCompression": values.true_or_false("exporter.gzip"),
    "pushFlushInterval": values.milliseconds("exporter.batch_age_max", "1000"),
    "pushFlushMaxSpans": values.batch_items,
    "flushThreads": values.count("exporter.concurrency", "4"),
    "httpConnectTimeout": values.milliseconds("exporter.connect_timeout", "5000"),
    "httpRequestTimeout": values.milliseconds("exporter.request_timeout", "10000"),
    "retryBackoffBaseSeconds": values.backoff_base,
}

BLANK_IS_DEFAULT = frozenset(
    {
        "traceZipkinListenerPorts",
        "traceListenerPorts",
        "traceZipkinApplicationName",
        "preprocessorConfigFile",
        "traceDerivedCustomTagKeys",
    }
)
"""Texts; a blank number stops the proxy, too."""

SECRET_NAMES = ("token", "cspAPIToken", "cspAppSecret", "proxyPassword")
TARGET_NAMES = frozenset(
    {
        *SECRET_NAMES,
        "server",
        "cspAppId",
        "cspOrgId",
        "cspBaseUrl",
        "proxyHost",
        "proxyPort",
        "proxyUser",
    }
)

ALIASES: Mapping[str, str] = {"host": "server"}

_SHOWN = "samples of what was refused are at /rejected of the admin port"
_HEALTH = "/livez and /readyz are there"

ELSEWHERE: Mapping[str, tuple[str, str]] = {
    "pushFlushMaxSpanLogs": ("exporter.batch_items_max", "one bound for all signals"),
    "pushMemoryBufferLimit": ("exporter.queue_bytes_max", "bytes instead of items"),
    "buffer": (
        "spool.folder",
        "what cannot be delivered waits in memory; name a folder (--spool DIR), and it waits on disk",
    ),
    "httpAutoRetries": (
        "exporter.retry.age_max",
        "a batch is tried again until it is that old",
    ),
    "httpMaxConnTotal": ("exporter.concurrency", "requests in flight per target and signal"),
    "httpMaxConnPerRoute": ("exporter.concurrency", "requests in flight per target and signal"),
    "traceAlwaysSampleErrors": ("sampling.keep_errors", "the proxy itself ignores it since 10.0"),
    "httpHealthCheckPorts": ("admin.listen", _HEALTH),
    "httpHealthCheckAllPorts": ("admin.listen", _HEALTH),
    "httpHealthCheckPath": ("admin.listen", _HEALTH),
    "adminApiListenerPort": ("admin.listen", _HEALTH),
    "pushBlockedSamples": ("admin.listen", _SHOWN),
    "blockedSpansLoggerName": ("admin.listen", _SHOWN),
    "pushLogLevel": ("service.log_level", "other words for the levels"),
    "loglevel": ("service.log_level", "other words for the levels"),
}
"""Name -> (our option, what is different)."""

_GROUPS: tuple[tuple[str, str], ...] = (
    (
        "tracefwd takes spans only; points stay with the proxy (a target's metrics port)",
        "pushListenerPorts",
    ),
    (
        "is about points from others alone, and tracefwd takes none",
        """
        pushListenerMaxReceivedLength pushListenerHttpBufferSize pushFlushMaxPoints
        pushRateLimit prefix customSourceTags disableRdnsLookup dataBackfillCutoffHours
        dataPrefillCutoffHours pushValidationLevel validationlevel blockedPointsLoggerName
        deltaCountersAggregationIntervalSeconds deltaCountersAggregationListenerPorts
        pushRelayListenerPorts
        """,
    ),
    (
        "filters lines of points before they are parsed; spans are filtered by rules (rules.file)",
        """
        allow block allowRegex blockRegex whitelistRegex blacklistRegex graphiteWhitelistRegex
        graphiteBlacklistRegex opentsdbAllowRegex opentsdbBlockRegex opentsdbWhitelistRegex
        opentsdbBlacklistRegex
        """,
    ),
    (
        "is for metrics in other formats, which stay with the proxy",
        """
        graphitePorts graphiteFormat graphiteDelimiters graphiteFieldsToRemove picklePorts
        opentsdbPorts jsonListenerPorts httpJsonPorts writeHttpListenerPorts
        writeHttpJsonListenerPorts writeHttpJsonPorts dataDogJsonPorts dataDogRequestRelayTarget
        dataDogRequestRelayAsyncThreads dataDogRequestRelaySyncMode dataDogProcessSystemMetrics
        dataDogProcessServiceChecks
        """,
    ),
    (
        "is for logs, which tracefwd does not take",
        """
        filebeatPort rawLogsPort rawLogsMaxReceivedLength rawLogsHttpBufferSize
        logsIngestionConfigFile flushThreadsLogs pushFlushIntervalLogs pushFlushMaxLogs
        pushRateLimitLogs pushMemoryBufferLimitLogs blockedLogsLoggerName customTimestampTags
        customMessageTags customApplicationTags customServiceTags customExceptionTags
        customLevelTags logServerIngestionToken logServerIngestionURL testLogs
        """,
    ),
    (
        "is for histograms from others; RED's own are bounded by red.centroids_max and sent every red.interval",
        """
        histogramPassthroughRecompression histogramStateDirectory
        histogramAccumulatorResolveInterval histogramAccumulatorFlushInterval
        histogramAccumulatorFlushMaxBatchSize histogramAccumulatorSize
        histogramMaxReceivedLength histogramHttpBufferSize histogramProcessingQueueScanInterval
        histogramReceiveBufferFlushInterval histogramCompression avgHistogramKeyBytes
        avgHistogramDigestBytes persistAccumulator persistMessages persistMessagesCompression
        pushFlushMaxHistograms pushRateLimitHistograms blockedHistogramsLoggerName
        pushRelayHistogramAggregator pushRelayHistogramAggregatorAccumulatorSize
        pushRelayHistogramAggregatorFlushSecs pushRelayHistogramAggregatorCompression
        """,
    ),
    (
        "is for source tags and events, which tracefwd does not take",
        """
        flushThreadsSourceTags flushThreadsEvents pushFlushMaxSourceTags pushFlushMaxEvents
        pushRateLimitSourceTags pushRateLimitEvents
        """,
    ),
    (
        "Jaeger's formats are not taken; let its senders export Zipkin, or go on using the proxy for them",
        """
        traceJaegerListenerPorts traceJaegerHttpListenerPorts traceJaegerGrpcListenerPorts
        traceJaegerApplicationName
        """,
    ),
    (
        "OTLP is not taken; let its senders export Zipkin, or go on using the proxy for them",
        """
        otlpGrpcListenerPorts otlpHttpListenerPorts otlpResourceAttrsOnMetricsIncluded
        otlpAppTagsOnMetricsIncluded
        """,
    ),
    (
        "no RED is derived from span lines; receiver.trace_listen takes them as traceListenerPorts does",
        "customTracingListenerPorts",
    ),
    (
        "has no effect in the proxy, either: it drops spans without application or service there",
        "customTracingApplicationName customTracingServiceName",
    ),
    (
        "bounds a line of text, and Zipkin bodies have none; bodies are bounded by receiver.body_bytes_max",
        "traceListenerMaxReceivedLength",
    ),
    (
        "tracefwd sends as fast as its target takes; sampling.spans_per_second_max keeps fewer traces",
        """
        pushRateLimitSpans pushRateLimitSpanLogs pushRateLimitMaxBurstSeconds trafficShaping
        trafficShapingWindowSeconds trafficShapingHeadroom splitPushWhenRateLimited
        """,
    ),
    (
        "tracefwd does not register with the backend, which so cannot lower the rate",
        "backendSpanHeadSamplingPercentIgnored",
    ),
    (
        "names the proxy in its statistics; tracefwd does not register with the backend, its metrics are at /metrics",
        "hostname proxyname idFile ephemeral agentMetricsPointTags",
    ),
    (
        "is about the proxy's buffer files, and tracefwd has none",
        """
        bufferShardSize disableBufferSharding taskQueueLevel taskQueueStrategy retryThreads
        purgeBuffer exportQueuePorts exportQueueOutputFile exportQueueRetainData sqsBuffer
        sqsQueueNameTemplate sqsQueueIdentifier sqsQueueRegion
        """,
    ),
    ("guards a Java heap; tracefwd's queues have bounds in bytes", "memGuardFlushThreshold"),
    (
        "tracefwd's ports speak plain HTTP; if this names its port, end TLS before it (a gateway or sidecar)",
        "tlsPorts privateCertPath privateKeyPath",
    ),
    (
        "the proxy's Zipkin port asks nobody for a token, nor does tracefwd; keep its ports inside the mesh",
        """
        authMethod authTokenIntrospectionServiceUrl authTokenIntrospectionAuthorizationHeader
        authResponseRefreshInterval authResponseMaxTtl authStaticToken
        """,
    ),
    (
        "is for browsers, and none sends spans here",
        "corsEnabledPorts corsOrigin corsAllowNullOrigin",
    ),
    (
        "the answers of /livez and /readyz are fixed",
        """
        httpHealthCheckResponseContentType httpHealthCheckPassStatusCode
        httpHealthCheckPassResponseBody httpHealthCheckFailStatusCode
        httpHealthCheckFailResponseBody
        """,
    ),
    (
        "nothing is switched over the admin port; a draining tracefwd says so at /readyz",
        "adminApiRemoteIpAllowRegex adminApiRemoteIpWhitelistRegex",
    ),
    ("the compression level is chosen for few cycles per span", "gzipCompressionLevel"),
    ("tracefwd names itself in its requests", "httpUserAgent"),
    ("tuned a library or a socket of the proxy", "soLingerTime javaNetConnection"),
    ("tracefwd has a stand-in to deliver to instead: tracefwd emulate", "useNoopSender"),
    (
        "starts a test of the proxy; tracefwd has explain and convert",
        "testPreprocessorForPort testSpanPreprocessorForPort",
    ),
    ("is an argument of the proxy's command, no setting", "file help version"),
)
MEANINGLESS: Mapping[str, str] = {
    name: reason for reason, names in _GROUPS for name in names.split()
}
"""Name -> why."""

_FAMILIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"histogram(Minute|Hour|Day|Dist)(ListenerPorts|FlushSecs|Compression|AvgKeyBytes|AvgDigestBytes"
            r"|AvgHistogramDigestBytes|AccumulatorSize|Accumulators|AccumulatorPersisted|MemoryCache)"
        ),
        MEANINGLESS["histogramCompression"],
    ),
    (
        re.compile(
            r"multicasting(Tenants|(TenantName|Server|Token|CSPAPIToken|CSPAppId|CSPAppSecret|CSPOrgId)_[0-9]{1,4})"
        ),
        "tenants are not told apart by a tag; a target with role: tee gets a copy of everything",
    ),
)


def meaningless(name: str) -> str | None:
    """Why the proxy's option has no meaning here; None when it has one, or is not an option."""
    for pattern, reason in _FAMILIES:
        if pattern.fullmatch(name):
            return reason
    return MEANINGLESS.get(name)


def is_known(name: str) -> bool:
    """Does some version of the proxy read it, or its default file mention it?"""
    tables = (TAKEN, TARGET_NAMES, ELSEWHERE, ALIASES)
    return any(name in table for table in tables) or meaningless(name) is not None


def known_names() -> list[str]:
    """What a misspelt name is compared with."""
    return [*TAKEN, *TARGET_NAMES, *ELSEWHERE, *MEANINGLESS, *ALIASES]


__all__ = [
    "ALIASES",
    "BLANK_IS_DEFAULT",
    "ELSEWHERE",
    "MEANINGLESS",
    "SECRET_NAMES",
    "TAKEN",
    "TARGET_NAMES",
    "is_known",
    "known_names",
    "meaningless",
]
