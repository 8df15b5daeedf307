// A plain map: positions of mission statuses on a canvas, with heading, colour of the
// state and trail; a grid in metres where the configuration names no tiles.
import { get } from "./api.js";
import { attr, brief, h, number, visible } from "./dom.js";
import { latitude, perMetre, world } from "./mercator.js";
import { Tiles } from "./tiles.js";

const keptTrail = 240; // points per car
const metresPerDegree = 111320;
const largest = 2 ** 33; // pixels of the whole world, as near as one can look
const labelled = 40; // cars; with more of them names would cover each other

export const missionColours = { IDLE: "--muted", DRIVE: "--ok", IN_STOP: "--accent", OBSTACLE: "--warn", ERROR: "--bad" };

export class CarMap {
  cars = new Map(); // by car and device: position, trail, heading
  selected = null;
  #view = null; // { x, y: centre on the square of the world; size: of the square, pixels }; null: fits all
  #frame = 0;

  /** only: the name of the one car to show. onSelect(key) is told of a press on a car. */
  constructor(store, { only = "", onSelect } = {}) {
    this.store = store;
    this.only = only;
    this.onSelect = onSelect;
    this.canvas = h("canvas", { role: "img", tabindex: "0", "aria-label": "Map" });
    const button = (label, sign, fn) => h("button", { type: "button", "aria-label": label, title: label, text: sign, on: { click: fn } });
    this.el = h("div", { class: "mapbox" }, this.canvas,
      h("div", { class: "zoom" }, button("Zoom in", "+", () => this.zoom(1.5)), button("Zoom out", "−", () => this.zoom(1 / 1.5)), button("Show all", "⤢", () => { this.#view = null; this.draw(); })));
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(this.el);
    this.#listen();
  }

  destroy() {
    this.watch.disconnect();
    cancelAnimationFrame(this.#frame);
    this.tiles?.destroy();
  }

  /** read asks for positions and returns how many there are, null when it failed. */
  async read(signal) {
    if (this.reading) return null;
    this.reading = true;
    try {
      const path = `api/v1/positions${this.only ? "?car=" + encodeURIComponent(this.only) : ""}`;
      const { positions } = await get(path, { signal });
      this.#take(positions);
      this.draw();
      return positions.length;
    } catch {
      return null; // the state of the connection is shown elsewhere
    } finally {
      this.reading = false;
    }
  }

  #take(positions) {
    const now = new Map();
    for (const p of positions) {
      const key = `${p.car} ${p.type}/${p.role}`;
      const old = this.cars.get(key);
      const trail = old?.trail ?? [];
      let heading = old?.heading ?? null;
      const last = trail.at(-1);
      if (!last) trail.push([p.longitude, p.latitude]);
      else {
        const [east, north] = metres(last, [p.longitude, p.latitude]);
        const way = Math.hypot(east, north);
        if (way > 0.5) {
          heading = Math.atan2(east, north);
          if (way > 20000) trail.length = 0; // it was carried, not driven
          trail.push([p.longitude, p.latitude]);
          if (trail.length > keptTrail) trail.shift();
        }
      }
      if (heading === null && p.next_stop?.longitude !== undefined && p.state === "DRIVE") {
        const [east, north] = metres([p.longitude, p.latitude], [p.next_stop.longitude, p.next_stop.latitude]);
        heading = Math.atan2(east, north);
      }
      now.set(key, { ...p, key, trail, heading });
    }
    this.cars = now;
  }

  zoom(by, px, py) {
    const v = this.#fixed();
    const { width, height } = this.size;
    const before = v.size;
    v.size = Math.min(largest, Math.max(256, v.size * by));
    const shift = 1 / before - 1 / v.size;
    v.x += ((px ?? width / 2) - width / 2) * shift;
    v.y += ((py ?? height / 2) - height / 2) * shift;
    this.draw();
  }

  #pan(dx, dy) {
    const v = this.#fixed();
    v.x -= dx / v.size;
    v.y -= dy / v.size;
    this.draw();
  }

  /** fixed turns the view that fits into one of the user's. */
  #fixed() { return (this.#view ??= this.#fit()); }

  get size() { return { width: this.el.clientWidth, height: this.el.clientHeight }; }

  #fit() {
    let [west, east, south, north] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const c of this.cars.values()) {
      const stop = this.only && c.next_stop?.longitude !== undefined ? [[c.next_stop.longitude, c.next_stop.latitude]] : [];
      for (const place of [[c.longitude, c.latitude], ...c.trail, ...stop]) {
        const [x, y] = world(...place);
        west = Math.min(west, x); east = Math.max(east, x); south = Math.min(south, y); north = Math.max(north, y);
      }
    }
    if (west > east) return { x: 0.5, y: 0.5, size: 256 };
    const y = (south + north) / 2;
    const least = 150 * perMetre(latitude(y));
    const { width, height } = this.size;
    const size = Math.min((width - 110) / Math.max(east - west, least), (height - 90) / Math.max(north - south, least));
    return { x: (west + east) / 2, y, size: Math.min(largest, Math.max(size, 256)) };
  }

  draw() { this.#frame ||= requestAnimationFrame(() => { this.#frame = 0; this.#paint(); }); }

  #paint() {
    const { width, height } = this.size;
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const g = this.canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.el);
    const probe = this.probe ??= this.el.appendChild(h("span", { hidden: true }));
    const colour = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
    const colours = { text: colour("--text"), line: colour("--line"), muted: colour("--muted"), surface: colour("--surface"), accent: colour("--accent"), states: {} };
    for (const [state, name] of Object.entries(missionColours)) colours.states[state] = colour(name);
    const v = this.#view ?? this.#fit();
    this.shown = v;
    const at = (longitude, latitude) => {
      const [x, y] = world(longitude, latitude);
      return [width / 2 + (x - v.x) * v.size, height / 2 + (y - v.y) * v.size];
    };
    this.at = at;
    if (!this.tiles && this.store.map?.tiles) {
      this.tiles = new Tiles(this.store.map);
      this.canvas.before(this.tiles.el);
      this.canvas.after(this.tiles.note);
    }
    this.tiles?.draw(v, width, height);
    g.font = `12px ${style.fontFamily}`;
    this.#grid(g, v, width, height, colours);
    const list = [...this.cars.values()];
    for (const c of list) this.#trail(g, at, c, colours);
    for (const c of list) if (c.key === this.selected || this.only || list.length <= 12) this.#stop(g, at, c, colours);
    const names = !this.only && list.length <= labelled;
    for (const c of list) this.#car(g, at, c, colours, names || c.key === this.selected);
    const states = {};
    for (const c of list) states[brief(c.state, 24)] = (states[brief(c.state, 24)] ?? 0) + 1;
    const label = `Map of ${list.length} positions: ${Object.entries(states).map(([k, n]) => `${n} ${k}`).join(", ") || "none"}. Arrow keys move it, plus and minus zoom, 0 shows all.`;
    attr(this.canvas, "aria-label", label);
  }

