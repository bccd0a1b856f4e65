"""Write the golden fixtures, or compare what this program makes with what is there.

    python tests/reference/make.py [CASE ...]             writes tests/fixtures/CASE/ (all cases without a name)
    python tests/reference/make.py --check [CASE ...]     compares, and writes nothing
    python tests/reference/make.py --out DIR [CASE ...]   writes elsewhere
"""
from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time

import torch
import transformers as tf
from safetensors.torch import load_file

from case import Case
from cases import CASES, SMALL, build
from emit import Emit
from model import F32, F64, Recorder, model_class, recording, stock_rotation

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fixtures")
MODULES = ("attention", "mixing", "gradient", "cam", "vitcx", "lrp", "attnlrp", "legrad", "perturbation", "maximization", "metrics",
           "libra", "propagation", "tokentm", "beyond", "iia")
SMALL_KEYS = ("attention", "attention.matrix", "rollout", "gae", "gae.matrix")
FULL = "vit-square"       # the one vision case that carries the pixel-sized arrays


def far(xs, ys) -> float:
    return max(float((x.detach() - y.detach()).abs().max()) for x, y in zip(xs, ys))


def finite_difference(case: Case, per_layer: int = 8, step: float = 1e-5) -> float:
    """Nudge single attention probabilities (no renormalisation) and compare with attention_grad."""
    tr, gen, worst = case.trace(F64), case.rng("finite-difference"), 0.0
    pick = lambda n: int(torch.randint(n, (1,), generator=gen))
    for l, grad in enumerate(tr.attn_grad):
        for _ in range(per_layer):
            b = pick(case.B)
            at = (b, pick(grad.shape[1]), pick(case.lengths[b]), pick(case.T))
            vals = []
            for sign in (1, -1):
                def nudge(layer, probs):
                    if layer != l:
                        return probs
                    probs = probs.clone()
                    probs[at] += sign * step
                    return probs
                with torch.no_grad(), recording(Recorder(edit_probs=nudge)):
                    vals.append(float(case.picked(case.logits(F64))[b]))
            worst = max(worst, abs((vals[0] - vals[1]) / (2 * step) - float(grad[at])))
    assert worst < 1e-7, (case.name, worst)
    return worst


def check_base(case: Case) -> None:
    """The unmodified float32 eager model must agree with the float64 trace; padding must not matter."""
    tr, net = case.trace(F64), case.net(F32)
    ours = net.config._attn_implementation
    net.config._attn_implementation = "eager"
    try:
        with stock_rotation():
            o = net(**case.model_inputs(F32), output_attentions=True, output_hidden_states=True)
            grads = torch.autograd.grad(case.picked(o.logits).sum(), o.attentions)
    finally:
        net.config._attn_implementation = ours
    hidden = list(tr.hidden)
    if case.model_type == "modernbert":       # transformers gives the last state behind the final norm
        hidden[-1] = case.final_norm()(hidden[-1])
    assert len(o.hidden_states) == len(tr.hidden) and len(o.attentions) == len(tr.attn)
    base = {
        "note": "largest difference between the stored arrays (float64 run) and the unmodified transformers model in "
                "float32 with attn_implementation='eager'; attention_grad there is autograd of the target logit with "
                "respect to the returned attention tensors",
        "logits": far([o.logits], [tr.logits]), "hidden": far(o.hidden_states, hidden),
        "attention": far(o.attentions, tr.attn), "attention_grad": far(grads, tr.attn_grad),
        "attention_grad_vs_finite_difference": finite_difference(case),
        "atol": {"logits": 1e-5, "hidden": 5e-5, "attention": 1e-5, "attention_grad": 5e-5}, "rtol": 1e-4}
    for k, tol in base["atol"].items():
        assert base[k] < tol / 2, (case.name, k, base[k])
    case.info["base"] = base
    for b, n in enumerate(case.lengths):
        if n < case.T:
            check_padding(case, b, n, base)


