# %% [markdown]
# # VGG
#
# - **Paper**: Karen Simonyan, Andrew Zisserman.
#   *Very Deep Convolutional Networks for Large-Scale Image Recognition*. ICLR 2015.
#   [arXiv:1409.1556](https://arxiv.org/abs/1409.1556)
# - **Idea**: make every convolution 3x3; three of them in a row see as far as one of
#   7x7, have fewer weights, and have three nonlinearities instead of one.
# - **Demo**: three 3x3 convolutions against one of 7x7, the same network deeper and
#   deeper with and without batch normalisation, how large the signal is in a new
#   VGG-19, and what a trained small VGG looks at.
# - **Time**: about 40 s on 2 CPU cores

# %%
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from grad_cam import grad_cam, where_it_looks
from lab import cli, compare, data, figures, measure, results, training, weights

# %% [markdown]
# ## Blocks

# %%
def convolution(in_channels, channels, kernel_size=3, batch_norm=False):
    """A convolution that keeps H and W, and its ReLU.

    (B, in_channels, H, W) -> (B, channels, H, W), as a list.
    """
    layers = [nn.Conv2d(in_channels, channels, kernel_size,
                        padding=kernel_size // 2)]
    if batch_norm:   # paper: none; it came a year later
        layers.append(nn.BatchNorm2d(channels))
    return [*layers, nn.ReLU(inplace=True)]


# %%
def make_layers(configuration, batch_norm=False, in_channels=3):
    """The layers of a column of table 1, before the classifier.

    A number is a 3x3 convolution with so many channels, a pair
    is (channels, kernel size), "M" halves height and width.
    """
    layers = []
    for entry in configuration:
        if entry == "M":
            layers.append(nn.MaxPool2d(kernel_size=2))
        elif entry == "LRN":   # AlexNet's; torch divides alpha by 5
            layers.append(nn.LocalResponseNorm(
                size=5, alpha=5 * 1e-4, beta=0.75, k=2))
        else:
            pair = isinstance(entry, tuple)
            channels, size = entry if pair else (entry, 3)
            layers += convolution(in_channels, channels, size, batch_norm)
            in_channels = channels
    return nn.Sequential(*layers)


# %% [markdown]
# ## The networks for ImageNet, table 1

# %%
CONFIGURATIONS = {
    "A": [64, "M", 128, "M", *2 * [256], "M",
          *2 * [512], "M", *2 * [512], "M"],
    "A-LRN": [64, "LRN", "M", 128, "M", *2 * [256], "M",
              *2 * [512], "M", *2 * [512], "M"],
    "B": [*2 * [64], "M", *2 * [128], "M", *2 * [256], "M",
          *2 * [512], "M", *2 * [512], "M"],
    "C": [*2 * [64], "M", *2 * [128], "M", *2 * [256], (256, 1), "M",
          *2 * [512], (512, 1), "M", *2 * [512], (512, 1), "M"],
    "D": [*2 * [64], "M", *2 * [128], "M", *3 * [256], "M",
          *3 * [512], "M", *3 * [512], "M"],
    "E": [*2 * [64], "M", *2 * [128], "M", *4 * [256], "M",
          *4 * [512], "M", *4 * [512], "M"],
}


# %%
def last_channels(features):
    """How many channels the last convolution puts out."""
    return [layer.out_channels for layer in features
            if isinstance(layer, nn.Conv2d)][-1]


# %%
class VGG(nn.Module):
    """(B, 3, H, W) -> logits (B, K), H = W = 224."""

    def __init__(self, features, num_classes=1000,
                 hidden_size=4096):
        super().__init__()
        self.features = features   # (B, 512, H/32, W/32)
        # paper: none; here: for other sizes than 224
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(last_channels(features) * 7 * 7, hidden_size),
            nn.ReLU(), nn.Dropout(p=0.5),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(), nn.Dropout(p=0.5),
            nn.Linear(hidden_size, num_classes))
        self.apply(initialize)

    def forward(self, x):
        x = self.avgpool(self.features(x))   # (B, 512, 7, 7)
        return self.classifier(x.flatten(1))


# %%
def initialize(module):
    """As torchvision: He et al. 2015, and N(0, 0.01^2) for linear layers.

    paper, section 3.1: variance 10^-2 for net A; deeper ones start with its layers.
    He et al. derive 2 / fan-in, which keeps what goes forward, and 2 / fan-out, which
    keeps the gradient; torchvision takes the latter.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


# %%
def vgg(configuration, num_classes=1000, batch_norm=False):
    """The network of a column of table 1, by the column's letter."""
    return VGG(make_layers(CONFIGURATIONS[configuration], batch_norm), num_classes)


# %%
def vgg11(num_classes=1000):
    return vgg("A", num_classes)


def vgg13(num_classes=1000):
    return vgg("B", num_classes)


def vgg16(num_classes=1000):
    return vgg("D", num_classes)


def vgg19(num_classes=1000):
    return vgg("E", num_classes)


# %%
def vgg11_bn(num_classes=1000):
    return vgg("A", num_classes, batch_norm=True)


def vgg13_bn(num_classes=1000):
    return vgg("B", num_classes, batch_norm=True)


def vgg16_bn(num_classes=1000):
    return vgg("D", num_classes, batch_norm=True)


def vgg19_bn(num_classes=1000):
    return vgg("E", num_classes, batch_norm=True)


# %%
# Two columns that torchvision leaves out; neither won.
def vgg11_lrn(num_classes=1000):
    return vgg("A-LRN", num_classes)


def vgg16_c(num_classes=1000):
    return vgg("C", num_classes)


# %% [markdown]
# ## Small networks for small images

# %%
class SmallVGG(nn.Module):
    """Layers as above; then the mean of each map and one linear layer.

    (B, C, H, W) -> logits (B, K)
    """

    def __init__(self, configuration, in_channels=3,
                 num_classes=10, batch_norm=False):
        super().__init__()
        self.features = make_layers(configuration, batch_norm,
                                    in_channels)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last_channels(self.features),
                                    num_classes)
        self.features.apply(initialize)   # N(0, 0.01^2) is for 4096 inputs

    def forward(self, x):
        x = self.avgpool(self.features(x))   # (B, C, 1, 1)
        return self.classifier(x.flatten(1))


