"""One view of every encoder: its layers, what happens inside their attention, and exact rotary positions.

Attention matrices are [B, heads, T, T]: row i reads column j. Token 0 is the classification token where there is one; the
prefix tokens (class, distillation, registers) come before the patches; padding is on the right.
"""
from __future__ import annotations

import contextlib
import math
import os
import types
from dataclasses import dataclass
from typing import Callable, Optional

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers as tf
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTModel, DINOv3ViTPreTrainedModel
from transformers.models.modernbert import modeling_modernbert

torch.set_num_threads(1)
tf.logging.set_verbosity_error()
tf.logging.disable_progress_bar()

F32, F64 = torch.float32, torch.float64
ATTENTION = "vitx_reference"


# --------------------------------------------------------------------------- attention
class Recorder:
    """Collects what happens inside the self-attention modules, and may intervene.

    probs / value: dict layer -> tensor (probabilities after the softmax). `edit_probs(layer, probs)` replaces the
    probabilities before they are used.
    """

    def __init__(self, retain_grad: bool = False, edit_probs: Optional[Callable] = None):
        self.retain_grad, self.edit_probs = retain_grad, edit_probs
        self.probs: dict[int, Tensor] = {}
        self.value: dict[int, Tensor] = {}


_active: list[Recorder] = []


@contextlib.contextmanager
def recording(rec: Recorder):
    _active.append(rec)
    try:
        yield rec
    finally:
        _active.pop()


def _attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kw):
    """Plain softmax attention in the tensors' own dtype (some of the stock versions round to float32)."""
    if scaling is None:
        scaling = query.size(-1) ** -0.5
    rec = _active[-1] if _active else None
    layer = getattr(module, "_layer_index", -1)
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    probs = torch.softmax(scores, dim=-1)
    if rec is not None:
        if rec.edit_probs is not None:
            probs = rec.edit_probs(layer, probs)
        if rec.retain_grad and probs.requires_grad:
            probs.retain_grad()
        rec.probs[layer], rec.value[layer] = probs, value
    return (probs @ value).transpose(1, 2).contiguous(), probs


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)


# --------------------------------------------------------------------------- rotary positions
def rotate_half(x: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)


def line_angles(positions: Tensor, theta: float, head_dim: int) -> Tensor:
    """[..., n] positions -> [..., n, head_dim]: position * theta^(-2i/head_dim), the frequencies twice."""
    f = positions.to(F64)[..., None] * theta ** -(torch.arange(0, head_dim, 2, dtype=F64) / head_dim)
    return torch.cat((f, f), -1)


