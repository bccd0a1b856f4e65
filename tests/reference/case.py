"""A case: a tiny model with its inputs and targets, run with everything exposed."""
from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model import F32, F64, Layer, Recorder, exact_positions, layers_of, recording


@dataclass
class Trace:
    """One forward pass, and the backward pass from the target logits, with everything kept.

    hidden[l], hidden_grad[l]: l = 0..L (0 = embedding output, l = output of block l-1)
    attn[l], attn_grad[l]: l = 0..L-1, softmax probabilities and d logit[target] / d probabilities
    value[l]: value vectors [B, heads, T, head_dim]
    """
    logits: Tensor
    hidden: list
    hidden_grad: list
    attn: list
    attn_grad: list
    value: list


@dataclass
class Case:
    name: str
    description: str
    model: nn.Module                 # float32, eval mode
    inputs: dict                     # what the model is called with (float32 / int64)
    call: dict                       # extra keyword arguments (interpolate_pos_encoding)
    seed: int
    n_prefix: int = 0                # vision only
    grid: Optional[tuple] = None     # (rows, cols) of patches, vision only
    patch: int = 0
    texts: Optional[list] = None
    processor: Any = None            # image processor or tokenizer, saved next to the model
    targets: Optional[Tensor] = None
    config_edit: Optional[Callable[[dict], dict]] = None     # how config.json is written, if not as transformers does
    extra_inputs: dict = field(default_factory=dict)
    expected: dict = field(default_factory=dict)
    methods: dict = field(default_factory=dict)
    info: dict = field(default_factory=dict)
    _models: dict = field(default_factory=dict)
    _traces: dict = field(default_factory=dict)

    # ---- facts
    @property
    def model_type(self) -> str:
        return self.model.config.model_type

    @property
    def vision(self) -> bool:
        return "pixel_values" in self.inputs

    @property
    def B(self) -> int:
        return next(iter(self.inputs.values())).shape[0]

    @property
    def T(self) -> int:
        return self.n_prefix + self.grid[0] * self.grid[1] if self.vision else self.inputs["input_ids"].shape[1]

    @property
    def mask2d(self) -> Tensor:
        """[B,T] bool, True on real tokens."""
        if self.vision:
            return torch.ones(self.B, self.T, dtype=torch.bool)
        return self.inputs["attention_mask"].bool()

    @property
    def lengths(self) -> list:
        return self.mask2d.sum(1).tolist()

    @property
    def gated(self) -> bool:
        return self.layers()[0].mlp.gate is not None

    @property
    def patch_mean(self) -> bool:
        """The head reads the class token and the mean of the patch tokens, side by side."""
        return self.model_type.startswith("dino")

    @property
    def mean_pooled(self) -> bool:
        """The head reads the mean of the real tokens."""
        return getattr(self.model.config, "classifier_pooling", "cls") == "mean"

    def readout(self, n: int, dtype=F64) -> Tensor:
        """[n] weights of the output rows that are explained: the class token's row, or what the head's mean reads."""
        if self.mean_pooled:
            return torch.full((n,), 1 / n, dtype=dtype)
        return torch.eye(n, dtype=dtype)[0]

    def read(self, M: Tensor) -> Tensor:
        """[..., n, n] or [n, n] -> the explained row [..., n]."""
        return self.readout(M.shape[-2], M.dtype) @ M if self.mean_pooled else M[..., 0, :]

    # ---- the model
    def net(self, dtype=F64) -> nn.Module:
        """The model in the given dtype (weights are the float32 ones, cast)."""
        if dtype == F32:
            return self.model
        if dtype not in self._models:
            m = copy.deepcopy(self.model).to(dtype).eval()
            exact_positions(m)
            self._models[dtype] = m
        return self._models[dtype]

    def base(self, dtype=F64) -> nn.Module:
        """The encoder without its head."""
        net = self.net(dtype)
        return net.model if self.model_type in ("modernbert", "dinov3_vit") else getattr(net, self.model_type)

    def patches(self, net: nn.Module) -> nn.Conv2d:
        """The patch convolution of `net`."""
        m = net.model if self.model_type == "dinov3_vit" else getattr(net, self.model_type)
        p = m.embeddings.patch_embeddings
        return p if isinstance(p, nn.Conv2d) else p.projection

    def final_norm(self, dtype=F64) -> Optional[nn.LayerNorm]:
        base = self.base(dtype)
        return next((getattr(base, n) for n in ("layernorm", "norm", "final_norm") if hasattr(base, n)), None)

    def layers(self, dtype=F64) -> list[Layer]:
        return layers_of(self.net(dtype), self.grid)

    def mask(self, lay: Layer, dtype=F64) -> Optional[Tensor]:
        """Additive mask of a layer (0 / lowest finite value), None where every token sees every other."""
        m, near = self.mask2d[:, None, None, :], lay.near(self.T)
        if near is not None:
            m = m & near
        elif bool(m.all()):
            return None
        return torch.zeros(m.shape, dtype=dtype).masked_fill(~m, torch.finfo(dtype).min)

    def model_inputs(self, dtype=F64, **override) -> dict:
        """Keyword arguments for a forward call; override pixel_values / inputs_embeds / anything.

        With inputs_embeds the ids are dropped, and RoBERTa's position ids are passed, which would otherwise change.
        """
        kw = {**self.inputs, **self.call}
        if "inputs_embeds" in override:
            kw.pop("input_ids")
            if self.model_type == "roberta":
                kw["position_ids"] = self.roberta_positions()
        kw.update(override)
        return {k: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in kw.items()}

    def roberta_positions(self) -> Tensor:
        pad = self.model.config.pad_token_id
        real = self.inputs["input_ids"].ne(pad).long()
        return torch.cumsum(real, 1) * real + pad

    def logits(self, dtype=F64, **override) -> Tensor:
        """Differentiable logits [B,C]."""
        return self.net(dtype)(**self.model_inputs(dtype, **override)).logits

    def word_embeddings(self, dtype=F64) -> Tensor:
        """Word-embedding rows of the input ids, [B,T,D] (text only), detached."""
        return self.net(dtype).get_input_embeddings()(self.inputs["input_ids"]).detach()

    def picked(self, logits: Tensor) -> Tensor:
        """logits [B,C] -> logit of each row's target [B]."""
        return logits.gather(1, self.targets[:, None])[:, 0]

    def head(self, hidden: Tensor, dtype=F64) -> Tensor:
        """Output of the last block [B,T,D] -> logits [B,C] (final norm, pooling and classifier)."""
        m, t, norm = self.net(dtype), self.model_type, self.final_norm(dtype)
        z = hidden if norm is None else norm(hidden)
        if t == "vit":
            return m.classifier(z[:, 0])
        if t == "deit":
            return (m.cls_classifier(z[:, 0]) + m.distillation_classifier(z[:, 1])) / 2
        if self.patch_mean:
            return m.classifier(torch.cat([z[:, 0], z[:, self.n_prefix:].mean(1)], 1))
        if t == "bert":
            return m.classifier(m.bert.pooler(z))
        if t == "roberta":
            return m.classifier(z)
        if t == "distilbert":
            return m.classifier(torch.relu(m.pre_classifier(z[:, 0])))
        if t == "modernbert":
            return m.classifier(m.head(self.pool(z)))
        raise ValueError(t)

    def pool(self, z: Tensor) -> Tensor:
        """[B,T,D] -> [B,D]: the class token, or the mean of the real tokens."""
        if not self.mean_pooled:
            return z[:, 0]
        w = self.mask2d.to(z.dtype)[..., None]
        return (z * w).sum(1) / w.sum(1)

    def run_from(self, start: int, hidden: Tensor, dtype=F64) -> Tensor:
        """hidden.{start} [B,T,D] -> logits, through blocks start..L-1 and the head."""
        for lay in self.layers(dtype)[start:]:
            hidden = lay.run(hidden, self.mask(lay, dtype))
        return self.head(hidden, dtype)

    def trace(self, dtype=F64) -> Trace:
        if dtype in self._traces:
            return self._traces[dtype]
        net, lays = self.net(dtype), self.layers(dtype)
        hidden, handles = {}, []

        def keep(l, x):
            if not x.requires_grad:
                x.requires_grad_(True)
            x.retain_grad()
            hidden[l] = x

        def hook(args, out, l):
            if l == 0:
                keep(0, args[0])
            keep(l + 1, out[0] if isinstance(out, tuple) else out)

        for lay in lays:
            handles.append(lay.module.register_forward_hook(lambda m, a, o, l=lay.index: hook(a, o, l)))
        try:
            net.zero_grad(set_to_none=True)
            with recording(Recorder(retain_grad=True)) as rec:
                logits = self.logits(dtype)
            self.picked(logits).sum().backward()
        finally:
            for h in handles:
                h.remove()
        L = range(len(lays))
        zero = lambda t: torch.zeros_like(t) if t.grad is None else t.grad.detach().clone()
        self._traces[dtype] = Trace(
            logits.detach(), [hidden[l].detach() for l in (*L, len(lays))], [zero(hidden[l]) for l in (*L, len(lays))],
            [rec.probs[l].detach() for l in L], [zero(rec.probs[l]) for l in L], [rec.value[l].detach() for l in L])
        net.zero_grad(set_to_none=True)
        return self._traces[dtype]

    # ---- shaping
    def map(self, vec: Tensor) -> Tensor:
        """Per-token scores [B,T] -> stored map: [B,rows,cols] (prefix dropped) or [B,T] (padding 0)."""
        if self.vision:
            return vec[:, self.n_prefix:].reshape(vec.shape[0], *self.grid)
        return vec * self.mask2d.to(vec.dtype)

    def per_example(self, fn: Callable[[int, int], Tensor]) -> Tensor:
        """Run fn(b, n) -> [n,n] or [n] on the real tokens of each row, zero-pad to T, stack."""
        out = []
        for b, n in enumerate(self.lengths):
            r = fn(b, n)
            full = torch.zeros((self.T,) * r.dim(), dtype=r.dtype)
            full[(slice(0, n),) * r.dim()] = r
            out.append(full)
        return torch.stack(out)

    def rng(self, what: str) -> torch.Generator:
        """Deterministic generator for a named random quantity of this case."""
        h = hashlib.sha256(f"{self.name}/{self.seed}/{what}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(h[:7], "big"))

    # ---- writing
    def write(self, out: str) -> str:
        d = os.path.join(out, self.name)
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
        self.write_model(os.path.join(d, "model"))
        save_file({k: v.contiguous().clone() for k, v in {**self.inputs, **self.extra_inputs}.items()},
                  os.path.join(d, "inputs.safetensors"))
        tr = self.trace(F64)
        exp = {"logits": tr.logits}
        for name, list_ in (("hidden", tr.hidden), ("attention", tr.attn), ("attention_grad", tr.attn_grad)):
            exp.update({f"{name}.{l}": t for l, t in enumerate(list_)})
        exp = {k: v.to(F32).contiguous().clone() for k, v in exp.items()}
        exp.update(self.expected)
        save_file(exp, os.path.join(d, "expected.safetensors"))
        meta = {"model_type": self.model_type, "description": self.description,
                "targets": self.targets.tolist(), "seed": self.seed, "call": self.call,
                "n_prefix": self.n_prefix, "grid": list(self.grid) if self.grid else None,
                "patch": self.patch or None, "lengths": self.lengths}
        if self.texts is not None:
            meta["texts"] = self.texts
        meta.update(self.info)
        line = lambda k, v: f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}"
        with open(os.path.join(d, "case.json"), "w") as f:
            f.write("{\n" + "".join(line(k, v) + ",\n" for k, v in meta.items()))
            f.write(' "methods": {\n' + ",\n".join(line(k, v) for k, v in self.methods.items()) + "\n }\n}\n")
        for folder, _, files in os.walk(d):
            for f in files:
                os.chmod(os.path.join(folder, f), 0o644)
        return d

    def write_model(self, d: str) -> None:
        self.model.save_pretrained(d)
        self.processor.save_pretrained(d)
        edits = {"config.json": self.config_edit}
        if self.model_type == "modernbert":     # as the checkpoints on the hub have it
            edits["tokenizer_config.json"] = lambda c: {**c, "tokenizer_class": "PreTrainedTokenizerFast"}
        for file, edit in edits.items():
            if edit is not None:
                path = os.path.join(d, file)
                with open(path) as f:
                    new = edit(json.load(f))
                with open(path, "w") as f:
                    f.write(json.dumps(new, indent=2, sort_keys=True) + "\n")
