# %% [markdown]
# # Boxes
#
# - **Paper**: Mark Everingham, Luc Van Gool, Christopher K. I. Williams, John Winn,
#   Andrew Zisserman. *The Pascal Visual Object Classes (VOC) Challenge*. IJCV 2010.
#   [doi:10.1007/s11263-009-0275-4](https://doi.org/10.1007/s11263-009-0275-4)
# - **Paper**: Hamid Rezatofighi, Nathan Tsoi, JunYoung Gwak, Amir Sadeghian, Ian Reid,
#   Silvio Savarese. *Generalized Intersection over Union*. CVPR 2019.
#   [arXiv:1902.09630](https://arxiv.org/abs/1902.09630)
# - **Paper**: Kaiming He, Georgia Gkioxari, Piotr Dollár, Ross Girshick. *Mask R-CNN*.
#   ICCV 2017. [arXiv:1703.06870](https://arxiv.org/abs/1703.06870)
# - **Idea**: what all detectors share: how well two boxes agree, which of many boxes
#   to keep, boxes as offsets from anchors, features of a box, average precision.
# - **Demo**: NMS threshold against recall, apart and crowded; RoI pool against RoI
#   align under small shifts; three rules for one average precision.
# - **Time**: about 15 s on 2 CPU cores

# %%
from dataclasses import dataclass, replace
from functools import partial
from math import floor, log

import torch
import torch.nn.functional as F
from einops import einsum, reduce
from torchvision import ops

from lab import cli, data, figures, results


