"""LeGrad: gradient of a per-layer class score with respect to that layer's attention map."""
from __future__ import annotations

import torch
from torch import Tensor

from emit import Emit, Tolerance
from model import Recorder, recording

TOLERANCE = Tolerance(1e-6, 2e-5, 10)

PAPER = "Bousselham et al. 2024, LeGrad: an explainability method for ViTs via feature formation sensitivity"


def mean_pool_head(case, dtype, hidden: Tensor) -> Tensor:
    """Classifier on the final norm of the mean over ALL tokens (the pooling of the authors' CLIP code)."""
    net = case.net(dtype)
    return net.classifier(net.vit.layernorm(hidden.mean(1)))


def per_layer(case, dtype, head) -> list[Tensor]:
    """E_l [B,T]: mean over heads and real queries of max(0, d score_l / d A_l)."""
    states = {}
    hooks = [lay.module.register_forward_hook(
        lambda m, a, o, l=lay.index: states.__setitem__(l, o[0] if isinstance(o, tuple) else o)) for lay in case.layers(dtype)]
    try:
        with recording(Recorder()) as rec:
            case.logits(dtype)
    finally:
        for h in hooks:
            h.remove()
    out = []
    q = case.mask2d.to(dtype)
    for l in range(len(states)):
        score = case.picked(head(states[l])).sum()
        g = torch.autograd.grad(score, rec.probs[l], retain_graph=True)[0].clamp(min=0).mean(1)
        out.append((g * q[:, :, None]).sum(1) / q.sum(1, keepdim=True) * q)      # padded keys: 0
    return out


def produce(case, emit: Emit) -> None:
    L = len(case.layers())
    heads = {"": (lambda h: case.head(h, emit.dtype), "the model's own head (final norm, pooling, classifier)")}
    if case.model_type == "vit":
        heads[".mean-pool"] = (lambda h: mean_pool_head(case, emit.dtype, h),
                               "classifier(final norm(mean over all tokens of the block output))")
    for tag, (head, what) in heads.items():
        E = per_layer(case, emit.dtype, head)
        d = (f"score_l = logit[target] of {what} applied to the output of block l; E_l[j] = mean over heads and over the "
             "real query tokens (classification token included) of max(0, d score_l / d A_l[query, j])")
        shape = "[B,rows,cols], prefix keys dropped" if case.vision else "[B,T]"
        if not tag:
            emit("method.legrad.layers", torch.stack(E, 1), meaning="E_l, [B,layers,T]", definition=d, paper=PAPER)
        for s, start in (("", 0), (".last2", L - 2)):
            emit(f"method.legrad{tag}{s}", case.map(torch.stack(E[start:]).mean(0)), meaning=shape, method="legrad",
                 params={"first_layer": start}, definition=d + f"; mean over layers {start}..{L - 1}; no min-max "
                 "normalisation", paper=PAPER)
