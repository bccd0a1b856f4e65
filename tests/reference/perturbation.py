"""Perturbation methods: occlusion, RISE, leave-one-out."""
from __future__ import annotations

import torch
from torch import Tensor

from emit import Emit, Tolerance
from inputs import delete_tokens, patch_pool, score_row, upsample

TOLERANCE = Tolerance(1e-6, 2e-5, 10)

P_OCC = "Zeiler & Fergus 2014, Visualizing and understanding convolutional networks"
P_RISE = "Petsiuk, Das & Saenko 2018, RISE"
P_LOO = "Li, Monroe & Jurafsky 2016, Understanding neural networks through representation erasure"
N_RISE, CELLS, KEEP = 16, 3, 0.5


def occlusion(case, dtype, window: int, base: Tensor) -> tuple[Tensor, Tensor]:
    """(logit drop, probability drop) per patch [B,rows,cols].

    A window of `window` x `window` patches moves one patch at a time over all positions where it fits;
    a patch gets the mean drop of the windows that cover it.  base: [B,3,1,1].
    """
    x = case.inputs["pixel_values"].to(dtype)
    p, (R, C) = case.patch, case.grid
    spots = [(i, j) for i in range(R - window + 1) for j in range(C - window + 1)]
    out = torch.zeros(2, case.B, R, C, dtype=dtype)
    hits = torch.zeros(R, C, dtype=dtype)
    for i, j in spots:
        hits[i:i + window, j:j + window] += 1
    for b in range(case.B):
        imgs = x[b].repeat(len(spots), 1, 1, 1)
        for k, (i, j) in enumerate(spots):
            imgs[k, :, i * p:(i + window) * p, j * p:(j + window) * p] = base[b]
        full, part = score_row(case, dtype, b, pixel_values=x[b][None]), score_row(case, dtype, b, pixel_values=imgs)
        for t in range(2):
            for k, (i, j) in enumerate(spots):
                out[t, b, i:i + window, j:j + window] += full[t][0] - part[t][k]
    return out[0] / hits, out[1] / hits


