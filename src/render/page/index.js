"use strict";
const { entries } = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const make = (name, props = {}, ...children) => {
  const node = Object.assign(document.createElement(name), props);
  node.append(...children);
  return node;
};
// Names without the folder that all have in common.
const folders = entries.map((e) => e.name.split("/").slice(0, -1));
const common = (folders[0] || []).findIndex((part, i) => folders.some((f) => f[i] !== part));
const cut = common < 0 ? (folders[0] || []).length : common;
const short = (name) => name.split("/").slice(cut).join("/");
const TOGETHER = 120; // cards that are added at a time
const collator = new Intl.Collator(undefined, { numeric: true }); // far faster than localeCompare
const state = { order: "name", label: "", name: "" };
let list = [], done = 0;

const orders = {
  name: ["name", (a, b) => collator.compare(a.name, b.name)],
  low: ["least sure first", (a, b) => (a.figure ?? Infinity) - (b.figure ?? Infinity)],
  high: ["surest first", (a, b) => (b.figure ?? -Infinity) - (a.figure ?? -Infinity)],
};

function controls() {
  const order = make("select", { id: "order" });
  for (const [key, [text]] of Object.entries(orders)) order.append(new Option(text, key));
  const label = make("select", { id: "label" }, new Option("all", ""));
  const counts = new Map();
  for (const { label: own } of entries) if (own !== null) counts.set(own, (counts.get(own) || 0) + 1);
  for (const own of [...counts.keys()].sort()) label.append(new Option(`${own} (${counts.get(own)})`, own));
  const name = make("input", { id: "name", type: "search" });
  order.addEventListener("change", () => { state.order = order.value; show(); });
  label.addEventListener("change", () => { state.label = label.value; show(); });
  name.addEventListener("input", () => { state.name = name.value.toLowerCase(); show(); });
  at("controls").append(make("label", {}, "Order", order), make("label", {}, "Class", label), make("label", {}, "Name contains", name));
  at("controls").addEventListener("submit", (e) => e.preventDefault());
}

function card({ name, page, thumbnail, label, figure }) {
  const link = make("a", { href: page });
  if (thumbnail) link.append(make("img", { src: thumbnail, alt: "", loading: "lazy", decoding: "async" }));
  link.append(make("p", { textContent: short(name), title: name }));
  if (label !== null) link.append(make("p", { className: "figure", textContent: `${label} ${figure === null ? "" : figure.toFixed(3)}` }));
  return make("li", {}, link);
}

function more() {
  const next = list.slice(done, done + TOGETHER);
  at("cards").append(...next.map(card));
  done += next.length;
  // Observed anew: an end that stays in sight is told of once.
  watch.unobserve(at("end"));
  watch.observe(at("end"));
}

function show() {
  list = entries.filter((e) => (!state.label || e.label === state.label) && e.name.toLowerCase().includes(state.name));
  list.sort(orders[state.order][1]);
  at("count").textContent = `${list.length} of ${entries.length} inputs`;
  at("cards").replaceChildren();
  done = 0;
  more();
}

const watch = new IntersectionObserver((seen) => { if (seen.some((s) => s.isIntersecting) && done < list.length) more(); }, { rootMargin: "1200px" });
controls();
show();
