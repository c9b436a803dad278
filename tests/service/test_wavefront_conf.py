"""A Wavefront proxy's own configuration carries over: every line has a fate, every mistake is told, no secret is."""

import json
import logging
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracefwd.errors import ConfigError, StartError
from tracefwd.service import cli, import_conf, wavefront_options
from tracefwd.service.config import Loaded, load
from tracefwd.service.config_options import catalogue, get
from tracefwd.service.java_properties import read_properties
from tracefwd.service.wavefront_conf import FATES
from tracefwd.settings import Settings, TargetSettings

# What an operator has, with a little of everything; line numbers count.
EXAMPLE = """\
# Wavefront proxy configuration file
server=https://example.wavefront.com/api/
hostname=my.host
pushListenerPorts=2878
traceZipkinListenerPorts=9411, 9412
traceListenerPorts: 30000
traceZipkinApplicationName = mesh
traceSamplingRate 0.25
traceSamplingDuration=250
traceDerivedCustomTagKeys=tenant, env , location
preprocessorConfigFile=/etc/wavefront/rules.yaml
pushFlushInterval=500
pushFlushMaxSpans=2000
pushRateLimitSpans=1000
buffer=/var/spool/wavefront-proxy/buffer
retryBackoffBaseSeconds=2.5
proxyHost=squid
proxyPort=3128
gzipCompression=FALSE
listenerIdleConnectionTimeout=60
traceListenerHttpBufferSize=1048576
httpConnectTimeout=2000
httpRequestTimeout=12345
flushThreads=8
traceJaegerListenerPorts=14267
traceSamplngRate=1
"""
TOKEN = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("TRACEFWD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def conf(tmp_path, monkeypatch):
    # The example's rules file is an operator's; whether it can be read is other tests' affair.
    monkeypatch.setattr("tracefwd.compose.load_rules", lambda settings: None)

    def write(text: str | bytes) -> Path:
        path = tmp_path / "wavefront.conf"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("latin-1"))
        return path

    return write


def loaded_of(path: Path, **flags: str) -> Loaded:
    return load(None, {}, flags, wavefront_conf=path)


def problems_of(path: Path, *, runnable: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(None, {}, {}, wavefront_conf=path, runnable=runnable)
    return caught.value.problems


def account_of(loaded: Loaded) -> dict[str, tuple[str, str]]:
    assert loaded.wavefront is not None
    account = loaded.wavefront.account(loaded.origins)
    return {remark.name: (remark.fate, remark.reason) for remark in account}


# --- Java's properties -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1", [("a", "1", 1)]),
        ("a: 1\r\nb 2\rc\t=\f3", [("a", "1", 1), ("b", "2", 2), ("c", "3", 3)]),
        ("\n  # x\n\t! y = 1\n  a = 1", [("a", "1", 4)]),
        ("a=b=c:d", [("a", "b=c:d", 1)]),
        ("a", [("a", "", 1)]),
        ("=x", [("", "x", 1)]),
        ("a=1,\\\n   2,\\\n\t3\nb=4", [("a", "1,2,3", 1), ("b", "4", 4)]),
        ("a=x\\\\\nb=1", [("a", "x\\", 1), ("b", "1", 2)]),
        ("a=1\\\n# 2", [("a", "1# 2", 1)]),
        ("# x\\\na=1", [("a", "1", 2)]),
        ("a=1\\", [("a", "1", 1)]),
        ("\\\n\na=1", [("a", "1", 3)]),
        ("a\\ b\\=c = d", [("a b=c", "d", 1)]),
        ("a=\\u0041\\t\\q\\\\", [("a", "A\tq\\", 1)]),
        ("a=\xe9", [("a", "\xe9", 1)]),
        ("a=x # y", [("a", "x # y", 1)]),
    ],
)
def test_properties_are_read_as_java_reads_them(text, expected):
    entries, unreadable = read_properties(text.encode("latin-1"))
    assert [(entry.key, entry.value, entry.line) for entry in entries] == expected
    assert unreadable == []


