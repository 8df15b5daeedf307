// Finds the sections that have all words, those with them in the heading first.
const up = document.getElementById("search-script").dataset.up;
const field = document.getElementById("q"), found = document.getElementById("found"), page = document.getElementById("page");

function matches(words) {
  const out = [];
  for (const s of index) {
    const heading = (s.p + " " + s.h).toLowerCase(), text = s.t.toLowerCase();
    if (!words.every((w) => heading.includes(w) || text.includes(w))) continue;
    out.push({ s, rank: words.filter((w) => s.h.toLowerCase().includes(w)).length * 2 + words.filter((w) => s.p.toLowerCase().includes(w)).length });
  }
  return out.sort((a, b) => b.rank - a.rank).slice(0, 40);
}

function show() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  found.hidden = words.length === 0;
  page.hidden = !found.hidden;
  found.replaceChildren();
  if (found.hidden) return;
  const hits = matches(words), list = document.createElement("ul"), title = document.createElement("h1");
  title.textContent = hits.length === 0 ? "Nothing found" : "Found";
  for (const { s } of hits) {
    const item = document.createElement("li"), link = document.createElement("a"), text = document.createElement("small");
    link.href = up + s.a;
    link.textContent = s.p === s.h ? s.p : s.p + " › " + s.h;
    const at = Math.max(0, s.t.toLowerCase().indexOf(words[0]) - 60);
    text.textContent = (at > 0 ? "… " : "") + s.t.slice(at, at + 200);
    item.append(link, text);
    list.append(item);
  }
  found.append(title, list);
}

field.form.addEventListener("submit", (e) => {
  e.preventDefault();
  found.querySelector("a")?.click();
});
field.addEventListener("input", show);
found.addEventListener("click", (e) => {
  if (e.target.closest("a")) { field.value = ""; show(); }
});
document.addEventListener("keydown", (e) => {
  if (e.key === "/" && document.activeElement !== field) { e.preventDefault(); field.focus(); }
  if (e.key === "Escape") { field.value = ""; show(); }
});