# %% Area
def box_area(boxes):
    """Areas (N,) of boxes (N, 4): x1 y1 x2 y2, in pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


# %% IoU
def box_iou(a, b):
    """Intersection over union, (N, 4), (M, 4) -> (N, M).

    0/0, NaN, where neither box has an area: drop such
    boxes before training.
    """
    low = torch.maximum(a[:, None, :2], b[:, :2])
    high = torch.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    total = box_area(a)[:, None] + box_area(b)
    return shared / (total - shared)


# %% GIoU
def generalized_box_iou(a, b):
    """IoU - share of the hull that neither covers, (N, M).

    Rezatofighi et al. 2019: -1..1, and still falling
    where boxes no longer touch.
    """
    iou = box_iou(a, b)
    total = box_area(a)[:, None] + box_area(b)
    union = total / (1 + iou)
    low = torch.minimum(a[:, None, :2], b[:, :2])
    high = torch.maximum(a[:, None, 2:], b[:, 2:])
    hull = (high - low).prod(2)
    return iou - (hull - union) / hull


# %% Non-maximum suppression
def nms(boxes, scores, threshold):
    """Keep the best box, drop what overlaps it, repeat.

    boxes (N, 4), scores (N). Dropped: IoU > threshold.
    Returns indices of those kept, the best first.
    """
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        iou = box_iou(boxes[best][None], boxes[order])[0]
        order = order[~(iou > threshold)]
    return torch.stack(kept) if kept else order


# %% NMS by class
def batched_nms(boxes, scores, labels, threshold):
    """NMS for each class by itself.

    Each class moves to a place of its own, where it meets
    no other: one call for all.
    """
    if not len(boxes):
        return labels
    apart = labels.to(boxes) * (boxes.max() + 1)
    return nms(boxes + apart[:, None], scores, threshold)


# %% Anchors
def base_anchors(sizes, ratios):
    """Boxes about (0, 0), (A, 4); ratio: height / width."""
    root = torch.tensor(ratios).sqrt()[:, None]   # (R, 1)
    sizes = torch.tensor(sizes, dtype=torch.float32)
    w = (1 / root * sizes).flatten()
    h = (root * sizes).flatten()
    # paper: not rounded; here as in torchvision
    return (torch.stack([-w, -h, w, h], 1) / 2).round()


def anchors(size, stride, base):
    """base (A, 4) at each of H W positions: (H W A, 4).

    stride: pixels between them, down and across.
    """
    y, x = (torch.arange(n) * step
            for n, step in zip(size, stride))
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], 2)    # (H, W, 4)
    every = shifts[:, :, None] + base        # (H, W, A, 4)
    return every.reshape(-1, 4)


# %% Coding
def centers(boxes):
    """Center x y, width, height (N, 4) of corners (N, 4)."""
    size = boxes[:, 2:] - boxes[:, :2]
    return torch.cat([boxes[:, :2] + size / 2, size], 1)


def encode(boxes, anchors):
    """What turns anchors into boxes, (N, 4).

    Girshick et al. 2014, eq. 6-9: shifts in sizes of the
    anchor, scales as logarithms.
    """
    x, y, w, h = centers(boxes).T
    ax, ay, aw, ah = centers(anchors).T
    return torch.stack([(x - ax) / aw, (y - ay) / ah,
                        (w / aw).log(), (h / ah).log()], 1)


def decode(deltas, anchors, most=log(1000 / 16)):
    """The boxes that deltas (N, 4) make of anchors.

    most: the logarithm by which a side may grow.
    """
    place, size = centers(anchors).split(2, dim=1)
    shift, scale = deltas.split(2, dim=1)
    place = place + shift * size
    half = scale.clamp(max=most).exp() * size / 2
    return torch.cat([place - half, place + half], 1)


# %% Assignment
BACKGROUND, BETWEEN = -1, -2


def match(iou, low, high, rescue=False):
    """Which target each anchor has to predict, (N,).

    iou (M, N) of M targets and N anchors. Below `low` an
    anchor is BACKGROUND, from `high` on it has the target
    that it covers best; BETWEEN takes no part. rescue: no
    target stays without its best anchors.
    """
    if not len(iou):
        return torch.full(iou.shape[1:], BACKGROUND)
    best, target = iou.max(0)
    matched = target.clone()
    matched[best < high] = BETWEEN
    matched[best < low] = BACKGROUND
    if rescue:
        own = iou == iou.amax(1, keepdim=True)    # (M, N)
        matched = torch.where(own.any(0), target, matched)
    return matched


# %% RoI pooling
def roi_pool(features, rois, output_size, scale=1.0):
    """Girshick 2015: the largest value of each bin.

    features (B, C, H, W), rois (K, 5): image, x1 y1 x2 y2
    in pixels, scale: cells per pixel. Returns
    (K, C, output_size, output_size).
    """
    K, C, size = len(rois), features.shape[1], output_size
    pooled = features.new_zeros(K, C, size, size)
    beyond = F.pad(features, (0, 1, 0, 1), value=-torch.inf)
    for k, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (floor(scale * value + 0.5)
                          for value in corners)
        cells = beyond[int(image), :, y1:y2 + 1, x1:x2 + 1]
        pooled[k] = F.adaptive_max_pool2d(cells, size)
    return pooled.masked_fill(pooled.isinf(), 0)


# %% RoI align
def sample_weights(start, end, size, bins, samples):
    """Share of each of `size` cells in each bin, from start
    (K) to end (K): (K, bins, size).

    A bin is the mean of `samples` values, each interpolated
    between two cells; beyond the map they are 0.
    """
    n = bins * samples
    step = (end - start)[:, None] / n
    at = start[:, None] + step * (torch.arange(n) + 0.5)
    inside = (at >= -1) & (at <= size)            # (K, n)
    at = at.clamp(0, size - 1)
    gap = (at[..., None] - torch.arange(size)).abs()
    weights = (1 - gap).clamp(min=0) * inside[..., None]
    return reduce(weights, "k (b s) size -> k b size",
                  "mean", b=bins)


def roi_align(features, rois, output_size, scale=1.0,
              samples=2, aligned=True):
    """He et al. 2017: no rounding, the mean of each bin.

    aligned: a cell's value lies at its center.
    """
    image, boxes = rois[:, 0].long(), rois[:, 1:] * scale
    low, high = boxes.split(2, dim=1)
    if aligned:
        low, high = low - 0.5, high - 0.5
    else:
        high = torch.maximum(high, low + 1)       # a cell
    columns, rows = (
        sample_weights(low[:, axis], high[:, axis], size,
                       output_size, samples)
        for axis, size in enumerate(features.shape[:1:-1]))
    return einsum(rows, features[image], columns,
                  "k i h, k c h w, k j w -> k c i j")


# %% Hits
def find_hits(boxes, targets, threshold=0.5):
    """Which boxes (N, 4), best first, hit targets (M, 4).

    Each takes the target that it covers best of those still
    free: a second box on one target is a mistake.
    """
    iou = box_iou(boxes, targets)                 # (N, M)
    hits = torch.zeros(len(boxes), dtype=torch.bool)
    for i in range(len(boxes) if len(targets) else 0):
        best = iou[i].argmax()
        if iou[i, best] >= threshold:
            hits[i] = True
            iou[:, best] = -1                     # taken
    return hits


# %% Precision and recall
def precision_recall(scores, hits, n):
    """Both, (N,), of the first box, the first two, …

    scores (N), hits (N) bool, of all images; n targets.
    """
    order = scores.argsort(descending=True, stable=True)
    right = hits[order].cumsum(0)
    shown = torch.arange(1, len(hits) + 1)
    return right / shown, right / n


# %% Average precision
def average_precision(precision, recall, points=None):
    """Mean precision over recall: three rules.

    points: 11 (VOC 2007), 101 (COCO), None: the area below
    the curve (VOC since 2010). Precision at a recall is the
    best one there or further on.
    """
    best = precision.flip(0).cummax(0).values.flip(0)
    if points is None:
        steps = recall.diff(prepend=torch.zeros(1))
        return (best * steps).sum()
    at = torch.linspace(0, 1, points)
    place = torch.searchsorted(recall, at)
    best = F.pad(best, (0, 1))    # 0 where it never gets
    return best[place].mean()


# %% Settings
@dataclass(frozen=True)
class Settings(cli.Settings):
    size: int = 64
    stride: int = cli.flag(8, "pixels between cells of the feature map")
    copies: int = cli.flag(6, "simulated detections of each digit")
    noise: float = cli.flag(0.1, "spread of their offsets")
    low: float = cli.flag(0.3, "IoU below which an anchor is background", most=1)
    high: float = cli.flag(0.5, "IoU from which an anchor has a target", most=1)
    hit: float = cli.flag(0.5, "IoU of a hit", most=1)
    strict: float = cli.flag(0.75, "IoU of a hit that is near", most=1)
    thresholds: tuple[float, ...] = cli.flag(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), "thresholds of NMS", most=1)
    runs: int = 3


SETTINGS = {"scenes": Settings()}
CROWDED = {"number": (5, 6), "scale": (0.35, 0.5), "overlap": 0.6}
APART = CROWDED | {"overlap": 0.0}


# %% Simulated detections
def simulate(targets, args, generator):
    """Detections around targets, whose scores are their IoU, and noise.

    Returns for each image boxes, scores and labels; every class is right.
    """
    found = []
    for target in targets:
        truth = target["boxes"].repeat(args.copies, 1)
        noise = torch.randn(truth.shape, generator=generator)
        boxes = decode(args.noise * noise, truth)
        quality = box_iou(boxes, truth).diagonal()
        scores = quality + 0.1 * torch.randn(len(boxes), generator=generator)
        found.append((boxes, scores, target["labels"].repeat(args.copies)))
    return found


def suppress(detections, targets, threshold, by_class, hit):
    """(recall, precision) of what NMS leaves of simulate's detections."""
    hits, kept = 0, 0
    for (boxes, scores, labels), target in zip(detections, targets):
        chosen = ops.batched_nms(boxes, scores, labels if by_class else 0 * labels,
                                 threshold)   # compiled, equal to the one above
        hits += find_hits(boxes[chosen], target["boxes"], hit).sum().item()
        kept += len(chosen)
    return hits / sum(len(target["boxes"]) for target in targets), hits / kept


