# %% [markdown]
# # ResNet
#
# - **Paper**: Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun.
#   *Deep Residual Learning for Image Recognition*. CVPR 2016.
#   [arXiv:1512.03385](https://arxiv.org/abs/1512.03385)
# - **Idea**: let a block learn what to add to its input, so that doing nothing is
#   easy and deep networks can be trained.
# - **Demo**: plain networks against residual networks of 20 and 56 layers: training
#   error, gradient by layer, and what the maps of a trained network show.
# - **Time**: about 35 s on 2 CPU cores

# %%
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from grad_cam import grad_cam
from lab import cli, compare, data, figures, measure, results, training, weights

# %% [markdown]
# ## Blocks

# %%
def conv3x3(in_channels, out_channels, stride=1):
    """A 3x3 convolution that keeps height and width at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3,
                     stride=stride, padding=1, bias=False)


# %%
def conv1x1(in_channels, out_channels, stride=1):
    """A linear layer over the channels of each pixel."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1,
                     stride=stride, bias=False)


# %%
def projection(in_channels, channels, stride):
    """Shortcut B: 1x1 convolution if the shape changes."""
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return nn.Sequential(
        conv1x1(in_channels, channels, stride),
        nn.BatchNorm2d(channels))


# %%
class ZeroPadding(nn.Module):
    """Shortcut A: every stride-th pixel, new channels zero.

    (B, C, H, W) -> (B, channels, H / stride, W / stride)
    """

    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.missing = channels - in_channels
        self.stride = stride

    def forward(self, x):
        x = x[:, :, ::self.stride, ::self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.missing))


# %%
class PlainBlock(nn.Module):
    """Two 3x3 convolutions, the control: no shortcut.

    (B, C, H, W) -> (B, channels, H / stride, W / stride)
    """
    expansion = 1

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out)


# %%
class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, section 3.3.

    (B, C, H, W) -> (B, channels, H / stride, W / stride)
    """
    expansion = 1

    def __init__(self, in_channels, channels, stride=1,
                 shortcut=projection):
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(in_channels, channels, stride)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x))


# %%
class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, figure 5.

    (B, C, H, W) -> (B, 4 channels, H / stride, W / stride)
    """
    expansion = 4

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        out_channels = self.expansion * channels
        self.conv1 = conv1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        # paper: stride in conv1 (v1); torchvision: here (v1.5)
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = conv1x1(channels, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(
            in_channels, out_channels, stride)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.downsample(x))


# %%
class BottleneckV1(Bottleneck):
    """The paper's own: the first 1x1 skips three pixels of four."""

    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)
        self.conv1.stride = self.conv2.stride
        self.conv2.stride = (1, 1)


# %% [markdown]
# ## The networks for ImageNet, table 1

# %%
def stage(block, in_channels, channels, depth, stride):
    """`depth` blocks; the first one changes the shape."""
    blocks = [block(in_channels, channels, stride)]
    for _ in range(1, depth):
        in_channels = blocks[0].expansion * channels
        blocks.append(block(in_channels, channels))
    return nn.Sequential(*blocks)


# %%
class ResNet(nn.Module):
    """(B, 3, H, W) -> logits (B, K); in the paper H = W = 224."""

    def __init__(self, block, depths, num_classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        n = block.expansion
        self.layer1 = stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = stage(block, n * 64, 128, depths[1], stride=2)
        self.layer3 = stage(block, n * 128, 256, depths[2], stride=2)
        self.layer4 = stage(block, n * 256, 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(n * 512, num_classes)
        self.apply(he_initialize)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))              # (B, 64, H/2, W/2)
        x = self.layer1(self.maxpool(x))                 # H/4
        x = self.layer4(self.layer3(self.layer2(x)))     # (B, C, H/32, W/32)
        return self.fc(self.avgpool(x).flatten(1))


