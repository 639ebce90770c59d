# %% [markdown]
# # Faster R-CNN
#
# - **Paper**: Shaoqing Ren, Kaiming He, Ross Girshick, Jian Sun. *Faster R-CNN: Towards
#   Real-Time Object Detection with Region Proposal Networks*. NIPS 2015.
#   [arXiv:1506.01497](https://arxiv.org/abs/1506.01497)
# - **Paper**: Tsung-Yi Lin, Piotr Dollár, Ross Girshick, Kaiming He, Bharath Hariharan,
#   Serge Belongie. *Feature Pyramid Networks for Object Detection*. CVPR 2017.
#   [arXiv:1612.03144](https://arxiv.org/abs/1612.03144)
# - **Idea**: let a small network on the features propose the boxes, and a second one,
#   on the same features, say what is in them.
# - **Demo**: learned proposals against the same anchors without learning, by their
#   number; what the second stage adds; what is found in scenes that were never seen.
# - **Time**: about 45 s on 2 CPU cores

# %%
import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from math import ceil, log2
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from boxes import BACKGROUND, BETWEEN, anchors, base_anchors, decode, encode, match
from lab import cli, compare, data, detection, figures, measure, results, training
from lab.detection import ops
from lab.weights import detect, freeze
from resnet import BasicBlock, Bottleneck, ResNet


# %% Features
class Body(ResNet):
    """A ResNet's maps after each stage: strides 4, 8, 16, 32.

    (B, 3, H, W) -> [(B, C, H/4, W/4), …, (B, 8C, H/32, W/32)]
    """

    def __init__(self, block=Bottleneck, depths=(3, 4, 6, 3)):
        super().__init__(block, depths)
        del self.avgpool, self.fc
        self.channels = [block.expansion * n for n in (64, 128, 256, 512)]

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        stages = self.layer1, self.layer2, self.layer3, self.layer4
        return [x := stage(x) for stage in stages]


# %%
class SmallBody(nn.Module):
    """Three stages for small grey images: strides 4, 8, 16."""

    def __init__(self, width=16):
        super().__init__()
        self.channels = [2 * width, 4 * width, 4 * width]
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU())
        self.layer1 = BasicBlock(width, 2 * width, stride=2)
        self.layer2 = BasicBlock(2 * width, 4 * width, stride=2)
        self.layer3 = BasicBlock(4 * width, 4 * width, stride=2)

    def forward(self, x):
        x = self.layer1(self.stem(x))         # (B, C, H/4, W/4)
        y = self.layer2(x)                    # (B, 2C, H/8, W/8)
        return [x, y, self.layer3(y)]         # (B, 2C, H/16, W/16)


