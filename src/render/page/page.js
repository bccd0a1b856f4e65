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
const state = { method: data.maps[0].method, target: data.maps[0].target, map: "", alpha: data.alpha, blend: data.blend, smooth: "smooth", words: data.units, point: "value", layer: "", head: "mean" };

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
    slider.addEventListener("input", () => { state.alpha = +slider.value; paint(seen()); });
    at("controls").append(make("label", {}, "Opacity", slider));
  } else {
    choice("Units", "words", [["words", "words"], ["pieces", "word pieces"]], show);
  }
  if (links) {
    const last = links.layers.length - 1;
    state.layer = String(last);
    state.point = data.picture ? "value" : "links";
    if (data.picture) choice("Pointing shows", "point", [["value", "the patch's value"], ["links", "what it attends to"]], again);
    else choice("Pointing shows", "point", [["links", "links to other words"], ["value", "the value alone"]], again);
    choice("Layer", "layer", links.layers.map((layer, i) => [String(i), `layer ${layer}`]), again);
    if (links.heads > 1) choice("Head", "head", [["mean", "mean of all"], ...Array.from({ length: links.heads }, (_, h) => [String(h), `head ${h}`])], again);
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

// ---- what tokens attend to
const links = data.links && { ...data.links, values: bytes(data.attention) };
// What a token attends to in the chosen layer and head: a share of each token.
function attends(token) {
  const { heads, tokens, greatest, values } = links, own = new Float32Array(tokens);
  const chosen = state.head === "mean" || heads === 1 ? Array.from({ length: heads }, (_, h) => h) : [+state.head];
  for (const head of chosen) {
    const matrix = +state.layer * heads + head, from = (matrix * tokens + token) * tokens;
    for (let t = 0; t < tokens; t++) own[t] += ((values[from + t] / 255) ** 2 * greatest[matrix]) / chosen.length;
  }
  return own;
}
const where = () => `layer ${links.layers[+state.layer]}, ${links.heads === 1 || state.head === "mean" ? "mean of heads" : "head " + state.head}`;
const rank = (list) => list.map((m, i) => [...m, i]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]) || a[2] - b[2]);

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
  const frame = make("div", { className: "stage" }, image, heat, cell);
  if (data.row) {
    const [rows, columns] = data.maps[0].grid, asked = make("div", { className: "cell asked", title: "The patch whose row is explained" });
    seat(asked, [view[0] + (view[2] * data.row[1]) / columns, view[1] + (view[3] * data.row[0]) / rows, view[2] / columns, view[3] / rows]);
    frame.append(asked);
  }
  at("view").append(frame);
  const grid = () => shown().grid;
  const go = (row, column) => {
    const [rows, columns] = grid();
    cursor = [Math.min(rows - 1, Math.max(0, row)), Math.min(columns - 1, Math.max(0, column))];
    const [x, y, w, h] = view;
    seat(cell, [x + (w * cursor[1]) / columns, y + (h * cursor[0]) / rows, w / columns, h / rows]);
    cell.hidden = false;
    if (state.point === "links") paint(seen());
    tell();
  };
  const leave = () => { if (state.point === "links") paint(shown()); };
  heat.addEventListener("pointerleave", () => { if (document.activeElement !== heat) leave(); });
  heat.addEventListener("blur", leave);
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
  let text = value === undefined ? "" : `row ${row}, column ${column}: ${figure(value)}${what}`;
  if (links && state.point === "links") {
    const own = seen(), most = rank(Array.from(own.values, (v, i) => [`row ${Math.floor(i / own.grid[1])}, column ${i % own.grid[1]}`, v])).slice(0, 3);
    text += `; it attends most to ${most.map(([place, v]) => `${place} (${figure(v)})`).join(", ")} in ${where()}`;
  }
  at("value").textContent = text;
}

