// Payloads of devices, for people: JSON pretty, text as it is, anything else in hex.
import { Exact } from "./api.js";
import { bytes, h, text, visible } from "./dom.js";

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

/** figure shows a payload; update it with fill. */
export function figure(label) {
  return h("figure", { class: "payload" }, h("figcaption", { text: label }), h("pre", { tabindex: "0", "aria-label": label }));
}

/** fill returns whether the content is another one. */
export function fill(el, p, label) {
  text(el.firstChild, `${label} · ${bytes(p?.size ?? 0)}${p && p.encoding !== "json" ? " · " + p.encoding : ""}`);
  const body = visible(written(p));
  const other = el.lastChild.textContent !== body;
  text(el.lastChild, body);
  return other;
}
