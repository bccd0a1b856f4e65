"""Changed inputs and what the model makes of them; pictures and patches."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from case import Case
from model import F64


def forward_row(case: Case, dtype, b: int, **over) -> Tensor:
    """Logits [N,C] of N perturbed versions of example b.

    Vision: pixel_values [N,3,H,W].  Text: any of input_ids / attention_mask / token_type_ids [N,T'];
    what is not given is row b of the case repeated.  RoBERTa position ids are the ones of the
    unperturbed row (they would otherwise change when a token is replaced by the padding token);
    pass `positions` to override them.
    """
    net = case.net(dtype)
    if case.vision:
        return net(pixel_values=over["pixel_values"].to(dtype), **case.call).logits
    n, t = next(iter(over.values())).shape[:2]
    kw = {}
    for k in ("input_ids", "attention_mask", "token_type_ids"):
        if k in over:
            kw[k] = over[k]
        elif k in case.inputs:
            kw[k] = case.inputs[k][b:b + 1].expand(n, -1)
    if "positions" in over:
        if case.model_type != "distilbert":
            kw["position_ids"] = over["positions"]
    elif case.model_type == "roberta":
        kw["position_ids"] = case.roberta_positions()[b:b + 1].expand(n, -1)
    return net(**kw).logits


def score_row(case: Case, dtype, b: int, **over) -> tuple[Tensor, Tensor]:
    """(target logit, target probability), each [N], for perturbed versions of example b."""
    with torch.no_grad():
        z = forward_row(case, dtype, b, **over)
    c = int(case.targets[b])
    return z[:, c], torch.softmax(z, -1)[:, c]


def input_gradient(case: Case, dtype, x: Tensor) -> Tensor:
    """Gradient of sum_b logit[b, target_b] w.r.t. pixel_values or inputs_embeds `x` (rows do not interact)."""
    x = x.detach().to(dtype).requires_grad_(True)
    name = "pixel_values" if case.vision else "inputs_embeds"
    out = case.picked(case.logits(dtype, **{name: x})).sum()
    return torch.autograd.grad(out, x)[0]


def special_mask(case: Case) -> Tensor:
    """[B,T] bool: classification / separator tokens (padding is not counted here)."""
    tok = case.processor
    ids = case.inputs["input_ids"]
    sp = torch.zeros_like(ids, dtype=torch.bool)
    for s in {tok.cls_token_id, tok.sep_token_id}:
        sp |= ids.eq(s)
    return sp & case.mask2d


def delete_tokens(case: Case, b: int, drop: list) -> dict:
    """Unpadded row b without the tokens in `drop`, as keyword arguments of a one-row forward pass."""
    n = case.lengths[b]
    keep = [i for i in range(n) if i not in set(drop)]
    kw = {k: case.inputs[k][b:b + 1, keep] for k in ("input_ids", "attention_mask", "token_type_ids") if k in case.inputs}
    start = case.model.config.pad_token_id + 1 if case.model_type == "roberta" else 0
    kw["positions"] = torch.arange(start, start + len(keep))[None]
    return kw


# --------------------------------------------------------------------------- image helpers
def patch_pool(case: Case, m: Tensor, how: str) -> Tensor:
    """[B,H,W] -> [B,rows,cols]: sum or mean of each patch (rows/cols left over at the border are dropped)."""
    p, (r, c) = case.patch, case.grid
    t = m[..., :r * p, :c * p].reshape(*m.shape[:-2], r, p, c, p)
    return t.sum((-3, -1)) if how == "sum" else t.mean((-3, -1))


def upsample(m: Tensor, size: tuple) -> Tensor:
    """[...,h,w] -> [...,H,W], bilinear with half-pixel centres and edge clamping (align_corners=False)."""
    lead = m.shape[:-2]
    t = F.interpolate(m.reshape(-1, 1, *m.shape[-2:]), size=size, mode="bilinear", align_corners=False)
    return t.reshape(*lead, *size)


def normalisation(case: Case) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation of the image processor, each [3,1,1] (float64)."""
    t = lambda v: torch.tensor(v, dtype=F64)[:, None, None]
    return t(case.processor.image_mean), t(case.processor.image_std)


def black(case: Case, dtype) -> Tensor:
    """A black image after normalisation, [3,1,1]: (0 - mean) / std."""
    mean, std = normalisation(case)
    return (-mean / std).to(dtype)
