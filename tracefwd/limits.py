"""Every bound and every closed set of reasons, each with its why.

Bounds that an operator may move are options (``settings.py``); what stands here is fixed by a format, by
Wavefront, or by what would let a client grow our memory.
"""

# --- Wavefront's limits on a span (spec of the format; the backend's own defaults) ------------
# Lengths count UTF-16 units: the backend and the proxy are Java.
SPAN_TAGS_MAX = 50
NAME_LENGTH_MAX = 128
SOURCE_LENGTH_MAX = 128
TAG_KEY_LENGTH_MAX = 128
TAG_VALUE_LENGTH_MAX = 128
# The backend's default; the source is none of them.
POINT_TAGS_MAX = 20
# A point's key and value together; above it the proxy refuses the point (WF-411).
POINT_TAG_PAIR_LENGTH_MAX = 254
POINT_SOURCE_LENGTH_MAX = 1_023
POINT_NAME_LENGTH_MAX = 256
# The backend refuses a longer span log.
SPAN_LOG_BYTES_MAX = 32_768
# Spans that start later than this are refused as outside of a reasonable time frame.
FUTURE_START_MS_MAX = 24 * 3600 * 1000
# A start with fewer digits would be read as seconds by every Wavefront parser (1000 times too long).
START_MS_MIN = 1_000_000_000_000

# --- memory that a client could grow ---------------------------------------------------------
# A raw sample of a rejected span: enough to recognise it.
REJECT_SAMPLE_BYTES_MAX = 2_048
# Newest rejected samples kept per worker.
REJECT_SAMPLES_MAX = 64
# Memo tables (workloads, names, tag keys, rendered heads).  Each entry is under 1 KiB, so a table stays
# under 8 MiB; a full table is emptied, because the few thousand live entries return within a second.
MEMO_ENTRIES_MAX = 8_192
# Characters of a text that such a table keeps where a line of an exposition may hold many more.
MEMO_TEXT_LENGTH_MAX = 1_024
# Keys of plain spans' tags that a decoder has a place for.  Envoy and Istio write about forty in all their versions,
# operators add a few; each place costs every span a few nanoseconds.
TAG_RECORD_KEYS_MAX = 64
# Spans with keys that find no place before all places are given anew: soon enough for a mesh that has changed, and rare
# enough that a client who makes up keys, one a span, costs 56 new classes (a millisecond each) per a thousand spans.
TAG_RECORD_MISSES_MAX = 1_000
# JSON nesting that a body may have; deeper is an attack, Zipkin needs 5.
JSON_DEPTH_MAX = 64
# Rejected elements told apart in one body; what follows is one reject more.  A body of 16 MiB can hold eight
# million elements such as `1`, and a thousand bad ones are no list of spans.
REJECTS_PER_BODY_MAX = 1_000
# Largest JSON span that is read leniently.  That builds an object for everything in it, up to 30 bytes
# per byte of text; Envoy's spans are 1 KiB, and a larger well-formed one takes the strict way.
LENIENT_SPAN_BYTES_MAX = 2**20

# Work that one body may ask for: a turn of the loop, in which nobody else is served.  A collector's batch has 8,192
# spans; the dearest spans take 30 us each, so these take a second.  Envoy's spans have 30 members and elements.
SPANS_PER_BODY_MAX = 32_768
MEMBERS_PER_BODY_MAX = 1_000_000
# Tags of one span that are looked at, where a body is long; Wavefront takes 50.
TAGS_PER_SPAN_MAX = 1_000

# What may be on its way to the spool beside ``exporter.queue_bytes_max``, per target and signal.  A burst outruns the
# disk's thread for as long as a slow write takes; this is what a worker at its full speed (some 100,000 spans/s of
# 70 bytes each when packed) gathers in two seconds, and a disk that takes longer than that is no help against bursts.
STORING_BYTES_MAX = 16 * 2**20
# A request to a target of OTLP, before compression: a server of gRPC takes messages of 4 MiB unless it is told
# otherwise, and refuses a longer one when it has been sent; a message may be longer than its lines.
OTLP_BATCH_BYTES_MAX = 2 * 2**20

# --- console -------------------------------------------------------------------------------
# Operations that the parent keeps the last minutes of; about 1.5 kB each.  Further ones count under their service.
CONSOLE_OPERATIONS_MAX = 10_000
# Services likewise; a mesh of a thousand services is a large one.
CONSOLE_SERVICES_MAX = 2_000
# Pairs of services that call each other, per worker and in the sum; about 1.2 kB each in the sum.
CONSOLE_EDGES_MAX = 4_000
# One sampled span as received; a larger one is shown without it.  Envoy's are 1 KiB.
SAMPLE_BYTES_MAX = 32_768
# All sampled spans in the parent, as received, as sent and their tags.
SAMPLES_BYTES_MAX = 16 * 2**20
# Streams (consoles, `top`, taps) that are open at once; each holds one document of each view at most.
STREAMS_MAX = 64
# Connections to the admin port: streams, and room for probes, scrapers, browsers' six each; 14 KiB each, 290 with TLS.
ADMIN_CONNECTIONS_MAX = 256
# A reader that takes nothing for so long is gone.
STREAM_STALL_S = 30.0
# Spans that wait for one tap's reader; beyond them they are counted as missed.
TAP_QUEUE_MAX = 500

