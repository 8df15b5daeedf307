// The live tail: messages of a car as they pass, newest first.
import { Stream, carPath } from "./api.js";
import { attr, brief, clock, h, show, text } from "./dom.js";
import { oneLine, written } from "./payload.js";

const kept = 200;

export class Tail {
  #paused = false;
  #waiting = [];
  #frame = 0;

  /** onMessage is told each message, also while the list is paused. */
  constructor(name, onMessage) {
    this.list = h("div", { class: "tail", role: "log", "aria-live": "off", "aria-label": "Live messages, newest first" });
    this.state = h("span", { class: "muted" });
    this.pause = h("button", { type: "button", text: "Pause", "aria-pressed": "false", on: { click: () => this.#toggle() } });
    this.filter = h("select", { "aria-label": "Kinds of messages", on: { change: () => { for (const el of this.list.children) this.#match(el); } } },
      ...[["", "all messages"], ["status", "statuses"], ["command", "commands"], ["connect", "connects"]].map(([value, label]) => h("option", { value, text: label })));
    const clear = h("button", { type: "button", text: "Clear", on: { click: () => { this.list.replaceChildren(); this.#waiting = []; this.#tell(); } } });
    this.el = h("div", {}, h("div", { class: "row" }, this.filter, this.pause, clear, this.state), this.list);
    this.stream = new Stream(`${carPath(name)}/messages`, {
      detail: true,
      onEvent: (batch) => {
        for (const { type, data } of batch) {
          if (type === "message") onMessage(data);
          this.#waiting.push(type === "gap" ? { gap: data } : data);
        }
        if (this.#waiting.length > kept) this.#waiting.splice(0, this.#waiting.length - kept);
        if (!this.#paused) this.#frame ||= requestAnimationFrame(() => this.#flush());
        this.#tell();
      },
      onState: () => this.#tell(),
    });
    this.#tell();
  }

  start() { if (this.stream.state === "stopped" || this.stream.state === "refused") this.stream.start(); }
  stop() { this.stream.stop(); }

  #toggle() {
    this.#paused = !this.#paused;
    attr(this.pause, "aria-pressed", String(this.#paused));
    text(this.pause, this.#paused ? "Go on" : "Pause");
    if (!this.#paused) this.#flush();
    this.#tell();
  }

  #tell() {
    const s = this.stream?.state;
    let words = { live: this.list.childElementCount || this.#waiting.length ? "live" : "live, waiting for messages …", connecting: "connecting …", waiting: "reconnecting …", refused: this.stream?.problem?.message ?? "", stopped: "stopped" }[s] ?? "";
    if (this.#paused) words = `paused, ${this.#waiting.length} new`;
    text(this.state, words);
  }

  #flush() {
    this.#frame = 0;
    for (const m of this.#waiting) this.list.prepend(m.gap ? h("p", { class: "bad", text: `${m.gap.lost || "Some"} messages are missing here: ${m.gap.reason}` }) : this.#item(m));
    this.#waiting = [];
    while (this.list.childElementCount > kept) this.list.lastElementChild.remove();
    this.#tell();
  }

  #match(el) { show(el, !this.filter.value || (el.dataset.kind ?? "").startsWith(this.filter.value)); }

  #item(m) {
    const device = m.device ? brief(m.device.name || m.device.role) : m.devices ? `${m.devices.length} devices` : "";
    const note = [m.state && m.state !== "RUNNING" ? m.state : "", m.response ?? "", m.duplicate ? "duplicate" : "", m.refused ? "refused" : ""].filter(Boolean).join(" ");
    const out = m.direction === "out";
    const el = h("details", { class: out ? "out" : "in", data: { kind: m.kind } },
      h("summary", {},
        h("span", { class: "muted", text: clock(m.at) }),
        h("span", { class: "dir", text: out ? "→" : "←", title: out ? "to the gateway" : "from the gateway" }),
        h("span", { text: m.kind }), h("span", { text: m.counter ?? "" }), h("span", { text: device }),
        h("span", { class: "muted", text: [note, oneLine(m.payload)].filter(Boolean).join(" ") })));
    el.addEventListener("toggle", () => { // written when somebody wants to see it
      if (!el.open || el.childElementCount > 1) return;
      const parts = [`session ${m.session}`];
      if (m.device) parts.push(`device ${m.device.module}/${m.device.type}/${m.device.role}/${m.device.name}, priority ${m.device.priority}`);
      for (const d of m.devices ?? []) parts.push(`device ${d.module}/${d.type}/${d.role}/${d.name}, priority ${d.priority}`);
      if (m.state) parts.push(`state ${m.state}`);
      if (m.payload) parts.push(written(m.payload));
      if (m.error) parts.push("error:", written(m.error));
      el.append(h("pre", { text: parts.join("\n") }));
    });
    this.#match(el);
    return el;
  }
}
