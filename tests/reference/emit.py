"""How a method's arrays are stored: in float64, with the drift of the same code in float32 as the measure of tolerance.

Every module of methods has a function `produce(case, emit)` and a TOLERANCE. It runs twice, in float64 (the stored values) and in
float32 (only to learn how far an honest float32 implementation may drift).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

import torch
from torch import Tensor

from case import Case
from model import F32, F64


@dataclass(frozen=True)
class Tolerance:
    """atol = max(floor, share * largest value, drift * error of the float32 pass)"""
    floor: float
    share: float
    drift: float


class Emit:
    def __init__(self, case: Case, compact: bool, only: tuple = ()):
        """`compact`: without the pixel-sized arrays; `only`: the attention arrays of these keys."""
        self.case, self.compact, self.only, self.dtype = case, compact, only, F64
        self.tolerance: Optional[Tolerance] = None
        self.values: dict[str, Tensor] = {}
        self.meta: dict[str, dict] = {}
        self.low: dict[str, Tensor] = {}
        self.injected: dict[str, Tensor] = {}

    def run(self, module) -> None:
        self.tolerance = module.TOLERANCE
        for self.dtype in (F64, F32):
            module.produce(self.case, self)

    def noise(self, name: str, make: Callable[[torch.Generator], Tensor]) -> Tensor:
        """Injected tensor `noise.<name>`: generated once, rounded to float32, returned in the pass's dtype."""
        key = "noise." + name
        if key not in self.injected:
            self.injected[key] = make(self.case.rng(key)).to(F32).contiguous()
        return self.injected[key].to(self.dtype)

    def normal(self, name: str, shape: tuple) -> Tensor:
        return self.noise(name, lambda g: torch.randn(shape, generator=g))

    def __call__(self, key: str, value: Tensor, *, meaning: str, definition: str, paper: str, method: Optional[str] = None,
                 params: Optional[dict] = None, atol: Optional[float] = None, rtol: float = 1e-4, big: bool = False) -> None:
        """`big` arrays are left out of compact cases."""
        if big and self.compact:
            return
        key = key if key.startswith(("method.", "metric.")) else "method." + key
        value = value.detach()
        if self.dtype == F32:
            self.low[key] = value
            return
        assert key not in self.values, key
        assert torch.isfinite(value).all(), f"{self.case.name} {key} is not finite"
        if self.case.mean_pooled:
            for row in ("Row 0", "row 0"):
                definition = definition.replace(row, row[0] + "ow that the head reads: mean of the real tokens' rows")
        self.values[key] = value
        self.meta[key] = {"method": method or key.split(".")[1], "params": params or {}, "shape": list(value.shape),
                          "meaning": meaning, "definition": definition, "source": paper, "atol": atol, "rtol": rtol,
                          "tolerance": self.tolerance}

    def finish(self) -> None:
        """Put everything into the case."""
        for key, v in self.values.items():
            meta = dict(self.meta[key])
            atol, rtol, tol = meta.pop("atol"), meta.pop("rtol"), meta.pop("tolerance")
            scale = float(v.abs().max()) if v.numel() else 0.0
            meta["max_abs"] = float(f"{scale:.6g}")
            err, low = 0.0, self.low[key]
            if v.numel() and low.shape == v.shape:
                err = float((low.to(F64) - v.to(F64)).abs().max())
                meta["f32_error"] = float(f"{err:.2e}")
            atol = max(tol.floor, tol.share * scale) if atol is None else atol
            meta["atol"], meta["rtol"] = float(f"{max(atol, tol.drift * err):.3g}"), rtol
            self.case.expected[key], self.case.methods[key] = v.to(F32).contiguous().clone(), meta
        self.case.extra_inputs.update(self.injected)
