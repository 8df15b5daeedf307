// The form that sends a command to a device of a car: fields for the mission and the I/O
// module, JSON for all others.
import { carPath, get } from "./api.js";
import { confirmAction } from "./access.js";
import { attr, brief, h, keyed, show, text } from "./dom.js";

const mostStops = 50;
const mostOutputs = 32;
const mostBytes = 60000; // of the data; the server takes a little more with what is around it

let count = 0; // of fields, for their ids

/** field is a labelled input with room for what is wrong with it. */
function field(label, input, hint) {
  const id = `f${++count}`;
  const problem = h("small", { class: "bad", id: `${id}-problem`, hidden: true });
  input.id = id;
  const el = h("div", { class: "field" }, h("label", { for: id, text: label }), input, hint ? h("small", { text: hint }) : null, problem);
  el.input = input;
  el.say = (words) => {
    text(problem, words);
    show(problem, Boolean(words));
    attr(input, "aria-invalid", words ? "true" : null);
    attr(input, "aria-describedby", words ? problem.id : null);
  };
  return el;
}

const textInput = (props) => h("input", { type: "text", autocomplete: "off", spellcheck: "false", ...props });
const select = (options) => h("select", {}, ...options.map(([value, label]) => h("option", { value, text: label })));

/** Wrong is a fault of a field, which says it itself. */
class Wrong extends Error {
  constructor(el, words) {
    super(words);
    el.say(words);
    this.el = el;
  }
}

/** numeric reads a decimal number within bounds. */
function numeric(el, least, most, whole = false) {
  const words = el.input.value.trim().replace(",", ".");
  const n = Number(words);
  if (words === "" || !Number.isFinite(n) || n < least || n > most || (whole && !Number.isInteger(n))) {
    throw new Wrong(el, `Expected a ${whole ? "whole number" : "number"} from ${least} to ${most}${words === "" ? "." : `, not “${brief(words, 20)}”.`}`);
  }
  return n;
}

/** rows is a list of groups of fields, which grows and shrinks. */
function rows(legend, one, most, least, make) {
  const list = h("div", { class: "rowsof" });
  const add = h("button", { type: "button", text: `Add ${one}`, on: { click: () => { grow(); list.lastElementChild.querySelector("input, select").focus(); } } });
  const number = () => {
    for (const [i, el] of [...list.children].entries()) {
      attr(el, "aria-label", `${one} ${i + 1}`);
      attr(el.remover, "aria-label", `Remove ${one} ${i + 1}`);
      show(el.remover, list.children.length > least);
    }
    add.disabled = list.children.length >= most;
  };
  function grow() {
    const fields = make();
    const remove = h("button", { type: "button", class: "quiet", text: "✕", on: { click: () => { el.remove(); number(); add.focus(); } } });
    const el = h("div", { class: "rowof", role: "group" }, ...Object.values(fields), remove);
    el.fields = fields;
    el.remover = remove;
    list.append(el);
    number();
  }
  while (list.children.length < least) grow();
  number();
  const el = h("fieldset", {}, h("legend", { text: legend }), list, add);
  el.all = () => [...list.children].map((r) => r.fields);
  el.clear = () => { for (const f of list.querySelectorAll(".field")) f.say(""); };
  return el;
}

/** mission are the fields of module 1. */
function mission() {
  const action = field("Action", select([["START", "START: drive to the stops"], ["STOP", "STOP: stand still"], ["NO_ACTION", "NO_ACTION: nothing new"]]));
  const route = field("Route", textInput({ maxlength: 200 }), "Name of the route, if the car knows routes.");
  const stops = rows("Stops, in order", "stop", mostStops, 0, () => ({
    name: field("Name", textInput({ maxlength: 100 })), latitude: field("Latitude", textInput({ inputmode: "decimal" })),
    longitude: field("Longitude", textInput({ inputmode: "decimal" })), altitude: field("Altitude, m", textInput({ inputmode: "decimal", value: "0" })),
  }));
  return {
    els: [action, route, stops],
    name: () => action.input.value,
    read: () => {
      const list = stops.all().map((s) => ({
        name: s.name.input.value.trim(),
        position: { latitude: numeric(s.latitude, -90, 90), longitude: numeric(s.longitude, -180, 180), altitude: numeric(s.altitude, -1000, 10000) },
      }));
      if (action.input.value === "START" && !list.length && !route.input.value.trim()) throw new Wrong(action, "START needs a stop or a route.");
      return JSON.stringify({ action: action.input.value, route: route.input.value.trim(), stops: list });
    },
    clear: () => { action.say(""); route.say(""); stops.clear(); },
  };
}

/** outputs are the fields of module 2. */
function outputs() {
  const list = rows("Outputs", "output", mostOutputs, 1, () => ({
    out: field("outNum", textInput({ inputmode: "numeric" })), act: field("actType", select([["1", "1: on"], ["0", "0: off"], ["2", "2: toggle"]])),
  }));
  return {
    els: [list],
    name: () => "outputs",
    read: () => JSON.stringify(list.all().map((o) => ({ outNum: numeric(o.out, 0, 255, true), actType: Number(o.act.input.value) }))),
    clear: () => list.clear(),
  };
}

