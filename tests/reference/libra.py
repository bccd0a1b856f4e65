"""Libra backward pass and the read-outs that use it: gradient x input, FullGrad(+), CAMs summed over layers, GAE, AttCAT.

The same read-outs are also given for the true gradient where no other module has them (keys without `libra.`).
"""
from __future__ import annotations

import torch
from torch import Tensor

from emit import Emit, Tolerance
from inputs import patch_pool
from walk import LIBRA, PLAIN, Walk

TOLERANCE = Tolerance(1e-6, 5e-5, 20)

PAPER = "Mehri, Soleymani Baghshah, Pilehvar 2025 (CVPR), LibraGrad"
PAPER_FG = "Srinivas & Fleuret 2019 (NeurIPS), FullGrad; layer-summed form: Mehri et al. 2024 (SkipPLUS), 2025 (LibraGrad)"
EPS_X = 1e-7

LIBRA_TEXT = ("Libra backward: softmax probabilities, LayerNorm standard deviations and activation gates f(x)/x are "
              "constants, everything else as in the true backward")
PLAIN_TEXT = "true gradient"


def input_relevance(case, r: Tensor) -> Tensor:
    """Relevance of the raw input -> [B,rows,cols] (pixels of a patch) or [B,T] (word embedding)."""
    return patch_pool(case, r.sum(1), "sum") if case.vision else r.sum(-1)


def channel_weights(case, A: Tensor, G: Tensor, kind: str) -> Tensor:
    """[B,1,D], statistics over all real tokens, prefix tokens included."""
    m = case.mask2d.to(A.dtype)[..., None]
    if kind == "gradcam":
        return (G * m).sum(1, keepdim=True) / m.sum(1, keepdim=True)
    a = A.abs() * m
    return (G * a).sum(1, keepdim=True) / (a.sum(1, keepdim=True) + EPS_X)


def cam_plus(case, w: Walk, kind: str) -> Tensor:
    """sum over layers of sum_d w_d x^l_d, [B,T]."""
    return sum((channel_weights(case, x, g, kind) * x).sum(-1) for x, g in zip(w.hidden[:-1], w.hidden_grad[:-1]))


def gae(case, w: Walk) -> Tensor:
    """Row 0 of prod (I + mean_h max(0, A * G)), [B,T]."""
    E = [(a * g).clamp(min=0).mean(1) for a, g in zip(w.probs, w.probs_grad)]

    def one(b, n):
        R = torch.eye(n, dtype=w.dtype)
        for e in E:
            R = R + e[b, :n, :n] @ R
        return case.read(R)

    return case.per_example(one)


def received(case, p: Tensor) -> Tensor:
    """Mean over heads and real queries of the attention every token receives, [B,T]."""
    q = case.mask2d.to(p.dtype)
    return (p.mean(1) * q[:, :, None]).sum(1) / q.sum(1, keepdim=True)


def readouts(case, w: Walk) -> dict:
    """Everything below as [B,T] vectors."""
    L = len(w.lays)
    gxi = [w.gxi(l) for l in range(L + 1)]
    rec = [received(case, p) for p in w.probs]
    return {
        "gradient-x-input": gxi[0],
        "fullgrad": gxi[0] + w.constants(0),
        "fullgrad-plus": sum(gxi[:L]) + w.constants(0),
        "hirescam": gxi[L - 1],
        "gradcam-plus": cam_plus(case, w, "gradcam"),
        "xgradcam-plus": cam_plus(case, w, "xgradcam"),
        "gae": gae(case, w),
        "attcat": sum(rec[l] * gxi[l] for l in range(L)),
        "attcat.output": sum(rec[l] * gxi[l + 1] for l in range(L)),
        "attcat.official": sum((rec[l] * gxi[l + 1] for l in range(L - 1)), torch.zeros_like(gxi[0])),
    }