# %%
def small_vgg(in_channels=3, num_classes=10, width=32):
    """Seven 3x3 convolutions with batch norm for 32x32 images."""
    configuration = [width, width, "M", 2 * width, 2 * width, "M",
                     *3 * [4 * width], "M"]
    return SmallVGG(configuration, in_channels, num_classes, batch_norm=True)


# %%
def around(middle, width, batch_norm=True):
    """network(in_channels): `middle`, and before and after it
    always the same.

    middle: entries of a configuration; it works at half the side.
    """
    configuration = [width, "M", *middle, "M", 4 * width]
    return partial(SmallVGG, configuration,
                   batch_norm=batch_norm)


# %% [markdown]
# ## Training

# %%
@dataclass(frozen=True)
class Settings(cli.ImageSettings):
    epochs: int = 5
    batch_size: int = 128
    lr: float | None = None
    rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    tune: bool = False
    weight_decay: float = 5e-4
    augment: bool = False
    # the digits are of 8x8 pixels: 16x16 lose little, and cost a quarter of 32x32
    size: int = cli.flag(16, least=4)
    width: int = 16
    depths: tuple[int, ...] = cli.flag((7, 3), "3x3 convolutions in the middle")
    runs: int = 3


REAL = Settings(batch_size=64, lr=0.1, augment=True, size=32, runs=1, threads=0)
SETTINGS = {"cluttered": Settings(), "cifar10": replace(REAL, epochs=10),
            "fashion_mnist": replace(REAL, epochs=2, size=28)}


# %%
@training.memoize
def trained(middle, batch_norm, args, seed):
    """The network around `middle`, a tuple of widths, Trained."""
    network = around(middle, args.width, batch_norm)
    kind = "7x7" if isinstance(middle[0], tuple) else f"{len(middle)}-3x3"
    norm = "norm" if batch_norm else "plain"
    return training.train_classifier(
        network, args, seed, f"vgg-{kind}-{norm}-{args.data}-{seed}")


# %%
def sides(args):
    """The networks compared: {name: its training}."""
    found = {"three_3x3": (trained, (args.width,) * 3, True),
             "one_7x7": (trained, ((args.width, 7),), True)}
    for depth in args.depths:
        middle = (args.width,) * depth
        found[f"plain{depth + 3}"] = trained, middle, False
        found[f"normed{depth + 3}"] = trained, middle, True
    return found


# %%
@torch.no_grad()
def signal_sizes(images, std=None, batch_norm=False):
    """Root mean square after each convolution of a new VGG-19.

    images (B, C, H, W). std: of all weights; None for
    torchvision's initialization. Returns 16 numbers.
    """
    configuration = CONFIGURATIONS["E"]
    features = make_layers(configuration, batch_norm, images.shape[1])
    features.apply(initialize)
    sizes = []
    for layer in features:
        if std and isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=std)
        images = layer(images)
        if isinstance(layer, nn.ReLU):
            sizes.append(images.square().mean().sqrt().item())
    return sizes


# %%
def weights_of(layers):
    """How many weights the convolutions have, without biases."""
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Conv2d))


