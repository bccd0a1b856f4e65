"""A forward pass whose backward rules can be exchanged.

`Walk` runs a model from its input to the logits, one elementary operation at a time. Each operation is written so that torch
autograd produces the wanted backward rule (constants are detached, factors are scaled), and every place where a constant is
added (bias, shift of a norm) is remembered together with the gradient arriving there.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from case import Case

# --------------------------------------------------------------------------- rules
@dataclass(frozen=True)
class Rules:
    """What the backward pass treats as constant.

    attention: plain = true gradient; const = probabilities are a constant; half = both products halved
    norm:      plain; const = the standard deviation is a constant
    act:       plain; gate = f(x) is read as x * const(f(x) / x), and each branch of a gated product gets half
    gamma:     None = additions are plain; number = sign-aware rule at the two residual additions of each block
    flip:      invert the sign test where a summand is smaller than this (measures how much a rounding error can matter)
    """
    attention: str = "plain"
    norm: str = "plain"
    act: str = "plain"
    gamma: Optional[float] = None
    flip: float = 0.0


PLAIN = Rules()
LIBRA = Rules("const", "const", "gate")          # also: CP-LRP with the identity rule for activations
CP = Rules("const", "const", "plain")            # CP-LRP as first published
ATTNLRP = Rules("half", "const", "gate")


def gate(f: nn.Module, x: Tensor) -> Tensor:
    """f(x) / x for the activations of the supported models, continued smoothly to x = 0."""
    name = type(f).__name__
    if name in ("GELUActivation", "GELU"):
        return 0.5 * (1 + torch.erf(x * 0.5 ** 0.5))
    if name in ("SiLUActivation", "SiLU"):
        return torch.sigmoid(x)
    if name == "ReLU":
        return (x > 0).to(x.dtype)
    if name == "Tanh":
        near = x.abs() < 1e-4
        safe = torch.where(near, torch.ones_like(x), x)
        return torch.where(near, 1 - x * x / 3, torch.tanh(safe) / safe)
    raise ValueError(f"no gate known for {name}")


class ScaleGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, c):
        ctx.c = c
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.c, None


def residual_factor(part: Tensor, other: Tensor, gamma: float, flip: float = 0.0) -> Tensor:
    """d R_part / d R_out expressed on gradients: y * w(part) / (w(part) part + w(other) other), 0 where y == 0."""
    y = part + other
    w = lambda z: 1 + gamma * ((z * y > 0) ^ (z.abs() < flip)).to(y.dtype)
    den = w(part) * part + w(other) * other
    return torch.where(y == 0, torch.zeros_like(y), y * w(part) / torch.where(y == 0, torch.ones_like(y), den))


class ResidualAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, gamma, flip):
        ctx.save_for_backward(a, b)
        ctx.rule = gamma, flip
        return a + b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g * residual_factor(a, b, *ctx.rule), g * residual_factor(b, a, *ctx.rule), None, None


# --------------------------------------------------------------------------- the pass itself
class Walk:
    """Forward under `rules`, backward from the targets' logits (or softmax probabilities).

    Afterwards: x, gx (input and gradient), hidden / hidden_grad, probs / probs_grad, mid (state between the two
    sub-blocks), sites = [(stage, name, relevance per token [B,T])] for every added constant above hidden.0,
    residuals = [(z_in, z_up, gradient at their sum)].  Stage l is block l, stage L the final norm and head.
    """

    def __init__(self, case: Case, dtype, rules: Rules, seed: str = "logit"):
        self.case, self.dtype, self.rules = case, dtype, rules
        self.net, self.lays = case.net(dtype), case.layers(dtype)
        self.stage, self._sites, self._res = -1, [], []
        x = case.inputs["pixel_values"].to(dtype) if case.vision else case.word_embeddings(dtype)
        self.x = x.detach().clone().requires_grad_(True)
        h = self.embed(self.x)
        hidden, probs, mid = [h], [], []
        for lay in self.lays:
            self.stage = lay.index
            h, a, p = self.block(lay, h)
            hidden.append(h), probs.append(p), mid.append(a)
        self.stage = len(self.lays)
        self.logits = self.head(h)
        self.out = case.picked(self.logits if seed == "logit" else torch.softmax(self.logits, -1))
        want = [self.x, *hidden, *probs, *(s[2] for s in self._sites), *(r[2] for r in self._res)]
        g = torch.autograd.grad(self.out.sum(), want, allow_unused=True)
        g = [torch.zeros_like(t) if v is None else v for t, v in zip(want, g)]
        take = lambda n: [g.pop(0).detach() for _ in range(n)]
        self.gx = take(1)[0]
        self.hidden_grad, self.probs_grad = take(len(hidden)), take(len(probs))
        d = lambda ts: [t.detach() for t in ts]
        self.hidden, self.probs, self.mid = d(hidden), d(probs), d(mid)
        self.sites = [(st, name, self.spread(b, gr, at)) for (st, name, _, b, at), gr in
                      zip(self._sites, take(len(self._sites)))]
        self.residuals = [(a.detach(), b.detach(), gr) for (a, b, _), gr in zip(self._res, take(len(self._res)))]
        self.x, self.logits, self.out = self.x.detach(), self.logits.detach(), self.out.detach()
        del self._sites, self._res

    def spread(self, b: Tensor, g: Tensor, at: Optional[int]) -> Tensor:
        """Relevance of an added constant per token: every token its own; a pooled vector belongs to token `at`, or to the
        tokens whose mean it is."""
        r = (b * g).sum(-1)
        if at is None:
            return r
        if self.case.mean_pooled:
            m = self.case.mask2d.to(self.dtype)
            return r[:, None] * m / m.sum(1, keepdim=True)
        full = torch.zeros(self.case.B, self.case.T, dtype=self.dtype)
        full[:, at] = r
        return full

    # ---- elementary operations -------------------------------------------------------------
    def note(self, name: str, y: Tensor, b: Optional[Tensor], at: Optional[int] = None) -> Tensor:
        if self.stage >= 0 and b is not None:
            self._sites.append((self.stage, name, y, b.detach(), at))
        return y

    def linear(self, m: nn.Linear, x: Tensor, name: str, at: Optional[int] = None) -> Tensor:
        return self.note(name, F.linear(x, m.weight, m.bias), m.bias, at)

    def norm(self, m: nn.LayerNorm, x: Tensor, name: str, at: Optional[int] = None) -> Tensor:
        c = x - x.mean(-1, keepdim=True)
        sd = (c.pow(2).mean(-1, keepdim=True) + m.eps).sqrt()
        if self.rules.norm == "const":
            sd = sd.detach()
        y = c / sd * m.weight
        return self.note(name, y if m.bias is None else y + m.bias, m.bias, at)

    def act(self, f: nn.Module, x: Tensor) -> Tensor:
        if self.rules.act == "plain":
            return f(x)
        return x * gate(f, x.detach())

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        y = a + b if self.rules.gamma is None else ResidualAdd.apply(a, b, self.rules.gamma, self.rules.flip)
        self._res.append((a, b, y))
        return y

    # ---- parts of the model ------------------------------------------------------------------
    def embed(self, x: Tensor) -> Tensor:
        emb = self.case.base(self.dtype).embeddings
        if self.case.vision:
            return emb(x, **self.case.call)
        kept = {}
        norm = emb.LayerNorm if hasattr(emb, "LayerNorm") else emb.norm
        h = norm.register_forward_pre_hook(lambda m, a: kept.__setitem__("s", a[0].detach()))
        with torch.no_grad():
            self.case.logits(self.dtype)
        h.remove()
        return self.norm(norm, x + (kept["s"] - x.detach()), "embedding norm")

    def block(self, lay, x: Tensor):
        z = x if lay.post_ln or lay.ln1 is None else self.norm(lay.ln1, x, "norm1")
        q, k, v = (lay.split(self.linear(m, z, n)) for m, n in ((lay.q, "query"), (lay.k, "key"), (lay.v, "value")))
        mode = self.rules.attention
        if mode == "half":
            q, k, v = ScaleGrad.apply(q, 0.25), ScaleGrad.apply(k, 0.25), ScaleGrad.apply(v, 0.5)
        s = lay.turn(q) @ lay.turn(k).transpose(-1, -2) * lay.head_dim ** -0.5
        mask = self.case.mask(lay, self.dtype)
        p = torch.softmax(s if mask is None else s + mask, -1)
        if mode == "const":
            p = p.detach().requires_grad_(True)
        c = (p @ v).transpose(1, 2)
        u = self.linear(lay.o, c.reshape(*c.shape[:-2], -1), "output")
        if lay.scale1 is not None:
            u = u * lay.scale1
        a = self.add(x, u)
        if lay.post_ln:
            a = self.norm(lay.ln1, a, "norm1")
        t = self.feed_forward(lay.mlp, a if lay.post_ln else self.norm(lay.ln2, a, "norm2"))
        if lay.scale2 is not None:
            t = t * lay.scale2
        y = self.add(a, t)
        if lay.post_ln:
            y = self.norm(lay.ln2, y, "norm2")
        return y, a, p

    def feed_forward(self, mlp, z: Tensor) -> Tensor:
        h = self.act(mlp.activation, self.linear(mlp.first, z, "ffn1"))
        if mlp.gate is not None:
            g = self.linear(mlp.gate, z, "ffn gate")
            if self.rules.act == "gate":
                h, g = ScaleGrad.apply(h, 0.5), ScaleGrad.apply(g, 0.5)
            h = h * g
        return self.linear(mlp.out, h, "ffn2")

    def head(self, h: Tensor) -> Tensor:
        net, t, norm = self.net, self.case.model_type, self.case.final_norm(self.dtype)
        z = h if norm is None else self.norm(norm, h, "final norm")
        if t == "vit":
            return self.linear(net.classifier, z[:, 0], "head", 0)
        if t == "deit":
            return (self.linear(net.cls_classifier, z[:, 0], "head", 0)
                    + self.linear(net.distillation_classifier, z[:, 1], "head 2", 1)) / 2
        if self.case.patch_mean:
            pooled = torch.cat([z[:, 0], z[:, self.case.n_prefix:].mean(1)], 1)
            return self.linear(net.classifier, pooled, "head", 0)
        if t == "modernbert":
            p = self.act(net.head.act, self.linear(net.head.dense, self.case.pool(z), "pooler", 0))
            return self.linear(net.classifier, self.norm(net.head.norm, p, "pooler norm", 0), "head", 0)
        if t == "bert":
            m = net.bert.pooler
            return self.linear(net.classifier, self.act(m.activation, self.linear(m.dense, h[:, 0], "pooler", 0)), "head", 0)
        if t == "roberta":
            m = net.classifier
            return self.linear(m.out_proj, self.act(nn.Tanh(), self.linear(m.dense, h[:, 0], "pooler", 0)), "head", 0)
        if t == "distilbert":
            return self.linear(net.classifier, self.act(nn.ReLU(), self.linear(net.pre_classifier, h[:, 0], "pooler", 0)),
                               "head", 0)
        raise ValueError(t)

    # ---- read-outs ---------------------------------------------------------------------------
    def gxi(self, l: int) -> Tensor:
        """gradient * state summed over D, [B,T]."""
        return (self.hidden[l] * self.hidden_grad[l]).sum(-1)

    def constants(self, start: int) -> Tensor:
        """Relevance of every constant added in stages >= start, per token [B,T]."""
        return sum(r for st, _, r in self.sites if st >= start)
