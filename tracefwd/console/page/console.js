// The console: documents of /api/v1 become a page, once a second.  Every text of a span goes through a text node
// (never through markup), and what cannot be seen or would turn lines round is written as an escape.

const $ = (id) => document.getElementById(id);
const VIEWS = {
  flow: ["services", "history"], services: ["services", "edges"], spans: ["spans"],
  refused: ["refused"], metrics: ["metrics-path"], configuration: [],
};
const STALE_S = 3.5, DEAD_S = 6, RETRY_MS = 2000;
const docs = {};
const state = { view: "flow", service: null, picked: null, operations: null, options: null, spans: null, held: false };

// --- words and numbers -----------------------------------------------------------------------------------

const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const escape = (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0");
const visible = (text) => String(text).replace(UNSEEN, escape);
const one = (text) => visible(text).replace(/[\t\n]/g, escape);
const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const count = (n) => whole.format(n);
const rate = (n) => (n && n < 0.05 ? "<0.1" : n < 100 ? tenth.format(n) : whole.format(n));
const share = (n) => (n && n < 0.001 ? "<0.1 %" : tenth.format(n * 100) + " %");
function bytes(n) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024 || unit === "GiB") return (unit === "B" ? whole : tenth).format(n) + " " + unit;
    n /= 1024;
  }
}
function ms(n) {
  if (n === null || n === undefined) return "–";
  if (n >= 10_000) return tenth.format(n / 1000) + " s";
  return n >= 1000 ? (n / 1000).toFixed(2) + " s" : n >= 100 ? n.toFixed(0) + " ms" : n.toFixed(n < 10 ? 2 : 1) + " ms";
}
function age(s) {
  if (s === null || s === undefined) return "–";
  if (s < 10) return tenth.format(s) + " s";
  return s < 120 ? whole.format(s) + " s" : s < 7200 ? whole.format(s / 60) + " min" : s < 172800 ? whole.format(s / 3600) + " h" : whole.format(s / 86400) + " d";
}
const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");
const words = { rejected: "rejected", blocked: "blocked", sampled_out: "sampled out", dropped: "dropped", changed: "changed", refused: "requests refused", delivered: "delivered", held: "held", missing: "missing", span_logs: "span logs", kept: "kept", shed: "shed" };
const word = (name) => words[name] ?? name;

// --- the page's tree -------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
function grow(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}
const el = (tag, props, ...children) => grow(document.createElement(tag), props, children);
const svg = (tag, props, ...children) => grow(document.createElementNS(SVG, tag), props, children);
const text = (value) => el("span", { class: "text", title: cut(one(value), 2000) }, one(value));

