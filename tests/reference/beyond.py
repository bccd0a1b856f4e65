"""Beyond Intuition: integrated gradients of the last attention map, times how far attention perceives."""
from __future__ import annotations

import torch
from torch import Tensor

from emit import Emit, Tolerance
from model import Recorder, recording

TOLERANCE = Tolerance(1e-6, 5e-5, 20)
PAPER = "Chen et al. 2023 (ICML), Beyond Intuition"
STEPS = 20


def feedback(case, dtype, steps: int) -> Tensor:
    """[B,T,T]: mean over heads of max(0, average over k of d logit / d A^{L-1} at input * k/(steps-1))."""
    total = 0
    for k in range(steps):
        total = total + last_attention_grad(case, dtype, k / (steps - 1))
    return (total / steps).clamp(min=0).mean(1)


def last_attention_grad(case, dtype, alpha: float) -> Tensor:
    """Gradient at the last attention map for the scaled input: pixels for vision, hidden.0 for text."""
    rec = Recorder()
    with recording(rec):
        if case.vision:
            out = case.logits(dtype, pixel_values=case.inputs["pixel_values"].to(dtype) * alpha)
        else:
            out = case.run_from(0, (case.trace(dtype).hidden[0] * alpha).requires_grad_(True), dtype)
    last = len(case.layers(dtype)) - 1
    return torch.autograd.grad(case.picked(out).sum(), rec.probs[last])[0].detach()


def perception(case, dtype, kind: str, start: int) -> list:
    """R [n,n] per example: R <- R + M R with M = sum_h I_h A_h (head) or mean_h A_h diag(rho) (token)."""
    tr, lays, out = case.trace(dtype), case.layers(dtype), []
    for b, n in enumerate(case.lengths):
        R = torch.eye(n, dtype=dtype)
        for l in range(start, len(lays)):
            A = tr.attn[l][b, :, :n, :n]
            if kind == "head":
                G = tr.attn_grad[l][b, :, :n, :n]
                imp = (A.transpose(-1, -2) @ G).abs().mean((-1, -2))
                M = torch.einsum("h,hij->ij", imp / imp.sum(), A)
            else:
                v = tr.value[l][b, :, :n]                                   # [heads,n,head_dim], bias included
                flat = v.transpose(0, 1).reshape(n, -1)
                sent = flat @ lays[l].o.weight.T
                if lays[l].scale1 is not None:
                    sent = sent * lays[l].scale1
                rho = sent.norm(dim=-1) / tr.hidden[l][b, :n].norm(dim=-1)
                M = A.mean(0) * rho[None, :]
            R = R + M @ R
        out.append(R.detach())
    return out


def beyond(case, dtype, kind: str, start: int, W: Tensor, read: str = "class") -> Tensor:
    Rs = perception(case, dtype, kind, start)

    def one(b, n):
        R = W[b, :n, :n] * (Rs[b] if kind == "head" else Rs[b].abs())
        if read == "class":
            return case.read(R)
        return R[0] + R[case.n_prefix:].mean(0)

    return case.per_example(one)


BI = {
    "head": "M_l = sum_h I_h A_h with I_h = mean over i,j of |A_h^T G_h|, divided by sum_h I_h, G_h = d logit[target]/dA_h",
    "token": "M_l = (mean_h A_h) diag(rho), rho_j = |s * W_O v_j|_2 / |x^l_j|_2, v_j = value vectors of all heads concatenated "
             "(value bias included, output bias not), s = layer scale of the attention branch (1 if none), x^l = hidden.{l}",
}


def produce(case, emit: Emit) -> None:
    dtype = emit.dtype
    L = len(case.layers(dtype))
    shape = "[B,rows,cols], prefix tokens dropped" if case.vision else "[B,T]"
    W = feedback(case, dtype, STEPS)
    what = "pixel_values * alpha" if case.vision else "hidden.0 * alpha"
    fb = (f"W = mean_h max(0, (1/{STEPS}) sum_k d logit[target]/dA_h^(L-1) at {what}, alpha = k/{STEPS - 1}, k = "
          f"0..{STEPS - 1}); ")
    for kind in ("head", "token"):
        for tag, start in (("", 0), (".start1", 1), (".last", L - 1)):
            emit(f"beyond-intuition.{kind}{tag}", case.map(beyond(case, dtype, kind, start, W)), method="beyond-intuition",
                 meaning=shape, paper=PAPER, params={"kind": kind, "start_layer": start, "steps": STEPS},
                 definition=fb + f"R = I, then R <- R + M_l R for l = {start}..{L - 1}, {BI[kind]}; row 0 of W * "
                 + ("R" if kind == "head" else "|R|") + " (elementwise)")
        if case.patch_mean:
            emit(f"beyond-intuition.{kind}.class-and-patches", case.map(beyond(case, dtype, kind, 0, W, "both")),
                 method="beyond-intuition", meaning=shape, paper=PAPER,
                 params={"kind": kind, "start_layer": 0, "steps": STEPS, "rows": "class + mean of patches"},
                 definition=f"as beyond-intuition.{kind}, read as row 0 plus the mean of the patch rows (for heads that see the "
                 "class token and the mean patch token)")
