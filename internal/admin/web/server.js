// The server itself: what is ready, levels of the log, reload of the configuration.
import { get, token } from "./api.js";
import { confirmAction } from "./access.js";
import { attr, date, duration, h, keyed, ms, show, text } from "./dom.js";

const levels = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

/** A link cannot send a token: with one, the address is only named. */
const link = (path) => (token.get() ? h("code", { text: path }) : h("a", { href: path, text: path }));

export function open({ root, store, on, signal, title }) {
  title("Server");
  const facts = h("dl", { class: "facts" });
  const components = h("tbody");
  const loggers = h("tbody");
  const replicas = h("tbody");
  const shards = h("tbody");
  const etcd = h("p", { class: "muted" });
  const panel = (id, heading, ...children) => h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id, text: heading }), ...children);
  const table = (heads, body) => h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((t) => h("th", { scope: "col", text: t })))), body));
  let cluster;
  root.append(h("h1", { text: "Server" }),
    h("section", { class: "panel", "aria-label": "Facts" }, facts),
    (cluster = h("div", { class: "columns", hidden: true },
      h("div", {}, panel("h-replicas", "Replicas", etcd, table(["Replica", "State", "Shards", "Version", "Configuration", "Address"], replicas))),
      h("div", {}, panel("h-shards", "Shards", table(["Shard", "Replica", "Epoch", "State"], shards))))),
    h("div", { class: "columns" },
      h("div", {}, panel("h-ready", "Components", table(["Component", "State"], components))),
      h("div", {},
        panel("h-config", "Configuration", h("div", { class: "row" },
          h("button", {
            type: "button", text: "Reload configuration", data: { operate: "reload" },
            on: {
              click: () => confirmAction(store, {
                title: "Reload the configuration?", button: "Reload", path: "api/v1/reload",
                body: "The file is read and checked first; a bad one changes nothing. Cars that stay as they are keep their sessions.",
              }),
            },
          }))),
        panel("h-log", "Log levels", table(["Component", "Lowest level that is logged", "Set by"], loggers),
          h("p", { class: "muted", text: "Until the next start or “as configured”." })),
        panel("h-more", "For machines", h("ul", {},
          h("li", {}, link("metrics"), " for Prometheus"),
          h("li", {}, link("readyz"), " and ", link("healthz")),
          h("li", {}, link("api/v1/openapi.json"), ": the whole interface"))))));

  function draw() {
    const s = store.server;
    if (!s) return;
    const entries = [
      ["Company", s.company], ["Version", s.version], ["Running for", duration((store.now() - ms(s.started)) / 1000)], ["Started", date(s.started)],
      ["Broker", s.link.up ? `connected, ${s.link.connections} connection${s.link.connections === 1 ? "" : "s"}` : `not connected${s.link.last_error ? ": " + s.link.last_error : ""}`],
      ["Sessions", s.link.stopped || (s.link.sessions_declined ? `end with the process: ${s.link.sessions_declined}` : s.link.sessions.kept ? `outlive the process; ${s.link.sessions.resumed} connections resumed, ${s.link.sessions.backlog} messages were kept, ${s.link.sessions.redelivered} came twice` : "end with the process")],
      ["Your access", s.you ? `${s.you.role}${s.you.token ? ` (${s.you.token})` : ""}` : "asking"], ["Go", s.go_version],
    ];
    keyed(facts, entries, (e) => e[0], (e) => h("div", {}, h("dt", { text: e[0] }), h("dd")), (el, e) => text(el.lastChild, e[1]));
    drawCluster(s.cluster);
    keyed(components, s.components, (c) => c.name, (c) => h("tr", {}, h("th", { scope: "row", text: c.name }), h("td")), (tr, c) => {
      text(tr.lastChild, c.ready ? (c.reason ? `ready, ${c.reason}` : "ready") : c.reason || "not ready");
      tr.lastChild.className = c.ready ? "" : "bad";
    });
  }

  /** the replicas that share the cars, as this one sees them. */
  function drawCluster(c) {
    show(cluster, Boolean(c));
    if (!c) return;
    text(etcd, c.connected ? `This page is that of ${c.self}. etcd answers.` : `This page is that of ${c.self}. It cannot use etcd${c.problem ? `: ${c.problem}` : ""}. The replicas go on, but no car moves.`);
    etcd.className = c.connected ? "muted" : "bad";
    const cells = (tr, values) => values.forEach(([value, bad], i) => {
      text(tr.children[i + 1], value);
      tr.children[i + 1].className = bad ? "bad" : "";
    });
    const row = (name, n) => h("tr", {}, h("th", { scope: "row", text: name }), ...Array.from({ length: n }, () => h("td")));
    keyed(replicas, c.members, (m) => m.name, (m) => row(m.name === c.self ? `${m.name} (this one)` : m.name, 5), (tr, m) => cells(tr, [
      [m.reason ? `${m.state}: ${m.reason}` : m.state, m.state === "unhealthy"], [String(m.shards)], [m.version],
      [m.same_configuration ? "the same" : "differs from this one", !m.same_configuration], [m.address],
    ]));
    keyed(shards, c.shards, (s) => s.shard, (s) => row(String(s.shard), 3), (tr, s) => cells(tr, [
      [s.replica ?? "no owner", !s.replica], [s.epoch ? String(s.epoch) : "–"], [s.to ? `${s.state} to ${s.to}` : s.state ?? "–"],
    ]));
  }

  async function drawLevels() {
    let now;
    try {
      now = await get("api/v1/log-levels", { signal });
    } catch { return; }
    keyed(loggers, Object.entries(now).sort(), (e) => e[0], ([component]) => {
      const select = h("select", { "aria-label": `Level of ${component}` }, ...levels.map((l) => h("option", { value: l, text: l })), h("option", { value: "", text: "as configured" }));
      select.addEventListener("change", () => {
        const wanted = select.value;
        select.value = select.known;
        confirmAction(store, {
          title: `Log level of ${component}: ${wanted || "as configured"}?`, button: "Change", body: wanted === "DEBUG" ? "DEBUG writes a line for every message." : "It takes effect at once.",
          method: wanted ? "PUT" : "DELETE", path: `api/v1/log-levels/${encodeURIComponent(component)}`, data: wanted ? { level: wanted } : undefined, done: drawLevels,
        });
      });
      return h("tr", {}, h("th", { scope: "row", text: component }), h("td", {}, select), h("td"));
    }, (tr, [, { level, configured, overridden }]) => {
      const select = tr.querySelector("select");
      if (![...select.options].some((o) => o.value === level)) select.prepend(h("option", { value: level, text: level }));
      select.known = level;
      if (document.activeElement !== select) select.value = level;
      attr(select, "data-level", level);
      text(tr.lastElementChild, overridden ? `an operator; configured is ${configured}` : "the configuration");
    });
  }
  on("server", draw);
  on("tick", draw);
  on("access", () => { if (store.access === "granted") drawLevels(); });
  draw();
  drawLevels();
}