// Makes ``old`` look as ``fresh`` does, in place: focus, selection and open details stay where they are.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const handler of ["onclick", "onkeydown"]) old[handler] = fresh[handler];
  morphChildren(old, [...fresh.childNodes]);
}
// A key belongs to one child: two that share one would change places, and all behind them, at every reading.
function morphChildren(old, fresh) {
  const keyOf = (node) => node.dataset?.key;
  const wanted = new Set(fresh.map(keyOf));
  const known = new Map();
  for (const child of [...old.childNodes]) {
    if (keyOf(child) === undefined) continue;
    if (wanted.has(keyOf(child))) known.set(keyOf(child), child);
    else child.remove();
  }
  let at = old.firstChild;
  for (const next of fresh) {
    const key = keyOf(next);
    const match = key !== undefined ? known.get(key) : at && keyOf(at) === undefined ? at : null;
    if (!match) old.insertBefore(next, at);
    else {
      if (match === at) at = at.nextSibling;
      else old.insertBefore(match, at);
      morph(match, next);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
function put(id, ...children) {
  const focus = document.activeElement;
  morphChildren($(id), children.flat().filter(Boolean).map((child) => (typeof child === "string" ? document.createTextNode(child) : child)));
  if (focus !== document.activeElement && focus?.isConnected) focus.focus({ preventScroll: true });
}

// --- tables ----------------------------------------------------------------------------------------------

// A column: {title, width (of 100), cell(row), value(row) if it sorts, num, cls(row)}.  Sorting is remembered by table.
const sorting = {};
function table(name, columns, rows, { key, open, chosen, caption, empty }) {
  if (!rows.length) return el("div", { class: "empty" }, empty ?? "Nothing here.");
  const by = sorting[name];
  if (by) {
    const { value } = columns[by.column];
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : (a ?? -1) - (b ?? -1));
    rows = [...rows].sort((a, b) => compare(value(a), value(b)) * (by.down ? -1 : 1));
  }
  const total = columns.reduce((sum, column) => sum + column.width, 0);
  const heads = columns.map((column, place) => {
    const sorted = by?.column === place ? (by.down ? "descending" : "ascending") : null;
    const sort = () => {
      sorting[name] = { column: place, down: sorted ? !by.down : Boolean(column.num) };
      render();
    };
    return el("th", { scope: "col", class: column.num ? "n" : null, width: `${((100 * column.width) / total).toFixed(2)}%`, "aria-sort": sorted },
      column.value ? el("button", { type: "button", onclick: sort }, column.title) : column.title);
  });
  const lines = rows.map((row) => {
    const cells = columns.map((column, place) => {
      const shown = column.cell(row);
      const linked = place === (columns.lead ?? 0) && open;
      return el("td", { class: [column.num ? "n" : "", column.cls?.(row) ?? ""].join(" ").trim() || null },
        linked ? el("button", { type: "button", class: "link" }, shown) : shown);
    });
    return el("tr", { "data-key": key(row), class: [open ? "opens" : "", chosen?.(row) ? "chosen" : ""].join(" ").trim() || null, onclick: open ? () => open(row) : null }, cells);
  });
  return el("table", { class: columns.length > 5 ? "many" : null }, caption ? el("caption", {}, caption) : null, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, lines));
}
const tag = (level, said) => el("span", { class: `tag ${level}` }, said);

// --- flow ------------------------------------------------------------------------------------------------

function drawVerdict({ verdict, version, started_at, at, watchers }) {
  $("verdict").className = `verdict ${verdict.level}`;
  const more = verdict.causes.slice(1);
  put("verdict", el("p", { class: "line" }, one(verdict.line)), el("p", { class: "todo" }, one(verdict.todo)),
    more.length ? el("details", {}, el("summary", {}, `${more.length} more`), el("ul", {}, more.map((cause) => el("li", {}, el("b", { class: cause.level === "bad" ? "bad-text" : null }, one(cause.line)), " ", one(cause.todo))))) : null);
  put("facts", `tracefwd ${version}, running for ${age(at - started_at)}; ${watchers.streams} of ${watchers.streams_max} streams open, ${watchers.taps} taps`);
}

function drawFlow(flow) {
  const { rates, latency_ms, memory, ledger } = flow;
  const spans = ledger.sections[0];
  const lost = ledger.sections.reduce((sum, part) => sum + (part.name.startsWith("targets.") ? 0 : part.dropped + part.rejected), 0);
  const oldest = Math.max(-1, ...flow.edges.map((edge) => edge.oldest_age_s ?? -1));
  const tile = (id, title, value, note, level) => el("div", { class: "tile", "data-key": id }, el("small", {}, title), el("b", { class: level, id: `tile-${id}` }, value), el("small", { title: note }, note));
  put("tiles",
    tile("in", "Spans in/s", rate(rates.spans), `${rate(rates.requests)} requests/s`),
    tile("out", "Spans delivered/s", rate(rates.delivered_spans), `${bytes(rates.sent_bytes)}/s sent`),
    tile("latency", "Answer, p99", ms(latency_ms.p99), `p95 ${ms(latency_ms.p95)}`),
    tile("held", "Spans held", count(spans.held), oldest < 0 ? (spans.held ? "on their way" : "nothing waits") : `oldest waits ${age(oldest)}`),
    tile("lost", "Rejected, dropped", count(lost), `now ${rate(rates.rejected + rates.dropped)}/s`, rates.dropped ? "bad" : rates.rejected ? "watch" : null),
    tile("changed", "Changed/s", rate(rates.repaired), `sampled out ${rate(rates.sampled_out)}/s`),
    tile("points", "Points scraped/s", rate(rates.scraped_points), "metrics path"),
    tile("memory", "Memory", bytes(memory.used_bytes), memory.stage === "calm" ? (memory.max_bytes ? `of ${bytes(memory.max_bytes)}` : "calm") : `stage: ${memory.stage}`, memory.stage === "calm" ? null : "bad"));
  put("picture", picture(flow), spans.received || rates.spans ? null : howToStart());
  put("picture-table", table("edges", [
    { title: "From", width: 16, cell: (e) => one(nameOf(flow, e.from)) }, { title: "To", width: 16, cell: (e) => one(nameOf(flow, e.to)) },
    { title: "Signal", width: 12, cell: (e) => word(e.signal) }, { title: "A second", width: 9, num: true, cell: (e) => rate(e.per_s) },
    { title: "Waiting", width: 9, num: true, cell: (e) => count(e.backlog_items) }, { title: "Bytes", width: 10, num: true, cell: (e) => bytes(e.backlog_bytes) },
    { title: "Full", width: 8, num: true, cell: (e) => share(e.backlog_share) }, { title: "Oldest", width: 8, num: true, cell: (e) => age(e.oldest_age_s) },
    { title: "Last error", width: 28, cls: (e) => (e.last_error?.now ? "bad" : ""), cell: (e) => (e.last_error ? text(`${clock(e.last_error.at)} ${e.last_error.text}${e.last_error.now ? "" : " (over)"}`) : "–") },
  ], flow.edges, { key: (e) => `${e.from}>${e.to}>${e.signal}` }));
  drawLedger(ledger);
  put("workers", table("workers", [
    { title: "Process", width: 14, cell: (w) => one(w.name) }, { title: "pid", width: 12, num: true, cell: (w) => String(w.pid ?? "–") },
    { title: "State", width: 14, cell: (w) => (!w.ready ? tag("bad", "not ready") : w.stale ? tag("watch", "silent") : tag("ok", "works")) },
    { title: "Restarts", width: 14, num: true, cls: (w) => (w.restarts ? "watch" : ""), cell: (w) => count(w.restarts) },
    { title: "What it says is wrong outside", width: 46, cell: (w) => (w.problems.length ? text(w.problems.join("; ")) : "nothing") },
  ], flow.workers, { key: (w) => w.name }));
}
const nameOf = (flow, id) => {
  const node = flow.nodes.find((each) => each.id === id);
  return node ? (node.kind === "queue" ? `queue of ${id.slice(6)}` : node.title) : id;
};

function drawLedger({ balanced, sections }) {
  const terms = ["delivered", "sampled_out", "blocked", "rejected", "dropped", "held"];
  put("balance", balanced ? tag("ok", "balances") : tag("bad", "does not balance"));
  const spans = sections[0];
  const sum = [el("b", { id: "ledger-received" }, count(spans.received)), " received = ",
    terms.map((name, place) => [place ? " + " : "", el("b", { id: `ledger-${name}` }, count(spans[name])), ` ${word(name)}`]),
    spans.missing ? [" + ", el("b", { class: "bad-text" }, count(spans.missing)), " missing"] : null];
  let at = 0;
  const bar = (parts, label) => svg("svg", { viewBox: "0 0 1000 10", preserveAspectRatio: "none", role: "img", "aria-label": label },
    parts.map(([name, value]) => {
      const width = spans.received ? (1000 * value) / spans.received : 0;
      const rect = svg("rect", { class: name, x: at.toFixed(2), y: 0, width: Math.max(0, width).toFixed(2), height: 10 }, svg("title", {}, `${count(value)} ${word(name)}`));
      at += width;
      return rect;
    }));
  const top = bar([["received", spans.received]], "received");
  at = 0;
  const bottom = bar([...terms, "missing"].map((name) => [name, spans[name]]), "what became of them; the same length where the ledger balances");
  const shown = sections.filter((part) => part.received || part.name === "spans");
  put("ledger", el("p", { class: "sum" }, sum.flat(3)), el("div", { class: "balance" }, top), el("div", { class: "balance" }, bottom),
    el("details", {}, el("summary", {}, "All signals and targets"), el("div", { class: "scroll" }, table("ledger", [
      { title: "", width: 26, cell: (s) => one(s.name).replace("targets.", "to ") },
      { title: "received", width: 12, num: true, cell: (s) => count(s.received) },
      ...terms.map((name) => ({ title: word(name), width: 11, num: true, cell: (s) => count(s[name]), cls: (s) => (s[name] && name === "dropped" ? "bad" : "") })),
      { title: "missing", width: 9, num: true, cls: (s) => (s.missing ? "bad" : ""), cell: (s) => count(s.missing) },
    ], shown, { key: (s) => s.name }))));
}

function howToStart() {
  const snippet = "meshConfig:\n  enableTracing: true\n  defaultConfig:\n    tracing:\n      sampling: 100\n      zipkin:\n        address: tracefwd.observability.svc.cluster.local:9411";
  return el("div", { class: "empty", id: "how-to-start" }, "No span has come yet. Name this service in Istio's mesh configuration and restart a pod:", el("pre", {}, snippet),
    "To try it without a mesh: ", el("code", {}, "tracefwd gen --to http://HOST:9411"));
}

// The pipeline: boxes in stages from left to right, or one under the other where there is no room.
function picture(flow) {
  const stages = { receiver: 0, scraper: 0, processor: 1, red: 2, journal: 2, queue: 3, spool: 3, target: 4 };
  const used = [...new Set(flow.nodes.map((node) => stages[node.kind]))].sort();
  const room = $("picture").clientWidth || 1000;
  const upright = room < 900;
  const [W, H, GAP, ROW] = upright ? [250, 62, 34, 0] : [168, 66, (Math.min(1500, room) - used.length * 168 - 4) / Math.max(1, used.length - 1), 88];
  const rows = {}, place = {};
  const receivers = flow.nodes.filter((node) => node.kind === "receiver").length;
  const middle = 1 + flow.nodes.filter((node) => stages[node.kind] === 2).length;
  const nodes = upright ? [...flow.nodes].sort((a, b) => stages[a.kind] - stages[b.kind]) : flow.nodes;
  nodes.forEach((node, index) => {
    const stage = stages[node.kind];
    // Below everything that its way to the queue would cross.
    if (node.kind === "scraper") rows[0] = Math.max(rows[0] ?? 0, receivers, middle);
    if (stage === 2) rows[2] ??= 1;
    const row = (rows[stage] = rows[stage] ?? 0);
    rows[stage] += 1;
    place[node.id] = upright ? { x: 60, y: 2 + index * (H + GAP), index } : { x: 2 + used.indexOf(stage) * (W + GAP), y: 2 + row * ROW, index };
  });
  const width = upright ? W + 120 : used.length * W + (used.length - 1) * GAP + 4;
  const height = Math.max(...Object.values(place).map((at) => at.y)) + H + 4;
  const pairs = new Map();
  for (const edge of flow.edges) {
    const pair = pairs.get(`${edge.from}>${edge.to}`) ?? { ...edge, per_s: 0, items: 0, errors: [] };
    pair.per_s += edge.per_s;
    pair.items += edge.backlog_items;
    pair.state = ["idle", "ok", "watch", "bad"].find((_, rank, all) => rank === Math.max(all.indexOf(pair.state), all.indexOf(edge.state)));
    pair.oldest = Math.max(pair.oldest ?? -1, edge.oldest_age_s ?? -1);
    if (edge.last_error?.now) pair.errors.push(edge.last_error.text);
    pairs.set(`${edge.from}>${edge.to}`, pair);
  }
  const lines = [], labels = [];
  for (const [key, edge] of pairs) {
    const a = place[edge.from], b = place[edge.to];
    if (!a || !b) continue;
    const said = edge.items ? `${count(edge.items)} wait${edge.oldest >= 0 ? `, ${age(edge.oldest)}` : ""}` : `${rate(edge.per_s)}/s`;
    let path, x, y, anchor = "middle";
    if (upright) {
      const next = b.index === a.index + 1, back = b.index < a.index;
      const side = back || b.index - a.index > 3 ? [W + 60, 1] : [60, -1];
      const reach = side[0] + side[1] * Math.min(54, 16 + 7 * Math.abs(b.index - a.index));
      path = next ? `M${60 + W / 2} ${a.y + H}V${b.y}` : `M${side[0]} ${a.y + H / 2}C${reach} ${a.y + H / 2} ${reach} ${b.y + H / 2} ${side[0]} ${b.y + H / 2}`;
      [x, y, anchor] = next ? [60 + W / 2 + 8, b.y - GAP / 2 + 4, "start"] : [null];
    } else {
      const from = [a.x + W, a.y + H / 2], to = [b.x, b.y + H / 2], bend = b.x - GAP / 2;
      if (a.x === b.x) path = `M${a.x + W / 2} ${Math.min(a.y, b.y) + H}V${Math.max(a.y, b.y)}`;
      else path = `M${from}H${b.x - GAP}C${bend} ${from[1]} ${bend} ${to[1]} ${to}`;
      [x, y] = [bend, (from[1] === to[1] ? to[1] : (from[1] + to[1]) / 2) - 6];
    }
    const errors = edge.errors.map(one).join("; ");
    lines.push(svg("path", { "data-key": key, class: `edge ${edge.state}`, d: path }, svg("title", {}, [said, errors].filter(Boolean).join(": "))));
    if (x !== null && (edge.state !== "idle" || edge.items)) labels.push(svg("text", { "data-key": `label ${key}`, class: `small halo ${edge.state === "bad" ? "bad" : ""}`, x, y, "text-anchor": anchor }, said));
  }
  const boxes = flow.nodes.map((node) => {
    const { x, y } = place[node.id];
    const unit = { scraper: "points/s", red: "spans/s", queue: "lines/s", target: "lines/s", spool: null, journal: "entries/s" }[node.kind];
    const number = unit === null ? `${count(node.total)} lines` : `${rate(node.per_s)} ${unit ?? "spans/s"}`;
    const note = node.kind === "red" ? `${count(node.total)} series` : node.kind === "queue" ? `${count(node.total)} held, ${node.note}` : node.kind === "journal" ? node.note || bytes(node.total) : node.note || `${count(node.total)} so far`;
    const room = upright ? 34 : 25;
    return svg("g", { "data-key": node.id, class: `node ${node.state}` }, svg("title", {}, one(`${node.title}: ${node.state}; ${number}; ${note}`)),
      svg("rect", { class: "box", x, y, width: W, height: H, rx: 7 }), svg("rect", { class: "mark", x, y: y + 8, width: 4, height: H - 16, rx: 2 }),
      svg("text", { class: "name", x: x + 14, y: y + 19 }, cut(one(node.title), room - 6)), svg("text", { class: "big", x: x + 14, y: y + 38 }, number),
      svg("text", { class: "small", x: x + 14, y: y + 55 }, cut(one(note), room)));
  });
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "The pipeline from receivers to targets; the table below says the same" }, lines, boxes, labels);
}

