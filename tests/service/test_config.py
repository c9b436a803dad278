"""The configuration: every mistake is told, in one sentence, with all others; secrets never are."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.exporters import Authority
from tracefwd.errors import ConfigError, StartError
from tracefwd.exporter.auth import CredentialsError, SecretFile
from tracefwd.service import units
from tracefwd.service.client_files import token_of
from tracefwd.service.config import (
    Loaded,
    check_files,
    check_runnable,
    load,
    option_rows,
    show,
)
from tracefwd.service.config_options import catalogue
from tracefwd.service.masking import mask_secret_path, mask_url, redact
from tracefwd.settings import Settings, TargetSettings

PROXY = {"--proxy-traces": "http://p:30000", "--proxy-metrics": "http://p:2878"}


@pytest.fixture
def write(tmp_path: Path):
    def write_text(text: str | bytes) -> Path:
        path = tmp_path / "tracefwd.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_text


def problems_of(
    file: Path | None = None,
    environ: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
    *,
    runnable: bool = False,
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, environ or {}, flags or {}, runnable=runnable)
    return caught.value.problems


def settings_of(file: Path) -> Settings:
    return load(file, {}, {}).settings


# --- precedence and origins ------------------------------------------------------------------


def test_nothing_given_is_all_defaults():
    loaded = load(None, {}, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.origins.keys() == catalogue().keys()


def test_flags_go_over_environment_over_file_over_defaults(write):
    path = write("receiver: {listen: '1.1.1.1:1', paths: [/f]}\nservice: {workers: 2}\n")
    environ = {"TRACEFWD_RECEIVER__LISTEN": "2.2.2.2:2", "TRACEFWD_SERVICE__WORKERS": "3"}
    loaded = load(path, environ, {"--listen": "3.3.3.3:3", "--admin": None})
    assert loaded.settings.receiver.listen == "3.3.3.3:3"
    assert loaded.settings.service.workers == 3
    assert loaded.settings.receiver.paths == ["/f"]
    assert loaded.origins["receiver.listen"] == "flag --listen"
    assert loaded.origins["service.workers"] == "environment TRACEFWD_SERVICE__WORKERS"
    assert loaded.origins["receiver.paths"] == f"file {path}"
    assert loaded.origins["admin.listen"] == "default"


def test_a_mistake_is_told_even_where_a_higher_layer_wins(write):
    path = write("receiver: {listen: nowhere}\n")
    (problem,) = problems_of(path, {}, {"--listen": "1.1.1.1:1"})
    assert problem.startswith(f"receiver.listen = 'nowhere' (file {path}, line 1): ")


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "{}", "red:\n", "red:\nsampling: ~\n", "\ufeffred: {}\n"]
)
def test_empty_files_and_empty_sections_are_the_defaults(write, text):
    assert settings_of(write(text)) == Settings()


def test_scalars_keep_their_text_until_the_option_says_what_they_are(write):
    path = write(
        "exporter: {proxy_version: 4.40, gzip: no}\nmapping: {errors: {http_4xx: none}}\n"
        "service: {workers: '2', drain_timeout: 0}\nsampling: {rate: 0}\n"
    )
    loaded = settings_of(path)
    assert loaded.exporter.proxy_version == "4.40"
    assert loaded.exporter.gzip is False
    assert loaded.service.workers == 2
    assert (loaded.service.drain_timeout, loaded.sampling.rate) == (0.0, 0.0)


def test_lists_in_the_environment_are_yaml_or_json_or_one_text():
    environ = {
        "TRACEFWD_RECEIVER__PATHS": '["/a", "/b"]',
        "TRACEFWD_MAPPING__APPLICATION": "{app}",
        "TRACEFWD_MAPPING__ERRORS__GRPC_CODES": "- 1\n- 2",
        "TRACEFWD_EXPORTER__TARGETS": "[{name: a, traces: 'http://h:1', metrics: 'http://h:2'}]",
        "TRACEFWD_MAPPING__OVERRIDES": "{services: {a.b: {application: 'x'}}}",
    }
    loaded = load(None, environ, {}).settings
    assert loaded.receiver.paths == ["/a", "/b"]
    assert loaded.mapping.application == ["{app}"]
    assert loaded.mapping.errors.grpc_codes == [1, 2]
    assert loaded.exporter.targets == [
        TargetSettings(name="a", traces="http://h:1", metrics="http://h:2")
    ]
    assert loaded.mapping.overrides == {
        "namespaces": {},
        "services": {"a.b": {"application": ["x"]}},
    }


def test_single_deviations_are_chosen_by_name(write):
    path = write("mapping: {profile: wavefront-proxy, deviations: {odd_keys: no, tag_budget: yes}}")
    assert settings_of(path).mapping.deviations == {"odd_keys": False, "tag_budget": True}
    environ = {
        "TRACEFWD_MAPPING__PROFILE": "wavefront-proxy",
        "TRACEFWD_MAPPING__EXACT": "true",
        "TRACEFWD_MAPPING__DEVIATIONS": "{odd_keys: false}",
    }
    loaded = load(None, environ, {})
    assert loaded.settings.mapping.deviations == {"odd_keys": False}
    text = show(loaded.settings, loaded.origins, format="yaml")
    assert load(write(text), {}, {}).settings == loaded.settings


def test_variables_that_kubernetes_sets_beside_a_service_are_not_ours():
    environ = {"TRACEFWD_PORT": "tcp://10.0.0.1:9411", "TRACEFWD_SERVICE_HOST": "10.0.0.1"}
    assert load(None, environ, {}).settings == Settings()


def test_flags_make_one_target():
    loaded = load(None, {}, PROXY)
    assert loaded.settings.exporter.targets == [
        TargetSettings(traces="http://p:30000", metrics="http://p:2878")
    ]
    assert loaded.origins["exporter.targets"] == "flag --proxy-traces --proxy-metrics"
    direct = load(None, {}, {"--direct": "https://x.y", "--token-file": "/t"}).settings
    assert direct.exporter.targets == [
        TargetSettings(kind="direct", url="https://x.y", token_file="/t")
    ]


def test_a_flags_target_replaces_those_of_the_file(write):
    path = write("exporter: {targets: [{name: x, traces: 'http://a:1', metrics: 'http://a:2'}]}")
    assert [t.name for t in load(path, {}, PROXY).settings.exporter.targets] == ["primary"]


def test_an_unknown_flag_is_a_bug_of_the_caller():
    with pytest.raises(KeyError):
        load(None, {}, {"--nonsense": "1"})


# --- references ------------------------------------------------------------------------------


def test_references_are_expanded_inside_values(write):
    path = write(
        "receiver:\n  listen: ${HOST}:${PORT:-9411} # ${COMMENT}\n  paths: ${PATHS}\n"
        "mapping:\n  application_name: $${literal}\n  application: ['${EMPTY:-x}']\n"
    )
    environ = {"HOST": "1.2.3.4", "PATHS": "[/a]", "EMPTY": ""}
    loaded = load(path, environ, {}).settings
    assert loaded.receiver.listen == "1.2.3.4:9411"
    assert loaded.receiver.paths == ["/a"]
    assert loaded.mapping.application_name == "${literal}"
    assert loaded.mapping.application == ["x"]


def test_a_reference_cannot_add_structure(write):
    path = write("mapping: {application_name: '${X}'}\n")
    loaded = load(path, {"X": "a\nred: {enabled: false} ${HOME}"}, {}).settings
    assert loaded.red.enabled
    assert loaded.mapping.application_name == "a\nred: {enabled: false} ${HOME}"


def test_references_that_cannot_be_expanded_are_told(write):
    path = write("receiver: {listen: '${NOPE}', paths: ['${', '${a-b}']}\n")
    problems = problems_of(path)
    assert len(problems) == 3
    assert "receiver.listen" in problems[0]
    assert "environment variable NOPE is not set; set it or write ${NOPE:-default}" in problems[0]
    assert "$${ for ${" in problems[1]


# --- mistakes --------------------------------------------------------------------------------

MISTAKES = {
    "bare duration": ("red: {interval: 60}", ["red.interval = '60'", "60s"]),
    "unknown duration unit": ("red: {interval: 5sec}", ["red.interval = '5sec'", "500ms, 5s"]),
    "bare size": ("receiver: {body_bytes_max: 16}", ["'16'", "16MiB"]),
    "unknown size unit": ("receiver: {body_bytes_max: 16mb}", ["'16mb'", "16MiB"]),
    "bare port": ("receiver: {listen: 9411}", ["receiver.listen = '9411'", "0.0.0.0:9411"]),
    "a key with dots beside its section": (
        "red: {interval: 2m}\nred.interval: 1m",
        ["red.interval (file ", "line 2", "stands twice, first at file ", "line 1"],
    ),
    "an address that is none": (
        "receiver: {listen: '300.0.0.1:9411'}",
        ["receiver.listen", "no name or IP address"],
    ),
    "names in one text": ("red: {tags: 'a,b'}", ["red.tags[0] = 'a,b'", "[a, b]"]),
    "tags to be masked in one text": (
        "admin: {masked_tags: 'cookie, authorization'}",
        ["admin.masked_tags[0]", "[a, b]"],
    ),
    "another language's group": (
        "mapping: {operation: {rules: [{match: '(x)y', replace: '$1'}]}}",
        ["rules[0].replace = '$1'", r"\1"],
    ),
    "port too high": ("admin: {listen: 'a:70000'}", ["admin.listen", "65535"]),
    "IPv6 without brackets": ("admin: {listen: '::1:9411'}", ["admin.listen", "[::1]:9411"]),
    "choice": ("mapping: {profile: istoi}", ["'istoi'", "did you mean istio?"]),
    "unknown key": ("red: {intervall: 5s}", ["red.intervall", "line 1", "did you mean interval?"]),
    "key in the wrong place": ("series_max: 5", ["series_max", "did you mean red.series_max?"]),
    "unknown section": ("zzz: {}", ["zzz", "known are admin, exporter"]),
    "bool": ("red: {enabled: maybe}", ["red.enabled = 'maybe'", "true or false"]),
    "integer": ("service: {workers: many}", ["service.workers = 'many'", "whole number"]),
    "fraction": ("service: {workers: 1.5}", ["service.workers = '1.5'", "whole number"]),
    "percentage": ("sampling: {rate: 10%}", ["sampling.rate = '10%'", "0.1"]),
    "number": ("sampling: {rate: nan}", ["sampling.rate = 'nan'", "0.5"]),
    "list for text": ("receiver: {listen: [a]}", ["a list was given", "one text"]),
    "unquoted template": ("mapping: {application: [{app}]}", ["application[0]", "quotes"]),
    "text for list": ("mapping: {errors: {grpc_codes: 3}}", ["grpc_codes", "a list is expected"]),
    "mapping for list": ("receiver: {paths: {a: b}}", ["receiver.paths", "[a, b]"]),
    "section as text": ("red: 5", ["red (", "is a section", "series_max"]),
    "no value": ("receiver: {listen: }", ["receiver.listen", "has no value"]),
    "not a mapping": ("- a\n- b", ["is no mapping", "receiver"]),
    "rate of a service": (
        "sampling: {rates: {services: {a/b: 1.5}}}",
        ["sampling.rates.services.a/b = '1.5'", "from 0 to 1"],
    ),
    "rate of half a service": (
        "sampling: {rates: {services: {reviews: 0.5}}}",
        ["sampling.rates.services.reviews", "APPLICATION/SERVICE"],
    ),
    "rates of something else": (
        "sampling: {rates: {service: {a/b: 0.5}}}",
        ["sampling.rates.service", "did you mean services?"],
    ),
    "rate as text": (
        "sampling: {rates: {applications: {a: 10%}}}",
        ["sampling.rates.applications.a = '10%'", "0.1 for 10%"],
    ),
    "percentage above all": (
        "sampling: {rate: 150%}",
        ["sampling.rate = '150%'", "write a number from 0 to 1"],
    ),
    "percentage below nothing": (
        "sampling: {rates: {applications: {a: -5%}}}",
        ["sampling.rates.applications.a = '-5%'", "write a number from 0 to 1"],
    ),
    "rates as a list": ("sampling: {rates: [0.5]}", ["sampling.rates", "a mapping is expected"]),
    "ceiling below zero": (
        "sampling: {spans_per_second_max: -5}",
        ["sampling.spans_per_second_max = '-5'", "at least 0"],
    ),
    "range of rate": ("sampling: {rate: 1.5}", ["sampling.rate = '1.5'", "from 0 to 1"]),
    "zero count": ("red: {series_max: 0}", ["red.series_max = '0'", "above zero", "10000"]),
    "negative count": ("exporter: {concurrency: -1}", ["exporter.concurrency = '-1'"]),
    "zero duration": ("red: {interval: 0}", ["red.interval = '0s'", "above zero", "1m"]),
    "workers": ("service: {workers: 1000}", ["from 1 to 256"]),
    "long RED tag": (f"red: {{tags: [{'x' * 65}]}}", ["red.tags[0]", "64 characters"]),
    "many RED tags": (
        f"red: {{tags: [{', '.join(map(chr, range(97, 108)))}]}}",
        ["red.tags = '11 tags'", "more than 10", "20 point tags"],
    ),
    "spool without a folder": (
        "spool: {durability: fsync}",
        ["spool.durability = 'fsync'", "set spool.folder (flag --spool)"],
    ),
    "spool policy": (
        "spool: {folder: x, full: oldest}",
        ["spool.full = 'oldest'", "drop_oldest"],
    ),
    "spool below a batch": (
        "spool: {folder: x, bytes_max: 1KiB}",
        ["exporter.batch_bytes_max = '4MiB'", "spool.bytes_max (1KiB)"],
    ),
    "spool ages": ("spool: {after: 2h, age_max: 1h}", ["spool.after = '2h'", "spool.age_max (1h)"]),
    "relation": (
        "exporter: {retry: {backoff_base: 1m}}",
        ["exporter.retry.backoff_base = '1m'", "backoff_max (30s)"],
    ),
    "path": ("receiver: {paths: [a]}", ["receiver.paths[0] = 'a'", "leading slash"]),
    "standard path": ("receiver: {paths: [/api/v2/spans/]}", ["already"]),
    "grpc code": ("mapping: {errors: {grpc_codes: [17]}}", ["grpc_codes[0] = '17'", "0 to 16"]),
    "response flag": ("mapping: {errors: {response_flags: [uf]}}", ["'uf'", "UF"]),
    "version": ("exporter: {proxy_version: new}", ["proxy_version = 'new'", "4.35"]),
    "old version": ("exporter: {proxy_version: 4.34}", ["'4.34'", "oldest"]),
    "braces": ("mapping: {service: ['{a']}", ["mapping.service[0] = '{a'", "balance", "{tag.key}"]),
    "field": ("mapping: {source: ['{@pdo}']}", ["@pdo", "did you mean @pod?"]),
    "blank template": ("mapping: {source: [' ']}", ["mapping.source[0]", "blank"]),
    "no template": ("mapping: {cluster: []}", ["mapping.cluster", "at least one"]),
    "pod as RED source": ("red: {source: ['{@pod}']}", ["red.source[0]", "series", "{service}"]),
    "blank RED tag": ("red: {tags: ['']}", ["red.tags[0]", "blank"]),
    "exact": ("mapping: {exact: true}", ["mapping.exact", "wavefront-proxy"]),
    "deviations of the other profile": (
        "mapping: {deviations: {odd_keys: false}}",
        ["mapping.deviations (", "wavefront-proxy"],
    ),
    "unknown deviation": (
        "mapping: {profile: wavefront-proxy, deviations: {od_keys: false}}",
        ["mapping.deviations.od_keys (", "line 1", "did you mean odd_keys?"],
    ),
    "deviation that is no switch": (
        "mapping: {profile: wavefront-proxy, deviations: {odd_keys: maybe}}",
        ["mapping.deviations.odd_keys = 'maybe'", "true or false"],
    ),
    "deviations as a list": (
        "mapping: {profile: wavefront-proxy, deviations: [odd_keys]}",
        ["mapping.deviations (", "{NAME: false}"],
    ),
    "deviation from exact": (
        "mapping: {profile: wavefront-proxy, exact: true, deviations: {odd_keys: true}}",
        ["mapping.deviations.odd_keys = 'true'", "contradicts mapping.exact"],
    ),
    "override group": ("mapping: {overrides: {service: {}}}", ["did you mean services?"]),
    "override field": (
        "mapping: {overrides: {services: {a: {aplication: x}}}}",
        ["mapping.overrides.services.a.aplication", "did you mean application?"],
    ),
    "override template": (
        "mapping: {overrides: {services: {a.b: {source: '{x'}}}}",
        ["mapping.overrides.services.a.b.source[0] = '{x'", "line 1", "balance"],
    ),
    "override shape": ("mapping: {overrides: {services: [a]}}", ["overrides.services", "mapping"]),
    "rule shape": ("mapping: {operation: {rules: [x]}}", ["rules[0]", "{match:"]),
    "rule without replace": ("mapping: {operation: {rules: [{match: x}]}}", ["needs replace"]),
    "rule key": (
        "mapping: {operation: {rules: [{match: x, replace: y, replcae: z}]}}",
        ["rules[0].replcae", "did you mean replace?"],
    ),
    "rule expression": (
        "mapping: {operation: {rules: [{match: 'a(', replace: y}]}}",
        ["rules[0].match = 'a('", "RE2"],
    ),
    "rule look-ahead": ("mapping: {operation: {rules: [{match: '(?=a)', replace: y}]}}", ["RE2"]),
    "rule group": (
        r"mapping: {operation: {rules: [{match: '(a)', replace: '\2'}]}}",
        ["rules[0].replace = '\\2'", "group"],
    ),
    "rule backslash": (
        "mapping: {operation: {rules: [{match: 'a', replace: 'x\\'}]}}",
        ["rules[0].replace", "backslash"],
    ),
    "target shape": ("exporter: {targets: [x]}", ["exporter.targets[0]", "mapping"]),
    "target list": ("exporter: {targets: x}", ["exporter.targets", "a list is expected"]),
    "duplicate key": ("red: {interval: 5s, interval: 6s}", ["red.interval", "twice", "line 1"]),
    "duplicate section": ("red: {}\nred: {}", ["red (", "line 2", "twice", "line 1"]),
    "syntax": ("red:\n  interval: [5s", ["line 2, column", "is not YAML"]),
    "tab": ("red:\n\tinterval: 5s", ["line 2, column 1", "is not YAML"]),
    "two documents": ("red: {}\n---\nred: {}", ["is not YAML", "document"]),
    "YAML tag": ("red: !python/object:os.system {}", ["YAML tags"]),
    "list as key": ("? [a]\n: b", ["a key must be a plain word"]),
    "control character": ("red: {}\n# \x07", ["line 2", "control character"]),
    "deep": ("red: " + "[" * 50 + "]" * 50, ["nested too deeply"]),
    "very deep": ("red: " + "[" * 1500 + "]" * 1500, ["nested too deeply"]),
    "endless alias": ("red: &a [*a]", ["nested too deeply or repeats itself"]),
    "endless aliases": (
        "red: &a {interval: *a, series_max: *a}",
        ["red.interval", "repeats itself"],
    ),
}


@pytest.mark.parametrize(("text", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_sentence_with_key_value_reason_and_suggestion(write, text, words):
    problems = problems_of(write(text))
    (problem,) = problems
    for word in words:
        assert word in problem
    assert "\n" not in problem
    assert problem.endswith((".", "?"))


def test_aliases_that_multiply_are_refused_once(write):
    text = "red: {tags: [&a [" + "x," * 50 + "]"
    for name, before in zip("bcdef", "abcde", strict=True):
        text += f", &{name} [" + f"*{before}," * 50 + "]"
    problems = problems_of(write(text + "]}"))
    assert len([problem for problem in problems if "repeats itself" in problem]) == 1
    assert len(problems) < 5


def target(**values: Any) -> dict[str, Any]:
    return values


TARGET_MISTAKES = {
    "proxy without metrics": (
        [target(traces="http://h:1")],
        ["targets[0].metrics", "http://HOST:2878"],
    ),
    "proxy without traces": (
        [target(metrics="http://h:1")],
        ["targets[0].traces", "--proxy-traces"],
    ),
    "proxy with url": (
        [target(traces="http://h:1", metrics="http://h:1", url="http://h")],
        ["targets[0].url", "belongs to a direct target"],
    ),
    "direct without url": (
        [target(kind="direct", token_file="/t")],
        ["targets[0].url", "--direct"],
    ),
    "direct without credential": ([target(kind="direct", url="https://h")], ["needs a credential"]),
    "direct with two": (
        [target(kind="direct", url="https://h", token_file="/t", csp_token_file="/c")],
        ["token_file and csp_token_file", "keep one"],
    ),
    "half an app": (
        [target(kind="direct", url="https://h", csp_app_id="x")],
        ["csp_app_secret_file", "both"],
    ),
    "otlp without url": ([target(kind="otlp", protocol="grpc")], ["targets[0].url", "4317"]),
    "otlp with a proxy's port": (
        [target(kind="otlp", url="http://h", metrics="http://h:2878")],
        ["targets[0].metrics", "belongs to a proxy target"],
    ),
    "otlp with a header that is none": (
        [target(kind="otlp", url="http://h", token_header="x: y")],
        ["targets[0].token_header", "no header's name"],
    ),
    "otlp with a bad name of a header": (
        [target(kind="otlp", url="http://h", headers={"x: y": "v"})],
        ["targets[0].headers", "no header's name"],
    ),
    "otlp with a header of ours": (
        [target(kind="otlp", url="http://h", header_files={"Content-Type": "/f"})],
        ["targets[0].header_files.Content-Type", "sets itself"],
    ),
    "otlp with a header twice": (
        [target(kind="otlp", url="http://h", headers={"x-a": "v"}, header_files={"X-A": "/f"})],
        ["targets[0].header_files.X-A", "given twice"],
    ),
    "otlp with two tokens": (
        [target(kind="otlp", url="http://h", headers={"authorization": "v"}, token_file="/t")],
        ["targets[0].headers.authorization", "given twice"],
    ),
    "otlp with a value that breaks the line": (
        [target(kind="otlp", url="http://h", headers={"x-a": "v\nx-b: w"})],
        ["targets[0].headers.x-a", "no header can carry"],
    ),
    "otlp with half a certificate": (
        [target(kind="otlp", url="https://h", cert_file="/c")],
        ["targets[0]", "cert_file and key_file go together"],
    ),
    "a scheme twice": (
        [target(traces="http://http://h:1", metrics="http://h:2")],
        ["targets[0].traces", "no port behind its colon"],
    ),
    "port zero": (
        [target(traces="http://h:1", metrics="http://h:0")],
        ["targets[0].metrics", "no port behind its colon"],
    ),
    "no address": (
        [target(traces="http://10.0.0.256:1", metrics="http://h:2")],
        ["targets[0].traces", "no readable host"],
    ),
    "direct with headers": (
        [target(kind="direct", url="https://h", token_file="/t", headers={"x-a": "v"})],
        ["targets[0].headers", "belongs to an otlp target"],
    ),
    "proxy with compression": (
        [target(traces="http://h:1", metrics="http://h:1", compression="none")],
        ["targets[0].compression", "belongs to an otlp target"],
    ),
    "otlp over gRPC without verification": (
        [target(kind="otlp", url="https://h", protocol="grpc", tls_verify=False)],
        ["targets[0].tls_verify", "protocol: http"],
    ),
    "otlp over gRPC through a proxy": (
        [target(kind="otlp", url="https://h", protocol="grpc", http_proxy="http://p")],
        ["targets[0].http_proxy", "no_proxy"],
    ),
    "otlp behind a proxy": (
        [
            target(traces="http://h:1", metrics="http://h:1"),
            target(name="b", kind="otlp", url="http://h", role="failover"),
        ],
        ["targets[1].kind", "make it a tee"],
    ),
    "direct with traces": (
        [target(kind="direct", url="https://h", token_file="/t", traces="http://h:1")],
        ["targets[0].traces", "belongs to a proxy target"],
    ),
    "no primary": (
        [target(role="tee", traces="http://h:1", metrics="http://h:1")],
        ["exporter.targets (", "primary"],
    ),
    "two primaries": (
        [
            target(name="a", traces="http://h:1", metrics="http://h:1"),
            target(name="b", traces="http://h:1", metrics="http://h:1"),
        ],
        ["2 primary targets"],
    ),
    "same name": (
        [
            target(name="a", traces="http://h:1", metrics="http://h:1"),
            target(name="a", role="tee", traces="http://h:1", metrics="http://h:1"),
        ],
        ["targets[1].name = 'a'", "differ"],
    ),
    "bad name": ([target(name="a b", traces="http://h:1", metrics="http://h:1")], ["'a b'"]),
    "scheme": ([target(traces="ftp://h:1", metrics="http://h:1")], ["'ftp://h:1'", "tcp://"]),
    "tcp without port": ([target(traces="tcp://h", metrics="http://h:1")], ["needs a port"]),
    "no host": ([target(traces="http://", metrics="http://h:1")], ["no readable host"]),
    "bad port": ([target(traces="http://h:x", metrics="http://h:1")], ["host or port"]),
    "blank in URL": ([target(traces="http://h :1", metrics="http://h:1")], ["blanks"]),
    "query": ([target(traces="http://h:1?a=b", metrics="http://h:1")], ["'?'"]),
    "unknown key": (
        [target(traces="http://h:1", metrics="http://h:1", toke="x")],
        ["targets[0].toke", "did you mean token_file?"],
    ),
    "content for path": (
        [target(kind="direct", url="https://h", token_file="a\nb")],
        ["targets[0].token_file", "never its content"],
    ),
}


@pytest.mark.parametrize(("targets", "words"), TARGET_MISTAKES.values(), ids=TARGET_MISTAKES.keys())
def test_a_mistaken_target_is_told_once(write, targets, words):
    (problem,) = problems_of(write(json.dumps({"exporter": {"targets": targets}})))
    for word in words:
        assert word in problem


@pytest.mark.parametrize(
    "good",
    [
        {"kind": "direct", "url": "https://h", "csp_token_file": "/c"},
        {"kind": "direct", "url": "https://h", "csp_app_id": "x", "csp_app_secret_file": "/s"},
        {"traces": "tcp://h:1", "metrics": "tcp://[::1]:2", "token_file": "/t"},
        {"traces": "https://u:p@h/path/", "metrics": "http://h:2878", "http_proxy": "http://h:1"},
    ],
)
def test_the_documented_kinds_of_targets_are_fine(write, good):
    loaded = settings_of(write(json.dumps({"exporter": {"targets": [good]}})))
    assert loaded.exporter.targets == [TargetSettings(**good)]


def test_all_mistakes_of_all_layers_come_at_once(write):
    text = """
