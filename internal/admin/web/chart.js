// Charts of the last hour: curves or bars over time, one for each name, with their values
// in words. The pointer and the arrow keys read single points.
import { attr, clock, h, keyed, moment, number, s, say, text } from "./dom.js";

const width = 600;
const height = 110;
const colours = 6; // of the style sheet; more series share the last one

/** chart makes a panel. of: [{name, values}] with null for what is not known; written: how
 * a value is written. draw({times, series, empty}) fills it. */
export function chart(id, heading, { written = number, bars = false, note = "" } = {}) {
  const svg = s("svg", { role: "img", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", tabindex: "0", "aria-label": `${heading}: nothing is known yet` });
  const top = h("span", { class: "top-value muted" });
  const legend = h("ul", { class: "chart-legend" });
  const from = h("span");
  const at = h("output", { class: "chart-at" });
  const el = h("section", { class: "panel chart", "aria-labelledby": id },
    h("header", {}, h("h2", { id, text: heading }), at), h("div", { class: "chart-box" }, svg, top),
    h("div", { class: "chart-axis muted" }, from, h("span", { text: "now" })), legend, note ? h("p", { class: "muted", text: note }) : null);
  const cursor = s("line", { class: "cursor", y1: 0, y2: height, visibility: "hidden" });
  let times = [];
  let series = [];
  let chosen = -1;

  const x = (i) => (times.length < 2 ? width : (i / (times.length - 1)) * width);
  const sum = (i) => series.reduce((n, c) => n + (c.values[i] ?? 0), 0);

  el.draw = (data) => {
    ({ times, series } = data);
    const most = Math.max(0, ...(bars ? times.map((_, i) => sum(i)) : series.flatMap((c) => c.values.filter((v) => v !== null))));
    const y = (v) => height - 4 - (most > 0 ? (v / most) * (height - 26) : 0); // the label has the top
    const shapes = bars ? barShapes(y) : series.map((c, n) => s("path", { class: `curve c${Math.min(n, colours - 1)}`, d: path(c.values, y) }));
    svg.replaceChildren(s("line", { class: "grid", x1: 0, x2: width, y1: height - 4, y2: height - 4 }), ...shapes, cursor);
    text(top, most > 0 ? `most ${written(most)}` : "");
    text(from, times.length ? clock(times[0]).slice(0, 5) : "");
    keyed(legend, series.length ? series : [{ name: data.empty, none: true }], (c) => c.name,
      (c) => h("li", {}, h("span"), h("b")), (li, c) => {
        const n = series.indexOf(c);
        li.className = c.none ? "muted" : `c${Math.min(n, colours - 1)}`;
        text(li.firstChild, c.name);
        text(li.lastChild, c.none ? "" : words(c));
      });
    attr(svg, "aria-label", `${heading}, last ${span()}. ${series.length ? series.map((c) => `${c.name}: ${words(c)}`).join("; ") : data.empty}. Arrow keys read single points.`);
    if (chosen >= times.length) chosen = -1;
    mark(false);
  };

  const span = () => (times.length < 2 ? "moments" : `${Math.max(1, Math.round((Date.parse(times.at(-1)) - Date.parse(times[0])) / 60000))} min`);

  /** words are what a curve says: of bars their sum, of curves the newest value and the most. */
  function words(c) {
    const known = c.values.filter((v) => v !== null);
    if (!known.length) return "none";
    if (bars) return written(known.reduce((a, b) => a + b, 0));
    const now = c.values.at(-1);
    return `${now === null ? "none" : written(now)} now, at most ${written(Math.max(...known))}`;
  }

  function path(values, y) {
    let d = "";
    let drawn = false;
    values.forEach((v, i) => {
      if (v === null) { drawn = false; return; }
      d += `${drawn ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
      if (!drawn && (values[i + 1] ?? null) === null) d += "h1"; // a single point is seen too
      drawn = true;
    });
    return d;
  }

  function barShapes(y) {
    const wide = Math.max(1.5, width / Math.max(60, times.length) - 0.5);
    const out = [];
    times.forEach((_, i) => {
      let below = 0;
      series.forEach((c, n) => {
        const v = c.values[i] ?? 0;
        if (!v) return;
        out.push(s("rect", { class: `bar c${Math.min(n, colours - 1)}`, x: Math.min(width - wide, x(i)).toFixed(1), width: wide.toFixed(1), y: y(below + v).toFixed(1), height: (y(below) - y(below + v)).toFixed(1) }));
        below += v;
      });
    });
    return out;
  }

  /** mark shows the point that is read. */
  function mark(aloud) {
    attr(cursor, "visibility", chosen < 0 ? "hidden" : null);
    if (chosen < 0) { text(at, ""); return; }
    for (const k of ["x1", "x2"]) attr(cursor, k, x(chosen).toFixed(1));
    const values = series.filter((c) => (c.values[chosen] ?? null) !== null && (!bars || c.values[chosen])).map((c) => `${c.name} ${written(c.values[chosen])}`);
    text(at, `${moment(times[chosen]).slice(0, -4)}: ${values.join(", ") || "none"}`);
    if (aloud) say(at.textContent);
  }

  svg.addEventListener("keydown", (e) => {
    const last = times.length - 1;
    const to = { ArrowLeft: (chosen < 0 ? last + 1 : chosen) - 1, ArrowRight: chosen + 1, Home: 0, End: last, Escape: -1 }[e.key];
    if (to === undefined || e.ctrlKey || e.altKey || e.metaKey || last < 0) return;
    e.preventDefault();
    chosen = e.key === "Escape" ? -1 : Math.max(0, Math.min(last, to));
    mark(true);
  });
  svg.addEventListener("pointermove", (e) => {
    const box = svg.getBoundingClientRect();
    if (!times.length || !box.width) return;
    chosen = Math.max(0, Math.min(times.length - 1, Math.round(((e.clientX - box.left) / box.width) * (times.length - 1))));
    mark(false);
  });
  for (const type of ["pointerleave", "blur"]) svg.addEventListener(type, () => { chosen = -1; mark(false); });
  return el;
}