def texts(case, L: int) -> dict:
    g = "x^l = hidden.{l}, g^l = d logit[target]/d x^l"
    bias = ("constants_j = sum of bias * gradient over all linear biases and LayerNorm shifts added at token j in the blocks, "
            "final norm and head (pooled layers: " + ("1/n at each real token" if case.mean_pooled else "token 0; second DeiT head: token 1")
            + ")")
    return {
        "gradient-x-input": f"sum_d x^0_jd g^0_jd; {g}",
        "fullgrad": f"sum_d x^0_jd g^0_jd + constants_j; {g}; {bias}",
        "fullgrad-plus": f"sum_(l=0..{L - 1}) sum_d x^l_jd g^l_jd + constants_j (each constant once); {g}; {bias}",
        "hirescam": f"sum_d x_jd g_jd at hidden.{L - 1}, no ReLU; {g}",
        "gradcam-plus": f"sum_(l=0..{L - 1}) sum_d w^l_d x^l_jd with w^l_d = mean over all real tokens (prefix included) of "
                        f"g^l_jd; no ReLU; {g}",
        "xgradcam-plus": f"sum_(l=0..{L - 1}) sum_d w^l_d x^l_jd with w^l_d = sum_j g^l_jd |x^l_jd| / (sum_j |x^l_jd| + "
                         f"{EPS_X}), sums over all real tokens (prefix included); no ReLU; {g}",
        "gae": "row 0 of prod_(l=L-1..0) (I + mean_h max(0, A_h^l * G_h^l)), G_h^l = d logit[target] / d A_h^l under the "
               "stated backward (later attention maps do not react to a change of A^l)",
        "attcat": f"sum_(l=0..{L - 1}) (sum_d x^l_jd g^l_jd) * mean over heads and real queries i of A_h^l[i,j]; {g}",
        "attcat.output": f"as attcat with x^(l+1), g^(l+1) in place of x^l, g^l; {g}",
        "attcat.official": f"as attcat.output, summed over l = 0..{L - 2} only (the last state is left out); {g}",
    }


PLAIN_KEYS = ("fullgrad", "fullgrad-plus", "gradcam-plus", "xgradcam-plus")      # other modules have the others


def produce(case, emit: Emit) -> None:
    dtype = emit.dtype
    L = len(case.layers(dtype))
    shape = "[B,rows,cols], prefix tokens dropped" if case.vision else "[B,T]"
    defs = texts(case, L)
    lib, plain = Walk(case, dtype, LIBRA), Walk(case, dtype, PLAIN)
    for name, w, keys, how in (("libra.", lib, tuple(defs), LIBRA_TEXT), ("", plain, PLAIN_KEYS, PLAIN_TEXT)):
        out = readouts(case, w)
        for k in keys:
            kw = dict(method=name + k.split(".")[0], definition=how + "; " + defs[k],
                      paper=(PAPER if name else PAPER_FG), params={"backward": "libra" if name else "gradient", "target": "logit"})
            emit(name + k, case.map(out[k]), meaning=shape, **kw)
            if case.vision and k in ("gradient-x-input", "fullgrad", "fullgrad-plus"):
                emit(name + k + ".tokens", out[k], meaning="[B,T], prefix tokens included",
                     **{**kw, "definition": f"{name + k} before the prefix tokens are dropped"})
    kw = dict(method="libra", paper=PAPER, params={"backward": "libra", "target": "logit"})
    emit("libra.gradient-x-input.input", input_relevance(case, lib.x * lib.gx),
         meaning="relevance of the raw input, [B,rows,cols]" if case.vision else "relevance of the word embeddings, [B,T]",
         definition=LIBRA_TEXT + "; " + ("pixel_values * gradient, summed over channels and the pixels of a patch"
                                         if case.vision else "inputs_embeds * gradient, summed over D (the embedding "
                                         "LayerNorm follows the same rule)"), **kw)
    emit("libra.states", torch.stack([lib.gxi(l) for l in range(L + 1)], 1), meaning="[B,L+1,T]",
         definition=LIBRA_TEXT + "; entry l: sum_d x^l_jd g^l_jd, x^l = hidden.{l}", **kw)
    per = torch.stack([lib.constants(l) - (lib.constants(l + 1) if l < L else 0) for l in range(L + 1)], 1)
    emit("libra.constants", per, meaning="[B,L+1,T]", definition=LIBRA_TEXT + "; entry l < L: relevance of the constants "
         "added inside block l, entry L: final norm and head", **kw)
    total = torch.stack([torch.stack([lib.gxi(l).sum(1), lib.constants(l).sum(1)], 1) for l in range(L + 1)], 1)
    gap = float((total.sum(-1) - lib.out[:, None]).abs().max())
    assert gap < (1e-12 if dtype == torch.float64 else 1e-3), (case.name, gap)
    emit("libra.completeness", total, meaning="[B,L+1,2]", definition="entry l: (sum over tokens of libra.states[l], sum over "
         "tokens of libra.constants[l..L]); the two add up to the target logit for every l (error below 1e-12 in float64)", **kw)
    prob = Walk(case, dtype, LIBRA, "prob")
    emit("libra.fullgrad-plus.prob", case.map(readouts(case, prob)["fullgrad-plus"]), method="libra.fullgrad-plus",
         meaning=shape, paper=PAPER, params={"backward": "libra", "target": "probability"},
         definition="as libra.fullgrad-plus, started from the softmax probability of the target instead of its logit (seed "
         "p_c (delta_kc - p_k) on logit k; the class softmax itself is differentiated truly); no completeness")