// What is laid over the picture: the map, or what the patch under the pointer attends to.
function seen() {
  const map = shown();
  if (!links || state.point !== "links" || !cursor) return map;
  const values = Array.from(attends(links.prefix + cursor[0] * map.grid[1] + cursor[1])).slice(links.prefix);
  return { ...map, values, low: 0, high: values.reduce((a, b) => Math.max(a, b), 0), signed: false, colormap: map.signed ? "inferno" : map.colormap, fine: null };
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

// Small maps of all methods for this target, side by side: of one method in every layer its way through the depth.
function beside() {
  const own = data.maps.filter((m) => m.target === state.target);
  if (own.length < 2) return at("strip").replaceChildren();
  const [, , w, h] = data.picture.view, width = 96, height = Math.max(1, Math.round((width * h) / w));
  at("strip").replaceChildren(...own.map((map) => {
    const canvas = make("canvas", { width, height }), context = canvas.getContext("2d");
    const put = (places) => {
      const picture = context.createImageData(width, height), colours = table(map);
      places.forEach((p, i) => { const c = 3 * Math.round(255 * p); picture.data.set([colours[c], colours[c + 1], colours[c + 2], 255], 4 * i); });
      context.putImageData(picture, 0, 0);
    };
    const least = Math.min(...map.values), most = Math.max(...map.values), reach = Math.max(-least, most);
    // A scale of single pixels is not one of whole patches.
    const scaled = !map.fine ? map : { ...map, low: map.signed ? -reach : least, high: map.signed ? reach : most };
    put(Array.from(enlarged(map.values, map.grid, height, width, map.grid[0] * map.grid[1] > 1), (v) => place(scaled, v)));
    canvas.setAttribute("aria-hidden", "true");
    const button = make("button", { type: "button", className: "small" }, canvas, map.method);
    button.setAttribute("aria-pressed", String(map.method === state.method));
    button.addEventListener("click", () => { state.method = map.method; show(); [...at("strip").children].find((b) => b.getAttribute("aria-pressed") === "true").focus(); });
    return button;
  }));
}

// ---- texts
function write(map) {
  at("view").replaceChildren();
  let first = true; // one of the words is a tab stop, arrow keys go on from there
  for (const spans of map[state.words]) {
    const line = make("p", { className: "text", dir: "auto" });
    for (const [text, value, from, to] of spans) {
      if (value === null) { line.append(text); continue; }
      const [r, g, b] = colour(map, value);
      const span = make("span", { textContent: text, tabIndex: first ? 0 : -1, title: figure(value), className: "word" });
      first = false;
      Object.assign(span.style, { background: `rgb(${r},${g},${b})`, color: light(r, g, b) ? "#000" : "#fff" });
      span.tokens = [from, to];
      if (data.token !== null && from <= data.token && data.token < to) Object.assign(span, { title: `${figure(value)}; its row is explained` }).classList.add("asked");
      const tellOf = () => at("value").replaceChildren(...named(text, value), ...link(span));
      span.addEventListener("pointerenter", tellOf);
      span.addEventListener("focus", tellOf);
      span.addEventListener("pointerleave", unlink);
      span.addEventListener("blur", unlink);
      line.append(span);
    }
    at("view").append(line);
  }
}

const words = () => [...at("view").querySelectorAll(".word")];
const unlink = () => words().forEach((word) => { word.style.boxShadow = ""; });
// Underlines the words that one attends to, the thicker the more, and says which are the first.
function link(span) {
  if (!links || state.point !== "links") return [];
  const [from, to] = span.tokens, all = words(), own = new Float32Array(links.tokens);
  for (let token = from; token < to; token++) attends(token).forEach((v, t) => { own[t] += v / (to - from); });
  const shares = all.map((word) => own.subarray(...word.tokens).reduce((a, b) => a + b, 0)), most = shares.reduce((a, b) => Math.max(a, b), 0);
  all.forEach((word, i) => {
    const thick = most > 0 ? Math.round(7 * Math.sqrt(shares[i] / most)) : 0;
    word.style.boxShadow = thick > 0 ? `0 ${thick}px 0 0 var(--mark)` : "";
  });
  const first = rank(all.map((word, i) => [word.textContent, shares[i]])).slice(0, 3);
  return ["; attends most to ", ...first.flatMap(([word, v], i) => [i ? ", " : "", make("bdi", { textContent: word.trim() }), ` (${figure(v)})`]), ` in ${where()}`];
}

function walk() {
  at("view").addEventListener("keydown", (e) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
    const all = words(), here = all.indexOf(document.activeElement);
    if (!step || here < 0) return;
    e.preventDefault();
    all[Math.min(all.length - 1, Math.max(0, here + step))].focus();
  });
}

// ---- all of it
const shown = () => data.maps.find((m) => m.method === state.method && m.target === state.target) ||
  data.maps.find((m) => m.method === state.method) || data.maps[0];

// After another layer, head or way of pointing.
function again() {
  if (data.picture) { paint(seen()); tell(); } else unlink();
}

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
    paint(seen());
    beside();
    tell();
    most = map.values.map((v, i) => [`row ${Math.floor(i / columns)}, column ${i % columns}`, v]);
  } else {
    write(map);
    most = map[state.words].flat().filter(([, v]) => v !== null);
  }
  most = rank(most).slice(0, 10);
  at("most").replaceChildren(...most.map(([what, v]) => make("li", {}, ...named(what, v))));
}

controls();
if (data.picture) stage(); else walk();
show();
