"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const make = (name, props = {}, ...children) => {
  const node = Object.assign(document.createElement(name), props);
  node.append(...children);
  return node;
};
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const colours = Object.fromEntries(Object.entries(data.colormaps).map(([name, table]) => [name, bytes(table)]));
const figure = (v) => (v === 0 ? "0" : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e4 ? v.toPrecision(4) : v.toExponential(3));
const unique = (list) => [...new Set(list)];
const named = (what, v) => [make("bdi", { textContent: what.trim() }), `: ${figure(v)}`]; // words may run from right to left

// ---- what is chosen
const state = { method: data.maps[0].method, target: data.maps[0].target, map: "", alpha: data.alpha, blend: data.blend, smooth: "smooth", words: data.units };

function choice(label, key, names, change) {
  const select = make("select", { id: "choose-" + key });
  for (const [value, text] of names) select.append(new Option(text, value, false, state[key] === value));
  select.addEventListener("change", () => { state[key] = select.value; change(); });
  at("controls").append(make("label", {}, label, select));
}

function controls() {
  const own = (key) => unique(data.maps.map((m) => m[key])).map((name) => [name, name]);
  choice("Method", "method", own("method"), show);
  choice("Target", "target", own("target"), show);
  choice("Colours", "map", [["", "usual"], ...Object.keys(colours).map((name) => [name, name])], show);
  if (data.picture) {
    choice("Between patches", "smooth", [["smooth", "smooth"], ["flat", "one tile a patch"]], show);
    choice("Heat", "blend", [["fade", "fades, over grey"], ["fade-plain", "fades"], ["veil", "even veil"]], show);
    const slider = make("input", { type: "range", id: "choose-alpha", min: 0, max: 1, step: 0.05, value: state.alpha });
    slider.addEventListener("input", () => { state.alpha = +slider.value; paint(shown()); });
    at("controls").append(make("label", {}, "Opacity", slider));
  } else {
    choice("Units", "words", [["words", "words"], ["pieces", "word pieces"]], show);
  }
  at("controls").addEventListener("submit", (e) => e.preventDefault());
}

// ---- colours
const table = (map) => colours[state.map || map.colormap];
const range = (map) => (!data.picture && state.words === "pieces" ? map.of_pieces : [map.low, map.high]);
function place(map, v) {
  const [low, high] = range(map);
  return high > low ? Math.min(1, Math.max(0, (v - low) / (high - low))) : map.signed ? 0.5 : 0;
}
function colour(map, v) {
  const i = 3 * Math.round(255 * place(map, v));
  return [...table(map).slice(i, i + 3)];
}

// Whether black letters have more contrast on a colour than white ones, by WCAG's relative luminance.
function light(...rgb) {
  const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179;
}

// ---- pictures
let cursor = null; // the patch under the pointer or the keyboard

function stage() {
  const { src, width, height, view } = data.picture;
  const image = make("img", { id: "picture", src, width, height, alt: "The picture that was explained" });
  const heat = make("canvas", { id: "heat", tabIndex: 0 });
  heat.setAttribute("role", "application");
  heat.setAttribute("aria-label", "Map of relevance: arrow keys go from patch to patch");
  const percent = (v, of) => (100 * v) / of + "%";
  const seat = (node, [x, y, w, h]) => Object.assign(node.style, { left: percent(x, width), top: percent(y, height), width: percent(w, width), height: percent(h, height) });
  seat(heat, view);
  const cell = make("div", { className: "cell", hidden: true, id: "cell" });
  if (width < 448) image.style.width = "448px";
  at("view").append(make("div", { className: "stage" }, image, heat, cell));
  const grid = () => shown().grid;
  const go = (row, column) => {
    const [rows, columns] = grid();
    cursor = [Math.min(rows - 1, Math.max(0, row)), Math.min(columns - 1, Math.max(0, column))];
    const [x, y, w, h] = view;
    seat(cell, [x + (w * cursor[1]) / columns, y + (h * cursor[0]) / rows, w / columns, h / rows]);
    cell.hidden = false;
    tell();
  };
  heat.addEventListener("pointermove", (e) => point(e));
  heat.addEventListener("pointerdown", (e) => point(e));
  const point = (e) => {
    const box = heat.getBoundingClientRect(), [rows, columns] = grid();
    go(Math.floor(((e.clientY - box.top) / box.height) * rows), Math.floor(((e.clientX - box.left) / box.width) * columns));
  };
  heat.addEventListener("keydown", (e) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[e.key];
    if (!step) return;
    e.preventDefault();
    go((cursor ? cursor[0] : 0) + (cursor ? step[0] : 0), (cursor ? cursor[1] : 0) + (cursor ? step[1] : 0));
  });
}

function tell() {
  const map = shown();
  if (!cursor || !data.picture) return;
  const [row, column] = cursor, value = map.values[row * map.grid[1] + column];
  const what = map.fine ? " (the whole patch)" : "";
  at("value").textContent = value === undefined ? "" : `row ${row}, column ${column}: ${figure(value)}${what}`;
}

