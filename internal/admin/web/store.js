// What the dashboard knows: one copy of the fleet, kept fresh by the event stream at
// once and by polling for the rest. Pages listen to its events: cars, server, modules,
// alerts, events, stream, access, tick.
import { Problem, Stream, get, token } from "./api.js";
import { ms } from "./dom.js";

const keptEvents = 4096;
const keptSamples = 450; // of each module, one per modulesPause: 15 minutes
const serverPause = 2000;
const modulesPause = 2000;
const alertsPause = 5000; // the server judges every ten seconds
const outdated = new Error("asked with a token that was replaced");

export class Store extends EventTarget {
  cars = new Map(); // by name
  carsKnown = false;
  missing = []; // replicas whose cars are not known
  unserved = ""; // why cars have no replica that serves them
  states = { waiting: 0, connecting: 0, running: 0 };
  suspended = 0; // cars whose session waits for the connection to the broker
  server = null;
  map = null; // tiles, as they were when the page was loaded, which may load no others
  modules = null;
  alerts = null; // as the server answers: those that are on, and how many rules there are
  samples = new Map(); // of modules, by number and name
  events = []; // oldest first
  access = "unknown"; // granted, refused
  problem = null; // why the server was not reached or refuses, null when all is well
  offset = 0; // server clock minus ours, ms
  #timers = new Map();
  #runs = new Map(); // the loop of each name that counts; an older one ends
  #token = 0; // counts the tokens; an answer to an earlier one says nothing

  constructor() {
    super();
    this.stream = new Stream("api/v1/events", {
      first: "0",
      onEvent: (batch) => this.#arrived(batch),
      onState: () => this.#streamChanged(),
    });
  }

  /** now is the server's clock. */
  now() { return Date.now() + this.offset; }

  emit(type) { this.dispatchEvent(new Event(type)); }

