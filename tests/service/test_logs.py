"""Logs: one line each, machines get JSON, repeats are held back and told, secrets never leave."""

import io
import json
import logging
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.service import logs
from tracefwd.settings import ServiceSettings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def restored():
    """Other tests' handlers and levels stay as they were."""
    root, own = logging.getLogger(), logging.getLogger("tracefwd")
    before = root.handlers[:], root.level, own.level
    yield
    for handler in root.handlers[:]:
        if isinstance(handler, logs.Handler):
            root.removeHandler(handler)
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level, own.level = before


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("tracefwd.test")


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_off_a_terminal_every_line_is_json(log):
    stream = io.StringIO()
    logs.setup("info", "auto", stream)
    log.info("sent %d to %s", 5, "h", extra={"target": "a", "bytes": 7, "share": float("nan")})
    try:
        int("one\ntwo")
    except ValueError:
        log.exception("failed")
    first, second = lines(stream)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "tracefwd.test",
        "message": "sent 5 to h",
        "target": "a",
        "bytes": 7,
        "share": "nan",
    }
    assert second["level"] == "error"
    assert "ValueError: invalid literal" in second["exception"]


@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=30), value=st.one_of(st.text(), st.floats(), st.binary(), st.none()))
def test_any_record_is_one_line_of_json(text, value):
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (text,), None)
    record.value = value
    line = logs.JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line).keys() == {"time", "level", "logger", "message", "value"}


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_text_and_colour_unless_it_says_no(log, monkeypatch, environ, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    logs.setup("info", "auto", stream)
    log.error("lost %d", 3, extra={"target": "a"})
    text = stream.getvalue()
    assert "ERROR" in text
    assert text.endswith("lost 3 target=a (test)\n")
    assert ("\x1b[31m" in text) is coloured


def test_text_off_a_terminal_has_no_colour_and_json_can_be_had_on_one(log):
    plain, terminal = io.StringIO(), Terminal()
    logs.setup("info", "text", plain)
    log.error("a")
    logs.setup("info", "json", terminal)
    log.error("b")
    assert "\x1b" not in plain.getvalue()
    assert lines(terminal)[0]["message"] == "b"


def test_a_clients_words_cannot_forge_lines_or_move_the_cursor(log):
    stream = io.StringIO()
    logs.setup("info", "text", stream)
    log.warning("name %s", "a\n12:00:00 ERROR forged\x1b[2J\u2028")
    assert stream.getvalue().count("\n") == 1
    assert "a\\n12:00:00 ERROR forged\\x1b[2J\\u2028" in stream.getvalue()


def test_the_level_is_ours_and_libraries_are_heard_from_warning_on(log):
    stream = io.StringIO()
    logs.setup("debug", "json", stream)
    log.debug("a")
    logging.getLogger("library").info("b")
    logging.getLogger("library").warning("c")
    logs.setup("error", "json", stream)
    log.warning("d")
    logging.getLogger("library").warning("e")
    assert [line["message"] for line in lines(stream)] == ["a", "c"]


def test_warnings_become_records():
    stream = io.StringIO()
    logs.setup("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
    (line,) = lines(stream)
    assert line["logger"] == "py.warnings"
    assert "careful" in str(line["message"])


def test_a_second_setup_replaces_the_first(log):
    first, second = io.StringIO(), io.StringIO()
    logs.setup("info", "json", first)
    logs.setup("info", "json", second)
    log.info("once")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


def test_the_configuration_decides(log, capsys):
    logs.configure(ServiceSettings(log_level="warning", log_format="json"))
    log.info("a")
    log.warning("b")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["b"]


# --- repeats ---------------------------------------------------------------------------------


@pytest.fixture
def limited(log):
    clock, stream = Clock(), io.StringIO()
    handler = logs.Handler(stream, logs.RepeatFilter(times=2, interval_s=60, clock=clock))
    handler.setFormatter(logs.JsonFormatter())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield clock, stream, handler
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


def messages(stream: io.StringIO) -> list[object]:
    return [line["message"] for line in lines(stream)]


def test_repeats_are_held_back_and_their_number_is_told_by_whatever_comes_next(log, limited):
    clock, stream, _ = limited
    for number in range(5):
        log.warning("down: %d", number)
    log.info("down: %d", 9)
    assert messages(stream) == ["down: 0", "down: 1", "down: 9"]
    clock.now_s += 60
    log.info("other")
    account = lines(stream)[3]
    assert account["message"] == "suppressed 3 more in 60 s like: down: %d"
    assert (account["level"], account["logger"]) == ("warning", "tracefwd.test")
    log.warning("down: %d", 10)
    assert messages(stream)[4:] == ["other", "down: 10"]


def test_a_record_that_says_its_sentence_is_counted_by_that_and_does_not_show_it(log, limited):
    _, stream, handler = limited
    for number in range(3):
        log.error("%s: %d", "a", number, extra={"sentence": "a: lost"})
    log.error("%s: %d", "b", 9, extra={"sentence": "b: lost"})
    assert messages(stream) == ["a: 0", "a: 1", "b: 9"]
    assert "sentence" not in lines(stream)[2]
    handler.close()
    assert messages(stream)[3:] == ["suppressed 1 more in 0 s like: a: lost"]


def test_what_is_still_held_back_is_told_at_the_end(log, limited):
    _, stream, handler = limited
    for _ in range(3):
        log.warning("down")
    handler.close()
    assert messages(stream)[2:] == ["suppressed 1 more in 0 s like: down"]


def test_templates_that_vary_cannot_grow_the_table():
    repeats = logs.RepeatFilter(times=1, clock=Clock())
    for number in range(3 * logs.TEMPLATES_MAX):
        repeats.due()
        assert repeats.filter(logging.makeLogRecord({"msg": f"m{number}"}))
        assert len(repeats._sentences) <= logs.TEMPLATES_MAX


# --- secrets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_leaves(log, form):
    stream = io.StringIO()
    logs.setup("info", form, stream)
    secret = "s3cr3t-value"
    log.info("header %s", {"Authorization": f"Bearer {secret}"})
    log.info("posting to https://user:%s@host/path", secret)
    log.info("login", extra={"token": secret, "headers": {"password": secret}})
    log.info("token=%s&x=1", secret)
    try:
        int(f"Bearer {secret}")
    except ValueError:
        log.exception("failed with api_key=%s", secret)
    assert "s3cr3t" not in stream.getvalue()
    assert stream.getvalue().count("***") >= 7