receiver: {listen: 9411, body_timeout: 5, bodytimeout: 5s}
mapping: {profile: x, service: ['{a'], operation: {rules: [{match: '(', replace: a}]}}
exporter: {targets: [{traces: 'http://h:1'}, {kind: direct, name: b}]}
sampling: {rate: 2}
"""
    environ = {"TRACEFWD_RED__INTERVAL": "1", "TRACEFWD_RED__X": "", "TRACEFWD_RED_TAGS": "[]"}
    problems = problems_of(write(text), environ, {"--workers": "x"})
    starts = [
        "receiver.listen = '9411'",
        "receiver.body_timeout = '5'",
        "receiver.bodytimeout ",
        "mapping.profile = 'x'",
        "environment TRACEFWD_RED_TAGS: names nest with '__'",
        "environment TRACEFWD_RED__X: unknown option",
        "red.interval = '1' (environment TRACEFWD_RED__INTERVAL)",
        "service.workers = 'x' (flag --workers)",
        "sampling.rate = '2.0'",
        "mapping.service[0] = '{a'",
        "mapping.operation.rules[0].match = '('",
        "exporter.targets[0].metrics ",
        "exporter.targets[1].url ",
        "exporter.targets[1] ",
        "exporter.targets (",
    ]
    assert len(problems) == len(starts)
    for problem, start in zip(sorted(problems), sorted(starts), strict=True):
        assert problem.startswith(start)


def test_a_list_option_is_one_variable():
    (problem,) = problems_of(None, {"TRACEFWD_EXPORTER__TARGETS__0__URL": "x"})
    assert "give it whole as YAML text in TRACEFWD_EXPORTER__TARGETS" in problem


def test_flags_that_contradict_each_other_are_told():
    (problem,) = problems_of(None, {}, {**PROXY, "--direct": "https://h"}, runnable=True)
    assert problem.startswith("--direct with --proxy-traces and --proxy-metrics: ")
    (problem,) = problems_of(None, {}, {"--token-file": "/t"}, runnable=True)
    assert problem.startswith("--token-file: ")


def test_files_that_are_no_configuration_are_told(write, tmp_path):
    (problem,) = problems_of(tmp_path / "none.yaml", runnable=True)
    assert "No such file" in problem
    assert "--config" in problem
    (problem,) = problems_of(tmp_path)
    assert "cannot be read" in problem
    (problem,) = problems_of(write(b"red: {}\n# \xff"))
    assert "line 2" in problem
    assert "UTF-8" in problem
    (problem,) = problems_of(write("#" * (2**20 + 1)))
    assert "larger than 1MiB" in problem


@pytest.mark.parametrize("text", ["", "# red: {}\n", "---\n", "---\n# red: {}\n", "~\n"])
def test_a_file_of_comments_says_nothing(write, text):
    assert load(write(text), {}, PROXY).settings == load(None, {}, PROXY).settings


def test_what_a_run_needs_beyond_a_valid_configuration():
    (problem,) = check_runnable(Settings())
    for flag in ("--proxy-traces", "--proxy-metrics", "--direct", "--token-file", "kind: otlp"):
        assert flag in problem
    assert check_runnable(load(None, {}, PROXY).settings) == []
    assert len(problems_of(None, {}, {"--workers": "0"}, runnable=True)) == 2


def test_files_of_secrets_are_looked_at_before_the_start(tmp_path):
    empty = tmp_path / "empty"
    empty.write_text(" \n")
    good = tmp_path / "good"
    good.write_text("hunter2")
    otlp = target(kind="otlp", url="https://h", header_files={"x-key": str(tmp_path / "no-key")})
    (problem,) = check_files(load(None, {}, {"exporter.targets": [otlp]}).settings)
    assert problem.startswith("exporter.targets[0].header_files.x-key = ")
    paths = {"token_file": empty, "csp_token_file": tmp_path / "none", "csp_app_secret_file": good}
    texts = {name: str(path) for name, path in paths.items()}
    exporter = dataclasses.replace(Settings().exporter, targets=[TargetSettings(**texts)])
    problems = check_files(dataclasses.replace(Settings(), exporter=exporter))
    assert len(problems) == 2
    assert "is empty" in problems[0]
    assert "No such file" in problems[1]


@pytest.mark.parametrize(
    "content", [b"one-secret\ntwo-secret\n", b"\xef\xbb\xbfone-secret", b"Bearer one-secret"]
)
def test_a_token_that_could_never_be_sent_is_told_before_the_start(tmp_path, content):
    """A mark of an editor's, a second line, the scheme before it."""
    file = tmp_path / "credentials"
    file.write_bytes(content)
    flags = {"--direct": "https://h", "--token-file": str(file)}
    (problem,) = check_files(load(None, {}, flags).settings)
    assert problem.startswith(f"exporter.targets[0].token_file = {str(file)!r}: holds no token, ")
    assert "secret" not in problem


