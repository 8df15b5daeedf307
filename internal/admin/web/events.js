// What has happened, newest first.
import { attr, brief, date, duration, h, keyed, moment, ms, number, plural, say, show, text } from "./dom.js";
import { faultHref } from "./links.js";
import { VirtualRows } from "./virtual.js";

const kinds = {
  connect: "connecting", running: "connected", resumed: "resumed", disconnect: "ended", device_joined: "device joined", device_left: "device left", fault: "fault", link: "broker", module: "module", config: "configuration", operator: "operator",
};
const groups = [["", "everything"], ["sessions", "sessions"], ["devices", "devices"], ["faults", "faults"], ["server", "server"]];
const groupOf = { connect: "sessions", running: "sessions", resumed: "sessions", disconnect: "sessions", device_joined: "devices", device_left: "devices", fault: "faults" };

/** sentence is an event in words. */
export function sentence(ev) {
  switch (ev.kind) {
    case "connect": return "began its connect sequence";
    case "running": return `completed its connect sequence in ${duration(ev.seconds ?? 0)}`;
    case "resumed": return `its session goes on after ${duration(ev.seconds ?? 0)} out of reach`;
    case "disconnect": return `${ev.reason}, after ${duration(ev.seconds ?? 0)}${ev.count ? `, ${plural(ev.count, "command")} without answer` : ""}`;
    case "device_joined": case "device_left": return ev.names?.join(", ") ?? (ev.device ? brief(ev.device, 160) : ev.text);
    case "fault": return [ev.reason, brief(ev.device, 160), ev.module && !ev.device ? `module ${ev.module}` : "", ev.count > 1 ? `${number(ev.count)} times` : ""].filter(Boolean).join(", ");
    case "operator": return `${ev.reason}: ${ev.text}`;
    case "module": return `module ${ev.module} ${ev.reason}: ${ev.text}`;
  }
  return [ev.reason, ev.text].filter(Boolean).join(": ");
}

/** what says in two words what an event is. */
const what = (ev) => ((ev.kind === "device_joined" || ev.kind === "device_left") && ev.count > 1 ? `${number(ev.count)} devices ${ev.kind === "device_left" ? "left" : "joined"}` : kinds[ev.kind] ?? ev.kind);

const near = 5000; // ms between devices that are told together
const shownNames = 8;

/** folded makes one entry of the devices of a car that came, or went, one after the other. */
function folded(list) {
  const out = [];
  const last = new Map(); // entry by car
  for (const ev of list) {
    const car = `${ev.replica ?? ""} ${ev.car ?? ""}`;
    const before = last.get(car);
    const device = ev.kind === "device_joined" || ev.kind === "device_left";
    const name = ev.device ? brief(ev.device.split("/").at(-1) || ev.device, 40) : "";
    if (device && before?.kind === ev.kind && name && before.names && ms(ev.at) - ms(before.until) < near) {
      before.count++;
      before.until = ev.at;
      if (before.names.length < shownNames) before.names.push(name);
      else before.names[shownNames] = `and ${number(before.count - shownNames)} more`;
      continue;
    }
    const entry = device && name ? { ...ev, until: ev.at, count: 1, names: [name] } : ev;
    last.set(car, entry);
    out.push(entry);
  }
  for (const ev of out) if (ev.names?.length === 1) delete ev.names; // one is told in full
  return out;
}

export function open({ root, store, params, on, title, address }) {
  title("Events");
  const query = { q: params.get("q") ?? "", kind: params.get("kind") ?? "" };
  const search = h("input", { type: "search", placeholder: "Car, reason, device", "aria-label": "Filter events", value: query.q, autocomplete: "off", spellcheck: "false" });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Kinds of events" });
  const hold = h("button", { type: "button", text: "Pause", "aria-pressed": "false" });
  const count = h("span", { class: "muted" });
  const body = h("div", { role: "rowgroup", class: "rows" });
  const head = h("div", { role: "row", class: "tr th", "aria-rowindex": "1" }, ...["Time", "What", "Car", "Details"].map((t) => h("div", { role: "columnheader", class: "muted", text: t })));
  const table = h("div", { role: "table", class: "events", "aria-label": "Events, newest first" }, h("div", { role: "rowgroup" }, head), body);
  const empty = h("p", { class: "empty" });
  root.append(h("h1", { text: "Events" }), h("div", { class: "toolbar" }, search, chips, hold, count), table, empty);

  const rows = new VirtualRows(body, {
    key: (ev) => `${ev.replica ?? ""} ${ev.id}`,
    create: (ev) => h("div", { role: "row", class: "tr", data: { kind: ev.kind } },
      h("div", { role: "cell", class: "c-time", title: date(ev.at), text: moment(ev.at) }),
      h("div", { role: "cell", class: "c-kind kind", text: what(ev) }),
      h("div", { role: "cell", class: "c-name" }, ev.car ? h("a", { href: `#/car/${encodeURIComponent(ev.car)}`, text: ev.car }) : h("a", { href: faultHref(ev), text: ev.replica ? `server ${ev.replica}` : "server" })),
      h("div", { role: "cell", class: "c-text", text: sentence(ev), title: sentence(ev) })),
    update: (row, ev) => {
      if (!ev.names) return;
      text(row.children[1], what(ev)); // more devices have come since
      text(row.children[3], sentence(ev));
      attr(row.children[3], "title", sentence(ev));
    },
  });

  let held = null;
  function draw() {
    const words = query.q.trim().toLowerCase();
    const source = held ?? store.events;
    const found = folded(source).filter((ev) => (!query.kind || (groupOf[ev.kind] ?? "server") === query.kind) && (!words || `${ev.car ?? ""} ${ev.replica ?? ""} ${what(ev)} ${sentence(ev)}`.toLowerCase().includes(words)));
    found.reverse();
    rows.set(found);
    attr(table, "aria-rowcount", found.length + 1);
    const last = held?.at(-1);
    text(count, held ? `paused, ${number(store.events.length - 1 - store.events.findLastIndex((e) => e.id === last?.id && e.replica === last?.replica))} new` : plural(found.length, "event"));
    show(empty, found.length === 0);
    text(empty, query.q || query.kind ? "No event matches the filter." : "Nothing has happened yet.");
    keyed(chips, groups, (g) => g[0], ([value, label]) => h("button", { type: "button", text: label, on: { click: () => { query.kind = value; changed(); } } }), (b, [value]) => attr(b, "aria-pressed", String(query.kind === value)));
  }
  function changed() {
    const p = new URLSearchParams();
    for (const k of ["q", "kind"]) if (query[k]) p.set(k, query[k]);
    address(p);
    draw();
  }
  search.addEventListener("input", () => { query.q = search.value; changed(); rows.first(); });
  rows.follow(search, () => {});
  hold.addEventListener("click", () => {
    held = held ? null : [...store.events];
    attr(hold, "aria-pressed", String(Boolean(held)));
    text(hold, held ? "Go on" : "Pause");
    say(held ? "Paused" : "Going on");
    draw();
  });
  let due = false; // many events are drawn at once
  on("events", () => {
    if (due) return;
    due = true;
    setTimeout(() => { due = false; draw(); }, 250);
  });
  draw();
  return {
    leave: () => rows.destroy(),
    changed: (p) => {
      Object.assign(query, { q: p.get("q") ?? "", kind: p.get("kind") ?? "" });
      if (search.value !== query.q) search.value = query.q;
      draw();
    },
  };
}