def test_an_unreadable_escape_is_told_with_its_line():
    entries, unreadable = read_properties(b"a=1\nb=\\u12\nc=3")
    assert [entry.key for entry in entries] == ["a", "c"]
    assert unreadable == [2]


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data):
    entries, _ = read_properties(data)
    assert len(entries) <= len(data)
    assert [entry.line for entry in entries] == sorted(entry.line for entry in entries)


# --- what becomes of the lines ---------------------------------------------------------------


def test_the_lines_become_settings(conf):
    ours = loaded_of(conf(EXAMPLE)).settings
    assert ours.mapping.profile == "wavefront-proxy"
    assert ours.receiver.listen == "0.0.0.0:9411"
    assert ours.receiver.trace_listen == "0.0.0.0:30000"
    assert ours.receiver.idle_timeout == 60
    assert ours.receiver.body_bytes_max == 2**20
    assert ours.mapping.application_name == "mesh"
    assert ours.sampling.rate == 0.25
    assert ours.sampling.duration == 0.25
    assert ours.red.tags == ["tenant", "env", "location"]
    assert ours.rules.file == "/etc/wavefront/rules.yaml"
    assert ours.exporter.batch_age_max == 0.5
    assert ours.exporter.batch_items_max == 2000
    assert ours.exporter.retry.backoff_base == 2.5
    assert ours.exporter.connect_timeout == 2
    assert ours.exporter.request_timeout == 12.345
    assert ours.exporter.concurrency == 8
    assert ours.exporter.gzip is False
    assert ours.exporter.targets == [
        TargetSettings(
            kind="direct", url="https://example.wavefront.com", http_proxy="http://squid:3128"
        )
    ]


def test_every_line_has_one_fate(conf):
    loaded = loaded_of(conf(EXAMPLE))
    assert loaded.wavefront is not None
    account = loaded.wavefront.account(loaded.origins)
    assert [remark.line for remark in account] == list(range(2, 27))
    fates = account_of(loaded)
    assert fates["traceSamplingRate"] == ("honoured", "sampling.rate = 0.25")
    assert fates["traceZipkinListenerPorts"][1] == (
        "receiver.listen = 0.0.0.0:9411; one port only: let the senders of 9412 use 9411"
    )
    assert fates["buffer"][0] == "another name here"
    assert fates["traceJaegerListenerPorts"][0] == "no meaning here"
    fate, reason = fates["traceSamplngRate"]
    assert (fate, reason.endswith("did you mean traceSamplingRate?")) == ("unknown", True)
    assert {remark.fate for remark in account} == set(FATES)


def test_every_option_of_the_proxy_is_in_one_table_and_its_key_exists():
    taken = set(wavefront_options.TAKEN)
    target = set(wavefront_options.TARGET_NAMES) | set(wavefront_options.ALIASES)
    elsewhere = set(wavefront_options.ELSEWHERE)
    names = [name for _, group in wavefront_options._GROUPS for name in group.split()]
    assert len(names) == len(set(names))
    tables = (taken, target, elsewhere, set(names))
    assert sum(map(len, tables)) == len(set().union(*tables))
    for key, _ in wavefront_options.ELSEWHERE.values():
        assert key in catalogue()
    for reason in wavefront_options.MEANINGLESS.values():
        for key in re.findall(r"\b(?:rules|red|receiver|sampling|exporter)\.[a-z_]+", reason):
            assert key in catalogue()


