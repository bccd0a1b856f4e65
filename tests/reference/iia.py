"""IIA2 for vision transformers: integrated over the input and, at every point, over the last attention map."""
from __future__ import annotations

import torch
from torch import Tensor

from emit import Emit, Tolerance
from model import Recorder, recording

TOLERANCE = Tolerance(1e-6, 5e-5, 20)

PAPER = "Barkan et al. 2023 (ICCV), Iterated Integrated Attributions; details from the authors' ViT code"
STEPS = 5


def averaged(case, dtype, steps: int) -> list:
    """Per layer the mean over both interpolations of max(0, A * dlogit/dA), [B,heads,T,T]."""
    L = len(case.layers(dtype))
    x = case.inputs["pixel_values"].to(dtype)
    total = [0] * L
    for k in range(steps + 1):
        for m in range(steps + 1):
            rec = Recorder(edit_probs=lambda l, p: (p.detach() * (m / steps)).requires_grad_(True) if l == L - 1 else p)
            with recording(rec):
                out = case.picked(case.logits(dtype, pixel_values=x * (k / steps))).sum()
            A = [rec.probs[l] for l in range(L)]
            for l, (a, g) in enumerate(zip(A, torch.autograd.grad(out, A))):
                total[l] = total[l] + (a * g).detach().clamp(min=0)
    return [t / (steps + 1) ** 2 for t in total]


def rollout_row(case, maps: list) -> Tensor:
    """[B,T,T] per layer -> row 0 of the product of row-normalised (M + I)."""
    out = None
    for M in maps:
        M = M + torch.eye(M.shape[-1], dtype=M.dtype)
        M = M / M.sum(-1, keepdim=True)
        out = M if out is None else M @ out
    return case.read(out)


def produce(case, emit: Emit) -> None:
    if not case.vision:
        return
    maps = [m.mean(1) for m in averaged(case, emit.dtype, STEPS)]
    emit("iia2", case.map(rollout_row(case, maps)), method="iia2", meaning="[B,rows,cols], prefix tokens dropped", paper=PAPER,
         params={"steps": STEPS},
         definition=f"for k, m = 0..{STEPS}: image pixel_values * k/{STEPS}, the last block uses m/{STEPS} times its own attention "
         "map, held constant; C_l = mean over heads and over all (k, m) of max(0, A_h^l * d logit[target]/dA_h^l), A^(L-1) being "
         "the scaled map; row 0 of prod_(l=L-1..0) rownorm(C_l + I)")
