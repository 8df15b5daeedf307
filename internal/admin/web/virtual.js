// A table of any length of which only the visible rows exist. It scrolls with the
// window. One row is the active one: it is the table's tab stop, and the arrow keys
// move it.
import { attr } from "./dom.js";

const extra = 8; // rows beyond the edge of the window

/** control is what has the focus of a row. */
const control = (row) => row.querySelector("[data-control]") ?? row.querySelector("a, button");

export class VirtualRows {
  #rows = new Map(); // rendered, by key
  #items = [];
  #active = 0;
  #activeKey = null;
  #frame = 0;
  #create; #update; #key; #watch;

  /** el: the role=rowgroup element. create(item) makes a row whose first link or button is its
   * focus, or the one with data-control; update(row, item) fills it. */
  constructor(el, { key, create, update }) {
    this.el = el;
    this.#key = key;
    this.#create = create;
    this.#update = update;
    this.schedule = () => { this.#frame ||= requestAnimationFrame(() => { this.#frame = 0; this.render(); }); };
    addEventListener("scroll", this.schedule, { passive: true });
    addEventListener("resize", this.schedule);
    el.addEventListener("keydown", (e) => this.#keydown(e));
    el.addEventListener("focusin", (e) => {
      const row = e.target.closest("[data-index]");
      if (row) this.#setActive(Number(row.dataset.index));
    });
    this.#watch = new ResizeObserver(this.schedule);
    this.#watch.observe(document.body);
  }

  destroy() {
    removeEventListener("scroll", this.schedule);
    removeEventListener("resize", this.schedule);
    cancelAnimationFrame(this.#frame);
    this.#watch.disconnect();
  }

  set(items) {
    this.#items = items;
    const at = this.#activeKey === null ? -1 : items.findIndex((i) => this.#key(i) === this.#activeKey);
    this.#active = at >= 0 ? at : Math.min(this.#active, Math.max(0, items.length - 1));
    this.render();
  }

  #setActive(index) {
    this.#active = index;
    this.#activeKey = this.#items[index] === undefined ? null : this.#key(this.#items[index]);
    for (const row of this.#rows.values()) this.#tabStop(row);
  }

  #tabStop(row) {
    attr(control(row), "tabindex", Number(row.dataset.index) === this.#active ? "0" : "-1");
  }

  render() {
    const height = parseFloat(getComputedStyle(this.el).getPropertyValue("--row"));
    this.el.style.height = `${this.#items.length * height}px`;
    const top = -this.el.getBoundingClientRect().top;
    const from = Math.max(0, Math.floor(top / height) - extra);
    const to = Math.min(this.#items.length, Math.ceil((top + innerHeight) / height) + extra);
    const wanted = new Map();
    for (let i = from; i < to; i++) wanted.set(this.#key(this.#items[i]), i);
    // The active row stays, or the focus would be lost when it scrolls away.
    if (this.#items[this.#active] !== undefined) wanted.set(this.#key(this.#items[this.#active]), this.#active);
    for (const [key, row] of this.#rows) {
      if (!wanted.has(key)) {
        row.remove();
        this.#rows.delete(key);
      }
    }
    for (const [key, i] of wanted) {
      let row = this.#rows.get(key);
      if (!row) {
        row = this.#create(this.#items[i]);
        this.#rows.set(key, row);
        this.el.append(row);
      }
      const top = `translateY(${i * height}px)`;
      if (row.dataset.index !== String(i) || row.style.transform !== top) {
        row.dataset.index = i;
        row.style.transform = top;
        attr(row, "aria-rowindex", i + 2); // the header is the first
        row.classList.toggle("odd", i % 2 === 1);
      }
      this.#tabStop(row);
      this.#update(row, this.#items[i]);
    }
    this.#order();
  }

  /** order puts the rows into the order of the list for who reads them one by one. */
  #order() {
    const sorted = [...this.#rows.values()].sort((a, b) => a.dataset.index - b.dataset.index);
    const focused = document.activeElement;
    let at = this.el.firstElementChild;
    for (const row of sorted) {
      if (row === at) at = at.nextElementSibling;
      else if (row.contains(focused)) {
        while (at && at !== row) { const next = at.nextElementSibling; this.el.append(at); at = next; }
        at = row.nextElementSibling;
      } else this.el.insertBefore(row, at);
    }
  }

  /** follow lets a filter move in the rows: arrows go into them, Enter opens the active
   * one. settle applies what was typed last, before. */
  follow(input, settle) {
    input.addEventListener("keydown", (e) => {
      if (!["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Enter"].includes(e.key) || e.isComposing || e.ctrlKey || e.altKey || e.metaKey) return;
      e.preventDefault();
      settle();
      if (!this.#items.length) return;
      if (e.key === "Enter") control(this.#rows.get(this.#key(this.#items[this.#active]))).click();
      else if (e.key === "ArrowDown") this.#go(this.#active);
      else this.#keydown(e);
    });
  }

  /** first makes the first row the active one: the items are others than before. */
  first() { this.#setActive(0); }

  get activeKey() { return this.#activeKey; }

  /** reveal shows the row of a key and gives it the focus; false: there is none. */
  reveal(key) {
    const at = this.#items.findIndex((i) => this.#key(i) === key);
    if (at >= 0) this.#go(at);
    return at >= 0;
  }

  #keydown(e) {
    const page = Math.max(1, Math.floor(innerHeight / parseFloat(getComputedStyle(this.el).getPropertyValue("--row"))) - 6);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[e.key];
    if (by === undefined || e.ctrlKey || e.altKey || e.metaKey || !this.#items.length) return;
    e.preventDefault();
    this.#go(Math.max(0, Math.min(this.#items.length - 1, this.#active + by)));
  }

  /** go makes a row the active one, with the focus, where it is seen. */
  #go(index) {
    this.#setActive(index);
    this.render();
    const row = this.#rows.get(this.#activeKey);
    control(row).focus({ preventScroll: true });
    const box = row.getBoundingClientRect();
    const head = parseFloat(getComputedStyle(this.el).getPropertyValue("scroll-margin-top")) || 0;
    const foot = 64;
    if (box.top < head) scrollBy(0, box.top - head);
    else if (box.bottom > innerHeight - foot) scrollBy(0, box.bottom - innerHeight + foot);
  }
}
