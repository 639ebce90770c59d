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
import time
from collections import OrderedDict
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torchvision import ops

from boxes import BACKGROUND, BETWEEN, anchors, base_anchors, decode, encode, match
from lab import cli, compare, data, detection, figures, measure, results, training
from lab import weights as published
from resnet import BasicBlock, Bottleneck, ResNet

# %% [markdown]
# ## Features

# %%
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
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(x := stage(x))
        return maps


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
    """Lin et al. 2017: each map also knows what coarser ones
    know. (B, C_i, H_i, W_i) -> (B, D, H_i, W_i), and a map more.
    """

    def __init__(self, channels, out_channels=256):
        super().__init__()
        self.inner_blocks = nn.ModuleList(
            conv(n, out_channels, 1) for n in channels)
        self.layer_blocks = nn.ModuleList(
            conv(out_channels, out_channels, 3) for _ in channels)

    def forward(self, maps):
        inner = [f(x) for f, x in zip(self.inner_blocks, maps)]
        for i in range(len(maps) - 2, -1, -1):   # top down
            size = inner[i].shape[2:]
            inner[i] = inner[i] + F.interpolate(inner[i + 1], size)
        maps = [f(x) for f, x in zip(self.layer_blocks, inner)]
        return [*maps, maps[-1][:, :, ::2, ::2]]


# %%
class Backbone(nn.Module):
    """A body, and a pyramid on its maps."""

    def __init__(self, body, out_channels=256):
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramid(body.channels, out_channels)

    def forward(self, x):
        return self.fpn(self.body(x))


# %% [markdown]
# ## First stage: where

# %%
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
        maps = [self.conv(x) for x in maps]
        logits = [rearrange(self.cls_logits(x), "b a h w -> b (h w a)")
                  for x in maps]
        deltas = [rearrange(self.bbox_pred(x),
                            "b (a c) h w -> b (h w a) c", c=4)
                  for x in maps]
        return logits, deltas


# %%
def sample(labels, n, share):
    """At most n indices, at most `share` of them positive.

    labels (N): positive, 0 background, -1 takes no part.
    Returns indices of positives, and of background.
    """
    positive = (labels > 0).nonzero().flatten()
    negative = (labels == 0).nonzero().flatten()
    few = min(int(n * share), len(positive))
    positive = positive[torch.randperm(len(positive))[:few]]
    rest = min(n - few, len(negative))
    negative = negative[torch.randperm(len(negative))[:rest]]
    return positive, negative


def box_loss(deltas, targets, n):
    """Smooth L1 over n samples, quadratic below 1/9."""
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
        self.bases = [base_anchors(size, ratios) for size in sizes]
        self.head = RPNHead(channels, len(self.bases[0]))
        self.before, self.after = before, after

    def forward(self, maps, batch, shapes, targets=None):
        logits, deltas = self.head(maps)
        every = [anchors(x.shape[2:], (batch[0] // x.shape[2], batch[1] // x.shape[3]),
                         base) for x, base in zip(maps, self.bases)]
        every = torch.cat(every).to(maps[0])                  # (N, 4)
        proposals = self.propose(logits, deltas, every, shapes)
        if targets is None:
            return proposals, {}
        return proposals, self.losses(
            torch.cat(logits, 1), torch.cat(deltas, 1), every, targets)

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
        for target in targets:
            matched = match(ops.box_iou(target["boxes"], every), 0.3, 0.7, rescue=True)
            positive, negative = sample(
                (matched >= 0).int() - (matched == BETWEEN).int(), 256, 0.5)
            right.append(positive.sort().values)
            wrong.append(negative.sort().values)
            goals.append(encode(target["boxes"][matched[right[-1]]], every[right[-1]]))
        image = [torch.cat([torch.full_like(each, i) for i, each in enumerate(part)])
                 for part in (right, wrong)]
        right, wrong = torch.cat(right), torch.cat(wrong)
        chosen = torch.cat([logits[image[0], right], logits[image[1], wrong]])
        is_object = (torch.arange(len(chosen), device=chosen.device)
                     < len(right)).to(chosen)
        return {"loss_objectness": F.binary_cross_entropy_with_logits(
                    chosen, is_object),
                "loss_rpn_box_reg": box_loss(
                    deltas[image[0], right], torch.cat(goals), len(chosen))}


# %% [markdown]
# ## Second stage: what

# %%
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
def pyramid_align(maps, boxes, strides, canonical=224):
    """RoI align, small boxes from fine maps: Lin et al. 2017,
    eq. 1. boxes: of each image (N, 4). Returns (K, D, 7, 7).
    """
    rois = ops.roi_align
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
        pooled[here] = rois(x, rows, 7, 1 / stride, sampling_ratio=2)
    return pooled


# %%
class RoIHeads(nn.Module):
    """The second stage: class and place of each proposal."""

    SCALES = 10.0, 10.0, 5.0, 5.0    # of the deltas: they are small here

    def __init__(self, channels, num_classes, hidden_size=1024, canonical=224,
                 samples=512):
        super().__init__()
        self.box_head = TwoMLPHead(channels, hidden_size)
        self.box_predictor = Predictor(hidden_size, num_classes)
        self.canonical, self.samples = canonical, samples

    def forward(self, maps, batch, shapes, proposals, targets=None):
        if targets is not None:
            proposals, labels, goals = self.choose(proposals, targets)
        strides = [2 ** round(log2(batch[0] / x.shape[2])) for x in maps[:-1]]
        features = pyramid_align(maps[:-1], proposals, strides, self.canonical)
        logits, deltas = self.box_predictor(self.box_head(features))
        deltas = rearrange(deltas, "k (c d) -> k c d", d=4)
        if targets is None:
            return self.detect(logits, deltas, proposals, shapes), {}
        found = labels.nonzero().flatten()
        return [], {"loss_classifier": F.cross_entropy(logits, labels),
                    "loss_box_reg": box_loss(deltas[found, labels[found]],
                                             goals[found], len(labels))}

    @torch.no_grad()
    def choose(self, proposals, targets):
        """At most 512 proposals an image, a quarter of them on an object."""
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
        counts = [len(each) for each in proposals]
        scores = logits.softmax(1)[:, 1:].split(counts)   # 0 is the background
        deltas = (deltas / deltas.new_tensor(self.SCALES))[:, 1:].split(counts)
        found = []
        for score, delta, boxes, shape in zip(scores, deltas, proposals, shapes):
            K = score.shape[1]
            boxes = boxes.repeat_interleave(K, dim=0)
            boxes = ops.clip_boxes_to_image(decode(delta.flatten(0, 1), boxes), shape)
            labels = torch.arange(1, K + 1, device=boxes.device).repeat(len(score))
            score = score.flatten()
            kept = (score > 0.05).nonzero().flatten()
            kept = kept[ops.remove_small_boxes(boxes[kept], 1e-2)]
            best = ops.batched_nms(boxes[kept], score[kept], labels[kept], 0.5)[:100]
            kept = kept[best]
            found.append({"boxes": boxes[kept], "labels": labels[kept],
                          "scores": score[kept]})
        return found


# %% [markdown]
# ## The detector

# %%
class FasterRCNN(nn.Module):
    """Two stages on one feature pyramid.

    images: a list of (C, H, W) in 0..1. In training mode it
    returns losses, {name: scalar}, else detections, a dict of
    boxes, labels and scores for each image, in its pixels.
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
        if not self.training:
            targets = None
        else:
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
            mean, std = (image.new_tensor(each[:C])[:, None, None]
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
    return FasterRCNN(Backbone(Body()), RPN(256, sizes),
                      RoIHeads(256, num_classes), **options)
