"""Faithfulness and localisation metrics for a fixed, injected map."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from emit import Emit, Tolerance
from inputs import black, delete_tokens, forward_row, score_row, special_mask, upsample

TOLERANCE = Tolerance(1e-6, 2e-5, 10)

P_RISE = "Petsiuk, Das & Saenko 2018, RISE (deletion / insertion)"
P_PERT = "Chefer, Gur & Wolf 2021 (positive / negative perturbation, segmentation)"
P_ERASER = "DeYoung et al. 2020, ERASER; AOPC: Samek et al. 2017"
P_POINT = "Zhang et al. 2018, Excitation backprop (pointing game); energy version: Wang et al. 2020, Score-CAM"
BINS = (1, 5, 10, 20, 50)
NEAR = 3


def distinct(shape: tuple):
    """Maker of an injected map with clearly distinct, unevenly spaced values within one example."""
    def make(g):
        n = math.prod(shape[1:])
        rows = [((torch.randperm(n, generator=g) + 0.1 + 0.8 * torch.rand(n, generator=g)) / n) ** 2 for _ in range(shape[0])]
        return torch.stack(rows).reshape(shape)
    return make


def clear_of_mean(make, size: tuple, margin: float = 1e-5):
    """Redraw an injected map until, min-max normalised and resized to `size`, no value is close to the mean."""
    def again(g):
        for _ in range(200):
            m = make(g).float()
            ok = True
            for r in upsample(m.double(), size):
                r = (r - r.min()) / (r.max() - r.min())
                ok &= float((r - r.mean()).abs().min()) > margin
            if ok:
                return m
        raise RuntimeError("no suitable map")
    return again


def peaked(case, mask: Tensor):
    """As `distinct` [B,H,W], with the maximum of even rows inside the mask and of odd rows 2 pixels right of it."""
    def make(g):
        m = distinct(tuple(mask.shape))(g)
        for b in range(case.B):
            ys, xs = torch.nonzero(mask[b] > 0, as_tuple=True)
            k = len(ys) // 2
            i, j = int(ys[k]), int(xs[k])
            if b % 2:
                j = min(int(xs[ys == i].max()) + 2, mask.shape[-1] - 1)
            f, top, here = m[b].flatten(), int(m[b].argmax()), i * mask.shape[-1] + j
            f[top], f[here] = float(f[here]), float(f[top])
            m[b] = f.reshape(m[b].shape)
        return m
    return make


def order(scores: Tensor, descending: bool = True) -> list:
    """Indices by score; equal scores keep their index order in both directions."""
    s = -scores if descending else scores
    return torch.argsort(s.flatten(), stable=True).tolist()


def trapezoid(curve: Tensor) -> Tensor:
    """Mean height of the piecewise linear curve through equally spaced points, over the last dimension."""
    return (curve.sum(-1) - (curve[..., 0] + curve[..., -1]) / 2) / (curve.shape[-1] - 1)


def patch_selection(case, idx: list) -> Tensor:
    """Patch indices -> bool [H,W]."""
    H, W = case.inputs["pixel_values"].shape[-2:]
    p, (_, C) = case.patch, case.grid
    sel = torch.zeros(H, W, dtype=torch.bool)
    for k in idx:
        i, j = divmod(k, C)
        sel[i * p:(i + 1) * p, j * p:(j + 1) * p] = True
    return sel


def steps(n: int, size: int) -> list:
    return [min(k * size, n) for k in range(-(-n // size) + 1)]


def reveal_curve(case, dtype, b: int, ranking: list, size: int, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Scores while the patches of `ranking` switch from image `start` to image `end`, `size` patches at a time."""
    imgs = torch.stack([torch.where(patch_selection(case, ranking[:k]), end, start) for k in steps(len(ranking), size)])
    return score_row(case, dtype, b, pixel_values=imgs)


def blur(case) -> Tensor:
    """Gaussian blur (sigma = half a patch, reflected border) of the normalised image; stored as an input."""
    from scipy.ndimage import gaussian_filter
    x = case.inputs["pixel_values"].double().numpy()
    s = case.patch / 2
    return torch.from_numpy(gaussian_filter(x, (0, 0, s, s), mode="reflect"))


def mask_blob(case, g) -> Tensor:
    """[B,H,W] in {0,1}: one filled ellipse per example."""
    H, W = case.inputs["pixel_values"].shape[-2:]
    yy, xx = torch.meshgrid(torch.arange(H).float(), torch.arange(W).float(), indexing="ij")
    out = []
    for _ in range(case.B):
        u = torch.rand(4, generator=g)
        cy, cx, ry, rx = (0.3 + 0.4 * u[0]) * H, (0.3 + 0.4 * u[1]) * W, (0.15 + 0.2 * u[2]) * H, (0.15 + 0.2 * u[3]) * W
        out.append((((yy - cy) / ry) ** 2 + ((xx - cx) / rx) ** 2 <= 1).float())
    return torch.stack(out)


