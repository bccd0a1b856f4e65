"""Activation maximisation: plain gradient ascent on score(I) - lambda * ||I||^2."""
from __future__ import annotations

import torch
from torch import Tensor

from emit import Emit, Tolerance

TOLERANCE = Tolerance(1e-6, 2e-5, 10)

PAPER = "Simonyan et al. 2013; Erhan et al. 2009"
LR, LAMBDA, STEPS, UNIT_LAYER, UNIT_CHANNEL = 0.5, 0.01, 3, 2, 5


def unit_value(case, dtype, img: Tensor) -> Tensor:
    """Mean over all T tokens (prefix included) of channel UNIT_CHANNEL of hidden.UNIT_LAYER, [B]."""
    kept = {}
    lay = case.layers(dtype)[UNIT_LAYER - 1]
    h = lay.module.register_forward_hook(lambda m, a, o: kept.__setitem__("h", o[0] if isinstance(o, tuple) else o))
    try:
        case.logits(dtype, pixel_values=img)
    finally:
        h.remove()
    return kept["h"][..., UNIT_CHANNEL].mean(1)


def ascend(case, dtype, start: Tensor, score) -> tuple[list, list]:
    """Images after every step and objective values before every step plus the final one."""
    img, imgs, values = start, [], []
    for k in range(STEPS + 1):
        img = img.detach().requires_grad_(True)
        obj = score(img) - LAMBDA * (img ** 2).flatten(1).sum(1)
        values.append(obj.detach())
        if k < STEPS:
            img = (img + LR * torch.autograd.grad(obj.sum(), img)[0]).detach()
            imgs.append(img)
    return imgs, values


def produce(case, emit: Emit) -> None:
    if not case.vision or emit.compact:
        return
    dtype = emit.dtype
    start = 0.1 * emit.normal("actmax-start", tuple(case.inputs["pixel_values"].shape))
    cls = lambda t: case.picked(case.logits(dtype, pixel_values=t))
    unit = lambda t: unit_value(case, dtype, t)
    for name, f, what in (("class", cls, "logit of the example's target"),
                          ("unit", unit, f"mean over all tokens (prefix included) of channel {UNIT_CHANNEL} of hidden.{UNIT_LAYER}")):
        imgs, values = ascend(case, dtype, start, f)
        par = {"lr": LR, "lambda": LAMBDA, "steps": STEPS, "start": "0.1 * noise.actmax-start [B,3,H,W]"}
        if name == "unit":
            par.update(layer=UNIT_LAYER, channel=UNIT_CHANNEL)
        d = (f"J(I) = S(I) - lambda * sum of I^2, S = {what}; I <- I + lr * dJ/dI = I + lr * (dS/dI - 2 lambda I); I is the "
             "normalised image, not clipped, every example has its own image")
        for k, im in enumerate(imgs, 1):
            if name == "unit" and k < STEPS:
                continue
            emit(f"method.activation-maximization.{name}.step{k}", im, params=par, meaning="image after step k [B,3,H,W]", definition=d, paper=PAPER)
        emit(f"method.activation-maximization.{name}.objective", torch.stack(values, 1), params=par,
             meaning="J before step 1, 2, 3 and after the last, [B,4]", definition=d, paper=PAPER)