def facts():
    """Numbers on the slides that follow from the networks alone."""
    values = {}
    for build in [vgg11, vgg13, vgg16, vgg19, vgg11_bn, vgg13_bn, vgg16_bn, vgg19_bn,
                  vgg11_lrn, vgg16_c]:
        name = build.__name__
        values |= measure.costs(name, build, (1, 3, 224, 224))
        with torch.device("meta"):
            features = build().features
        values[f"{name}_receptive_field"] = measure.receptive_fields(features)[-1]
    with torch.device("meta"):
        classifier = vgg16().classifier
    values["vgg16_classifier_parameters"] = measure.parameters(classifier)
    values["vgg16_first_linear_parameters"] = measure.parameters(classifier[0])
    values["vgg16_classifier_share"] = (
        values["vgg16_classifier_parameters"] / values["vgg16_parameters"])
    for name, count, kernel in [("two_3x3", 2, 3), ("one_5x5", 1, 5),
                                ("three_3x3", 3, 3), ("one_7x7", 1, 7)]:
        stack = make_layers(count * [(512, kernel)], in_channels=512)
        values |= measure.costs(name, lambda stack=stack: stack, (1, 512, 14, 14))
        values[f"{name}_weights"] = weights_of(stack)
        values[f"{name}_receptive_field"] = measure.receptive_fields(stack)[-1]
    values["saved_by_3x3"] = values["one_7x7_weights"] / values["three_3x3_weights"] - 1
    for name, middle in [("three_3x3", 3 * (16,)), ("one_7x7", ((16, 7),))]:
        values |= measure.costs(f"demo_{name}", partial(around(middle, 16), 1),
                                (1, 1, 16, 16))
    return values | measure.costs("small_vgg", small_vgg, (1, 3, 32, 32))


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)
    if args.weights:
        weights.classify(vgg16(), "vgg16", args, grad_cam, layer="features.29")
        raise SystemExit

# %% Architecture
if __name__ == "__main__":
    with torch.device("meta"):   # the figure needs shapes only
        model = vgg16()
    figures.save(figures.architecture(model, (1, 3, 224, 224)), "vgg-architecture")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% Three 3×3 against one 7×7
if __name__ == "__main__":
    networks = compare.train(sides(args), args)
    errors = {label: training.by_epoch(networks[name], "test_error")
              for label, name in [("three 3×3", "three_3x3"), ("one 7×7", "one_7x7")]}
    figures.save(figures.curves({"": (["idea", "control"], errors)},
                                ylabel="test error (%)"), "vgg-kernels")

# %% Deeper, with and without batch norm
if __name__ == "__main__":
    networks, comparison = compare.train(sides(args), args), {}
    for title, role, name in [("without", "control", "plain"),
                              ("with batch norm", "idea", "normed")]:
        comparison[title] = role, {
            f"{depth + 3} layers": training.by_epoch(
                networks[f"{name}{depth + 3}"], "training_error")
            for depth in args.depths}
    figures.save(figures.curves(comparison, ylabel="training error (%)"), "vgg-depth")

# %% Signal in a new VGG-19
if __name__ == "__main__":
    # real size: at 32x32 the last maps are of 2x2, and most of a window is padding
    train, _ = data.load(args, size=32)
    images = nn.functional.interpolate(train[:1][0], size=224, mode="bilinear")
    figure, (axis,) = figures.panels(
        xlabel="convolution, from the input on", ylabel="size of its output")
    axis.set_yscale("log")
    for key, label, role, options in [
            ("variance", "variance 0.01", "control", {"std": 0.1}),
            ("normed", "batch norm", "idea", {"batch_norm": True}),
            ("he", "He et al. 2015", "proven", {}),
            ("deviation", "deviation 0.01", "purple", {"std": 0.01})]:
        sizes = signal_sizes(images, **options)
        axis.plot(range(1, 17), sizes, color=figures.color(role), label=label,
                  linewidth=figures.HEAVY if role == "idea" else figures.THIN)
        results.record(f"signal_{key}_first", sizes[0])
        results.record(f"signal_{key}", sizes[-1])
    figures.label_lines(axis)
    figures.save(figure, "vgg-signal")

# %% One image through the network
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained((args.width,) * 3, True, compare.chosen("three_3x3", args),
                    args.seed).model
    relus = [f"features.{i}" for i, layer in enumerate(model.features)
             if isinstance(layer, nn.ReLU)]
    figures.save(figures.feature_maps(model, test[3][0], relus), "vgg-feature-maps")

# %% Where it looks
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained((args.width,) * 3, True, compare.chosen("three_3x3", args),
                    args.seed).model
    figures.save(where_it_looks(model, "features", test, args), "vgg-grad-cam")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
