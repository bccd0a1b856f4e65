#!/usr/bin/env python3
"""Makes the model-u8.safetensors of a demo model from its f16 weights.

    models/quantise.py MODEL OUT --inputs assets --step 0.25        demo-vit: every .jpg of a folder, and three crops of each
    models/quantise.py MODEL OUT --inputs texts.txt --step 0.36     demo-bert: a text a line

MODEL is a folder with config.json and model.safetensors, OUT the file to write. The file's format is in the models' cards: an
8-bit number a weight and a scale a row. But the scale is not the smallest that eight bits allow, it is STEP times the row's root
mean square, so that a row takes some 20 to 30 values and gzip, in which crates are packed, makes little more than four bits of each.
What rounding a weight does to a row's products is made up for in the row's weights that are rounded after it, as far as the
inputs of that layer, seen while the model reads INPUTS, go together (Frantar et al., "GPTQ", ICLR 2023, algorithm 1). Weights
that are few (the classifier, positions, token types) keep all eight bits.

Needs tests/reference/requirements.txt. The same inputs and versions give the same file.
"""

import argparse
import pathlib
import random
import zlib

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
FEW = 1 << 17  # up to so many weights, a tensor keeps eight bits
DAMP = 0.01  # added to the diagonal of the inputs' products, as a share of its mean


def picture(image, size):
    """[3,S,S], as preprocessor_config.json says: squashed, bilinear, ImageNet's mean and deviation."""
    numbers = torch.frombuffer(bytearray(image.convert("RGB").resize((size, size), Image.BILINEAR).tobytes()), dtype=torch.uint8)
    return (numbers.view(size, size, 3).permute(2, 0, 1).float() / 255 - MEAN) / DEVIATION


def inputs(model, folder, path):
    """Batches to call the model with."""
    if path.is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        texts = [line for line in path.read_text().splitlines() if line.strip()]
        return [dict(tokenizer(text, return_tensors="pt", truncation=True)) for text in texts]
    choose, found = random.Random(0), []
    for file in sorted(path.glob("*.jpg")):
        image = Image.open(file)
        (width, height), crops = image.size, [image]
        for _ in range(3):
            share = choose.uniform(0.55, 0.9)
            x, y = choose.uniform(0, 1 - share) * width, choose.uniform(0, 1 - share) * height
            crops.append(image.crop((int(x), int(y), int(x + share * width), int(y + share * height))))
        crops[1::2] = [crop.transpose(Image.FLIP_LEFT_RIGHT) for crop in crops[1::2]]
        found.append({"pixel_values": torch.stack([picture(crop, model.config.image_size) for crop in crops])})
    return found


def products(model, batches):
    """(weight, X^T X of what it is multiplied with) of every linear layer."""
    sums = {}

    def see(layer, given, _):
        x = given[0].detach()
        if isinstance(layer, torch.nn.Conv2d):
            x = F.unfold(x, layer.kernel_size, stride=layer.stride).transpose(1, 2)
        x = x.reshape(-1, x.shape[-1]).double()
        sums[layer] = sums.get(layer, 0) + x.T @ x

    for layer in model.modules():
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
            layer.register_forward_hook(see)
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    return [(layer.weight.detach(), total) for layer, total in sums.items()]


def rounded(rows, scale, seen):
    """Whole numbers [R,C] whose products with inputs like those seen are near the rows', in units of the scales [R]."""
    if seen is None:
        return (rows / scale[:, None]).round()
    seen = seen + torch.eye(len(seen), dtype=torch.double) * DAMP * seen.diag().mean()
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(seen)), upper=True).float()
    left, out = rows.clone(), torch.empty_like(rows)
    for j in range(rows.shape[1]):
        out[:, j] = (left[:, j] / scale).round()
        missed = (left[:, j] - out[:, j] * scale) / upper[j, j]
        left[:, j + 1:] -= missed[:, None] * upper[j, j + 1:]
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--inputs", type=pathlib.Path, required=True, help="a folder of pictures, or a file with a text a line")
    ap.add_argument("--step", type=float, required=True, help="a step of a row's weights, in root mean squares of the row")
    args = ap.parse_args()
    torch.set_num_threads(1)  # sums in one order
    kind = AutoModelForSequenceClassification if args.inputs.is_file() else AutoModelForImageClassification
    model = kind.from_pretrained(args.model, dtype=torch.float32).eval()
    layers = products(model, inputs(model, args.model, args.inputs))
    out = {}
    for name, weight in load_file(args.model / "model.safetensors").items():
        weight = weight.float()
        if weight.dim() not in (2, 4):  # vectors, and the class token and positions of a ViT
            out[name] = weight.half()
            continue
        rows = weight.flatten(1)
        # Names differ from one version of transformers to the next, numbers do not.
        seen = next((seen for own, seen in layers if own.shape == weight.shape and torch.equal(own, weight)), None)
        if weight.numel() <= FEW:
            # Rounded up so that no value leaves -127..127 after the scale became f16.
            scale, seen = rows.abs().amax(1) / 127 * 1.0005, None
        else:
            scale = rows.square().mean(1).sqrt() * args.step
        scale = scale.clamp(min=1e-6).half()
        numbers = rounded(rows, scale.float(), seen).clamp(-127, 127) + 128
        out[name], out[name + ".scale"] = numbers.to(torch.uint8).view(weight.shape), scale
    about = {"format": "pt", "quantisation": "u8 per row: w = (q - 128) * <name>.scale[row]"}
    save_file(out, args.out, metadata=about)
    contents = args.out.read_bytes()
    print(f"{args.out}: {len(contents)} bytes, packed {len(zlib.compress(contents, 9))}")


if __name__ == "__main__":
    main()
