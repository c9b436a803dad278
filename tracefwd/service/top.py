"""``tracefwd top``: the console in a terminal, over the admin API (Textual, the extra ``top``).

1. It reads one stream of events and asks for what only one person wants (a service's operations); it never asks workers
   for anything that the console would not.
2. A lost connection is said in the head line and mended by itself; what was shown stays, marked as old.
3. What spans say is shown as text: no cell is read as markup, and ``visible`` writes out what a terminal would obey.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

from tracefwd.console.visible import visible
from tracefwd.service.admin_client import AdminClient, AdminError, Reach, again

_COLOURS = {"ok": "green", "idle": "dim", "watch": "yellow", "bad": "bold red"}
_SORTS = ("rate", "error_share", "p95_ms", "p99_ms")
_BARS = " ▁▂▃▄▅▆▇█"
_ROWS_MAX = 1_000

Cells = Sequence[Text]
Rows = Sequence[tuple[str, Cells]]


def cell(text: str, style: str = "", *, chars_max: int = 80) -> Text:
    """A stranger's text in a table."""
    return Text(visible(text, chars_max), style=style, no_wrap=True)


def number(value: float | None, unit: str = "") -> Text:
    if value is None:
        return Text("-", style="dim", justify="right")
    shown = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"
    return Text(f"{shown}{unit}", justify="right")


def share(value: float) -> Text:
    style = "bold red" if value >= 0.05 else "yellow" if value > 0 else "dim"
    return Text(f"{value:.1%}", style=style, justify="right")


def bars(values: Sequence[int]) -> Text:
    """A small plot of a line's height."""
    most = max(values, default=0) or 1
    return Text("".join(_BARS[round(value / most * (len(_BARS) - 1))] for value in values))


class RowTable(DataTable[Text]):
    """A table whose rows are replaced in place, so that the cursor stays on its row and nothing flickers."""

    def __init__(self, names: Sequence[str], **options: Any) -> None:
        super().__init__(cursor_type="row", zebra_stripes=True, **options)
        self._names = names
        self._shown: list[str] = []

    def on_mount(self) -> None:
        for name in self._names:
            self.add_column(name, key=name)

    def fill(self, rows: Rows) -> None:
        rows = rows[:_ROWS_MAX]
        keys = [key for key, _ in rows]
        if keys == self._shown:
            for key, cells in rows:
                for name, text in zip(self._names, cells, strict=True):
                    if self.get_cell(key, name) != text:
                        self.update_cell(key, name, text, update_width=True)
            return
        chosen = self._shown[self.cursor_row] if self.cursor_row < len(self._shown) else ""
        self._shown = keys
        self.clear()
        for key, cells in rows:
            self.add_row(*cells, key=key)
        if chosen in keys:
            self.move_cursor(row=keys.index(chosen), scroll=False)


