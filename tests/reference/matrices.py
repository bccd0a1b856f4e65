"""Relevance as matrices: what the methods that chain attention-like matrices share.

Every method here is a function of one example restricted to its real (unpadded) tokens, so padding can never change a result.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from case import Case
from emit import Emit


@dataclass
class Ex:
    """Example b of a case, real tokens only.

    A[l], G[l]: [heads, n, n] attention and d logit[target] / d attention, l = 0..L-1
    X[l], XG[l]: [n, D] hidden states and their gradients, l = 0..L (X[l] enters block l)
    read: [n] weights of the output rows that are explained: the class token's, or what the head's mean reads
    """
    A: list
    G: list
    X: list
    XG: list
    layers: list
    n: int
    n_prefix: int
    read: Tensor

    @property
    def L(self) -> int:
        return len(self.A)


def example(case: Case, b: int, dtype) -> Ex:
    tr, n = case.trace(dtype), case.lengths[b]
    return Ex([a[b, :, :n, :n] for a in tr.attn], [g[b, :, :n, :n] for g in tr.attn_grad],
              [h[b, :n] for h in tr.hidden], [h[b, :n] for h in tr.hidden_grad],
              case.layers(dtype), n, case.n_prefix, case.readout(n, dtype))


# --------------------------------------------------------------------------- building blocks
def eye(n: int, like: Tensor) -> Tensor:
    return torch.eye(n, dtype=like.dtype)


def row_norm(M: Tensor) -> Tensor:
    """Divide every row by its sum; an all-zero row stays zero."""
    s = M.sum(-1, keepdim=True)
    return torch.where(s == 0, torch.zeros_like(M), M / torch.where(s == 0, torch.ones_like(s), s))


def fuse(ex: Ex, l: int, how: str) -> Tensor:
    """Collapse the heads of layer l to one [n, n] matrix."""
    A, G = ex.A[l], ex.G[l]
    if how == "mean":
        return A.mean(0)
    if how == "max":
        return A.amax(0)
    if how == "min":
        return A.amin(0)
    if how == "grad":           # negative products removed head by head, then averaged
        return (A * G).clamp(min=0).mean(0)
    if how == "grad-post":      # averaged over heads first, then negative entries removed
        return (A * G).mean(0).clamp(min=0)
    raise ValueError(how)


def chain(mats: list) -> Tensor:
    """M_last @ ... @ M_first (the first list entry is the lowest layer)."""
    R = mats[0]
    for M in mats[1:]:
        R = M @ R
    return R


def residual_norm(E: Tensor) -> Tensor:
    """Add the skip connection and make rows sum to one: rownorm(E + I) = rownorm((E + I)/2)."""
    return row_norm(E + eye(E.shape[-1], E))


# --------------------------------------------------------------------------- catalogue
@dataclass
class Spec:
    key: str
    kind: str                         # row | matrix | layers
    fn: Callable[[Ex], Tensor]        # row: [n]   matrix: [n,n]   layers: [L,n,n]
    params: dict
    definition: str


class Catalogue:
    """Collects the arrays of a module: `pair` is a row and its whole matrix."""

    def __init__(self, case: Case):
        self.case, self.specs = case, []

    def row(self, key: str, fn: Callable, params: dict, definition: str, row: int = 0) -> None:
        """fn gives the matrix, of which the explained row is taken, or that row itself."""
        def take(ex):
            r = fn(ex)
            if r.dim() == 1:
                return r
            return ex.read @ r if self.case.mean_pooled else r[row]
        self.specs.append(Spec(key, "row", take, params, definition))

    def layers(self, key: str, fn: Callable, params: dict, definition: str) -> None:
        self.specs.append(Spec(key, "layers", fn, params, definition))

    def pair(self, key: str, fn: Callable, params: dict, definition: str) -> None:
        self.row(key, fn, params, definition + " Row 0.")
        self.specs.append(Spec(key + ".matrix", "matrix", fn, params, definition + " Full matrix."))

    def emit(self, emit: Emit, papers: dict) -> None:
        examples = [example(self.case, b, emit.dtype) for b in range(self.case.B)]
        for spec in self.specs:
            if emit.only and spec.key not in emit.only:
                continue
            with torch.no_grad():
                values = [spec.fn(ex) for ex in examples]
            emit(spec.key, stack(self.case, spec.kind, values), params=spec.params, meaning=meaning(self.case, spec.kind),
                 definition=spec.definition, paper=papers[spec.key.split(".")[0]])


def stack(case: Case, kind: str, values: list) -> Tensor:
    """Pad per-example results with zeros and stack."""
    out = []
    for v in values:
        n = v.shape[-1]
        full = torch.zeros(*(s if s != n or kind == "layers" and i == 0 else case.T for i, s in enumerate(v.shape)), dtype=v.dtype)
        full[(slice(None),) * (kind == "layers") + (slice(0, n),) * (v.dim() - (kind == "layers"))] = v
        out.append(full)
    r = torch.stack(out)
    return case.map(r) if kind == "row" else r


def meaning(case: Case, kind: str) -> str:
    if kind == "row":
        return "[batch, patch row, patch column]" if case.vision else "[batch, token]"
    return {"matrix": "[batch, output token i, input token j]", "layers": "[batch, layer, output token i, input token j]"}[kind]
