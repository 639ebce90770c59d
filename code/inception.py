# %% [markdown]
# # Inception v3
#
# - **Paper**: Christian Szegedy, Vincent Vanhoucke, Sergey Ioffe, Jonathon Shlens,
#   Zbigniew Wojna. *Rethinking the Inception Architecture for Computer Vision*.
#   CVPR 2016. [arXiv:1512.00567](https://arxiv.org/abs/1512.00567)
# - **Idea**: replace a large convolution by a chain of small ones that sees the same
#   window for fewer multiply-adds, and never ask the network to be entirely sure.
# - **Demo**: small networks that differ only in how their 5x5 is factorised: cost
#   against accuracy; and label smoothing against none: how sure is the network?
# - **Time**: about 35 s on 2 CPU cores

# %%
import re
from collections import namedtuple
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from googlenet import as_trained
from grad_cam import grad_cam, where_it_looks
from lab import cli, compare, data, figures, measure, results, training, weights

# %% [markdown]
# ## A convolution and its factors

# %%
class BasicConv2d(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels, out_channels, kernel_size,
                 stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size,
            stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


# %%
def padded(in_channels, out_channels, height, width=None):
    """A BasicConv2d that keeps height and width; odd sizes."""
    kernel = (height, width or height)
    return BasicConv2d(in_channels, out_channels, kernel,
                       padding=(kernel[0] // 2, kernel[1] // 2))


# %%
def conv5x5(in_channels, channels):
    """The control: 25 weights a channel pair."""
    return padded(in_channels, channels, 5)


def two_conv3x3(in_channels, channels):
    """Section 3.1: 18 weights see 5x5."""
    return nn.Sequential(
        padded(in_channels, channels, 3),
        padded(channels, channels, 3))


def conv1x5_5x1(in_channels, channels):
    """Section 3.2: 10 weights do, too."""
    return nn.Sequential(
        padded(in_channels, channels, 1, 5),
        padded(channels, channels, 5, 1))


# %%
def average3x3(x):
    """The mean of each pixel's neighbours, on the same grid."""
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)


def through(x, *layers):
    """x after one layer after the other."""
    for layer in layers:
        x = layer(x)
    return x


# %% [markdown]
# ## The paper's block, figures 4 to 6

# %%
class InceptionModule(nn.Module):
    """Figure 5; with large=conv5x5 figure 4, GoogLeNet's.

    (B, C, H, W) -> (B, sum of the branches' channels, H, W).
    branch3x3, branch5x5: channels of its 1x1, of the rest.
    """

    def __init__(self, in_channels, branch1x1, branch3x3,
                 branch5x5, branch_pool, large=two_conv3x3):
        super().__init__()
        conv1x1 = partial(padded, in_channels, height=1)
        self.branch1x1 = conv1x1(branch1x1)
        self.branch3x3_1 = conv1x1(branch3x3[0])
        self.branch3x3_2 = padded(*branch3x3, 3)
        self.branch5x5_1 = conv1x1(branch5x5[0])
        self.branch5x5_2 = large(*branch5x5)
        self.branch_pool = conv1x1(branch_pool)

    def forward(self, x):
        return torch.cat([
            self.branch1x1(x),
            through(x, self.branch3x3_1, self.branch3x3_2),
            through(x, self.branch5x5_1, self.branch5x5_2),
            self.branch_pool(average3x3(x))], dim=1)


# %%
class ParallelReduction(nn.Module):
    """Figure 10: half of the channels from a convolution of
    stride 2, half from pooling.

    (B, C, H, W) -> (B, 2 C, H/2, W/2)
    """

    def __init__(self, channels):
        super().__init__()
        self.conv = BasicConv2d(channels, channels, 3,
                                stride=2, padding=1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x):
        return torch.cat([self.conv(x), self.pool(x)], 1)


# %%
def pool_first(channels):
    """Figure 9, left: cheap, but the pooled grid is a bottleneck."""
    return nn.Sequential(
        nn.MaxPool2d(3, stride=2, padding=1),
        padded(channels, 2 * channels, 3))


def conv_first(channels):
    """Figure 9, right: no bottleneck, but on the large grid."""
    return nn.Sequential(
        padded(channels, 2 * channels, 3),
        nn.MaxPool2d(3, stride=2, padding=1))


# %% [markdown]
# ## The blocks of the library
#
# The paper has no table of the channels. These are those of the authors' code, and of
# torchvision's, and so are the names.

# %%
class InceptionA(nn.Module):
    """On 35x35: (B, C, H, W) -> (B, 224 + pool_features, H, W)."""

    def __init__(self, in_channels, pool_features):
        super().__init__()
        self.branch1x1 = padded(in_channels, 64, 1)
        self.branch5x5_1 = padded(in_channels, 48, 1)
        # paper: 3x3 here in figure 5; torchvision: 5x5
        self.branch5x5_2 = padded(48, 64, 5)
        self.branch3x3dbl_1 = padded(in_channels, 64, 1)
        self.branch3x3dbl_2 = padded(64, 96, 3)
        self.branch3x3dbl_3 = padded(96, 96, 3)
        self.branch_pool = padded(in_channels, pool_features, 1)

    def forward(self, x):
        return torch.cat([
            self.branch1x1(x),
            through(x, self.branch5x5_1, self.branch5x5_2),
            through(x, self.branch3x3dbl_1,
                    self.branch3x3dbl_2, self.branch3x3dbl_3),
            self.branch_pool(average3x3(x))], dim=1)


# %%
class InceptionB(nn.Module):
    """35x35 to 17x17, figure 10: (B, C, H, W) ->
    (B, C + 480, (H - 1) / 2, (W - 1) / 2)."""

    def __init__(self, in_channels):
        super().__init__()
        # paper: a 1x1 before this 3x3; torchvision: none
        self.branch3x3 = BasicConv2d(in_channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = padded(in_channels, 64, 1)
        self.branch3x3dbl_2 = padded(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x):
        return torch.cat([
            self.branch3x3(x),
            through(x, self.branch3x3dbl_1,
                    self.branch3x3dbl_2, self.branch3x3dbl_3),
            F.max_pool2d(x, kernel_size=3, stride=2)], dim=1)


# %%
class InceptionC(nn.Module):
    """On 17x17, figure 6: (B, C, H, W) -> (B, 768, H, W)."""

    def __init__(self, in_channels, channels_7x7):
        super().__init__()
        c7 = channels_7x7
        self.branch1x1 = padded(in_channels, 192, 1)
        self.branch7x7_1 = padded(in_channels, c7, 1)
        self.branch7x7_2 = padded(c7, c7, 1, 7)
        self.branch7x7_3 = padded(c7, 192, 7, 1)
        self.branch7x7dbl_1 = padded(in_channels, c7, 1)
        self.branch7x7dbl_2 = padded(c7, c7, 7, 1)
        self.branch7x7dbl_3 = padded(c7, c7, 1, 7)
        self.branch7x7dbl_4 = padded(c7, c7, 7, 1)
        self.branch7x7dbl_5 = padded(c7, 192, 1, 7)
        self.branch_pool = padded(in_channels, 192, 1)

    def forward(self, x):
        return torch.cat([
            self.branch1x1(x),
            through(x, self.branch7x7_1, self.branch7x7_2,
                    self.branch7x7_3),
            through(x, self.branch7x7dbl_1, self.branch7x7dbl_2,
                    self.branch7x7dbl_3, self.branch7x7dbl_4,
                    self.branch7x7dbl_5),
            self.branch_pool(average3x3(x))], dim=1)


# %%
class InceptionD(nn.Module):
    """17x17 to 8x8: (B, C, H, W) ->
    (B, C + 512, (H - 1) / 2, (W - 1) / 2)."""

    def __init__(self, in_channels):
        super().__init__()
        self.branch3x3_1 = padded(in_channels, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = padded(in_channels, 192, 1)
        self.branch7x7x3_2 = padded(192, 192, 1, 7)
        self.branch7x7x3_3 = padded(192, 192, 7, 1)
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x):
        return torch.cat([
            through(x, self.branch3x3_1, self.branch3x3_2),
            through(x, self.branch7x7x3_1, self.branch7x7x3_2,
                    self.branch7x7x3_3, self.branch7x7x3_4),
            F.max_pool2d(x, kernel_size=3, stride=2)], dim=1)


# %%
class InceptionE(nn.Module):
    """On 8x8, figure 7, 1x3 and 3x1 side by side:
    (B, C, H, W) -> (B, 2048, H, W)."""

    def __init__(self, in_channels):
        super().__init__()
        self.branch1x1 = padded(in_channels, 320, 1)
        self.branch3x3_1 = padded(in_channels, 384, 1)
        self.branch3x3_2a = padded(384, 384, 1, 3)
        self.branch3x3_2b = padded(384, 384, 3, 1)
        self.branch3x3dbl_1 = padded(in_channels, 448, 1)
        self.branch3x3dbl_2 = padded(448, 384, 3)
        self.branch3x3dbl_3a = padded(384, 384, 1, 3)
        self.branch3x3dbl_3b = padded(384, 384, 3, 1)
        self.branch_pool = padded(in_channels, 192, 1)

    def forward(self, x):
        one = self.branch1x1(x)
        three = self.branch3x3_1(x)
        three = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        five = through(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        five = [self.branch3x3dbl_3a(five), self.branch3x3dbl_3b(five)]
        pooled = self.branch_pool(average3x3(x))
        return torch.cat([one, *three, *five, pooled], dim=1)


# %%
class InceptionAux(nn.Module):
    """A second classifier on the 17x17 grid, figure 8:
    (B, C, 17, 17) -> logits (B, K)."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.conv0 = padded(in_channels, 128, 1)
        self.conv1 = BasicConv2d(128, 768, 5)
        self.fc = nn.Linear(768, num_classes)
        self.fc.stddev = 0.001

    def forward(self, x):
        x = F.avg_pool2d(x, kernel_size=5, stride=3)   # (B, C, 5, 5)
        x = self.conv1(self.conv0(x))                  # (B, 768, 1, 1)
        return self.fc(x.mean(dim=(2, 3)))


# %% [markdown]
# ## The network for ImageNet, table 1

# %%
InceptionOutputs = namedtuple("InceptionOutputs", ["logits", "aux_logits"])


# %%
class Inception3(nn.Module):
    """(B, 3, 299, 299) -> logits (B, K); in training with aux_logits
    InceptionOutputs, two logits (B, K)."""

    def __init__(self, num_classes=1000, aux_logits=True,
                 transform_input=False, dropout=0.5):
        super().__init__()
        self.transform_input = transform_input
        self.add_stem()
        self.add_blocks()
        self.AuxLogits = InceptionAux(768, num_classes) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        self.apply(initialize)

    def add_stem(self):
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = padded(32, 64, 3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        # paper: 3x3, 3x3 of stride 2, 3x3; here as in torchvision:
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)

    def add_blocks(self):
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128)
        self.Mixed_6c = InceptionC(768, channels_7x7=160)
        self.Mixed_6d = InceptionC(768, channels_7x7=160)
        self.Mixed_6e = InceptionC(768, channels_7x7=192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)

    def forward(self, x):
        x = through(as_trained(x) if self.transform_input else x,
                    self.Conv2d_1a_3x3, self.Conv2d_2a_3x3,
                    self.Conv2d_2b_3x3, self.maxpool1, self.Conv2d_3b_1x1,
                    self.Conv2d_4a_3x3, self.maxpool2)  # (B, 192, 35, 35)
        x = through(x, self.Mixed_5b, self.Mixed_5c, self.Mixed_5d)
        x = through(x, self.Mixed_6a, self.Mixed_6b, self.Mixed_6c,
                    self.Mixed_6d, self.Mixed_6e)       # (B, 768, 17, 17)
        has_aux = self.training and self.AuxLogits is not None
        aux_logits = self.AuxLogits(x) if has_aux else None
        x = through(x, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c)
        x = self.dropout(self.avgpool(x)).flatten(1)    # (B, 2048)
        logits = self.fc(x)
        return InceptionOutputs(logits, aux_logits) if has_aux else logits


# %%
def initialize(module):
    """Weights from N(0, 0.1^2), cut at -2 and 2, as in torchvision."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        # torchvision means 0.01 for AuxLogits.conv1, but its loop passes it by
        std = getattr(module, "stddev", 0.1)
        nn.init.trunc_normal_(module.weight, std=std, a=-2, b=2)


# %%
def inception_v3(num_classes=1000, aux_logits=True, transform_input=False):
    """The published weights need transform_input=True."""
    return Inception3(num_classes, aux_logits, transform_input)


# %% [markdown]
# ## A small network of the paper's blocks

# %%
class SmallInception(nn.Module):
    """`depth` modules on each of two grids: (B, C, H, W) -> logits (B, K)."""

    def __init__(self, in_channels, num_classes=10, width=24, depth=2, stride=1,
                 large=two_conv3x3, reduction=ParallelReduction):
        super().__init__()
        self.stem = BasicConv2d(in_channels, 2 * width, 3, stride, padding=1)
        self.reduce1 = reduction(2 * width)
        self.mixed1 = nn.Sequential(
            *[even_module(4 * width, large) for _ in range(depth)])
        self.reduce2 = reduction(4 * width)
        self.mixed2 = nn.Sequential(
            *[even_module(8 * width, large) for _ in range(depth)])
        self.fc = nn.Linear(8 * width, num_classes)

    def forward(self, x):
        x = self.mixed1(self.reduce1(self.stem(x)))   # (B, 4 width, H / 2 stride, ...)
        x = self.mixed2(self.reduce2(x))              # (B, 8 width, half of that)
        return self.fc(x.mean(dim=(2, 3)))


def even_module(channels, large):
    """An InceptionModule of four equal branches, as many channels out as in."""
    width = channels // 4
    return InceptionModule(channels, width, (width, width), (width, width), width,
                           large)


# %% [markdown]
# ## Training, section 8

# %%
def label_smoothing_loss(logits, labels, epsilon=0.1):
    """With q', section 7: logits (B, K), labels (B)."""
    K = logits.shape[1]
    q = F.one_hot(labels, K)        # (B, K)
    q = (1 - epsilon) * q + epsilon / K
    log_p = logits.log_softmax(dim=1)
    return -(q * log_p).sum(dim=1).mean()


# %%
VARIANTS = {
    "two_3x3": {}, "5x5": {"large": conv5x5}, "1x5_5x1": {"large": conv1x5_5x1},
    "pool_first": {"reduction": pool_first}, "conv_first": {"reduction": conv_first}}


# %%
@dataclass(frozen=True)
class Settings(cli.ImageSettings):
    epochs: int = 3
    batch_size: int = 64
    lr: float | None = None         # paper: RMSProp, 0.045; here: SGD with momentum
    rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    tune: bool = False
    weight_decay: float = 5e-4
    augment: bool = False
    size: int = cli.flag(32, least=16)
    stride: int = cli.flag(2, "stride of the first convolution", most=2)
    width: int = 8
    depth: int = cli.flag(1, "blocks at each size of the maps")
    variants: tuple[str, ...] = cli.flag(
        ("5x5", "two_3x3", "1x5_5x1"), "networks compared", choices=tuple(VARIANTS))
    runs: int = 3


SETTINGS = {
    "cluttered": Settings(),
    "cifar10": Settings(
        epochs=10, lr=0.1, augment=True, width=12, depth=2, runs=1, threads=0,
        variants=("5x5", "two_3x3", "1x5_5x1", "pool_first", "conv_first")),
    "fashion_mnist": Settings(epochs=2, lr=0.1, augment=True, runs=1, threads=0)}

# %%
@training.memoize
def trained(variant, epsilon, args, seed):
    """A small network, Trained on args.data with labels smoothed by epsilon."""
    network = partial(SmallInception, width=args.width, depth=args.depth,
                      stride=args.stride, **VARIANTS[variant])
    return training.train_classifier(
        network, args, seed, f"inception-{variant}-{epsilon}-{args.data}-{seed}",
        loss=partial(label_smoothing_loss, epsilon=epsilon))


# %%
def sides(args):
    """The networks compared: {name: its training}."""
    return {**{variant: (trained, variant, 0.0) for variant in args.variants},
            "plain": (trained, "two_3x3", 0.0), "smoothed": (trained, "two_3x3", 0.1)}


# %%
def depth(model):
    """Layers with weights on the longest way through an Inception3."""
    layers = 1  # fc
    for name, part in model.named_children():
        steps = [int(step) for branch, _ in part.named_children()
                 for step in re.findall(r"_(\d)", branch)]
        layers += max(steps) if steps else name.startswith("Conv2d")
    return layers


def facts():
    """Numbers on the slides that follow from the networks alone."""
    values, pixels = {}, (1, 64, 32, 32)
    with torch.device("meta"):
        model = inception_v3()
        blocks = {"figure5": InceptionModule(192, 64, (48, 64), (64, 96), 32),
                  "InceptionA": model.Mixed_5b}
        parts = {"whole": conv5x5, "two_3x3": two_conv3x3, "1x5_5x1": conv1x5_5x1,
                 "3x3": partial(padded, height=3)}
        costs = {name: measure.multiply_adds(part(64, 64), pixels)
                 for name, part in parts.items()}
        reductions = {"conv_first": conv_first, "pool_first": pool_first,
                      "parallel": ParallelReduction}
        for name, build in reductions.items():
            values |= measure.costs(name, partial(build, 64), pixels)
        for name, options in VARIANTS.items():
            small = SmallInception(1, width=8, depth=1, **options)
            values[f"small_{name}_parameters"] = measure.parameters(small)
    for name, block in blocks.items():
        values[f"{name}_multiply_adds"] = measure.multiply_adds(block, (1, 192, 35, 35))
    for name in ["two_3x3", "1x5_5x1", "3x3"]:
        values[f"{name}_of_5x5"] = costs[name] / costs["whole"]
    aux = measure.parameters(model.AuxLogits)
    return values | {
        "parameters": measure.parameters(model), "aux_parameters": aux,
        "inference_parameters": measure.parameters(model) - aux, "depth": depth(model),
        "multiply_adds": measure.multiply_adds(model, (1, 3, 299, 299)),
        "5x5_of_3x3": 1 / values["3x3_of_5x5"],
        "contest_parameters": measure.parameters(SmallInception(3))}


# %%
def confidence(model, test, args):
    """Of each test image the largest probability and its correctness, (N); the NLL."""
    logits, labels = training.predict(model, test, args)
    p, predicted = logits.softmax(dim=1).max(dim=1)
    return p, predicted == labels, F.cross_entropy(logits, labels)


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)
    if args.weights:
        weights.classify(inception_v3(transform_input=True), "inception_v3", args,
                         grad_cam, layer="Mixed_7c")
        raise SystemExit

# %% Architecture
if __name__ == "__main__":
    with torch.device("meta"):
        model = inception_v3()
    blocks = [f"Mixed_{name}" for name in "5b 5c 5d 6a 6b 6c 6d 6e 7a 7b 7c".split()]
    figure = figures.architecture(
        model, (1, 3, 299, 299),
        layers=["maxpool1", "maxpool2", *blocks, "avgpool", "fc"])
    figures.save(figure, "inception-architecture")

# %% Reduction
if __name__ == "__main__":
    figures.save(figures.flow(ParallelReduction(64), (1, 64, 32, 32),
                              size=(390, 300)), "inception-reduction")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% Cost against accuracy
if __name__ == "__main__":
    networks, rows = compare.train(sides(args), args), {}
    for name in args.variants:
        model = networks[name][0].model
        cost = measure.multiply_adds(
            model, (1, model.stem.conv.in_channels, args.size, args.size))
        results.record(f"{name}_multiply_adds", cost)
        role = "idea" if name in ("two_3x3", "1x5_5x1") else "control"
        rows[name.replace("_", " ").replace("x", "×")] = (
            role, training.at_end(networks[name], "accuracy"), [f"{cost / 1e6:.2f} M"])
    figures.save(figures.dots(
        rows, f"after {args.epochs} epochs, {args.runs} seeds: test accuracy (%)",
        ["multiply-adds"], span=0.2), "inception-factors")

# %% Label smoothing
if __name__ == "__main__":
    networks, (_, test) = compare.train(sides(args), args), data.load(
        args, size=args.size)
    figure, (axis,) = figures.panels(
        xlabel="probability of the most likely class", ylabel="test images (%)")
    for name, role in [("plain", "control"), ("smoothed", "idea")]:
        found = [confidence(model, test, args) for model, _ in networks[name]]
        shares = [p.histc(10, min=0, max=1) / len(p) for p, _, _ in found]
        figures.band(axis, torch.arange(0.05, 1, 0.1), torch.stack(shares), role,
                     f"{name} labels")
        p, right = (torch.cat(part) for part in list(zip(*found))[:2])
        results.record(f"{name}_confidence", p.mean())
        results.record(f"{name}_confidence_wrong", p[~right].mean())
        results.record(f"{name}_nll", torch.stack([nll for *_, nll in found]).mean())
    axis.set_xlim(0, 1)
    figures.label_lines(axis)
    figures.save(figure, "inception-smoothing")

# %% One image through the network
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained("two_3x3", 0.0, compare.chosen("two_3x3", args), args.seed).model
    figures.save(figures.feature_maps(
        model, test[3][0], ["stem", "reduce1", "mixed1", "reduce2", "mixed2"]),
        "inception-feature-maps")

# %% Where the network looked
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained("two_3x3", 0.0, compare.chosen("two_3x3", args), args.seed).model
    figures.save(where_it_looks(model, "mixed1", test, args), "inception-grad-cam")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
