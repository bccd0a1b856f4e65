"""What methods say about models of stages, whose attention is within shifted windows: the cases swin and swinv2 of families.py.

    python tests/reference/stages.py [--check] [CASE ...]     both cases (pip install captum==0.9.0 grad-cam==1.5.7)

Reads model/, inputs.safetensors and case.json of tests/fixtures/families/CASE/ and writes methods.safetensors beside them
(`--check` compares instead). Row b explains the logit targets[b] of case.json. All arrays are there twice: for `pixel_values` of
inputs.safetensors, and with `large.` in front for `large.pixel_values` [2,3,40,56], whose grids 10 x 14 and 5 x 7 are no
multiples of the windows, so that padding and shift meet in one block. Computed in float64, stored as float32:

* `logits`; `gradient` [2,3,H,W] of the pixels;
* `gradcam.L.hidden`, `gradcam.L.output`, of swin also `gradcam.L.norm1` [2, rows * columns of that block's grid]: Grad-CAM
  (METHODS.md B.5) at what block L reads (a stage's first block: behind patch merging), at what it gives (before patch merging)
  and at what layernorm_before gives (before padding and shift): w_d = mean of G_d over the tokens, max(0, sum_d w_d A_d). Blocks
  are counted through all stages;
* `layercam.L.norm1` of swin's last block: max(0, sum_d max(G_d, 0) A_d);
* `integrated_gradients` [2,3,H,W]: captum, baseline zero, 8 steps of riemann_middle, which is B.4 with quadrature=midpoint and
  steps=8 (not vitx's default quadrature, which is gauss-legendre);
* `attn_lrp`, `libra` [2,3,H,W]: pixel * gradient under the rules of METHODS.md B.9 and C.1 (see NOTES); `sum.libra` [2]: the sum
  of libra over all pixels.

Making a case stops when the logits are not those of expected.safetensors, when a rule was not met as often as the model has such
an operation, when grad-cam's GradCAM and LayerCAM (before their scaling) disagree, or when libra and the relevance of all biases
do not add up to the logit.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter

import torch
import torch.nn.functional as F
import transformers as tf
from captum.attr import IntegratedGradients
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from families import OUT, Exact
from model import F32, F64
from walk import ScaleGrad, gate

CASES, SEED, STEPS = ("swin", "swinv2"), 61000, 8
NOTES = """
Rules. Norms (embeddings, blocks, patch merging, final): y = w (x - mean) / [sqrt(var + eps)] + b, [] being constant. gelu:
x [Phi(x)]. attn_lrp: both products of attention give half of the gradient to each factor and the softmax has its true derivative,
so that value gets 1/2, query and key 1/4. libra: the probabilities are constant, value gets all. Swin v2: query / [max(length,
1e-12)], likewise key, then the halved product. Swin's position table, v2's logit_scale and position numbers, and the mask are
constants (attn_lrp: what is added keeps its share of a score).

Padding. A grid that is no multiple of the window gets rows below and columns to the right, and these tokens are keys like any
other: nothing masks them but the regions of a shifted block. Swin pads behind layernorm_before, v2 the state itself, with zeros:
query and value of a padded token are their biases, its key is the key's bias (swin) or zero (v2: its score is the position number
and the mask alone). Values of padding are constants: under libra their relevance belongs to the value's bias, which must be
counted over the padded tokens too, or the sum misses the logit. As queries they are cut off and get no gradient. In v2 a padded
key has length 0 and gets a gradient of 1e12 times what arrives, which the cut throws away: it must not meet a zero as 0 * inf.

Not covered. In a shifted block the region [side - window, side - shift) of the rolled, padded grid is just the padding when there
are window - shift rows or columns of it, so that no patch sees it. That is so in all shifted blocks here (2 of window 4, 1 of
window 2); patches that do see padding in a shifted block need another window or a grid of odd sides before merging.

Shift. transformers' swin takes window and shift from the unpadded grid at hand (no shift, window = min(grid), where min(grid) <=
window) and keeps that for later inputs, so each input has a fresh model here. v2 takes them from config.image_size, whatever the
input is.

