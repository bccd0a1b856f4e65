"""Transformer Attribution: relevance propagation through the network, then rollout of (grad * relevance)+.

All rules act on one example at a time (the addition rule contains sums over the whole tensor).
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from emit import Emit, Tolerance
from inputs import patch_pool

TOLERANCE = Tolerance(1e-6, 2e-5, 10)

PAPER = "Chefer, Gur & Wolf 2021 (CVPR), Transformer interpretability beyond attention visualization"
EPS = 1e-9


# --------------------------------------------------------------------------- rules
def sdiv(a: Tensor, b: Tensor) -> Tensor:
    """a / (b + 1e-9), and 0 where b == 0."""
    den = b + EPS
    den = torch.where(den == 0, torch.full_like(den, EPS), den)
    return torch.where(b == 0, torch.zeros_like(den), a / den)


def linear_zplus(R: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """z+ (alpha=1, beta=0) rule of y = x w^T (bias ignored): only positive products x_i w_ji take part."""
    wp, wn, xp, xn = w.clamp(min=0), w.clamp(max=0), x.clamp(min=0), x.clamp(max=0)
    s = sdiv(R, xp @ wp.T + xn @ wn.T)
    return xp * (s @ wp) + xn * (s @ wn)


def linear_zplus_split(R: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """Variant used by the LRP baseline: the two positive parts are normalised separately."""
    wp, wn, xp, xn = w.clamp(min=0), w.clamp(max=0), x.clamp(min=0), x.clamp(max=0)
    return xp * (sdiv(R, xp @ wp.T) @ wp) + xn * (sdiv(R, xn @ wn.T) @ wn)


def add_rule(R: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Shares a/(a+b), b/(a+b), then each branch rescaled so that the totals are |sum a| : |sum b| of sum R."""
    s = sdiv(R, a + b)
    ra, rb = a * s, b * s
    ta, tb = ra.sum(), rb.sum()
    fa = sdiv(ta.abs(), ta.abs() + tb.abs()) * R.sum()
    fb = sdiv(tb.abs(), ta.abs() + tb.abs()) * R.sum()
    return ra * sdiv(fa, ta), rb * sdiv(fb, tb)