# %% Read a position from a region's features
def feature_map(images, stride, seed):
    """Random 3x3 edge filters, ReLU, mean of cells: (B, 8, H / stride, W / stride)."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, 1, 3, 3, generator=generator)
    weight = weight - weight.mean((2, 3), keepdim=True)
    return F.avg_pool2d(F.conv2d(images, weight, padding=1).relu(), stride)


def regions(dataset, args, seed, copies=2):
    """Features of a data set and boxes near its digits: (features, rois, offsets)."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.cat([target["boxes"] for target in dataset.targets]).repeat(copies, 1)
    index = torch.cat([torch.full((len(target["boxes"]),), i) for i, target
                       in enumerate(dataset.targets)]).repeat(copies)
    noise = args.noise * torch.randn(truth.shape, generator=generator)
    boxes = decode(noise, truth).clamp(0, args.size)
    features = feature_map(torch.stack(list(dataset.images)), args.stride, seed)
    return features, torch.cat([index[:, None], boxes], 1), truth


def regress(x, y, strength):
    """Linear least squares with a bias, x (N, D), y (N, 4); returns x -> y."""
    mean, middle = x.mean(0), y.mean(0)
    x = x - mean
    gram = x.T @ x + strength * len(x) * torch.eye(x.shape[1])
    weight = torch.linalg.solve(gram, x.T @ (y - middle))
    return lambda new: (new - mean) @ weight + middle


