# %% [markdown]
# # ConvNeXt
#
# - **Paper**: Zhuang Liu, Hanzi Mao, Chao-Yuan Wu, Christoph Feichtenhofer,
#   Trevor Darrell, Saining Xie. *A ConvNet for the 2020s*. CVPR 2022.
#   [arXiv:2201.03545](https://arxiv.org/abs/2201.03545)
# - **Idea**: train a ResNet as Transformers are trained, then take over their
#   design, one change at a time, and keep the convolutions.
# - **Demo**: three stations of the paper's road from ResNet to ConvNeXt, in small and
#   at about equal multiply-adds, and what a multiply-add costs in each kind of
#   convolution.
# - **Time**: about 30 s on 2 CPU cores; `--data cifar10` walks the whole road

# %%
import time
from dataclasses import dataclass
from functools import partial

import torch
from einops.layers.torch import Rearrange
from torch import nn

from grad_cam import grad_cam, where_it_looks
from lab import cli, compare, data, figures, measure, papers, results, training, weights
from resnet import projection

# %% [markdown]
# ## Blocks

# %%
class LayerNorm2d(nn.LayerNorm):
    """The channels of each pixel, normalised by themselves.

    (B, C, H, W) -> (B, C, H, W)
    """

    def forward(self, x):
        return super().forward(x.movedim(1, 3)).movedim(3, 1)


# %%
def stochastic_depth(x, probability, training=True):
    """Make whole samples of x (B, ...) zero, at random.

    Huang et al. 2016: their block then copies its input.
    """
    if not training or probability == 0:
        return x
    survival = 1 - probability
    one_per_sample = [len(x)] + [1] * (x.ndim - 1)
    noise = x.new_empty(one_per_sample).bernoulli_(survival)
    if survival > 0:
        # paper: x * survival when testing; here as dropout
        noise = noise / survival
    return x * noise


# %%
class CNBlock(nn.Module):
    """7x7 a channel, 1x1 to 4 C, 1x1 to C: (B, C, H, W)."""

    def __init__(self, dim, layer_scale=1e-6, p=0.0):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(dim, dim, 7, padding=3, groups=dim),
            Rearrange("b c h w -> b h w c"),
            nn.LayerNorm(dim, eps=1e-6),
            nn.Linear(dim, 4 * dim),  # a 1x1 convolution
            nn.GELU(),
            nn.Linear(4 * dim, dim),
            Rearrange("b h w c -> b c h w"))
        scale = torch.full((dim, 1, 1), layer_scale)
        self.layer_scale = nn.Parameter(scale)
        self.p = p  # to drop out, for each sample

    def forward(self, x):
        y = self.layer_scale * self.block(x)
        return stochastic_depth(y, self.p, self.training).add_(x)


# %%
def downsampling(in_channels, out_channels):
    """Between two stages: (B, C, H, W) -> (B, C', H/2, W/2)."""
    return nn.Sequential(
        LayerNorm2d(in_channels, eps=1e-6),
        nn.Conv2d(in_channels, out_channels, 2, stride=2))


# %% [markdown]
# ## The network, table 9

# %%
class ConvNeXt(nn.Module):
    """(B, C, H, W) -> logits (B, K); in the paper C = 3, H = W = 224.

    depths, widths: blocks and channels of each stage. patch_size: side of the
    squares that the first layer cuts the image into. drop_probability: of
    the last block's stochastic depth; it grows from 0 block by block.
    """

    def __init__(self, depths, widths, drop_probability=0.0, layer_scale=1e-6,
                 num_classes=1000, in_channels=3, patch_size=4):
        super().__init__()
        norm = partial(LayerNorm2d, eps=1e-6)
        layers = [nn.Sequential(
            nn.Conv2d(in_channels, widths[0], patch_size, stride=patch_size),
            norm(widths[0]))]
        drops = iter(drop_probability * i / max(sum(depths) - 1, 1)
                     for i in range(sum(depths)))
        for i, (depth, width) in enumerate(zip(depths, widths)):
            if i > 0:
                layers.append(downsampling(widths[i - 1], width))
            layers.append(nn.Sequential(*[
                CNBlock(width, layer_scale, next(drops)) for _ in range(depth)]))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            norm(widths[-1]), nn.Flatten(1), nn.Linear(widths[-1], num_classes))
        self.apply(initialize)

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)))