@pytest.mark.parametrize(
    "name",
    [
        "traceJaegerGrpcListenerPorts",
        "otlpHttpListenerPorts",
        "customTracingListenerPorts",
        "histogramMinuteListenerPorts",
        "histogramDayAvgHistogramDigestBytes",
        "multicastingTenants",
        "multicastingToken_1",
        "bufferShardSize",
        "authStaticToken",
        "proxyname",
        "retryThreads",
        "blacklistRegex",
        "writeHttpJsonPorts",
        "traceListenerMaxReceivedLength",
    ],
)
def test_options_without_a_meaning_say_why(conf, name):
    fate, reason = account_of(loaded_of(conf(f"{name}=whatever\n")))[name]
    assert fate == "no meaning here"
    assert len(reason.split()) >= 5


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("traceSamplingRate=.5", "sampling.rate", 0.5),
        ('traceSamplingRate="1e-1d" ', "sampling.rate", 0.1),
        ("traceSamplingDuration=0", "sampling.duration", 0),
        ("traceSamplingDuration=1", "sampling.duration", 0.001),
        ('traceZipkinApplicationName=  "my app"\t', "mapping.application_name", "my app"),
        ("traceZipkinApplicationName=", "mapping.application_name", "Zipkin"),
        ("traceZipkinListenerPorts=,", "receiver.listen", "0.0.0.0:9411"),
        ("traceZipkinListenerPorts=,9500,,9411", "receiver.listen", "0.0.0.0:9500"),
        ("traceDerivedCustomTagKeys=a,,a, b", "red.tags", ["a", "b"]),
        ("pushFlushMaxSpans=50000", "exporter.batch_items_max", 5000),
        ("pushFlushMaxSpans=1", "exporter.batch_items_max", 100),
        ("retryBackoffBaseSeconds=0.1", "exporter.retry.backoff_base", 1),
        ("retryBackoffBaseSeconds=2.00000049", "exporter.retry.backoff_base", 2),
        ("retryBackoffBaseSeconds=900", "exporter.retry.backoff_max", 60),
        ("listenerIdleConnectionTimeout=0", "receiver.idle_timeout", 8760 * 3600),
        ("listenerIdleConnectionTimeout=2147483647", "receiver.idle_timeout", 8760 * 3600),
        ("gzipCompression=true", "exporter.gzip", True),
    ],
)
def test_values_mean_what_they_mean_to_the_proxy(conf, line, key, value):
    assert get(loaded_of(conf(line)).settings, key) == value


def test_the_last_of_equal_lines_counts(conf):
    loaded = loaded_of(
        conf("flushThreads=2\nserver=x\nflushThreads=3\nhost=https://h/api\ntoken=t")
    )
    assert loaded.settings.exporter.concurrency == 3
    assert loaded.settings.exporter.targets[0].url == "https://h"
    assert loaded.wavefront is not None
    remarks = {remark.line: remark.reason for remark in loaded.wavefront.remarks}
    assert remarks[1] == "line 3 says it again, and the last one counts"
    assert remarks[2] == "line 4 says it again, and the last one counts"


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("https://x.wavefront.com/api/", "https://x.wavefront.com"),
        ("https://x.wavefront.com/api", "https://x.wavefront.com"),
        ("https://x.wavefront.com", "https://x.wavefront.com"),
        ("http://127.0.0.1:8080/api//", "http://127.0.0.1:8080"),
        ("https://h/wavefront/api/", "https://h/wavefront"),
        ("https\\://h/api/", "https://h"),
    ],
)
def test_the_server_loses_the_path_of_the_proxys_own_api(conf, server, url):
    assert loaded_of(conf(f"server={server}")).settings.exporter.targets[0].url == url


def test_without_a_server_the_lines_around_it_have_no_meaning(conf):
    loaded = loaded_of(conf("server=\ntoken=t\nproxyHost=h\ncspAppId=x"))
    assert loaded.settings.exporter.targets == []
    assert {fate for fate, _ in account_of(loaded).values()} == {"no meaning here"}


# --- precedence and origins ------------------------------------------------------------------


