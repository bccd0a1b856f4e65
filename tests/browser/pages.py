#!/usr/bin/env python3
"""Opens what `vitx explain -f html` writes in a headless Chromium, uses it as a person would, and looks whether it answers.

    python3 tests/browser/pages.py [--vitx PATH] [--shots FOLDER]

- The page of a picture: no script error, nothing asked for beyond the page, every control changes what it says it changes,
  pointer and arrow keys tell the values that the page holds, and a map that is chosen stays when a slower one arrives
  after it.
- The page of a text: words are coloured and tell their values, word pieces are more than words, markup in a text is shown and
  never read, a pair is two texts.
- Hostile names of files and classes: nothing of them runs, every thumbnail loads, every link leads to its page.
- The index: sorts, filters, and holds 10,000 entries.
- The report of `vitx evaluate`, of pictures and of texts: no script, nothing asked for, no letter of a curve cut off, nothing wider
  than a phone of 360 pixels but the tables, which scroll by themselves, text that stands out by day and by night.
- Size of a large page; on a phone nothing is wider than the screen and pictures keep their shape; every control has a name; text
  stands out from its ground, by day and by night.
- With --shots: screenshots of all of that, light and dark, wide and phone.

Standard library only: Chromium is driven over a pipe (--remote-debugging-pipe). Where there is none, the script says so and ends
well.
"""

import argparse
import base64
import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OVERALL = 175  # seconds for everything
ANSWER = 20  # seconds for one answer of the browser
METHODS = "gae,attn-lrp,rollout,gradcam,integrated-gradients:resolution=pixel,rise,legrad,gradient:resolution=pixel"
PIXELS = "integrated-gradients:resolution=pixel"
OWNED = "document.title='owned'"
MARKUP = "<script>alert(1)</script> \"quoted\" 'so' &amp; 😀 你好世界 שלום עולם unbelievably <b>bold</b>"
MARKUP += " Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen"
WIDE = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}


class Failed(Exception):
    """What went wrong, in words."""


def check(holds, what):
    if not holds:
        raise Failed(what)


