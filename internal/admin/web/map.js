// The map of all cars whose mission module reports positions.
import { ago, attr, brief, h, keyed, natural, number, plural, show, text } from "./dom.js";
import { CarMap, missionColours } from "./mapview.js";

const listed = 200;

export function open({ root, store, on, signal, title }) {
  title("Map");
  const count = h("p", { class: "muted" });
  const search = h("input", { type: "search", placeholder: "Car, state or stop", "aria-label": "Filter the list of positions", autocomplete: "off" });
  const list = h("ul", { class: "maplist", "aria-label": "Cars on the map" });
  const empty = h("p", { class: "empty panel", hidden: true, text: "No car has reported a position yet. Positions are those of the statuses of mission devices (module 1): telemetry.position." });
  const map = new CarMap(store, { onSelect: select });
  const legend = h("div", { class: "legend" }, ...Object.keys(missionColours).map((state) => {
    const el = h("i", { class: "mission", data: { mission: state }, text: state });
    return el;
  }), h("i", { text: "hollow: not connected" }));
  const box = h("div", { class: "mapped" }, h("div", {}, map.el, legend), h("div", { class: "panel" }, h("div", { class: "row" }, search), count, list));
  root.append(h("h1", { text: "Map" }), empty, box);

  function select(key) {
    map.selected = map.selected === key ? null : key;
    map.draw();
    drawList();
    if (key) list.querySelector("[aria-pressed=true]")?.scrollIntoView({ block: "nearest" });
  }

  function drawList() {
    const words = search.value.trim().toLowerCase();
    const all = [...map.cars.values()];
    const found = all.filter((c) => !words || `${c.car} ${c.state} ${c.next_stop?.name ?? ""}`.toLowerCase().includes(words));
    found.sort((a, b) => natural(a.car, b.car));
    const some = found.slice(0, listed);
    if (map.selected && !some.some((c) => c.key === map.selected) && map.cars.has(map.selected)) some.unshift(map.cars.get(map.selected));
    text(count, `${plural(all.length, "position")}${found.length < all.length ? `, ${number(found.length)} match` : ""}${some.length < found.length ? `, the first ${number(some.length)} are listed` : ""}`);
    keyed(list, some, (c) => c.key, (c) => h("li", {},
      h("button", { type: "button", on: { click: () => { select(c.key); if (map.selected) map.centre(c.key); } } },
        h("span", { class: "line" }, h("b", { text: c.car }), h("span", { class: "mission" })),
        h("span", { class: "line" }, h("small"), h("small")))), (li, c) => {
      const button = li.firstChild;
      attr(button, "aria-pressed", String(map.selected === c.key));
      const mission = button.firstChild.lastChild;
      attr(mission, "data-mission", c.state);
      text(mission, c.connected ? brief(c.state, 24) : `${brief(c.state, 24)} (not connected)`);
      const [left, right] = button.lastChild.children;
      text(left, c.next_stop?.name ? `to ${brief(c.next_stop.name)}` : `${c.latitude.toFixed(5)}, ${c.longitude.toFixed(5)}`);
      text(right, `${c.speed === undefined ? "" : c.speed.toFixed(1) + " m/s, "}${ago(c.at, store.now())}`);
      if (map.selected === c.key && !li.children[1]) li.append(h("a", { href: `#/car/${encodeURIComponent(c.car)}`, text: `Open ${c.car}` }));
      if (map.selected !== c.key) li.children[1]?.remove();
    });
  }

  async function read() {
    if (document.hidden) return;
    const n = await map.read(signal);
    if (n === null || signal.aborted) return;
    show(empty, n === 0);
    show(box, n > 0);
    drawList();
    if (n) map.draw();
  }
  search.addEventListener("input", drawList);
  on("theme", () => map.draw());
  on("access", () => { if (store.access === "granted") read(); });
  const timer = setInterval(read, 1000);
  read();
  return { leave: () => { clearInterval(timer); map.destroy(); } };
}