def test_it_lies_above_the_defaults_and_below_everything_else(conf, tmp_path):
    path = conf(
        "flushThreads=2\ntraceSamplingRate=0.1\nhttpConnectTimeout=7000\nhttpRequestTimeout=9000\n"
        "traceZipkinApplicationName=mesh"
    )
    ours = tmp_path / "tracefwd.yaml"
    ours.write_text("exporter: {concurrency: 3, connect_timeout: 3s}\nsampling: {rate: 0.3}\n")
    environ = {"TRACEFWD_EXPORTER__CONNECT_TIMEOUT": "4s", "TRACEFWD_SAMPLING__RATE": "0.4"}
    loaded = load(ours, environ, {"sampling.rate": "0.5"}, wavefront_conf=path)
    exporter = loaded.settings.exporter
    assert (exporter.concurrency, exporter.connect_timeout) == (3, 4)
    assert exporter.request_timeout == 9
    assert loaded.settings.sampling.rate == 0.5
    assert loaded.origins["exporter.request_timeout"] == f"wavefront.conf {path}:4"
    assert loaded.origins["mapping.application_name"] == f"wavefront.conf {path}:5"
    assert loaded.origins["mapping.profile"] == f"wavefront.conf {path}"
    assert loaded.origins["sampling.rate"] == "flag --sampling.rate"
    assert loaded.origins["red.interval"] == "default"
    fates = account_of(loaded)
    assert fates["flushThreads"] == ("honoured", f"exporter.concurrency = 2; but file {ours} wins")
    assert fates["httpRequestTimeout"] == ("honoured", "exporter.request_timeout = 9s")


def test_the_profile_can_be_overridden(conf):
    loaded = load(None, {}, {"--profile": "istio"}, wavefront_conf=conf("flushThreads=2"))
    assert loaded.settings.mapping.profile == "istio"


def test_a_target_from_elsewhere_replaces_the_server_and_its_token(conf):
    path = conf(f"server=https://h/api/\ntoken={TOKEN}\n")
    flags = {"--proxy-traces": "http://p:30000", "--proxy-metrics": "http://p:2878"}
    loaded = load(None, {}, flags, wavefront_conf=path, runnable=True)
    assert [target.kind for target in loaded.settings.exporter.targets] == ["proxy"]
    assert "flag --proxy-traces" in account_of(loaded)["server"][1]


# --- credentials -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "name", "hint"),
    [
        (f"token={TOKEN}", "token", "--token-file FILE"),
        (f"cspAPIToken={TOKEN}", "cspAPIToken", "csp_token_file"),
        (f"cspAppId=me\ncspAppSecret={TOKEN}", "cspAppSecret", "csp_app_secret_file"),
    ],
)
def test_a_secret_is_shown_to_nobody_and_needs_a_file_to_run(conf, lines, name, hint):
    path = conf(f"server=https://h/api/\n{lines}\n")
    line = len(lines.splitlines()) + 1
    (problem,) = problems_of(path, runnable=True)
    assert problem.startswith(f"wavefront.conf {path}:{line} {name}: ")
    assert hint in problem
    assert "import-conf" in problem
    loaded = loaded_of(path)
    assert loaded.settings.exporter.targets[0].url == "https://h"
    assert account_of(loaded)[name][0] == "another name here"
    assert TOKEN not in repr(loaded)


def test_the_token_flag_completes_the_files_target(conf):
    path = conf(f"server=https://h/api/\ntoken={TOKEN}\n")
    loaded = load(None, {}, {"--token-file": "/t"}, wavefront_conf=path, runnable=True)
    (target,) = loaded.settings.exporter.targets
    assert (target.url, target.token_file) == ("https://h", "/t")
    assert loaded.origins["exporter.targets"] == f"wavefront.conf {path}:1 and flag --token-file"


def test_the_token_flag_goes_over_the_files_csp_credential(conf):
    path = conf("server=https://h/api/\ncspAppId=me\ncspAppSecret=x\ncspBaseUrl=https://c/\n")
    loaded = load(None, {}, {"--token-file": "/t"}, wavefront_conf=path, runnable=True)
    (target,) = loaded.settings.exporter.targets
    assert (target.token_file, target.csp_app_id, target.csp_base) == ("/t", "", "https://c")


