// The fleet: how many cars are not connected, why, and the list of all.
import { ago, attr, date, h, keyed, ms, natural, number, plural, say, show, text, toast } from "./dom.js";
import { table as tableOf } from "./api.js";
import { LabelFilter, labelled, labelsOf } from "./labels.js";
import { explain, stateWords } from "./reasons.js";
import { VirtualRows } from "./virtual.js";

const trouble = { waiting: 0, connecting: 1, running: 2 };
const byName = (a, b) => natural(a.name, b.name);

const columns = [
  { key: "state", label: "State", order: (a, b) => trouble[a.state] - trouble[b.state] || ms(b.since) - ms(a.since) },
  { key: "name", label: "Car", order: byName },
  // Shown in a cluster only.
  { key: "replica", label: "Replica", order: (a, b) => natural(a.replica ?? "", b.replica ?? ""), title: "which replica serves the car, and the epoch of its shard" },
  // Shown when a car has one.
  { key: "labels", label: "Labels", order: (a, b) => natural(labelsOf(a).join(" "), labelsOf(b).join(" ")), title: "what the configuration calls the car" },
  { key: "why", label: "Why", order: (a, b) => (a.why ?? "").localeCompare(b.why ?? "") },
  { key: "since", label: "Since", order: (a, b) => ms(b.since) - ms(a.since) },
  { key: "last_seen", label: "Last heard", order: (a, b) => ms(b.last_seen) - ms(a.last_seen) },
  { key: "devices", label: "Devices", order: (a, b) => a.devices - b.devices, amount: true },
  { key: "statuses", label: "Statuses", order: (a, b) => a.statuses - b.statuses, amount: true },
  { key: "ends", label: "Ends", order: (a, b) => b.ends - a.ends, amount: true, title: "ended sessions and failed connect sequences" },
];

/** asked reads what the address asks for. */
const asked = (p) => ({
  q: p.get("q") ?? "", state: p.get("state") ?? "", why: p.get("why") ?? "", labels: p.getAll("label").filter(Boolean), sort: p.get("sort") ?? "state", down: p.get("order") === "desc",
});

/** group is the why without what differs from car to car. */
const group = (car) => car.why || "";

const place = "external-server.fleet"; // in the tab: where the list was, for who comes back from a car

function kept() {
  try { return JSON.parse(sessionStorage.getItem(place)); } catch { return null; }
}

/** listAddress is that of the list as it was left. */
export const listAddress = () => kept()?.hash || "#/";

