"""AttnLRP in its gradient*input form: the model is run with modified backward rules."""
from __future__ import annotations

import copy
import types

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from emit import Emit, Tolerance
from inputs import patch_pool
from model import F64, layers_of

TOLERANCE = Tolerance(1e-6, 2e-5, 10)

PAPER = "Achtibat et al. 2024 (ICML), AttnLRP"
PAPER_CP = "Ali et al. 2022 (CP-LRP); Achtibat et al. 2024"
GAMMA_LINEAR, GAMMA_CONV, STAB = 0.05, 0.25, 1e-6


# --------------------------------------------------------------------------- backward rules
class ScaleGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.factor, None


class IdentityRule(torch.autograd.Function):
    """Element-wise y = f(x) whose backward is g * y / x (0 where x == 0): relevance passes unchanged."""

    @staticmethod
    def forward(ctx, x, f):
        y = f(x)
        ctx.save_for_backward(torch.where(x == 0, torch.zeros_like(x), y / torch.where(x == 0, torch.ones_like(x), x)))
        return y

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0], None


class GammaRule(torch.autograd.Function):
    """Linear map y = op(x, w) + b with the generalised gamma rule on relevance R = g * y, returned as R_in / x."""

    @staticmethod
    def forward(ctx, x, w, b, op, gamma):
        y = op(x, w, b)
        ctx.save_for_backward(x, w, b, y)
        ctx.op, ctx.gamma = op, gamma
        return y

    @staticmethod
    def backward(ctx, g):
        x, w, b, y = ctx.saved_tensors
        r = gamma_relevance(g * y, x, w, b, y, ctx.op, ctx.gamma)
        return torch.where(x == 0, torch.zeros_like(x), r / torch.where(x == 0, torch.ones_like(x), x)), None, None, None, None


def gamma_relevance(R, x, w, b, y, op, gamma) -> Tensor:
    """Outputs with y>0 favour positive contributions, outputs with y<0 favour negative ones; y==0 gives nothing.

    With up(t) = t + gamma max(t,0), down(t) = t + gamma min(t,0), x+ = max(x,0), x- = min(x,0):
      y>0: z = up(w) x+ + down(w) x- + up(b);   y<0: z = down(w) x+ + up(w) x- + down(b);
      R_i = sum_j (contribution of x_i to z_j) R_j / (z_j + 1e-6 sign(z_j)), sign(0) = +1.
    """
    up, down = lambda t: t + gamma * t.clamp(min=0), lambda t: t + gamma * t.clamp(max=0)
    total = torch.zeros_like(x)
    for sel, wpos, wneg, bias in ((y > 0, up(w), down(w), up(b)), (y < 0, down(w), up(w), down(b))):
        with torch.enable_grad():
            xp = x.detach().clamp(min=0).requires_grad_(True)
            xn = x.detach().clamp(max=0).requires_grad_(True)
            z = op(xp, wpos.detach(), bias.detach()) + op(xn, wneg.detach(), None)
        s = torch.where(sel, R, torch.zeros_like(R)) / (z.detach() + STAB * torch.where(z < 0, -1.0, 1.0).to(z.dtype))
        gp, gn = torch.autograd.grad(z, (xp, xn), s)
        total = total + xp.detach() * gp + xn.detach() * gn
    return total


def _attnlrp(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kw):
    """Softmax attention; both products are halved: value and probabilities /2, query and key /4."""
    query, key, value = (ScaleGrad.apply(t, f) for t, f in ((query, 0.25), (key, 0.25), (value, 0.5)))
    return _plain(query, key, value, attention_mask, scaling)


def _cp(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kw):
    return _plain(query.detach(), key.detach(), value, attention_mask, scaling)


def _plain(query, key, value, mask, scaling):
    s = query @ key.transpose(-1, -2) * (query.size(-1) ** -0.5 if scaling is None else scaling)
    p = torch.softmax(s if mask is None else s + mask, -1)
    return (p @ value).transpose(1, 2).contiguous(), p


for _n, _f in (("vitx_attnlrp", _attnlrp), ("vitx_cplrp", _cp)):
    AttentionInterface.register(_n, _f)
    AttentionMaskInterface.register(_n, eager_mask)


# --------------------------------------------------------------------------- patched model
def _layer_norm(self, x):
    m = x.mean(-1, keepdim=True)
    sd = ((x - m) ** 2).mean(-1, keepdim=True).add(self.eps).sqrt().detach()
    y = (x - m) / sd * self.weight
    return y if self.bias is None else y + self.bias


def _roberta_head(self, features, **kw):
    x = self.dense(features[:, 0, :])
    return self.out_proj(IdentityRule.apply(x, torch.tanh))


def _gamma_linear(self, x):
    return GammaRule.apply(x, self.weight, self.bias, F.linear, GAMMA_LINEAR)


def _gamma_conv(self, x):
    op = lambda t, w, b: F.conv2d(t, w, b, stride=self.stride)
    return GammaRule.apply(x, self.weight, self.bias, op, GAMMA_CONV)