def test_what_is_said_of_a_file_without_a_token_can_be_read(tmp_path):
    """It goes to the log and to the doctor, who hide what stands behind "token:"."""
    file = tmp_path / "wavefront"
    file.write_text("two words")
    with pytest.raises(CredentialsError) as caught:
        SecretFile(str(file)).read()
    assert redact(str(caught.value)) == str(caught.value)


def test_what_a_port_could_not_read_is_told_before_the_start(tmp_path):
    tokens, no_pem = tmp_path / "tokens", tmp_path / "no.pem"
    tokens.write_text("one-secret\ntwo secret\n")
    no_pem.write_text("neither certificate nor key")
    flags = {
        "receiver.token_file": str(tokens),
        "admin.tls.cert_file": str(no_pem),
        "admin.tls.key_file": str(no_pem),
    }
    told, also = check_files(load(None, {}, flags).settings)
    assert told.startswith("receiver.token_file: a token has visible ASCII characters only; ")
    assert also.startswith("admin.tls: cert_file and key_file cannot be used ")
    assert "secret" not in told


def test_what_a_target_could_not_show_or_trust_is_told_before_the_start(tmp_path):
    """Whatever it speaks: run opens the files of plain http as well."""
    authority, junk = Authority(tmp_path / "authority"), tmp_path / "junk.pem"
    (cert, key), (_, other) = authority.issue("one"), authority.issue("other")
    junk.write_text("no certificate")
    good = {"ca_file": str(authority.ca_file), "cert_file": str(cert), "key_file": str(key)}
    bad = {"ca_file": str(junk), "cert_file": str(junk), "key_file": str(other)}
    for kind in (
        {"traces": "http://h:1", "metrics": "http://h:2"},
        {"kind": "otlp", "url": "https://h:4317", "protocol": "grpc"},
    ):
        assert not check_files(
            load(None, {}, {"exporter.targets": [target(**kind, **good)]}).settings
        )
        for name, path in bad.items():
            options = target(**kind, **good | {name: path})
            (problem,) = check_files(load(None, {}, {"exporter.targets": [options]}).settings)
            assert problem.startswith(f"exporter.targets[0]: {name.replace('key', 'cert')} ")
            assert "cannot be used (no certificate in PEM" in problem