export function open({ root, store, params, on, title, address }) {
  title("Fleet");
  const query = asked(params);
  const verdict = h("h1", { class: "verdict", text: "Asking the server …" });
  const detail = h("p", { class: "muted" });
  const alerts = h("a", { class: "alerts-on", href: "#/overview", hidden: true });
  const reasons = h("ul", { class: "reasons", "aria-label": "Why cars are not connected" });
  const search = h("input", { type: "search", id: "filter", placeholder: "Car, label or reason", "aria-label": "Filter cars by name, label or reason", value: query.q, autocomplete: "off", spellcheck: "false" });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Filter by state" });
  const matched = h("span", { class: "muted", id: "matched" });
  const clear = h("button", { type: "button", class: "quiet", text: "Clear filter", hidden: true });
  const byLabel = new LabelFilter((labels) => { query.labels = labels; changed(); });
  const download = h("button", { type: "button", text: "Export CSV", title: "The cars that are listed, all columns, for spreadsheets", on: { click: () => save() } });
  const head = h("div", { role: "row", class: "tr th", "aria-rowindex": "1" });
  const body = h("div", { role: "rowgroup", class: "rows" });
  const table = h("div", { role: "table", class: "cars", "aria-label": "Cars", "aria-colcount": columns.length }, h("div", { role: "rowgroup" }, head), body);
  const empty = h("p", { class: "empty", hidden: true });
  root.append(
    h("section", { class: "summary", "aria-label": "Summary" }, verdict, detail, alerts, reasons),
    h("section", { "aria-label": "Cars" }, h("div", { class: "toolbar" }, search, chips, byLabel.choice, byLabel.chosen, matched, clear, h("span", { class: "grow" }), download), table, empty));

  for (const c of columns) {
    head.append(h("div", { role: "columnheader", class: `c-${c.key}` },
      h("button", { type: "button", text: c.label, title: c.title, data: { sort: c.key }, on: { click: () => sortBy(c.key) } })));
  }

  const rows = new VirtualRows(body, {
    key: (c) => c.name,
    create: (c) => {
      const cell = (key, ...children) => h("div", { role: "cell", class: `c-${key}` }, ...children);
      return h("div", { role: "row", class: "tr" },
        cell("state", h("span", { class: "state" })),
        cell("name", h("a", { href: `#/car/${encodeURIComponent(c.name)}`, text: c.name })),
        ...columns.slice(2).map((x) => cell(x.key)));
    },
    update: (row, c) => {
      const now = store.now();
      const [state, , replica, labels, why, since, seen, devices, statuses, ends] = row.children;
      attr(row, "data-state", c.state);
      text(state.firstChild, stateWords[c.state]);
      const news = c.why ?? (c.resumed && now - ms(c.resumed) < 600_000 ? `resumed ${ago(c.resumed, now)}` : "");
      text(replica, c.replica ? `${c.replica} · ${c.epoch ?? "–"}` : "");
      attr(replica, "title", c.replica && `replica ${c.replica}, shard ${c.shard}, epoch ${c.epoch ?? "not known"}`);
      const called = labelsOf(c).join(" ");
      text(labels, called);
      attr(labels, "title", called || undefined);
      text(why, news);
      attr(why, "title", news || undefined);
      text(since, c.since ? ago(c.since, now).replace(" ago", "") : "–");
      attr(since, "title", c.since && date(c.since));
      text(seen, ago(c.last_seen, now));
      attr(seen, "title", c.last_seen && date(c.last_seen));
      text(devices, number(c.devices));
      text(statuses, number(c.statuses));
      text(ends, number(c.ends));
    },
  });

  function sortBy(key) {
    if (query.sort === key) query.down = !query.down;
    else Object.assign(query, { sort: key, down: columns.find((c) => c.key === key).amount === true && key !== "ends" });
    changed();
    say(`Sorted by ${columns.find((c) => c.key === key).label}${query.down ? ", reversed" : ""}`);
  }

  function select() {
    const words = query.q.trim().toLowerCase();
    const out = [];
    for (const c of store.cars.values()) {
      if (!labelled(c, query.labels)) continue;
      if (query.state && c.state !== query.state) continue;
      if (query.why && group(c) !== query.why) continue;
      if (words && !c.name.toLowerCase().includes(words) && !(c.why ?? "").toLowerCase().includes(words) && !labelsOf(c).some((l) => l.toLowerCase().includes(words))) continue;
      out.push(c);
    }
    const order = columns.find((c) => c.key === query.sort)?.order ?? byName;
    out.sort((a, b) => (query.down ? -order(a, b) : order(a, b)) || byName(a, b));
    return out;
  }

  function changed() {
    const p = new URLSearchParams();
    for (const k of ["q", "state", "why"]) if (query[k]) p.set(k, query[k]);
    for (const l of query.labels) p.append("label", l);
    if (query.sort !== "state") p.set("sort", query.sort);
    if (query.down) p.set("order", "desc");
    address(p);
    draw();
  }

  /** save has the server write what is listed, in the natural order of the names. */
  async function save() {
    const p = new URLSearchParams({ format: "csv" });
    if (query.q.trim()) p.set("find", query.q.trim());
    for (const k of ["state", "why"]) if (query[k]) p.set(k, query[k]);
    for (const l of query.labels) p.append("label", l);
    download.disabled = true;
    try {
      const missing = await tableOf(`api/v1/cars?${p}`);
      toast(missing ? `The cars of these replicas are not in the table: ${missing}` : "The table is saved.", Boolean(missing));
    } catch (error) {
      toast(`The table cannot be had: ${error.message}`, true);
    }
    download.disabled = false;
  }

  /** scope is the cars with the labels that are wanted; what is counted is counted of them. */
  function scope() {
    const cars = [...store.cars.values()].filter((c) => labelled(c, query.labels));
    const states = { waiting: 0, connecting: 0, running: 0, suspended: 0 };
    for (const c of cars) {
      states[c.state]++;
      if (c.suspended) states.suspended++;
    }
    return { cars, states, of: query.labels.length ? ` with ${query.labels.join(", ")}` : "" };
  }

  function drawSummary({ cars, states, of }) {
    const n = cars.length;
    const away = states.waiting;
    const coming = states.connecting;
    const held = states.suspended;
    let line = held ? `${number(held)} of ${plural(n, "car")}${of} ${held === 1 ? "waits" : "wait"} for the broker.` : n === 0 ? (of ? `There is no car${of}.` : "No car is served.") : away + coming === 0 ? (n === 1 ? `The only car${of} is connected.` : `All ${number(n)} cars${of} are connected.`)
      : away === 0 ? `${plural(coming, "car")} of ${number(n)}${of} ${coming === 1 ? "is" : "are"} connecting.`
        : `${number(away)} of ${plural(n, "car")}${of} ${away === 1 ? "is" : "are"} not connected.`;
    text(verdict, line);
    verdict.dataset.state = away || held ? "waiting" : coming ? "connecting" : "running";
    const missing = store.missing.map((m) => `The cars of replica ${m.replica} are missing: ${m.reason}.`);
    if (store.unserved) missing.push(`Cars that no replica serves are not in the list: ${store.unserved}.`);
    text(detail, missing.length ? missing.join(" ") : n === 0 && !of ? "The configuration names no cars, or none has been found yet." : held ? "Their sessions go on if it is back within 25 s." : away && coming ? `${number(coming)} more ${coming === 1 ? "is" : "are"} connecting.` : "");
    show(detail, detail.textContent !== "");
    const groups = new Map();
    for (const c of cars) if (c.state !== "running") groups.set(group(c), (groups.get(group(c)) ?? 0) + 1);
    if (query.why && !groups.has(query.why)) groups.set(query.why, 0);
    const list = [...groups].sort((a, b) => b[1] - a[1]).slice(0, 8);
    keyed(reasons, list, ([why]) => why, ([why]) => {
      const { title: meaning, hint } = explain(why);
      return h("li", {}, h("button", { type: "button", "aria-pressed": "false", on: { click: () => { query.why = query.why === why ? "" : why; changed(); } } },
        h("b"), h("span", { class: "what" }, h("span", { text: why || "unknown" }), h("small", { text: [meaning, hint].filter(Boolean).join(" ") }))));
    }, (li, [why, count]) => {
      text(li.firstChild.firstChild, number(count));
      attr(li.firstChild, "aria-pressed", query.why === why ? "true" : "false");
    });
  }

  function drawChips({ cars, states }) {
    const kinds = [["", "all", cars.length], ["waiting", stateWords.waiting, states.waiting], ["connecting", stateWords.connecting, states.connecting], ["running", stateWords.running, states.running]];
    keyed(chips, kinds, (x) => x[0], ([state, word]) => h("button", { type: "button", data: { state: state || "all" }, on: { click: () => { query.state = state; changed(); } } },
      h("span", { class: state ? "state" : "", text: word }), h("b")),
    (b, [state, , count]) => {
      text(b.lastChild, number(count));
      attr(b, "aria-pressed", query.state === state ? "true" : "false");
    });
  }

  let announced = "";
  function draw() {
    if (!store.carsKnown) return;
    const within = scope();
    drawSummary(within);
    drawChips(within);
    byLabel.draw(store.cars.values(), query.labels);
    table.classList.toggle("labelled", !byLabel.choice.hidden);
    table.classList.toggle("shared", Boolean(store.server?.cluster));
    const list = select();
    attr(table, "aria-rowcount", list.length + 1);
    for (const [i, c] of columns.entries()) attr(head.children[i], "aria-sort", query.sort !== c.key ? null : query.down ? "descending" : "ascending");
    rows.set(list);
    const filtered = Boolean(query.q || query.state || query.why || query.labels.length);
    text(matched, filtered ? `${plural(list.length, "car")} shown` : "");
    show(clear, filtered);
    show(empty, list.length === 0);
    text(empty, filtered ? "No car matches the filter." : "");
    const words = `${query.q}|${query.state}|${query.why}|${query.labels}`;
    if (words !== announced) {
      if (announced) say(plural(list.length, "car") + " shown");
      announced = words;
    }
  }

  let typing;
  const settle = () => {
    clearTimeout(typing);
    if (query.q === search.value) return;
    query.q = search.value;
    changed();
    rows.first();
  };
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(settle, 80);
  });
  rows.follow(search, settle);
  clear.addEventListener("click", () => {
    Object.assign(query, { q: "", state: "", why: "", labels: [] });
    search.value = "";
    search.focus();
    changed();
  });
  on("cars", () => { draw(); back(); });
  const drawAlerts = () => {
    const n = store.alerts?.alerts.length ?? 0;
    show(alerts, n > 0);
    text(alerts, `${plural(n, "alert")} ${n === 1 ? "is" : "are"} on`);
  };
  on("alerts", drawAlerts);
  drawAlerts();
  on("tick", () => rows.render());
  draw();
  // Who comes back from a car finds the list where it was, and the focus at that car.
  body.addEventListener("click", (e) => {
    const link = e.target.closest("[role=row]")?.querySelector("a");
    if (link) sessionStorage.setItem(place, JSON.stringify({ hash: location.hash, y: scrollY, car: decodeURIComponent(link.hash.slice("#/car/".length)) }));
  });
  let left = kept();
  function back() {
    if (!left || !store.carsKnown) return;
    const { hash, y, car } = left;
    left = null;
    sessionStorage.removeItem(place);
    if (hash !== location.hash) return;
    requestAnimationFrame(() => {
      scrollTo(0, y);
      rows.reveal(car);
    });
  }
  back();
  return {
    leave: () => {
      clearTimeout(typing);
      rows.destroy();
    },
    changed: (p) => {
      Object.assign(query, asked(p));
      if (search.value !== query.q) search.value = query.q;
      draw();
    },
  };
}