def check_padding(case: Case, b: int, n: int, base: dict) -> None:
    """Row b alone and unpadded gives the same; and its padded rows see something, so that they have a value."""
    for lay in case.layers():
        near = lay.near(case.T)
        assert near is None or bool((near & case.mask2d[b]).any(1).all()), (case.name, "a padded row sees no real token")
    tr = case.trace(F64)
    one = Case("alone", "", case.model, {k: v[b:b + 1, :n] for k, v in case.inputs.items()}, case.call, 0,
               targets=case.targets[b:b + 1]).trace(F64)
    pad = {"logits": far([one.logits[0]], [tr.logits[b]]),
           "hidden": far([x[0] for x in one.hidden], [x[b, :n] for x in tr.hidden])}
    for k, xs, ys in (("attention", one.attn, tr.attn), ("attention_grad", one.attn_grad, tr.attn_grad)):
        pad[k] = far([x[0] for x in xs], [y[b, :, :n, :n] for y in ys])
    assert max(pad.values()) < 1e-12, pad
    base["padded_vs_alone"] = pad


def check_reload(case: Case, folder: str) -> None:
    """The saved model folder must load with transformers and give the stored logits, its tokenizer the stored ids."""
    model = os.path.join(folder, "model")
    again = model_class(case.model.config.architectures[0]).from_pretrained(model, attn_implementation="eager").eval()
    with torch.no_grad(), stock_rotation():
        d = float((again(**case.model_inputs(F32)).logits - case.trace(F64).logits).abs().max())
    assert d < 1e-5, (case.name, d)
    if case.texts:
        tok = tf.AutoTokenizer.from_pretrained(model)
        for (x, y), ids, n in zip(case.texts, case.inputs["input_ids"].tolist(), case.lengths):
            assert (tok(x, y) if y else tok(x))["input_ids"] == ids[:n]


def make(name: str, out: str) -> Case:
    case = build(name)
    check_base(case)
    small = name in SMALL
    emit = Emit(case, case.vision and name != FULL, SMALL_KEYS if small else ())
    for module in ("attention",) if small else MODULES:
        emit.run(importlib.import_module(module))
    emit.finish()
    check_reload(case, case.write(out))
    return case


def differences(new: str, old: str) -> list:
    """What `new` has otherwise than `old`, a line each. Stored values are float32: the last bits may differ between machines."""
    out = []
    for file in ("model/model", "inputs", "expected"):
        a, b = (load_file(os.path.join(d, file + ".safetensors")) for d in (new, old))
        out += [f"{file}: {k} only {'made' if k in a else 'stored'}" for k in sorted(a.keys() ^ b.keys())]
        for k in sorted(a.keys() & b.keys()):
            x, y = a[k].to(F64), b[k].to(F64)
            if x.shape != y.shape:
                out.append(f"{file}: {k} is {list(x.shape)}, stored {list(y.shape)}")
            elif x.numel() and float((x - y).abs().max()) > 1e-9 + 2.0 ** -22 * float(y.abs().max()):
                out.append(f"{file}: {k} differs by {float((x - y).abs().max()):.3g} of {float(y.abs().max()):.3g}")
    a, b = (json.load(open(os.path.join(d, "case.json"))) for d in (new, old))
    for k in sorted(a["methods"].keys() & b["methods"].keys()):
        for what in ("method", "params", "meaning"):
            x, y = a["methods"][k][what], b["methods"][k][what]
            if x != y and "cut_margin" not in x:      # a measured number, for the record
                out.append(f"case.json: {k} has {what} {x}, stored {y}")
    out += [f"case.json: {k} is {a[k]}, stored {b[k]}" for k in ("targets", "lengths", "n_prefix", "grid", "call") if a[k] != b[k]]
    return out


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    ap.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    ap.add_argument("--out", default=FIXTURES, metavar="DIR", help="write into DIR/CASE/ instead of tests/fixtures/CASE/")
    args = ap.parse_args()
    if wrong := set(args.cases) - set(CASES):
        ap.error(f"no such case: {', '.join(sorted(wrong))}; there are {', '.join(CASES)}")
    bad = 0
    for name in args.cases or CASES:
        start = time.time()
        with tempfile.TemporaryDirectory() as tmp:
            case = make(name, tmp if args.check else args.out)
            lines = differences(os.path.join(tmp, name), os.path.join(args.out, name)) if args.check else []
        told = f"{len(lines)} differences" if args.check else "written"
        print(f"{name:26s} {len(case.methods):4d} arrays of methods  {told}  {time.time() - start:5.1f} s", *lines, sep="\n  ")
        bad += len(lines)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
