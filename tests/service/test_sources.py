"""``prometheus_sources``: the integration's snippet as it stands, every mistake told, no secret shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from tracefwd.errors import ConfigError
from tracefwd.service import cli
from tracefwd.service.config import load, show
from tracefwd.service.masking import mask_query_url
from tracefwd.service.source_checks import check_source_files, source_name
from tracefwd.settings import PrometheusSourceSettings, Settings

# As it stands in the integration's instructions, indentation and comments included.
SNIPPET = """\
      ##########################################################################
      # Static source to collect Istio metrics via federated Prometheus server
      ##########################################################################
      prometheus_sources:
      - url: 'http://prometheus.istio-system.svc.cluster.local:9090/federate?match[]={job=~"federate|kubernetes-pods"}'
        httpConfig:
          bearer_token_file: '/var/run/secrets/kubernetes.io/serviceaccount/token'
          tls_config:
            ca_file: '/var/run/secrets/kubernetes.io/serviceaccount/ca.crt'
            insecure_skip_verify: true

        filters:
          metricTagDenyList:
            destination_principal:
            - '*'

          metricAllowList:
          - 'istio.requests.*'
          - 'istio.request.*'   # mandatory for OOTB dashboards
          - 'istio.response.*'
          - 'istio.tcp.*'       # mandatory for OOTB dashboards
          - 'go.goroutines.value'
          - 'go.memstats.alloc.bytes.value'
          - 'go.memstats.heap.alloc.bytes.value'
          - 'go.memstats.heap.inuse.bytes.value'
          - 'go.memstats.heap.sys.bytes.value'
          - 'go.memstats.stack.inuse.bytes.value'
          - 'istio.build.value' # mandatory for OOTB dashboards
          - 'pilot.conflict.*.listener.*'
          - 'pilot.proxy.convergence.time.bucket.value'
          - 'pilot.services.value'
          - 'pilot.total.xds.internal.errors.value'
          - 'pilot.total.xds.rejects.value'
          - 'pilot.virt.services.value'
          - 'pilot.xds.*.reject.value'
          - 'pilot.xds.push.context.errors.value'
          - 'pilot.xds.pushes.value'
          - 'pilot.xds.write.timeout.value'
          - 'pilot.xds.value'
          - 'process.cpu.seconds.total.value'
          - 'process.resident.memory.bytes.value'
          - 'process.virtual.memory.bytes.value'
          - 'citadel.server.*'
          - 'galley.validation.*'
          - 'sidecar.*'