def test_files_that_are_not_there_are_told_with_all_other_mistakes(tmp_path):
    flags = {
        "--direct": "https://h",
        "--token-file": str(tmp_path / "none"),
        "admin.token_file": str(tmp_path / "neither"),
        "rules.file": str(tmp_path / "nor.yaml"),
        "--workers": "0",
    }
    problems = problems_of(None, {}, flags, runnable=True)
    assert len(problems) == 4
    for name in (
        "service.workers",
        "exporter.targets[0].token_file",
        "admin.token_file",
        "nor.yaml",
    ):
        assert any(name in problem for problem in problems)
    assert len(problems_of(None, {}, flags)) == 1


def test_a_refused_option_is_told_once_though_its_file_is_not_there_either(tmp_path):
    proxy = target(traces="http://h:1", metrics="http://h:2", csp_token_file=str(tmp_path / "no"))
    (problem,) = problems_of(None, {}, {"exporter.targets": [proxy]}, runnable=True)
    assert "belongs to a direct target" in problem


def test_a_token_pasted_in_place_of_its_path_is_not_repeated():
    pasted = "0f5f1b0e-8c9d-4a3b-b1a2-aaaabbbbcccc"
    loaded = load(None, {}, {"--direct": "https://h", "--token-file": pasted})
    (problem,) = check_files(loaded.settings)
    assert pasted not in problem + show(loaded.settings, loaded.origins)
    assert "write it into a file" in problem