// The map at so many pixels: cubic between the centres of patches (Catmull-Rom), or one tile a patch.
function enlarged(values, [rows, columns], height, width, smooth) {
  // Of each pixel along an axis the four patches around it, and their weights.
  const along = (n, length) => Array.from({ length }, (_, i) => {
    const at = ((i + 0.5) * n) / length - (smooth ? 0.5 : 0), low = Math.floor(at), t = at - low;
    const inside = (k) => Math.min(n - 1, Math.max(0, k));
    if (!smooth) return [[inside(low), 1]];
    const weights = [((2 - t) * t - 1) * t / 2, ((3 * t - 5) * t * t + 2) / 2, ((4 - 3 * t) * t + 1) * t / 2, (t - 1) * t * t / 2];
    return weights.map((weight, k) => [inside(low - 1 + k), weight]);
  });
  const ys = along(rows, height), xs = along(columns, width), wide = new Float32Array(rows * width);
  for (let r = 0; r < rows; r++) xs.forEach((taps, x) => { for (const [c, w] of taps) wide[r * width + x] += w * values[r * columns + c]; });
  const out = new Float32Array(height * width);
  ys.forEach((taps, y) => { for (const [r, w] of taps) for (let x = 0; x < width; x++) out[y * width + x] += w * wide[r * width + x]; });
  return out;
}

let turn = 0; // counts paintings: a picture that loads late must not cover a later one
function paint(map) {
  const mine = ++turn;
  const heat = at("heat"), [, , w, h] = data.picture.view;
  const scale = Math.min(1, 640 / Math.max(w, h));
  const width = Math.max(1, Math.round(w * scale)), height = Math.max(1, Math.round(h * scale));
  Object.assign(heat, { width, height });
  const context = heat.getContext("2d"), picture = context.createImageData(width, height), own = table(map);
  at("picture").style.filter = state.blend === "fade" ? "grayscale(1)" : "";
  const share = (p) => (state.blend === "veil" ? 1 : Math.sqrt(map.signed ? Math.abs(2 * p - 1) : p));
  const put = (places) => {
    for (let i = 0; i < places.length; i++) {
      const c = 3 * Math.round(255 * places[i]);
      picture.data.set([own[c], own[c + 1], own[c + 2], Math.round(255 * state.alpha * share(places[i]))], 4 * i);
    }
    context.putImageData(picture, 0, 0);
  };
  if (map.fine) {
    const image = new Image();
    image.onload = () => {
      if (mine !== turn) return;
      context.drawImage(image, 0, 0, width, height);
      put(Array.from(context.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 0), (v) => v / 255));
    };
    image.src = map.fine;
  } else {
    const smooth = state.smooth === "smooth" && map.grid[0] * map.grid[1] > 1;
    put(Array.from(enlarged(map.values, map.grid, height, width, smooth), (v) => place(map, v)));
  }
}

// ---- texts
function write(map) {
  at("view").replaceChildren();
  let first = true; // one of the words is a tab stop, arrow keys go on from there
  for (const spans of map[state.words]) {
    const line = make("p", { className: "text", dir: "auto" });
    for (const [text, value] of spans) {
      if (value === null) { line.append(text); continue; }
      const [r, g, b] = colour(map, value);
      const span = make("span", { textContent: text, tabIndex: first ? 0 : -1, title: figure(value), className: "word" });
      first = false;
      Object.assign(span.style, { background: `rgb(${r},${g},${b})`, color: light(r, g, b) ? "#000" : "#fff" });
      const tellOf = () => at("value").replaceChildren(...named(text, value));
      span.addEventListener("pointerenter", tellOf);
      span.addEventListener("focus", tellOf);
      line.append(span);
    }
    at("view").append(line);
  }
}

function walk() {
  at("view").addEventListener("keydown", (e) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
    const words = [...at("view").querySelectorAll(".word")], here = words.indexOf(document.activeElement);
    if (!step || here < 0) return;
    e.preventDefault();
    words[Math.min(words.length - 1, Math.max(0, here + step))].focus();
  });
}

// ---- all of it
const shown = () => data.maps.find((m) => m.method === state.method && m.target === state.target) ||
  data.maps.find((m) => m.method === state.method) || data.maps[0];

function show() {
  const map = shown();
  for (const key of ["method", "target"]) { state[key] = map[key]; at("choose-" + key).value = map[key]; }
  at("said").textContent = map.headline;
  ["low", "high"].forEach((end, i) => { at(end).textContent = figure(range(map)[i]); });
  at("notes").textContent = map.notes.join(" ");
  at("notes").hidden = map.notes.length === 0;
  at("record").textContent = JSON.stringify(map.record, null, 1);
  at("value").textContent = data.picture ? "Point at the picture to read a patch." : "Point at a word to read its value.";
  const bar = at("bar").getContext("2d"), strip = bar.createImageData(256, 1), own = table(map);
  for (let i = 0; i < 256; i++) strip.data.set([own[3 * i], own[3 * i + 1], own[3 * i + 2], 255], 4 * i);
  bar.putImageData(strip, 0, 0);
  let most;
  if (data.picture) {
    const [rows, columns] = map.grid;
    if (cursor && (cursor[0] >= rows || cursor[1] >= columns)) { cursor = null; at("cell").hidden = true; }
    paint(map);
    tell();
    most = map.values.map((v, i) => [`row ${Math.floor(i / columns)}, column ${i % columns}`, v]);
  } else {
    write(map);
    most = map[state.words].flat().filter(([, v]) => v !== null);
  }
  most = most.map((m, i) => [...m, i]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]) || a[2] - b[2]).slice(0, 10);
  at("most").replaceChildren(...most.map(([what, v]) => make("li", {}, ...named(what, v))));
}

controls();
if (data.picture) stage(); else walk();
show();