def grid_angles(rows: int, cols: int, theta: float, head_dim: int) -> Tensor:
    """[rows * cols, head_dim]: centres of patches in [-1, 1], y then x, each with head_dim / 4 frequencies, all twice."""
    centre = lambda n: 2 * (torch.arange(n, dtype=F64) + 0.5) / n - 1
    at = torch.stack(torch.meshgrid(centre(rows), centre(cols), indexing="ij"), -1).flatten(0, 1)
    f = theta ** -(torch.arange(0, head_dim // 4, dtype=F64) * 4 / head_dim)
    return (2 * math.pi * at[:, :, None] * f).flatten(1).tile(2)


@dataclass(frozen=True)
class Rotary:
    """Rotation of query and key by position; with a grid, of the patches only."""
    theta: float
    head_dim: int
    grid: Optional[tuple] = None

    def tables(self, n: int, dtype) -> tuple[Tensor, Tensor]:
        """cos and sin, [n, head_dim] each."""
        if self.grid is None:
            a = line_angles(torch.arange(n), self.theta, self.head_dim)
        else:
            a = grid_angles(*self.grid, self.theta, self.head_dim)
            a = torch.cat((torch.zeros(n - len(a), self.head_dim, dtype=F64), a))
        return a.cos().to(dtype), a.sin().to(dtype)

    def turn(self, t: Tensor) -> Tensor:
        """[..., n, head_dim]"""
        cos, sin = self.tables(t.shape[-2], t.dtype)
        return t * cos + rotate_half(t) * sin

    def turn_back(self, t: Tensor) -> Tensor:
        """The transpose (the inverse) of `turn`."""
        cos, sin = self.tables(t.shape[-2], t.dtype)
        return t * cos - rotate_half(t) * sin

    def for_module(self, n: int, dtype) -> tuple[Tensor, Tensor]:
        """The tables as transformers hands them to a block."""
        cos, sin = self.tables(n, dtype)
        if self.grid is None:
            return cos[None], sin[None]
        first = n - self.grid[0] * self.grid[1]
        return cos[first:], sin[first:]


def _line_tables(self, x, position_ids, layer_type):
    c = self.config
    a = line_angles(position_ids, c.rope_parameters[layer_type]["rope_theta"], c.hidden_size // c.num_attention_heads)
    return a.cos().to(x.dtype), a.sin().to(x.dtype)


def _grid_tables(self, pixel_values):
    h, w = (n // self.config.patch_size for n in pixel_values.shape[-2:])
    a = grid_angles(h, w, self.base, self.head_dim)
    return a.cos().to(pixel_values.dtype), a.sin().to(pixel_values.dtype)


def _rotated(q, k, cos, sin, unsqueeze_dim=1):
    """The stock function without its detour through float32."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin


_stock_rotation = modeling_modernbert.apply_rotary_pos_emb
modeling_modernbert.apply_rotary_pos_emb = _rotated


@contextlib.contextmanager
def stock_rotation():
    modeling_modernbert.apply_rotary_pos_emb = _stock_rotation
    try:
        yield
    finally:
        modeling_modernbert.apply_rotary_pos_emb = _rotated


def exact_positions(model: nn.Module) -> None:
    """Angles in float64: the stock modules compute them in float32 whatever the model's dtype is."""
    if model.config.model_type == "modernbert":
        model.model.rotary_emb.forward = types.MethodType(_line_tables, model.model.rotary_emb)
    if model.config.model_type == "dinov3_vit":
        model.model.rope_embeddings.forward = types.MethodType(_grid_tables, model.model.rope_embeddings)


# --------------------------------------------------------------------------- a head transformers does not have
class DINOv3ViTForImageClassification(DINOv3ViTPreTrainedModel):
    """DINOv3 with the linear head of DINOv2's classifier: on [class token, mean of the patch tokens] after the norm."""

    def __init__(self, config):
        super().__init__(config)
        self.model = DINOv3ViTModel(config)
        self.classifier = nn.Linear(2 * config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, pixel_values, **kw):
        out = self.model(pixel_values, **kw)
        z = out.last_hidden_state
        pooled = torch.cat([z[:, 0], z[:, 1 + self.config.num_register_tokens:].mean(1)], 1)
        return tf.modeling_outputs.ImageClassifierOutput(
            logits=self.classifier(pooled), hidden_states=out.hidden_states, attentions=out.attentions)


def model_class(architecture: str):
    return {"DINOv3ViTForImageClassification": DINOv3ViTForImageClassification}.get(architecture) or getattr(tf, architecture)


# --------------------------------------------------------------------------- layers
@dataclass
class FeedForward:
    """out(act(first z)), or gated: out(act(first z) * gate z)."""
    first: nn.Linear
    activation: nn.Module
    out: nn.Linear
    gate: Optional[nn.Linear] = None
    module: Optional[nn.Module] = None       # gated only: the module whose forward this is

    def __call__(self, z: Tensor) -> Tensor:
        h = self.activation(self.first(z))
        return self.out(h if self.gate is None else h * self.gate(z))


@dataclass
class Layer:
    """One encoder block, whatever the architecture calls its parts.

    norm first:  a = x + s1*Attn(ln1(x));   y = a + s2*mlp(ln2(a))     (ln1 may be missing: Attn reads x itself)
    norm after:  a = ln1(x + Attn(x));      y = ln2(a + mlp(a))
    with Attn(z) = concat_h(P_h (z Wv_h^T + bv_h)) Wo^T + bo, s1/s2 the layer scales (1 if none); P_h from query and key
    after their rotation, if any, and with a window only between tokens at most that far apart.
    """
    index: int
    module: nn.Module
    attn: nn.Module         # the module that calls the attention function
    post_ln: bool
    ln1: Optional[nn.LayerNorm]
    ln2: nn.LayerNorm
    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    o: nn.Linear
    mlp: FeedForward
    heads: int
    head_dim: int
    scale1: Optional[Tensor] = None
    scale2: Optional[Tensor] = None
    rotary: Optional[Rotary] = None
    window: Optional[int] = None

    def run(self, x: Tensor, mask: Optional[Tensor]) -> Tensor:
        """The block of transformers itself."""
        if self.rotary is None:
            y = self.module(x, mask)
        else:
            y = self.module(x, attention_mask=mask, position_embeddings=self.rotary.for_module(x.shape[1], x.dtype))
        return y[0] if isinstance(y, tuple) else y

    # ---- pieces, all differentiable
    def attn_input(self, x: Tensor) -> Tensor:
        return x if self.post_ln or self.ln1 is None else self.ln1(x)

    def split(self, t: Tensor) -> Tensor:
        return t.view(*t.shape[:-1], self.heads, self.head_dim).transpose(1, 2)

    def turn(self, t: Tensor) -> Tensor:
        return t if self.rotary is None else self.rotary.turn(t)

    def turn_back(self, t: Tensor) -> Tensor:
        return t if self.rotary is None else self.rotary.turn_back(t)

    def values(self, x: Tensor) -> Tensor:
        """[B,T,D] block input -> value vectors [B,heads,T,head_dim] (bias included)."""
        return self.split(self.v(self.attn_input(x)))

    def near(self, n: int) -> Optional[Tensor]:
        """[n, n] bool: which pairs of tokens see each other; None: all."""
        at = torch.arange(n)
        return None if self.window is None else (at[:, None] - at[None]).abs() <= self.window

    def out_weight(self) -> Tensor:
        """W_O split over heads: [heads, head_dim, D]."""
        return self.o.weight.T.reshape(self.heads, self.head_dim, -1)

    def attn_out(self, context: Tensor) -> Tensor:
        """context [B,heads,T,head_dim] -> output projection [B,T,D] (bias included, no layer scale)."""
        c = context.transpose(1, 2)
        return self.o(c.reshape(*c.shape[:-2], -1))

    def after_attention(self, x: Tensor, attn_out: Tensor) -> Tensor:
        if self.post_ln:
            return self.ln1(x + attn_out)
        return x + (attn_out if self.scale1 is None else attn_out * self.scale1)

    def after_mlp(self, a: Tensor) -> Tensor:
        if self.post_ln:
            return self.ln2(a + self.mlp(a))
        m = self.mlp(self.ln2(a))
        return a + (m if self.scale2 is None else m * self.scale2)

    def forward(self, x: Tensor, values: Tensor, probs: Tensor) -> Tensor:
        """Whole block from its pieces, with given values and probabilities."""
        return self.after_mlp(self.after_attention(x, self.attn_out(probs @ values)))


def _part(m: nn.Linear, i: int, n: int) -> nn.Linear:
    """The i-th of n equal parts of the outputs of a fused linear layer, as a view."""
    part = nn.Linear(1, 1, bias=m.bias is not None)
    part.weight = nn.Parameter(m.weight.detach().chunk(n)[i], requires_grad=False)
    if m.bias is not None:
        part.bias = nn.Parameter(m.bias.detach().chunk(n)[i], requires_grad=False)
    return part


def layers_of(model: nn.Module, grid: Optional[tuple] = None) -> list[Layer]:
    t, c = model.config.model_type, model.config
    out = []
    if t in ("vit", "deit"):
        for i, b in enumerate(getattr(model, t).layers):
            a = b.attention
            out.append(Layer(i, b, a, False, b.layernorm_before, b.layernorm_after, a.q_proj, a.k_proj, a.v_proj, a.o_proj,
                             FeedForward(b.mlp.fc1, b.mlp.activation_fn, b.mlp.fc2), a.num_attention_heads, a.head_dim))
    elif t in ("dinov2", "dinov2_with_registers"):
        for i, b in enumerate(getattr(model, t).encoder.layer):
            a = b.attention
            out.append(Layer(i, b, a, False, b.norm1, b.norm2, a.q_proj, a.k_proj, a.v_proj, a.o_proj,
                             FeedForward(b.mlp.fc1, b.mlp.activation_fn, b.mlp.fc2), a.num_attention_heads, a.head_dim,
                             b.layer_scale1.lambda1, b.layer_scale2.lambda1))
    elif t == "dinov3_vit":
        for i, b in enumerate(model.model.model.layer):
            a, m = b.attention, b.mlp
            mlp = (FeedForward(m.gate_proj, m.act_fn, m.down_proj, m.up_proj, m) if c.use_gated_mlp
                   else FeedForward(m.up_proj, m.act_fn, m.down_proj))
            out.append(Layer(i, b, a, False, b.norm1, b.norm2, a.q_proj, a.k_proj, a.v_proj, a.o_proj, mlp, a.num_heads,
                             a.head_dim, b.layer_scale1.lambda1, b.layer_scale2.lambda1,
                             Rotary(c.rope_theta, a.head_dim, grid)))
    elif t in ("bert", "roberta"):
        for i, b in enumerate(getattr(model, t).encoder.layer):
            a, so = b.attention.self, b.attention.output
            mlp = FeedForward(b.intermediate.dense, b.intermediate.intermediate_act_fn, b.output.dense)
            out.append(Layer(i, b, a, True, so.LayerNorm, b.output.LayerNorm, a.query, a.key, a.value, so.dense, mlp,
                             a.num_attention_heads, a.attention_head_size))
    elif t == "distilbert":
        for i, b in enumerate(model.distilbert.transformer.layer):
            a = b.attention
            out.append(Layer(i, b, a, True, b.sa_layer_norm, b.output_layer_norm, a.q_lin, a.k_lin, a.v_lin, a.out_lin,
                             FeedForward(b.ffn.lin1, b.ffn.activation, b.ffn.lin2), a.n_heads, a.attention_head_size))
    elif t == "modernbert":
        for i, b in enumerate(model.model.layers):
            a, m = b.attn, b.mlp
            q, k, v = (_part(a.Wqkv, n, 3) for n in range(3))
            local = b.attention_type == "sliding_attention"
            out.append(Layer(i, b, a, False, b.attn_norm if i else None, b.mlp_norm, q, k, v, a.Wo,
                             FeedForward(_part(m.Wi, 0, 2), m.act, m.Wo, _part(m.Wi, 1, 2), m), c.num_attention_heads,
                             a.head_dim, rotary=Rotary(c.rope_parameters[b.attention_type]["rope_theta"], a.head_dim),
                             window=c.local_attention // 2 if local else None))
    else:
        raise ValueError(t)
    return out