class OperationsScreen(ModalScreen[None]):
    """One service's operations."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss", "back")]

    def __init__(self, title: str, document: dict[str, Any]) -> None:
        super().__init__()
        self._title = title
        self._document = document

    def compose(self) -> ComposeResult:
        with Vertical(id="operations"):
            yield Static(cell(self._title, "bold"), id="operations-title")
            yield RowTable(
                ("operation", "spans/s", "errors", "p50 ms", "p95 ms", "p99 ms", "15 minutes"),
                id="operations-table",
            )
            yield Footer()

    def on_mount(self) -> None:
        rows = [
            (each["operation"], [cell(each["operation"]), *red_cells(each["red"])])
            for each in self._document["operations"]
        ]
        # Two operations of one name are of two applications, and this is one service's.
        self.query_one("#operations-table", RowTable).fill(list(dict(rows).items()))


def red_cells(red: dict[str, Any]) -> list[Text]:
    return [
        number(red["rate"]),
        share(red["error_share"]),
        number(red["p50_ms"]),
        number(red["p95_ms"]),
        number(red["p99_ms"]),
        bars(red["plot"]["spans"]),
    ]


class TopApp(App[int]):
    """``follow`` is replaced in tests that bring events of their own."""

    TITLE = "tracefwd top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { overflow: hidden; }
    TabbedContent { height: 1fr; }
    #verdict { height: auto; padding: 0 1; }
    #ledger { height: auto; padding: 0 1; }
    #search { display: none; height: 3; }
    #search.open { display: block; }
    #operations { padding: 1 2; background: $surface; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "view('flow')", "flow"),
        Binding("2", "view('services')", "services"),
        Binding("3", "view('targets')", "targets"),
        Binding("4", "view('refused')", "refused"),
        Binding("s", "sort", "sort"),
        Binding("slash", "search", "search", key_display="/"),
        Binding("escape", "clear_search", "clear", show=False),
        Binding("p", "pause", "pause"),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, where: Reach) -> None:
        super().__init__()
        self.where = where
        self.trouble = "connecting"
        self._sort = 0
        self._search = ""
        self._paused = False
        self._documents: dict[str, Any] = {}
        self._painters: dict[str, Callable[[Any], None]] = {
            "flow": self._paint_flow,
            "services": self._paint_services,
            "refused": self._paint_refused,
        }

    def compose(self) -> ComposeResult:
        yield Static(id="verdict")
        yield Static(id="ledger")
        yield Input(placeholder="part of an application or service", id="search")
        with TabbedContent(initial="flow"):
            with TabPane("Flow", id="flow"):
                yield RowTable(("part", "what", "per s", "total", "note"), id="flow-table")
            with TabPane("Services", id="services"):
                yield RowTable(
                    (
                        "application",
                        "service",
                        "spans/s",
                        "errors",
                        "p50 ms",
                        "p95 ms",
                        "p99 ms",
                        "15 minutes",
                    ),
                    id="services-table",
                )
            with TabPane("Targets", id="targets"):
                yield RowTable(
                    ("target", "signal", "per s", "waits", "full", "oldest s", "last error"),
                    id="targets-table",
                )
            with TabPane("Refused", id="refused"):
                yield RowTable(("what", "reason", "spans", "per s", "meaning"), id="refused-table")
        yield Footer()

    def on_mount(self) -> None:
        self._paint_head()
        self.query_one("#flow-table").focus()
        self.run_worker(self.follow(), name="events", exclusive=True)

    async def follow(self) -> None:
        """Take events for ever; a connection that ends is opened again."""
        async with AdminClient(self.where) as client:
            while True:
                try:
                    async for name, document in client.events("flow", "services", "refused"):
                        self.trouble = ""
                        self.take(name, document)
                except AdminError as error:
                    self.trouble = str(error)
                    if self._is_there():
                        self._paint_head()
                    if not error.is_passing:
                        return
                await again()

    def take(self, name: str, document: Any) -> None:
        """One event."""
        if name in self._painters:
            self._documents[name] = document
            if not self._paused and self._is_there():
                self._painters[name](document)

    def _is_there(self) -> bool:
        """Events still come while an app that ends takes its page apart."""
        return bool(self.query("#verdict"))

    # Keys

    def action_view(self, name: str) -> None:
        self.query_one(TabbedContent).active = name
        self.query_one(f"#{name}-table").focus()

    def action_sort(self) -> None:
        self._sort = (self._sort + 1) % len(_SORTS)
        self._repaint("services")

    def action_search(self) -> None:
        self.action_view("services")
        box = self.query_one("#search", Input)
        box.add_class("open")
        box.focus()

    def action_clear_search(self) -> None:
        box = self.query_one("#search", Input)
        box.value = ""
        box.remove_class("open")
        self.query_one(f"#{self.query_one(TabbedContent).active}-table").focus()

    def action_pause(self) -> None:
        self._paused = not self._paused
        if not self._paused:
            for name in self._painters:
                self._repaint(name)
        self._paint_head()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._search = event.value.casefold()
        self._repaint("services")

    def on_input_submitted(self, _: Input.Submitted) -> None:
        self.query_one("#services-table").focus()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        if event.data_table.id == "services-table" and event.row_key.value:
            application, _, service = event.row_key.value.partition("\0")
            self.run_worker(self._open(application, service), exclusive=False)

    async def _open(self, application: str, service: str) -> None:
        try:
            async with AdminClient(self.where) as client:
                document = await client.get(
                    "/api/v1/operations", application=application, service=service, sort="rate"
                )
        except AdminError as error:
            self.notify(Text(visible(str(error))).plain, severity="error", markup=False)
            return
        await self.push_screen(OperationsScreen(f"{application} / {service}", document))

    # Painting

    def _repaint(self, name: str) -> None:
        if name in self._documents:
            self._painters[name](self._documents[name])

    def _paint_head(self) -> None:
        head = self.query_one("#verdict", Static)
        if self.trouble:
            old = " (what is below is old)" if self._documents else ""
            head.update(cell(f"not connected: {self.trouble}{old}", "bold red", chars_max=300))
            return
        flow = self._documents.get("flow")
        if flow is None:
            return
        verdict = flow["verdict"]
        text = cell(verdict["line"], _COLOURS[verdict["level"]], chars_max=300)
        if verdict["todo"]:
            text.append(f"\n  {visible(verdict['todo'], 300)}")
        if self._paused:
            text.append("   [paused: p goes on]", style="reverse")
        head.update(text)

    def _paint_flow(self, flow: dict[str, Any]) -> None:
        self._paint_head()
        self.query_one("#ledger", Static).update(ledger_text(flow["ledger"]))
        rows = [
            (
                node["id"],
                [
                    cell(node["kind"], _COLOURS[node["state"]]),
                    cell(node["title"], _COLOURS[node["state"]]),
                    number(node["per_s"]),
                    number(node["total"]),
                    cell(node["note"]),
                ],
            )
            for node in flow["nodes"]
        ]
        self.query_one("#flow-table", RowTable).fill(rows)
        edges = [edge for edge in flow["edges"] if edge["to"].startswith("target/")]
        self.query_one("#targets-table", RowTable).fill([target_row(edge) for edge in edges])

    def _paint_services(self, document: dict[str, Any]) -> None:
        found = [
            (application["application"], service)
            for application in document["applications"]
            for service in application["services"]
            if self._search in f"{application['application']} {service['service']}".casefold()
        ]
        by = _SORTS[self._sort]
        found.sort(key=lambda each: -(each[1]["red"][by] or 0.0))
        rows = [
            (
                f"{application}\0{service['service']}",
                [
                    cell(application, chars_max=30),
                    cell(service["service"], chars_max=40),
                    *red_cells(service["red"]),
                ],
            )
            for application, service in found
        ]
        self.query_one("#services-table", RowTable).fill(rows)

    def _paint_refused(self, document: dict[str, Any]) -> None:
        rows = [
            (
                f"{each['what']}\0{each['reason']}",
                [
                    cell(each["what"]),
                    cell(each["reason"]),
                    number(each["spans"]),
                    number(each["per_s"]),
                    cell(each["meaning"]),
                ],
            )
            for each in document["reasons"]
        ]
        self.query_one("#refused-table", RowTable).fill(rows)


def target_row(edge: dict[str, Any]) -> tuple[str, Cells]:
    error = edge["last_error"]
    style = _COLOURS[edge["state"]]
    return (
        f"{edge['from']}\0{edge['to']}\0{edge['signal']}",
        [
            cell(edge["to"].removeprefix("target/"), style),
            cell(edge["signal"], style),
            number(edge["per_s"]),
            number(edge["backlog_items"]),
            share(edge["backlog_share"])
            if edge["backlog_share"] > 0.5
            else Text(f"{edge['backlog_share']:.0%}"),
            number(edge["oldest_age_s"]),
            cell(
                "" if error is None else error["text"], "red" if error and error["now"] else "dim"
            ),
        ],
    )


def ledger_text(ledger: dict[str, Any]) -> Text:
    """``received 12 = delivered 10 + held 2``, with what is 0 left out."""
    spans = ledger["sections"][0]
    states = ("delivered", "sampled_out", "blocked", "rejected", "dropped", "held", "missing")
    terms = [
        f"{name.replace('_', ' ')} {spans[name]:,}"
        for name in states
        if spans[name] or name in ("delivered", "held")
    ]
    text = Text(f"received {spans['received']:,} = {' + '.join(terms)}")
    if not ledger["balanced"]:
        text.append("  NOT BALANCED", style="bold red")
    return text


def run(where: Reach) -> int:
    """Until somebody quits."""
    app = TopApp(where)
    return asyncio.run(app.run_async()) or 0


__all__ = ["TopApp", "cell", "ledger_text", "run"]