# %%
def he_initialize(module):
    """Weights from N(0, 2 / fan-out): He et al. 2015, as in torchvision.

    paper: as He et al. 2015, who derive fan-in as well and name no preference.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# %%
def resnet18(num_classes=1000):
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet34(num_classes=1000):
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes)


def resnet50(num_classes=1000, block=Bottleneck):
    return ResNet(block, (3, 4, 6, 3), num_classes)


def resnet101(num_classes=1000, block=Bottleneck):
    return ResNet(block, (3, 4, 23, 3), num_classes)


def resnet152(num_classes=1000, block=Bottleneck):
    return ResNet(block, (3, 8, 36, 3), num_classes)


# %% [markdown]
# ## The networks for CIFAR-10, section 4.2

# %%
class CifarResNet(nn.Module):
    """6n + 2 layers: a convolution, three stages of n blocks, a linear layer.

    (B, C, H, W) -> logits (B, K); in the paper C = 3, H = W = 32, width 16.
    """

    def __init__(self, depth, width=16, plain=False, in_channels=3, num_classes=10):
        super().__init__()
        block = PlainBlock if plain else partial(BasicBlock, shortcut=ZeroPadding)
        n = (depth - 2) // 6
        self.conv1 = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(block, width, width, n, stride=1)
        self.layer2 = stage(block, width, 2 * width, n, stride=2)
        self.layer3 = stage(block, 2 * width, 4 * width, n, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        self.apply(he_initialize)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))               # (B, width, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))      # (B, 4 width, H/4, W/4)
        return self.fc(self.avgpool(x).flatten(1))


# %% [markdown]
# ## Training, section 4.2

# %%
@dataclass(frozen=True)
class Settings(cli.ImageSettings):
    epochs: int = 5
    batch_size: int = 128
    lr: float | None = None               # paper: 0.1
    rates: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    tune: bool = False
    milestones: tuple[float, ...] = cli.flag(
        (), "shares of the epochs after which the rate falls to a tenth", most=1)
    weight_decay: float = 1e-4
    augment: bool = False
    size: int = 8                         # paper: 32
    width: int = 8                        # paper: 16
    depths: tuple[int, ...] = cli.flag((56, 20), "layers, 6n + 2", least=8)
    runs: int = 3

    def __post_init__(self):
        for depth in self.depths:
            if depth % 6 != 2:
                raise ValueError(f"--depths {depth} is not 6n + 2, such as 20 or 56")


SETTINGS = {
    "digits": Settings(),
    # paper: 64k steps, about 164 epochs; a tenth of the rate at 32k and 48k; the mean
    # image is subtracted; here: each channel's mean, and the images that are available
    "cifar10": Settings(
        epochs=20, lr=0.1, milestones=(0.5, 0.75), augment=True, size=32, width=16,
        depths=(20,), runs=1, threads=0),
    "fashion_mnist": Settings(
        epochs=3, lr=0.1, milestones=(0.7,), augment=True, size=28, depths=(20,),
        runs=1, threads=0)}


# %%
@training.memoize
def trained(depth, plain, args, seed):
    """A network for CIFAR-10 of `depth` layers, Trained as in section 4.2."""
    torch.manual_seed(seed)
    train, test = data.load(args, size=args.size)
    model = training.place(CifarResNet(
        depth, args.width, plain, in_channels=train[0][0].shape[0]), args)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9,
                                weight_decay=args.weight_decay)

    def step(batch):
        images, labels = batch
        if args.augment:
            images = data.random_flip(data.random_crop(images, padding=4))
        with training.precision(args):
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wrong = (logits.argmax(dim=1) != labels).float()
        return {"loss": loss, "training_error": wrong.mean()}

    milestones = [round(share * args.epochs) for share in args.milestones]
    history = training.fit(
        step, training.loader(train, args), args, seed=seed,
        save={"model": model, "optimizer": optimizer},
        scheduler=torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones),
        validate=lambda: training.accuracy(model, test, args),
        name=f"resnet-{'plain' if plain else 'residual'}-{depth}-{args.data}-{seed}")
    return training.Trained(model, history)


# %%
def sides(args):
    """The networks compared, with and without shortcuts: {name: its training}."""
    return {f"{kind}{depth}": (trained, depth, kind == "plain")
            for depth in args.depths for kind in ("plain", "residual")}


# %%
def gradient_norms(depth, plain, args, seed):
    """Norm of the loss's gradient for each 3x3 convolution of a new network."""
    torch.manual_seed(seed)
    train, _ = data.load(args, size=args.size)
    images, labels = train[:128]
    model = CifarResNet(depth, args.width, plain, in_channels=images.shape[1])
    F.cross_entropy(model(images), labels).backward()
    return [module.weight.grad.norm().item() for module in model.modules()
            if isinstance(module, nn.Conv2d)]


