// One car: is it connected and why not, its session over time, devices, commands, live
// messages.
import { Problem, carPath, get } from "./api.js";
import { confirmAction } from "./access.js";
import { listAddress } from "./fleet.js";
import { ago, attr, brief, date, duration, h, keyed, moment, ms, number, plural, say, show, text } from "./dom.js";
import { commandItem, commandUpdate } from "./commands.js";
import { labelLinks } from "./labels.js";
import { explain, endMeaning, stateWords } from "./reasons.js";
import { figure, fill } from "./payload.js";
import { CommandForm } from "./send.js";
import { Timeline } from "./timeline.js";
import { Tail } from "./tail.js";
import { CarMap } from "./mapview.js";

const pause = 1000; // between readings, ms
const fewCommands = 4; // that are shown; the others are folded

export function open({ root, store, argument: name, on, signal, title }) {
  title(brief(name));
  let detail = null;
  const badge = h("span", { class: "state" });
  const why = h("div", { class: "why", hidden: true }, h("b"), h("span"), h("span", { class: "muted" }));
  const facts = h("dl", { class: "facts" });
  const devices = h("div", { class: "devices" });
  const commands = h("ol", { class: "commands" });
  let allCommands = false;
  const moreCommands = h("button", { type: "button", class: "quiet fold", hidden: true, on: { click: () => { allCommands = !allCommands; draw(); } } });
  const sender = new CommandForm(store, name, () => read());
  const ends = h("tbody");
  const queues = h("tbody");
  const drops = h("tbody");
  const missing = h("p", { class: "empty", hidden: true });
  const labels = labelLinks();
  const timeline = new Timeline(store, name);
  const tail = new Tail(name, (m) => { timeline.message(m); if (m.kind === "status" || m.kind === "command") soon(); });
  const mapPanel = h("section", { class: "panel", "aria-labelledby": "h-map", hidden: true }, h("h2", { id: "h-map", text: "Position" }));
  const map = new CarMap(store, { only: name });
  mapPanel.append(map.el);

  const operate = (what, path, body) => h("button", {
    type: "button", text: what, data: { operate: path },
    on: {
      click: () => confirmAction(store, {
        title: `${what} ${name}?`, body, button: what, path: `${carPath(name)}/${path}`, done: () => read(),
      }),
    },
  });
  const panel = (id, heading, ...children) => h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id, text: heading }), ...children);
  const page = h("div", {},
    why,
    h("section", { class: "panel", "aria-label": "Facts" }, facts),
    h("div", { class: "columns" },
      h("div", {},
        panel("h-time", "Session", timeline.el),
        panel("h-devices", "Devices", devices),
        panel("h-tail", "Live messages", tail.el)),
      h("div", {},
        mapPanel,
        panel("h-commands", "Commands", sender.el, commands, moreCommands),
        panel("h-ends", "Last ends of sessions", h("div", { class: "scroll" }, h("table", {},
          h("thead", {}, h("tr", {}, ...["When", "Reason", "Lasted"].map((t) => h("th", { scope: "col", text: t })))), ends))),
        panel("h-drops", "Messages dropped or ignored", h("div", { class: "scroll" }, h("table", {},
          h("thead", {}, h("tr", {}, h("th", { scope: "col", text: "Reason" }), h("th", { scope: "col", class: "n", text: "Times" }))), drops))),
        panel("h-queues", "Queues of its modules", h("div", { class: "scroll" }, h("table", {},
          h("thead", {}, h("tr", {}, ...["Module", "Queued", "Oldest", "Handed over", "Errors", "Lost"].map((t, i) => h("th", { scope: "col", text: t, class: i ? "n" : "" })))), queues))))));
  root.append(
    h("p", { class: "crumb" }, h("a", { href: listAddress(), text: "← Fleet" }), " · ", h("a", { href: `#/log?car=${encodeURIComponent(name)}`, text: "Log of this car" })),
    h("div", { class: "row title" }, h("h1", { text: name }), badge, h("span", { class: "grow" }),
      operate("Re-announce", "reannounce", "The gateway is asked to connect anew and to announce its devices. The session goes on until it does."),
      operate("Disconnect", "disconnect", "The session ends and the gateway is told. It connects anew by itself. Modules see its devices leave for a moment.")),
    labels.el, missing, page);

  function fact(list) {
    keyed(facts, list, (f) => f[0], (f) => h("div", {}, h("dt", { text: f[0] }), h("dd")), (el, f) => {
      text(el.lastChild, f[1]);
      attr(el.lastChild, "title", f[2]);
      el.lastChild.className = f[3] ?? "";
    });
  }

  let announced = "";
  function head() {
    // The list hears of changes by events, sooner than we read the details.
    const c = store.cars.get(name);
    const newer = detail && c && ms(c.since) > ms(detail.since) ? c : detail;
    if (!newer) return;
    const now = store.now();
    text(badge, newer.since ? `${stateWords[newer.state]} for ${duration((now - ms(newer.since)) / 1000)}` : stateWords[newer.state]);
    attr(badge, "data-state", newer.state);
    const meaning = explain(newer.why);
    show(why, newer.state !== "running" || Boolean(newer.why));
    attr(why, "data-state", newer.state);
    text(why.children[0], newer.why ?? "");
    text(why.children[1], meaning.title);
    text(why.children[2], meaning.hint);
    fact([
      ["Session", brief(newer.session) || "none", newer.session, "mono"],
      ["Resumed", newer.resumed ? ago(newer.resumed, now) : "–", newer.resumed && date(newer.resumed)],
      ["Last heard", ago(detail.last_seen, now), detail.last_seen && date(detail.last_seen)],
      ["Phase", detail.phase],
      ["Statuses", number(detail.statuses)],
      ["Completed connects", number(detail.sessions)],
      ["Ends", Object.values(detail.ends_by_reason ?? {}).reduce((a, b) => a + b, 0)],
    ]);
    if (newer.state !== announced) {
      if (announced) say(`${name} is ${stateWords[newer.state]}${newer.why ? ": " + newer.why : ""}`);
      announced = newer.state;
    }
    timeline.draw(detail, newer);
    for (const el of devices.children) if (el.refresh) el.refresh(now);
    for (const el of ends.children) text(el.firstChild.firstChild, ago(el.at, now));
  }

  const deviceKey = (d) => `${d.module}/${d.type}/${d.role}`;

  function deviceItem(d) {
    const link = h("span", { class: "tag" });
    const state = h("span", { class: "tag" });
    const when = h("span", { class: "muted" });
    const status = figure("Last status");
    const error = figure("Error");
    const command = h("div", {});
    const el = h("article", { class: "device", "aria-label": `Device ${brief(d.role)} ${brief(d.name)}` },
      h("header", {}, h("h3", { text: brief(d.name || d.role), title: brief(d.name || d.role, 4096) }), link, state, h("span", { class: "muted", title: `role ${d.role}`, text: `role ${brief(d.role)} · module ${d.module} · type ${d.type} · priority ${d.priority}` }), when),
      status, error, command);
    el.fill = (dev) => {
      el.device = dev;
      text(link, dev.connected ? "connected" : "left");
      link.className = `tag ${dev.connected ? "good" : "poor"}`;
      const s = dev.last_status;
      text(state, s ? s.state : "no status yet");
      state.className = `tag ${!s ? "" : s.state === "ERROR" ? "poor" : s.state === "RUNNING" ? "" : "mid"}`;
      show(status, Boolean(s));
      show(error, Boolean(s?.error));
      if (s) {
        if (fill(status, s.payload, `Status ${s.counter}`) && status.known) flash(status.querySelector("pre"));
        status.known = true;
      }
      if (s?.error) fill(error, s.error, "Error message");
      el.refresh(store.now());
    };
    el.refresh = (now) => {
      const dev = el.device;
      text(when, `${plural(dev.statuses, "status", "statuses")}${dev.last_status ? `, last ${ago(dev.last_status.at, now)}` : ""}${dev.since ? `, ${dev.connected ? "connected" : "left"} ${ago(dev.since, now)}` : ""}`);
    };
    return el;
  }

  function flash(el) {
    el.classList.remove("fresh");
    requestAnimationFrame(() => el.classList.add("fresh"));
  }

  function draw() {
    show(missing, false);
    show(page, true);
    head();
    labels.draw(detail);
    const sorted = [...detail.devices].sort((a, b) => b.connected - a.connected || a.module - b.module || a.type - b.type);
    keyed(devices, sorted.length ? sorted : [null], (d) => (d ? deviceKey(d) : "none"),
      (d) => (d ? deviceItem(d) : h("p", { class: "muted", text: "No device has connected since the server started." })),
      (el, d) => d && el.fill(d));
    const recent = allCommands ? detail.recent_commands : detail.recent_commands.slice(0, fewCommands);
    keyed(commands, recent.length ? recent : [null], (c) => (c ? (c.order ? `order ${c.order}` : `${c.queued} ${deviceKey(c.device)}`) : "none"),
      (c) => (c ? commandItem(c) : h("li", { class: "muted", text: "No module has given a command since the server started." })),
      (el, c) => c && commandUpdate(el, c, store.now()));
    show(moreCommands, detail.recent_commands.length > fewCommands);
    text(moreCommands, allCommands ? "Show fewer" : `Show all ${detail.recent_commands.length} commands`);
    attr(moreCommands, "aria-expanded", String(allCommands));
    keyed(ends, detail.session_ends, (e) => `${e.at} ${e.reason}`, (e) => {
      const tr = h("tr", {}, h("td", {}, h("span"), h("br"), h("small", { text: moment(e.at).slice(0, -4) })), h("td", {}, e.reason, h("br"), h("small", { text: endMeaning(e.reason) })), h("td", { text: duration(e.seconds) + (e.established ? "" : ", never complete") }));
      tr.at = e.at;
      return tr;
    });
    show(ends.closest("section"), detail.session_ends.length > 0);
    const dropped = Object.entries(detail.drops).sort((a, b) => b[1] - a[1]);
    keyed(drops, dropped, (d) => d[0], (d) => h("tr", {}, h("td", { text: d[0] }), h("td", { class: "n" })), (tr, d) => text(tr.lastChild, number(d[1])));
    show(drops.closest("section"), dropped.length > 0);
    keyed(queues, detail.modules, (m) => m.number, (m) => h("tr", {}, h("th", { scope: "row", text: m.number }), ...Array.from({ length: 5 }, () => h("td", { class: "n" }))), (tr, m) => {
      [number(m.queued), m.queued ? duration(m.oldest_seconds) : "–", number(m.statuses), number(m.errors), number(m.lost)].forEach((v, i) => text(tr.children[i + 1], v));
    });
  }

  let reading = false;
  let again = false;
  let timer;
  let unknown = false; // the server has no car of that name: it is not asked for ever
  async function read() {
    if (reading || document.hidden) { again = true; return; }
    reading = true;
    clearTimeout(timer);
    try {
      detail = await get(carPath(name), { detail: true });
      if (unknown && !signal.aborted) known();
      if (!signal.aborted) draw();
    } catch (error) {
      if (!signal.aborted && error instanceof Problem && error.status === 404) {
        unknown = true;
        title(`No car ${brief(name)}`);
        show(page, false);
        show(missing, true);
        text(missing, `The server does not serve a car named “${name}”. This page looks again when a car of that name appears.`);
        for (const b of root.querySelectorAll("[data-operate]")) b.disabled = true;
        text(badge, "not served");
        attr(badge, "data-state", null);
        say(missing.textContent);
      } else if (!(error instanceof Problem)) console.error(error);
    }
    reading = false;
    if (signal.aborted || unknown) return;
    timer = setTimeout(read, again ? 150 : pause);
    again = false;
  }

  function known() {
    unknown = false;
    title(brief(name));
    for (const b of root.querySelectorAll("[data-operate]")) b.disabled = false;
    tail.start();
    positions();
  }

  function soon() {
    if (again || unknown) return;
    again = true;
    if (!reading) { clearTimeout(timer); timer = setTimeout(() => { again = false; read(); }, 120); }
  }

  async function positions() {
    const seen = await map.read(signal);
    if (seen !== null) show(mapPanel, seen > 0);
  }
  const positionTimer = setInterval(() => { if (!document.hidden && !unknown) positions(); }, 1000);
  positions();
  on("tick", head);
  on("cars", () => { if (!unknown) head(); else if (store.cars.has(name)) read(); });
  on("theme", () => map.draw());
  on("access", () => { if (store.access === "granted") { read(); tail.start(); } });
  on("stream", () => { if (store.stream.state === "live") read(); });
  const visible = () => { if (document.hidden) tail.stop(); else { if (!unknown) tail.start(); read(); } };
  document.addEventListener("visibilitychange", visible, { signal });
  read();
  tail.start();
  return {
    leave: () => {
      clearTimeout(timer);
      clearInterval(positionTimer);
      tail.stop();
      map.destroy();
      timeline.destroy();
    },
  };
}
