import pytest

from tracefwd.exporter import verdicts
from tracefwd.limits import REJECT_REASONS
from tracefwd.model import Outcome


@pytest.mark.parametrize("kind", ["proxy", "direct"])
@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ((200, 202, 204, 206, 299), "delivered"),
        ((401, 406, 407, 408, 429, 500, 502, 503, 504, 599), "retry"),
        ((413,), "split"),
        ((301, 302, 307, 308, 404, 405, 410, 415, 422), "rejected"),
        ((100, 600, 999), "retry"),
    ],
)
def test_the_status_decides(kind: str, statuses: tuple[int, ...], verdict: str) -> None:
    assert {verdicts.verdict(kind, status) for status in statuses} == {verdict}


def test_403_is_for_good_from_a_proxy_and_a_token_to_mend_from_the_backend() -> None:
    assert verdicts.verdict("proxy", 403) == "rejected"
    assert verdicts.verdict("direct", 403) == "retry"


def test_400_is_a_bad_line_to_search_at_the_backend_and_for_good_from_a_proxy() -> None:
    assert verdicts.verdict("direct", 400) == "bisect"
    assert verdicts.verdict("proxy", 400) == "rejected"


def test_only_a_gateway_that_lost_sight_of_a_request_leaves_its_fate_open() -> None:
    assert [status for status in range(100, 600) if verdicts.is_ambiguous(status)] == [502, 504]


def test_reasons_are_a_closed_set() -> None:
    assert {verdicts.reason(status) for status in range(1000)} <= {
        *(f"http_{status}" for status in range(100, 600)),
        *(f"http_{group}xx" for group in range(1, 10)),
        "http_odd",
    }
    assert verdicts.reason(503) == "http_503"
    assert verdicts.reason(599) == "http_5xx"


def test_only_network_time_outs_and_5xx_are_outages() -> None:
    for reason in ("connect", "timeout", "dns", "tls", "connection", "http_500", "http_5xx"):
        assert verdicts.is_outage(Outcome("retry", reason)), reason
    for reason in ("auth", "http_401", "http_403", "http_406", "http_429"):
        assert not verdicts.is_outage(Outcome("retry", reason)), reason


def test_refusals_have_a_place_in_the_ledger() -> None:
    for status in range(300, 500):
        outcome = Outcome("rejected", verdicts.reason(status))
        assert verdicts.ledger_reason(outcome) in REJECT_REASONS
    assert verdicts.ledger_reason(Outcome("rejected", "http_403")) == "feature_disabled"
