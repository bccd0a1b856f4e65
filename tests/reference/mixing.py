"""Mixing: how much of every token goes into every other, from the vectors attention adds and from removing them."""
from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from emit import Emit, Tolerance
from matrices import Catalogue, Ex, chain, residual_norm, row_norm
from model import Layer

TOLERANCE = Tolerance(1e-9, 5e-5, 20)

PAPERS = {
    "norm": "Kobayashi et al., EMNLP 2020, 'Attention is Not Only a Weight'",
    "norm-res": "Kobayashi et al., EMNLP 2021, 'Incorporating Residual and Normalization Layers' (AttnRes-N)",
    "norm-resln": "Kobayashi et al., EMNLP 2021, 'Incorporating Residual and Normalization Layers' (AttnResLn-N)",
    "globenc": "Modarressi et al., NAACL 2022, 'GlobEnc'",
    "alti": "Ferrando et al., EMNLP 2022, 'Measuring the Mixing of Contextual Information in the Transformer'",
    "value-zeroing": "Mohebbi et al., EACL 2023, 'Quantifying Context Mixing in Transformers'",
}


def attn_vectors(ex: Ex, l: int) -> Tensor:
    """[n, n, D]: what token j adds to token i through attention (all heads, W_O, layer scale; no b_O)."""
    lay: Layer = ex.layers[l]
    v = lay.values(ex.X[l][None])[0]
    f = torch.einsum("hjv,hvd->hjd", v, lay.out_weight())
    w = torch.einsum("hij,hjd->ijd", ex.A[l], f)
    return w if lay.scale1 is None else w * lay.scale1


def res_vectors(ex: Ex, l: int) -> Tensor:
    """attn_vectors plus the skip connection on the diagonal."""
    w = attn_vectors(ex, l).clone()
    i = torch.arange(ex.n)
    w[i, i] += ex.X[l]
    return w


def mid_state(ex: Ex, l: int) -> Tensor:
    """x_i + attention output (incl. b_O and layer scale): [n, D], before any following LayerNorm."""
    lay = ex.layers[l]
    m = res_vectors(ex, l).sum(1)
    if lay.o.bias is None:
        return m
    return m + (lay.o.bias if lay.scale1 is None else lay.o.bias * lay.scale1)


def ln_linear(v: Tensor, y: Tensor, ln) -> Tensor:
    """Linear part of LayerNorm at the actual input y [n,D], applied to the parts v [n,n,D]."""
    std = (y.var(-1, unbiased=False) + ln.eps).sqrt()
    return (v - v.mean(-1, keepdim=True)) / std[:, None, None] * ln.weight


def resln_vectors(ex: Ex, l: int) -> Tensor:
    lay = ex.layers[l]
    return ln_linear(res_vectors(ex, l), mid_state(ex, l), lay.ln1 if lay.post_ln else lay.ln2)


def enc_vectors(ex: Ex, l: int) -> Tensor:
    """Post-LN only: resln vectors pushed through the linear part of the second LayerNorm."""
    lay = ex.layers[l]
    a = lay.ln1(mid_state(ex, l))
    return ln_linear(resln_vectors(ex, l), a + lay.mlp(a), lay.ln2)


def norms(ex: Ex, vectors: Callable) -> Tensor:
    return torch.stack([vectors(ex, l).norm(dim=-1) for l in range(ex.L)])


def alti_layers(ex: Ex) -> Tensor:
    out = []
    for l in range(ex.L):
        lay = ex.layers[l]
        y = mid_state(ex, l)
        if lay.post_ln:
            T, y = resln_vectors(ex, l), lay.ln1(y)
        else:
            T = res_vectors(ex, l)
        d = (y[:, None] - T).abs().sum(-1)
        out.append(row_norm((y.abs().sum(-1)[:, None] - d).clamp(min=0)))
    return torch.stack(out)


def value_zeroing_layers(ex: Ex) -> Tensor:
    """Unnormalised [L, n, n]: 1 - cos between the block outputs with and without the value of token j."""
    out = []
    for l in range(ex.L):
        lay, n = ex.layers[l], ex.n
        v = lay.values(ex.X[l][None]).repeat(n, 1, 1, 1)              # [n(j), heads, n, hd]
        v[torch.arange(n), :, torch.arange(n)] = 0
        y = lay.forward(ex.X[l][None].expand(n, -1, -1), values=v, probs=ex.A[l][None])
        u = torch.nn.functional.normalize(y, dim=-1)
        w = torch.nn.functional.normalize(ex.X[l + 1], dim=-1)
        out.append((0.5 * (u - w[None]).pow(2).sum(-1)).T)            # = 1 - cos, without cancellation
    return torch.stack(out)


# --------------------------------------------------------------------------- catalogue
def produce(case, emit: Emit) -> None:
    catalogue(case).emit(emit, PAPERS)