# %%
def initialize(module):
    """Weights from N(0, 0.02^2), cut off at +-2, biases zero: appendix A.1."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# %%
def scale_to_width(module):
    """Weights from N(0, 2 / fan-in), He et al. 2015; biases zero.

    paper: N(0, 0.02^2), at 96 channels and more; here, for 8 to 96: with that
    deviation a block of the small networks would add next to nothing at first.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# %%
def convnext_tiny(num_classes=1000):
    return ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), 0.1, num_classes=num_classes)


def convnext_small(num_classes=1000):
    return ConvNeXt((3, 3, 27, 3), (96, 192, 384, 768), 0.4, num_classes=num_classes)


def convnext_base(num_classes=1000):
    return ConvNeXt((3, 3, 27, 3), (128, 256, 512, 1024), 0.5, num_classes=num_classes)


def convnext_large(num_classes=1000):
    return ConvNeXt((3, 3, 27, 3), (192, 384, 768, 1536), 0.5, num_classes=num_classes)


# %%
def small_convnext(in_channels, num_classes=10, width=24, depths=(1, 1, 3, 1)):
    """For images of 32x32: four stages at 16x16, 8x8, 4x4 and 2x2.

    layer_scale 1: 1e-6 is for networks many times deeper and longer training.
    """
    widths = [width * 2 ** i for i in range(4)]
    return ConvNeXt(depths, widths, layer_scale=1.0, num_classes=num_classes,
                    in_channels=in_channels, patch_size=2).apply(scale_to_width)


# %% [markdown]
# ## The road from ResNet to ConvNeXt, section 2 and figure 2

# %%
@dataclass(frozen=True)
class Design:
    """A network between ResNet, as it stands, and ConvNeXt.

    wider: so many times the width of the ResNet's 3x3 layers,
    chosen for about equal multiply-adds.
    """
    wider: float = 1
    depths: tuple = (1, 2, 2, 1)
    patchify: bool = False
    depthwise: bool = False     # one kernel a channel
    inverted: bool = False      # wide inside, narrow outside
    large_kernel: bool = False  # 7x7, before both 1x1
    sparse: bool = False        # GELU; one, and one norm, a block
    layer_norm: bool = False    # and downsampling by itself


# %%
# paper: depthwise and more width, moved up and 7x7, GELU, fewer activations and fewer
# norms, LayerNorm and its own downsampling are steps of their own; here: one each
ROAD = {  # the step's name, what it changes
    "resnet": ("ResNet", {}),
    "ratio": ("stage ratio 1:1:3:1", {"depths": (1, 1, 3, 1)}),
    "patchify": ("patchify stem", {"patchify": True}),
    "depthwise": ("depthwise, wider", {"depthwise": True, "wider": 1.25}),
    "inverted": ("inverted bottleneck", {"inverted": True, "wider": 1.5}),
    "kernel": ("7×7, moved up", {"large_kernel": True, "wider": 1.75}),
    "sparse": ("one GELU, one norm", {"sparse": True}),
    "convnext": ("LayerNorm: ConvNeXt", {"layer_norm": True, "wider": 1.5}),
}


def design(step):
    """The design after all changes of ROAD up to `step`."""
    changes = {}
    for key in list(ROAD)[:list(ROAD).index(step) + 1]:
        changes |= ROAD[key][1]
    return Design(**changes)


# %%
def road_layers(in_channels, channels, stride, design):
    """The layers of a block; its input is added to what they make of it."""
    hidden = 4 * channels if design.inverted else channels // 4
    if design.large_kernel:
        kernels, widths = (7, 1, 1), (in_channels, in_channels, hidden, channels)
    else:
        kernels, widths = (1, 3, 1), (in_channels, hidden, hidden, channels)
    layers = []
    for i, kernel in enumerate(kernels):
        spatial = kernel > 1
        layers.append(nn.Conv2d(
            widths[i], widths[i + 1], kernel, stride=stride if spatial else 1,
            padding=kernel // 2, bias=False,
            groups=widths[i] if spatial and design.depthwise else 1))
        if i == 0 or not design.sparse:
            layers.append(nn.BatchNorm2d(widths[i + 1]))
        if i == 1 or i == 0 and not design.sparse:
            layers.append(nn.GELU() if design.sparse else nn.ReLU())
    return nn.Sequential(*layers)