def test_the_token_flag_belongs_to_the_target_that_wins(conf, tmp_path):
    ours = tmp_path / "tracefwd.yaml"
    ours.write_text("exporter: {targets: [{kind: direct, url: 'https://o', token_file: /o}]}")
    path = conf(f"server=https://h/api/\ntoken={TOKEN}\n")
    with pytest.raises(ConfigError) as caught:
        load(ours, {}, {"--token-file": "/t"}, wavefront_conf=path)
    (problem,) = caught.value.problems
    assert problem.startswith("--token-file: ")
    assert f"file {ours}" in problem


def test_a_server_without_a_token_cannot_run(conf):
    path = conf("server=https://h/api/\n")
    (problem,) = problems_of(path, runnable=True)
    assert f"(wavefront.conf {path}:1)" in problem
    assert "--token-file" in problem


def test_the_http_proxys_password_is_used_and_hidden(conf, capsys):
    path = conf(
        "server=https://h/api/\nproxyHost=squid\nproxyPort=3128\nproxyUser=bob\nproxyPassword=a:b@c"
    )
    loaded = loaded_of(path)
    (target,) = loaded.settings.exporter.targets
    assert target.http_proxy == "http://bob:a%3Ab%40c@squid:3128"
    assert account_of(loaded)["proxyPassword"] == ("honoured", "in exporter.targets[0].http_proxy")
    assert cli.main(["print-config", "--wavefront-conf", str(path)]) == 0
    captured = capsys.readouterr()
    assert "http://***@squid:3128" in captured.out
    assert "bob" not in captured.out + captured.err


# --- mistakes --------------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once(conf):
    path = conf(
        "traceSamplingRate=1.5\n"
        "traceZipkinListenerPorts=9411,http\n"
        "flushThreads=many\n"
        "httpConnectTimeout=\n"
        "gzipCompression=yes\n"
        "server=SERVER_URL_HERE\n"
        "token=x\\u12\n"
        "pushFlushInterval=0\n"
        "traceListenerPorts=70000\n"
        "retryBackoffBaseSeconds=NaN\n"
        "listenerIdleConnectionTimeout=99999999999\n"
        "proxyHost=squid\n"
        "proxyPort=0\n"
        "cspAppId=me\n"
    )
    problems = problems_of(path)
    lines = {int(re.match(rf"wavefront\.conf {path}:(\d+)", problem)[1]) for problem in problems}
    assert lines == set(range(1, 15)) - {12}
    assert len(problems) == 13
    by_line = {int(re.match(r".*?:(\d+)", problem)[1]): problem for problem in problems}
    assert by_line[1] == (
        f"wavefront.conf {path}:1 traceSamplingRate = '1.5': "
        "is out of range; write a value from 0.0 to 1.0."
    )
    assert "ports from 1 to 65535" in by_line[2]
    assert "has no value" in by_line[4]
    assert "https://INSTANCE.wavefront.com/api/" in by_line[6]
    assert "cspAppSecret" in by_line[14]
    for problem in problems:
        assert re.search(r"; (write|give|keep)|write both", problem), problem


def test_our_own_checks_name_the_line(conf, tmp_path):
    ours = tmp_path / "tracefwd.yaml"
    ours.write_text("exporter: {retry: {backoff_max: 1s}}")
    path = conf("\nretryBackoffBaseSeconds=2")
    with pytest.raises(ConfigError) as caught:
        load(ours, {}, {}, wavefront_conf=path)
    (problem,) = caught.value.problems
    assert f"(wavefront.conf {path}:2)" in problem


def test_two_listeners_cannot_share_a_port(conf):
    path = conf("traceZipkinListenerPorts=9411\ntraceListenerPorts=9411\n")
    (problem,) = problems_of(path)
    assert problem.startswith(f"receiver.trace_listen = '0.0.0.0:9411' (wavefront.conf {path}:2)")


def test_one_credential_as_in_the_proxy(conf):
    path = conf(f"server=https://h/api/\ntoken={TOKEN}\ncspAPIToken={TOKEN}\n")
    (problem,) = problems_of(path)
    assert "token and cspAPIToken are given" in problem