function drawWorst(services) {
  const all = flatten(services);
  const failing = all.filter((s) => s.red.error_share >= 0.01).sort((a, b) => b.red.error_share - a.red.error_share).slice(0, 5);
  const slow = all.filter((s) => s.red.p95_ms !== null && s.red.rate > 0).sort((a, b) => b.red.p95_ms - a.red.p95_ms).slice(0, 5);
  const name = { title: "Service", width: 31, cell: (s) => text(`${s.service} (${s.application})`) };
  const open = (s) => { location.hash = "#/services"; pick(s); };
  const key = (s) => `${s.application}/${s.service}`;
  put("worst",
    table("failing", [name, { title: "Errors", width: 22, num: true, cls: () => "bad", cell: (s) => share(s.red.error_share) }, { title: "Errors/s", width: 22, num: true, cell: (s) => rate(s.red.errors) }, { title: "By minute", width: 25, cell: (s) => spark(s.red.plot) }],
      failing, { key, open, empty: services.red_enabled ? "No service fails in more than 1 of 100 spans." : "red.enabled is off: services cannot be watched." }),
    el("div", { "data-key": "gap" }, el("h3", {}, "Slowest")),
    table("slow", [name, { title: "p95", width: 22, num: true, cell: (s) => ms(s.red.p95_ms) }, { title: "p99", width: 22, num: true, cell: (s) => ms(s.red.p99_ms) }, { title: "", width: 25, cell: (s) => level(s.red.p95_ms / slow[0].red.p95_ms) }],
      slow, { key, open, empty: "No durations yet: RED is read every few seconds while this page is open." }));
}
const level = (part) => svg("svg", { class: "spark", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { x: 0, y: 3, width: (100 * part).toFixed(1), height: 4 }));