"""
PROXY = {"--proxy-traces": "http://p:30000", "--proxy-metrics": "http://p:2878"}


def configured(tmp_path: Path, text: str | dict[str, Any]) -> Path:
    file = tmp_path / "tracefwd.yaml"
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    return file


def settings_of(tmp_path: Path, **source: Any) -> PrometheusSourceSettings:
    whole = {"prometheus_sources": [{"url": "http://p:9090/federate"} | source]}
    [found] = load(configured(tmp_path, whole), {}, {}).settings.prometheus_sources
    return found


def problems_of(tmp_path: Path, *sources: Any, **whole: Any) -> str:
    file = configured(tmp_path, {"prometheus_sources": list(sources)} | whole)
    with pytest.raises(ConfigError) as caught:
        load(file, {}, {})
    return "\n".join(caught.value.problems)


def test_the_integrations_snippet_is_taken_as_it_stands(tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, SNIPPET), {}, PROXY, runnable=True)
    [source] = loaded.settings.prometheus_sources
    assert source.url.endswith('/federate?match[]={job=~"federate|kubernetes-pods"}')
    http = source.httpConfig
    assert http.bearer_token_file == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert http.tls_config.ca_file == "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    assert http.tls_config.insecure_skip_verify is True
    assert source.filters.metricTagDenyList == {"destination_principal": ["*"]}
    assert len(source.filters.metricAllowList) == 28
    assert source.filters.metricAllowList[-1] == "sidecar.*"
    assert (source.collection.interval, source.collection.timeout) == (60.0, 30.0)
    assert not source.convertHistograms


def test_every_key_of_the_collector_is_taken(tmp_path: Path) -> None:
    source = settings_of(
        tmp_path,
        url='https://p/federate?match[]={a="1"}&match[]={b=~"2|3"}',
        name="mesh",
        prefix="tsm.",
        source="cluster-1",
        tags={"env": "prod", "number": 1},
        convertHistograms=True,
        collection={"interval": "10s", "timeout": "1m"},
        httpConfig={
            "bearer_token": "t",
            "proxy_url": "http://proxy:3128",
            "tls_config": {
                "ca_file": "/ca",
                "cert_file": "/c",
                "key_file": "/k",
                "server_name": "s",
                "insecure_skip_verify": "yes",
            },
        },
        filters={
            "metricAllowList": ["a*"],
            "metricDenyList": ["b?"],
            "metricTagAllowList": {"x": ["1", "{2,3}"]},
            "metricTagDenyList": {"y": "b*", "z": ["[!a]"]},
            "tagInclude": ["k*"],
            "tagExclude": ["l*"],
            "tagGuaranteeList": ["m"],
        },
    )
    assert source.url.endswith('?match[]={a="1"}&match[]={b=~"2|3"}')
    assert source.tags == {"env": "prod", "number": "1"}
    assert source.filters.metricTagDenyList == {"y": ["b*"], "z": ["[!a]"]}
    assert (source.collection.interval, source.collection.timeout) == (10.0, 60.0)
    assert source.httpConfig.tls_config.insecure_skip_verify is True


def test_basic_authentication_is_taken_beside_them(tmp_path: Path) -> None:
    http = {"basic_auth": {"username": "u", "password_file": "/p"}}
    basic = settings_of(tmp_path, httpConfig=http).httpConfig.basic_auth
    assert (basic.username, basic.password_file) == ("u", "/p")


def test_the_old_names_of_the_lists_are_taken(tmp_path: Path) -> None:
    filters = settings_of(
        tmp_path,
        filters={
            "metricWhitelist": ["a"],
            "metricBlacklist": ["b"],
            "metricTagWhitelist": {"c": ["1"]},
            "metricTagBlacklist": {"d": ["2"]},
        },
    ).filters
    assert (filters.metricAllowList, filters.metricDenyList) == (["a"], ["b"])
    assert (filters.metricTagAllowList, filters.metricTagDenyList) == ({"c": ["1"]}, {"d": ["2"]})


def test_sources_may_come_from_the_environment() -> None:
    text = json.dumps([{"url": "http://p:9090/m", "collection": {"interval": "5s"}}])
    [source] = load(None, {"TRACEFWD_PROMETHEUS_SOURCES": text}, {}).settings.prometheus_sources
    assert source.collection.interval == 5.0


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({}, "prometheus_sources[0].url"),
        ({"url": "p:9090/federate"}, "scheme"),
        ({"url": "http://p/x#y?match[]=a"}, "before '?' or '#'"),
        ({"url": "http://p/x?match[]={a}#y"}, "%23"),
        ({"url": "http://p/x\x01?y"}, "control characters"),
        ({"url": "http://p/x?a\nb"}, "control characters"),
        ("http://p/", "a source is a mapping with a url"),
        ({"metricAllowList": []}, "metricAllowList"),
        ({"filters": {"metricAllowlist": ["a"]}}, "did you mean metricAllowList?"),
        ({"filters": {"metricWhitelist": ["a"], "metricAllowList": ["b"]}}, "keep one of them"),
        ({"filters": ["a"]}, "is a section"),
        ({"httpconfig": {}}, "did you mean httpConfig?"),
        ({"httpConfig": {"bearer_tokenfile": "x"}}, "did you mean bearer_token_file?"),
        ({"httpConfig": {"tls_config": {"cert_file": "x"}}}, "go together"),
        ({"httpConfig": {"basic_auth": {"password": "x"}}}, "needs its username"),
        ({"httpConfig": {"basic_auth": {"username": "a:b"}}}, "no colon"),
        (
            {
                "httpConfig": {
                    "basic_auth": {"username": "a", "password": "x", "password_file": "y"}
                }
            },
            "keep one",
        ),
        ({"httpConfig": {"basic_auth": {"username": "a"}, "bearer_token": "b"}}, "keep one"),
        ({"collection": {"interval": "60"}}, "60s or 60ms"),
        ({"collection": {"interval": "0s"}}, "above zero"),
        ({"collection": {"timeout": "-1s"}}, "not a duration"),
        ({"tags": {" ": "x"}}, "blank key"),
        ({"tags": ["a"]}, "a mapping is expected"),
        ({"name": "x" * 200}, "is no name"),
        ({"filters": {"metricAllowList": ["istio.{a"]}}, "is no glob"),
        ({"filters": {"metricTagDenyList": {"x": ["[a"]}}}, "metricTagDenyList.x"),
        ({"filters": {"tagExclude": ["\\"]}}, "is no glob"),
    ],
)
def test_a_mistake_stops_the_start_and_says_what_to_write(
    tmp_path: Path, source: Any, told: str
) -> None:
    if isinstance(source, dict) and source and "url" not in source:
        source = {"url": "http://p:9090/federate"} | source
    assert told in problems_of(tmp_path, source)


@pytest.mark.parametrize("cluster", ["", " ", "-", " / "])
def test_a_cluster_that_would_be_on_no_point_is_refused(tmp_path: Path, cluster: str) -> None:
    told = problems_of(tmp_path, {"url": "http://p/m"}, metrics={"cluster": cluster})
    assert f"metrics.cluster = {cluster!r}" in told
    assert "write the cluster's name" in told


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    one, two = "http://p/federate?match[]={a}", "http://p/federate?match[]={b}"
    told = problems_of(tmp_path, {"url": one}, {"url": two})
    assert "prometheus_sources[1].name = 'p/federate'" in told
    file = configured(
        tmp_path, {"prometheus_sources": [{"url": one}, {"url": two, "name": "second"}]}
    )
    names = [source_name(source) for source in load(file, {}, {}).settings.prometheus_sources]
    assert names == ["p/federate", "second"]


def test_no_secret_is_printed_or_told(tmp_path: Path) -> None:
    secret = "s3cr3t"
    file = configured(
        tmp_path,
        {
            "prometheus_sources": [
                {
                    "url": f"https://user:{secret}@p/federate?token={secret}&match[]={{a}}",
                    "httpConfig": {"bearer_token": secret},
                },
                {
                    "url": "https://q/federate",
                    "httpConfig": {
                        "basic_auth": {"username": "me", "password": secret},
                        "proxy_url": f"http://u:{secret}@proxy:3128",
                    },
                },
            ]
        },
    )
    loaded = load(file, {}, {})
    for form in ("yaml", "json"):
        shown = show(loaded.settings, loaded.origins, format=form)  # type: ignore[arg-type]
        assert secret not in shown
        assert "https://***@p/federate?token=***&match[]={a}" in shown
    assert secret not in source_name(loaded.settings.prometheus_sources[0])
    bad = {"url": f"ftp://u:{secret}@p/", "httpConfig": {"bearer_token": [secret], "x": secret}}
    assert secret not in problems_of(tmp_path, bad)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ('http://h/f?match[]={a="@"}', 'http://h/f?match[]={a="@"}'),
        ("http://h/f?x=1&match[]={a}", "http://h/f?x=***&match[]={a}"),
        ("http://h/f?secret", "http://h/f?***"),
        ("http://u:1?p@h/f", "http://***"),
        ("http://u:p@h/f?match[]={a}", "http://***@h/f?match[]={a}"),
    ],
)
def test_a_selector_is_no_secret_all_else_in_a_query_may_be(url: str, masked: str) -> None:
    assert mask_query_url(url) == masked


def test_what_is_printed_loads_again(tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, SNIPPET), {}, {})
    again = configured(tmp_path, show(loaded.settings, loaded.origins))
    assert load(again, {}, {}).settings == loaded.settings


# Files: a warning in validate, nothing elsewhere


def test_missing_files_are_a_warning_in_validate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = configured(tmp_path, SNIPPET)
    flags = [text for pair in PROXY.items() for text in pair]
    assert cli.main(["validate", "--config", str(file), *flags]) == 0
    told = capsys.readouterr().out
    assert "bearer_token_file" in told
    assert "tls_config.ca_file" in told
    assert told.rstrip().endswith("valid, 2 warnings")
    assert cli.main(["validate", "--config", str(file), "--json", *flags]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["fine"] is True
    [files] = [check for check in tree["checks"] if check["name"] == "files"]
    assert (len(files["warnings"]), files["problems"], files["fine"]) == (2, [], True)


def test_files_that_are_there_are_not_told(tmp_path: Path) -> None:
    token = tmp_path / "token"
    source = settings_of(tmp_path, httpConfig={"bearer_token_file": str(token)})
    settings = Settings(prometheus_sources=[source])
    assert len(list(check_source_files(settings))) == 1
    token.write_text("x")
    assert list(check_source_files(settings)) == []


def test_what_a_scrape_could_not_use_is_told_though_it_is_there(tmp_path: Path) -> None:
    token, junk = tmp_path / "token", tmp_path / "junk.pem"
    token.write_text("one\ntwo\n")
    junk.write_text("neither certificate nor key")
    tls = {"ca_file": str(junk)}
    source = settings_of(tmp_path, httpConfig={"bearer_token_file": str(token), "tls_config": tls})
    secret, certificate = check_source_files(Settings(prometheus_sources=[source]))
    assert secret.startswith("prometheus_sources[0].httpConfig.bearer_token_file ")
    assert "holds no secret" in secret
    assert certificate.startswith("prometheus_sources[0].httpConfig.tls_config.ca_file ")
    assert "cannot be used" in certificate


def test_missing_files_are_nothing_in_convert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = configured(tmp_path, SNIPPET)
    empty = tmp_path / "spans.json"
    empty.write_text("[]")
    assert cli.main(["convert", "--config", str(file), str(empty)]) == 0
    assert capsys.readouterr().err == ""


# What runs


def test_metrics_alone_need_a_source_and_no_trace_port(tmp_path: Path) -> None:
    flags = {"--only": "metrics", "--proxy-metrics": "http://p:2878"}
    with pytest.raises(ConfigError) as caught:
        load(None, {}, flags, runnable=True)
    assert caught.value.problems[0].startswith("prometheus_sources: there is nothing to scrape")
    loaded = load(configured(tmp_path, SNIPPET), {}, flags, runnable=True)
    assert loaded.settings.service.only == "metrics"
    with pytest.raises(ConfigError):
        load(configured(tmp_path, SNIPPET), {}, flags | {"--only": "spans"}, runnable=True)
