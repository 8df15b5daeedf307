// Tiles of a map below the canvas, from the URL that the configuration gives.
import { h, show, text } from "./dom.js";

const edge = 256; // pixels of a tile at its own zoom
const pause = 80; // ms between two looks at what is to be loaded
const most = 600; // tiles that are kept

export class Tiles {
  #tiles = new Map(); // by zoom, column and row: the image
  #timer = 0;
  #view = null;
  #loaded = 0;

  /** map: { tiles: URL with {z}, {x} and {y}; attribution; max_zoom }. */
  constructor(map) {
    this.map = map;
    this.el = h("div", { class: "tiles", "aria-hidden": "true" });
    this.note = h("p", { class: "attribution", text: map.attribution ?? "", hidden: !map.attribution });
  }

  destroy() {
    clearTimeout(this.#timer);
    this.#tiles.clear();
    this.el.remove();
    this.note.remove();
  }

  /** draw puts the tiles where they belong in a view { x, y: centre on the square; size: of
   * the square in pixels } and loads those that are missing, soon. */
  draw(view, width, height) {
    const zoom = Math.max(0, Math.min(this.map.max_zoom, Math.round(Math.log2(view.size / edge))));
    this.#view = { ...view, width, height, zoom };
    for (const img of this.#tiles.values()) this.#place(img);
    this.#timer ||= setTimeout(() => { this.#timer = 0; this.#load(); }, pause);
  }

  #place(img) {
    const { x, y, size, width, height } = this.#view;
    const side = size / 2 ** img.at[0];
    const [left, top] = [width / 2 - x * size + img.at[1] * side, height / 2 - y * size + img.at[2] * side];
    // Whole pixels, or the background shows between the tiles.
    const [l, t] = [Math.round(left), Math.round(top)];
    img.style.transform = `translate(${l}px, ${t}px)`;
    img.style.width = `${Math.round(left + side) - l}px`;
    img.style.height = `${Math.round(top + side) - t}px`;
  }

  #load() {
    const { x, y, size, width, height, zoom } = this.#view;
    const count = 2 ** zoom;
    const side = size / count;
    const column = (px) => Math.floor(x * count + px / side);
    const row = (px) => Math.max(0, Math.min(count - 1, Math.floor(y * count + px / side)));
    const wanted = new Map();
    for (let r = row(-height / 2); r <= row(height / 2); r++) {
      for (let c = column(-width / 2); c <= column(width / 2); c++) wanted.set(`${zoom}/${c}/${r}`, [zoom, c, r]);
    }
    if (wanted.size > most) return;
    for (const [key, at] of wanted) if (!this.#tiles.has(key)) this.#add(key, at, count);
    // What was seen before stays below until all of the new is there.
    if (this.#tiles.size <= most && [...wanted.keys()].some((k) => !this.#tiles.get(k).dataset.state)) return;
    for (const [key, img] of this.#tiles) {
      if (!wanted.has(key)) {
        img.remove();
        this.#tiles.delete(key);
      }
    }
  }

  #add(key, at, count) {
    const values = { z: at[0], x: ((at[1] % count) + count) % count, y: at[2] };
    const settled = (state) => {
      img.dataset.state = state;
      if (state === "loaded") this.#loaded++;
      if (state === "failed" && !this.#loaded) {
        text(this.note, `No tile of the map came from ${new URL(this.map.tiles).host}.`);
        show(this.note, true);
      } else if (this.#loaded === 1) {
        text(this.note, this.map.attribution ?? "");
        show(this.note, Boolean(this.map.attribution));
      }
      this.#timer ||= setTimeout(() => { this.#timer = 0; this.#load(); }, pause);
    };
    // Servers of tiles ask for the origin of the page that shows them; nothing else is sent.
    const img = h("img", { alt: "", draggable: "false", decoding: "async", referrerpolicy: "origin", on: { load: () => settled("loaded"), error: () => settled("failed") } });
    img.at = at;
    img.src = this.map.tiles.replace(/\{([xyz])\}/g, (_, name) => values[name]);
    this.#tiles.set(key, img);
    this.#place(img);
    this.el.append(img);
  }
}