def test_the_engine_for_expressions_is_loaded_only_for_rules(run_python):
    code = "import sys; from tracefwd.service.config import load; load(None, {}, {}); print('re2' in sys.modules)"
    assert run_python(code) == "False\n"


@pytest.fixture
def run_python():
    import subprocess
    import sys

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


# --- the effective configuration -------------------------------------------------------------

EVERYTHING = """
receiver: {listen: "[::1]:0", paths: [/a, "/b#"], body_bytes_max: 5KB, header_bytes_max: 4097B, idle_timeout: 1h30m}
mapping:
  application_name: "yes"
  application: ["{a} # b", "${EMPTY:-null}", "é😀", " x: y"]
  overrides: {services: {"a.b": {application: "{x}", shard: ["1", "~"]}}}
  operation: {rules: [{match: '$${x}|^(\\d+)[''"]', replace: '\\1$${'}]}
exporter:
  proxy_version: 13.10
  targets:
    - {name: a, traces: http://h:1, metrics: tcp://h:2, tls_verify: no}
    - {name: b, kind: direct, role: tee, url: https://h, csp_app_id: "0123", csp_app_secret_file: /run/x}
  retry: {backoff_base: 1us, age_max: 1.5s}
sampling: {rate: 0.1}
"""
EVERYTHING = EVERYTHING.replace('"/b#"', "/b")


