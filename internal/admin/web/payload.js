// Payloads of devices, for people: JSON pretty, text as it is, anything else in hex.
import { Exact } from "./api.js";
import { attr, bytes, h, number, show, text, visible } from "./dom.js";

const deepest = 40; // levels that are indented

/** pretty writes JSON with two spaces per level; short arrays and objects stay on a line. */
export function pretty(value, level = 0) {
  if (value instanceof Exact) return value.source;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value);
  const parts = list ? value.map((v) => pretty(v, level + 1)) : Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${pretty(v, level + 1)}`);
  const [open, close] = list ? "[]" : "{}";
  if (!parts.length) return open + close;
  const line = list ? `[${parts.join(", ")}]` : `{ ${parts.join(", ")} }`;
  if (level >= deepest || (line.length <= 72 && !line.includes("\n"))) return line;
  const indent = "  ".repeat(level + 1);
  return `${open}\n${parts.map((p) => indent + p).join(",\n")}\n${"  ".repeat(level)}${close}`;
}

/** dump writes hex as offset, bytes and characters. */
export function dump(hex) {
  const lines = [];
  for (let i = 0; i < hex.length; i += 32) {
    const pairs = hex.slice(i, i + 32).match(/../g) ?? [];
    const signs = pairs.map((p) => { const c = parseInt(p, 16); return c >= 32 && c < 127 ? String.fromCharCode(c) : "·"; }).join("");
    lines.push(`${(i / 2).toString(16).padStart(4, "0")}  ${pairs.join(" ").padEnd(47)}  ${signs}`);
  }
  return lines.join("\n");
}

/** written is the whole payload. */
export function written(p) {
  if (!p || p.size === 0) return "(empty)";
  const body = p.encoding === "json" ? pretty(p.data) : p.encoding === "hex" ? dump(p.data) : p.data;
  return body + (p.truncated ? `\n… the beginning of ${bytes(p.size)}` : "");
}

/** oneLine is the beginning of a payload, for lists. */
export function oneLine(p) {
  if (!p) return "";
  if (p.size === 0) return "(empty)";
  if (p.encoding === "hex") return p.data.slice(0, 120).replace(/../g, "$& ");
  return (p.encoding === "json" ? compact(p.data) : p.data).slice(0, 200);
}

function compact(v) {
  if (v instanceof Exact) return v.source;
  if (Array.isArray(v)) return `[${v.map(compact).join(",")}]`;
  if (v && typeof v === "object") return `{${Object.entries(v).map(([k, x]) => `${JSON.stringify(k)}:${compact(x)}`).join(",")}}`;
  return JSON.stringify(v);
}

const foldedLines = 14;
const foldedSigns = 900;

/** figure shows a payload, folded when it is long; update it with fill. */
export function figure(label) {
  const pre = h("pre", { tabindex: "0", "aria-label": label });
  const more = h("button", {
    type: "button", class: "quiet fold", hidden: true, "aria-expanded": "false",
    on: { click: () => { attr(more, "aria-expanded", String(more.getAttribute("aria-expanded") === "false")); fold(el); } },
  });
  const el = h("figure", { class: "payload" }, h("figcaption", { text: label }), pre, more);
  return el;
}

function fold(el) {
  const [, pre, more] = el.children;
  const lines = pre.textContent.split("\n").length;
  const long = lines > foldedLines || pre.textContent.length > foldedSigns;
  const open = more.getAttribute("aria-expanded") === "true";
  show(more, long);
  pre.classList.toggle("folded", long && !open);
  text(more, open ? "Show less" : lines > foldedLines ? `Show all ${number(lines)} lines` : "Show all");
}

/** fill returns whether the content is another one. */
export function fill(el, p, label) {
  const [caption, pre] = el.children;
  text(caption, `${label} · ${bytes(p?.size ?? 0)}${p && p.encoding !== "json" ? " · " + p.encoding : ""}`);
  const body = visible(written(p));
  const other = pre.textContent !== body;
  if (other) {
    text(pre, body);
    fold(el);
  }
  return other;
}