// --- history ---------------------------------------------------------------------------------------------

const PLOTS = [
  ["Spans a second", rate, [["received", "spans_per_s"], ["delivered", "delivered_per_s"]]],
  ["Lost, a second", rate, [["rejected", "rejected_per_s"], ["dropped", "dropped_per_s"]]],
  ["Answers", ms, [["p50", "latency_p50_ms"], ["p95", "latency_p95_ms"], ["p99", "latency_p99_ms"]]],
  ["Items held", count, [["held", "held_items"]]],
  ["Queue and spool", bytes, [["queue", "queue_bytes"], ["spool", "spool_bytes"]]],
  ["Memory", bytes, [["used", "memory_bytes"]]],
];
function drawHistory({ at, columns, step_s }) {
  // What is known fills the width, but at least five minutes, so that the first points are no wall.
  const lastAt = at.at(-1) ?? 0, steps = Math.min(3600, Math.max(300, lastAt - at[0])) / step_s;
  const began = `${age(steps * step_s)} ago`;
  put("plots", at.length < 2 ? el("div", { class: "empty" }, "The first plot needs 20 seconds; it then shows the last hour.") : PLOTS.map(([title, unit, lines]) => {
    const top = Math.max(1e-9, ...lines.flatMap(([, name]) => columns[name].map((value) => value ?? 0)));
    const parts = lines.flatMap(([, name], place) => {
      const runs = [[]];
      columns[name].forEach((value, index) => {
        const x = steps - (lastAt - at[index]) / step_s;
        if (value === null) runs.push([]);
        else if (x >= 0) runs.at(-1).push(`${x.toFixed(1)},${(98 - (94 * value) / top).toFixed(1)}`);
      });
      return runs.filter((run) => run.length).map((run) => svg("polyline", { class: `s${place + 1}`, points: run.length > 1 ? run.join(" ") : `${run[0]} ${run[0]}` }));
    });
    const now = lines.map(([said, name], place) => el("span", {}, el("i", { class: `s${place + 1}` }), `${said} ${unit(columns[name].at(-1) ?? 0)}`));
    return el("figure", { "data-key": title }, el("figcaption", {}, title),
      el("div", { class: "plot" }, el("span", { class: "top" }, unit(top < 1e-6 ? 0 : top)), svg("svg", { viewBox: `0 0 ${steps} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `${title} over the last hour; the table below has the numbers` }, parts)),
      el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, began), el("span", {}, "now")), el("div", { class: "legend" }, now));
  }));
  const rows = PLOTS.flatMap(([title, unit, lines]) => lines.map(([said, name]) => {
    const values = columns[name].filter((value) => value !== null);
    return { name: `${title}: ${said}`, unit, values, last: columns[name].at(-1) };
  }));
  const fact = (title, of) => ({ title, width: 15, num: true, cell: (r) => (r.values.length ? r.unit(of(r)) : "–") });
  put("plots-table", table("plots", [{ title: "Last hour", width: 30, cell: (r) => r.name }, fact("now", (r) => r.last ?? 0), fact("least", (r) => Math.min(...r.values)),
    fact("mean", (r) => r.values.reduce((a, b) => a + b, 0) / r.values.length), fact("most", (r) => Math.max(...r.values))], rows, { key: (r) => r.name }));
}
function addStep(step) {
  const history = docs.history;
  if (!history) return;
  if (history.at.at(-1) === step.at) return;
  history.at.push(step.at);
  for (const [name, values] of Object.entries(history.columns)) values.push(step[name] ?? null);
  if (history.at.length > 360) [history.at, ...Object.values(history.columns)].forEach((values) => values.shift());
}

// --- services --------------------------------------------------------------------------------------------

const flatten = (services) => services.applications.flatMap(({ application, services }) => services.map((each) => ({ ...each, application })));
const search = (form) => $(form).querySelector("[data-search]").value.trim().toLowerCase();
function spark({ spans, errors }) {
  const top = Math.max(1, ...spans);
  const bars = spans.flatMap((value, at) => [[value, ""], [errors[at], "e"]].filter(([n]) => n).map(([n, cls]) => svg("rect", { class: cls || null, x: at * 8, y: (22 - (22 * n) / top).toFixed(1), width: 6.5, height: ((22 * n) / top).toFixed(1) })));
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  return svg("svg", { class: "spark", viewBox: "0 0 120 22", preserveAspectRatio: "none", role: "img", "aria-label": `${count(sum(spans))} spans, ${count(sum(errors))} errors in the last 15 whole minutes` }, bars);
}
const red = [
  { title: "Rate/s", width: 9, num: true, value: (s) => s.red.rate, cell: (s) => rate(s.red.rate) },
  { title: "Errors/s", width: 9, num: true, value: (s) => s.red.errors, cell: (s) => rate(s.red.errors) },
  { title: "Errors", width: 9, num: true, value: (s) => s.red.error_share, cls: (s) => (s.red.error_share >= 0.05 ? "bad" : s.red.error_share >= 0.01 ? "watch" : ""), cell: (s) => share(s.red.error_share) },
  ...["p50", "p95", "p99"].map((name) => ({ title: name, width: 9, num: true, value: (s) => s.red[`${name}_ms`], cell: (s) => ms(s.red[`${name}_ms`]) })),
  { title: "15 minutes", width: 14, cell: (s) => spark(s.red.plot) },
];
const serviceColumns = [{ title: "Service", width: 20, value: (s) => s.service, cell: (s) => text(s.service) }, { title: "Application", width: 13, value: (s) => s.application, cell: (s) => text(s.application) }, ...red];
const same = (a, b) => a !== null && a.service === b.service && a.application === b.application;
function pick(service) {
  state.service = service && same(state.service, service) ? null : service;
  state.operations = null;
  loadOperations();
  render();
}
function drawServices() {
  const services = docs.services, wanted = search("services");
  if (services) {
    const all = flatten(services);
    const shown = all.filter((s) => `${s.service} ${s.application}`.toLowerCase().includes(wanted));
    sorting.services ??= { column: 2, down: true };
    put("services-table", table("services", serviceColumns, shown, {
      key: (s) => `${s.application}/${s.service}`, open: pick, chosen: (s) => same(state.service, s),
      empty: wanted && all.length ? "No service has that in its name." : services.red_enabled ? howToStart() : "red.enabled is off: there is nothing to show here. Set it to true.",
    }));
    put("services-note", `${count(shown.length)} of ${count(all.length)} services, numbers of the last ${age(services.window_s)}`);
  }
  $("all-services").hidden = state.service === null;
  put("operations-title", state.service ? `Operations of ${one(state.service.service)}` : "Operations");
  if (state.operations) {
    sorting.operations ??= { column: 2, down: true };
    const name = { title: "Operation", width: 32, value: (o) => o.operation, cell: (o) => text(o.operation) };
    const whose = { title: "Service", width: 14, value: (o) => o.service, cell: (o) => text(o.service) };
    put("operations-table", table("operations", [name, whose, ...red], state.operations.operations, {
      key: (o) => `${o.application}/${o.service}/${o.operation}`,
      caption: state.operations.left_out ? `The busiest; ${count(state.operations.left_out)} more are left out: search for them.` : null,
      empty: "No operation yet.",
    }));
  }
  if (docs.edges) drawGraph(docs.edges, wanted);
}
async function loadOperations() {
  const query = new URLSearchParams({ search: $("services").querySelector("[data-search]").value.trim() });
  if (state.service) for (const name of ["application", "service"]) query.set(name, state.service[name]);
  const wanted = state.service;
  const found = await get(`operations?${query}`);
  if (found && wanted === state.service) state.operations = found;
  render();
}

// --- who calls whom --------------------------------------------------------------------------------------

const ROWS_MAX = 22, CELL = { w: 172, h: 24, x: 236, y: 34 };
const layouts = { signature: "" };
// Columns by the longest way from a caller (cycles are cut where they close); rows near those that they talk to.
function layout(nodes, edges) {
  const signature = JSON.stringify([nodes.map((n) => n.id + n.service), edges.map((e) => [e.from, e.to])]);
  if (layouts.signature === signature) return layouts.places;
  const out = new Map(nodes.map((node) => [node.id, []])), into = new Map(nodes.map((node) => [node.id, []]));
  const mark = new Map(), order = [];
  for (const { from, to } of edges) out.get(from)?.push(to);
  const visit = (id) => {
    mark.set(id, 1);
    for (const next of out.get(id)) {
      if (mark.get(next) === 1) continue;
      into.get(next)?.push(id);
      if (!mark.has(next)) visit(next);
    }
    mark.set(id, 2);
    order.unshift(id);
  };
  const called = new Set(edges.filter((edge) => edge.from !== edge.to).map((edge) => edge.to));
  for (const node of [...nodes].sort((a, b) => called.has(a.id) - called.has(b.id))) if (!mark.has(node.id)) visit(node.id);
  const depth = new Map();
  for (const id of order) depth.set(id, Math.max(0, ...into.get(id).filter((from) => depth.has(from)).map((from) => depth.get(from) + 1)));
  const layers = [];
  for (const id of order) (layers[depth.get(id)] ??= []).push(id);
  const row = new Map();
  const settle = (layer) => layer.forEach((id, place) => row.set(id, place - layer.length / 2));
  layers.forEach(settle);
  for (let sweep = 0; sweep < 6; sweep += 1) {
    for (const layer of sweep % 2 ? [...layers].reverse() : layers) {
      const weight = new Map(layer.map((id) => {
        const near = sweep % 2 ? out.get(id) : into.get(id);
        return [id, near.length ? near.reduce((sum, other) => sum + row.get(other), 0) / near.length : row.get(id)];
      }));
      layer.sort((a, b) => weight.get(a) - weight.get(b));
      settle(layer);
    }
  }
  const places = new Map();
  let column = 0, most = 1;
  for (const layer of layers) {
    const wide = Math.ceil(layer.length / ROWS_MAX), high = Math.ceil(layer.length / wide);
    most = Math.max(most, high);
    layer.forEach((id, place) => places.set(id, { column: column + Math.floor(place / high), row: place % high, of: Math.min(high, layer.length - Math.floor(place / high) * high) }));
    column += wide;
  }
  for (const place of places.values()) Object.assign(place, { x: 4 + place.column * CELL.x, y: 6 + (place.row + (most - place.of) / 2) * CELL.y });
  places.width = Math.max(0, column - 1) * CELL.x + CELL.w + 8;
  places.height = most * CELL.y + 8;
  return Object.assign(layouts, { signature, places }).places;
}
function drawGraph({ nodes, edges, examined_share, left_out, window_s }, wanted) {
  const nameOf = new Map(nodes.map((node) => [node.id, node]));
  if (wanted) {
    const hit = new Set(nodes.filter((node) => `${node.service} ${node.application}`.toLowerCase().includes(wanted)).map((node) => node.id));
    edges = edges.filter((edge) => hit.has(edge.from) || hit.has(edge.to));
    const near = new Set(edges.flatMap((edge) => [edge.from, edge.to]));
    nodes = nodes.filter((node) => hit.has(node.id) || near.has(node.id));
  }
  const nameKey = (node) => `${node.application}/${node.service}`;
  const picked = nodes.find((node) => nameKey(node) === state.picked) ?? null;
  const places = layout(nodes, edges);
  const touches = (edge) => picked && (edge.from === picked.id || edge.to === picked.id);
  const near = new Set(picked ? edges.filter(touches).flatMap((edge) => [edge.from, edge.to]).concat(picked.id) : []);
  const lines = [], labels = [];
  for (const edge of edges) {
    const a = places.get(edge.from), b = places.get(edge.to);
    const failing = edge.calls ? edge.errors / edge.calls : 0, on = touches(edge);
    const from = [a.x + CELL.w, a.y + CELL.h / 2], to = [b.x, b.y + CELL.h / 2];
    const forth = b.column > a.column, reach = forth ? Math.max(30, (to[0] - from[0]) / 2) : 46;
    const path = `M${from}C${from[0] + reach} ${from[1]} ${to[0] - reach} ${to[1]} ${to}`;
    const key = `${nameKey(nameOf.get(edge.from))}>${nameKey(nameOf.get(edge.to))}`;
    const said = `${rate(edge.calls)}/s, ${ms(edge.mean_ms)}${failing >= 0.001 ? `, ${share(failing)} fail` : ""}`;
    lines.push(svg("path", { "data-key": key, class: `edge ${failing >= 0.05 ? "bad" : failing >= 0.01 ? "watch" : ""} ${on ? "on" : picked ? "faint" : ""}`, "stroke-width": (1 + Math.log2(1 + edge.calls) / 2.5).toFixed(2), d: path },
      svg("title", {}, `${one(nameOf.get(edge.from).service)} calls ${one(nameOf.get(edge.to).service)}: ${said}`)));
    if (on || (!picked && edges.length <= 12)) {
      const t = 0.72;  // past where the ways of one caller part
      labels.push(svg("text", { "data-key": `label ${key}`, class: `small halo ${failing >= 0.05 ? "bad" : ""}`, x: from[0] + (to[0] - from[0]) * t, y: from[1] + (to[1] - from[1]) * t - 4, "text-anchor": "middle" }, `${rate(edge.calls)}/s`,));
    }
  }
  const choose = (node) => { state.picked = node && nameKey(node) !== state.picked ? nameKey(node) : null; render(); };
  const boxes = nodes.map((node) => {
    const { x, y } = places.get(node.id);
    return svg("g", { "data-key": nameKey(node), class: `node ${node.outside ? "outside" : ""} ${node === picked ? "picked" : picked && !near.has(node.id) ? "faint" : ""}`, onclick: () => choose(node) },
      svg("title", {}, one(`${node.service} (${node.application || "outside"}): called ${rate(node.calls_in)}/s, calls ${rate(node.calls_out)}/s`)),
      svg("rect", { class: "box", x, y, width: CELL.w, height: CELL.h, rx: 5 }), svg("text", { x: x + 8, y: y + 16.5 }, cut(one(node.service), 23)));
  });
  const move = (event) => {
    const here = picked ? places.get(picked.id) : null;
    const steps = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    if (event.key === "Escape") return choose(picked);
    if (!steps || !nodes.length) return;
    event.preventDefault();
    const far = (node) => {
      const at = places.get(node.id), dx = (at.x - here.x) * steps[0], dy = (at.y - here.y) * steps[1];
      if (steps[0] ? dx <= 0 : dy <= 0 || at.x !== here.x) return Infinity;
      return steps[0] ? dx * 100 + Math.abs(at.y - here.y) : dy;
    };
    const next = here ? [...nodes].sort((a, b) => far(a) - far(b))[0] : nodes[0];
    if (!here || far(next) < Infinity) choose(next);
  };
  const picture = svg("svg", { class: nodes.length > 30 ? "dense" : null, width: places.width, height: places.height, viewBox: `0 0 ${places.width} ${places.height}`, tabindex: 0, role: "group", onkeydown: move,
    "aria-label": "Services and their calls; arrow keys choose a service, the table below says the same" }, lines, boxes, labels);
  const told = picked ? `${picked.service}: called ${rate(picked.calls_in)}/s, calls ${rate(picked.calls_out)}/s.` : "Choose a service to see its calls alone.";
  put("graph", nodes.length ? [el("p", { class: "muted" }, `${one(told)} Estimated from ${share(examined_share)} of the spans of the last ${age(window_s)}${left_out ? `; ${count(left_out)} calls are left out` : ""}.`), picture]
    : el("div", { class: "empty" }, wanted ? "No call of such a service." : "No call seen yet. CLIENT spans tell them, or SERVER spans whose peer.service is set."));
  put("edges-table", table("calls", [
    { title: "Caller", width: 24, value: (e) => nameOf.get(e.from).service, cell: (e) => text(nameOf.get(e.from).service) },
    { title: "Called", width: 24, value: (e) => nameOf.get(e.to).service, cell: (e) => text(nameOf.get(e.to).service) },
    { title: "Calls/s", width: 12, num: true, value: (e) => e.calls, cell: (e) => rate(e.calls) }, { title: "Errors/s", width: 12, num: true, value: (e) => e.errors, cls: (e) => (e.errors > 0.05 * e.calls ? "bad" : ""), cell: (e) => rate(e.errors) },
    { title: "Mean", width: 12, num: true, value: (e) => e.mean_ms, cell: (e) => ms(e.mean_ms) },
  ], edges, { key: (e) => `${nameKey(nameOf.get(e.from))}>${nameKey(nameOf.get(e.to))}` }));
}

// --- spans -----------------------------------------------------------------------------------------------

const spanFilter = () => {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData($("spans").querySelector("form"))) if (value.trim()) query.set(name, value === "on" ? "true" : value.trim());
  return query;
};
async function loadSpans() {
  const query = spanFilter();
  if (state.held) return;
  const found = String(query) ? await get(`spans?${query}`) : docs.spans ?? (await get("spans"));
  if (found && String(spanFilter()) === String(query)) state.spans = found;
  render();
}
function drawSpans() {
  const names = docs.services ? [...new Set(flatten(docs.services).map((s) => s.service))] : [];
  put("service-names", names.map((name) => el("option", { value: name })));
  if (!state.spans) return;
  const { spans, examined, left_out } = state.spans;
  const filtered = String(spanFilter());
  put("spans-table", table("spans", Object.assign([
    { title: "Came at", width: 8, cell: (s) => clock(s.at) },
    { title: "Operation", width: 30, cell: (s) => text(s.operation) }, { title: "Service", width: 14, cell: (s) => text(s.service) },
    { title: "Kind", width: 7, cell: (s) => text(s.kind) }, { title: "Status", width: 7, cls: (s) => (s.error ? "bad" : ""), cell: (s) => text((s.error ? "✕ " : "") + (s.status || (s.error ? "error" : "–"))) },
    { title: "Duration", width: 9, num: true, cls: (s) => (s.slow ? "watch" : ""), cell: (s) => ms(s.duration_ms) },
    { title: "Fate", width: 8, cell: (s) => (s.fate === "kept" ? "kept" : tag("watch", word(s.fate))) },
    { title: "Source", width: 17, cell: (s) => text(s.source) },
  ], { lead: 1 }), spans, {
    key: (s) => s.id, open: (s) => openSpan(s.id),
    empty: filtered ? "No sampled span is like that. The sample is small: wait, or ask for less." : howToStart(),
  }));
  put("spans-note", `${count(spans.length)} shown${left_out ? `, ${count(left_out)} more` : ""}; a sample of ${count(examined)} examined spans`);
}
async function openSpan(id) {
  const dialog = $("span");
  const found = await get(`spans/${encodeURIComponent(id)}`, (refusal) => ({ refusal }));
  if (!found) return;
  const close = el("button", { type: "button", class: "close", onclick: () => dialog.close() }, "Close");
  if (found.refusal) {
    dialog.replaceChildren(el("div", { class: "head" }, el("h2", { id: "span-title" }, "This span has gone"), close), el("div", { class: "body" }, el("p", {}, `${found.refusal.message}: ${found.refusal.todo}.`)));
  } else {
    const { row } = found;
    const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, one(value) || "–"));
    const repairs = Object.entries(found.repairs).map(([name, times]) => `${name} × ${times}`).join(", ");
    dialog.replaceChildren(el("div", { class: "head" }, el("h2", { id: "span-title" }, one(row.operation)), close), el("div", { class: "body" },
      el("dl", { class: "facts" }, fact("Service", `${row.service} (${row.application})`), fact("Came at", clock(row.at)), fact("Duration", ms(row.duration_ms)), fact("Status", `${row.status}${row.error ? " error" : ""}`),
        fact("Kind", row.kind), fact("Source", row.source), fact("Trace", row.trace), fact("Span", row.span), fact("Parent", row.parent), fact("Format", row.format), fact("Sampling", found.sampling), fact("Mended in its request", repairs)),
      el("div", { class: "pair" }, el("div", {}, el("h3", {}, `As received (${found.received_as})`), el("pre", { tabindex: 0, id: "span-received" }, visible(found.received))),
        el("div", {}, el("h3", {}, "As sent"), el("pre", { tabindex: 0, id: "span-sent" }, found.sent.map(visible).join("\n\n") || "It was not sent."))),
      el("h3", {}, "What became of every field and tag"),
      el("div", { class: "scroll", id: "span-fields" }, table("fields", [{ title: "Field", width: 24, cell: (f) => text(f.path) }, { title: "Value", width: 34, cell: (f) => text(f.value) }, { title: "Fate", width: 10, cell: (f) => one(f.fate) }, { title: "Why", width: 32, cell: (f) => text(f.reason) }],
        found.fields, { key: (f) => f.path, empty: "Only what was read of it is known." })),
      found.red.length ? [el("h3", {}, "RED series that it feeds"), el("pre", { tabindex: 0 }, found.red.map(visible).join("\n"))] : null));
  }
  if (!dialog.open) dialog.showModal();
}

// --- refused and changed, metrics path, configuration ----------------------------------------------------

function drawRefused({ reasons, samples, refused_lines }) {
  put("reasons", table("reasons", [
    { title: "What", width: 13, value: (r) => r.what, cell: (r) => tag(r.what === "dropped" || r.what === "refused" ? "bad" : r.what === "rejected" ? "watch" : "", word(r.what)) },
    { title: "Reason", width: 20, value: (r) => r.reason, cell: (r) => text(r.reason) }, { title: "What it means", width: 45, cell: (r) => text(r.meaning) },
    { title: "So far", width: 11, num: true, value: (r) => r.spans, cell: (r) => count(r.spans) }, { title: "A second", width: 11, num: true, value: (r) => r.per_s, cell: (r) => rate(r.per_s) },
  ], reasons, { key: (r) => `${r.what}/${r.reason}`, empty: "Nothing was refused, sampled out or changed so far. What ever is, is told here with its reason and a sample." }));
  put("samples", table("samples", [
    { title: "At", width: 8, cell: (s) => clock(s.at) }, { title: "What", width: 10, cell: (s) => word(s.what) }, { title: "Reason", width: 13, cell: (s) => text(s.reason) },
    { title: "Sender", width: 16, cell: (s) => text(s.sender || "not known") }, { title: "Where", width: 22, cell: (s) => text([s.where, s.detail].filter(Boolean).join(": ")) },
    { title: "Sample, masked", width: 40, cell: (s) => el("details", {}, el("summary", {}, el("span", {}, cut(one(s.sample.replace(/\s*\n\s*/g, " ")), 110))), el("pre", {}, visible(s.sample)), s.span ? el("p", {}, el("button", { type: "button", class: "link", onclick: () => openSpan(s.span) }, "Show the whole span")) : null) },
  ], samples, { key: (s) => `${s.at}/${s.what}/${s.reason}/${s.span}/${s.sample.length}`, empty: "No sample yet." }));
  put("refused-lines", table("lines", [
    { title: "At", width: 8, cell: (l) => clock(l.at) }, { title: "Where", width: 22, cell: (l) => text(l.where) }, { title: "The backend said", width: 28, cell: (l) => text(l.said) }, { title: "Line, masked", width: 42, cell: (l) => text(l.line) },
  ], refused_lines, { key: (l) => `${l.at}/${l.line.length}/${l.said}`, empty: "No backend refused a line so far." }));
}

function drawSources({ enabled, sources }) {
  if (!sources.length) {
    const snippet = "prometheus_sources:\n  - url: http://prometheus.istio-system:9090/federate?match[]={job=~\"federate|kubernetes-pods\"}\n    collection: {interval: 60s}";
    return put("sources", el("div", { class: "card empty" }, enabled ? "The scraper has not spoken yet." : "Nothing is scraped. To forward Istio's metrics from the federated Prometheus, add to the configuration:", enabled ? null : el("pre", {}, snippet)));
  }
  const now = docs["metrics-path"].at;
  put("sources", sources.map((source) => {
    const name = source.name;
    const fact = (title, value) => el("div", {}, el("dt", {}, title), el("dd", {}, value));
    const list = (rows, columns, caption, empty) => el("div", { class: "scroll" }, el("h3", {}, caption), table(`${name} ${caption}`, columns, rows, { key: (r) => r.name, empty }));
    return el("div", { class: "card", "data-key": name }, el("h2", {}, one(name), " ", source.up === null ? tag("", "not scraped yet") : source.up ? tag("ok", "up") : tag("bad", "down")),
      source.trouble ? el("p", { class: "bad-text" }, one(source.trouble)) : null,
      el("dl", { class: "facts" }, fact("Last whole scrape", source.last_scrape_at ? `${age(Math.max(0, now - source.last_scrape_at))} ago` : "none"), fact("It took", ms(source.last_scrape_s * 1000)), fact("Interval", age(source.interval_s)),
        fact("Points a second", rate(source.points_per_s)), fact("Points so far", count(source.points)), fact("Samples read", count(source.samples)), fact("Bad lines", Object.entries(source.bad_lines).map(([why, n]) => `${one(why)} ${count(n)}`).join(", ") || "none"), fact("URL", one(source.url))),
      el("div", { class: "pair" },
        list(source.families, [{ title: "Name", width: 75, value: (f) => f.name, cell: (f) => text(f.name) }, { title: "Points", width: 25, num: true, value: (f) => f.points, cell: (f) => count(f.points) }], "Points by family", "No point yet."),
        el("div", {},
          list(source.never_seen.map((each) => ({ name: each })), [{ title: "Pattern", width: 1, cell: (f) => text(f.name) }], "Allowed but never seen", "Every pattern of the allow lists has matched something."),
          list(source.not_sent, [{ title: "Name", width: 60, value: (f) => f.name, cell: (f) => text(f.name) }, { title: "Why not", width: 40, cell: (f) => text(Object.entries(f.reasons).map(([why, n]) => `${why} ${count(n)}`).join(", ")) }], "Came but not sent", "Everything that came was sent."))));
  }));
}

async function loadOptions() {
  const found = await get("configuration");
  if (found) state.options = found.options;
  render();
}
function drawOptions() {
  if (!state.options) return;
  const wanted = search("configuration"), changed = $("configuration").querySelector("[name=changed]").checked;
  const say = (value) => (typeof value === "string" ? value || '""' : JSON.stringify(value));
  const shown = state.options.filter((o) => (!changed || !o.default) && `${o.key} ${say(o.value)} ${o.origin} ${o.doc}`.toLowerCase().includes(wanted));
  put("options", table("options", [
    { title: "Option", width: 26, value: (o) => o.key, cell: (o) => el("code", {}, one(o.key)) }, { title: "Value, masked", width: 24, cell: (o) => el("code", {}, visible(say(o.value))) },
    { title: "Comes from", width: 16, value: (o) => o.origin, cell: (o) => (o.origin === "default" ? el("span", { class: "muted" }, "default") : text(o.origin)) }, { title: "", width: 38, cell: (o) => el("span", { class: "muted" }, one(o.doc)) },
  ], shown, { key: (o) => o.key, empty: "No option has that in its name, value, origin or explanation." }));
  put("configuration-note", `${count(shown.length)} of ${count(state.options.length)} options`);
}

// --- live ------------------------------------------------------------------------------------------------

let source = null, heardAt = null, openedAt = 0, trouble = "";
const seconds = () => performance.now() / 1000;

async function get(path, onRefusal) {
  try {
    const answer = await fetch(`/api/v1/${path}`, { cache: "no-store" });
    if (answer.ok) return await answer.json();
    if (answer.status === 401) askForToken();
    const refusal = await answer.json();
    trouble = refusal.message;
    return onRefusal ? onRefusal(refusal) : null;
  } catch {
    return null; // the pill says that nothing is heard
  }
}
function connect() {
  source?.close();
  openedAt = seconds();
  source = new EventSource(`/api/v1/events?views=${["flow", ...VIEWS[state.view]].join(",")}`);
  source.addEventListener("open", () => { if (VIEWS[state.view].includes("history")) loadHistory(); });
  for (const name of new Set(["flow", ...Object.values(VIEWS).flat()])) {
    source.addEventListener(name, ({ data }) => {
      heardAt = seconds();
      trouble = "";
      signedIn();
      if (name === "history") addStep(JSON.parse(data));
      else docs[name] = JSON.parse(data);
      if (name === "services" && state.view === "services") loadOperations();
      else if (name === "spans") loadSpans();
      else render();
      beat();
    });
  }
}
async function loadHistory() {
  docs.history = (await get("history")) ?? docs.history;
  render();
}
// Once a second: is it live, and if not, since when and why?
function beat() {
  const quiet = heardAt === null ? seconds() - openedAt : seconds() - heardAt;
  const live = heardAt !== null && quiet < STALE_S;
  const pill = $("live");
  document.body.classList.toggle("stale", !live && heardAt !== null);
  pill.className = `pill ${live ? "ok" : quiet > STALE_S ? "bad" : ""}`;
  pill.title = trouble;
  const said = live ? `live, ${docs.flow ? clock(docs.flow.at) : ""}` : quiet > STALE_S ? `stale for ${Math.floor(quiet)} s, trying again` : "connecting";
  if (pill.textContent !== said) pill.textContent = said;
}
async function tick() {
  beat();
  const now = seconds(), quiet = now - (heardAt ?? openedAt);
  const closed = source?.readyState === EventSource.CLOSED;
  if (!document.hidden && $("signin").hidden && source && (closed || quiet > DEAD_S) && now - openedAt > RETRY_MS / 1000) {
    openedAt = now;
    if (await get("session")) connect();
  }
}
function askForToken() {
  source?.close();
  if (!$("signin").hidden) return;
  $("signin").hidden = false;
  $("main").hidden = true;
  $("signin").elements.token.focus();
}
function signedIn() {
  if ($("signin").hidden) return;
  $("signin").hidden = true;
  $("main").hidden = false;
}
$("signin").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = $("signin").elements.token;
  const wrong = $("signin").querySelector(".wrong");
  try {
    const answer = await fetch("/api/v1/session", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token: token.value }) });
    wrong.textContent = answer.ok ? "" : (await answer.json()).message;
    if (!answer.ok) return token.select();
  } catch {
    wrong.textContent = "The admin port does not answer.";
    return;
  }
  token.value = "";
  signedIn();
  connect();
});

// --- views -----------------------------------------------------------------------------------------------

// What is pressed must not move before it is released, or there is no click: the browser finds the press and the release
// on different nodes.  A release that nobody told us of holds the page for PRESSED_S at most.
const PRESSED_S = 5;
let pressedAt = -Infinity, due = false;
addEventListener("pointerdown", () => { pressedAt = seconds(); }, true);
for (const name of ["pointerup", "pointercancel"]) {
  addEventListener(name, () => {
    pressedAt = -Infinity;
    if (due) setTimeout(render);  // behind the click
  }, true);
}
function render() {
  due = seconds() - pressedAt < PRESSED_S;
  if (due) return;
  if (docs.flow) drawVerdict(docs.flow);
  const draw = {
    flow: () => { if (docs.flow) drawFlow(docs.flow); if (docs.services) drawWorst(docs.services); if (docs.history) drawHistory(docs.history); },
    services: drawServices, spans: drawSpans,
    refused: () => docs.refused && drawRefused(docs.refused), metrics: () => docs["metrics-path"] && drawSources(docs["metrics-path"]), configuration: drawOptions,
  };
  draw[state.view]();
}
function show() {
  const wanted = location.hash.slice(2);
  const view = wanted in VIEWS ? wanted : "flow";
  const changed = view !== state.view || !source;
  state.view = view;
  for (const name of Object.keys(VIEWS)) $(name).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${document.querySelector(`nav a[data-view=${view}]`).textContent} · tracefwd`;
  if (changed) connect();
  if (view === "services") loadOperations();
  if (view === "spans") loadSpans();
  if (view === "configuration") loadOptions();
  render();
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) return;
  const view = Object.keys(VIEWS)[Number(event.key) - 1];
  if (view) {
    location.hash = `#/${view}`;
    $("main").focus({ preventScroll: true });
  }
  const field = document.querySelector("main section:not([hidden]) [data-search]");
  if (event.key === "/" && field) {
    event.preventDefault();
    field.focus();
  }
});
for (const form of document.querySelectorAll("form.tools")) {
  form.addEventListener("submit", (event) => event.preventDefault());
  let waiting = 0;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (state.view === "spans") loadSpans(); else if (state.view === "services") loadOperations(); render(); }, 150);
  });
}
$("all-services").addEventListener("click", () => pick(null));
$("pause").addEventListener("click", () => {
  state.held = !state.held;
  $("pause").setAttribute("aria-pressed", state.held);
  $("pause").textContent = state.held ? "Held; go on" : "Hold";
  loadSpans();
});
$("span").addEventListener("click", (event) => { if (event.target === $("span")) $("span").close(); });
addEventListener("hashchange", show);
addEventListener("resize", render);
document.addEventListener("visibilitychange", () => { if (document.hidden) source?.close(); else connect(); });
setInterval(tick, 1000);
const first = $("first").textContent;
if (first) docs.flow = JSON.parse(first);
show();
