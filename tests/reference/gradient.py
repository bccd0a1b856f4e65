"""Input gradients: saliency, gradient x input, SmoothGrad family, integrated gradients."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from emit import Emit, Tolerance
from inputs import black, input_gradient, patch_pool, special_mask

TOLERANCE = Tolerance(1e-6, 2e-5, 10)

SPREAD = 0.15
N_SMOOTH = 4
QUADRATURES = [("midpoint", 8), ("midpoint", 32), ("gauss-legendre", 8), ("gauss-legendre", 32)]

P_SAL = "Simonyan et al. 2013, Deep inside convolutional networks"
P_SG = "Smilkov et al. 2017, SmoothGrad; squared and VarGrad: Hooker et al. 2019 / Adebayo et al. 2018"
P_IG = "Sundararajan et al. 2017, Axiomatic attribution for deep networks"
P_GXI = "Shrikumar et al. 2016, Not just a black box"


def quadrature(kind: str, n: int) -> tuple[list, list]:
    """Nodes and weights on [0,1]."""
    if kind == "midpoint":
        return [(k + 0.5) / n for k in range(n)], [1.0 / n] * n
    x, w = np.polynomial.legendre.leggauss(n)
    return [float(v) for v in 0.5 * (x + 1)], [float(v) for v in 0.5 * w]


def max_abs(g: Tensor) -> Tensor:
    return g.abs().amax(1)


def smooth_sigma(case, dtype) -> Tensor:
    """Noise level per example: SPREAD * (max - min) of the input (real tokens only for text), [B]."""
    if case.vision:
        x = case.inputs["pixel_values"].to(dtype).flatten(1)
        return SPREAD * (x.amax(1) - x.amin(1))
    e = case.word_embeddings(dtype)
    return torch.stack([SPREAD * (e[b, :n].max() - e[b, :n].min()) for b, n in enumerate(case.lengths)])


def smooth_samples(case, emit: Emit) -> Tensor:
    """Gradients at the noisy inputs, [n, B, ...]."""
    base = case.inputs["pixel_values"].to(emit.dtype) if case.vision else case.word_embeddings(emit.dtype)
    eps = emit.normal("smoothgrad", (N_SMOOTH, *base.shape))
    sig = smooth_sigma(case, emit.dtype).reshape(-1, *[1] * (base.dim() - 1))
    return torch.stack([input_gradient(case, emit.dtype, base + sig * eps[i]) for i in range(N_SMOOTH)])


def ig_baselines(case, dtype) -> dict:
    if case.vision:
        x = case.inputs["pixel_values"].to(dtype)
        return {"black": black(case, dtype).expand_as(x), "zero": torch.zeros_like(x)}
    e = case.word_embeddings(dtype)
    table = case.net(dtype).get_input_embeddings().weight.detach()
    pad = table[case.processor.pad_token_id].expand_as(e)
    keep = (special_mask(case) | ~case.mask2d)[..., None]
    return {"zero": torch.zeros_like(e), "pad": torch.where(keep, e, pad)}


def integrated(case, dtype, base: Tensor, kind: str, n: int) -> tuple[Tensor, Tensor]:
    """(attribution, completeness gap per example)."""
    x = case.inputs["pixel_values"].to(dtype) if case.vision else case.word_embeddings(dtype)
    nodes, weights = quadrature(kind, n)
    acc = torch.zeros_like(x)
    for a, w in zip(nodes, weights):
        acc += w * input_gradient(case, dtype, base + a * (x - base))
    attr = (x - base) * acc
    name = "pixel_values" if case.vision else "inputs_embeds"
    with torch.no_grad():
        f = lambda t: case.picked(case.logits(dtype, **{name: t}))
        gap = attr.flatten(1).sum(1) - (f(x) - f(base))
    return attr, gap


def produce(case, emit: Emit) -> None:
    (vision if case.vision else text)(case, emit)


def vision(case, emit: Emit) -> None:
    x = case.inputs["pixel_values"].to(emit.dtype)
    g = input_gradient(case, emit.dtype, x)
    sal = "G = d logit[target] / d pixel_values, pixel_values being the normalised input"
    emit("method.gradient", g, meaning="signed gradient [B,3,H,W]", definition=sal, paper=P_SAL,
         big=True)
    emit("method.gradient.map", max_abs(g), meaning="saliency [B,H,W]", definition="max over channels of |G|",
         paper=P_SAL)
    emit("method.gradient.patch", patch_pool(case, max_abs(g), "mean"), meaning="saliency per patch [B,rows,cols]",
         definition="mean over the pixels of a patch of gradient.map", paper=P_SAL)
    gx = g * x
    emit("method.gradient-x-input", gx, meaning="signed [B,3,H,W]", definition="G * pixel_values (normalised)",
         paper=P_GXI, big=True)
    emit("method.gradient-x-input.map", gx.sum(1), meaning="signed [B,H,W]", definition="sum over channels",
         paper=P_GXI)
    emit("method.gradient-x-input.patch", patch_pool(case, gx.sum(1), "sum"), meaning="signed [B,rows,cols]",
         definition="sum over channels and over the pixels of a patch", paper=P_GXI)

    if not emit.compact:
        smoothgrad_vision(case, emit)
    ig_vision(case, emit)


def smoothgrad_vision(case, emit: Emit) -> None:
    s = smooth_samples(case, emit)
    par = {"n": N_SMOOTH, "spread": SPREAD, "noise": "noise.smoothgrad [n,B,3,H,W], standard normal"}
    sig = ("sigma_b = spread * (max - min over channels and pixels of pixel_values[b]); "
           "G_i = gradient at pixel_values + sigma * noise_i")
    for name, v, d in [("smoothgrad", s.mean(0), "mean_i G_i"), ("smoothgrad-squared", (s * s).mean(0), "mean_i G_i^2"),
                       ("vargrad", (s * s).mean(0) - s.mean(0) ** 2, "mean_i G_i^2 - (mean_i G_i)^2 (divisor n)")]:
        if name == "smoothgrad":
            emit("method.smoothgrad", v, params=par, meaning="signed [B,3,H,W]", definition=sig + "; " + d, paper=P_SG, big=True)
        emit(f"method.{name}.map", max_abs(v), params=par, meaning="[B,H,W]",
             definition=sig + "; " + d + "; max over channels of the absolute value", paper=P_SG)
        emit(f"method.{name}.patch", patch_pool(case, max_abs(v), "mean"), params=par, meaning="[B,rows,cols]",
             definition="mean over the pixels of a patch of the .map", paper=P_SG)


def ig_vision(case, emit: Emit) -> None:
    for bname, base in ig_baselines(case, emit.dtype).items():
        what = {"black": "black image, i.e. pixel value 0 before normalisation, (0-mean)/std after",
                "zero": "0 after normalisation, i.e. the mean colour of the processor"}[bname]
        for kind, n in QUADRATURES:
            if emit.compact and (kind, n) not in (("midpoint", 8), ("gauss-legendre", 32)):
                continue
            attr, gap = integrated(case, emit.dtype, base, kind, n)
            tag = f"method.integrated-gradients.{bname}.{kind}-{n}"
            par = {"baseline": what, "quadrature": kind, "steps": n}
            d = ("(x - x0) * sum_k w_k G(x0 + a_k (x - x0)); midpoint: a_k = (k-1/2)/n, w_k = 1/n; "
                 "gauss-legendre: n-point rule mapped to [0,1]")
            if (bname, kind, n) in (("zero", "midpoint", 8), ("black", "gauss-legendre", 32)):     # large
                emit(tag, attr, params=par, meaning="signed attribution [B,3,H,W]", definition=d, paper=P_IG,
                     big=True)
            emit(tag + ".map", attr.sum(1), params=par, meaning="signed [B,H,W]", definition="sum over channels",
                 paper=P_IG, big=True)
            emit(tag + ".patch", patch_pool(case, attr.sum(1), "sum"), params=par, meaning="signed [B,rows,cols]",
                 definition="sum over channels and the pixels of a patch", paper=P_IG)
            emit(tag + ".gap", gap, params=par, meaning="completeness gap [B]",
                 definition="sum of the attribution minus (logit[target](x) - logit[target](x0))", paper=P_IG,
                 atol=2e-5)


def text(case, emit: Emit) -> None:
    e = case.word_embeddings(emit.dtype)
    g = input_gradient(case, emit.dtype, e)
    sal = ("G = d logit[target] / d E, E = word-embedding rows (inputs_embeds), before position / type embeddings "
           "and the embedding LayerNorm; padded tokens have gradient 0")
    emit("method.gradient", g, meaning="signed gradient [B,T,D]", definition=sal, paper=P_SAL)
    emit("method.gradient.l2", g.norm(dim=-1), meaning="[B,T]", definition="L2 norm over D of G", paper=P_SAL)
    emit("method.gradient.l1", g.abs().sum(-1), meaning="[B,T]", definition="L1 norm over D of G", paper=P_SAL)
    emit("method.gradient-x-input", (g * e).sum(-1), meaning="signed [B,T]", definition="sum over D of G * E",
         paper=P_GXI)
    emit("method.gradient-x-input.l2", (g * e).norm(dim=-1), meaning="[B,T]", definition="L2 norm over D of G * E",
         paper=P_GXI)

    s = smooth_samples(case, emit)
    par = {"n": N_SMOOTH, "spread": SPREAD, "noise": "noise.smoothgrad [n,B,T,D], standard normal"}
    sig = "sigma_b = spread * (max - min of E over the real tokens of row b); G_i = gradient at E + sigma * noise_i"
    for name, v, d in [("smoothgrad", s.mean(0), "mean_i G_i"), ("smoothgrad-squared", (s * s).mean(0), "mean_i G_i^2"),
                       ("vargrad", (s * s).mean(0) - s.mean(0) ** 2, "mean_i G_i^2 - (mean_i G_i)^2 (divisor n)")]:
        emit(f"method.{name}", v, params=par, meaning="[B,T,D]", definition=sig + "; " + d, paper=P_SG)
        emit(f"method.{name}.l2", v.norm(dim=-1), params=par, meaning="[B,T]", definition="L2 norm over D", paper=P_SG)

    for bname, base in ig_baselines(case, emit.dtype).items():
        what = {"zero": "all-zero word embedding for every token, special tokens included",
                "pad": "word embedding of the padding token, except that the classification / separator tokens "
                       "keep their own embedding"}[bname]
        for kind, n in QUADRATURES:
            attr, gap = integrated(case, emit.dtype, base, kind, n)
            tag = f"method.integrated-gradients.{bname}.{kind}-{n}"
            par = {"baseline": what, "quadrature": kind, "steps": n}
            d = "sum over D of (E - E0) * sum_k w_k G(E0 + a_k (E - E0)); position and type embeddings are not varied"
            emit(tag, attr.sum(-1), params=par, meaning="signed [B,T]", definition=d, paper=P_IG)
            emit(tag + ".l2", attr.norm(dim=-1), params=par, meaning="[B,T]",
                 definition="L2 norm over D of the per-dimension attribution", paper=P_IG)
            emit(tag + ".gap", gap, params=par, meaning="completeness gap [B]",
                 definition="sum of the attribution minus (logit[target](E) - logit[target](E0))", paper=P_IG,
                 atol=2e-5)