def _gated(mlp, z):
    """The product of a gated feed-forward: half to each branch."""
    h = IdentityRule.apply(mlp.first(z), mlp.activation)
    return mlp.out(ScaleGrad.apply(h, 0.5) * ScaleGrad.apply(mlp.gate(z), 0.5))


def patched(case, dtype, mode: str) -> nn.Module:
    """Copy of the model with the AttnLRP backward; mode = attn | cp | gamma (gamma implies cp attention)."""
    net = copy.deepcopy(case.net(dtype))
    for p in net.parameters():
        p.requires_grad_(False)
    net.set_attn_implementation("vitx_attnlrp" if mode == "attn" else "vitx_cplrp")
    for m in net.modules():
        if isinstance(m, nn.LayerNorm):
            m.forward = types.MethodType(_layer_norm, m)
    identity = lambda m: setattr(m, "forward", types.MethodType(
        lambda self, x, f=type(m).forward: IdentityRule.apply(x, lambda t: f(self, t)), m))
    layers = layers_of(net)
    for lay in layers:
        if lay.mlp.gate is None:
            identity(lay.mlp.activation)
        else:
            lay.mlp.module.forward = lambda z, mlp=lay.mlp: _gated(mlp, z)
    if case.model_type == "bert":
        identity(net.bert.pooler.activation)
    if case.model_type == "roberta":
        net.classifier.forward = types.MethodType(_roberta_head, net.classifier)
    if case.model_type == "modernbert":
        identity(net.head.act)
    if mode == "gamma":
        heads = [m for n, m in net.named_children() if isinstance(m, nn.Linear)]
        for m in heads + [x for lay in layers for x in (lay.mlp.first, lay.mlp.gate, lay.mlp.out) if x is not None]:
            m.forward = types.MethodType(_gamma_linear, m)
        conv = case.patches(net)
        conv.forward = types.MethodType(_gamma_conv, conv)
    return net


def relevance(case, dtype, mode: str) -> tuple[Tensor, Tensor, Tensor]:
    """(input * modified gradient, hidden.0 * modified gradient, logits of the patched model)."""
    net = patched(case, dtype, mode)
    x = case.inputs["pixel_values"].to(dtype) if case.vision else case.word_embeddings(dtype)
    x = x.detach().requires_grad_(True)
    kept = {}

    def hook(mod, args):
        kept["h"] = args[0]

    h = layers_of(net)[0].module.register_forward_pre_hook(hook)
    try:
        z = net(**case.model_inputs(dtype, **{"pixel_values" if case.vision else "inputs_embeds": x})).logits
    finally:
        h.remove()
    gx, gh = torch.autograd.grad(case.picked(z).sum(), (x, kept["h"]))
    return (x * gx).detach(), (kept["h"] * gh).detach(), z.detach()


RULES = {
    "attn": "epsilon rule (eps -> 0, bias keeps its share) for linear layers, additions and the mean pooling; "
            "softmax by its Taylor expansion R_s = s * (R_p - p * sum R_p); both attention products by the epsilon rule "
            "with half of the relevance to each factor; LayerNorm with the standard deviation as a constant; "
            "element-wise activations (GELU, tanh, ReLU) pass relevance unchanged; R starts as the target logit itself. "
            "Equivalent to input * gradient with std detached, f(x) -> x * const(f(x)/x), the gradient of value halved and "
            "of query and key quartered",
    "cp": "as attn-lrp, but query and key are constants (no relevance through the softmax) and the value product is not halved",
    "gamma": f"as the cp variant, with the generalised gamma rule: gamma = {GAMMA_LINEAR} in the FFN linear layers of every "
             f"block and the classifier(s), gamma = {GAMMA_CONV} in the patch convolution; query / key / value / output "
             "projections keep the epsilon rule; stabiliser 1e-6 (sign of the denominator)",
}


def produce(case, emit: Emit) -> None:
    for mode in ("attn", "cp") + (("gamma",) if case.vision else ()):
        rx, rh, z = relevance(case, emit.dtype, mode)
        assert emit.dtype != F64 or float((z - case.trace(F64).logits).abs().max()) < 1e-9, (case.name, mode)
        tag = "method.attn-lrp" + ("" if mode == "attn" else "." + mode)
        kw = dict(method="attn-lrp", paper=PAPER if mode != "cp" else PAPER_CP,
                  params={"rules": mode, **({"gamma_linear": GAMMA_LINEAR, "gamma_conv": GAMMA_CONV} if mode == "gamma" else {})})
        d = RULES[mode]
        if case.vision:
            px = rx.sum(1)
            emit(tag, patch_pool(case, px, "sum"), meaning="relevance of the pixels of a patch, [B,rows,cols]", definition=d, **kw)
            emit(tag + ".pixels", px, meaning="relevance summed over channels, [B,H,W]", definition=d, **kw)
        else:
            emit(tag, rx.sum(-1), meaning="relevance of the word embedding (inputs_embeds) summed over D, [B,T]", definition=d, **kw)
        emit(tag + ".tokens", rh.sum(-1), meaning="relevance of hidden.0 summed over D, [B,T], prefix tokens included",
             definition=d, **kw)