def produce(case, emit: Emit) -> None:
    (vision if case.vision else text)(case, emit)


# --------------------------------------------------------------------------- vision
def vision(case, emit: Emit) -> None:
    dtype = emit.dtype
    x = case.inputs["pixel_values"].to(dtype)
    B, (R, C) = case.B, case.grid
    H, W = x.shape[-2:]
    patch_map = emit.noise("metric-map", clear_of_mean(distinct((B, R, C)), (H, W)))
    blurred = None if emit.compact else emit.noise("metric-blur", lambda g: blur(case))
    mask = emit.noise("metric-mask", lambda g: mask_blob(case, g))
    pixel_map = emit.noise("metric-pixel-map", clear_of_mean(peaked(case, mask), (H, W)))
    zero = torch.zeros_like(x)

    runs = {"deletion": ("x", "zero"), "insertion": ("blur", "x"), "insertion.zero": ("zero", "x")}
    pick = {"x": x, "zero": zero, "blur": blurred}
    what = {"x": "the image", "zero": "0 after normalisation", "blur": "noise.metric-blur"}
    for name, (s, e) in runs.items():
        for size in (1, 3):
            if emit.compact and (s == "blur" or (size > 1 and name != "deletion")):
                continue
            res = [reveal_curve(case, dtype, b, order(patch_map[b]), size, pick[s][b], pick[e][b]) for b in range(B)]
            tag = f"metric.{name}" + (f".step{size}" if size > 1 else "")
            par = {"map": "noise.metric-map [B,rows,cols]", "start": what[s], "end": what[e], "patches_per_step": size}
            d = (f"patches in descending order of the map (ties: lower index first) switch from [{what[s]}] to [{what[e]}], "
                 f"{size} per step, the last step may be smaller; point k = after k steps, point 0 = nothing switched")
            for q, qn in ((1, "prob"), (0, "logit")):
                c = torch.stack([r[q] for r in res])
                kw = dict(method=name.split(".")[0], params=par, paper=P_RISE)
                emit(f"{tag}.{qn}", c, meaning=f"target {qn} curve [B,points]", definition=d, **kw)
                emit(f"{tag}.{qn}.auc", trapezoid(c), meaning="[B]",
                     definition="(sum - (first + last)/2) / (points - 1) of the curve, i.e. equally spaced points on [0,1]", **kw)

    base = black(case, dtype).expand_as(x)
    for name, m, level in (("perturbation", pixel_map, "pixel"), ("perturbation-patch", patch_map, "patch")):
        n = m[0].numel()
        for sign, desc in (("positive", True), ("negative", False)):
            imgs = torch.zeros(B, 9, *x.shape[1:], dtype=dtype)
            for b in range(B):
                rk = order(m[b], desc)
                for i in range(1, 10):
                    idx = rk[:n * i // 10]
                    if level == "patch":
                        sel = patch_selection(case, idx)
                    else:
                        sel = torch.zeros(H * W, dtype=torch.bool)
                        sel[idx] = True
                        sel = sel.reshape(H, W)
                    imgs[b, i - 1] = torch.where(sel, base[b], x[b])
            with torch.no_grad():
                z = torch.stack([forward_row(case, dtype, b, pixel_values=imgs[b]) for b in range(B)])
            perturbation_entries(case, emit, z, f"metric.{name}.{sign}",
                                 f"the first floor(N*i/10) of N {level}s in {'descending' if desc else 'ascending'} order of the map "
                                 "(ties: lower index first) are set to a black pixel, (0-mean)/std after normalisation, i = 1..9",
                                 {"map": f"noise.metric-{'pixel-' if level == 'pixel' else ''}map", "baseline": "black before normalisation"})

    up = upsample(patch_map, (H, W))
    for tag, m, src in (("segmentation", up, "noise.metric-map, resized bilinearly to the image"),
                        ("segmentation-pixel", pixel_map, "noise.metric-pixel-map")):
        segmentation_entries(emit, m, mask, tag, src)

    hit, near, energy = [], [], []
    for b in range(B):
        k = int(pixel_map[b].flatten().argmax())
        i, j = divmod(k, W)
        ys, xs = torch.nonzero(mask[b] > 0, as_tuple=True)
        dist = torch.sqrt(((ys - i) ** 2 + (xs - j) ** 2).double()).min() if len(ys) else torch.tensor(math.inf)
        hit.append(float(mask[b, i, j] > 0))
        near.append(float(dist <= NEAR))
        pos = pixel_map[b].clamp(min=0)
        energy.append((pos * mask[b]).sum() / pos.sum())
    par = {"map": "noise.metric-pixel-map", "mask": "noise.metric-mask"}
    t = lambda v: torch.tensor(v, dtype=dtype)
    emit("metric.pointing-game", t(hit), params=par, meaning="0/1 per example [B]", atol=0.0, rtol=0.0, paper=P_POINT,
         definition="1 if the pixel with the largest value (ties: first in row-major order) lies in the mask")
    emit("metric.pointing-game.tolerance", t(near), params={**par, "tolerance": NEAR}, meaning="0/1 per example [B]", atol=0.0,
         rtol=0.0, paper=P_POINT, definition="1 if the Euclidean distance from that pixel to the nearest mask pixel is <= tolerance pixels")
    emit("metric.pointing-game.energy", torch.stack(energy), params=par, meaning="[B]", paper=P_POINT,
         definition="sum of max(map, 0) inside the mask / sum of max(map, 0)")


def perturbation_entries(case, emit: Emit, z: Tensor, tag: str, d: str, par: dict) -> None:
    """z: logits [B,9,C] at 10 % .. 90 %."""
    t = case.targets[:, None, None].expand(-1, 9, 1)
    prob = torch.softmax(z, -1).gather(2, t)[..., 0]
    logit = z.gather(2, t)[..., 0]
    hit = (z.argmax(-1) == case.targets[:, None]).to(z.dtype)
    top = z.topk(2, -1)[0]
    assert float((top[..., 0] - top[..., 1]).min()) > 1e-4, "argmax too close to a tie"
    for n, v, what in (("prob", prob, "softmax probability of the target"), ("logit", logit, "target logit"),
                       ("hit", hit, "1 if the prediction is the target")):
        kw = dict(method="perturbation", params=par, paper=P_PERT)
        emit(f"{tag}.{n}", v, meaning=f"{what}, [B,9]", definition=d, **kw)
        emit(f"{tag}.{n}.auc", trapezoid(v), meaning="[B]", definition="(sum - (first + last)/2) / 8 over the nine points", **kw)
        emit(f"{tag}.{n}.mean", v.mean(-1), meaning="[B]", definition="plain mean of the nine points", **kw)


def average_precision(score: Tensor, label: Tensor) -> Tensor:
    """sum_k (recall_k - recall_{k-1}) precision_k over the distinct score values, descending."""
    s, idx = torch.sort(score, descending=True, stable=True)
    y = label[idx].to(score.dtype)
    tp = y.cumsum(0)
    last = torch.ones(len(s), dtype=torch.bool)
    last[:-1] = s[1:] != s[:-1]
    tp, count = tp[last], torch.nonzero(last)[:, 0].to(score.dtype) + 1
    rec = tp / tp[-1]
    return ((rec - torch.cat([torch.zeros(1, dtype=rec.dtype), rec[:-1]])) * tp / count).sum()


def segmentation_entries(emit: Emit, maps: Tensor, mask: Tensor, tag: str, src: str) -> None:
    acc, iou, ap, f1, inter_all, union_all, ok_all = [], [], [], [], 0, 0, 0
    for m, t in zip(maps, mask):
        lo, hi = m.min(), m.max()
        r = (m - lo) / (hi - lo)
        assert float((r - r.mean()).abs().min()) > 2e-6, "a value sits on the threshold"
        pred, t = r > r.mean(), t > 0
        cnt = lambda v: v.sum().to(m.dtype)
        inter = torch.stack([cnt(~pred & ~t), cnt(pred & t)])
        union = torch.stack([cnt(~pred | ~t), cnt(pred | t)])
        acc.append(cnt(pred == t) / t.numel())
        iou.append(inter / union.clamp(min=1))
        f1.append(2 * inter[1] / (cnt(pred) + cnt(t)))
        ap.append(average_precision(torch.cat([(1 - r).flatten(), r.flatten()]), torch.cat([(~t).flatten(), t.flatten()])))
        inter_all, union_all, ok_all = inter_all + inter, union_all + union, ok_all + cnt(pred == t)
    iou, acc, ap, f1 = (torch.stack(v) for v in (iou, acc, ap, f1))
    par = {"map": src, "mask": "noise.metric-mask [B,H,W] in {0,1}"}
    pre = "r = min-max of the map to [0,1]; prediction = (r > mean of r); "
    kw = dict(method="segmentation", params=par, paper=P_PERT)
    emit(f"metric.{tag}.pixel-accuracy", acc, meaning="[B]", definition=pre + "share of pixels where prediction and mask agree", **kw)
    emit(f"metric.{tag}.iou", iou, meaning="[B,2] = (background, foreground)", definition=pre + "intersection / union (0 if the union is empty)", **kw)
    emit(f"metric.{tag}.miou", iou.mean(1), meaning="[B]", definition="mean of the two IoU values", **kw)
    emit(f"metric.{tag}.ap", ap, meaning="[B]", atol=1e-4 if tag == "segmentation" else None,
         definition="average precision over 2*H*W items: scores (1-r, r), labels (not mask, mask); step-wise sum over distinct "
                    "score values, no interpolation", **kw)
    emit(f"metric.{tag}.f1", f1, meaning="[B]", definition=pre + "2 TP / (predicted + true foreground) over the whole image", **kw)
    ds = torch.stack([ok_all / mask.numel(), (inter_all / union_all).mean(), ap.mean()])
    emit(f"metric.{tag}.dataset", ds, meaning="[3] = (pixel accuracy, mIoU, mAP) of all examples together", atol=1e-4 if tag == "segmentation" else None,
         definition="pixel counts, intersections and unions are added up over the examples before dividing; AP is averaged", **kw)


# --------------------------------------------------------------------------- text
def text(case, emit: Emit) -> None:
    dtype, tok = emit.dtype, case.processor
    scores = emit.noise("metric-map", distinct((case.B, case.T)))
    content = [[j for j in range(n) if not bool(special_mask(case)[b, j])] for b, n in enumerate(case.lengths)]
    ids = case.inputs["input_ids"]
    am = case.inputs["attention_mask"]

    def ranked(b, desc=True):
        c = content[b]
        return [c[k] for k in order(scores[b][c], desc)]

    for sign, desc in (("positive", True), ("negative", False)):
        zs = []
        for b in range(case.B):
            rk, var = ranked(b, desc), ids[b:b + 1].repeat(9, 1)
            for i in range(1, 10):
                var[i - 1, rk[:len(rk) * i // 10]] = tok.mask_token_id
            with torch.no_grad():
                zs.append(forward_row(case, dtype, b, input_ids=var))
        perturbation_entries(case, emit, torch.stack(zs), f"metric.perturbation.{sign}",
                             f"n = number of real tokens that are neither classification nor separator token; the first floor(n*i/10) of them in "
                             f"{'descending' if desc else 'ascending'} order of the map (ties: lower index first) are replaced by the mask token, i = 1..9",
                             {"map": "noise.metric-map [B,T]", "replace": "mask token"})

    for mode in ("delete", "mask"):
        comp, suff = torch.zeros(case.B, len(BINS), dtype=dtype), torch.zeros(case.B, len(BINS), dtype=dtype)
        for b in range(case.B):
            p = score_row(case, dtype, b, attention_mask=am[b:b + 1])[1][0]
            rk = ranked(b)
            for q, pct in enumerate(BINS):
                k = max(1, -(-len(rk) * pct // 100))
                for out, gone in ((comp, rk[:k]), (suff, rk[k:])):
                    if mode == "delete":
                        kw = delete_tokens(case, b, gone)
                    else:
                        v = ids[b:b + 1].clone()
                        v[0, gone] = tok.mask_token_id
                        kw = {"input_ids": v}
                    out[b, q] = p - score_row(case, dtype, b, **kw)[1][0]
        how = {"delete": "tokens are cut out of the sequence (later ones move up)", "mask": "tokens are replaced by the mask token"}[mode]
        par = {"map": "noise.metric-map [B,T]", "bins_percent": list(BINS), "removal": how}
        d = ("n = number of real tokens that are neither classification nor separator token, k = max(1, ceil(q n)), r_k = the k of them with the "
             f"largest score (ties: lower index first); special tokens always stay; {how}; probability of the target: ")
        for n, v, e in (("comprehensiveness", comp, "p(x) - p(x without r_k)"), ("sufficiency", suff, "p(x) - p(only r_k)")):
            emit(f"metric.eraser.{mode}.{n}", v, method="eraser", params=par, meaning="[B,bins]", definition=d + e, paper=P_ERASER)
            emit(f"metric.eraser.{mode}.{n}.aopc", v.mean(1), method="eraser", params=par, meaning="[B]", definition="mean over the bins", paper=P_ERASER)