# --- metrics path ----------------------------------------------------------------------------
# A longer line of an exposition is skipped.  Istio's widest are 1.4 kB; the collector's own reader ends at this.
EXPOSITION_LINE_BYTES_MAX = 65_535
# Points of one family that are held for finding duplicates; a larger family is sent in parts.  About 1 kB each.
FAMILY_POINTS_MAX = 10_000
# Characters in the table from label text to rendered tags, and in its entries: 16 MiB hold 25,000 aggregated series.
# A full table is emptied: reading labels anew costs some twenty microseconds a series.
BLOCK_MEMO_CHARS_MAX = 16 * 2**20
# Names that are told apart in the report of what came and was not sent.
REPORTED_NAMES_MAX = 1_000
# The backend's own limit on a point tag's key.
POINT_TAG_KEY_LENGTH_MAX = 64

# --- closed sets: label values must be bounded ------------------------------------------------
REJECT_REASONS = frozenset(
    {
        "syntax",  # the rest of a body after a syntax error; counts as one
        "not_a_span",  # a list element that is no object
        "trace_id",  # absent, not hex, all zeros, or too long
        "span_id",
        "invalid",  # a profile that must not repair refused it (limits of the Java proxy)
        "too_long_for_target",  # longer than this version of the target takes
        "feature_disabled",  # the target says that this account may not send it
        "refused",  # the target said no for good
    }
)
DROP_REASONS = frozenset(
    {
        "queue_full",  # the target was slower than the intake for too long
        "drain_budget",  # still queued when the time for leaving was over
        "crash",  # held by a worker that died
        "retries_exhausted",  # older than exporter.retry.age_max
        "spool_full",  # the spool was at spool.bytes_max
        "spool_expired",  # older than spool.age_max
        "spool_damaged",  # a batch on disk that cannot be read any more
        "shed",  # memory ran short: whole traces, by trace id (service.memory_max)
    }
)
REPAIR_KINDS = frozenset(
    {
        "batch_salvaged",  # a bad span was taken out of a batch
        "ids_reversed",  # Envoy's byte-reversed span and parent ids turned round (spans)
        "field_type",  # a number as text, an unknown kind, a null: read as meant
        "utf8",  # invalid bytes replaced
        "no_timestamp",  # start = arrival minus duration
        "future_start",
        "past_start",  # before 2001: Wavefront would read the milliseconds as seconds
        "duration",  # negative, or longer than since 1970
        "blank_value",  # a tag without a value, left out
        "value_cut",
        "name_cut",
        "source_cut",
        "key_changed",  # empty, digit-only, reserved, too long or doubled after cleaning
        "trailing_backslash",
        "tag_budget",  # a tag left out because 50 are taken, or metrics.tags_max of a point
        "name_capped",  # operation beyond the cap, sent as _other
        "url_masked",
        "control_character",  # in a point tag, replaced by a blank
    }
)
SAMPLE_DROP_REASONS = frozenset(
    {
        "name_not_allowed",  # matches nothing of metricAllowList
        "name_denied",  # matches metricDenyList
        "tag_not_allowed",  # has no tag that metricTagAllowList wants
        "tag_denied",  # has a tag that metricTagDenyList names
        "nan",  # no number: a quantile without observations
        "infinite",  # Wavefront cannot hold it
        "too_old",  # its exposed time is older than metrics.age_max
        "ahead",  # its exposed time is later than metrics.ahead_max from now
        "duplicate",  # the same series twice in one family; the newest is sent
        "collided",  # another series that had the same tags left after cleaning and budget
        "name_too_long",  # more than Wavefront takes
        "merged",  # became part of a distribution or of a delta counter
        "first_seen",  # a delta counter's first value: nothing to subtract it from
        "not_per_pod",  # under deltas.names, but not the series of a single pod
        "series_max",  # more series than can be remembered for differences
    }
)
BAD_LINE_REASONS = frozenset(
    {
        "name",  # does not begin with a metric's name
        "labels",  # not a list of labels, or a label twice
        "value",  # no number
        "timestamp",  # no timestamp, or more behind it
        "type",  # a TYPE line that is unknown or came too late
        "encoding",  # not UTF-8
        "too_long",  # above 65,535 bytes
        "cut_off",  # the last line of a body that ended early
    }
)