# %%
class RoadBlock(nn.Module):
    """A block on the way: at first ResNet's bottleneck.

    (B, C, H, W) -> (B, channels, H / stride, W / stride)
    """

    def __init__(self, in_channels, channels, stride, design):
        super().__init__()
        self.block = road_layers(in_channels, channels, stride, design)
        self.downsample = projection(in_channels, channels, stride)
        self.activation = nn.Identity() if design.sparse else nn.ReLU()

    def forward(self, x):
        return self.activation(self.block(x) + self.downsample(x))


# %%
class RoadNet(nn.Module):
    """(B, C, H, W) -> logits (B, K): stages at H/2, H/4, H/8 and H/16."""

    def __init__(self, design, width, in_channels):
        super().__init__()
        kernel, stride, padding = (2, 2, 0) if design.patchify else (3, 1, 1)
        stem = [nn.Conv2d(in_channels, width, kernel, stride, padding, bias=False),
                nn.BatchNorm2d(width)]
        if not design.patchify:
            stem += [nn.ReLU(), nn.MaxPool2d(2)]
        outside = width if design.inverted else 4 * width
        stages = []
        for stage, depth in enumerate(design.depths):
            channels, blocks = outside * 2 ** stage, []
            for stride in [min(stage + 1, 2)] + [1] * (depth - 1):
                blocks.append(RoadBlock(width, channels, stride, design))
                width = channels
            stages.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(nn.Sequential(*stem), *stages)
        self.fc = nn.Linear(width, 10)
        self.apply(scale_to_width)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


# %%
def road_network(step, width, in_channels=3):
    """The network at `step` of ROAD, from a ResNet of `width`."""
    chosen = design(step)
    width = round(chosen.wider * width)
    if chosen.layer_norm:
        return small_convnext(in_channels, width=width, depths=chosen.depths)
    return RoadNet(chosen, width, in_channels)


# %% [markdown]
# ## Training

# %%
@dataclass(frozen=True)
class Settings(cli.ImageSettings):
    # paper: 300 epochs, batches of 4096, lr 0.004, section 3.1
    epochs: int = 5
    batch_size: int = 64
    lr: float | None = None
    rates: tuple[float, ...] = (0.002, 0.004, 0.008, 0.016)
    tune: bool = False
    weight_decay: float = 0.05
    augment: bool = False
    size: int = cli.flag(16, least=16)
    width: int = 8
    steps: tuple[str, ...] = cli.flag(
        ("resnet", "kernel", "convnext"), "stations of the road", choices=tuple(ROAD))
    runs: int = 3


SETTINGS = {
    "digits": Settings(),
    "cluttered": Settings(epochs=10, size=32),
    "cifar10": Settings(epochs=6, rates=(0.002, 0.004, 0.008), augment=True, size=32,
                        steps=tuple(ROAD)),
    "fashion_mnist": Settings(epochs=2, lr=0.004, augment=True, size=32, runs=1,
                              threads=0)}


# %%
@training.memoize
def trained(step, args, seed):
    """The network at `step` of ROAD, Trained with AdamW."""
    # paper, section 3.1: 300 epochs, Mixup, CutMix, RandAugment, random erasing,
    # stochastic depth, label smoothing; here: AdamW, its schedule, shifts and flips
    return training.train_classifier(
        partial(road_network, step, args.width), args, seed,
        name=f"convnext-{step}-{args.data}-{seed}",
        optimizer=partial(torch.optim.AdamW, lr=args.lr,
                          weight_decay=args.weight_decay))


# %%
def sides(args):
    """The networks compared, steps of the road: {name: its training}."""
    return {step: (trained, step) for step in reversed(args.steps)}


# %%
def seconds_per_giga(layer, x, repeats):
    """Seconds of a forward and backward pass for 10^9 multiply-adds forward."""
    giga = measure.multiply_adds(layer, tuple(x.shape)) / 1e9
    found = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        layer(x).sum().backward()
        found.append((time.perf_counter() - began) / giga)
    return found[2:]  # the first ones also set things up