@pytest.mark.parametrize("data", [None, b"x" * (2**20 + 1), b"receiver:\n  listen: x:1\n"])
def test_what_is_no_wavefront_conf_is_said(tmp_path, data):
    path = tmp_path / "w.conf"
    if data is not None:
        path.write_bytes(data)
    (problem,) = problems_of(path)
    assert problem.startswith(f"wavefront.conf {path}: ")
    (problem,) = problems_of(path, runnable=True) if data is None else [""]
    assert "nowhere to deliver" not in problem


def test_a_file_of_comments_is_fine(conf):
    loaded = loaded_of(conf("# nothing\n"))
    assert account_of(loaded) == {}
    assert loaded.settings.mapping.profile == "wavefront-proxy"


# --- secrets ---------------------------------------------------------------------------------

SECRET = st.text(st.sampled_from("abcXYZ0189-_/?#@:=&%.~$'\"{}! "), min_size=4, max_size=20).map(
    lambda text: f"s3cr3t{text}s3cr3t"
)
SECRET_LINES = (
    "token={}",
    "token {}",
    "token : {}",
    "cspAPIToken={}",
    "cspAppSecret={}\ncspAppId=me",
    "proxyPassword={}\nproxyUser=bob\nproxyHost=squid\nproxyPort=3128",
    "proxyPassword={}",
    "authStaticToken={}",
    "logServerIngestionToken={}",
    "authTokenIntrospectionAuthorizationHeader=Authorization: Bearer {}",
    "multicastingToken_1={}",
    "multicastingCSPAppSecret_2={}",
    "myOwnToken={}",
    "tokn={}",
    "traceSamplingRate=https://user:{}@host",
    "server=https://user:{}@host/api/\n",
    "token={}\ntoken=\n",
    "toke\\\n  n={}",
    "pushListenerPorts={}",
)