@pytest.mark.parametrize("origins_shown", [False, True])
def test_printed_yaml_loads_again_to_equal_settings(write, tmp_path, origins_shown):
    loaded = load(write(EVERYTHING), {}, {"--workers": 3})
    assert loaded.settings.mapping.operation.rules[0]["match"] == "${x}|^(\\d+)['\"]"
    text = show(loaded.settings, loaded.origins, format="yaml", origins_shown=origins_shown)
    again = tmp_path / "again.yaml"
    again.write_text(text)
    assert load(again, {}, {}).settings == loaded.settings
    assert ("  workers: 3  # flag --workers\n" in text) is origins_shown


def test_printed_json_has_the_values_as_written_and_their_origins(write):
    path = write("red: {interval: 5s}")
    loaded = load(path, {}, PROXY)
    tree = json.loads(show(loaded.settings, loaded.origins, format="json", origins_shown=False))
    assert tree["red"]["interval"] == "5s"
    assert tree["exporter"]["targets"][0]["traces"] == "http://p:30000"
    tree = json.loads(show(loaded.settings, loaded.origins, format="json", origins_shown=True))
    assert tree["red"]["interval"] == {"value": "5s", "origin": f"file {path}"}
    assert tree["exporter"]["retry"]["backoff_max"] == {"value": "30s", "origin": "default"}


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_text_survives_printing(name, tmp_path):
    before = load(None, {}, {"mapping.application_name": name})
    path = tmp_path / "printed.yaml"
    path.write_bytes(
        show(before.settings, before.origins, format="yaml", origins_shown=True).encode()
    )
    assert load(path, {}, {}).settings == before.settings


