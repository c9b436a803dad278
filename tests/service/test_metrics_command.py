"""``convert --metrics`` and ``metrics check`` on real bodies, from the command line to standard output."""

import json
from pathlib import Path

import pytest

from tests.metricspath.parts import COLLECTOR, FEDERATE, SEED_FILTERS, read_tsv, split_line
from tracefwd.service import cli

CONFIG = {
    "prometheus_sources": [
        {
            "url": 'http://prometheus:9090/federate?match[]={job=~"federate|kubernetes-pods"}',
            "filters": {
                "metricTagDenyList": SEED_FILTERS.metricTagDenyList,
                "metricAllowList": SEED_FILTERS.metricAllowList,
            },
        },
        {"url": "http://istiod:15014/metrics", "name": "istiod", "prefix": "direct."},
    ],
    "metrics": {"cluster": "oracle"},
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracefwd.service.logs as module

    monkeypatch.setattr(module, "configure", lambda _: None)


def config(tmp_path: Path, **metrics: object) -> str:
    file = tmp_path / "tracefwd.yaml"
    file.write_text(json.dumps({**CONFIG, "metrics": {**CONFIG["metrics"], **metrics}}))  # type: ignore[dict-item]
    return str(file)


def test_convert_prints_the_collectors_points_in_its_mode(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    file = str(FEDERATE / "small.txt")
    assert (
        cli.main(["convert", "--metrics", "--config", config(tmp_path, mode="collector"), file])
        == 0
    )
    out, err = capfdbinary.readouterr()
    ours = sorted(
        (name, value, sorted(tags.items()))
        for name, value, tags in map(split_line, out.decode().splitlines())
    )
    theirs = sorted(
        (row[0], row[1], sorted(row[3].items())) for row in read_tsv(COLLECTOR / "small.points.tsv")
    )
    assert ours == theirs
    assert b"samples not sent: name_not_allowed 100, tag_denied 142" in err


def test_a_file_without_a_sample_is_told_as_such(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    body = tmp_path / "empty.txt"
    body.write_bytes(b"")
    assert cli.main(["convert", "--metrics", str(body)]) == 1
    assert (
        b"empty.txt: holds no sample; give a Prometheus exposition" in capfdbinary.readouterr().err
    )


def test_a_file_is_never_too_old(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    body = tmp_path / "old.txt"
    body.write_text("istio_build 1 1000000000000\n")
    assert cli.main(["convert", "--metrics", "--config", config(tmp_path), str(body)]) == 0
    assert b'"istio.build.value" 1 1000000000 source="prom_source"' in capfdbinary.readouterr().out


def test_another_source_is_chosen_by_name(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    body = tmp_path / "body.txt"
    body.write_text("# TYPE x gauge\nx 1\n")
    args = ["convert", "--metrics", "--config", config(tmp_path), "--source"]
    assert cli.main([*args, "istiod", str(body)]) == 0
    assert capfdbinary.readouterr().out.startswith(b'"direct.x.gauge" 1 ')
    assert cli.main([*args, "nobody", str(body)]) == 2
    assert b"there is no source 'nobody'" in capfdbinary.readouterr().err


def test_without_a_configuration_everything_is_translated(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    body = tmp_path / "body.txt"
    body.write_text('# TYPE x counter\nx_total{a="b"} 1\n# EOF\n')
    assert cli.main(["convert", "--metrics", str(body)]) == 0
    assert capfdbinary.readouterr().out.startswith(b'"x.total.counter" 1 ')


def test_the_operators_rules_hold_for_points_too(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "'2878':\n- rule: no-up\n  action: block\n  scope: metricName\n  match: 'up\\..*'\n"
    )
    body = tmp_path / "body.txt"
    body.write_text('up{a="1"} 1\nother{a="1"} 2\n')
    file = tmp_path / "tracefwd.yaml"
    file.write_text(json.dumps({"rules": {"file": str(rules)}}))
    assert cli.main(["convert", "--metrics", "--config", str(file), str(body)]) == 0
    [line] = capfdbinary.readouterr().out.splitlines()
    assert line.startswith(b'"other.value" 2 ')


def test_a_file_without_a_sample_fails(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    body = tmp_path / "body.txt"
    body.write_text("<html>\n")
    assert cli.main(["convert", "--metrics", str(body)]) == 1
    assert b"bad lines: name 1" in capfdbinary.readouterr().err
    assert cli.main(["convert", "--metrics", str(tmp_path / "none")]) == 1
    body.write_text("")
    capfdbinary.readouterr()
    assert cli.main(["convert", "--metrics", str(body)]) == 1
    assert b"body.txt: holds no sample; give " in capfdbinary.readouterr().err


def test_bad_lines_are_shown_with_their_numbers(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    body = tmp_path / "body.txt"
    lines = [b"up 1", b'x{a="\xff"} 1', b"up one", b"# TYPE up what", b"y" * 70_000, b"z 1"]
    body.write_bytes(b"\n".join(lines))
    assert cli.main(["convert", "--metrics", str(body)]) == 0
    shown = capfdbinary.readouterr().err.decode().splitlines()[1:]
    assert shown == [
        f"tracefwd: {body}: line {number}: {what}"
        for number, what in (
            (2, "encoding: 'x{a=\"\ufffd\"} 1'"),
            (3, "value: 'up one'"),
            (4, "type: '# TYPE up what'"),
            (5, f"too_long: '{'y' * 200}'"),
        )
    ]
    body.write_text("up one\n" * 60)
    assert cli.main(["convert", "--metrics", str(body)]) == 1
    assert b"further bad lines from line 51 on" in capfdbinary.readouterr().err


def test_check_says_what_passes_what_does_not_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["metrics", "check", "--config", config(tmp_path), str(FEDERATE / "small.txt")]
    assert cli.main(args) == 0
    out = capsys.readouterr().out
    assert "source: prometheus:9090/federate" in out
    assert "samples: 466 in " in out
    assert "points: 224" in out
    assert "samples not sent: name_not_allowed 100, tag_denied 142" in out
    assert cli.main([*args, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["points"] == 224
    assert set(facts["never_seen"]) <= set(SEED_FILTERS.metricAllowList)
    assert sum(sum(reasons.values()) for reasons in facts["not_sent"].values()) == 242


def test_check_fails_when_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = tmp_path / "body.txt"
    body.write_text("up 1\n")
    assert cli.main(["metrics", "check", "--config", config(tmp_path), str(body)]) == 1
    assert "up.value: name_not_allowed 1" in capsys.readouterr().out


def test_a_glob_that_cannot_be_meant_is_a_configuration_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tracefwd.yaml"
    file.write_text(
        json.dumps(
            {"prometheus_sources": [{"url": "http://h/m", "filters": {"metricAllowList": ["["]}}]}
        )
    )
    assert cli.main(["metrics", "check", "--config", str(file), "-"]) == 2
    assert "is no glob" in capsys.readouterr().err