/** json is the field of all others. Its text is sent as it is: numbers keep their digits. */
function json(value = "") {
  const data = field("Data, as JSON", h("textarea", { rows: 6, spellcheck: "false", class: "mono" }), "An object, an array or a text in quotes.");
  data.input.value = value;
  return {
    els: [data],
    name: () => "the command",
    read: () => {
      const words = data.input.value.trim();
      let parsed;
      try { parsed = JSON.parse(words); } catch (error) {
        throw new Wrong(data, words ? `This is not JSON: ${error.message}.` : "Write the data of the command.");
      }
      if (parsed === null || typeof parsed === "number" || typeof parsed === "boolean") throw new Wrong(data, "Expected an object, an array or a text in quotes.");
      if (new TextEncoder().encode(words).length > mostBytes) throw new Wrong(data, `Longer than ${mostBytes} bytes.`);
      return words;
    },
    clear: () => data.say(""),
    data,
  };
}

export class CommandForm {
  #targets = [];
  #fields = null;

  /** done is called when a command was accepted. */
  constructor(store, name, done) {
    this.store = store;
    this.name = name;
    this.done = done;
    this.note = h("p", { class: "muted", role: "status", text: "Asking the server …" });
    this.device = field("Device", h("select", { on: { change: () => this.#choose() } }));
    this.raw = h("input", { type: "checkbox", id: `f${++count}`, on: { change: () => this.#choose(true) } });
    this.rawRow = h("div", { class: "row" }, this.raw, h("label", { for: this.raw.id, text: "Write it as JSON" }));
    this.body = h("div", { class: "fields" });
    this.problem = h("p", { class: "bad", role: "alert", hidden: true });
    this.form = h("form", { class: "send", novalidate: true, hidden: true, on: { submit: (e) => { e.preventDefault(); this.#send(); } } },
      this.device, this.rawRow, this.body, this.problem, h("div", { class: "row" }, h("button", { type: "submit", class: "main", text: "Send …" })));
    this.el = h("details", { class: "sender" }, h("summary", { text: "Write a command" }), this.note, this.form);
    this.el.addEventListener("toggle", () => { if (this.el.open) this.#load(); });
  }

  async #load() {
    let answer;
    try {
      answer = await get(`${carPath(this.name)}/commands`);
    } catch (error) {
      text(this.note, error.message);
      show(this.form, false);
      return;
    }
    const first = (s) => s.charAt(0).toUpperCase() + s.slice(1);
    this.#targets = answer.devices;
    const usable = answer.available && answer.devices.length > 0;
    text(this.note, usable ? "The HTTP API of this server checks and stores it; the module of the device fetches it." : `${first(answer.reason ?? "the HTTP API knows no device of this car")}.`);
    show(this.form, usable);
    if (!usable) return;
    const before = this.device.input.value;
    keyed(this.device.input, answer.devices, (d) => `${d.module_id}/${d.type}/${d.role}`, (d) => h("option", {
      value: `${d.module_id}/${d.type}/${d.role}`, text: `${brief(d.name || d.role, 40)} · module ${d.module_id}, type ${d.type}, role ${brief(d.role, 40)}`,
    }));
    if (this.device.input.value !== before || !this.#fields) this.#choose();
  }

  get #target() { return this.#targets[this.device.input.selectedIndex]; }

  /** choose makes the fields for the device; toggled: what was written is taken over. */
  #choose(toggled = false) {
    const module = this.#target?.module_id;
    const shaped = module === 1 || module === 2;
    show(this.rawRow, shaped);
    if (!toggled) this.raw.checked = false;
    let value = "";
    if (toggled && this.raw.checked) {
      try { value = JSON.stringify(JSON.parse(this.#fields.read()), null, 2); } catch { value = module === 1 ? '{"action": "START", "route": "", "stops": []}' : '[{"outNum": 0, "actType": 1}]'; }
    }
    this.#fields = shaped && !this.raw.checked ? (module === 1 ? mission() : outputs()) : json(value);
    this.body.replaceChildren(...this.#fields.els);
    this.#say("");
  }

  #say(words) {
    text(this.problem, words);
    show(this.problem, Boolean(words));
  }

  #send() {
    this.#say("");
    this.device.say("");
    this.#fields.clear();
    let data;
    try {
      data = this.#fields.read();
    } catch (error) {
      if (!(error instanceof Wrong)) throw error;
      error.el.input.focus();
      return;
    }
    const device = this.#target;
    const id = { module_id: device.module_id, type: device.type, role: device.role, name: device.name };
    confirmAction(this.store, {
      title: `Send ${this.#fields.name()} to ${brief(device.name || device.role, 40)} of ${this.name}?`, button: "Send", body: "The module fetches it and the car is told at once.", shown: data,
      path: `${carPath(this.name)}/commands`, data: `{"device_id":${JSON.stringify(id)},"payload":{"message_type":"COMMAND","encoding":"JSON","data":${data}}}`,
      done: this.done, failed: (error) => this.#refused(error),
    });
  }

  /** refused shows what the server says where it belongs. */
  #refused(error) {
    if (error.field?.startsWith("device_id") || error.status === 404) {
      this.device.say(error.message);
      this.device.input.focus();
    } else if (error.field?.startsWith("payload.data") && this.#fields.data) {
      this.#fields.data.say(error.message);
      this.#fields.data.input.focus();
    } else this.#say(error.message);
    return true;
  }
}
