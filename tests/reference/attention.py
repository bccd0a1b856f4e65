"""Explanations read from attention weights and their gradients: raw, rollout, flow, GAE, CAMs on attention, AttCAT, the grid."""
from __future__ import annotations

import networkx as nx
import torch
from torch import Tensor

from emit import Emit, Tolerance
from matrices import Catalogue, Ex, chain, eye, fuse, residual_norm
from model import F64

TOLERANCE = Tolerance(1e-9, 5e-5, 20)

PAPERS = {
    "attention": "raw attention weights (Bahdanau et al. 2015; Vaswani et al. 2017)",
    "rollout": "Abnar & Zuidema, ACL 2020, 'Quantifying Attention Flow in Transformers'",
    "flow": "Abnar & Zuidema, ACL 2020, 'Quantifying Attention Flow in Transformers'",
    "gae": "Chefer, Gur & Wolf, ICCV 2021, 'Generic Attention-model Explainability', rules 5 and 6",
    "grad-rollout": "gradient-weighted rollout (attention rollout with Chefer-style gradient weights), as in jacobgil/vit-explain",
    "attention-gradcam": "GradCAM-on-attention baseline of Chefer, Gur & Wolf, CVPR 2021",
    "grad-attention": "gradient x attention (baseline in Chefer et al. 2021)",
    "attcat": "Qiang et al., NeurIPS 2022, 'AttCAT'",
    "aggregate": "grid over head and layer aggregation treated as hyper-parameters",
}


def literal_norm(E: Tensor) -> Tensor:
    """(E + I)/2 divided by a rank-1-lower row-sum vector, i.e. column j is divided by the sum of ROW j."""
    a = (E + eye(E.shape[-1], E)) / 2
    return a / a.sum(-1)[None, :]


GAPS: list = []   # smallest relative distance seen at a discard threshold (must not be ~0)


def discard(E: Tensor, ratio: float, keep_first: bool) -> Tensor:
    """Zero the int(n*n*ratio) smallest entries of the flattened matrix.

    With keep_first the flat position 0, i.e. entry (0, 0), survives even when selected (it still
    uses up one of the selected places).
    """
    flat = E.reshape(-1).clone()
    k = int(flat.numel() * ratio)
    order = torch.argsort(flat, stable=True)
    if 0 < k < flat.numel():
        lo, hi = float(flat[order[k - 1]]), float(flat[order[k]])
        if hi > 0:
            GAPS.append((hi - lo) / hi)
    drop = order[:k]
    if keep_first:
        drop = drop[drop != 0]
    flat[drop] = 0
    return flat.reshape(E.shape)


# --------------------------------------------------------------------------- rollout family
def rollout(ex: Ex, how="mean", start=0, residual=True, ratio=0.0, literal=False) -> Tensor:
    mats = []
    for l in range(start, ex.L):
        E = fuse(ex, l, how)
        if ratio:
            E = discard(E, ratio, keep_first=not how.startswith("grad"))
        mats.append((literal_norm(E) if literal else residual_norm(E)) if residual else E)
    return chain(mats)


def gae(ex: Ex, start=0, how="grad") -> Tensor:
    R = eye(ex.n, ex.A[0])
    for l in range(start, ex.L):
        R = R + fuse(ex, l, how) @ R
    return R


def aggregate(ex: Ex, how: str, over: str, start: int) -> Tensor:
    if over == "last":
        return fuse(ex, ex.L - 1, how)
    if over == "mean":
        return torch.stack([fuse(ex, l, how) for l in range(start, ex.L)]).mean(0)
    if over == "rollout":
        return rollout(ex, how, start)
    if over == "gae":
        return gae(ex, start, how)
    raise ValueError(over)


def flow(ex: Ex) -> Tensor:
    """Maximum flow from the explained output tokens, each a problem of its own, to every input token, [n]."""
    n, g = ex.n, nx.DiGraph()
    for l in range(ex.L):
        cap = residual_norm(fuse(ex, l, "mean")).double().numpy()
        for i in range(n):
            for j in range(n):
                g.add_edge((l + 1, i), (l, j), capacity=float(cap[i, j]))
    val = torch.zeros(n, dtype=F64)
    for i, weight in enumerate(ex.read.tolist()):
        if weight:
            val += weight * torch.tensor([nx.maximum_flow_value(g, (ex.L, i), (0, j), flow_func=nx.algorithms.flow.edmonds_karp)
                                          for j in range(n)], dtype=F64)
    return val


# --------------------------------------------------------------------------- gradient x attention
def attention_gradcam(ex: Ex, weights: str, vision: bool, clamp: bool = True) -> Tensor:
    A, G = ex.A[-1], ex.G[-1]
    if weights == "row":
        w = (ex.read @ G)[:, ex.n_prefix if vision else 0:].mean(-1)
    else:
        w = G.mean((1, 2))
    r = ((ex.read @ A) * w[:, None]).mean(0)
    return r.clamp(min=0) if clamp else r