# %%
def main_path(model):
    """The layers that an image passes if it takes no shortcut."""
    return [module for name, module in model.named_modules()
            if "downsample" not in name]


def facts():
    """Numbers on the slides that follow from the networks alone."""
    values, image = {}, (1, 3, 224, 224)
    for build in [resnet18, resnet34, resnet50, resnet101, resnet152]:
        name = build.__name__
        values |= measure.costs(name, build, image)
        with torch.device("meta"):
            path = main_path(build())
        convolutions = [layer for layer in path if isinstance(layer, nn.Conv2d)]
        values[f"{name}_depth"] = len(convolutions) + 1
        values[f"{name}_receptive_field"] = measure.receptive_fields(path)[-1]
    v1 = measure.costs("v1", lambda: resnet50(block=BottleneckV1), image)
    values["resnet50_v1_multiply_adds"] = v1["v1_multiply_adds"]
    for depth in [20, 32, 44, 56, 110]:
        with torch.device("meta"):
            model = CifarResNet(depth)
        values[f"cifar{depth}_parameters"] = measure.parameters(model)
    for block in [PlainBlock(64, 64), BasicBlock(64, 64), Bottleneck(256, 64)]:
        values[f"{type(block).__name__}_parameters"] = measure.parameters(block)
    return values


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)
    if args.weights:
        weights.classify(resnet50(), "resnet50", args, grad_cam, layer="layer4")
        raise SystemExit

# %% Architecture
if __name__ == "__main__":
    with torch.device("meta"):   # the figure needs shapes only
        model = resnet18()
    figures.save(figures.architecture(model, (1, 3, 224, 224)), "resnet-architecture")

# %% Blocks
if __name__ == "__main__":
    figures.save(figures.flow(PlainBlock(64, 64), (1, 64, 56, 56), role="control"),
                 "resnet-plain-block")
    figures.save(figures.flow(BasicBlock(64, 64), (1, 64, 56, 56)),
                 "resnet-basic-block")
    figures.save(figures.flow(Bottleneck(256, 64), (1, 256, 56, 56)),
                 "resnet-bottleneck")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% Plain against residual
if __name__ == "__main__":
    networks, comparison = compare.train(sides(args), args), {}
    for title, role, kind in [("plain", "control", "plain"),
                              ("with skip connections", "idea", "residual")]:
        comparison[title] = role, {
            f"{depth} layers": training.by_epoch(
                networks[f"{kind}{depth}"], "training_error")
            for depth in args.depths}
    note = f"deeper is worse:\nnot fitted after {args.epochs} epochs"
    figures.save(figures.curves(
        comparison, ylabel="training error (%)",
        note=("plain", "56 layers", 3, note) if 56 in args.depths else None),
        "resnet-plain-vs-residual")

# %% Gradient by layer
if __name__ == "__main__":
    figure, (axis,) = figures.panels(
        xlabel="convolution, from the input on", ylabel="norm of its gradient")
    axis.set_yscale("log")
    for role, plain in [("control", True), ("idea", False)]:
        norms = [gradient_norms(args.depths[0], plain, args, seed)
                 for seed in args.seeds]
        figures.band(axis, range(1, len(norms[0]) + 1), norms, role,
                     "plain" if plain else "with skip connections")
    figures.label_lines(axis)
    figures.save(figure, "resnet-gradients")

# %% One image through the network
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    depth = args.depths[-1]
    model = trained(depth, False, compare.chosen(f"residual{depth}", args),
                    args.seed).model
    figures.save(figures.feature_maps(
        model, test[3][0], ["conv1", "layer1", "layer2", "layer3"]),
        "resnet-feature-maps")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