def rise_masks(case, emit: Emit) -> Tensor:
    """Final masks [N,H,W] in [0,1] built from injected binary grids and shifts."""
    H, W = case.inputs["pixel_values"].shape[-2:]
    grid = emit.noise("rise-grid", lambda g: (torch.rand(N_RISE, CELLS, CELLS, generator=g) < KEEP).float())
    ch, cw = -(-H // CELLS), -(-W // CELLS)
    shift = emit.noise("rise-shift", lambda g: torch.stack(
        [torch.randint(0, ch, (N_RISE,), generator=g), torch.randint(0, cw, (N_RISE,), generator=g)], 1).float()).long()
    big = upsample(grid, ((CELLS + 1) * ch, (CELLS + 1) * cw))
    return torch.stack([m[a:a + H, b:b + W] for m, (a, b) in zip(big, shift.tolist())])


def produce(case, emit: Emit) -> None:
    (vision if case.vision else text)(case, emit)


def vision(case, emit: Emit) -> None:
    dtype = emit.dtype
    x = case.inputs["pixel_values"].to(dtype)
    bases = {"": (x.mean((2, 3), keepdim=True), "mean colour of this image (per channel, normalised space)"),
             ".zero": (torch.zeros(case.B, 3, 1, 1, dtype=dtype), "0 after normalisation (mean colour of the processor)")}
    for btag, (base, what) in bases.items():
        for w in (1, 2):
            lo, pr = occlusion(case, dtype, w, base)
            par = {"window": w, "stride": 1, "baseline": what}
            d = (f"the window covers {w}x{w} patches and moves by one patch; drop = score(x) - score(x with the window set "
                 f"to the baseline: {what}); per patch the mean over all windows covering it; score = ")
            tag = f"method.occlusion{btag}" + (f".window{w}" if w > 1 else "")
            emit(tag, lo, method="occlusion", params=par, meaning="logit drop [B,rows,cols]", definition=d + "target logit", paper=P_OCC)
            emit(tag + ".prob", pr, method="occlusion", params=par, meaning="probability drop [B,rows,cols]",
                 definition=d + "softmax probability of the target", paper=P_OCC)
    M = rise_masks(case, emit)
    par = {"n": N_RISE, "cells": CELLS, "keep_probability": KEEP, "grids": "noise.rise-grid [N,cells,cells] in {0,1}",
           "shifts": "noise.rise-shift [N,2] = (row, column) offset in pixels"}
    d = ("cell = ceil(H/cells) x ceil(W/cells); grid resized bilinearly (half-pixel centres, edges clamped) to (cells+1)*cell; "
         "H x W crop at the shift")
    emit("method.rise.masks", M, params=par, meaning="[N,H,W], shared by all examples", definition=d, paper=P_RISE, big=True)
    pr = torch.stack([score_row(case, dtype, b, pixel_values=x[b] * M[:, None])[1] for b in range(case.B)])
    emit("method.rise.scores", pr, params=par, meaning="softmax probability of the target [B,N]",
         definition="score of pixel_values * mask (normalised space, so masked pixels fade to the mean colour)", paper=P_RISE)
    m = torch.einsum("bn,nhw->bhw", pr, M) / (N_RISE * KEEP)
    emit("method.rise", m, params=par, meaning="[B,H,W]", definition="sum_n score_n mask_n / (N * keep_probability)", paper=P_RISE)
    emit("method.rise.patch", patch_pool(case, m, "mean"), params=par, meaning="[B,rows,cols]",
         definition="mean over the pixels of a patch of rise", paper=P_RISE)


def text(case, emit: Emit) -> None:
    dtype, tok = emit.dtype, case.processor
    ids, am = case.inputs["input_ids"], case.inputs["attention_mask"]

    def variants(b):
        n = case.lengths[b]
        rep = lambda t: t[b:b + 1].repeat(n, 1)
        idx = torch.arange(n)
        m, p, a = rep(ids), rep(ids), rep(am)
        m[idx, idx], p[idx, idx], a[idx, idx] = tok.mask_token_id, tok.pad_token_id, 0
        return {"mask": {"input_ids": m}, "pad": {"input_ids": p}, "attention": {"attention_mask": a}}

    what = {"mask": "token j replaced by the mask token", "pad": "token j replaced by the padding token, still attended to, "
            "position ids unchanged", "attention": "attention_mask[j] = 0, everything else (positions included) unchanged"}
    for v, d in what.items():
        lo, pr = torch.zeros(case.B, case.T, dtype=dtype), torch.zeros(case.B, case.T, dtype=dtype)
        for b, n in enumerate(case.lengths):
            full, part = score_row(case, dtype, b, attention_mask=am[b:b + 1]), score_row(case, dtype, b, **variants(b)[v])
            lo[b, :n], pr[b, :n] = full[0] - part[0], full[1] - part[1]
        d = d + "; score(original) - score(changed), for every real token, special tokens included; padding 0"
        emit(f"method.leave-one-out.{v}", lo, params={"replace": v}, meaning="target logit drop [B,T]", definition=d, paper=P_LOO)
        emit(f"method.leave-one-out.{v}.prob", pr, params={"replace": v}, meaning="target probability drop [B,T]", definition=d, paper=P_LOO)
    lo, pr = torch.zeros(case.B, case.T, dtype=dtype), torch.zeros(case.B, case.T, dtype=dtype)
    sp = {tok.cls_token_id, tok.sep_token_id}
    for b, n in enumerate(case.lengths):
        full = score_row(case, dtype, b, attention_mask=am[b:b + 1])
        for j in range(n):
            if int(ids[b, j]) in sp:
                continue
            part = score_row(case, dtype, b, **delete_tokens(case, b, [j]))
            lo[b, j], pr[b, j] = (full[t][0] - part[t][0] for t in range(2))
    d = ("token j cut out, the sequence gets one shorter and later tokens move up one position (token types move with their "
         "token); classification and separator tokens are not tried and get 0")
    emit("method.leave-one-out.delete", lo, params={"replace": "delete"}, meaning="target logit drop [B,T]", definition=d, paper=P_LOO)
    emit("method.leave-one-out.delete.prob", pr, params={"replace": "delete"}, meaning="target probability drop [B,T]", definition=d, paper=P_LOO)
