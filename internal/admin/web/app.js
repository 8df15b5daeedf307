// Start, pages by the fragment of the address, and what is on every page: the state of
// the connection, access, theme.
import { Store } from "./store.js";
import { token } from "./api.js";
import { askForToken, closeDialogs } from "./access.js";
import { attr, h, number, plural, say, show, text } from "./dom.js";
import * as overview from "./overview.js";
import * as fleet from "./fleet.js";
import * as car from "./car.js";
import * as map from "./map.js";
import * as modules from "./modules.js";
import * as events from "./events.js";
import * as log from "./log.js";
import * as server from "./server.js";

const pages = { overview, fleet, car, map, modules, events, log, server };
const $ = (id) => document.getElementById(id);

const store = new Store();
let page = null; // { name, key, params, leave(), changed?(params) }

/** route reads the fragment: #/page/argument?parameters. */
function route() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const [name, ...rest] = path.split("/").filter(Boolean);
  let argument = rest.join("/");
  try { argument = decodeURIComponent(argument); } catch { /* shown as it is */ }
  return { name: pages[name] ? name : "fleet", argument, params: new URLSearchParams(query) };
}

function navigate() {
  closeDialogs();
  const to = route();
  const key = `${to.name}/${to.argument}`;
  if (page?.key === key) {
    page.changed?.(to.params);
    return;
  }
  const first = page === null;
  page?.leave();
  const root = $("main");
  root.replaceChildren();
  root.className = `page-${to.name}`;
  const listeners = new AbortController();
  const context = {
    root, store, argument: to.argument, params: to.params,
    on: (type, fn) => store.addEventListener(type, fn, { signal: listeners.signal }),
    signal: listeners.signal,
    title: (t) => { document.title = t ? `${t} · External Server` : "External Server"; },
    ask: () => askForToken(store),
    /** address writes parameters into the address without a new entry in the history. */
    address: (params) => {
      const q = params.toString();
      history.replaceState(null, "", `#/${to.name === "fleet" ? "" : to.name}${to.argument ? "/" + encodeURIComponent(to.argument) : ""}${q ? "?" + q : ""}`);
    },
  };
  const made = pages[to.name].open(context);
  page = { key, changed: made?.changed, leave: () => { listeners.abort(); made?.leave?.(); } };
  for (const a of document.querySelectorAll("nav [data-page]")) {
    attr(a, "aria-current", a.dataset.page === to.name ? "page" : to.name === "car" && a.dataset.page === "fleet" ? "true" : null);
  }
  scrollTo(0, 0);
  if (!first) {
    root.focus({ preventScroll: true });
    say(document.title);
  }
}

const streamWords = { live: "live", connecting: "connecting", waiting: "reconnecting", refused: "no access", stopped: "paused" };
let heard = "";

function showStream() {
  const s = store.stream;
  let words = streamWords[s.state];
  if (s.state === "waiting") words = `reconnecting in ${Math.max(0, Math.ceil((s.retryAt - Date.now()) / 1000))} s`;
  $("stream").dataset.state = s.state;
  text($("stream-text"), words);
  attr($("stream"), "title", s.state === "live" ? "Events arrive from the server as they happen. Press to connect anew." : `${s.problem?.message ?? "Events do not arrive."} Press to try at once.`);
  const now = streamWords[s.state];
  if (s.state !== "connecting" && now !== heard && !document.hidden) {
    if (heard) say(`Event stream: ${now}`);
    heard = now;
  }
}

const roles = { read: "You see everything and change nothing.", operate: "You see everything, and may disconnect cars, send commands, change log levels, reload and stop." };

function showAccess() {
  const you = store.server?.you;
  const refused = store.access === "refused";
  const mine = refused ? "enter token" : you ? (you.token ? `${you.token} · ${you.role}` : you.role) : "asking";
  text($("access-text"), mine);
  attr($("access"), "aria-label", refused ? "Access enter token: the server refuses this page" : `Access ${mine}: change the token`);
  attr($("access"), "title", refused ? "The server refuses this page. Press to enter a token." : you ? `${roles[you.role] ?? ""} ${you.token ? `By the token “${you.token}”.` : "Without token."} Press to change the token.`.trim() : "The server is asked who you are.");
  $("access").dataset.state = refused ? "refused" : you?.role ?? "";
  if (refused) askForToken(store);
  showAlarm();
}

/** showAlarm says on every page what stands in the way of all cars. */
function showAlarm() {
  const lines = [];
  if (store.problem && store.problem.status === 0) lines.push("This page does not reach the server. What you see is old.");
  else if (store.problem && store.access !== "refused") lines.push(`The server answers with an error: ${store.problem.message}`);
  for (const c of store.server?.components ?? []) if (!c.ready) lines.push(`${c.name} is not ready: ${c.reason}`);
  const el = $("alarm");
  const wanted = lines.join("\n");
  if (el.dataset.text !== wanted) {
    el.dataset.text = wanted;
    el.replaceChildren(...lines.map((l) => h("p", { text: l })));
  }
  show(el, lines.length > 0);
}

const themes = { "": "auto", light: "light", dark: "dark" };

function showTheme() {
  const now = document.documentElement.dataset.theme ?? "";
  text($("theme-text"), themes[now]);
  attr($("theme"), "aria-label", `Colours ${themes[now]}: change`);
  attr($("theme"), "title", `${now ? `This page is ${now}.` : "This page is light or dark as the system is."} Press for another choice: auto, light, dark.`);
}

$("theme").addEventListener("click", () => {
  const order = Object.keys(themes);
  const next = order[(order.indexOf(document.documentElement.dataset.theme ?? "") + 1) % order.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try { localStorage.setItem("external-server.theme", next); } catch { /* kept for this page only */ }
  showTheme();
  store.emit("theme");
});

$("stream").addEventListener("click", () => store.resume());
$("access").addEventListener("click", () => askForToken(store, true));
store.addEventListener("stream", showStream);
store.addEventListener("tick", showStream);
store.addEventListener("access", showAccess);
store.addEventListener("server", () => {
  text($("company"), store.server.company);
  showAccess();
});
store.addEventListener("alerts", () => {
  const n = store.alerts.alerts.length;
  show($("on"), n > 0);
  text($("on"), n);
  attr($("on"), "aria-label", `${plural(n, "alert")} on`);
});
store.addEventListener("cars", () => {
  const n = store.states.waiting + store.states.connecting + store.suspended;
  $("main").dataset.cars = number(store.cars.size);
  $("main").dataset.away = number(n);
});
addEventListener("hashchange", navigate);
document.addEventListener("keydown", (e) => { // to the filter of the page
  const filter = document.querySelector("main input[type=search]");
  if (e.key !== "/" || !filter || /^(input|select|textarea)$/i.test(e.target.tagName) || document.querySelector("dialog[open]")) return;
  e.preventDefault();
  filter.focus();
  filter.select();
});
document.querySelector(".skip").addEventListener("click", (e) => { // the fragment is the page's
  e.preventDefault();
  $("main").focus();
});

showTheme();
showStream();
if (!token.get()) $("access").dataset.state = "";
navigate();
store.start();
