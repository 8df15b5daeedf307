// The session of a car over time: when it was connected, how sessions ended, when
// devices came and went, and the messages since the page was opened.
import { attr, clock, duration, h, moment, ms, s } from "./dom.js";

const ranges = [["2 min", 120], ["15 min", 900], ["2 h", 7200], ["24 h", 86400]];
const keptMessages = 2000;

export class Timeline {
  #range = 900;
  #messages = [];

  constructor(store, name) {
    this.store = store;
    this.name = name;
    this.svg = s("svg", { role: "img" });
    this.buttons = ranges.map(([label, seconds]) => h("button", {
      type: "button", text: label, "aria-pressed": String(seconds === this.#range),
      on: {
        click: () => {
          this.#range = seconds;
          for (const [i, b] of this.buttons.entries()) attr(b, "aria-pressed", ranges[i][1] === seconds);
          if (this.last) this.draw(...this.last);
        },
      },
    }));
    const swatch = (kind, label) => h("span", { class: `l-${kind}`, text: label });
    this.el = h("div", { class: "timeline" },
      h("div", { class: "row" }, h("div", { class: "chips", role: "group", "aria-label": "Length of the time line" }, ...this.buttons), h("span", { class: "grow" }),
        h("div", { class: "legend" }, swatch("session", "connected"), swatch("failed", "connecting"), swatch("end", "end, fault"), swatch("in", "device, message from the car"), swatch("out", "message to it"))),
      this.svg);
    this.watch = new ResizeObserver(() => { if (this.last) this.draw(...this.last); });
    this.watch.observe(this.el);
  }

  destroy() { this.watch.disconnect(); }

  message(m) {
    this.#messages.push({ at: ms(m.at), out: m.direction === "out" });
    if (this.#messages.length > keptMessages) this.#messages.splice(0, 500);
  }

  draw(detail, brief) {
    this.last = [detail, brief];
    const width = this.el.clientWidth;
    if (!width) return;
    const now = this.store.now();
    const from = now - this.#range * 1000;
    const x = (t) => Math.max(0, Math.min(width, ((t - from) / (now - from)) * width));
    const out = [s("rect", { class: "band", x: 0, y: 14, width, height: 24, rx: 4 })];
    const span = (kind, start, end, title) => {
      if (end < from) return;
      out.push(s("rect", { class: kind, x: x(start), y: 14, width: Math.max(2, x(end) - x(start)), height: 24, rx: 2 }, s("title", { text: title })));
    };
    for (const e of detail.session_ends) {
      const end = ms(e.at);
      span(e.established ? "session" : "failed", end - e.seconds * 1000, end, `${moment(e.at)}: ${e.reason} after ${duration(e.seconds)}`);
      if (end >= from) out.push(s("line", { class: "end", x1: x(end), x2: x(end), y1: 8, y2: 42 }));
    }
    if (brief.state !== "waiting") span(brief.state === "running" ? "session" : "failed", ms(brief.since), now, `${brief.state} since ${moment(brief.since)}`);
    for (const ev of this.store.events) {
      const at = ms(ev.at);
      if (ev.car !== this.name || at < from) continue;
      if (ev.kind === "fault") out.push(s("path", { class: "fault", d: `M${x(at)} 44l5 9h-10z` }, s("title", { text: `${moment(ev.at)} ${ev.reason}` })));
      if (ev.kind.startsWith("device_")) out.push(s("circle", { class: "device-mark", cx: x(at), cy: 49, r: 3.5, opacity: ev.kind === "device_left" ? 0.45 : 1 }, s("title", { text: `${moment(ev.at)} ${ev.device ?? ev.text} ${ev.kind === "device_left" ? "left" : "joined"}` })));
    }
    let drawn = -1; // one mark per pixel and direction
    for (const m of this.#messages) {
      if (m.at < from) continue;
      const at = Math.round(x(m.at)) * 2 + (m.out ? 1 : 0);
      if (at === drawn) continue;
      drawn = at;
      out.push(s("rect", { class: m.out ? "out" : "in", x: at >> 1, y: m.out ? 68 : 58, width: 1.5, height: 9 }));
    }
    out.push(s("line", { class: "grid", x1: 0, x2: width, y1: 78.5, y2: 78.5 }));
    const marks = width > 520 ? 6 : 3;
    for (let i = 0; i <= marks; i++) {
      const t = from + ((now - from) * i) / marks;
      out.push(s("text", { x: x(t), y: 93, "text-anchor": i === 0 ? "start" : i === marks ? "end" : "middle", text: i === marks ? "now" : clock(t).slice(0, this.#range > 3600 ? 5 : 8) }));
    }
    this.svg.replaceChildren(...out);
    const within = detail.session_ends.filter((e) => ms(e.at) >= from).length;
    attr(this.svg, "aria-label", `Time line of the last ${duration(this.#range)}: now ${brief.state}, ${within} ends of sessions. The table of ends has the details.`);
  }
}