# ---- the browser
class Browser:
    """Chromium behind a pipe: messages are JSON that end in a zero byte."""

    def __init__(self, program, profile):
        self.number, self.rest, self.events = 0, b"", []
        self.send_end, self.read_end, self.process = started(program, profile)

    def call(self, method, session=None, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self.send_end, json.dumps(message).encode() + b"\0")
        own = self.number
        answer = self.wait(lambda m: m.get("id") == own, f"answer to {method}")
        check("error" not in answer, f"{method}: {answer.get('error')}")
        return answer["result"]

    def wait(self, wanted, what, limit=ANSWER):
        """The first message that is wanted; others are kept as events."""
        until = time.monotonic() + limit
        while True:
            message = self.message(until, what)
            if "method" in message:
                self.events.append(message)
            if message.get("method") == "Page.javascriptDialogOpening":
                raise Failed(f"the page opened a dialog: {message['params'].get('message')}")
            if wanted(message):
                return message

    def message(self, until, what):
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read_end], [], [], max(0, until - time.monotonic()))
            check(ready, f"no {what} in time")
            part = os.read(self.read_end, 1 << 20)
            check(part, "the browser ended")
            self.rest += part
        own, self.rest = self.rest.split(b"\0", 1)
        return json.loads(own)

    def end(self):
        try:
            self.call("Browser.close")
            self.process.wait(5)
        except (Failed, OSError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own group: see start_new_session
        except ProcessLookupError:
            pass
        self.process.wait(5)


def started(program, profile):
    """Chromium reads commands from descriptor 3 and writes answers to 4. Our own ends are kept well above those."""
    above = lambda end: fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    (their_in, our_out), (our_in, their_out) = [tuple(map(above, os.pipe())) for _ in range(2)]
    os.dup2(their_in, 3)
    os.dup2(their_out, 4)
    flags = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run", "--disable-gpu",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
             "--hide-scrollbars", *(["--no-sandbox"] if os.geteuid() == 0 else []), "about:blank"]
    process = subprocess.Popen([program, *flags], pass_fds=(3, 4), start_new_session=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for end in (3, 4, their_in, their_out):
        os.close(end)
    return our_out, our_in, process


class Page:
    """A tab with one file in it."""

    def __init__(self, browser, file, screen=WIDE):
        self.browser, self.address = browser, file if isinstance(file, str) else file.as_uri()
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.screen(screen)
        begun = time.monotonic()
        answer = self.call("Page.navigate", url=self.address)
        check("errorText" not in answer, f"{self.address} does not open: {answer.get('errorText')}")
        browser.wait(lambda m: m.get("method") == "Page.loadEventFired" and m.get("sessionId") == self.session, "loaded page")
        self.frames()
        self.seconds = time.monotonic() - begun

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.browser.call("Target.closeTarget", targetId=self.target)

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def js(self, code):
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        fault = answer.get("exceptionDetails")
        check(not fault, f"{code[:80]}: {fault and fault.get('exception', {}).get('description', fault.get('text'))}")
        return answer["result"].get("value")

    def frames(self):
        """Two frames later everything has been drawn."""
        self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def until(self, code, what, limit=10):
        end = time.monotonic() + limit
        while not self.js(code):
            check(time.monotonic() < end, f"{what}: not within {limit} s")
            time.sleep(0.02)

    def screen(self, screen, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def text(self, id):
        return self.js(f"document.getElementById({json.dumps(id)}).textContent")

    def choose(self, id, value):
        """As a choice in a list does it."""
        self.js(f"""{{ const node = document.getElementById({json.dumps(id)}); node.value = {json.dumps(value)};
          if (node.value !== {json.dumps(value)}) throw new Error("no such choice");
          for (const name of ["input", "change"]) node.dispatchEvent(new Event(name, {{ bubbles: true }})); }}""")

    def options(self, id):
        return self.js(f"[...document.getElementById({json.dumps(id)}).options].map((o) => o.value)")

    def key(self, name):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def mouse(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def events(self, *names):
        return [m for m in self.browser.events if m.get("sessionId") == self.session and m["method"] in names]

    def sound(self):
        """No fault of a script, no complaint on the console, no dialog, no other title."""
        faults = [m["params"]["exceptionDetails"] for m in self.events("Runtime.exceptionThrown")]
        faults += [m["params"] for m in self.events("Runtime.consoleAPICalled") if m["params"]["type"] in ("error", "assert")]
        faults += [m["params"]["entry"] for m in self.events("Log.entryAdded") if m["params"]["entry"]["level"] == "error"]
        check(not faults, f"faults on the console: {json.dumps(faults)[:600]}")
        check(self.js("document.title") not in ("owned", ""), "the title was changed")

    def alone(self, allowed=()):
        """Asks for itself and for what may be, and for nothing else."""
        asked = [m["params"]["request"]["url"] for m in self.events("Network.requestWillBeSent")]
        other = [url for url in asked if not url.startswith(("data:", self.address, *allowed))]
        check(self.address in asked and not other, f"asks for {other or 'nothing at all'}")

    def shot(self, file):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 2000), "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(answer["data"]))


# ---- what pages hold and show
HELD = "JSON.parse(document.getElementById('data').textContent)"
ALPHA = """(() => { const c = document.getElementById('heat');
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let most = 0;
  for (let i = 3; i < d.length; i += 4) most = Math.max(most, d[i]);
  return most; })()"""      # the greatest opacity of the heat, of 255
PAINTED = """(() => { const c = document.getElementById('heat'), seen = new Set();
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let sum = 0;
  for (let i = 0; i < d.length; i += 4) {
    const v = (d[i] << 16) | (d[i + 1] << 8) | d[i + 2];
    seen.add(v);
    sum = (sum * 31 + v) | 0;
  }
  return [sum, seen.size, c.width, c.height]; })()"""
# Ratios below 4.5 between text and the ground that it stands on.
FAINT = """(() => {
  const lit = (c) => {
    const [r, g, b] = c.map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const numbers = (c) => c.match(/[\\d.]+/g).map(Number), solid = (c) => c.length < 4 || c[3] === 1;
  const ground = (n) => {
    if (!n) return [255, 255, 255];
    const c = numbers(getComputedStyle(n).backgroundColor);
    return solid(c) ? c : ground(n.parentElement);
  };
  const out = new Set(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const n = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !n.checkVisibility() || /SCRIPT|STYLE/.test(n.tagName)) continue;
    const [a, b] = [lit(numbers(getComputedStyle(n).color)), lit(ground(n))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) out.add(`${n.tagName.toLowerCase()} '${n.textContent.trim().slice(0, 20)}' ${ratio.toFixed(2)}`);
  }
  return [...out]; })()"""
NAMED = {"combobox", "slider", "searchbox", "textbox", "link", "application", "button", "checkbox", "image"}


def map_of(page, method, target):
    found = [m for m in page.js(f"{HELD}.maps") if m["method"] == method and m["target"] == target]
    check(found, f"the page holds no map of {method} for {target}")
    return found[0]


def near(shown, value):
    """Figures are shown with four digits."""
    return abs(float(shown) - value) <= 6e-4 * abs(value) + 1e-30


def told(page, own, row, column, how):
    said = page.text("value")
    found = re.fullmatch(r"row (\d+), column (\d+): (\S+)", said)
    right = found and (int(found[1]), int(found[2])) == (row, column)
    check(right, f"{how}: '{said}' where row {row}, column {column} was expected")
    value = own["values"][row * own["grid"][1] + column]
    check(near(found[3], value), f"{how}: '{said}' where the page holds {value}")


def point_at(page, own, row, column):
    box = page.js("""(() => { const h = document.getElementById('heat'); h.scrollIntoView({ block: 'center' });
      const b = h.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()""")
    rows, columns = own["grid"]
    page.mouse(box[0] + box[2] * (column + 0.5) / columns, box[1] + box[3] * (row + 0.5) / rows)
    told(page, own, row, column, "the pointer")


# ---- the page of a picture
def picture_page(test):
    with Page(test.browser, test.picture) as page:
        picture_controls(page)
        picture_values(page)
        picture_links(page)
        picture_pixels(page)
        page.sound()
        page.alone()
    print("ok picture: no fault, no request; method, target, colours, tiles and opacity change what is shown; values and links are told; small maps choose")


def picture_controls(page):
    methods, targets = page.options("choose-method"), page.options("choose-target")
    check(len(methods) == 8 and len(targets) == 2, f"methods {methods}, targets {targets}")
    headlines, paintings = set(), set()
    for method in methods:
        page.choose("choose-method", method)
        page.frames()
        headlines.add(page.text("said"))
        paintings.add(tuple(page.js(PAINTED)))
    check(len(headlines) == 8 and len(paintings) == 8, f"8 methods show {len(headlines)} headlines, {len(paintings)} paintings")
    page.choose("choose-method", "gae")
    changed(page, "choose-target", targets[1], "said")
    check(targets[1] in page.text("said"), f"the target {targets[1]} is not in '{page.text('said')}'")
    changed(page, "choose-map", "jet")
    changed(page, "choose-smooth", "flat")
    page.choose("choose-alpha", "0.25")
    check(page.js(ALPHA) == round(255 * 0.25), "the slider does not set the opacity")


def changed(page, control, value, line=None):
    before = page.js(PAINTED), line and page.text(line)
    page.choose(control, value)
    page.frames()
    after = page.js(PAINTED), line and page.text(line)
    check(after[0] != before[0], f"{control} = {value} changes nothing of the painting")
    check(line is None or after[1] != before[1], f"{control} = {value} does not change #{line}")


def picture_values(page):
    target = page.options("choose-target")[0]
    page.choose("choose-method", "attn-lrp")
    page.choose("choose-target", target)
    own = map_of(page, "attn-lrp", target)
    rows, columns = own["grid"]
    for row, column in [(0, 0), (rows - 1, columns - 1), (3, 5)]:
        point_at(page, own, row, column)
    page.js("document.getElementById('heat').focus()")
    for name, row, column in [("ArrowDown", 4, 5), ("ArrowRight", 4, 6), ("ArrowUp", 3, 6), ("ArrowLeft", 3, 5)]:
        page.key(name)
        told(page, own, row, column, name)
    page.choose("choose-method", "gae")
    told(page, map_of(page, "gae", target), 3, 5, "another method")


# What a token attends to in one layer and head, or the mean of heads, by the bytes that the page holds.
ATTENDS = """((token, layer, head) => { const { heads, tokens, greatest } = DATA.links, out = Array(tokens).fill(0);
  const raw = Uint8Array.from(atob(DATA.attention), (c) => c.charCodeAt(0));
  for (const h of head === null ? [...Array(heads).keys()] : [head]) for (let t = 0; t < tokens; t++) {
    const m = layer * heads + h;
    out[t] += (raw[(m * tokens + token) * tokens + t] / 255) ** 2 * greatest[m] / (head === null ? heads : 1);
  }
  return out; })""".replace("DATA", f"({HELD})")


def picture_links(page):
    own = map_of(page, "gae", page.options("choose-target")[0])
    columns = own["grid"][1]
    page.choose("choose-method", "gae")
    point_at(page, own, 3, 5)
    changed(page, "choose-point", "links", "value")
    prefix, layers = page.js(f"[{HELD}.links.prefix, {HELD}.links.layers]")
    for layer in (0, len(layers) - 1):
        page.choose("choose-layer", str(layer))
        page.frames()
        shares = page.js(f"{ATTENDS}({prefix + 3 * columns + 5}, {layer}, null)")
        check(abs(sum(shares) - 1) < 0.05, f"the attention of layer {layer} adds up to {sum(shares)}")
        most = max(range(prefix, len(shares)), key=lambda t: (shares[t], -t)) - prefix
        said = f"it attends most to row {most // columns}, column {most % columns} ("
        check(said in page.text("value") and f"in layer {layers[layer]}" in page.text("value"), f"'{page.text('value')}' lacks '{said}'")
    before = page.js(PAINTED)
    page.js("document.activeElement.blur()")
    page.mouse(1, 1)
    page.frames()
    check(page.js(PAINTED) != before, "what a patch attends to stays when the pointer leaves")
    page.choose("choose-point", "value")
    count = page.js("document.querySelectorAll('#strip button').length")
    check(count == 8, f"{count} small maps of 8 methods")
    page.js("document.querySelectorAll('#strip button')[1].click()")
    check(page.js("document.getElementById('choose-method').value") == page.options("choose-method")[1], "a small map chooses its method")


def picture_pixels(page):
    check(map_of(page, PIXELS, page.options("choose-target")[0])["fine"], "no map of pixels in the page")
    page.choose("choose-map", "")
    page.choose("choose-method", PIXELS)
    page.until(f"{PAINTED}[1] > 20", "the map of pixels paints something")


def latest_wins(test):
    with Page(test.browser, test.picture) as page:
        page.choose("choose-method", "gae")
        page.frames()
        before = page.js(PAINTED)
        page.js(f"""for (const method of [{json.dumps(PIXELS)}, 'gae']) {{ const node = document.getElementById('choose-method');
          node.value = method; node.dispatchEvent(new Event('change')); }}""")
        time.sleep(0.5)
        check(page.js(PAINTED) == before, "a map of pixels that was left at once paints over the map that is shown")
    print("ok picture: the map that was chosen last is the one that stays")


# ---- the page of a text
def text_page(test):
    with Page(test.browser, test.text) as page:
        check(page.js("document.querySelector('#view').textContent") == MARKUP, "the text is not shown as it was given")
        text_words(page)
        text_links(page)
        words = page.js(SPANS)
        page.choose("choose-words", "pieces")
        pieces = page.js(SPANS)
        check(len(pieces) > len(words), f"{len(words)} words, {len(pieces)} pieces")
        check(page.js("document.querySelector('#view').textContent") == MARKUP, "pieces do not add up to the text")
        page.sound()
        page.alone()
    print(f"ok text: {len(words)} coloured words tell their values, {len(pieces)} pieces, markup is shown and not read")


SPANS = """[...document.querySelectorAll('#view span')].map((s) => { s.scrollIntoView({ block: 'center' });
  const b = s.getClientRects()[0]; return [s.textContent, s.style.background, b.left + b.width / 2, b.top + b.height / 2]; })"""


def text_words(page):
    own = page.js(f"{HELD}.maps[0].words.flat()")
    own = [(text, value) for text, value, *_ in own if value is not None]
    spans = page.js(SPANS)
    check([s[0] for s in spans] == [text for text, _ in own], "the words shown are not those held")
    check(all(s[1].startswith("rgb") for s in spans) and len({s[1] for s in spans}) > 3, "words are not coloured")
    for number in (0, len(spans) // 2, len(spans) - 1):
        page.mouse(1, 1)
        page.mouse(*spans[number][2:])
        word_told(page, *own[number], "the pointer")
    page.js("document.querySelectorAll('#view span')[1].focus()")
    word_told(page, *own[1], "focus")


def text_links(page):
    """The word that is pointed at underlines those that it attends to, in the layer and head that are chosen."""
    lines = "[...document.querySelectorAll('#view .word')].map((w) => w.style.boxShadow)"
    seen = set()
    for layer, head in [("0", "0"), ("0", "1"), ("1", "0"), ("1", "mean")]:
        page.choose("choose-layer", layer)
        page.choose("choose-head", head)
        page.js("document.querySelectorAll('#view .word')[1].blur()")
        page.js("document.querySelectorAll('#view .word')[1].focus()")
        seen.add((tuple(page.js(lines)), page.text("value")))
        check(f"in layer {layer}, {'mean of heads' if head == 'mean' else 'head ' + head}" in page.text("value"), page.text("value"))
    check(len(seen) == 4 and all(any(own) for own, _ in seen), "layers and heads show the same links, or none")
    page.choose("choose-point", "value")
    check(not any(page.js(lines)), "links stay when they are turned off")


def word_told(page, text, value, how):
    word, _, shown = page.text("value").split("; ")[0].rpartition(": ")
    check(word == text.strip() and near(shown, value), f"{how}: '{page.text('value')}' where {text}: {value} was expected")


def pair_page(test):
    with Page(test.browser, test.pair) as page:
        shown = page.js("[...document.querySelectorAll('#view .text')].map((p) => p.textContent)")
        check(shown == list(test.both), f"a pair shows {shown}")
        page.sound()
    print("ok text: a pair is two texts")


# ---- hostile names, and the index
def hostile_names(test):
    walked(test, test.index, 5)
    print("ok names: 5 hostile file names: nothing runs, thumbnails load, links lead to their pages")


def hostile_labels(test):
    model = next((m for m in (ROOT.parent / "shared/models/demo-vit", ROOT / "shared/models/demo-vit") if m.is_dir()), None)
    if model is None:
        print("SKIPPED: hostile class names (no shared/models/demo-vit)")
        return
    own = test.folder / f"<img src=x onerror={OWNED}>"
    own.mkdir()
    for file in model.iterdir():
        shutil.copyfile(file, own / file.name)
    config = json.loads((own / "config.json").read_text())
    names = [f"</script><script>{OWNED}</script>", f"<img src=x onerror={OWNED}>", f"\"onerror={OWNED} b='", "&lt; {{ 7 * 7 }}"]
    labels = [f"{names[n % 4]} {n}" for n in range(len(config["id2label"]))]
    config["id2label"] = {str(n): text for n, text in enumerate(labels)}
    config["label2id"] = {text: n for n, text in enumerate(labels)}
    (own / "config.json").write_text(json.dumps(config))
    out = test.run("labels", "--model", own, "--method", "gae", "-t", "top:4", test.pictures)
    walked(test, out / "index.html", 5)
    with Page(test.browser, out / "index.html") as page:
        shown = page.options("label")[1:]
        check(shown and set(shown) <= set(labels), f"classes are shown as {shown}")
    print("ok names: hostile names of classes and of the model: shown as they are")


def walked(test, index, count):
    """Every thumbnail and every link of an index."""
    with Page(test.browser, index) as page:
        page.until("[...document.images].every((i) => i.complete)", "thumbnails")
        broken = page.js("[...document.images].filter((i) => !i.naturalWidth).map((i) => i.src)")
        check(not broken, f"thumbnails that do not load: {broken}")
        check(page.js("document.images.length") == count, f"{page.js('document.images.length')} thumbnails of {count}")
        links = page.js("[...document.querySelectorAll('#cards a')].map((a) => [a.href, a.querySelector('p').textContent])")
        page.sound()
        page.alone([index.parent.as_uri() + "/"])
    check(len(links) == count, f"{len(links)} links of {count}")
    for address, name in links:
        with Page(test.browser, address) as page:
            headed = page.js("document.querySelector('h1').textContent")
            check(page.text("said") and headed.endswith(name), f"{address} is of '{headed}' and not of {name}")
            page.sound()
            page.alone()


def index_controls(test):
    with Page(test.browser, test.index) as page:
        entries = page.js(f"{HELD}.entries")
        page.choose("order", "low")
        figures = [float(text.split()[-1]) for text in page.js(LINES)]
        check(figures == sorted(figures) and len(set(figures)) > 1, f"least sure first: {figures}")
        page.choose("order", "high")
        check([float(text.split()[-1]) for text in page.js(LINES)] == figures[::-1], "surest first is not the reverse")
        label = entries[0]["label"]
        page.choose("label", label)
        shown = page.js(LINES)
        check(len(shown) == sum(e["label"] == label for e in entries), f"{len(shown)} cards of {label}")
        check(all(text.startswith(label + " ") for text in shown), f"of the class {label}: {shown}")
        page.choose("label", "")
        page.js("document.getElementById('name').focus()")
        page.call("Input.insertText", text="ÜSSE")
        check(len(page.js(LINES)) == 1, f"{len(page.js(LINES))} cards with üsse in the name")
        check(page.text("count").startswith("1 of "), f"the count says '{page.text('count')}'")
        page.sound()
    print("ok index: sorts by figure, filters by class and by name")


LINES = "[...document.querySelectorAll('#cards .figure')].map((p) => p.textContent)"
CARDS = "document.querySelectorAll('#cards li').length"


def many(test, pictures=True, count=10_000):
    """An index of so many entries that share a page, and a thumbnail or none."""
    page = test.index.read_text(encoding="utf-8")
    before, own, after = re.fullmatch(r'(.*<script type="application/json" id="data">)(.*?)(</script>.*)', page, re.S).groups()
    first = json.loads(own)["entries"][0] | ({} if pictures else {"thumbnail": None})

    def entry(n):
        return first | {"name": f"picture {n * 7919 % count}", "label": f"class {n % 40}", "figure": n * 31 % 997 / 997}

    data = json.dumps({"entries": [entry(n) for n in range(count)]}).replace("<", "\\u003c")
    file = test.index.with_name(f"many{'' if pictures else '-texts'}.html")
    file.write_text(before + data + after, encoding="utf-8")
    return file


def large_index(test):
    with Page(test.browser, many(test)) as page:
        check(page.js(CARDS) > 0, "no cards once it is loaded")
        check(page.seconds < 2, f"10,000 entries: first cards only after {page.seconds:.2f} s")
        begun = time.monotonic()
        while page.js(CARDS) < 10_000:
            check(time.monotonic() - begun < 40, f"only {page.js(CARDS)} of 10,000 cards after 40 s of scrolling")
            page.js("scrollTo(0, document.documentElement.scrollHeight)")
            page.frames()
        scrolled, begun = time.monotonic() - begun, time.monotonic()
        page.choose("order", "low")
        page.frames()
        sort = time.monotonic() - begun
        page.sound()
    times = f"first cards after {page.seconds:.2f} s, all by scrolling in {scrolled:.1f} s, sorted anew in {sort:.2f} s"
    print(f"ok index of 10,000: {times}")


def to_the_end(page, times=6):
    for _ in range(times):
        page.js("scrollTo(0, document.documentElement.scrollHeight)")
        page.frames()
    return page.js(CARDS)


def goes_on(test):
    """More cards come also where the end of the list is in sight before and after: small cards, a high screen, another choice."""
    for screen in (WIDE, WIDE | {"width": 1920, "height": 2160}):
        with Page(test.browser, many(test, pictures=False), screen) as page:
            found = to_the_end(page)
            check(found > 480, f"small cards, {screen['height']} pixels: they end at {found} of 10,000")
            page.js("scrollTo(0, 0)")
            page.choose("label", "class 7")  # 250 cards
            check(to_the_end(page) == 250, f"small cards, {screen['height']} pixels: a class ends at {page.js(CARDS)} of 250")
            page.choose("order", "low")
            check(to_the_end(page) == 250, f"another order at the end of the list: it ends at {page.js(CARDS)} of 250")
    print("ok index of 10,000: goes on where its end stays in sight")


# ---- the report of an evaluation
CUT = """[...document.querySelectorAll('.plot > svg')].flatMap((svg) => [...svg.querySelectorAll('text, .line')].filter((node) => {
  const b = node.getBBox(), v = svg.viewBox.baseVal;
  return b.x < v.x || b.y < v.y || b.x + b.width > v.x + v.width || b.y + b.height > v.y + v.height;
}).map((node) => node.textContent))"""

REPORTS = [
    ("pictures", "vision/labels.csv", "--limit", "1", "--metric", "deletion,insertion,srg",
     "--method", "gae,aggregate:heads=grad-post,layers=mean,start_layer=6"),
    ("texts", "text/sentiment.csv", "--limit", "3", "--method", "gae,attn-lrp"),
]


def reports(test):
    narrow = PHONE | {"width": 360}
    for name, file in test.reports:
        with Page(test.browser, file, narrow) as page:
            page.js("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            page.frames()
            width = page.js("document.documentElement.scrollWidth")
            check(width <= 360, f"report of {name}: {width} pixels wide on a phone of 360")
            wide = page.js("[...document.querySelectorAll('.box')].some((b) => b.scrollWidth > b.clientWidth)")
            check(wide, f"report of {name}: its table does not scroll by itself")
            plots, cut = page.js("document.querySelectorAll('.plot > svg[role=img]').length"), page.js(CUT)
            check(plots >= 2 and not cut, f"report of {name}: {plots} curves, cut off: {cut[:4]}")
            for dark in (False, True):
                page.screen(narrow, dark)
                check_contrast(page, f"report of {name}, {'dark' if dark else 'light'}", False)
            check(page.js("document.scripts.length") == 0, f"report of {name}: it has a script")
            page.sound()
            page.alone()
    print("ok report: pictures and texts: no script, no request, nothing cut off on a phone, text stands out by day and by night")


# ---- of all pages
def size(test):
    bytes_ = test.picture.stat().st_size
    check(bytes_ < 2_000_000, f"a page of 8 methods and 2 targets has {bytes_} bytes")
    print(f"ok size: 8 methods x 2 targets are {bytes_ / 1e6:.2f} MB")


def kinds(test):
    pages = [("picture", test.picture), ("text", test.text), ("pair", test.pair), ("index", test.index)]
    return pages + [(f"report of {name}", file) for name, file in test.reports]


def phone(test):
    for name, file in kinds(test):
        with Page(test.browser, file, PHONE) as page:
            width = page.js("document.documentElement.scrollWidth")
            check(width <= PHONE["width"], f"{name}: {width} pixels wide on a phone of {PHONE['width']}")
    print("ok phone: nothing is wider than the screen")


def shapes(test):
    for file in (test.picture, test.tall):
        for screen in (WIDE, PHONE):
            with Page(test.browser, file, screen) as page:
                shape(page, f"{file.stem}, {screen['width']} pixels")
    print("ok phone: pictures keep their shape, and maps lie where they belong")


def shape(page, where):
    shown, own = page.js("""(() => { const i = document.querySelector('.stage img');
      return [i.clientWidth / i.clientHeight, i.naturalWidth / i.naturalHeight]; })()""")
    check(abs(shown / own - 1) < 0.01, f"{where}: {own:.2f} wide to high is shown as {shown:.2f}")
    apart = page.js(f"""(() => {{ const p = {HELD}.picture, box = (q) => document.querySelector(q).getBoundingClientRect();
      const i = box('.stage img'), h = box('#heat'), k = i.width / p.width, [x, y, w, v] = p.view;
      return Math.max(Math.abs(h.x - i.x - x * k), Math.abs(h.y - i.y - y * k), Math.abs(h.width - w * k),
        Math.abs(h.height - v * k)); }})()""")
    check(apart < 1.5, f"{where}: the map lies {apart:.1f} pixels beside its place")


def names_of_controls(test):
    for name, file in kinds(test):
        with Page(test.browser, file) as page:
            page.call("Accessibility.enable")
            nodes = [n for n in page.call("Accessibility.getFullAXTree")["nodes"] if not n.get("ignored")]
            nodes = [n for n in nodes if n["role"]["value"] in NAMED]
            without = [n["role"]["value"] for n in nodes if not n.get("name", {}).get("value", "").strip()]
            check(len(nodes) >= 3 and not without, f"{name}: of {len(nodes)} there are without a name: {without}")
    print("ok access: every control, link and picture has a name")


def contrast(test):
    for name, file in kinds(test):
        with Page(test.browser, file) as page:
            for dark in (False, True):
                page.screen(WIDE, dark)
                check_contrast(page, f"{name}, {'dark' if dark else 'light'}", name in ("text", "pair"))
    print("ok access: text has a contrast of at least 4.5, light and dark, in all colours")


def check_contrast(page, where, coloured):
    for colours in page.options("choose-map") if coloured else [""]:
        if coloured:
            page.choose("choose-map", colours)
        faint = page.js(FAINT)
        check(not faint, f"{where}, colours '{colours}': contrast below 4.5: {faint[:4]}")


def shots(test, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in kinds(test):
        for size_, screen in (("wide", WIDE), ("phone", PHONE)):
            for dark in (False, True):
                with Page(test.browser, file, screen) as page:
                    page.screen(screen, dark)
                    if name == "picture":
                        page.js("document.getElementById('heat').focus()")
                        page.key("ArrowDown")
                    page.frames()
                    page.shot(folder / f"{name}-{size_}-{'dark' if dark else 'light'}.png")
    print(f"ok shots: in {folder}")


# ---- the run
class Test:
    """Where things are."""

    def __init__(self, vitx, folder):
        self.vitx, self.folder, self.browser = vitx, folder, None
        self.both = ("A man sleeps in the shade.", "He is unbelievably awake <i>now</i>.")

    def run(self, name, *arguments):
        out = self.folder / name
        command = [str(self.vitx), "explain", "-q", "-f", "html", "-o", f"{out}/", *map(str, arguments)]
        environment = {k: v for k, v in os.environ.items() if k != "VITX_MODEL"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        check(done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return out

    def write(self):
        """The pages that are looked at."""
        names = [f"<img src=x onerror={OWNED}>.jpg", f"a\"onerror={OWNED} b='.jpg", "'&lt;.jpg", "x%2F#?y.jpg",
                 "zwei Bäume  und süße Nüsse.jpg"]
        self.pictures = self.folder / "in"
        self.pictures.mkdir()
        for name, asset in zip(names, ("cat", "temple", "flower", "coffee", "mammal-and-coin")):
            shutil.copyfile(ROOT / f"assets/{asset}.jpg", self.pictures / name)
        self.picture = only(self.run("picture", "--method", METHODS, "-t", "top:2", ROOT / "assets/cat.jpg"))
        stripes = self.folder / "tall.ppm"
        stripes.write_bytes(b"P6 300 1500 255\n" + b"".join(bytes([y // 40 * 37 % 256, 90, 160]) * 300 for y in range(1500)))
        self.tall = only(self.run("tall", "--method", "gae", "--fit", "crop", stripes))
        self.text = only(self.run("text", "--method", "gae,attn-lrp", "--text", MARKUP))
        self.pair = only(self.run("pair", "--method", "gae,attn-lrp", "--text-pair", *self.both))
        self.index = self.run("index", "--method", "gae", self.pictures) / "index.html"
        check(self.index.is_file(), "a folder has no index.html")
        self.reports = [(name, self.report(name, *given)) for name, *given in REPORTS]

    def report(self, name, data, *arguments):
        file = self.folder / f"{name}.html"
        given = ["--data", ROOT / "tests/data" / data, "--report", file, *arguments]
        command = [str(self.vitx), "evaluate", "-q", *map(str, given)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=self.folder)
        check(done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return file


def only(folder):
    pages = list(folder.glob("*.html"))
    check(len(pages) == 1, f"one page was expected, and there are {[p.name for p in pages]}")
    return pages[0]


CHECKS = [picture_page, latest_wins, text_page, pair_page, hostile_names, hostile_labels, index_controls, large_index, goes_on,
          reports, size, phone, shapes, names_of_controls, contrast]


def all_checks(test, folder):
    """How many failed; one that fails keeps none of the others from being made."""
    failed = 0
    for own in CHECKS + ([lambda t: shots(t, folder)] if folder else []):
        try:
            own(test)
        except Failed as fault:
            failed += 1
            print(f"FAILED {own.__name__}: {fault}")
    return failed


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vitx", type=Path, help="the program (default: of the repository's target folder)")
    parser.add_argument("--shots", type=Path, help="a folder for screenshots")
    own = parser.parse_args()
    usual = [ROOT / "target/release/vitx", ROOT / "target/debug/vitx"]
    own.vitx = own.vitx or next((path for path in usual if path.is_file()), None)
    if own.vitx is None or not own.vitx.is_file():
        parser.error(f"no vitx at {own.vitx or ' or '.join(map(str, usual))}: build it, or pass --vitx")
    own.vitx = own.vitx.resolve()
    return own


def too_long(*_):
    raise TimeoutError(f"not done within {OVERALL} s")


def main():
    sys.stdout.reconfigure(line_buffering=True)
    own = arguments()
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("SKIPPED: no Chromium here (chromium, chromium-browser, google-chrome)")
        return 0
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(OVERALL)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vitx-pages-", ignore_cleanup_errors=True) as folder:
        test = Test(own.vitx, Path(folder))
        try:
            test.write()
            test.browser = Browser(program, f"{folder}/profile")
            failed = all_checks(test, own.shots)
        except (Failed, OSError, subprocess.TimeoutExpired) as fault:  # TimeoutError is an OSError
            failed = 1
            print(f"FAILED: {fault}")
        finally:
            signal.alarm(0)
            if test.browser:
                test.browser.end()
    print(f"{'FAILED' if failed else 'all is well'}, {time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