  start() {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.resume()));
    addEventListener("online", () => this.resume());
    setInterval(() => { if (!document.hidden) this.emit("tick"); }, 1000);
    this.resume();
  }

  /** A hidden tab holds no connection: browsers open only six to one server. */
  pause() {
    for (const t of this.#timers.values()) clearTimeout(t);
    this.#timers.clear();
    this.stream.stop();
  }

  resume() {
    this.stream.restart();
    this.#loop("server", serverPause, () => this.#readServer());
    this.#loop("cars", 0, () => this.#readCars());
    this.#loop("modules", modulesPause, () => this.#readModules());
    this.#loop("alerts", alertsPause, () => this.#readAlerts());
  }

  /** soon reads the cars again shortly: something has changed that only the server
   * can put into words. */
  soon() {
    if (this.#timers.has("soon") || document.hidden) return;
    this.#timers.set("soon", setTimeout(() => {
      this.#timers.delete("soon");
      this.#loop("cars", 0, () => this.#readCars());
    }, Math.max(400, this.carsPause() / 4)));
  }

  /** carsPause: the larger the list, the longer the pause; changes of state come by the
   * stream anyway. */
  carsPause() { return Math.min(15000, 1500 + this.cars.size * 0.85); }

  #loop(name, pause, read) {
    clearTimeout(this.#timers.get(name));
    const mine = {};
    this.#runs.set(name, mine);
    const run = async () => {
      try {
        await read();
        this.#well();
      } catch (error) {
        if (error !== outdated) this.#unwell(error);
      }
      if (this.#runs.get(name) !== mine || document.hidden || this.access === "refused") return;
      this.#timers.set(name, setTimeout(run, pause || this.carsPause()));
    };
    run();
  }

  #well() {
    const changed = this.access !== "granted" || this.problem;
    this.access = "granted";
    this.problem = null;
    if (changed) this.emit("access");
  }

  #unwell(error) {
    this.problem = error instanceof Problem ? error : new Problem(0, String(error.message ?? error));
    if (this.problem.status === 401 || this.problem.status === 403) this.access = "refused";
    this.emit("access");
  }

  /** setToken tries another token; empty: none. */
  setToken(t) {
    if (t) token.set(t);
    else token.clear();
    this.#token++;
    this.access = "unknown";
    if (this.server) this.server = { ...this.server, you: null };
    this.resume();
  }

  /** ask reads a resource; the answer to a token that was replaced meanwhile is dropped. */
  async #ask(path) {
    const asked = this.#token;
    try {
      return await get(path);
    } finally {
      if (asked !== this.#token) throw outdated;
    }
  }

  get role() { return this.server?.you?.role ?? ""; }

  async #readServer() {
    const s = await this.#ask("api/v1/server");
    this.offset = ms(s.now) - Date.now();
    this.server = s;
    this.map ??= s.map ?? {};
    this.emit("server");
  }

  async #readCars() {
    const list = await this.#ask("api/v1/cars?limit=10000");
    for (let offset = 10000; offset < list.matched; offset += 10000) {
      list.cars.push(...(await this.#ask(`api/v1/cars?limit=10000&offset=${offset}`)).cars);
    }
    this.missing = list.missing ?? [];
    this.unserved = list.unserved ?? "";
    const before = this.cars;
    this.cars = new Map();
    for (const car of list.cars) {
      const old = before.get(car.name);
      // An event may have overtaken the list.
      this.cars.set(car.name, old && ms(old.since) > ms(car.since) ? { ...car, state: old.state, since: old.since, why: old.why, session: old.session } : car);
    }
    this.#count();
    this.carsKnown = true;
    this.emit("cars");
  }

  #count() {
    const n = { waiting: 0, connecting: 0, running: 0 };
    this.suspended = 0;
    for (const c of this.cars.values()) {
      n[c.state]++;
      if (c.suspended) this.suspended++;
    }
    this.states = n;
  }

  async #readAlerts() {
    this.alerts = await this.#ask("api/v1/alerts");
    this.emit("alerts");
  }

  async #readModules() {
    const { modules } = await this.#ask("api/v1/modules");
    const at = Date.now();
    for (const m of modules) {
      const key = moduleKey(m);
      const list = this.samples.get(key) ?? [];
      const last = list.at(-1);
      const restarts = m.process?.restarts ?? 0;
      list.push({
        at, queued: m.queued + (m.api?.queued ?? 0), age: Math.max(m.oldest_seconds, m.api?.oldest_seconds ?? 0), statuses: m.statuses,
        rate: last && m.statuses >= last.statuses ? (m.statuses - last.statuses) / Math.max(0.001, (at - last.at) / 1000) : null,
        restarted: last !== undefined && restarts > last.restarts, restarts,
      });
      if (list.length > keptSamples) list.shift();
      this.samples.set(key, list);
    }
    this.modules = modules;
    this.emit("modules");
  }

  #streamChanged() {
    const s = this.stream;
    if (s.state === "refused") this.#unwell(s.problem);
    this.emit("stream");
  }

  #arrived(batch) {
    let cars = false;
    for (const { type, data } of batch) {
      if (type === "gap") {
        // Of an earlier run, perhaps of one replica.
        if (data.lost === 0) this.events = data.replica ? this.events.filter((ev) => ev.replica !== data.replica) : [];
        continue;
      }
      this.events.push(data);
      if (data.car && this.#apply(data)) cars = true;
      if (data.kind === "link") this.soon(); // sessions may wait for the broker, or go on
    }
    if (this.events.length > keptEvents) this.events.splice(0, this.events.length - keptEvents);
    if (cars) {
      this.#count();
      this.emit("cars");
      this.soon();
    }
    this.emit("events");
  }

  /** apply changes a car by an event that is newer than what is known of it. */
  #apply(ev) {
    const car = this.cars.get(ev.car);
    if (!car) {
      if (this.carsKnown) this.soon();
      return false;
    }
    if (ms(ev.at) < ms(car.since)) return false;
    const state = { connect: "connecting", running: "running", disconnect: "waiting" }[ev.kind];
    if (!state || state === car.state) return false;
    const next = { ...car, state, since: ev.at, session: ev.session, why: "", suspended: false };
    if (state === "connecting") next.why = "connect sequence has begun";
    if (state === "waiting") {
      next.why = `${car.state === "running" ? "last session ended" : "its gateway tried to connect and failed"}: ${ev.reason}; not heard since`;
      next.ends = car.ends + 1;
    }
    this.cars.set(ev.car, next);
    return true;
  }
}

export const moduleKey = (m) => `${m.number} ${m.name}`;