SECRET = st.text(st.sampled_from("abcXYZ019-_/?#@:=&%.~ $'\"{}\\é"), min_size=4, max_size=20).map(
    lambda text: f"s3cr3t{text}s3cr3t"
)


def spilled(secret: str, *texts: str) -> bool:
    """The marks at both ends, too: half a password is a leak."""
    return any(secret in text or "s3cr3t" in text for text in texts)


@settings(deadline=None, max_examples=40)
@given(secret=SECRET)
def test_no_secret_is_ever_shown(secret):
    urls = [
        f"http://user:{secret}@h:1",
        f"http://{secret}@h:1",
        f"{secret}@h:1",
        f"ftp://user:{secret}@h:1",
        f"http://h:1/?token={secret}@x" if "@" in secret else f"http://user:{secret}@h:1/p",
    ]
    for url in urls:
        for flags in (
            {"--proxy-traces": url, "--proxy-metrics": url},
            {"--direct": url, "--token-file": "/t"},
            {"receiver.listen": url, "red.interval": url, "receiver.body_bytes_max": url},
            {"service.workers": url, "red.enabled": url, "sampling.rate": url},
            {"exporter.targets": url, "mapping.overrides": url},
            {"exporter.targets": [{"token": secret, "password": secret, "http_proxy": url}]},
            {"exporter.targets": [{"token_file": [secret], "ca_file": {secret: secret}}]},
            *(
                {"exporter.targets": [{"kind": "otlp", "url": "http://h", "headers": headers}]}
                for headers in ({"x-key": secret}, {"x: y": secret}, {"x": [secret]}, secret)
            ),
        ):
            assert not spilled(secret, *texts_of(flags))
    assert not spilled(secret, *texts_of({}, {"TRACEFWD_EXPORTER__TOKEN": secret}))
    assert not spilled(secret, *texts_of({}, {"TRACEFWD_EXPORTER__TARGETS": secret}))


def texts_of(flags: dict[str, Any], environ: dict[str, str] | None = None) -> list[str]:
    """Everything that the loader says about a configuration."""
    try:
        loaded: Loaded = load(None, environ or {}, flags)
    except ConfigError as error:
        return error.problems
    return [
        show(loaded.settings, loaded.origins, format=form, origins_shown=True)
        for form in ("yaml", "json")
    ] + check_files(loaded.settings)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(secret=SECRET, cut=st.integers(0, 60))
def test_no_broken_file_spills_its_text(secret, cut, tmp_path):
    quoted = json.dumps(f"http://u:{secret}@h:1")
    text = f"exporter:\n  targets:\n  - {{http_proxy: {quoted}, password: *{secret}\n"
    path = tmp_path / "broken.yaml"
    path.write_text(text[: len(text) - cut])
    try:
        loaded = load(path, {}, {})
    except ConfigError as error:
        said = error.problems
    else:
        said = [show(loaded.settings, loaded.origins)]
    assert not spilled(secret, *said)


