// The last lines of the server's log.
import { get } from "./api.js";
import { attr, brief, date, h, keyed, moment, plural, say, show, text } from "./dom.js";
import { VirtualRows } from "./virtual.js";

const pause = 2000; // ms between readings
const most = 1000; // the server keeps as many
const levels = [["DEBUG", "all"], ["INFO", "INFO and above"], ["WARNING", "WARNING and above"], ["ERROR", "ERROR and above"]];

export function open({ root, store, params, on, signal, title, address }) {
  title("Log");
  const query = { level: params.get("level") ?? "DEBUG", car: params.get("car") ?? "", q: params.get("q") ?? "" };
  const search = h("input", { type: "search", placeholder: "Words or component", "aria-label": "Filter the lines by words", value: query.q, autocomplete: "off", spellcheck: "false" });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Lowest level" });
  const car = h("button", { type: "button", class: "quiet", hidden: true });
  const hold = h("button", { type: "button", text: "Pause", "aria-pressed": "false" });
  const count = h("span", { class: "muted" });
  const problem = h("p", { class: "bad", hidden: true });
  const body = h("div", { role: "rowgroup", class: "rows" });
  const head = h("div", { role: "row", class: "tr th", "aria-rowindex": "1" }, ...["Time", "Level", "Car or component", "Line"].map((t) => h("div", { role: "columnheader", class: "muted", text: t })));
  const table = h("div", { role: "table", class: "events log", "aria-label": "Lines of the log, newest first" }, h("div", { role: "rowgroup" }, head), body);
  const empty = h("p", { class: "empty" });
  const opened = h("section", { class: "panel log-line", hidden: true, "aria-label": "The line in full" });
  root.append(h("h1", { text: "Log" }),
    h("p", { class: "muted", text: "The last lines that the server has logged, the newest first. Levels are set on the page Server." }),
    h("div", { class: "toolbar" }, search, chips, car, hold, count), problem, table, empty, opened);

  /** full shows a line that is longer than its row. */
  function full(l) {
    opened.replaceChildren(
      h("header", { class: "row" }, h("b", { text: `${moment(l.at)} ${l.level}` }), h("span", { class: "muted", text: [l.component, l.source, l.replica && `at ${l.replica}`].filter(Boolean).join(" · ") }),
        l.car ? h("a", { href: `#/car/${encodeURIComponent(l.car)}`, text: `car ${brief(l.car)}` }) : null, h("span", { class: "grow" }),
        h("button", { type: "button", text: "Close", on: { click: () => show(opened, false) } })),
      h("pre", { text: l.text }));
    show(opened, true);
    say(l.text);
  }

  let lines = [];
  let held = false;
  const key = (l) => `${l.replica ?? ""} ${l.at} ${l.source ?? ""} ${l.text}`;
  const rows = new VirtualRows(body, {
    key: (l) => l.key,
    create: (l) => h("div", { role: "row", class: "tr", data: { level: l.level } },
      h("div", { role: "cell", class: "c-time", title: date(l.at), text: moment(l.at) }),
      h("div", { role: "cell", class: "c-kind kind", text: l.level }),
      h("div", { role: "cell", class: "c-name" }, l.car ? h("a", { href: `#/car/${encodeURIComponent(l.car)}`, text: brief(l.car), tabindex: "-1" }) : h("span", { text: l.component }), l.replica ? h("span", { class: "muted", text: ` at ${l.replica}` }) : null),
      h("div", { role: "cell", class: "c-text" }, h("button", { type: "button", class: "line", data: { control: "" }, text: l.text, title: `${l.source ?? ""} ${l.text}`.trim(), on: { click: () => full(l) } }))),
    update: () => {},
  });

  function draw() {
    rows.set(lines);
    attr(table, "aria-rowcount", lines.length + 1);
    text(count, held ? "paused" : plural(lines.length, "line"));
    show(empty, lines.length === 0);
    text(empty, query.q || query.car || query.level !== "DEBUG" ? "No line matches the filter." : "No line is known.");
    show(car, Boolean(query.car));
    text(car, `only ${brief(query.car)} ✕`);
    attr(car, "aria-label", `Only lines about ${query.car}. Show all`);
    keyed(chips, levels, (l) => l[0], ([value, label]) => h("button", { type: "button", text: label, on: { click: () => { query.level = value; changed(); } } }), (b, [value]) => attr(b, "aria-pressed", String(query.level === value)));
  }

  let timer;
  let asked = 0;
  async function read() {
    clearTimeout(timer);
    if (document.hidden || held) return;
    const mine = ++asked;
    const p = new URLSearchParams({ level: query.level, limit: String(most) });
    if (query.car) p.set("car", query.car);
    if (query.q.trim()) p.set("q", query.q.trim());
    try {
      const answer = await get(`api/v1/log?${p}`, { signal });
      if (signal.aborted || mine !== asked) return;
      const seen = new Map(); // lines that say the same at the same time
      for (const l of answer.lines) {
        const n = seen.get(key(l)) ?? 0;
        seen.set(key(l), n + 1);
        l.key = `${key(l)} ${n}`;
      }
      lines = answer.lines;
      show(problem, Boolean(answer.missing?.length));
      text(problem, (answer.missing ?? []).map((m) => `The lines of replica ${m.replica} are missing: ${m.reason}.`).join(" "));
      draw();
    } catch (error) {
      if (signal.aborted) return;
      if (error.status) {
        show(problem, true);
        text(problem, error.message);
      }
      if (error.status === 401 || error.status === 403) return; // until the access changes
    }
    if (mine === asked) timer = setTimeout(read, pause);
  }

  function changed() {
    const p = new URLSearchParams();
    if (query.level !== "DEBUG") p.set("level", query.level);
    for (const k of ["car", "q"]) if (query[k]) p.set(k, query[k]);
    address(p);
    draw();
    read();
  }
  let typing;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => { query.q = search.value; changed(); rows.first(); }, 150);
  });
  rows.follow(search, () => {});
  car.addEventListener("click", () => { query.car = ""; search.focus(); changed(); });
  hold.addEventListener("click", () => {
    held = !held;
    attr(hold, "aria-pressed", String(held));
    text(hold, held ? "Go on" : "Pause");
    say(held ? "Paused" : "Going on");
    draw();
    read();
  });
  on("access", () => { if (store.access === "granted") read(); });
  document.addEventListener("visibilitychange", read, { signal });
  draw();
  read();
  return {
    leave: () => { clearTimeout(timer); clearTimeout(typing); rows.destroy(); },
    changed: (p) => {
      Object.assign(query, { level: p.get("level") ?? "DEBUG", car: p.get("car") ?? "", q: p.get("q") ?? "" });
      if (search.value !== query.q) search.value = query.q;
      draw();
      read();
    },
  };
}