float32. transformers' swin has its softmax in float32 whatever the model's dtype is, v2 its coordinates; here both are float64.
"""


# --------------------------------------------------------------------------- rules
def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    return c / (c.pow(2).mean(-1, keepdim=True) + eps).sqrt().detach() * weight + bias


def normalize(x, p=2.0, dim=1, eps=1e-12, out=None):
    return x / x.detach().norm(p, dim, keepdim=True).clamp_min(eps)


def halved(a, b):
    return ScaleGrad.apply(a, 0.5) @ ScaleGrad.apply(b, 0.5)


RULES = {"layer_norm": layer_norm, "normalize": normalize, "gelu": lambda x, **kw: x * gate(nn.GELU(), x.detach())}
PRODUCTS = {torch.matmul: "matmul", torch.Tensor.matmul: "matmul", torch.Tensor.__matmul__: "matmul"}
NAMES = {F.layer_norm: "layer_norm", F.normalize: "normalize", F.gelu: "gelu", F.softmax: "softmax", **PRODUCTS}


class Rules(TorchFunctionMode):
    """Replaces functions by others of the same value and another gradient: `kind` is gradient (none), attn_lrp or libra."""

    def __init__(self, kind: str):
        super().__init__()
        self.met = Counter()
        self.rules = {"softmax": lambda x, dim, **kw: torch.softmax(x, dim)}           # of Swin, dtype says float32
        if kind != "gradient":
            self.rules |= RULES
        if kind == "attn_lrp":
            self.rules["matmul"] = halved
        if kind == "libra":
            self.rules["softmax"] = lambda x, dim, **kw: torch.softmax(x, dim).detach()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = NAMES.get(func)
        self.met[name] += 1
        return self.rules.get(name, func)(*args, **(kwargs or {}))


# --------------------------------------------------------------------------- passes
class Pass(nn.Module):
    """A model from pixels to logits, in float64, under some rules."""

    def __init__(self, folder: str, architecture: str):
        super().__init__()
        net = getattr(tf, architecture).from_pretrained(os.path.join(folder, "model"), attn_implementation="eager")
        self.net = net.eval().to(F64)
        with Exact(integers=True):
            for m in self.net.modules():
                if hasattr(m, "create_coords_table_and_index"):
                    m.relative_coords_table = m.create_coords_table_and_index()[0]
        self.blocks = [block for stage in self.net.base_model.encoder.layers for block in stage.blocks]
        self.swin = self.net.config.model_type == "swin"
        self.kind = "gradient"

    def forward(self, x: Tensor) -> Tensor:
        with Rules(self.kind) as rules:
            out = self.net(pixel_values=x).logits
        self.met = rules.met
        return out

    def every(self, *kinds) -> list:
        return [m for m in self.net.modules() if isinstance(m, kinds)]


def picked(z: Tensor, targets: list) -> Tensor:
    return z.gather(1, torch.tensor(targets)[:, None])[:, 0]


def relevance(model: Pass, kind: str, x: Tensor, targets: list) -> Tensor:
    """pixel * gradient under the rules."""
    model.kind = kind
    x = x.clone().requires_grad_(True)
    z = model(x)
    n = len(model.blocks)
    want = {"layer_norm": len(model.every(nn.LayerNorm)), "gelu": n, "softmax": n, "matmul": 2 * n}
    want["normalize"] = 0 if model.swin else 2 * n
    assert {k: model.met[k] for k in want} == want, (kind, model.met)
    g, = torch.autograd.grad(picked(z, targets).sum(), x)
    model.kind = "gradient"
    return (x * g).detach()


def conserves(model: Pass, x: Tensor, targets: list, r: Tensor) -> None:
    """Under libra, the relevance of a row's pixels and of all biases is its logit."""
    biases = [m.bias for m in model.every(nn.Linear, nn.LayerNorm, nn.Conv2d) if m.bias is not None]
    model.kind = "libra"
    for b, t in enumerate(targets):
        z = model(x[b:b + 1])[0, t]
        grads = torch.autograd.grad(z, biases, allow_unused=True, materialize_grads=True)
        gap = float(r[b].sum() + sum((p.detach() * g).sum() for p, g in zip(biases, grads)) - z.detach())
        assert abs(gap) < 1e-9, (b, gap)
    model.kind = "gradient"


def cams(model: Pass, x: Tensor, targets: list) -> dict:
    kept, hooks = {}, []
    for l, block in enumerate(model.blocks):
        hooks.append(block.register_forward_pre_hook(lambda m, a, l=l: kept.update({f"{l}.hidden": a[0]})))
        hooks.append(block.register_forward_hook(lambda m, a, out, l=l: kept.update({f"{l}.output": out[0]})))
        if model.swin:
            hooks.append(block.layernorm_before.register_forward_hook(lambda m, a, out, l=l: kept.update({f"{l}.norm1": out})))
    z = model(x)
    for h in hooks:
        h.remove()
    grads = dict(zip(kept, torch.autograd.grad(picked(z, targets).sum(), list(kept.values()))))
    kept = {k: a.detach() for k, a in kept.items()}
    out = {"gradcam." + k: (grads[k].mean(1, keepdim=True) * a).sum(-1).clamp(min=0) for k, a in kept.items()}
    if model.swin:
        k = f"{len(model.blocks) - 1}.norm1"
        out["layercam." + k] = (grads[k].clamp(min=0) * kept[k]).sum(-1).clamp(min=0)
        for name, package in (("gradcam.", GradCAM), ("layercam.", LayerCAM)):
            far = float((by_package(package, model, x, targets) - out[name + k]).abs().max())
            assert far < 1e-12 * max(1, float(out[name + k].max())), (name + k, far)
    return out