# %%
def facts():
    """What the slides state of ConvNeXts, computed."""
    values, image = {}, (1, 3, 224, 224)
    with torch.device("meta"):
        for build in [convnext_tiny, convnext_small, convnext_base, convnext_large]:
            model, name = build(), build.__name__
            values[f"{name}_parameters"] = measure.parameters(model)
            values[f"{name}_multiply_adds"] = measure.multiply_adds(model, image)
        block, shape = CNBlock(96), (1, 96, 56, 56)
        depthwise = block.block[0]
        values["CNBlock_parameters"] = measure.parameters(block)
        values["depthwise_parameters"] = measure.parameters(depthwise)
        values["depthwise_share"] = measure.multiply_adds(
            depthwise, shape) / measure.multiply_adds(block, shape)
        small = small_convnext(3)
        values["small_parameters"] = measure.parameters(small)
        values["small_multiply_adds"] = measure.multiply_adds(small, (1, 3, 32, 32))
        for step in ROAD:
            model = road_network(step, 16)
            values[f"road_{step}_parameters"] = measure.parameters(model)
            values[f"road_{step}_multiply_adds"] = measure.multiply_adds(
                model, (1, 3, 32, 32))
    return values


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)
    if args.weights:
        weights.classify(convnext_tiny(), "convnext_tiny", args, grad_cam,
                         layer="features.7")
        raise SystemExit

# %% Architecture
if __name__ == "__main__":
    with torch.device("meta"):   # the figure needs shapes only
        model = convnext_tiny()
    figures.save(figures.architecture(model, (1, 3, 224, 224)), "convnext-architecture")

# %% Block
if __name__ == "__main__":
    figures.save(figures.flow(CNBlock(96), (1, 96, 56, 56)), "convnext-block")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% From ResNet to ConvNeXt
if __name__ == "__main__":
    networks, (train, _) = compare.train(sides(args), args), data.load(
        args, size=args.size)
    rows, image = {}, train[0][0]
    for step in args.steps:  # on the whole road or at a few stations of it
        work = measure.multiply_adds(
            road_network(step, args.width, len(image)), (1, *image.shape))
        results.record(f"{step}_multiply_adds", work)
        title, _ = ROAD[step]
        role = {"resnet": "control", "convnext": "idea"}.get(step, "muted")
        published = papers.value(
            "liu2022", "road_" + ("fewer_norms" if step == "sparse" else step))
        rows[title] = (role, training.at_end(networks[step], "accuracy"),
                       [f"{work / 1e6:.2f} M", f"{published:.1%}"])
    figures.save(figures.dots(
        rows, f"after {args.epochs} epochs, {args.runs} seeds: test accuracy (%)",
        ["multiply-adds", "paper, ImageNet"], span=0.1), "convnext-road")

# %% What a multiply-add costs
if __name__ == "__main__":
    images = torch.randn(64, 64, 16, 16, device=args.device, requires_grad=True)
    kinds = {
        "3×3, dense": ("control", "dense", nn.Conv2d(64, 64, 3, padding=1)),
        "1×1, dense": ("control", "pointwise", nn.Conv2d(64, 64, 1)),
        "3×3, depthwise": ("idea", "depthwise3",
                           nn.Conv2d(64, 64, 3, padding=1, groups=64)),
        "7×7, depthwise": ("idea", "depthwise7",
                           nn.Conv2d(64, 64, 7, padding=3, groups=64))}
    rows, medians = {}, {}
    repeats = 2 if args.quick else 15
    for title, (role, key, layer) in kinds.items():
        seconds = seconds_per_giga(layer.to(args.device), images, repeats)
        medians[key] = median = torch.tensor(seconds).median().item()
        results.record(f"{key}_seconds_per_giga", median)
        results.record(f"{key}_times_dense", median / medians["dense"])
        rows[title] = (role, seconds, [f"{median:.3f} s"])
    figure = figures.dots(rows, "seconds for 10⁹ multiply-adds, forward and backward",
                  ["median"])
    figure.axes[0].set_xlim(left=0)
    figures.save(figure, "convnext-cost")

# %% One image through the network
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained("convnext", compare.chosen("convnext", args), args.seed).model
    figures.save(figures.feature_maps(
        model, test[3][0], ["features.0", "features.1", "features.3", "features.5"]),
        "convnext-feature-maps")

# %% Where it looks
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained("convnext", compare.chosen("convnext", args), args.seed).model
    figures.save(where_it_looks(model, "features.3", test, args), "convnext-grad-cam")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
