// The modules, their queues and processes.
import { ago, attr, bytes, date, duration, h, keyed, number, plural, say, show, text } from "./dom.js";
import { plot } from "./plot.js";
import { moduleKey } from "./store.js";

const kinds = { library: "library in the server", "isolated library": "library in a process of its own", command: "program", builtin: "built in" };

export function open({ root, store, params, on, title }) {
  title("Modules");
  const list = h("div", { class: "modules" });
  const empty = h("p", { class: "empty", text: "Asking the server …" });
  root.append(h("h1", { text: "Modules" }), empty, list);

  let wanted = params.get("module") ?? ""; // the one that a link led to

  function facts(el, entries) {
    keyed(el, entries, (e) => e[0], (e) => h("div", {}, h("dt", { text: e[0] }), h("dd")), (row, [, value, bad, hint]) => {
      text(row.lastChild, value);
      row.lastChild.className = bad ? "bad" : "";
      attr(row.lastChild, "title", hint);
    });
  }

  function item(m) {
    const badge = h("span", { class: "tag" });
    const plots = { queued: plot("Waiting statuses"), age: plot("Age of the oldest"), rate: plot("Statuses/s") };
    const counts = h("dl", { class: "facts" });
    const process = h("dl", { class: "facts" });
    const exit = h("p", { class: "bad" });
    const processBox = h("section", { class: "process", "aria-label": "Process" }, h("h3", { text: "Process" }), process, exit);
    const api = h("dl", { class: "facts" });
    const apiBox = h("section", { class: "process", "aria-label": "HTTP API" }, h("h3", { text: "HTTP API" }), api);
    const el = h("article", { class: "panel module", "aria-label": `Module ${m.number}`, data: { module: m.number } },
      h("header", { class: "row" }, h("h2", { text: `Module ${m.number}` }), badge, h("span", { class: "muted name", text: `${kinds[m.kind] ?? m.kind} · ${m.name}` })),
      h("div", { class: "plots" }, plots.queued, plots.age, plots.rate), counts, processBox, apiBox);
    let before = "";
    el.fill = (mod) => {
      const p = mod.process;
      const a = mod.api;
      const state = p?.out_of_service ? "out of service" : p && !p.ready ? "restarting" : a && !a.up ? "HTTP API not reached" : "ready";
      text(badge, state);
      badge.className = `tag ${state === "ready" ? "good" : state === "restarting" ? "mid" : "poor"}`;
      if (before && state !== before) say(`Module ${mod.number}: ${state}`);
      before = state;
      const samples = store.samples.get(moduleKey(mod)) ?? [];
      plots.queued.draw(samples, (s) => s.queued, number);
      plots.age.draw(samples, (s) => s.age, (v) => (v ? duration(v) : "0 s"));
      plots.rate.draw(samples, (s) => s.rate, (v) => v.toFixed(v < 10 ? 1 : 0));
      facts(counts, [
        ["Cars", number(mod.cars)],
        ["Statuses handed over", number(mod.statuses)],
        ["Commands fetched", number(mod.commands_fetched)],
        ["Longest queue of a car", number(mod.queued_longest)],
        ["Errors", number(mod.errors), mod.errors > 0],
        ["Statuses lost", number(mod.lost), mod.lost > 0],
        ["Commands discarded", number(mod.commands_discarded)],
      ]);
      show(processBox, Boolean(p));
      if (p) {
        facts(process, [
          ["Restarts", number(p.restarts), p.restarts > 0],
          ["Process id", p.pid || "none"],
          [p.ready ? "Ready since" : "Down since", ago(p.since, store.now()), false, p.since && date(p.since)],
          ["Memory", bytes(p.resident_bytes)],
          ["Contexts", number(p.contexts)],
          ["Delivered again", number(p.redelivered)],
          ["Commands lost", number(p.commands_lost), p.commands_lost > 0],
        ]);
        show(exit, Boolean(p.last_exit));
        text(exit, p.last_exit ? `Last end ${ago(p.last_exit_at, store.now())}: ${p.last_exit}` : "");
      }
      show(apiBox, Boolean(a));
      if (a) {
        facts(api, [
          ["Reached", a.up ? "yes" : "no", !a.up],
          ["Waiting", `${number(a.queued)}, ${bytes(a.queued_bytes)}`],
          ["Of these on disk", number(a.spooled)],
          ["Oldest", a.queued ? duration(a.oldest_seconds) : "–"],
          ["Posted", number(a.posted)],
          ["Refused by the API", number(a.refused), a.refused > 0],
          ["Lost", number(a.lost), a.lost > 0],
          ["Invalid", number(a.invalid), a.invalid > 0],
          ["Retries", number(a.retries)],
          ["Commands", number(a.commands)],
        ]);
      }
    };
    return el;
  }

  function draw() {
    if (!store.modules) return;
    show(empty, store.modules.length === 0);
    text(empty, "No module is loaded.");
    keyed(list, store.modules, moduleKey, item, (el, m) => el.fill(m));
    attr(list, "aria-label", plural(store.modules.length, "module"));
    const el = wanted && list.querySelector(`[data-module="${CSS.escape(wanted)}"]`);
    wanted = "";
    if (!el) return;
    attr(el, "tabindex", "-1");
    requestAnimationFrame(() => { el.scrollIntoView({ block: "center" }); el.focus({ preventScroll: true }); });
  }
  on("modules", draw);
  draw();
  return { changed: (p) => { wanted = p.get("module") ?? ""; draw(); } };
}
