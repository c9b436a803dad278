"""``tracefwd report``: the documents of the admin API as one page that needs nothing else: no script, no net.

Plots are SVG.  Every text that came with a span is escaped, and what cannot be seen of it is written out.  Pure:
``tell`` knows the reader's clock.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tracefwd.console.page import asset
from tracefwd.console.visible import visible

Document = Mapping[str, Any]
TellTime = Callable[[float], str]
"""Epoch seconds as a person reads them."""

TEXT_MAX = 400
SAMPLES_MAX = 100
_WIDTH, _HEIGHT = 360, 80


@dataclass(frozen=True)
class Documents:
    """Of the API's paths, each as it was answered."""

    flow: Document
    history: Document
    services: Document
    operations: Document
    edges: Document
    refused: Document
    metrics_path: Document
    configuration: Document


class Markup(str):
    """Is escaped already."""

    __slots__ = ()


Cell = str | Markup


def render(documents: Documents, *, since_s: float, where: str, tell: TellTime) -> str:
    """The page; the history and samples of the last ``since_s`` seconds."""
    flow = documents.flow
    from_s = flow["at"] - since_s
    verdict = flow["verdict"]
    parts = [
        f'<p class="verdict {_text(verdict["level"])}"><b>{_text(verdict["line"])}</b> {_text(verdict["todo"])}</p>',
        _causes(verdict["causes"]),
        "<h2>Last hour</h2>" if since_s >= 3_600 else "<h2>History</h2>",
        _plots(documents.history, from_s, tell),
        "<h2>Ledger</h2>",
        _ledger(flow["ledger"]),
        "<h2>Pipeline</h2>",
        _pipeline(flow, tell),
        "<h2>Processes</h2>",
        _workers(flow["workers"]),
        "<h2>Services</h2>",
        _services(documents.services),
        "<h2>Operations</h2>",
        _operations(documents.operations),
        "<h2>Who calls whom</h2>",
        _calls(documents.edges),
        "<h2>Refused and changed</h2>",
        _refused(documents.refused, from_s, tell),
        "<h2>Metrics path</h2>",
        _sources(documents.metrics_path, tell),
        "<h2>Configuration that is not the default</h2>",
        _options(documents.configuration),
    ]
    head = (
        f"tracefwd {_text(flow['version'])} at {_text(where)}, {_text(tell(flow['at']))},"
        f" running since {_text(tell(flow['started_at']))}"
    )
    return _PAGE.format(
        style=asset("report.css"), head=head, body="\n".join(part for part in parts if part)
    )


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>tracefwd report</title>
<style>
{style}</style>
</head>
<body>
<h1>tracefwd report</h1>
<p>{head}</p>
{body}
</body>
</html>
"""


# Numbers


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e3:,.2f} s" if value >= 1_000 else f"{value:.3g} ms"


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:,.1f} {unit}" if unit != "B" else f"{value:,.0f} B"
        value /= 1024
    return f"{value:,.1f} GiB"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _share(value: float) -> str:
    return f"{value:.1%}"


# Pieces


def _text(value: str) -> str:
    return escape(visible(value, TEXT_MAX))


def _table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], empty: str) -> str:
    """A head that begins with ``#`` is one of numbers."""
    lines = []
    numeric = [head.startswith("#") for head in heads]
    for row in rows:
        cells = [
            f'<td class="n">{_cell(cell)}</td>' if right else f"<td>{_cell(cell)}</td>"
            for cell, right in zip(row, numeric, strict=True)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    if not lines:
        return f"<p>{escape(empty)}</p>"
    titles = "".join(
        f'<th scope="col"{" class=n" if right else ""}>{escape(head.lstrip("#"))}</th>'
        for head, right in zip(heads, numeric, strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    return cell if isinstance(cell, Markup) else _text(cell)


# Sections


def _causes(causes: Sequence[Document]) -> str:
    lines = [f"<li>{_text(each['line'])} {_text(each['todo'])}</li>" for each in causes[1:]]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


_PLOTS: tuple[tuple[str, Callable[[float], str], tuple[tuple[str, str], ...]], ...] = (
    ("Spans a second", _rate, (("received", "spans_per_s"), ("delivered", "delivered_per_s"))),
    ("Lost, a second", _rate, (("rejected", "rejected_per_s"), ("dropped", "dropped_per_s"))),
    (
        "Answers",
        _ms,
        (("p50", "latency_p50_ms"), ("p95", "latency_p95_ms"), ("p99", "latency_p99_ms")),
    ),
    ("Items held", _count, (("held", "held_items"),)),
    ("Queue and spool", _size, (("queue", "queue_bytes"), ("spool", "spool_bytes"))),
    ("Memory", _size, (("used", "memory_bytes"),)),
)


def _plots(history: Document, from_s: float, tell: TellTime) -> str:
    places = [place for place, at in enumerate(history["at"]) if at >= from_s]
    if len(places) < 2:
        return "<p>There is no history yet.</p>"
    figures, rows = [], []
    for title, unit, lines in _PLOTS:
        columns = [
            (said, [history["columns"][name][place] for place in places]) for said, name in lines
        ]
        figures.append(_plot(title, unit, columns))
        for said, values in columns:
            known = [value for value in values if value is not None] or [0.0]
            mean = sum(known) / len(known)
            numbers = (known[-1], min(known), mean, max(known))
            rows.append([f"{title}: {said}", *(unit(number) for number in numbers)])
    began, ended = tell(history["at"][places[0]]), tell(history["at"][places[-1]])
    heads = ("", "#last", "#least", "#mean", "#most")
    return (
        f'<p>From {escape(began)} to {escape(ended)}.</p><div class="plots">{"".join(figures)}</div>'
        + _table(heads, rows, "")
    )


def _plot(
    title: str,
    unit: Callable[[float], str],
    columns: Sequence[tuple[str, Sequence[float | None]]],
) -> str:
    most = max((value or 0.0 for _, values in columns for value in values), default=0.0)
    lines, legend = [], []
    for number, (said, values) in enumerate(columns, 1):
        runs = _runs(values, most or 1.0)
        lines += [f'<polyline class="c{number}" points="{run}"/>' for run in runs]
        legend.append(f'<span class="c{number}">— {escape(said)}</span>')
    return (
        f"<figure><figcaption>{escape(title)} <small>up to {escape(unit(most))}</small></figcaption>"
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
        f"<title>{escape(title)}; the table below has its numbers</title>{''.join(lines)}</svg>"
        f"<small>{' '.join(legend)}</small></figure>"
    )


def _runs(values: Sequence[float | None], most: float) -> list[str]:
    """Points of lines; one ends where nothing is known."""
    runs: list[list[str]] = [[]]
    step = _WIDTH / max(1, len(values) - 1)
    for place, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            y = (_HEIGHT - 2) * (1 - value / most) + 1
            runs[-1].append(f"{place * step:.1f},{y:.1f}")
    return [" ".join(run if len(run) > 1 else run * 2) for run in runs if run]


_TERMS = ("delivered", "sampled_out", "blocked", "rejected", "dropped", "held", "missing")


def _ledger(ledger: Document) -> str:
    said = "It balances." if ledger["balanced"] else "It does NOT balance."
    heads = ("", "#received", *(f"#{name.replace('_', ' ')}" for name in _TERMS), "reasons")
    rows = [
        [
            part["name"],
            _count(part["received"]),
            *(_count(part[name]) for name in _TERMS),
            ", ".join(
                f"{reason} {number:,}"
                for reason, number in {**part["rejected_by"], **part["dropped_by"]}.items()
            ),
        ]
        for part in ledger["sections"]
    ]
    equation = "received = delivered + sampled out + blocked + rejected + dropped + held"
    return f"<p>{said} <small>{equation}</small></p>" + _table(heads, rows, "")


def _pipeline(flow: Document, tell: TellTime) -> str:
    rates, latency, memory = flow["rates"], flow["latency_ms"], flow["memory"]
    facts = (
        f"{_rate(rates['spans'])} spans/s in, {_rate(rates['delivered_spans'])} delivered;"
        f" answers p50 {_ms(latency['p50'])}, p95 {_ms(latency['p95'])}, p99 {_ms(latency['p99'])};"
        f" memory {_size(memory['used_bytes'])} ({memory['stage']})"
    )
    heads = ("from", "to", "signal", "state", "#a second", "#waiting", "#bytes", "#oldest", "error")
    rows = []
    for edge in flow["edges"]:
        oldest, error = edge["oldest_age_s"], edge["last_error"]
        over = "" if error is None or error["now"] else " (over)"
        rows.append(
            [
                edge["from"],
                edge["to"],
                edge["signal"],
                edge["state"],
                _rate(edge["per_s"]),
                _count(edge["backlog_items"]),
                _size(edge["backlog_bytes"]),
                "–" if oldest is None else f"{oldest:,.1f} s",
                "" if error is None else f"{tell(error['at'])} {error['text']}{over}",
            ]
        )
    return f"<p>{_text(facts)}</p>" + _table(heads, rows, "Nothing flows.")


def _workers(workers: Sequence[Document]) -> str:
    rows = [
        [
            each["name"],
            "–" if each["pid"] is None else str(each["pid"]),
            "not ready" if not each["ready"] else "silent" if each["stale"] else "works",
            _count(each["restarts"]),
            "; ".join(each["problems"]),
        ]
        for each in workers
    ]
    heads = ("process", "#pid", "state", "#restarts", "what it says is wrong outside")
    return _table(heads, rows, "No process runs.")


_RED_HEADS = ("#rate/s", "#errors/s", "#errors", "#p50", "#p95", "#p99")


def _red(red: Document) -> list[str]:
    return [
        _rate(red["rate"]),
        _rate(red["errors"]),
        _share(red["error_share"]),
        *(_ms(red[f"{name}_ms"]) for name in ("p50", "p95", "p99")),
    ]


def _services(services: Document) -> str:
    if not services["red_enabled"]:
        return "<p>red.enabled is off.</p>"
    rows = [
        [group["application"], each["service"], *_red(each["red"])]
        for group in services["applications"]
        for each in group["services"]
    ]
    said = f"<p><small>Of the last {services['window_s']:,.0f} seconds.</small></p>"
    return said + _table(("application", "service", *_RED_HEADS), rows, "No service was seen.")


def _operations(operations: Document) -> str:
    rows = [
        [each["service"], each["operation"], *_red(each["red"])]
        for each in operations["operations"]
    ]
    left = operations["left_out"]
    said = f"<p><small>The busiest; {left:,} more are left out.</small></p>" if left else ""
    return said + _table(("service", "operation", *_RED_HEADS), rows, "No operation was seen.")


def _calls(edges: Document) -> str:
    names = {node["id"]: f"{node['service']} ({node['application']})" for node in edges["nodes"]}
    rows = [
        [
            names[edge["from"]],
            names[edge["to"]],
            _rate(edge["calls"]),
            _rate(edge["errors"]),
            _ms(edge["mean_ms"]),
        ]
        for edge in edges["edges"]
    ]
    said = f"<p><small>Estimated from {_share(edges['examined_share'])} of the spans.</small></p>"
    return said + _table(
        ("caller", "called", "#calls/s", "#errors/s", "#mean"), rows, "No call was seen."
    )


def _refused(refused: Document, from_s: float, tell: TellTime) -> str:
    reasons = [
        [
            each["what"],
            each["reason"],
            each["meaning"],
            _count(each["spans"]),
            _rate(each["per_s"]),
        ]
        for each in refused["reasons"]
    ]
    samples = [
        [
            tell(each["at"]),
            each["what"],
            each["reason"],
            each["sender"],
            f"{each['where']} {each['detail']}".strip(),
            Markup(f"<pre>{_text(' '.join(each['sample'].split()))}</pre>"),
        ]
        for each in refused["samples"]
        if each["at"] >= from_s
    ]
    lines = [
        [tell(each["at"]), each["where"], each["said"], each["line"]]
        for each in refused["refused_lines"]
        if each["at"] >= from_s
    ]
    return "".join(
        (
            _table(
                ("what", "reason", "meaning", "#so far", "#a second"),
                reasons,
                "Nothing was refused or changed.",
            ),
            "<h3>Samples, masked</h3>",
            _table(
                ("at", "what", "reason", "sender", "where", "sample"),
                samples[:SAMPLES_MAX],
                "There is none of that time.",
            ),
            "<h3>Lines that a backend refused</h3>",
            _table(
                ("at", "where", "the backend said", "line, masked"),
                lines[:SAMPLES_MAX],
                "There is none of that time.",
            ),
        )
    )


def _sources(metrics_path: Document, tell: TellTime) -> str:
    rows = [
        [
            each["name"],
            {None: "not scraped yet", True: "up", False: "down"}[each["up"]],
            each["trouble"],
            "–" if each["last_scrape_at"] is None else tell(each["last_scrape_at"]),
            _rate(each["points_per_s"]),
            _count(each["points"]),
            ", ".join(each["never_seen"]),
            ", ".join(dropped["name"] for dropped in each["not_sent"]),
        ]
        for each in metrics_path["sources"]
    ]
    heads = (
        "source",
        "state",
        "trouble",
        "last scrape",
        "#points/s",
        "#points",
        "never seen",
        "not sent",
    )
    return _table(heads, rows, "Nothing is scraped.")


def _options(configuration: Document) -> str:
    rows = [
        [each["key"], _written(each["value"]), each["origin"]]
        for each in configuration["options"]
        if not each["default"]
    ]
    return _table(("option", "value, masked", "comes from"), rows, "Everything is the default.")


def _written(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


__all__ = ["Documents", "render"]