def texts_of(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Everything that any command says about the file."""
    output = path.with_suffix(".yaml")
    name = ["--wavefront-conf", str(path)]
    for argv in (
        ["import-conf", str(path)],
        ["import-conf", str(path), "--output", str(output)],
        ["print-config", *name, "--origins"],
        ["print-config", *name, "--format", "json"],
        ["validate", *name],
        ["validate", *name, "--json"],
        ["run", *name],
    ):
        assert cli.main(argv) in (0, 2)
    captured = capsys.readouterr()
    written = output.read_text() if output.exists() else ""
    return captured.out + captured.err + written


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(secret=SECRET, line=st.sampled_from(SECRET_LINES), server=st.booleans())
def test_no_secret_is_ever_printed(secret, line, server, conf, capsys):
    base = "traceSamplingRate=0.5\nserver=https://h/api/\n" if server else "flushThreads=2\n"
    # Without a target `run` does not start, so a complete one is never given here.
    text = base + line.format(secret) + "\n"
    assert "s3cr3t" not in texts_of(conf(text), capsys)


@pytest.mark.parametrize(
    "line", [TOKEN, f"{TOKEN}=", "eyJhbGciOi.abc-def.ghi_jkl", "0a1b2c3d4e5f60718293a4b5c6d7e8f9"]
)
def test_a_token_pasted_as_a_line_is_hidden(conf, line, capsys):
    text = texts_of(conf(f"server=https://h/api/\n{line}\n"), capsys)
    assert line.rstrip("=") not in text
    assert "line 2 ***: " in text


def test_a_line_cannot_write_yaml_or_move_the_cursor(conf, capsys):
    path = conf(
        "a\\nreceiver\\u001b[2J=1\ntraceZipkinApplicationName=x\\n# y\\u001b[2J ${HOME}\n"
        "traceDerivedCustomTagKeys=a: b, '#c\n"
    )
    loaded = loaded_of(path)
    assert loaded.settings.mapping.application_name == "x\n# y\x1b[2J ${HOME}"
    assert "\x1b" not in texts_of(path, capsys)
    again = load(path.with_suffix(".yaml"), {"HOME": "/root"}, {})
    assert again.settings == loaded.settings


# --- import-conf -----------------------------------------------------------------------------


def imported(path: Path) -> Path:
    output = path.with_suffix(".yaml")
    assert cli.main(["import-conf", str(path), "--output", str(output)]) == 0
    return output


def test_the_imported_file_gives_the_same_settings(conf, capsys):
    path = conf(EXAMPLE + f"token={TOKEN}\n")
    file = imported(path)
    expected = load(None, {}, {"--token-file": "/etc/tracefwd/token"}, wavefront_conf=path)
    assert load(file, {}, {}, runnable=True).settings == expected.settings
    assert "put the value of token into /etc/tracefwd/token" in capsys.readouterr().err


def test_every_line_stands_in_the_imported_file(conf, capsys):
    path = conf(EXAMPLE + f"token={TOKEN}\n")
    assert cli.main(["import-conf", str(path)]) == 0
    out = capsys.readouterr().out
    for number, line in enumerate(EXAMPLE.splitlines()[1:], 2):
        name = re.split(r"[=: ]", line)[0]
        assert re.search(rf"#.*line {number} {name}\b", out), line
    assert "# line 8 traceSamplingRate\n" in out
    assert "token_file: /etc/tracefwd/token  # line 27 token: put the secret into this file" in out
    tree = yaml.safe_load(out)
    assert tree["exporter"]["targets"][0]["url"] == "https://example.wavefront.com"
    assert tree["mapping"] == {"profile": "wavefront-proxy", "application_name": "mesh"}


def test_the_imported_http_proxy_takes_its_password_from_variables(conf, capsys):
    path = conf(
        f"server=https://h/api/\ntoken={TOKEN}\nproxyHost=squid\nproxyPort=3128\n"
        "proxyUser=bob\nproxyPassword=hunter2"
    )
    file = imported(path)
    assert "hunter2" not in file.read_text()
    assert "HTTP_PROXY_PASSWORD" in capsys.readouterr().err
    environ = {"HTTP_PROXY_USER": "bob", "HTTP_PROXY_PASSWORD": "hunter2"}
    expected = load(None, {}, {"--token-file": "/etc/tracefwd/token"}, wavefront_conf=path)
    assert load(file, environ, {}).settings == expected.settings


NUMBER = st.integers(1, 100_000).map(str)
VALUES = {
    "traceZipkinListenerPorts": st.integers(1, 9411).map(str),
    # 9412 is the admin port's.
    "traceListenerPorts": st.lists(st.integers(9413, 65535), max_size=3).map(
        lambda ports: ",".join(map(str, ports))
    ),
    "traceZipkinApplicationName": st.text(
        st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20
    ),
    "preprocessorConfigFile": st.just("rules: #1.yaml"),
    "traceDerivedCustomTagKeys": st.lists(
        st.sampled_from(["a", " b ", "on", "1", "null", ""]), max_size=4
    ).map(",".join),
    "traceSamplingRate": st.floats(0, 1).map(lambda rate: f"{rate:.6f}"),
    "retryBackoffBaseSeconds": st.floats(0, 100).map(repr),
    "gzipCompression": st.sampled_from(["true", "FALSE"]),
    **dict.fromkeys(
        (
            "traceListenerHttpBufferSize",
            "listenerIdleConnectionTimeout",
            "traceSamplingDuration",
            "pushFlushInterval",
            "pushFlushMaxSpans",
            "flushThreads",
            "httpConnectTimeout",
            "httpRequestTimeout",
        ),
        NUMBER,
    ),
}


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=st.fixed_dictionaries({}, optional=VALUES))
def test_what_is_imported_equals_what_is_read(lines, conf):
    escaped = {name: value.replace("\\", "\\\\") for name, value in lines.items()}
    path = conf("".join(f"{name}={value}\n" for name, value in escaped.items()))
    expected = loaded_of(path)
    assert expected.wavefront is not None
    file = path.with_suffix(".yaml")
    file.write_text(import_conf.as_yaml(expected.wavefront, expected.origins), encoding="utf-8")
    assert load(file, {}, {}).settings == expected.settings


def test_every_rule_is_tried_by_the_property():
    assert set(VALUES) == set(wavefront_options.TAKEN)


def test_mistakes_write_nothing(conf, capsys):
    path = conf("traceSamplingRate=2\n")
    output = path.with_suffix(".yaml")
    assert cli.main(["import-conf", str(path), "--output", str(output)]) == 2
    assert not output.exists()
    assert f"wavefront.conf {path}:1 traceSamplingRate = '2'" in capsys.readouterr().err


def test_the_output_is_never_the_input_and_must_be_writable(conf, tmp_path, capsys):
    path = conf(EXAMPLE)
    assert cli.main(["import-conf", str(path), "--output", str(path)]) == 1
    assert path.read_text() == EXAMPLE
    assert cli.main(["import-conf", str(path), "--output", str(tmp_path)]) == 1
    assert "--output" in capsys.readouterr().err
    with pytest.raises(StartError):
        import_conf.run(path, str(tmp_path / "no" / "such" / "place"))


# --- the commands ----------------------------------------------------------------------------


def test_print_config_shows_the_result_and_every_line(conf, capsys):
    path = conf(EXAMPLE + f"token={TOKEN}\n")
    assert cli.main(["print-config", "--wavefront-conf", str(path), "--origins"]) == 0
    captured = capsys.readouterr()
    assert f"rate: 0.25  # wavefront.conf {path}:8\n" in captured.out
    assert captured.err.count("wavefront.conf, line ") == 26
    assert cli.main(["print-config", "--wavefront-conf", str(path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["mapping"]["profile"] == "wavefront-proxy"


def test_validate_says_what_becomes_of_every_line(conf, tmp_path, capsys):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    path = conf(EXAMPLE + f"token={TOKEN}\n")
    argv = ["validate", "--wavefront-conf", str(path), "--token-file", str(token)]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert f"configuration: {path}\n" in out
    assert "wavefront.conf, line 8 traceSamplingRate: honoured: sampling.rate = 0.25\n" in out
    assert cli.main([*argv, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["wavefront_conf"]) == 26


def test_validate_puts_the_files_mistakes_together(conf, capsys):
    path = conf(f"server=https://h/api/\ntoken={TOKEN}\ntraceSamplingRate=x\n")
    assert cli.main(["validate", "--wavefront-conf", str(path)]) == 2
    out = capsys.readouterr().out
    assert "✗ wavefront.conf\n" in out
    assert "✓ exporter\n" in out
    assert out.endswith("2 problems\n")


def test_run_logs_one_record_for_each_fate(conf, tmp_path, monkeypatch, caplog):
    import tracefwd.service.logs
    from tracefwd.service import supervisor

    token = tmp_path / "token"
    token.write_text(TOKEN)
    seen: list[Settings] = []
    monkeypatch.setattr(tracefwd.service.logs, "configure", lambda _: None)
    monkeypatch.setattr(supervisor, "run", lambda loaded, _: seen.append(loaded.settings) or 0)
    path = conf(EXAMPLE + f"token={TOKEN}\n")
    with caplog.at_level(logging.INFO, "tracefwd"):
        argv = ["run", "--wavefront-conf", str(path), "--token-file", str(token)]
        assert cli.main(argv) == 0
    assert seen[0].exporter.targets[0].token_file == str(token)
    records = [record for record in caplog.records if "wavefront.conf" in record.getMessage()]
    assert [record.levelname for record in records] == ["INFO", "INFO", "INFO", "WARNING"]
    assert "did you mean traceSamplingRate?" in records[3].getMessage()


def test_what_is_about_points_of_others_is_not_told_as_a_limit(tmp_path, capsys):
    conf = tmp_path / "wavefront.conf"
    conf.write_text("prefix=acme\npushRateLimit=100\n")
    assert cli.main(["import-conf", str(conf)]) == 0
    told = capsys.readouterr().out
    assert "line 1 prefix: is about points from others alone, and tracefwd takes none" in told
