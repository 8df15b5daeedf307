// A small curve over the last minutes, with marks where a process was restarted.
import { attr, h, s, text } from "./dom.js";

const span = 15 * 60 * 1000; // ms

export function plot(label) {
  const svg = s("svg", { role: "img", viewBox: "0 0 300 54", preserveAspectRatio: "none", "aria-label": `${label}: nothing is known yet` });
  const value = h("b");
  const el = h("figure", { class: "plot" }, h("figcaption", {}, h("span", { text: label }), value), svg);
  /** samples: [{at, restarted}], of: the value of one or null, written: how it is written. */
  el.draw = (samples, of, written) => {
    const known = samples.map((p) => ({ at: p.at, v: of(p), restarted: p.restarted })).filter((p) => p.v !== null);
    const last = known.at(-1);
    if (!last) return;
    const top = Math.max(...known.map((p) => p.v), 0);
    // A short history fills the plot too.
    const from = Math.max(last.at - span, Math.min(known[0].at, last.at - 60000));
    const x = (t) => ((t - from) / (last.at - from)) * 300;
    const y = (v) => 51 - (top > 0 ? (v / top) * 45 : 0);
    const points = known.map((p) => `${x(p.at).toFixed(1)} ${y(p.v).toFixed(1)}`).join("L");
    const marks = samples.filter((p) => p.restarted).map((p) => s("line", { class: "restart", x1: x(p.at), x2: x(p.at), y1: 0, y2: 54 }));
    svg.replaceChildren(s("path", { class: "area", d: `M${x(known[0].at).toFixed(1)} 54L${points}L300 54Z` }), s("path", { class: "curve", d: `M${points}` }), ...marks);
    text(value, `${written(last.v)}${top > last.v ? ` (most ${written(top)})` : ""}`);
    attr(svg, "aria-label", `${label}: now ${written(last.v)}, at most ${written(top)} since this page was opened${marks.length ? `, ${marks.length} restarts` : ""}`);
  };
  return el;
}