  #grid(g, v, width, height, colours) {
    const here = latitude(v.y);
    const scale = v.size * perMetre(here); // pixels per metre
    const wanted = 110 / scale; // metres
    const power = 10 ** Math.floor(Math.log10(wanted));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= wanted) ?? 10 * power;
    if (!this.tiles) {
      // Lines stay with the ground while the map is moved: a metre is that of the whole degree.
      const px = step * v.size * perMetre(Math.round(here));
      const ox = (((width / 2 - v.x * v.size) % px) + px) % px;
      const oy = (((height / 2 - v.y * v.size) % px) + px) % px;
      g.strokeStyle = colours.line;
      g.lineWidth = 1;
      g.globalAlpha = 0.55;
      g.beginPath();
      for (let x = ox; x < width; x += px) { g.moveTo(Math.round(x) + 0.5, 0); g.lineTo(Math.round(x) + 0.5, height); }
      for (let y = oy; y < height; y += px) { g.moveTo(0, Math.round(y) + 0.5); g.lineTo(width, Math.round(y) + 0.5); }
      g.stroke();
      g.globalAlpha = 1;
    }
    const signs = () => {
      g.beginPath();
      g.moveTo(14, height - 20); g.lineTo(14, height - 14); g.lineTo(14 + step * scale, height - 14); g.lineTo(14 + step * scale, height - 20);
      g.moveTo(width / 2, 22); g.lineTo(width / 2, 34);
      g.stroke();
    };
    g.strokeStyle = colours.surface;
    g.lineWidth = 5;
    signs();
    g.strokeStyle = colours.muted;
    g.lineWidth = 2;
    signs();
    this.#label(g, step >= 1000 ? `${number(step / 1000)} km` : `${number(step)} m`, 20, height - 20, colours.muted, colours.surface);
    this.#label(g, "N", width / 2 - 4, 18, colours.muted, colours.surface);
  }

  #trail(g, at, c, colours) {
    if (c.trail.length < 2) return;
    g.strokeStyle = colours.states[c.state] ?? colours.muted;
    g.lineWidth = c.key === this.selected ? 3 : 2;
    g.lineJoin = g.lineCap = "round";
    const pieces = 6; // the older, the paler
    const all = [...c.trail, [c.longitude, c.latitude]];
    for (let i = 0; i < pieces; i++) {
      const part = all.slice(Math.floor((i * (all.length - 1)) / pieces), Math.floor(((i + 1) * (all.length - 1)) / pieces) + 1);
      if (part.length < 2) continue;
      g.globalAlpha = 0.12 + (0.6 * (i + 1)) / pieces;
      g.beginPath();
      for (const [n, p] of part.entries()) g[n ? "lineTo" : "moveTo"](...at(...p));
      g.stroke();
    }
    g.globalAlpha = 1;
  }

  #stop(g, at, c, colours) {
    const stop = c.next_stop;
    if (!stop || stop.longitude === undefined) return;
    const [x, y] = at(stop.longitude, stop.latitude);
    g.strokeStyle = g.fillStyle = colours.muted;
    g.lineWidth = 1.5;
    g.setLineDash([3, 5]);
    g.beginPath();
    g.moveTo(...at(c.longitude, c.latitude)); g.lineTo(x, y);
    g.stroke();
    g.setLineDash([]);
    g.strokeRect(x - 5, y - 5, 10, 10);
    if (stop.name) this.#label(g, visible(brief(stop.name)), x + 10, y + 14, colours.muted, colours.surface);
  }

  #car(g, at, c, colours, named) {
    const [x, y] = at(c.longitude, c.latitude);
    const fill = colours.states[c.state] ?? colours.muted;
    g.save();
    g.translate(x, y);
    if (c.key === this.selected) {
      g.strokeStyle = colours.accent;
      g.lineWidth = 2;
      g.beginPath();
      g.arc(0, 0, 16, 0, 7);
      g.stroke();
    }
    g.beginPath();
    if (c.heading !== null) {
      g.rotate(c.heading);
      g.moveTo(0, -12); g.lineTo(8, 9); g.lineTo(0, 4.5); g.lineTo(-8, 9);
    } else g.arc(0, 0, 7, 0, 7);
    g.closePath();
    g.lineWidth = 2;
    g.lineJoin = "round";
    g.fillStyle = c.connected ? fill : colours.surface; // hollow: not connected any more
    g.strokeStyle = c.connected ? colours.surface : fill;
    g.fill();
    g.stroke();
    g.restore();
    if (named) this.#label(g, c.car, x + 13, y - 9, colours.text, colours.surface);
  }

  #label(g, text, x, y, colour, halo) {
    g.lineWidth = 4;
    g.lineJoin = "round";
    g.strokeStyle = halo;
    g.strokeText(text, x, y);
    g.fillStyle = colour;
    g.fillText(text, x, y);
  }

  #listen() {
    const c = this.canvas;
    const down = new Map(); // pointers
    let moved = 0;
    c.addEventListener("pointerdown", (e) => {
      c.setPointerCapture(e.pointerId);
      down.set(e.pointerId, [e.offsetX, e.offsetY]);
      moved = 0;
    });
    c.addEventListener("pointermove", (e) => {
      const from = down.get(e.pointerId);
      if (!from) return;
      const to = [e.offsetX, e.offsetY];
      moved += Math.hypot(to[0] - from[0], to[1] - from[1]);
      if (down.size === 2) {
        const other = [...down].find(([id]) => id !== e.pointerId)[1];
        const ratio = Math.hypot(to[0] - other[0], to[1] - other[1]) / Math.max(1, Math.hypot(from[0] - other[0], from[1] - other[1]));
        this.zoom(ratio, (to[0] + other[0]) / 2, (to[1] + other[1]) / 2);
      } else if (moved > 4) this.#pan(to[0] - from[0], to[1] - from[1]);
      down.set(e.pointerId, to);
    });
    const up = (e) => {
      if (down.delete(e.pointerId) && moved <= 4 && e.type === "pointerup") this.#press(e.offsetX, e.offsetY);
    };
    c.addEventListener("pointerup", up);
    c.addEventListener("pointercancel", up);
    c.addEventListener("wheel", (e) => {
      if (this.only && !e.ctrlKey) return; // on a long page the wheel scrolls the page
      e.preventDefault();
      this.zoom(1.0015 ** -e.deltaY, e.offsetX, e.offsetY);
    }, { passive: false });
    c.addEventListener("keydown", (e) => {
      const keys = { ArrowLeft: () => this.#pan(60, 0), ArrowRight: () => this.#pan(-60, 0), ArrowUp: () => this.#pan(0, 60), ArrowDown: () => this.#pan(0, -60), "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), 0: () => { this.#view = null; this.draw(); } };
      if (!keys[e.key] || e.ctrlKey || e.altKey || e.metaKey) return;
      e.preventDefault();
      keys[e.key]();
    });
  }

  #press(px, py) {
    if (!this.onSelect) return;
    let best = null;
    let nearest = 24; // pixels
    for (const c of this.cars.values()) {
      const [x, y] = this.at(c.longitude, c.latitude);
      const d = Math.hypot(x - px, y - py);
      if (d < nearest) [best, nearest] = [c.key, d];
    }
    this.onSelect(best);
  }

  /** centre moves the map to a car. */
  centre(key) {
    const c = this.cars.get(key);
    if (!c) return;
    const v = this.#fixed();
    [v.x, v.y] = world(c.longitude, c.latitude);
    this.draw();
  }
}

function metres([x1, y1], [x2, y2]) {
  return [(x2 - x1) * metresPerDegree * Math.cos((y1 * Math.PI) / 180), (y2 - y1) * metresPerDegree];
}