# %%
def conv(in_channels, out_channels, kernel_size):
    """A convolution that keeps the size, named as torchvision names it."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size,
                      padding=kernel_size // 2)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer)


# %%
class FeaturePyramid(nn.Module):
    """Lin et al. 2017: maps learn from coarser ones."""

    def __init__(self, channels, width=256):
        super().__init__()
        self.inner_blocks = nn.ModuleList(
            conv(n, width, 1) for n in channels)
        self.layer_blocks = nn.ModuleList(
            conv(width, width, 3) for _ in channels)

    def forward(self, maps):
        inner, layer = self.inner_blocks, self.layer_blocks
        maps = [f(x) for f, x in zip(inner, maps)]
        for i in range(len(maps) - 2, -1, -1):   # top down
            size = maps[i].shape[2:]
            above = F.interpolate(maps[i + 1], size)
            maps[i] = maps[i] + above
        maps = [f(x) for f, x in zip(layer, maps)]
        return [*maps, maps[-1][:, :, ::2, ::2]]


# %%
def backbone(body, out_channels=256):
    """A body, and a pyramid on its maps."""
    return nn.Sequential(OrderedDict(
        body=body, fpn=FeaturePyramid(body.channels, out_channels)))


# %% First stage: where
class RPNHead(nn.Module):
    """Is an object near this anchor, and where exactly?

    Maps (B, D, H_i, W_i) -> for each of them logits
    (B, N_i) and deltas (B, N_i, 4) of its N_i anchors.
    """

    def __init__(self, channels, num_anchors):
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()))
        self.cls_logits = nn.Conv2d(channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * num_anchors, 1)
        for layer in (self.conv[0][0], self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, maps):
        logits, deltas = [], []
        for x in maps:
            x = self.conv(x)                     # (B, D, H, W)
            logits.append(rearrange(
                self.cls_logits(x), "b a h w -> b (h w a)"))
            deltas.append(rearrange(
                self.bbox_pred(x),
                "b (a c) h w -> b (h w a) c", c=4))
        return logits, deltas


# %%
def sample(labels, n, share):
    """At most n indices, at most `share` of them positive.

    labels (N): positive, 0 background, -1 takes no part.
    """
    positive = (labels > 0).nonzero().flatten()
    negative = (labels == 0).nonzero().flatten()
    few = min(int(n * share), len(positive))
    rest = min(n - few, len(negative))
    chosen = torch.randperm(len(positive))[:few]
    others = torch.randperm(len(negative))[:rest]
    return positive[chosen], negative[others]


def box_loss(deltas, targets, n):
    """Smooth L1 over n samples: Fast R-CNN, section 2.3, there quadratic below 1."""
    # paper: quadratic below 1
    return F.smooth_l1_loss(deltas, targets, beta=1 / 9, reduction="sum") / n


# %%
class RPN(nn.Module):
    """Region proposal network: the first stage.

    sizes: of anchors, a tuple for each map. before, after: proposals kept
    before and after NMS, in training and else.
    """

    def __init__(self, channels, sizes, ratios=(0.5, 1.0, 2.0),
                 before=(2000, 1000), after=(2000, 1000)):
        super().__init__()
        with torch.device("cpu"):    # they are no parameters
            self.bases = [base_anchors(size, ratios) for size in sizes]
        self.head = RPNHead(channels, len(self.bases[0]))
        self.before, self.after = before, after

    def forward(self, maps, batch, shapes, targets=None):
        logits, deltas = self.head(maps)
        every = self.every(maps, batch)
        proposals = self.propose(logits, deltas, every, shapes)
        if not self.training:
            return proposals, {}
        return proposals, self.losses(
            torch.cat(logits, 1), torch.cat(deltas, 1), every, targets)

    def every(self, maps, batch):
        """All anchors of all maps, (N, 4). batch: its images' height and width."""
        H, W = batch
        return torch.cat([
            anchors(x.shape[2:], (H // x.shape[2], W // x.shape[3]), base)
            for x, base in zip(maps, self.bases)]).to(maps[0])

    @torch.no_grad()
    def propose(self, logits, deltas, every, shapes):
        """The best boxes of each image, with NMS for each map by itself."""
        counts = [each.shape[1] for each in logits]
        level = torch.cat([torch.full((n,), i) for i, n in enumerate(counts)])
        starts = [sum(counts[:i]) for i in range(len(counts))]
        before, after = (n[not self.training] for n in (self.before, self.after))
        chosen = torch.cat([start + each.topk(min(before, n), dim=1).indices for
                            each, n, start in zip(logits, counts, starts)], 1)
        logits, deltas = torch.cat(logits, 1), torch.cat(deltas, 1)
        proposals = []
        for i, (best, shape) in enumerate(zip(chosen, shapes)):
            boxes = decode(deltas[i, best], every[best])
            boxes = ops.clip_boxes_to_image(boxes, shape)
            large = ops.remove_small_boxes(boxes, 1e-3)
            boxes, best = boxes[large], best[large]
            kept = ops.batched_nms(boxes, logits[i, best].sigmoid(),
                                   level[best].to(boxes.device), 0.7)
            proposals.append(boxes[kept[:after]])
        return proposals

    def losses(self, logits, deltas, every, targets):
        """Of 256 anchors an image, at most half of them with an object."""
        right, wrong, goals = [], [], []
        for i, target in enumerate(targets):
            matched = match(ops.box_iou(target["boxes"], every), 0.3, 0.7, rescue=True)
            positive, negative = (each.sort().values for each in sample(
                (matched >= 0).int() - (matched == BETWEEN).int(), 256, 0.5))
            goals.append(encode(target["boxes"][matched[positive]], every[positive]))
            right.append(positive + i * len(every))
            wrong.append(negative + i * len(every))
        right, goals = torch.cat(right), torch.cat(goals)
        chosen = torch.cat([right, *wrong])
        is_object = (torch.arange(len(chosen)) < len(right)).to(logits)
        objectness = F.binary_cross_entropy_with_logits(
            logits.flatten()[chosen], is_object)
        return {"loss_objectness": objectness, "loss_rpn_box_reg": box_loss(
            deltas.flatten(0, 1)[right], goals, len(chosen))}


# %% Second stage: what
class TwoMLPHead(nn.Module):
    """Two hidden layers: (K, D, 7, 7) -> (K, hidden_size)."""

    def __init__(self, channels, hidden_size=1024):
        super().__init__()
        self.fc6 = nn.Linear(channels * 7 * 7, hidden_size)
        self.fc7 = nn.Linear(hidden_size, hidden_size)

    def forward(self, x):
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))