def add_plain(R: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    s = sdiv(R, a + b)
    return a * s, b * s


def matmul_rule(R: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """y = a @ b; each factor receives half of its gradient*input share."""
    s = sdiv(R, a @ b)
    return a * (s @ b.transpose(-1, -2)) / 2, b * (a.transpose(-1, -2) @ s) / 2


def clone_rule(x: Tensor, *Rs: Tensor) -> Tensor:
    return x * sum(sdiv(R, x) for R in Rs)


RULES = {"chefer": (linear_zplus, add_rule), "lrp-baseline": (linear_zplus_split, add_plain)}


def turn_rule(lay, R: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """y = rotation of x by its position: a linear map, x * transpose(R / y)."""
    return R if lay.rotary is None else x * lay.turn_back(sdiv(R, y))


# --------------------------------------------------------------------------- forward with everything kept
def block_states(lay, x: Tensor) -> dict:
    s = {"x": x, "z": lay.attn_input(x)}
    s["q"], s["k"], s["v"] = (lay.split(f(s["z"])) for f in (lay.q, lay.k, lay.v))
    s["turned q"], s["turned k"] = lay.turn(s["q"]), lay.turn(s["k"])
    s["A"] = torch.softmax(s["turned q"] @ s["turned k"].transpose(-1, -2) * lay.head_dim ** -0.5, -1)
    c = s["A"] @ s["v"]
    s["c"] = c.transpose(1, 2).reshape(*x.shape[:2], -1)
    s["o"] = lay.o(s["c"])
    if lay.scale1 is not None:
        s["o"] = s["o"] * lay.scale1
    s["a"] = lay.ln1(x + s["o"]) if lay.post_ln else x + s["o"]
    s["u"] = s["a"] if lay.post_ln else lay.ln2(s["a"])
    s["h"] = lay.mlp.activation(lay.mlp.first(s["u"]))
    s["m"] = lay.mlp.out(s["h"])
    if lay.scale2 is not None:
        s["m"] = s["m"] * lay.scale2
    s["y"] = lay.ln2(s["a"] + s["m"]) if lay.post_ln else s["a"] + s["m"]
    return s


def merge(t: Tensor) -> Tensor:
    return t.transpose(1, 2).flatten(2)


def block_relprop(lay, s: dict, R: Tensor, rules) -> tuple[Tensor, Tensor]:
    """Relevance of the block output [1,T,D] -> (relevance of the block input, relevance of the attention map).

    LayerNorm, activation, softmax, scaling, layer scale and the additive mask pass relevance unchanged.
    """
    linear, add = rules
    ra, rm = add(R, s["a"], s["m"]) if not lay.post_ln else tuple(reversed(add(R, s["m"], s["a"])))
    rm = linear(linear(rm, s["h"], lay.mlp.out.weight), s["u"], lay.mlp.first.weight)
    R = clone_rule(s["a"], ra, rm)
    rx, ro = add(R, s["x"], s["o"])
    rc = linear(ro, s["c"], lay.o.weight)
    rc = rc.view(*rc.shape[:2], lay.heads, lay.head_dim).transpose(1, 2)
    rA, rv = matmul_rule(rc, s["A"], s["v"])
    rq, rkt = matmul_rule(rA, s["turned q"], s["turned k"].transpose(-1, -2))
    rq, rk = (turn_rule(lay, r, s[n], s["turned " + n]) for r, n in ((rq, "q"), (rkt.transpose(-1, -2), "k")))
    parts = [linear(merge(r), s["z"], f.weight) for r, f in ((rq, lay.q), (rk, lay.k), (rv, lay.v))]
    rz = clone_rule(s["z"], *parts) if lay.post_ln else sum(parts)
    return clone_rule(s["x"], rx, rz), rA


def head_relprop(case, dtype, hidden: Tensor, target: int, rules) -> Tensor:
    """One-hot relevance at the logits -> relevance of the last block's output, hidden [1,T,D]."""
    linear, add = rules
    net, t = case.net(dtype), case.model_type
    onehot = lambda n: torch.eye(n, dtype=dtype)[target][None]
    n = net.config.num_labels
    R = torch.zeros_like(hidden)

    def place(tok, r, state):
        """Index-selection rule: relevance of one token goes to that token."""
        R[:, tok] = R[:, tok] + state[:, tok] * sdiv(r, state[:, tok])

    norm = case.final_norm(dtype)
    z = hidden if norm is None else norm(hidden)
    if t == "vit":
        place(0, linear(onehot(n), z[:, 0], net.classifier.weight), z)
    elif t == "deit":
        l1, l2 = net.cls_classifier(z[:, 0]), net.distillation_classifier(z[:, 1])
        r1, r2 = add(onehot(n), l1 / 2, l2 / 2)
        place(0, linear(r1, z[:, 0], net.cls_classifier.weight), z)
        place(1, linear(r2, z[:, 1], net.distillation_classifier.weight), z)
    elif case.patch_mean:
        p = z[:, case.n_prefix:]
        mean = p.mean(1)
        r = linear(onehot(n), torch.cat([z[:, 0], mean], 1), net.classifier.weight)
        d = z.shape[-1]
        place(0, r[:, :d], z)
        R[:, case.n_prefix:] = R[:, case.n_prefix:] + p * (sdiv(r[:, d:], mean) / p.shape[1])[:, None]
    elif t == "bert":
        dense = net.bert.pooler.dense
        pooled = torch.tanh(dense(hidden[:, 0]))
        r = linear(onehot(n), pooled, net.classifier.weight)
        place(0, linear(r, hidden[:, 0], dense.weight), hidden)
    elif t == "roberta":
        dense, out = net.classifier.dense, net.classifier.out_proj
        r = linear(onehot(n), torch.tanh(dense(hidden[:, 0])), out.weight)
        place(0, linear(r, hidden[:, 0], dense.weight), hidden)
    elif t == "distilbert":
        r = linear(onehot(n), torch.relu(net.pre_classifier(hidden[:, 0])), net.classifier.weight)
        place(0, linear(r, hidden[:, 0], net.pre_classifier.weight), hidden)
    else:
        raise ValueError(t)
    return R


def propagate(case, dtype, b: int, rules="chefer") -> tuple[Tensor, list]:
    """(relevance of hidden.0 [n,D], [relevance of attention map l, [heads,n,n]]) for example b, real tokens only."""
    rules = RULES[rules]
    n = case.lengths[b]
    x = case.trace(dtype).hidden[0][b:b + 1, :n]
    with torch.no_grad():
        states = []
        for lay in case.layers(dtype):
            states.append(block_states(lay, x))
            x = states[-1]["y"]
        R = head_relprop(case, dtype, x, int(case.targets[b]), rules)
        maps = [None] * len(states)
        for lay in reversed(case.layers(dtype)):
            R, rA = block_relprop(lay, states[lay.index], R, rules)
            maps[lay.index] = rA[0]
    return R[0], maps


# --------------------------------------------------------------------------- pixels ("full" LRP)
def embedding_parts(case, dtype, b: int) -> tuple[Tensor, Tensor, int]:
    """(class / distillation rows and patch projections [1,1+..,D], what was added to them, number of prefix rows there).

    Registers are left out: nothing is added to them.
    """
    base = case.base(dtype)
    emb, h0 = base.embeddings, case.trace(dtype).hidden[0][b:b + 1]
    with torch.no_grad():
        px = case.inputs["pixel_values"][b:b + 1].to(dtype)
        patches = case.patches(case.net(dtype))(px).flatten(2).transpose(1, 2)
        toks = [emb.cls_token] + ([emb.distillation_token] if case.model_type == "deit" else [])
        content = torch.cat([*toks, patches], 1)
    h0 = torch.cat([h0[:, :len(toks)], h0[:, case.n_prefix:]], 1)
    return content, h0 - content, len(toks)


def conv_zb(R: Tensor, x: Tensor, w: Tensor, patch: int) -> Tensor:
    """z^B rule of a non-overlapping convolution; R [1,D,rows,cols], bounds = extreme values of this image."""
    lo, hi = torch.full_like(x, float(x.min())), torch.full_like(x, float(x.max()))
    wp, wn = w.clamp(min=0), w.clamp(max=0)
    conv = lambda t, k: F.conv2d(t, k, stride=patch)
    back = lambda s, k: F.conv_transpose2d(s, k, stride=patch)
    s = R / (conv(x, w) - conv(lo, wp) - conv(hi, wn) + EPS)
    return x * back(s, w) - lo * back(s, wp) - hi * back(s, wn)


def full_pixels(case, dtype, b: int, R: Tensor, rules="chefer") -> Tensor:
    """Relevance of hidden.0 [T,D] -> [H,W] (sum over the colour channels)."""
    content, pos, k = embedding_parts(case, dtype, b)
    R = torch.cat([R[:k], R[case.n_prefix:]], 0)[None]
    with torch.no_grad():
        # models that only rotate add no position embeddings
        rc = R if case.layers()[0].rotary is not None else RULES[rules][1](R, content, pos)[0]
        rc = rc[:, k:].transpose(1, 2).reshape(1, -1, *case.grid)
        conv = case.patches(case.net(dtype))
        px = case.inputs["pixel_values"][b:b + 1].to(dtype)
        return conv_zb(rc, px, conv.weight, case.patch)[0].sum(0)


# --------------------------------------------------------------------------- aggregation
def rollout(maps: list, start: int, normalise: bool) -> Tensor:
    """[(n,n)] -> (C_L + I) ... (C_start + I), rows optionally normalised to 1 before the product."""
    out = None
    for C in maps[start:]:
        M = C + torch.eye(C.shape[-1], dtype=C.dtype)
        if normalise:
            M = M / M.sum(-1, keepdim=True)
        out = M if out is None else M @ out
    return out


def pad_tokens(case, rows: list) -> Tensor:
    full = torch.zeros(len(rows), case.T, dtype=rows[0].dtype)
    for b, r in enumerate(rows):
        full[b, :r.shape[0]] = r
    return full


def produce(case, emit: Emit) -> None:
    if case.gated:      # the rules have none for the product
        return
    dtype = emit.dtype
    tr = case.trace(dtype)
    res = [propagate(case, dtype, b) for b in range(case.B)]
    base = [propagate(case, dtype, b, "lrp-baseline") for b in range(case.B)]
    n = case.lengths
    cams = []
    for b, (_, maps) in enumerate(res):
        g = [a[b, :, :n[b], :n[b]] for a in tr.attn_grad]
        cams.append([(g[l] * maps[l]).clamp(min=0).mean(0) for l in range(len(maps))])

    shape = "[B,rows,cols]" if case.vision else "[B,T]"
    kw = dict(method="lrp", paper=PAPER)
    rules = ("R starts as the one-hot target at the logits; z+ rule for linear layers (bias ignored), |sum|-proportional "
             "rule for residual additions, halved gradient*input rule for both attention products, identity for "
             "LayerNorm / activation / softmax / scaling; see METHODS.md")
    L = len(tr.attn)
    for l in range(L):
        full = torch.zeros(case.B, *res[0][1][l].shape[:1], case.T, case.T, dtype=dtype)
        for b in range(case.B):
            full[b, :, :n[b], :n[b]] = res[b][1][l]
        emit(f"method.lrp.attention-relevance.{l}", full, meaning="R_A of layer l, [B,heads,T,T]", definition=rules, **kw)
    conv = ("C_l = mean over heads of max(0, dA_l * R_A_l) with dA_l the gradient of the target logit; "
            "rollout = (C_{L-1}+I) ... (C_start+I); row 0")
    for tag, start, norm in (("unnormalised", 0, False), ("normalised", 0, True), ("start1", 1, not case.vision)):
        rows = [rollout(c, start, norm)[0] for c in cams]
        emit(f"method.lrp.{tag}", case.map(pad_tokens(case, rows)), params={"start_layer": start, "row_normalise": norm},
             meaning=shape, definition=rules + "; " + conv + (", rows of C_l+I divided by their sum" if norm else ""), **kw)
    norm = not case.vision
    emit("method.lrp", case.map(pad_tokens(case, [rollout(c, 0, norm)[0] for c in cams])),
         params={"start_layer": 0, "row_normalise": norm}, meaning=shape + (", prefix columns dropped" if case.vision else
         ", the classification token's own column kept as it is"),
         definition=rules + "; " + conv + "; default: rows " + ("not " if not norm else "") + "normalised, as in the "
         "official " + ("ViT" if case.vision else "BERT") + " code", **kw)
    tok = pad_tokens(case, [r[0].sum(-1) for r in res])
    emit("method.lrp.tokens", tok, meaning="relevance of the encoder input summed over D, [B,T] (prefix tokens included)",
         definition=rules, **kw)
    if case.vision:
        px = torch.stack([full_pixels(case, dtype, b, res[b][0]) for b in range(case.B)])
        d = ("full LRP: relevance of hidden.0, split off the position embeddings with the addition rule, prefix rows "
             "dropped, z^B rule through the patch convolution (bounds = min and max of this normalised image), summed "
             "over colour channels")
        emit("method.full-lrp", px, method="full-lrp", meaning="[B,H,W]", definition=d, paper=PAPER)
        emit("method.full-lrp.patch", patch_pool(case, px, "sum"), method="full-lrp", meaning="[B,rows,cols]",
             definition=d + "; summed over the pixels of a patch", paper=PAPER)
    for tag, r in (("", res), (".baseline-rules", base)):
        rows = [x[1][-1].clamp(min=0).mean(0)[0] for x in r]
        emit(f"method.partial-lrp{tag}", case.map(pad_tokens(case, rows)), method="partial-lrp", meaning=shape,
             definition="row 0 of the mean over heads of max(0, R_A) of the last block" +
             ("; relevance from the simpler rules of the LRP baseline: z+ with the two positive parts normalised "
              "separately, plain a/(a+b) addition" if tag else "; " + rules), paper=PAPER + " (partial LRP after Voita et al. 2019)")
