"""TokenTM: attention scaled by how much every sub-block changes a token, rolled out (images only)."""
from __future__ import annotations

import torch
from torch import Tensor

from emit import Emit, Tolerance
from walk import LIBRA, PLAIN, Walk

TOLERANCE = Tolerance(1e-6, 5e-5, 20)
PAPER = ("Wu et al. 2024 (CVPR), TokenTM, in the form implemented by the authors of LibraGrad (2025); the TokenTM authors' own "
         "code was not available")


def change(before: Tensor, after: Tensor) -> Tensor:
    """[n,D] x2 -> [n]: length ratio times the softmax over tokens of the cosine similarity."""
    lb, la = before.norm(dim=-1), after.norm(dim=-1)
    cos = (before * after).sum(-1) / (lb * la).clamp(min=1e-8)
    return la / (lb + 1e-8) * torch.softmax(cos, -1)


def tokentm(case, w: Walk) -> Tensor:
    def one(b, n):
        C = torch.diag(w.hidden[0][b, :n].norm(dim=-1))
        eye = torch.eye(n, dtype=w.dtype)
        for l in range(len(w.lays)):
            x, a, y = w.hidden[l][b, :n], w.mid[l][b, :n], w.hidden[l + 1][b, :n]
            A = w.probs[l][b, :, :n, :n].mean(0)
            G = w.probs_grad[l][b, :, :n, :n].clamp(min=0).mean(0)
            U = (eye + torch.diag(change(a, y))) @ (eye + (A * change(x, a)[None, :]) * G)
            C = U @ C
        return case.read(C)

    return case.per_example(one)


TTM = ("C = diag(|x^0_i|_2); per block, with x = hidden.{l}, a = state after the attention addition, y = hidden.{l+1}, A = mean "
       "over heads, G = mean over heads of max(0, d logit[target]/dA_h): s(u,v)_i = |v_i| / (|u_i| + 1e-8) * softmax over "
       "tokens i of cos(u_i, v_i); C <- (I + diag s(a,y)) (I + (A diag s(x,a)) * G) C; row 0 of C")


def produce(case, emit: Emit) -> None:
    if not case.vision:
        return
    for tag, rules, how in (("tokentm", PLAIN, "true gradient"), ("libra.tokentm", LIBRA, "Libra gradient")):
        emit(tag, case.map(tokentm(case, Walk(case, emit.dtype, rules))), method=tag,
             meaning="[B,rows,cols], prefix tokens dropped", paper=PAPER, definition=how + "; " + TTM,
             params={"backward": "libra" if rules is LIBRA else "gradient"})