class Predictor(nn.Module):
    """Logits of classes, and a box for each: (K, C), (K, 4C)."""

    def __init__(self, hidden_size, num_classes):
        super().__init__()
        self.cls_score = nn.Linear(hidden_size, num_classes)
        self.bbox_pred = nn.Linear(hidden_size, 4 * num_classes)

    def forward(self, x):
        return self.cls_score(x), self.bbox_pred(x)


# %%
def pyramid_align(maps, boxes, strides, canonical=224, samples=2):
    """RoI align, small boxes from fine maps: Lin et al. 2017,
    eq. 1. boxes: of each image (N, 4). Returns (K, D, 7, 7).
    """
    index = torch.cat([torch.full_like(each[:, :1], i)
                       for i, each in enumerate(boxes)])
    boxes = torch.cat(boxes)
    level = (4 + (ops.box_area(boxes).sqrt() / canonical).log2() + 1e-6).floor()
    low, high = log2(strides[0]), log2(strides[-1])
    level = level.clamp(low, high) - low
    pooled = maps[0].new_zeros(len(boxes), maps[0].shape[1], 7, 7)
    for i, (x, stride) in enumerate(zip(maps, strides)):
        here = (level == i).nonzero().flatten()
        rows = torch.cat([index[here], boxes[here]], 1)
        pooled[here] = ops.roi_align(x, rows, 7, 1 / stride, samples)
    return pooled


# %%
class RoIHeads(nn.Module):
    """The second stage: class and place of each proposal."""

    SCALES = 10.0, 10.0, 5.0, 5.0    # of the deltas: they are small here

    def __init__(self, channels, num_classes, hidden_size=1024, canonical=224,
                 samples=512, per_bin=2):
        super().__init__()
        self.box_head = TwoMLPHead(channels, hidden_size)
        self.box_predictor = Predictor(hidden_size, num_classes)
        self.canonical, self.samples, self.per_bin = canonical, samples, per_bin

    def forward(self, maps, batch, shapes, proposals, targets=None):
        if self.training:
            proposals, labels, goals = self.choose(proposals, targets)
        maps = maps[:-1]             # the last is for the first stage
        strides = [2 ** round(log2(batch[0] / x.shape[2])) for x in maps]
        features = pyramid_align(maps, proposals, strides, self.canonical,
                                 self.per_bin)
        logits, deltas = self.box_predictor(self.box_head(features))
        deltas = rearrange(deltas, "k (c d) -> k c d", d=4)
        if not self.training:
            return self.detect(logits, deltas, proposals, shapes), {}
        found = labels.nonzero().flatten()
        return [], {"loss_classifier": F.cross_entropy(logits, labels),
                    "loss_box_reg": box_loss(deltas[found, labels[found]],
                                             goals[found], len(labels))}

    @torch.no_grad()
    def choose(self, proposals, targets):
        """Sample proposals, a quarter of them on objects: Fast R-CNN, section 2.3."""
        rows = []
        for boxes, target in zip(proposals, targets):
            boxes = torch.cat([boxes, target["boxes"]])   # so that some are right
            # paper: background from IoU 0.1 to 0.5 (Fast R-CNN); torchvision: from 0
            matched = match(ops.box_iou(target["boxes"], boxes), 0.5, 0.5)
            truth, labels = torch.zeros_like(boxes), torch.zeros_like(matched)
            if len(target["boxes"]):
                truth = target["boxes"][matched.clamp(min=0)]
                labels = target["labels"][matched.clamp(min=0)]
                labels = labels.masked_fill(matched == BACKGROUND, 0)
            chosen = torch.cat(sample(labels, self.samples, 0.25)).sort().values
            goals = encode(truth[chosen], boxes[chosen])
            goals = goals * goals.new_tensor(self.SCALES)
            rows.append((boxes[chosen], labels[chosen], goals))
        boxes, labels, goals = zip(*rows)
        return list(boxes), torch.cat(labels), torch.cat(goals)

    def detect(self, logits, deltas, proposals, shapes):
        """At most 100 boxes an image, NMS for each class by itself."""
        counts = list(map(len, proposals))
        scores = logits.softmax(1)[:, 1:].split(counts)   # 0 is the background
        deltas = (deltas / deltas.new_tensor(self.SCALES))[:, 1:].split(counts)
        found = []
        for score, delta, boxes, shape in zip(scores, deltas, proposals, shapes):
            K = score.shape[1]
            boxes = decode(delta.flatten(0, 1), boxes.repeat_interleave(K, dim=0))
            boxes = ops.clip_boxes_to_image(boxes, shape)
            labels = torch.arange(1, K + 1, device=boxes.device).repeat(len(score))
            score = score.flatten()
            kept = (score > 0.05).nonzero().flatten()
            kept = kept[ops.remove_small_boxes(boxes[kept], 1e-2)]
            kept = kept[ops.batched_nms(boxes[kept], score[kept], labels[kept],
                                        0.5)[:100]]
            found.append({"boxes": boxes[kept], "labels": labels[kept],
                          "scores": score[kept]})
        return found