def corrected(pool, train, test, args, seed):
    """Mean IoU of boxes near a digit with it, before and after box regression.

    The penalty is the best of four for a held-out fifth of the training boxes.
    """
    parts = []
    for part in (train, test):
        features, rois, truth = regions(part, args, seed)
        x = pool(features, rois, 5, 1 / args.stride).flatten(1)
        parts.append((x, encode(truth, rois[:, 1:]), rois[:, 1:], truth))
    (x, y, *_), (new, _, boxes, truth) = parts
    n = 4 * len(x) // 5
    errors = {strength: (regress(x[:n], y[:n], strength)(x[n:]) - y[n:]).square().mean()
              for strength in (1e-4, 1e-3, 1e-2, 1e-1)}
    model = regress(x, y, min(errors, key=errors.get))
    return [box_iou(each, truth).diagonal().mean().item()
            for each in (boxes, decode(model(new), boxes))]


# %% Facts
def facts():
    """Numbers on the slides that follow from the definitions alone."""
    box = torch.tensor([[0.0, 0, 4, 4]])
    values = {f"iou_{name}": box_iou(box, box + torch.tensor(shift)).item()
              for name, shift in [("quarter", [1.0, 0, 1, 0]), ("half", [2.0, 0, 2, 0]),
                                  ("quarter_both", [1.0, 1, 1, 1])]}
    values["giou_touching"] = generalized_box_iou(
        box, box + torch.tensor([4.0, 0, 4, 0])).item()
    base = base_anchors((128, 256, 512), (0.5, 1.0, 2.0))
    values["anchors_per_position"] = len(base)
    values["anchors_of_600x800"] = len(anchors((600 // 16, 800 // 16), (16, 16), base))
    return values


# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Scenes with boxes
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    chosen = test.first(8)
    figures.save(figures.boxes(chosen.images, chosen.targets, test.classes, columns=4),
                 "boxes-scenes")

# %% IoU of boxes that part
if __name__ == "__main__":
    shifts = torch.linspace(0, 3, 121)
    box = torch.tensor([[0.0, 0, 1, 1]])
    moved = box + shifts[:, None] * torch.tensor([1.0, 0, 1, 0])
    figure, (axis,) = figures.panels(size=figures.BESIDE, ylabel="agreement",
                                     xlabel="shift (sides of the box)")
    for label, measured, role, thickness in [
            ("GIoU", generalized_box_iou, "idea", figures.HEAVY),
            ("IoU", box_iou, "control", figures.THIN)]:
        axis.plot(shifts, measured(box, moved)[0], label=label, linewidth=thickness,
                  color=figures.color(role))
    axis.axvline(1, color=figures.color("muted"), linewidth=1.5, linestyle=":")
    axis.text(1.05, 0.85, "they touch no longer", color=figures.color("muted"))
    figures.label_lines(axis)
    figures.save(figure, "boxes-iou")

# %% Anchors of a scene
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    image, target = test[0]
    cells = args.size // args.stride
    every = anchors((cells, cells), (args.stride, args.stride),
                    base_anchors((12, 18, 26), (1.0, 1.5)))
    matched = match(box_iou(target["boxes"], every), args.low, args.high,
                    rescue=True)
    place = 6 * (cells * cells // 2 + cells // 2)
    shown = {"targets": target["boxes"], "at one position": every[place:place + 6],
             "have a target": every[matched >= 0],
             "take no part": every[matched == BETWEEN]}
    figures.save(figures.boxes(
        [image] * 4, [{"boxes": each, "roles": [role] * len(each)} for each, role in
                      zip(shown.values(), ["proven", "muted", "idea", "control"])],
        captions=[f"{name}: {len(each)}" for name, each in shown.items()]),
        "boxes-anchors")
    results.record("anchors", len(every))
    results.record("anchors_with_target", (matched >= 0).sum())
    results.record("anchors_between", (matched == BETWEEN).sum())

# %% NMS threshold against recall
if __name__ == "__main__":
    figure, axes = figures.panels(2, xlabel="NMS threshold (IoU)", ylabel="share (%)",
                                  titles=["recall", "precision"])
    for label, role, options, by_class in [
            ("apart", "control", APART, False), ("crowded", "idea", CROWDED, False),
            ("crowded, by class", "proven", CROWDED, True)]:
        runs = []
        for seed in args.seeds:
            scenes = data.scenes(args.size, 1, 20 if args.quick else 60, seed=seed,
                                 **options)[1]
            detections = simulate(scenes.targets, args,
                                  torch.Generator().manual_seed(seed))
            runs.append([
                suppress(detections, scenes.targets, threshold, by_class, args.hit)
                for threshold in args.thresholds])
        runs = torch.tensor(runs)                             # (seeds, thresholds, 2)
        for k, (axis, name) in enumerate(zip(axes, ["recall", "precision"])):
            figures.band(axis, args.thresholds, runs[..., k], role, label)
            for place, threshold in enumerate(args.thresholds):
                key = f"{name}_{label}_{100 * threshold:.0f}".replace(",", "")
                results.record_range(key.replace(" ", "_"), runs[:, place, k].tolist())
    axes[0].set_ylim(0, 1.02)
    for axis in axes:
        figures.label_lines(axis)
    figures.save(figure, "boxes-nms")

# %% A region that moves by a quarter of a cell
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    features, rois, _ = regions(test, replace(args, noise=0.0), args.seed)
    step = torch.tensor([0, 1, 0, 1.0, 0]) * args.stride      # to the right by a cell
    pools = {"RoI align": (roi_align, "idea"), "RoI pool": (roi_pool, "control")}
    figure, (axis,) = figures.panels(size=figures.BESIDE, ylabel="change (%)",
                                     xlabel="shift (cells of the feature map)")
    shifts = torch.linspace(0, 1, 81)
    for label, (pool, role) in pools.items():
        moved = [pool(features, rois[:1] + shift * step, 5, 1 / args.stride)
                 for shift in shifts]
        axis.plot(shifts, [(each - moved[0]).norm() / moved[-1].norm()
                           for each in moved], label=label, color=figures.color(role))
        still, quarter = (pool(features, rois + shift * step, 5, 1 / args.stride)
                          for shift in (0, 0.25))
        change = (quarter - still).flatten(1).norm(dim=1)
        results.record(f"{label.replace(' ', '_')}_unchanged",
                       (change == 0).float().mean())
    figures.label_lines(axis)
    figures.save(figure, "boxes-roi-shift")

# %% What RoI pooling costs a box regression
if __name__ == "__main__":
    sets, rows = data.load(args, size=args.size), {}
    for label, role, pool, options in [
            ("RoI align", "idea", roi_align, {}),
            ("RoI align, half a cell off", "purple", roi_align, {"aligned": False}),
            ("RoI pool", "control", roi_pool, {})]:
        pairs = [corrected(partial(pool, **options), *sets, args, seed)
                 for seed in args.seeds]
        before, after = zip(*pairs)
        rows["before"] = "muted", before, ()
        rows[label] = role, after, ()
        key = label.replace(",", "").replace(" ", "_")
        results.record_range(f"iou_{key}", after)
        results.record_range("iou_before", before)
    figures.save(figures.dots(rows, "mean IoU with the digit", (), span=0.1),
                 "boxes-roi-regression")

# %% Three rules for one average precision
if __name__ == "__main__":
    scenes = data.scenes(args.size, 1, 20 if args.quick else 60, **CROWDED)[1]
    detections = simulate(scenes.targets, args, torch.Generator().manual_seed(0))
    kept = [nms(boxes, scores, 0.5) for boxes, scores, _ in detections]
    scores = torch.cat([each[1][k] for each, k in zip(detections, kept)])
    total = sum(len(target["boxes"]) for target in scenes.targets)
    figure, (curve, by_iou) = figures.panels(2, sharey=False, titles=[
        "precision by recall", "average precision by IoU"])
    areas = []
    for threshold in (args.strict, *torch.arange(0.5, 1, 0.05).tolist()):
        hits = torch.cat([find_hits(each[0][k], target["boxes"], threshold) for
                          each, k, target in zip(detections, kept, scenes.targets)])
        precision, recall = precision_recall(scores, hits, total)
        areas.append(average_precision(precision, recall, 101))
        if len(areas) == 1:
            best = precision.flip(0).cummax(0).values.flip(0)
            points = torch.linspace(0, 1, 11)
            values = F.pad(best, (0, 1))[torch.searchsorted(recall, points)]
            curve.plot(recall, precision, color=figures.color("muted"), label="_raw")
            curve.plot(recall, best, color=figures.color("idea"), label="_best")
            curve.plot(points, values, "o", color=figures.color("control"),
                       markersize=9, clip_on=False, label="_11")
            for name, n in [("area", None), ("11", 11), ("101", 101)]:
                results.record(f"strict_{name}", average_precision(precision, recall,
                                                                   n))
    del areas[0]
    by_iou.plot(torch.arange(0.5, 1, 0.05), areas, "o-", color=figures.color("idea"))
    by_iou.axhline(sum(areas) / len(areas), color=figures.color("muted"), linestyle=":")
    by_iou.text(0.5, sum(areas) / len(areas) + 0.02, "mean: COCO's AP")
    curve.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    by_iou.set(xlabel="IoU of a hit", ylim=(0, 1.02))
    results.record("ap50", areas[0])
    results.record("ap", sum(areas) / len(areas))
    figures.save(figure, "boxes-precision")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
