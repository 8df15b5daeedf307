// The overview: what is on, the last hour, and the latest faults.
import { get } from "./api.js";
import { chart } from "./chart.js";
import { ago, attr, date, duration, h, keyed, moment, ms, number, plural, show, text } from "./dom.js";
import { sentence } from "./events.js";
import { faultHref } from "./links.js";

const pause = 10000; // ms; the server takes a reading as often
const shownFaults = 8;

const seconds = (v) => (v < 0.0995 ? `${+(v * 1000).toPrecision(2)} ms` : duration(v));
const perSecond = (v) => `${number(v < 10 ? Math.round(v * 10) / 10 : Math.round(v))}/s`;

export function open({ root, store, on, signal, title }) {
  title("Overview");
  const verdict = h("h1", { class: "verdict", text: "Asking the server …" });
  const figures = h("p", { class: "figures" });
  const missing = h("p", { class: "bad", hidden: true });
  const alerts = h("ul", { class: "alerts" });
  const quiet = h("p", {});
  const faults = h("ul", { class: "faults" });
  const charts = {
    statuses: chart("h-statuses", "Statuses", { written: perSecond }),
    answers: chart("h-answers", "Answers to statuses", { written: seconds }),
    ends: chart("h-ended", "Ends of sessions", { bars: true }),
    queues: chart("h-waits", "What waits for modules", { written: seconds }),
    cars: chart("h-cars", "Cars"),
  };
  root.append(verdict, figures, missing,
    h("section", { class: "panel", "aria-labelledby": "h-alerts" }, h("header", {}, h("h2", { id: "h-alerts", text: "Alerts" })), alerts, quiet),
    h("div", { class: "charts" }, ...Object.values(charts)),
    h("section", { class: "panel", "aria-labelledby": "h-faults" }, h("header", { class: "row" }, h("h2", { id: "h-faults", text: "Latest faults" }), h("span", { class: "grow" }), h("a", { href: "#/events?kind=faults", text: "All of them" })), faults));

  let history = null;
  function drawHistory() {
    if (!history) return;
    const { points } = history;
    const times = points.map((p) => p.at);
    const fill = (c, series, empty) => c.draw({ times, series, empty });
    const names = (of) => [...new Set(points.flatMap((p) => Object.keys(of(p) ?? {})))];
    const total = (of) => points.reduce((n, p) => n + of(p), 0);
    fill(charts.statuses, points.length ? [{ name: "accepted", values: points.map((p) => p.statuses_per_second) }] : [], "The first point comes within ten seconds.");
    const answered = total((p) => p.answers) > 0;
    const several = store.server?.cluster ? " of the slowest replica" : "";
    fill(charts.answers, answered ? [
      { name: `99 of 100${several}`, values: points.map((p) => p.answer_p99_s ?? null) },
      { name: `half of them${several}`, values: points.map((p) => p.answer_p50_s ?? null) },
    ] : [], "No status was answered.");
    const reasons = names((p) => p.ends).map((name) => ({ name, values: points.map((p) => p.ends?.[name] ?? 0) }));
    const sum = (c) => c.values.reduce((a, b) => a + b, 0);
    fill(charts.ends, reasons.sort((a, b) => sum(b) - sum(a)), "No session has ended.");
    const modules = names((p) => p.queues_s).sort((a, b) => a - b);
    fill(charts.queues, modules.map((m) => ({ name: `module ${m}`, values: points.map((p) => p.queues_s?.[m] ?? null) })), "No module has a queue.");
    fill(charts.cars, points.length ? [["running", "connected"], ["connecting", "connecting"], ["waiting", "not connected"]].map(([state, name]) => ({ name, values: points.map((p) => p.cars[state] ?? 0) })) : [], "The first point comes within ten seconds.");
  }

  function drawVerdict() {
    if (!store.carsKnown) return;
    const n = store.cars.size;
    const { connecting, waiting } = store.states;
    const suspended = store.suspended;
    const running = n - connecting - waiting - suspended; // suspended ones are not served
    const on = store.alerts?.alerts ?? [];
    text(verdict, n === 0 ? "No car is served." : running === n ? (n === 1 ? "The only car is served." : `All ${number(n)} cars are served.`) : `${number(running)} of ${plural(n, "car")} ${running === 1 ? "is" : "are"} served.`);
    verdict.dataset.state = waiting || suspended ? "waiting" : connecting ? "connecting" : "running";
    const last = history?.points.at(-1);
    const parts = [];
    if (waiting || connecting) parts.push([`${number(waiting)} not connected`, "#/?state=waiting"], [`${number(connecting)} connecting`, "#/?state=connecting"]);
    if (suspended) parts.push([`${number(suspended)} ${suspended === 1 ? "waits" : "wait"} for the broker`, "#/"]);
    if (last) {
      parts.push([`${perSecond(last.statuses_per_second).replace("/s", "")} statuses/s`]);
      if (last.answer_p99_s !== undefined) parts.push([`answered within ${seconds(last.answer_p99_s)}`]);
      const oldest = Math.max(0, ...Object.values(last.queues_s ?? {}));
      parts.push([oldest > 0.1 ? `oldest in a queue ${seconds(oldest)}` : "nothing waits for a module", "#/modules"]);
    }
    keyed(figures, parts, (p) => (p[1] ?? p[0].replace(/[\d.,]+.*? /, "")), (p) => (p[1] ? h("a", { href: p[1] }) : h("span")), (el, p) => text(el, p[0]));
    const gone = new Map([...(history?.missing ?? []), ...(store.alerts?.missing ?? []), ...store.missing].map((m) => [m.replica, m.reason]));
    show(missing, gone.size > 0);
    text(missing, [...gone].map(([replica, reason]) => `The figures are without replica ${replica}: ${reason}.`).join(" "));
    show(quiet, store.alerts !== null && on.length === 0);
    text(quiet, `No alert is on; ${number(store.alerts?.rules)} rules are watched${running === n && n > 0 ? `, and ${n === 1 ? "the car is" : `all ${number(n)} cars are`} served` : ""}.`);
  }

  function drawAlerts() {
    const on = store.alerts?.alerts ?? [];
    keyed(alerts, on, (a) => `${a.name} ${a.module ?? ""} ${a.reason ?? ""} ${a.replica ?? ""} ${a.since}`, (a) => h("li", { class: "alert", data: { severity: a.severity } },
      h("div", { class: "row" }, h("span", { class: `tag ${a.severity === "page" ? "poor" : "mid"}`, text: a.severity === "page" ? "urgent" : "to look at", title: `severity ${a.severity}` }), h("b"), h("span", { class: "grow" }), h("span", { class: "muted since" })),
      h("div", { class: "row about" }), h("small", { class: "mono", text: a.name })), (li, a) => {
      const [line, about] = li.children;
      text(line.children[1], a.summary);
      text(line.lastChild, `for ${ago(a.since, store.now()).replace(" ago", "")}, since ${moment(a.since).slice(0, -4)}`);
      attr(line.lastChild, "title", date(a.since));
      const links = (a.cars ?? []).map((c) => [`#/car/${encodeURIComponent(c)}`, c]);
      if ((a.cars_total ?? 0) > links.length) links.push(["#/events?kind=faults", `${number(a.cars_total - links.length)} more`]);
      if (a.module !== undefined) links.push([`#/modules?module=${a.module}`, `module ${a.module}`]);
      if (a.replica) links.push(["#/server", `replica ${a.replica}`]);
      if (!links.length) links.push([aboutServer(a.name), "where to look"]);
      keyed(about, links, (l) => l[0] + l[1], ([href, words]) => h("a", { href, text: words }));
    });
    drawVerdict();
  }

  let due = false; // many events are drawn at once
  function drawFaults() {
    due = false;
    const latest = [];
    for (let i = store.events.length - 1; i >= 0 && latest.length < shownFaults; i--) {
      const ev = store.events[i];
      if (ev.kind === "fault" || ev.kind === "module" && /ended|out of service|does not answer|slow/.test(ev.reason) || ev.kind === "link" && ev.reason !== "connected" || ev.kind === "config" && ev.reason !== "ok") latest.push(ev);
    }
    keyed(faults, latest.length ? latest : [null], (ev) => (ev ? `${ev.replica ?? ""} ${ev.id}` : "none"),
      (ev) => (ev ? h("li", {}, h("span", { class: "muted", text: moment(ev.at).slice(0, -4), title: date(ev.at) }), h("a", { href: faultHref(ev), text: ev.car || (ev.module ? `module ${ev.module}` : ev.replica ? `server ${ev.replica}` : "server") }), h("span", { text: sentence(ev) }))
        : h("li", { class: "muted", text: "No fault has been told since the server started." })));
  }

  let timer;
  async function read() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      history = await get("api/v1/history", { signal });
      if (signal.aborted) return;
      drawHistory();
      drawVerdict();
    } catch { /* the page says elsewhere that the server is not reached */ }
    if (signal.aborted) return;
    const last = history?.points.at(-1);
    // The next point comes ten seconds after the last one.
    const next = last ? ms(last.at) + pause + 500 - store.now() : 1000;
    timer = setTimeout(read, Math.max(1000, Math.min(pause, next)));
  }

  on("alerts", drawAlerts);
  on("cars", drawVerdict);
  on("tick", drawAlerts);
  on("events", () => { if (!due) { due = true; setTimeout(drawFaults, 250); } });
  on("access", () => { if (store.access === "granted" && !history) read(); });
  document.addEventListener("visibilitychange", read, { signal });
  read();
  drawAlerts();
  drawFaults();
  return { leave: () => clearTimeout(timer) };
}

/** aboutServer is the page where more is known of an alert about no car. */
const aboutServer = (name) => (/Cars|Session|Connect|Commands|Answers/.test(name) ? "#/?state=waiting" : /Log|Reload|Journal|Replica|Shard|Etcd|Stopped|Store/.test(name) ? "#/server" : "#/events");