# %% The detector
class FasterRCNN(nn.Module):
    """Two stages on one feature pyramid.

    images: a list of (C, H, W) in 0..1. Returns losses in training, {name:
    scalar}, else for each image boxes in its pixels, labels and scores.
    """

    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, backbone, rpn, roi_heads, sizes=(800, 1333)):
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads
        self.sizes = sizes           # shorter side, longest side

    def forward(self, images, targets=None):
        batch, shapes = self.prepare(images)
        scales = [x.new_tensor([a / b for a, b in zip(shape, x.shape[1:])])
                  .flip(0).repeat(2) for shape, x in zip(shapes, images)]
        if self.training:
            targets = [{**target, "boxes": target["boxes"] * scale}
                       for target, scale in zip(targets, scales)]
        maps, size = self.backbone(batch), batch.shape[2:]
        proposals, where = self.rpn(maps, size, shapes, targets)
        found, what = self.roi_heads(maps, size, shapes, proposals, targets)
        if self.training:
            return what | where
        return [{**each, "boxes": each["boxes"] / scale}
                for each, scale in zip(found, scales)]

    def prepare(self, images):
        """Normalised, resized, padded to one size: (B, C, H, W), and the sizes."""
        resized = []
        for image in images:
            C, H, W = image.shape
            mean, std = (image.new_tensor(each[:C]).view(C, 1, 1)
                         for each in (self.MEAN, self.STD))
            scale = min(self.sizes[0] / min(H, W), self.sizes[1] / max(H, W))
            image = ((image - mean) / std)[None]
            resized.append(image[0] if scale == 1 else F.interpolate(
                image, scale_factor=scale, mode="bilinear",
                recompute_scale_factor=True)[0])
        shapes = [tuple(each.shape[1:]) for each in resized]
        H, W = (32 * ceil(max(side) / 32) for side in zip(*shapes))
        return torch.stack([
            F.pad(each, (0, W - each.shape[2], 0, H - each.shape[1]))
            for each in resized]), shapes


# %%
def fasterrcnn_resnet50_fpn(num_classes=91, **options):
    """As in torchvision; 91: COCO's numbers of its 80 classes."""
    sizes = tuple((32 * 2 ** i,) for i in range(5))
    return FasterRCNN(backbone(Body()), RPN(256, sizes),
                      RoIHeads(256, num_classes), **options)


# %% Published weights
def renamed(states):
    """Published states in our names: those of pyramid and RPN are older."""
    return {re.sub(r"((?:inner|layer)_blocks\.\d)\.(?=\w+$)", r"\1.0.", re.sub(
        r"(rpn\.head\.conv)\.(?=\w+$)", r"\1.0.0.", key)): value
        for key, value in states.items()}


