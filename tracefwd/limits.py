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
# JSON nesting that a body may have; deeper is an attack, Zipkin needs 5.
JSON_DEPTH_MAX = 64
# Rejected elements told apart in one body; what follows is one reject more.  A body of 16 MiB can hold eight
# million elements such as `1`, and a thousand bad ones are no list of spans.
REJECTS_PER_BODY_MAX = 1_000
# Largest JSON span that is read leniently.  That builds an object for everything in it, up to 30 bytes
# per byte of text; Envoy's spans are 1 KiB, and a larger well-formed one takes the strict way.
LENIENT_SPAN_BYTES_MAX = 2**20

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
        "tag_budget",  # a tag left out because 50 are taken (tags)
        "name_capped",  # operation beyond the cap, sent as _other
        "url_masked",
    }
)
