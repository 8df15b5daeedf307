// Building and updating elements, and how values are written for people.

// What has no shape of its own, or turns the text around it: control characters, marks
// of direction, lone surrogates. Line breaks and tabs are left.
const shapeless = /[^\P{C}\n\t]|[\u2028\u2029]/gu;

/** visible writes such characters as escapes: what cars send looks like what it is. */
export const visible = (value) => String(value ?? "").replace(shapeless, (c) => {
  const hex = c.codePointAt(0).toString(16);
  return hex.length > 4 ? `\\u{${hex}}` : `\\u${hex.padStart(4, "0")}`;
});

/** brief is the beginning of a name that a car has chosen. */
export const brief = (value, length = 64) => {
  const signs = [...String(value ?? "").slice(0, 2 * length + 2)]; // characters, not halves of them
  return signs.length > length ? `${signs.slice(0, length).join("")}…` : signs.join("");
};

/** h makes an element. Properties: class, text, on (listeners), data; anything else
 * is an attribute, left out when null or false. Text never becomes markup. */
export function h(tag, props, ...children) {
  const el = document.createElement(tag);
  set(el, props);
  el.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false).map((c) => (c instanceof Node ? c : visible(c))));
  return el;
}

/** s is h for SVG. */
export function s(tag, props, ...children) {
  const el = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(props ?? {})) {
    if (k === "text") el.textContent = visible(v);
    else if (v !== null && v !== undefined) el.setAttribute(k, v);
  }
  el.append(...children);
  return el;
}

const shown = ["title", "aria-label"]; // attributes that people read

function set(el, props) {
  for (const [k, v] of Object.entries(props ?? {})) {
    if (v === null || v === undefined || v === false) continue;
    if (k === "class") el.className = v;
    else if (k === "text") el.textContent = visible(v);
    else if (k === "on") for (const [type, fn] of Object.entries(v)) el.addEventListener(type, fn);
    else if (k === "data") Object.assign(el.dataset, v);
    else el.setAttribute(k, v === true ? "" : shown.includes(k) ? visible(v) : v);
  }
}

/** text writes only what has changed: selections and screen readers stay undisturbed. */
export function text(el, value) {
  const t = visible(value);
  if (el.textContent !== t) el.textContent = t;
}

export function attr(el, name, value) {
  if (value === null || value === undefined || value === false) {
    if (el.hasAttribute(name)) el.removeAttribute(name);
    return;
  }
  const v = shown.includes(name) ? visible(value) : String(value);
  if (el.getAttribute(name) !== v) el.setAttribute(name, v);
}

export function show(el, visible) {
  if (el.hidden === visible) el.hidden = !visible;
}

/** keyed makes the children of parent follow items, keeping the element of each key,
 * with its focus, open details and scroll position. */
export function keyed(parent, items, key, create, update) {
  const old = parent.keyedChildren ?? new Map();
  const now = new Map();
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    let el = old.get(k);
    if (el && !now.has(k)) old.delete(k);
    else el = create(item);
    now.set(k, el);
    update?.(el, item);
    if (el === at) at = at.nextElementSibling;
    else parent.insertBefore(el, at);
  }
  for (const el of old.values()) el.remove();
  parent.keyedChildren = now;
}

const counted = new Intl.NumberFormat("en");
export const number = (n) => counted.format(n ?? 0);
export const plural = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;

const orderKeys = new Map(); // of names, for natural
const orderKey = (name) => {
  let key = orderKeys.get(name);
  if (key === undefined) {
    if (orderKeys.size > 100_000) orderKeys.clear();
    key = name.replace(/\d+/g, (digits) => digits.replace(/^0+(?=\d)/, "").padStart(20, "0"));
    orderKeys.set(name, key);
  }
  return key;
};
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
/** natural orders names as people count: car_2 before car_10. */
export const natural = (a, b) => compare(orderKey(a), orderKey(b)) || compare(a, b);

export const ms = (t) => (t ? Date.parse(t) : 0);

/** duration of seconds in its two largest units. */
export function duration(seconds) {
  if (seconds < 0.0995) return `${Math.round(Math.max(0, seconds) * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const t = Math.round(seconds);
  if (t < 60) return `${t} s`;
  if (t < 3600) return `${Math.floor(t / 60)} min ${t % 60} s`;
  if (t < 86400) return `${Math.floor(t / 3600)} h ${Math.floor((t % 3600) / 60)} min`;
  return `${Math.floor(t / 86400)} d ${Math.floor((t % 86400) / 3600)} h`;
}

/** short is a duration in one unit, for lists. */
export function short(seconds) {
  const t = Math.max(0, Math.round(seconds));
  if (t < 60) return `${t} s`;
  if (t < 3600) return `${Math.floor(t / 60)} min`;
  if (t < 86400) return `${Math.floor(t / 3600)} h`;
  return `${Math.floor(t / 86400)} d`;
}

/** ago is how long before now (server time, ms) a time was. */
export const ago = (t, now) => (t ? `${short((now - ms(t)) / 1000)} ago` : "never");

const clocked = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dated = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
export const date = (t) => (t ? dated.format(new Date(t)) : "never");

/** clock is the time of day to the millisecond. */
export function clock(t) {
  if (!t) return "never";
  const d = new Date(t);
  return `${clocked.format(d)}.${String(d.getMilliseconds()).padStart(3, "0")}`;
}

const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const dayOfYear = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** moment is a time with its date, for lists; the year is written when it is another one. */
export function moment(t) {
  if (!t) return "never";
  const d = new Date(t);
  return `${(d.getFullYear() === new Date().getFullYear() ? day : dayOfYear).format(d)} ${clock(t)}`;
}

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  if (n < 1 << 20) return `${(n / 1024).toFixed(1)} KiB`;
  if (n < 1 << 30) return `${(n / (1 << 20)).toFixed(1)} MiB`;
  return `${(n / (1 << 30)).toFixed(2)} GiB`;
}

/** say tells screen readers. */
export function say(message) {
  const el = document.getElementById("said");
  el.textContent = "";
  requestAnimationFrame(() => { el.textContent = visible(message); });
}

/** toast shows what an action has done. */
export function toast(message, bad = false) {
  const el = h("div", { class: bad ? "toast bad" : "toast", text: message });
  document.getElementById("toasts").append(el);
  say(message);
  setTimeout(() => el.remove(), 8000);
}