# %% Training
@dataclass(frozen=True)
class Settings(cli.Settings):
    """Faster R-CNN, sections 3.1.3 and 3.3; Fast R-CNN, section 2.3; FPN, section 3."""
    weights: str = cli.flag(None, "published weights", choices=("coco",))
    image: Path = cli.flag(None, "an image to look at")
    epochs: int = 2
    batch_size: int = 4                   # paper: 1 image, later 2
    lr: float | None = None               # paper: 0.001 of SGD
    rates: tuple[float, ...] = (0.001, 0.002, 0.004)
    tune: bool = False
    size: int = 64                        # paper: 600, the shorter side
    width: int = 16
    channels: int = cli.flag(24, "channels of the pyramid")         # paper: 256
    hidden_size: int = cli.flag(128, "width of the second stage")   # paper: 4096
    samples: int = cli.flag(32, "proposals of an image that train") # paper: 128
    proposals: tuple[int, ...] = cli.flag((1, 3, 10, 30, 100, 300),
                                          "numbers of proposals whose recall is shown")
    small: int = cli.flag(200, "square pixels below which a digit is small")
    large: int = cli.flag(500, "square pixels above which a digit is large")
    overlaps: tuple[float, ...] = cli.flag((0.5, 0.75), "IoUs of a hit", most=1)
    shown: int = cli.flag(100, "images of the test set that are judged")
    runs: int = 3


PHOTOGRAPHS = Settings(
    batch_size=4, lr=0.0003, size=320, channels=64, hidden_size=256, samples=128,
    small=32 ** 2, large=96 ** 2, runs=1, threads=0)
SETTINGS = {"scenes": Settings(), "bccd": replace(PHOTOGRAPHS, epochs=12),
            "face_mask": replace(PHOTOGRAPHS, epochs=20)}


# %%
def detector(args, num_classes):
    """A small one: of grey scenes, or of photographs."""
    if args.data == "scenes":
        body, canonical, ratios = SmallBody(args.width), 64, (1.0, 1.5, 2.0)
        sizes = ((10,), (16,), (24,), (32,))
    else:
        body, canonical = Body(BasicBlock, (2, 2, 2, 2)), 224
        ratios, sizes = (0.5, 1.0, 2.0), ((16,), (32,), (64,), (128,), (256,))
    return FasterRCNN(
        backbone(body, args.channels),
        RPN(args.channels, sizes, ratios, before=(100, 1000), after=(50, 300)),
        RoIHeads(args.channels, num_classes, args.hidden_size, canonical, args.samples,
                 per_bin=1 if args.data == "scenes" else 2),   # digits have few cells
        sizes=(args.size, args.size))


# %%
@training.memoize
def trained(args, seed):
    """A detector Trained on args.data: both stages at once, all losses added."""
    # paper: the stages in turn, in four steps; later and here: at once
    torch.manual_seed(seed)
    train, _ = data.load(args, size=args.size)
    batches = training.loader(train, args)
    model = training.place(detector(args, len(train.classes)), args)
    update, saved = training.adamw(model, args.lr, args.epochs * len(batches))

    def step(batch):
        images, targets = batch
        losses = model(images, targets)
        loss = sum(losses.values())
        update(loss)
        return {"loss": loss, **losses}

    history = training.fit(step, batches, args, seed=seed, save=saved,
                           name=f"faster_rcnn-{args.data}-{seed}")
    return training.Trained(model, history)


# %%
def sides(args):
    """What is trained: {name: its training}."""
    return {"detector": (trained,)}


# %%
@torch.no_grad()
def propose(model, dataset, args, shuffled=False):
    """The first stage's boxes of each image, the best first, on the CPU.

    shuffled: the control, the same anchors in an order at random, as they are.
    """
    model.eval()
    found = []
    for images, _ in training.loader(dataset, args, shuffle=False):
        batch, shapes = model.prepare([image.to(args.device) for image in images])
        maps, size = model.backbone(batch), batch.shape[2:]
        every = model.rpn.every(maps, size)
        found += [ops.clip_boxes_to_image(every[torch.randperm(len(every))], shape)
                  for shape in shapes] if shuffled else (
                      model.rpn(maps, size, shapes)[0])
    return [boxes.cpu() for boxes in found]


