"""CP-LRP and ResLRP, both as input * modified gradient."""
from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from emit import Emit, Tolerance
from libra import input_relevance
from walk import ATTNLRP, CP, LIBRA, Rules, Walk, residual_factor

TOLERANCE = Tolerance(1e-6, 5e-5, 20)

P_CP = "Ali et al. 2022 (ICML), conservative propagation; identity rule for activations: Achtibat et al. 2024 (ICML)"
P_RES = "Berend et al. 2026 (preprint), ResLRP; rules outside the residual additions: Achtibat et al. 2024 (AttnLRP)"

ELSE = ("linear layers, additions outside the blocks and pooling keep the true backward (epsilon rule, eps -> 0, biases keep "
        "their share); LayerNorm with the standard deviation as a constant; ")
GATE = "activations y = x * const(f(x)/x); "
RES = ("residual addition y = a + b of a block, per component: w(z) = 1 + gamma if z*y > 0 else 1; R_a = R_y * w(a) a / (w(a) a "
       "+ w(b) b), likewise R_b, both 0 where y = 0; ")
FLIP = 5e-6        # a summand closer to zero than this may change its sign in float32; the tolerance allows for it
VARIANTS = {
    "cp-lrp": (CP, P_CP, ELSE + "attention probabilities constant; activations with their true derivative"),
    "cp-lrp.identity": (LIBRA, P_CP, "as cp-lrp with " + GATE + "equal to attn-lrp.cp and to libra.gradient-x-input.input"),
    "reslrp": (Rules("half", "const", "gate", 1.0), P_RES, RES + ELSE + GATE + "attention products halved (value and "
               "probabilities 1/2, query and key 1/4 of the true gradient), softmax with its true derivative"),
    "reslrp.cp": (Rules("const", "const", "gate", 1.0), P_RES, "as reslrp with the attention probabilities constant"),
    "reslrp.gamma0.25": (Rules("half", "const", "gate", 0.25), P_RES, "as reslrp with gamma = 0.25"),
    "reslrp.gamma10": (Rules("half", "const", "gate", 10.0), P_RES, "as reslrp with gamma = 10"),
}


def terms(w: Walk) -> Tensor:
    """[B,4]: sum over the raw input, over what is added in the embedding, over all later constants, target logit."""
    x = (w.x * w.gx).flatten(1).sum(1)
    h0 = w.gxi(0).sum(1)
    return torch.stack([x, h0 - x, w.constants(0).sum(1), w.out], 1)


def sites(case, w: Walk) -> tuple[Tensor, Tensor]:
    """Cancellation and amplification of every residual addition, [B,2L] each (attention and FFN of block 0, ...)."""
    C, A = [], []
    m = case.mask2d.to(w.dtype)[..., None]
    total = lambda t: (t.abs() * m).flatten(1).sum(1)
    for a, b, g in w.residuals:
        y = a + b
        fa, fb = ((residual_factor(a, b, w.rules.gamma), residual_factor(b, a, w.rules.gamma))
                  if w.rules.gamma is not None else (torch.ones_like(a), torch.ones_like(a)))
        C.append((total(a) + total(b)) / total(y))
        A.append((total(a * g * fa) + total(b * g * fb)) / total(y * g))
    return torch.stack(C, 1), torch.stack(A, 1)


def produce(case, emit: Emit) -> None:
    dtype = emit.dtype
    for key, (rules, paper, text) in VARIANTS.items():
        w = Walk(case, dtype, rules)
        kw = dict(method=key.split(".")[0], paper=paper,
                  params={"gamma": rules.gamma} if rules.gamma is not None else {})
        d = ("R starts as the target logit; " if not text.startswith("as ") else "") + text
        near = replace(rules, flip=FLIP) if rules.gamma else None
        if near:
            w2 = Walk(case, dtype, near)
            slack = lambda f: max(1e-6, 5e-5 * float(f(w).abs().max()), 2 * float((f(w2) - f(w)).abs().max()))
        else:
            slack = lambda f: None
        inp, tok = (lambda v: input_relevance(case, v.x * v.gx)), (lambda v: v.gxi(0))
        emit(key, inp(w), definition=d, atol=slack(inp),
             meaning="relevance of the pixels of a patch, [B,rows,cols]" if case.vision
             else "relevance of the word embeddings, [B,T]", **kw)
        if key in ("reslrp.gamma0.25", "reslrp.gamma10"):
            continue
        d = f"rules of {key}"
        emit(key + ".tokens", tok(w), atol=slack(tok), meaning="relevance of hidden.0, [B,T], prefix tokens included",
             definition=d, **kw)
        t = terms(w)
        if rules.attention == "const" and rules.act == "gate":
            gap = float((t[:, :3].sum(1) - t[:, 3]).abs().max())
            assert gap < (1e-12 if dtype == torch.float64 else 1e-3), (case.name, key, gap)
        emit(key + ".terms", t, atol=slack(terms), meaning="[B,4]", definition=d + "; (sum of the input relevance, relevance "
             "of the constants added in the embedding, relevance of all constants from block 0 on, target logit); the first "
             "three add up to the fourth " + ("exactly" if rules.attention == "const" and rules.act == "gate" else "only approximately with these rules"), **kw)
        if key == "reslrp" and case.name == "vit-square":
            pix = lambda v: (v.x * v.gx).sum(1)
            emit(key + ".pixels", pix(w), atol=slack(pix), meaning="relevance summed over channels, [B,H,W]", definition=d, **kw)
        if key == "reslrp":
            base = Walk(case, dtype, ATTNLRP)
            C, A1 = sites(case, w)
            _, A0 = sites(case, base)
            z = "sites: attention then FFN addition of block 0, of block 1, ...; sums over real tokens and channels"
            emit("reslrp.cancellation", C, meaning="[B,2L]", definition="sum(|z_in| + |z_up|) / sum|z_out|; " + z, **kw)
            emit("reslrp.amplification", A1, atol=slack(lambda v: sites(case, v)[1]), meaning="[B,2L], at most 1 + 2/gamma",
                 definition="sum(|R_in| + |R_up|) / sum|R_out| under reslrp; " + z, **kw)
            assert float(A1.max()) <= 3 + 1e-6
            emit("reslrp.amplification.attn-lrp", A0, meaning="[B,2L]", definition="the same under attn-lrp (gamma = 0)",
                 method="reslrp", paper=P_RES, params={"gamma": 0.0})
