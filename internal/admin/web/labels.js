// Labels of cars, which the configuration gives: the filter of the list, and those of one car.
import { attr, h, keyed, natural, number, show, text } from "./dom.js";

const offered = 500; // labels in the choice

/** labelsOf are the labels of a car as NAME=VALUE, in the order of their names. */
export const labelsOf = (car) => Object.entries(car.labels ?? {}).sort((a, b) => natural(a[0], b[0])).map(([name, value]) => `${name}=${value}`);

/** labelled tells whether a car has all labels that are wanted, each NAME=VALUE, or NAME for any value. */
export const labelled = (car, wanted) => wanted.every((w) => {
  const at = w.indexOf("=");
  const value = car.labels?.[at < 0 ? w : w.slice(0, at)];
  return value !== undefined && (at < 0 || value === w.slice(at + 1));
});

/** labelLinks are the labels of a car, each a link to the cars that have it too. */
export function labelLinks() {
  const el = h("ul", { class: "labels", "aria-label": "Labels", hidden: true });
  return {
    el,
    draw: (car) => {
      const labels = labelsOf(car);
      show(el, labels.length > 0);
      keyed(el, labels, (l) => l, (l) => h("li", {}, h("a", { class: "label", href: `#/?${new URLSearchParams({ label: l })}`, text: l, title: `All cars with ${l}` })));
    },
  };
}

/** LabelFilter is a choice of the labels that there are, and those that were chosen. */
export class LabelFilter {
  #wanted = [];

  /** onChange(labels) is told what was chosen. */
  constructor(onChange) {
    this.onChange = onChange;
    this.choice = h("select", { "aria-label": "Filter by a label", hidden: true, on: { change: () => this.#add(this.choice.value) } });
    this.chosen = h("div", { class: "labels", role: "group", "aria-label": "Chosen labels", hidden: true });
    this.known = "";
  }

  #add(label) {
    this.choice.value = "";
    if (label && !this.#wanted.includes(label)) this.onChange([...this.#wanted, label]);
  }

  /** draw shows the labels of the cars and those that are wanted. */
  draw(cars, wanted) {
    this.#wanted = wanted;
    const counts = new Map();
    for (const c of cars) for (const l of labelsOf(c)) counts.set(l, (counts.get(l) ?? 0) + 1);
    const all = [...counts.keys()].sort(natural);
    const known = JSON.stringify([all, wanted]);
    if (known !== this.known && document.activeElement !== this.choice) { // an open choice stays as it is
      this.known = known;
      const some = all.filter((l) => !wanted.includes(l));
      this.choice.replaceChildren(h("option", { value: "", text: "Label …" }), ...some.slice(0, offered).map((l) => h("option", { value: l, text: l })));
      if (some.length > offered) this.choice.append(h("option", { value: "", disabled: true, text: `… and ${number(some.length - offered)} more: write into the search` }));
    }
    show(this.choice, all.length > 0);
    show(this.chosen, wanted.length > 0);
    keyed(this.chosen, wanted, (l) => l, (l) => h("button", { type: "button", class: "label", on: { click: () => this.onChange(this.#wanted.filter((w) => w !== l)) } }, h("span"), h("span", { "aria-hidden": "true", text: " ✕" })), (b, l) => {
      text(b.firstChild, l);
      attr(b, "aria-label", `Remove the filter ${l}`);
    });
  }
}
