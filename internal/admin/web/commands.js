// The life of a command: queued, sent, and how it ended.
import { ago, brief, duration, h, moment, ms, text } from "./dom.js";
import { figure, fill, oneLine } from "./payload.js";

const endings = {
  acknowledged: "acknowledged", refused: "refused by the gateway", expired: "not answered in time", lost: "session ended before an answer", discarded: "discarded, never sent",
};

export function commandItem(c) {
  const steps = h("ol", { class: "steps", "aria-label": "Life of the command" }, h("li"), h("li"), h("li"), h("li", { class: "after" }));
  const body = figure("Command");
  const details = h("details", {}, h("summary", { class: "mono" }), body);
  const when = h("span", { class: "muted" });
  return h("li", {}, h("div", { class: "row" }, h("b", { text: brief(c.device.name || c.device.role) }), h("span", { class: "muted", text: `module ${c.module}` }), when), steps, details);
}

export function commandUpdate(el, c, now) {
  const [head, steps, details] = el.children;
  text(head.lastChild, ago(c.queued, now));
  head.lastChild.title = moment(c.queued);
  const [queued, sent, end, took] = steps.children;
  queued.className = "done";
  text(queued, "queued");
  sent.className = c.sent ? "done" : "";
  text(sent, c.sent ? `sent as ${c.counter} after ${duration((ms(c.sent) - ms(c.queued)) / 1000)}` : "sent");
  const over = endings[c.state];
  end.className = !over ? "" : c.state === "acknowledged" ? "done" : "failed";
  text(end, !over ? "acknowledged" : over + (c.response && c.response !== "OK" ? ` (${c.response})` : ""));
  text(took, over && c.ended ? duration((ms(c.ended) - ms(c.queued)) / 1000) : c.state === "queued" ? "waits to be sent" : "waits for an answer");
  text(details.firstChild, oneLine(c.payload) || "(empty)");
  fill(details.lastChild, c.payload, "Command");
}