def by_package(package, model: Pass, x: Tensor, targets: list) -> Tensor:
    """grad-cam's map at the last block's layernorm_before, before it is scaled and resized."""
    down = model.net.config.patch_size * 2 ** (len(model.net.config.depths) - 1)
    to_maps = lambda t: t.reshape(len(t), x.shape[2] // down, x.shape[3] // down, -1).permute(0, 3, 1, 2)
    layers, aims = [model.blocks[-1].layernorm_before], [ClassifierOutputTarget(t) for t in targets]
    with package(model=model, target_layers=layers, reshape_transform=to_maps) as cam:
        cam(x, aims)
        a, g = (v[0].numpy() for v in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients))
        return torch.from_numpy(cam.get_cam_image(x, layers[0], aims, a, g, False)).flatten(1).clamp(min=0)


def arrays(model: Pass, x: Tensor, targets: list) -> dict:
    wanted = x.clone().requires_grad_(True)
    z = model(wanted)
    out = {"logits": z.detach(), "gradient": torch.autograd.grad(picked(z, targets).sum(), wanted)[0], **cams(model, x, targets)}
    out["integrated_gradients"] = IntegratedGradients(model).attribute(
        x, torch.zeros_like(x), target=torch.tensor(targets), n_steps=STEPS, method="riemann_middle").detach()
    for kind in ("attn_lrp", "libra"):
        out[kind] = relevance(model, kind, x, targets)
    conserves(model, x, targets, out["libra"])
    return {**out, "sum.libra": out["libra"].flatten(1).sum(1)}


# --------------------------------------------------------------------------- writing
def make(folder: str) -> dict:
    with open(os.path.join(folder, "case.json")) as f:
        info = json.load(f)
    x = load_file(os.path.join(folder, "inputs.safetensors"))["pixel_values"]
    large = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(SEED))
    out = arrays(Pass(folder, info["architecture"]), x.to(F64), info["targets"])
    stored = load_file(os.path.join(folder, "expected.safetensors"))["logits"]
    assert float((out["logits"] - stored).abs().max()) < 1e-6, (out["logits"], stored)
    model = Pass(folder, info["architecture"])
    out |= {"large." + k: v for k, v in {"pixel_values": large, **arrays(model, large.to(F64), info["targets"])}.items()}
    padded = lambda s, w: any(n // (model.net.config.patch_size * 2 ** s) % w for n in large.shape[2:])
    both = [block for s, stage in enumerate(model.net.base_model.encoder.layers) for block in stage.blocks
            if block.shift_size > 0 and padded(s, block.window_size)]
    assert both, "no shifted block is padded"
    return {k: v.to(F32).contiguous() for k, v in out.items()}


def differences(new: dict, old: dict) -> list:
    """As those of families.py; the last bits may differ between machines."""
    out = [f"{k} only {'made' if k in new else 'stored'}" for k in sorted(new.keys() ^ old.keys())]
    for k in sorted(new.keys() & old.keys()):
        x, y = new[k].to(F64), old[k].to(F64)
        if x.shape != y.shape:
            out.append(f"{k} is {list(x.shape)}, stored {list(y.shape)}")
        elif float((x - y).abs().max()) > 1e-9 + 2.0 ** -22 * float(y.abs().max()):
            out.append(f"{k} differs by {float((x - y).abs().max()):.3g} of {float(y.abs().max()):.3g}")
    return out


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=NOTES)
    ap.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    ap.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    args = ap.parse_args()
    if wrong := set(args.cases) - set(CASES):
        ap.error(f"no such case: {', '.join(sorted(wrong))}; there are {', '.join(CASES)}")
    bad = 0
    for name in args.cases or CASES:
        start, folder = time.time(), os.path.join(OUT, name)
        path = os.path.join(folder, "methods.safetensors")
        made = make(folder)
        lines = differences(made, load_file(path)) if args.check else []
        bad += len(lines)
        if not args.check:
            save_file(made, path)
            os.chmod(path, 0o644)
        told = "checked" if args.check else "written"
        print(f"{name:22s} {os.path.getsize(path) / 1000:5.0f} KB  {told}  {time.time() - start:5.1f} s", *lines, sep="\n  ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
