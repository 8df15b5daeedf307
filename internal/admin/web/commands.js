// The life of a command: of an operator's that the HTTP API has accepted it, then that the
// module has fetched it, that it was sent to the car, and how it ended.
import { ago, brief, duration, h, moment, ms, text } from "./dom.js";
import { figure, fill, oneLine } from "./payload.js";

const endings = {
  acknowledged: "acknowledged", refused: "refused by the gateway", expired: "not answered in time", lost: "session ended before an answer", discarded: "discarded, never sent", deleted: "deleted by the HTTP API before the module fetched it",
};

export function commandItem(c) {
  const steps = h("ol", { class: "steps", "aria-label": "Life of the command" }, ...(c.order ? [h("li")] : []), h("li"), h("li"), h("li"), h("li", { class: "after" }));
  const body = figure("Command");
  const details = h("details", {}, h("summary", { class: "mono" }), body);
  const when = h("span", { class: "muted" });
  return h("li", {}, h("div", { class: "row" }, h("b", { text: brief(c.device.name || c.device.role) }), h("span", { class: "muted", text: `module ${c.module}` }), when), steps, details);
}

export function commandUpdate(el, c, now) {
  const [head, steps, details] = el.children;
  const begun = c.accepted ?? c.queued;
  const apart = (from, to) => duration((ms(to) - ms(from)) / 1000);
  text(head.lastChild, ago(begun, now));
  head.lastChild.title = moment(begun);
  const items = [...steps.children];
  if (c.order) {
    const accepted = items.shift();
    accepted.className = "done";
    text(accepted, `accepted, sent by ${brief(c.by, 40)}`);
  }
  const [queued, sent, end, took] = items;
  queued.className = c.queued ? "done" : "";
  text(queued, !c.order ? "queued" : c.queued ? `fetched by the module after ${apart(begun, c.queued)}` : "fetched by the module");
  sent.className = c.sent ? "done" : "";
  text(sent, c.sent ? `sent as ${c.counter} after ${apart(c.queued, c.sent)}` : "sent");
  const over = endings[c.state];
  end.className = !over ? "" : c.state === "acknowledged" ? "done" : "failed";
  text(end, !over ? "acknowledged" : over + (c.response && c.response !== "OK" ? ` (${c.response})` : ""));
  text(took, over && c.ended ? apart(begun, c.ended) : { accepted: "waits for its module to fetch it", queued: "waits to be sent" }[c.state] ?? "waits for an answer");
  text(details.firstChild, oneLine(c.payload) || "(empty)");
  fill(details.lastChild, c.payload, "Command");
}