def attcat(ex: Ex, shift: int) -> Tensor:
    """shift 0: state entering the block; shift 1: state leaving it."""
    out = 0
    for l in range(ex.L):
        cat = (ex.X[l + shift] * ex.XG[l + shift]).sum(-1)
        out = out + cat * ex.A[l].mean(0).mean(0)
    return out


# --------------------------------------------------------------------------- catalogue
def produce(case, emit: Emit) -> None:
    GAPS.clear()
    catalogue(case).emit(emit, PAPERS)
    if emit.dtype == F64:
        case.info["min_discard_gap"] = min(GAPS, default=None)
        assert not GAPS or min(GAPS) > 3e-5, ("discard threshold too close to a tie", case.name, min(GAPS))


def catalogue(case) -> Catalogue:
    vision, last, c = case.vision, len(case.layers()) - 1, Catalogue(case)

    # 1 raw attention
    c.pair("attention", lambda e: fuse(e, last, "mean"), {"layer": "last", "heads": "mean"},
         r"A = \frac1H\sum_h A^{(L-1)}_h.")
    c.row("attention.head0", lambda e: e.A[last][0], {"layer": "last", "heads": "index 0"},
        r"A^{(L-1)}_{h=0}, row 0.")
    c.row("attention.layer0", lambda e: fuse(e, 0, "mean"), {"layer": 0, "heads": "mean"},
        r"\frac1H\sum_h A^{(0)}_h, row 0.")
    c.row("attention.max", lambda e: fuse(e, last, "max"), {"layer": "last", "heads": "max"},
        r"\max_h A^{(L-1)}_h elementwise, row 0.")
    c.row("attention.min", lambda e: fuse(e, last, "min"), {"layer": "last", "heads": "min"},
        r"\min_h A^{(L-1)}_h elementwise, row 0.")

    # 2 rollout
    base = r"R = \hat A^{(L-1)}\cdots\hat A^{(s)}, \hat A = rownorm(E_h A + I)"
    c.pair("rollout", lambda e: rollout(e), {"heads": "mean", "start_layer": 0}, base + ", E_h = mean, s = 0.")
    for how in ("max", "min"):
        c.row(f"rollout.{how}", lambda e, how=how: rollout(e, how), {"heads": how, "start_layer": 0},
            base + f", E_h = {how}, s = 0. Row 0.")
    c.row("rollout.start1", lambda e: rollout(e, start=1), {"heads": "mean", "start_layer": 1},
        base + ", E_h = mean, s = 1 (layer 0 skipped). Row 0.")
    c.row("rollout.no-residual", lambda e: rollout(e, residual=False),
        {"heads": "mean", "start_layer": 0, "residual": False}, r"R = E_hA^{(L-1)}\cdots E_hA^{(0)}, E_h = mean. Row 0.")
    c.row("rollout.discard", lambda e: rollout(e, ratio=0.5),
        {"heads": "mean", "start_layer": 0, "discard_ratio": 0.5},
        "Per layer, the int(n*n*0.5) smallest entries of the flattened head-mean matrix are set to 0, except that "
        "entry (0,0) is never zeroed (it still counts); then " + base + ". Row 0.")
    c.row("rollout.discard-literal", lambda e: rollout(e, ratio=0.5, literal=True),
        {"heads": "mean", "start_layer": 0, "discard_ratio": 0.5, "normalisation": "literal"},
        "As rollout.discard but a = (E+I)/2 is divided as a[i,j] / sum_k a[j,k] (the broadcast of the original "
        "script for batch size 1). Row 0.")

    # 3 flow
    c.row("flow", lambda e: flow(e), {"heads": "mean", "residual": True},
        "Layered graph with nodes (l,i), l = 0..L; edge (l+1,i)->(l,j) has capacity rownorm(mean_h A^{(l)} + I)[i,j]. " +
        ("Value j = mean over the real tokens i of the maximum flow from (L,i) to (0,j), each pair solved separately."
         if case.mean_pooled else "Value j = maximum flow from (L,0) to (0,j), each j solved separately."))
    c.row("flow.normalized", lambda e: (lambda f: f / f.sum())(flow(e)),
        {"heads": "mean", "residual": True, "normalise": "sum"},
        "flow divided by its sum over all real input tokens (prefix tokens included in the sum).")

    # 4 gae
    base = r"R \leftarrow R + \bar A^{(l)} R for l = s..L-1 from R = I, \bar A = mean_h((\nabla A_h \odot A_h)^+)"
    c.pair("gae", lambda e: gae(e), {"start_layer": 0}, base + " (clamped per head, then averaged), s = 0.")
    c.row("gae.start1", lambda e: gae(e, 1), {"start_layer": 1}, base + ", s = 1. Row 0.")
    c.row("gae.last", lambda e: gae(e, last), {"start_layer": "last"}, base + ", s = L-1. Row 0.")

    # 5 gradient rollout
    base = r"E = (mean_h(A_h \odot \nabla A_h))^+ (averaged first, then clamped); a = (E+I)/2"
    c.pair("grad-rollout", lambda e: rollout(e, "grad-post"), {"start_layer": 0},
         base + "; a <- a / (row sums of a); R <- a R over layers 0..L-1 from R = I.")
    c.row("grad-rollout.literal", lambda e: rollout(e, "grad-post", literal=True),
        {"start_layer": 0, "normalisation": "literal"},
        base + "; a[i,j] <- a[i,j] / sum_k a[j,k], i.e. column j divided by the sum of row j, which is what "
        "a / a.sum(dim=-1) does for batch size 1; R <- a R. Row 0.")
    c.row("grad-rollout.discard", lambda e: rollout(e, "grad-post", ratio=0.5),
        {"start_layer": 0, "discard_ratio": 0.5},
        base.split(";")[0] + "; the int(n*n*0.5) smallest entries of E set to 0 (entry (0,0) NOT protected); "
        "a = (E+I)/2, row-normalised; R <- a R. Row 0.")
    c.row("grad-rollout.discard-literal", lambda e: rollout(e, "grad-post", ratio=0.5, literal=True),
        {"start_layer": 0, "discard_ratio": 0.5, "normalisation": "literal"},
        "As grad-rollout.discard with the literal division of grad-rollout.literal. Row 0.")

    # 6 attention gradcam
    row_def = (r"w_h = mean over " + ("patch columns j >= n_prefix" if vision else "all real tokens j") +
               r" of \nabla A^{(L-1)}_h[0,j]; value_j = (mean_h w_h A^{(L-1)}_h[0,j])^+.")
    full_def = r"w_h = mean over all real i,j of \nabla A^{(L-1)}_h[i,j]; value_j = (mean_h w_h A^{(L-1)}_h[0,j])^+."
    default = "row" if vision else "full"
    c.row("attention-gradcam", lambda e: attention_gradcam(e, default, vision), {"weights": default},
        (row_def if vision else full_def) + " No min-max scaling.")
    for kind, text in (("row", row_def), ("full", full_def)):
        c.row(f"attention-gradcam.{kind}", lambda e, k=kind: attention_gradcam(e, k, vision),
            {"weights": kind}, text)

    c.row("attention-gradcam.signed", lambda e: attention_gradcam(e, default, vision, False),
        {"weights": default, "clamp": False}, (row_def if vision else full_def).replace(")^+.", ").") +
        " No clamp (attention-gradcam before its final clamp).")

    # 7 gradient x attention
    c.row("grad-attention", lambda e: (e.A[last] * e.G[last]).mean(0), {"layer": "last", "clamp": False},
        r"mean_h(A^{(L-1)}_h \odot \nabla A^{(L-1)}_h), row 0, signed.")
    c.row("grad-attention.clamp", lambda e: fuse(e, last, "grad"), {"layer": "last", "clamp": "per head"},
        r"mean_h((A^{(L-1)}_h \odot \nabla A^{(L-1)}_h)^+), row 0.")
    c.row("attcat", lambda e: attcat(e, 0), {"state": "block input"},
        r"\sum_{l=0}^{L-1} (\sum_d x^{(l)}_{jd} \partial y_c/\partial x^{(l)}_{jd}) \cdot \frac1{Hn}\sum_{h,i} "
        r"A^{(l)}_h[i,j], x^{(l)} = hidden.{l} entering block l (as in the official code).")
    c.row("attcat.output", lambda e: attcat(e, 1), {"state": "block output"},
        "Same with the state leaving block l, hidden.{l+1} (the reading of the paper's equations).")

    # 8 grid
    heads = {"mean": "mean_h A", "max": "max_h A", "min": "min_h A", "grad": "mean_h((A.dA)^+)",
             "grad-post": "(mean_h(A.dA))^+"}
    overs = {"last": "E of layer L-1", "mean": "mean of E over layers s..L-1",
             "rollout": "product of rownorm(E+I), layers s..L-1", "gae": "R <- R + E R, layers s..L-1"}
    for h, ht in heads.items():
        for o, ot in overs.items():
            for s in (0, 1):
                if s and (o == "last" or h not in ("mean", "grad")):
                    continue
                c.row(f"aggregate.{h}.{o}.{s}", lambda e, h=h, o=o, s=s: aggregate(e, h, o, s),
                    {"heads": h, "layers": o, "start_layer": s}, f"E = {ht}; {ot}, s = {s}. Row 0.")

    # DeiT: the same relevance read from the distillation token
    if case.model_type == "deit":
        c.row("attention.dist", lambda e: fuse(e, last, "mean"),
            {"layer": "last", "heads": "mean", "row": 1}, r"\frac1H\sum_h A^{(L-1)}_h, row 1 (distillation token).", row=1)
        c.row("rollout.dist", lambda e: rollout(e), {"heads": "mean", "row": 1}, "rollout matrix, row 1.", row=1)
        c.row("gae.dist", lambda e: gae(e), {"start_layer": 0, "row": 1}, "gae matrix, row 1.", row=1)
    return c