# %%
def facts():
    """Numbers on the slides that follow from the model alone."""
    with torch.device("meta"):
        model = fasterrcnn_resnet50_fpn()
    parts = {"body": model.backbone.body, "pyramid": model.backbone.fpn,
             "rpn": model.rpn, "roi_heads": model.roi_heads}
    maps = [torch.empty(1, 1, ceil(800 / n), ceil(800 / n)) for n in (4, 8, 16, 32, 64)]
    return {"parameters": measure.parameters(model),
            **{f"{name}_parameters": measure.parameters(part)
               for name, part in parts.items()},
            "frozen_parameters": measure.parameters(freeze(model)),
            "anchors_of_800x800": len(model.rpn.every(maps, (800, 800)))}


# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)
    if args.weights:
        detect(freeze(fasterrcnn_resnet50_fpn()), "fasterrcnn_resnet50_fpn", args,
               renamed)
        raise SystemExit

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% Learned proposals against sliding windows
if __name__ == "__main__":
    test = data.load(args, size=args.size)[1].first(args.shown)
    those = compare.train(sides(args), args)["detector"]
    figure, axes = figures.panels(2, xlabel="proposals", ylabel="recall (%)", titles=[
        f"IoU {overlap:g}" for overlap in args.overlaps[:2]])
    for name, role, shuffled in [("learned", "idea", False),
                                 ("not learned", "control", True)]:
        found = [propose(each.model, test, args, shuffled) for each in those]
        for axis, threshold in zip(axes, args.overlaps):
            recalls = [[detection.proposal_recall(boxes, test.targets, n, threshold)
                        for n in args.proposals] for boxes in found]
            figures.band(axis, args.proposals, recalls, role, name)
            for n, values in zip(args.proposals, zip(*recalls)):
                key = f"recall{100 * threshold:.0f}_{name.replace(' ', '_')}_{n}"
                results.record_range(key, values)
    for axis in axes:
        axis.set(xscale="log", xticks=args.proposals, xticklabels=args.proposals,
                 ylim=(0, 1.02))
        axis.minorticks_off()
        figures.label_lines(axis)
    figures.save(figure, "faster_rcnn-proposals")

# %% What both stages say
if __name__ == "__main__":
    few = data.load(args, size=args.size)[1].first(4)
    model = compare.train(sides(args), args)["detector"][0].model
    shown = [{"boxes": boxes[:10], "roles": ["muted"] * 10}
             for boxes in propose(model, few, args)]
    for each in detection.find(model, few, args):
        kept = ops.nms(each["boxes"], each["scores"], 0.5)   # one name a place
        kept = kept[each["scores"][kept] > 0.25]
        shown.append({key: value[kept] for key, value in each.items()})
    if args.data != "face_mask":             # whose licence is not stated
        figures.save(figures.boxes(2 * few.images, shown, few.classes, columns=4),
                     "faster_rcnn-stages")

# %% Average precision
if __name__ == "__main__":
    test = data.load(args, size=args.size)[1].first(args.shown)
    areas = {"small": (0, args.small), "medium": (args.small, args.large),
             "large": (args.large, float("inf"))}
    those = compare.train(sides(args), args)["detector"]
    found = [detection.find(each.model, test, args) for each in those]
    measured, rows = [detection.evaluate(one, test.targets, areas) for one in found], {}
    for key in measured[0]:
        values = [one[key] for one in measured]
        results.record_range(f"detector_{key}", values)
        rows[key.replace("AP_", "AP, ")] = ("muted" if "_" in key else "idea", values,
                                            (f"{sum(values) / len(values):.2f}",))
    merged = [[{**each, "labels": each["labels"].clamp(max=1)} for each in one]
              for one in [test.targets, *found]]      # all classes as one
    results.record_range("detector_AP50_one_class", [
        detection.evaluate(one, merged[0])["AP50"] for one in merged[1:]])
    for name, value in detection.by_class(found[0], test.targets, test.classes).items():
        results.record(f"class_{name}", value)
    figures.save(figures.dots(rows, "average precision", ("mean",)), "faster_rcnn-ap")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