def catalogue(case) -> Catalogue:
    post_ln, c = case.layers()[0].post_ln, Catalogue(case)

    # 1 vectors
    blockin = "z_j = x_j" if post_ln else "z_j = LN1(x_j)" + (" (z_j = x_j in block 0)" if case.layers()[0].ln1 is None else "")
    scale = "" if case.layers()[0].scale1 is None else r", the sum scaled elementwise by the layer scale \lambda_1"
    f = rf"f^h(x_j) = (z_j W_V^h + b_V^h) W_O^h, {blockin}"
    vec = {
        "norm": (attn_vectors, rf"N_ij = ||\sum_h A_h[i,j] f^h(x_j)||_2, {f}{scale}; b_O not included."),
        "norm-res": (res_vectors, rf"N_ij = ||\sum_h A_h[i,j] f^h(x_j) + \delta_ij x_i||_2, {f}{scale}; x_i is the "
                     "block input (before any LayerNorm); b_O not included."),
        "norm-resln": (resln_vectors, r"N_ij = ||\gamma \odot (v_ij - mean(v_ij)) / \sqrt{var(y_i)+eps}||_2 with v_ij "
                       rf"the norm-res vectors, y_i = \sum_j v_ij + b_O{' (scaled)' if scale else ''}, and \gamma, eps "
                       + ("of the LayerNorm after the attention residual." if post_ln else
                          "of LN2, the LayerNorm that reads the state after attention (pre-LN counterpart, ours).")),
    }
    for key, (fn, text) in vec.items():
        layers = lambda e, fn=fn: norms(e, fn)
        c.layers(f"{key}.layers", layers, {"norm": "L2"}, text)
        c.row(key, lambda e, fn=fn: norms(e, fn)[-1], {"norm": "L2", "layer": "last"},
            text + " Last layer, row 0, not normalised.")
        c.row(f"{key}.rollout", lambda e, fn=fn: chain([row_norm(m) for m in norms(e, fn)]),
            {"norm": "L2", "start_layer": 0, "residual": False},
            r"R = \hat N^{(L-1)}\cdots\hat N^{(0)}, \hat N = rownorm(N) of " + f"{key}.layers, no identity added. Row 0.")
    c.row("norm.rollout-res", lambda e: chain([residual_norm(row_norm(m)) for m in norms(e, attn_vectors)]),
        {"norm": "L2", "start_layer": 0, "residual": True},
        r"R = \prod (\hat N + I)/2, \hat N = rownorm of norm.layers. Row 0.")
    if post_ln:
        c.layers("globenc.layers", lambda e: norms(e, enc_vectors), {"norm": "L2"},
            r"N_ij = ||\gamma_2 \odot (u_ij - mean(u_ij)) / \sqrt{var(g_i)+eps_2}||_2, u_ij the norm-resln vectors, "
            r"g_i = a_i + FFN(a_i) the actual input of the second LayerNorm.")
        c.pair("globenc", lambda e: chain(list(norms(e, enc_vectors))), {"norm": "L2", "start_layer": 0},
             r"R = N^{(L-1)}\cdots N^{(0)} of globenc.layers, no row normalisation.")
    base = ("c_ij = (||y_i||_1 - ||y_i - T_ij||_1)^+ divided by its row sum, " +
            ("T_ij = norm-resln vectors, y_i = LN1 output." if post_ln else
             "T_ij = norm-res vectors, y_i = state after attention and skip connection (b_O included)."))
    c.layers("alti.layers", alti_layers, {"norm": "L1"}, base)
    c.pair("alti", lambda e: chain(list(alti_layers(e))), {"norm": "L1", "start_layer": 0},
         r"R = C^{(L-1)}\cdots C^{(0)} of alti.layers, no identity added.")
    c.row("alti.last", lambda e: alti_layers(e)[-1], {"norm": "L1", "layer": "last"}, base + " Last layer, row 0.")

    # 2 value zeroing
    base = (r"\tilde C_ij = 1 - cos(x^{(l+1)}_i, x^{(l+1),-j}_i): block l is recomputed from hidden.{l} with the "
            "original attention weights and the value vectors (bias included) of token j zeroed in all heads; "
            + ("compared after the second LayerNorm." if post_ln else "compared at the block output (residual stream)."))
    vz = lambda e: torch.stack([row_norm(m) for m in value_zeroing_layers(e)])
    c.layers("value-zeroing.raw", value_zeroing_layers, {"metric": "cosine"}, base)
    c.layers("value-zeroing.layers", vz, {"metric": "cosine"}, "rownorm of value-zeroing.raw.")
    c.row("value-zeroing", lambda e: vz(e)[-1], {"metric": "cosine", "layer": "last"},
        "value-zeroing.layers, last layer, row 0.")
    c.pair("value-zeroing.rollout", lambda e: chain(list(vz(e))), {"metric": "cosine", "start_layer": 0, "residual": False},
         r"R = C^{(L-1)}\cdots C^{(0)} of value-zeroing.layers, no identity added.")
    return c