def test_values_of_variables_are_not_repeated_in_errors(write):
    path = write("mapping: {profile: '${TOKEN}'}\nred: {interval: '${TOKEN}'}\n")
    problems = problems_of(path, {"TOKEN": "hunter2hunter2"})
    assert len(problems) == 2
    assert "hunter2" not in "".join(problems)
    assert "'${TOKEN}'" in problems[0]


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://h:1/p", "http://h:1/p"),
        ("http://u:p@h:1/p", "http://***@h:1/p"),
        ("http://u:p@x@h", "http://***@h"),
        ("http://h/?a=b@c", "http://***"),
        ("http://h/?token=b", "http://h/?***"),
        ("u:p@h:1", "***@h:1"),
        ("", ""),
    ],
)
def test_urls_lose_credentials_and_queries(url, masked):
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc.def-1", "Authorization: ***"),
        ("sent Bearer abc.def-1 to h", "sent Bearer *** to h"),
        ("token=abc&x=1", "token=***&x=1"),
        ('{"access_token": "a b", "n": 1}', '{"access_token": ***, "n": 1}'),
        ("password: hunter2", "password: ***"),
        ("api-key='a b' rest", "api-key=*** rest"),
        ("to https://u:p@h/x failed", "to https://***@h/x failed"),
        ("token_file: /run/token", "token_file: /run/token"),
        ("nothing here", "nothing here"),
    ],
)
def test_free_text_loses_secrets(text, masked):
    assert redact(text) == masked


def test_ordinary_file_names_are_no_tokens():
    for path in (
        "token",
        "/var/run/secrets/wavefront-api-token-1234567890",
        "wavefront-api-token.txt",
        "Secrets/prod-2/east.example.com/wavefront-api-token",
        "/Secrets/Prod2024/East/WavefrontApiTokenOfTheProxy",
        "./0f5f1b0e-8c9d-4a3b-b1a2-aaaabbbbcccc",
        "../my tokens/token",
    ):
        assert mask_secret_path(path) == path


@pytest.mark.parametrize(
    "pasted",
    [
        "eyJhbGciOi.eyJzdWIi.c2ln",
        " 0f5f1b0e-8c9d-4a3b-b1a2-aaaabbbbcccc ",
        "Bearer hunter2",
        "Xk9#mP2$vL",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ],
)
def test_secrets_in_place_of_a_path_are_hidden_wherever_it_is_told(pasted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load(None, {}, {"--direct": "https://h", "--token-file": pasted})
    (problem,) = check_files(loaded.settings)
    assert "looks like the secret itself" in problem
    with pytest.raises(StartError) as caught:
        token_of(Path(pasted))
    for told in (problem, show(loaded.settings, loaded.origins), str(caught.value)):
        assert pasted.strip() not in told


# --- options and units -----------------------------------------------------------------------


def test_every_option_has_a_row_and_its_default_loads():
    rows = {row.key: row for row in option_rows()}
    assert rows["red.interval"].default == "1m"
    assert rows["red.interval"].kind == "duration"
    assert rows["receiver.body_bytes_max"].default == "16MiB"
    assert rows["exporter.targets[].kind"].choices == ("proxy", "direct", "otlp")
    assert rows["exporter.targets[].token_file"].kind == "path of a secret"
    assert catalogue().keys() <= rows.keys()
    for key in catalogue():
        assert (
            load(None, {}, {key: rows[key].default}).settings == Settings() or not rows[key].default
        )


@settings(deadline=None, max_examples=200)
@given(us=st.integers(0, units.DURATION_S_MAX * 1_000_000))
def test_durations_survive_a_round_trip(us):
    seconds = float(us) / 1e6
    assert units.parse_duration(units.format_duration(seconds)) == seconds


@settings(deadline=None, max_examples=200)
@given(
    count=st.one_of(
        st.integers(0, units.SIZE_BYTES_MAX), st.integers(0, 2**20).map(lambda n: n * 1000)
    )
)
def test_sizes_survive_a_round_trip(count):
    assert units.parse_size(units.format_size(count)) == count


@settings(deadline=None, max_examples=100)
@given(
    host=st.one_of(st.ip_addresses().map(str), st.sampled_from(["localhost", "a.b-c.svc.local"])),
    port=st.integers(0, 65_535),
)
def test_addresses_survive_a_round_trip(host, port):
    assert units.parse_address(units.format_address(host, port)) == (host, port)


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=50))
def test_no_text_breaks_a_parser(text):
    parsers = (
        units.parse_duration,
        units.parse_size,
        units.parse_address,
        units.parse_version,
        lambda text: units.check_url(text, {"http": "http://HOST"}),
        lambda text: units.check_url(f"http://{text}", {"http": "http://HOST"}),
    )
    refusals: list[str] = []
    for parse in parsers:
        try:
            parse(text)
        except units.UnitError as error:
            refusals.append(str(error))
    assert all(refusals)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("5s", 5),
        ("2m", 120),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("0", 0),
    ],
)
def test_durations_are_read(text, seconds):
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["5", "s", "5 s", "-5s", "5S", "5d", "0.1us", "9000h", "٣s", "", "1e3s"]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(units.UnitError, match="write"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("16MiB", 2**24),
        ("64KB", 64_000),
        ("1GiB", 2**30),
        ("4096B", 4096),
        ("1.5KiB", 1536),
        ("0", 0),
    ],
)
def test_sizes_are_read(text, count):
    assert units.parse_size(text) == count


@pytest.mark.parametrize("text", ["16", "16M", "0.5B", "2000TiB", "16 MiB", "-1B", ""])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(units.UnitError, match="write"):
        units.parse_size(text)


def test_versions_are_numbers_to_compare():
    assert units.parse_version("current") is None
    assert units.parse_version("4.35") == (4, 35)
    assert units.parse_version("13.8.1") == (13, 8, 1)
    assert units.parse_version("4.40") == (4, 40)
