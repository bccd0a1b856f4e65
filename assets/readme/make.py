#!/usr/bin/env python3
"""Makes what README.md shows from what it says: the pictures by the commands beneath them, the rows of its two tables of figures.

    assets/readme/make.py VITX [--vision LABELS.csv] [--text SENTIMENT.csv] [--rows NAME,...]

VITX is the program. Without data only the pictures are made (all but maximize.png, a montage of four runs, and page.png, report.png and summary.png, which a browser makes). `--rows` runs these
methods alone; the controls and raw attention always come along. The data are those of the demo models' cards; they are not
part of this repository. Standard library only.
"""

import json
import os
import re
import shlex
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
README = os.path.join(ROOT, "README.md")
METRICS = {
    "pointing": "pointing-game", "mIoU": "miou", "mAP": "average-precision", "mass inside": "mass-inside",
    "positive ↓": "positive", "negative ↑": "negative", "comprehensiveness": "comprehensiveness", "sufficiency ↓": "sufficiency",
}
CONTROLS = {"(centre gaussian)": "centre gaussian (control)", "(random)": "random (control)"}


def pictures(vitx):
    """Runs the `explain` and `compare` commands of the part before the first heading."""
    head = open(README, encoding="utf8").read().split("\n## ")[0]
    shown = None
    for image, command in re.findall(r"!\[[^\]]*\]\((assets/readme/[^)]+)\)|`vitx ((?:explain|compare) [^`]+)`", head):
        if image:
            shown = image
            continue
        words = shlex.split(command)
        out = ["-o", "assets/readme/"] if words[0] == "explain" else ["assets/mammal-and-flower.jpg", "-o", shown]
        model = "demo-bert" if "--text" in words else "demo-vit"
        subprocess.run([vitx, *words, *out, "-m", model, "-q", "--overwrite"], cwd=ROOT, check=True)
    ledger = os.path.join(ROOT, "assets/readme/.vitx-records.jsonl")
    if os.path.exists(ledger):
        os.remove(ledger)


def figures(vitx, data, head, rows, only):
    """The table's rows with the figures of a run: header cells, rows of cells."""
    wanted = [METRICS[c] for c in head[1:]]
    methods = [r[0].strip("`") for r in rows if r[0].startswith("`") and r[0] != "`attention`"]
    methods = [m for m in methods if not only or m in only]
    args = ["evaluate", "--data", data, "--method", ",".join(methods or ["gae"]), "--metric", ",".join(wanted), "--json", "-q", "--resume"]
    out = subprocess.run([vitx, *args], stdout=subprocess.PIPE, check=True, encoding="utf8").stdout
    found = {}
    for record in map(json.loads, out.splitlines()):
        if record["status"] == "ok":
            name = CONTROLS.get(record["method"], f"`{record['method']}`")
            found.setdefault(name, {})[record["metric"]] = f"{record['figure']['value']:.3f}"
    return [[r[0], *[found.get(r[0], {}).get(m, old) for m, old in zip(wanted, r[1:])]] for r in rows]


def tables(vitx, data, only):
    """Rewrites the tables between the `figures` marks, best first by the column that tells the methods apart."""
    text = open(README, encoding="utf8").read()
    before, part, after = re.split(r"(<!-- figures -->.*?<!-- /figures -->)", text, flags=re.S)
    for table in re.findall(r"(?:^\|.*\n)+", part, flags=re.M):
        lines = [[c.strip() for c in l.strip("|\n").split(" | ")] for l in table.splitlines()]
        head, rows = [c.strip("| ") for c in lines[0]], [[c.strip("| ") for c in l] for l in lines[2:]]
        kind, key, sign = ("vision", "mAP", -1) if "mAP" in head else ("text", "positive ↓", 1)
        if not data[kind]:
            continue
        rows = figures(vitx, data[kind], head, rows, only)
        column = head.index(key)
        rows.sort(key=lambda r: (r[0].endswith("(control)"), 0 if r[0].endswith("(control)") else sign * float(r[column])))
        new = [head, ["---"] * len(head), *rows]
        part = part.replace(table, "".join(f"| {' | '.join(r)} |\n" for r in new))
    open(README, "w", encoding="utf8").write(before + part + after)


def main():
    args, options = [], {"--vision": None, "--text": None, "--rows": ""}
    words = iter(sys.argv[1:])
    for word in words:
        if word in options:
            options[word] = next(words)
        else:
            args.append(word)
    if len(args) != 1:
        sys.exit(__doc__)
    vitx = os.path.abspath(args[0])
    pictures(vitx)
    data = {k: v and os.path.abspath(v) for k, v in (("vision", options["--vision"]), ("text", options["--text"]))}
    tables(vitx, data, [r for r in options["--rows"].split(",") if r])


if __name__ == "__main__":
    main()
