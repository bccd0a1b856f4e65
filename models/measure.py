#!/usr/bin/env python3
"""How near a demo model's model-u8.safetensors is to its f16 weights: the figures of the models' cards.

    models/measure.py MODEL U8 LABELS.csv [--explain N]

MODEL is a folder with config.json and model.safetensors, U8 the 8-bit file. LABELS.csv are pictures (image, label_id, mask; beside
them) or texts (text, label). Accuracy of both, how often both say the same, the divergence of what they say, and of the first N
explanations (GAE) how often the greatest relevance is on the object, and how alike they are. Needs tests/reference/requirements.txt.
"""

import argparse
import csv
import pathlib
import shutil
import tempfile

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

from quantise import picture


def decoded(file):
    """The weights of an 8-bit file."""
    stored, out = load_file(file), {}
    for name, weight in stored.items():
        scale = stored.get(name + ".scale")
        if not name.endswith(".scale"):
            out[name] = weight.float() if scale is None else (weight.float() - 128) * scale.float().view(-1, *[1] * (weight.dim() - 1))
    return out


def explained(model, batch, target):
    """(logits [C], relevance [T] of the tokens) by gradient attention rollout."""
    output = model(**batch, output_attentions=True)
    logits = output.logits[0]
    grads = torch.autograd.grad(logits[target], output.attentions)
    relevance = torch.eye(grads[0].shape[-1])
    for attention, grad in zip(output.attentions, grads):
        relevance = relevance + (attention * grad).detach().clamp(min=0)[0].mean(0) @ relevance
    return relevance[0, 1:]


def cases(rows, folder, model, data):
    """(input, classes that are right, [(class to explain, mask or none)])."""
    if "text" in rows[0]:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for row in rows:
            label = model.config.label2id[row["label"]]
            yield dict(tokenizer(row["text"], return_tensors="pt", truncation=True)), [label], [(label, None)]
        return
    for image in sorted({row["image"] for row in rows}):
        own = [row for row in rows if row["image"] == image]
        pixels = picture(Image.open(data / image), model.config.image_size)[None]
        gray = lambda row: Image.open(data / row["mask"]).convert("L").resize((336, 336)).tobytes()
        mask = lambda row: torch.frombuffer(bytearray(gray(row)), dtype=torch.uint8) > 127
        classes = [int(row["label_id"]) for row in own]
        yield {"pixel_values": pixels}, classes, [(c, mask(row)) for c, row in zip(classes, own)]


def points(relevance, mask):
    side = round(len(relevance) ** 0.5)
    return bool(mask[F.interpolate(relevance.view(1, 1, side, side), (336, 336), mode="bilinear").argmax()])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=pathlib.Path)
    ap.add_argument("u8", type=pathlib.Path)
    ap.add_argument("labels", type=pathlib.Path)
    ap.add_argument("--explain", type=int, default=0)
    args = ap.parse_args()
    torch.set_num_threads(1)
    rows = list(csv.DictReader(open(args.labels, encoding="utf8")))
    kind = AutoModelForSequenceClassification if "text" in rows[0] else AutoModelForImageClassification
    load = lambda folder: kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(args.model, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        save_file(decoded(args.u8), pathlib.Path(folder, "model.safetensors"), metadata={"format": "pt"})
        models = [load(args.model), load(folder)]
    right, same, apart, pointed, alike = [[], []], [], [], [[], []], []
    for batch, classes, asked in cases(rows, args.model, models[0], args.labels.parent):
        with torch.no_grad():
            f16, u8 = [model(**batch).logits[0].log_softmax(-1) for model in models]
        for found, said in zip(right, (f16, u8)):
            found.append((len(classes), int(said.argmax()) in classes))
        same.append(f16.argmax() == u8.argmax())
        apart.append((f16.exp() * (f16 - u8)).sum())
        for target, mask in asked[:max(0, args.explain - len(alike))]:
            pair = [explained(model, batch, target) for model in models]
            alike.append(torch.corrcoef(torch.stack(pair))[0, 1])
            if mask is not None:
                for found, relevance in zip(pointed, pair):
                    found.append((len(classes), points(relevance, mask)))
    share = lambda found, n: sum(hit for objects, hit in found if objects == n) / max(1, sum(objects == n for objects, _ in found))
    for name, hits, on in zip(("f16", "u8"), right, pointed):
        print(name, *[f"objects {n}: top-1 {share(hits, n):.3f}, pointing {share(on, n):.3f};" for n in sorted({n for n, _ in hits})])
    mean = lambda numbers: float(torch.stack(numbers).float().mean()) if numbers else float("nan")
    print(f"{len(same)} inputs: the same class {mean(same):.3f}, divergence {mean(apart):.5f}; {len(alike)} maps: correlation {mean(alike):.4f}")


if __name__ == "__main__":
    main()
