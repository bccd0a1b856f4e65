"""vitx beside its peers on this machine: whole processes, computation, one more photo of a folder, and memory.

    pip install -r benches/peer/requirements.txt
    cargo build --release --example random_vit && cargo build --release
    python benches/peer/compare.py [--vitx target/release/vitx] [--only gae,rollout] [--runs 5] [--slow]

Makes its checkpoints (random weights of real size) and photos in a temporary folder, or in --work DIR to keep them. Every
figure is a median. Run it on an idle machine. `VITX_KERNELS=avx2` shows the narrower kernels.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

here = pathlib.Path(__file__).resolve().parent
root = here.parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--vitx", default=str(root / "target/release/vitx"))
parser.add_argument("--random-vit", default=None, help="the example program; beside vitx in examples/ when not given")
parser.add_argument("--work", default=None)
parser.add_argument("--only", default=None, help="methods, by comma")
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("--photos", type=int, default=64)
parser.add_argument("--slow", action="store_true", help="also methods of many passes")
parser.add_argument("--make-bert", default=None, help=argparse.SUPPRESS)
args = parser.parse_args()

FAST = ["gae", "rollout", "gradcam"]
SLOW = {
    "integrated-gradients": "integrated-gradients:steps=32",
    "smoothgrad": "smoothgrad:n=32",
    "occlusion": "occlusion",
    "scorecam": "scorecam",
}


def measured(command):
    """Wall seconds, peak MiB and output of a process."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out = child.stdout.read()
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))}\n{errors.decode()}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024, out.decode()


def ours(method, model, source, out):
    return [args.vitx, "explain", "-m", model, "--method", method, "--json", "--overwrite", "-o", str(out), *source]


def peer(method, model, source, repeat=1):
    return [sys.executable, str(here / "peers.py"), method, model, str(source), "--repeat", str(repeat)]


def median(figures):
    return statistics.median(figures)


def line(what, mine, theirs, unit, peaks=("", "")):
    ratio = theirs / mine if mine else float("nan")
    print(f"| {what} | {mine:.2f} {unit}{peaks[0]} | {theirs:.2f} {unit}{peaks[1]} | {ratio:.2f} |", flush=True)


def photos(folder, count):
    from PIL import Image
    import numpy

    random = numpy.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if (folder / f"{number:03}.jpg").exists():
            continue
        coarse = random.integers(0, 255, (12, 16, 3), dtype=numpy.uint8)
        Image.fromarray(coarse).resize((640, 480), Image.BICUBIC).save(folder / f"{number:03}.jpg", quality=90)


def bert(folder):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig()).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"word{n}" for n in range(1000)]
    own = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    own.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=own, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    ).save_pretrained(folder)


def process(command):
    """Median seconds and MiB of whole processes, and what they said, one right after the other behind one that does not count: on virtual machines
    memory that was free for a while costs its first user more than the whole explanation."""
    measured(command)
    seconds, peaks, said = zip(*(measured(command) for _ in range(args.runs)))
    return median(seconds), median(peaks), said


def compare(method, spec, model, one, source, folder, scratch):
    if method in SLOW:
        # One run each: minutes leave no room for chance.
        mine, my_peak, mine_said = measured(ours(spec, model, source, scratch))
        theirs, their_peak, theirs_said = measured(peer(method, model, one))
        records, alone = mine_said.splitlines(), json.loads(theirs_said)["seconds"][0]
        own = json.loads(records[0])["ms"] / 1e3
    else:
        mine, my_peak, said = process(ours(spec, model, source, scratch))
        theirs, their_peak, _ = process(peer(method, model, one))
        alone = median(json.loads(measured(peer(method, model, one, 7))[2])["seconds"])
        # Of an input that has the machine for itself, page faults of its process included; the peer's are of a warm process.
        own = median([json.loads(record)["ms"] / 1e3 for record in said])
    line(f"`{method}`, whole process", mine, theirs, "s", (f", {my_peak:.0f} MiB", f", {their_peak:.0f} MiB"))
    line(f"`{method}`, computation", own, alone, "s")
    if folder and method in FAST:
        many = [measured(ours(spec, model, [str(folder)], scratch))[0] for _ in range(2)]
        line(f"`{method}`, one more photo of {args.photos}", (min(many) - mine) / (args.photos - 1), alone, "s")


def main():
    work = pathlib.Path(args.work or tempfile.mkdtemp(prefix="vitx-peer-"))
    work.mkdir(parents=True, exist_ok=True)
    vit, text = work / "vit-b16", work / "bert-base"
    if not (vit / "config.json").exists():
        example = args.random_vit or str(pathlib.Path(args.vitx).parent / "examples/random_vit")
        measured([example, str(vit), "base"])
    photos(work / "photos", args.photos)
    one = work / "photos/000.jpg"
    only = args.only.split(",") if args.only else None
    print(f"{os.cpu_count()} threads; instructions: ", end="", flush=True)
    print(json.loads(measured([args.vitx, "explain", "--json", str(one), "-o", str(work / "out"), "--overwrite"])[2].splitlines()[0]).get("instructions"))
    print("\n| ViT-B/16, 224 px | vitx | peer | peer / vitx |\n| --- | --- | --- | --- |", flush=True)
    for method in FAST + (list(SLOW) if args.slow else []):
        if only is None or method in only:
            compare(method, SLOW.get(method, method), str(vit), one, [str(one)], work / "photos", work / "out")
    if only is None or "bert" in only:
        if not (text / "config.json").exists():
            # In a process of its own: what this one has held would count as its children's peak.
            subprocess.run([sys.executable, __file__, "--make-bert", str(text)], check=True)
        sentence = " ".join(f"word{n}" for n in range(126))
        (work / "text.txt").write_text(sentence)
        print("\n| BERT-base, 128 tokens | vitx | peer | peer / vitx |\n| --- | --- | --- | --- |", flush=True)
        for method in ["gae", "integrated-gradients"]:
            compare(method, SLOW.get(method, method), str(text), work / "text.txt", ["--text", sentence], None, work / "out")


if args.make_bert:
    bert(pathlib.Path(args.make_bert))
else:
    main()
