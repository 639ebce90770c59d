# %% [markdown]
# # GoogLeNet
#
# - **Paper**: Christian Szegedy, Wei Liu, Yangqing Jia, Pierre Sermanet, Scott Reed,
#   Dragomir Anguelov, Dumitru Erhan, Vincent Vanhoucke, Andrew Rabinovich.
#   *Going Deeper with Convolutions*. CVPR 2015.
#   [arXiv:1409.4842](https://arxiv.org/abs/1409.4842)
# - **Idea**: look at each position through windows of several sizes at once, and pay
#   for it by reducing the channels with 1x1 convolutions before the large windows.
# - **Demo**: what a block costs with and without the reductions; small networks of
#   both kinds, at equal widths and at equal cost; what each branch of a block sees.
# - **Time**: about 55 s on 2 CPU cores

# %%
from collections import namedtuple
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from grad_cam import grad_cam, where_it_looks
from lab import cli, compare, data, figures, measure, results, training, weights

# %% [markdown]
# ## Blocks

# %%
class BasicConv2d(nn.Module):
    """Convolution, batch norm, ReLU: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size,
                              bias=False, **options)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


# %%
class ConvReLU(nn.Module):
    """The paper's layer: a bias, and no batch norm, which came later."""

    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, **options)

    def forward(self, x):
        return F.relu(self.conv(x))


# %%
class Inception(nn.Module):
    """Four windows side by side, figure 2b.

    (B, C, H, W) -> (B, out_channels, H, W); widths: a row of TABLE1.
    """

    def __init__(self, in_channels, widths, conv=BasicConv2d,
                 kernel_size=3):
        super().__init__()
        one, reduce3, three, reduce5, five, pool = widths
        self.branch1 = conv(in_channels, one, 1)
        self.branch2 = nn.Sequential(
            conv(in_channels, reduce3, 1),
            conv(reduce3, three, 3, padding=1))
        # paper: 5x5; torchvision: 3x3 (vision#906)
        padding = kernel_size // 2
        self.branch3 = nn.Sequential(
            conv(in_channels, reduce5, 1),
            conv(reduce5, five, kernel_size, padding=padding))
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            conv(in_channels, pool, 1))
        self.out_channels = one + three + five + pool

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x),
                          self.branch3(x), self.branch4(x)], dim=1)


# %%
class NaiveInception(nn.Module):
    """The control, figure 2a: no 1x1 before 3x3 and 5x5 nor after pooling.

    So all channels of the input come out again, beside the new ones.
    (B, C, H, W) -> (B, out_channels, H, W); widths: a row of TABLE1.
    """

    def __init__(self, in_channels, widths, conv=BasicConv2d,
                 kernel_size=3):
        super().__init__()
        one, _, three, _, five, _ = widths
        padding = kernel_size // 2
        self.branch1 = conv(in_channels, one, 1)
        self.branch2 = conv(in_channels, three, 3, padding=1)
        self.branch3 = conv(in_channels, five, kernel_size, padding=padding)
        self.branch4 = nn.MaxPool2d(3, stride=1, padding=1)
        self.out_channels = one + three + five + in_channels

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x),
                          self.branch3(x), self.branch4(x)], dim=1)


# %%
class InceptionAux(nn.Module):
    """A second classifier in the middle of the network, section 5.

    (B, C, H, W) -> logits (B, K); used in training only.
    """

    def __init__(self, in_channels, num_classes, conv=BasicConv2d,
                 channels=128, hidden_size=1024):
        super().__init__()
        self.conv = conv(in_channels, channels, 1)
        self.fc1 = nn.Linear(16 * channels, hidden_size)
        self.fc2 = nn.Linear(hidden_size, num_classes)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x):
        # paper: mean of 5x5 at stride 3, also 4x4 values
        x = F.adaptive_avg_pool2d(x, 4)
        x = self.conv(x).flatten(1)               # (B, 16 channels)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


# %% [markdown]
# ## The network, table 1

# %%
# Channels of: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj
TABLE1 = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


# %%
def add_blocks(model, in_channels, block, table):
    """model.inception3a and so on; returns the last one's channels."""
    for name, widths in table.items():
        inception = block(in_channels, widths)
        model.add_module(f"inception{name}", inception)
        in_channels = inception.out_channels
    return in_channels


# %%
# logits (B, K) of the network and of its two auxiliary heads, in torchvision's order
GoogLeNetOutputs = namedtuple(
    "GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])


class GoogLeNet(nn.Module):
    """(B, 3, H, W) -> logits (B, K); in training with heads GoogLeNetOutputs.

    table: {name of a block: its widths}; transform_input: see as_trained.
    """

    def __init__(self, num_classes=1000, aux_logits=True,
                 transform_input=False, conv=BasicConv2d, block=Inception,
                 table=TABLE1, dropout=0.2):
        super().__init__()
        self.transform_input = transform_input
        self.conv1 = conv(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = add_blocks(self, 192, block, table)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        # paper: 3x3, dropout 0.4; torchvision:
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.aux1, self.aux2 = [
            InceptionAux(inception.out_channels, num_classes, conv)
            if aux_logits else None
            for inception in (self.inception4a, self.inception4d)]
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        self.apply(initialize)

    def stem(self, x):
        x = self.maxpool1(self.conv1(as_trained(x) if self.transform_input else x))
        return self.maxpool2(self.conv3(self.conv2(x)))      # (B, 192, H/8, W/8)

    def forward(self, x):
        heads = self.training and self.aux1 is not None
        x = self.inception3b(self.inception3a(self.stem(x)))
        x = self.inception4a(self.maxpool3(x))               # H/16
        aux1 = self.aux1(x) if heads else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        aux2 = self.aux2(x) if heads else None
        x = self.maxpool4(self.inception4e(x))               # (B, 832, H/32, W/32)
        x = self.inception5b(self.inception5a(x))            # (B, 1024, H/32, W/32)
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return GoogLeNetOutputs(logits, aux2, aux1) if heads else logits


# %%
def initialize(module):
    """N(0, 0.01^2) as in torchvision, drawn without its cut at 200 deviations."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, std=0.01)


# %%
def as_trained(x):
    """From torchvision's mean and deviation per channel to 0.5 and 0.5.

    The published weights were trained on images in -1..1.
    """
    mean = x.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = x.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (x * std + mean - 0.5) / 0.5


# %%
class GoogLeNetPaper(GoogLeNet):
    """As the paper has it: 5x5, biases, response norm, no batch norm."""

    def __init__(self, num_classes=1000, aux_logits=True, table=TABLE1):
        block = partial(Inception, conv=ConvReLU, kernel_size=5)
        super().__init__(num_classes, aux_logits, conv=ConvReLU,
                         block=block, table=table, dropout=0.4)
        self.maxpool4 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        # paper: constants not given; here: torch's own
        self.norm = nn.LocalResponseNorm(5)
        self.apply(he_initialize)

    def stem(self, x):
        x = self.norm(self.maxpool1(self.conv1(x)))
        x = self.norm(self.conv3(self.conv2(x)))
        return self.maxpool2(x)


# %%
def he_initialize(module):
    """He et al. 2015: without batch norm it matters. The paper does not say."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


# %%
def googlenet(num_classes=1000, aux_logits=True, transform_input=False):
    return GoogLeNet(num_classes, aux_logits, transform_input)


# %% [markdown]
# ## A small one, for images of 32x32

# %%
class SmallGoogLeNet(nn.Module):
    """Five blocks of table 1 at a fraction of its widths, with true 5x5.

    (B, C, H, W) -> logits (B, K); in training with heads GoogLeNetOutputs.
    """

    def __init__(self, in_channels, num_classes=10, width=1 / 4, stride=1,
                 block=Inception, aux_logits=False):
        super().__init__()
        table = {name: [max(1, round(width * n)) for n in TABLE1[name]]
                 for name in ("3a", "3b", "4a", "4e", "5b")}
        channels = round(width * 192)
        self.conv1 = BasicConv2d(in_channels, channels, 5,
                                 stride=stride, padding=2)
        self.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = add_blocks(
            self, channels, partial(block, kernel_size=5), table)
        self.aux1, self.aux2 = [
            InceptionAux(inception.out_channels, num_classes,
                         channels=16, hidden_size=64) if aux_logits else None
            for inception in (self.inception3b, self.inception4a)]
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x):
        heads = self.training and self.aux1 is not None
        x = self.maxpool(self.conv1(x))
        x = self.inception3b(self.inception3a(x))     # (B, C, H/2, W/2)
        aux1 = self.aux1(x) if heads else None
        x = self.inception4a(self.maxpool(x))         # H/4
        aux2 = self.aux2(x) if heads else None
        x = self.maxpool(self.inception4e(x))
        x = self.inception5b(x)                       # H/8
        logits = self.fc(x.mean(dim=(2, 3)))
        return GoogLeNetOutputs(logits, aux2, aux1) if heads else logits


# %% [markdown]
# ## Training

# %%
def googlenet_loss(output, labels):
    """Cross-entropy of the logits, and 0.3 of each head's, section 5.

    output: GoogLeNetOutputs, or logits (B, K) alone; labels (B).
    """
    if not isinstance(output, tuple):
        return F.cross_entropy(output, labels)
    logits, *auxiliary = output
    return F.cross_entropy(logits, labels) + 0.3 * sum(
        F.cross_entropy(head, labels) for head in auxiliary)


# %%
# The networks of the demo: block, share of the width, auxiliary classifiers.
KINDS = {
    "reduced": (Inception, 1, False),
    "heads": (Inception, 1, True),
    "naive": (NaiveInception, 1, False),
    "thin": (NaiveInception, 0.43, False),  # as many multiply-adds as reduced
}


def small(kind, args):
    """network(in_channels) -> SmallGoogLeNet of that kind."""
    block, share, heads = KINDS[kind]
    return partial(SmallGoogLeNet, width=share * args.width,
                   stride=args.stride, block=block, aux_logits=heads)


# %%
@dataclass(frozen=True)
class Settings(cli.ImageSettings):
    epochs: int = 3
    batch_size: int = 64
    lr: float | None = None
    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    tune: bool = False
    weight_decay: float = 5e-4
    augment: bool = False
    size: int = cli.flag(32, least=16)
    stride: int = cli.flag(2, "stride of the first convolution", most=2)
    width: float = cli.flag(1 / 8, "share of table 1's channels", least=1 / 8)
    kinds: tuple[str, ...] = cli.flag(
        ("naive", "thin", "reduced"), "networks compared", choices=tuple(KINDS))
    runs: int = 3


SETTINGS = {
    "cluttered": Settings(),
    "cifar10": Settings(epochs=8, lr=0.1, augment=True, stride=1, width=1 / 4,
                        kinds=("thin", "reduced", "heads"), runs=1, threads=0),
    "fashion_mnist": Settings(epochs=2, lr=0.1, runs=1, threads=0,
                              kinds=("naive", "thin", "reduced", "heads"))}


# %%
@training.memoize
def trained(kind, args, seed):
    """A small network of a kind, Trained on args.data."""
    return training.train_classifier(
        small(kind, args), args, seed, f"googlenet-{kind}-{args.data}-{seed}",
        googlenet_loss)


# %%
def sides(args):
    """The networks compared: {name: its training}."""
    return {kind: (trained, kind) for kind in args.kinds}


# %% [markdown]
# ## What a block costs, and what it sees

# %%
def block_costs(block):
    """(parameters, multiply-adds) of each row of table 1.

    In a chain, as in the paper: 5x5, biases, 192 channels in.
    """
    costs, channels = {}, 192
    for name, widths in TABLE1.items():
        with torch.device("meta"):
            inception = block(channels, widths, ConvReLU, 5)
        side = {"3": 28, "4": 14, "5": 7}[name[0]]
        costs[name] = (
            measure.parameters(inception),
            measure.multiply_adds(
                inception, (1, channels, side, side)))
        channels = inception.out_channels
    return costs


# %%
def windows(*modules):
    """The convolutions and poolings of these modules, in order."""
    return [layer for module in modules for layer in module.modules()
            if isinstance(layer, (nn.Conv2d, nn.MaxPool2d))]


# %%
def view(layers, index):
    """The pixels, first and last + 1 along a side, that value `index` sees.

    layers: see windows. Padding counts as pixels below 0.
    """
    first, end = index, index + 1
    for layer in reversed(layers):
        kernel, stride, padding = [
            size if isinstance(size, int) else size[0]
            for size in (layer.kernel_size, layer.stride, layer.padding)]
        first = first * stride - padding
        end = (end - 1) * stride - padding + kernel
    return first, end


# %%
def widest_path(model):
    """The layers of a GoogLeNet on the way through every third branch."""
    path = [model.conv1, model.maxpool1, model.conv2, model.conv3, model.maxpool2]
    pools = {"4a": [model.maxpool3], "5a": [model.maxpool4]}
    for name in TABLE1:
        path += pools.get(name, [])
        path.append(model.get_submodule(f"inception{name}").branch3)
    return windows(*path)


# %%
def framed(picture, first, end, zoom=8):
    """A grey picture (H, W), enlarged, with a frame about its pixels first..end-1.

    Returns (zoom H, zoom W, 3); a frame beyond the picture is cut at its border.
    """
    from matplotlib.colors import to_rgb
    shown = torch.as_tensor(picture).repeat_interleave(zoom, 0)
    shown = shown.repeat_interleave(zoom, 1)[..., None].repeat(1, 1, 3)
    inside = torch.zeros(shown.shape[:2], dtype=torch.bool)
    first, end = max(0, first) * zoom, end * zoom
    inside[first:end, first:end] = True
    inside[first + zoom:end - zoom, first + zoom:end - zoom] = False
    shown[inside] = torch.tensor(to_rgb(figures.PALETTE["dark"]["idea"]))
    return shown


# %%
def facts():
    """What the slides state of GoogLeNet, computed."""
    with torch.device("meta"):
        models = {"torchvision": googlenet(), "paper": GoogLeNetPaper()}
        small = SmallGoogLeNet(3)
    values = {"small_parameters": measure.parameters(small),
              "small_multiply_adds": measure.multiply_adds(small, (1, 3, 32, 32))}
    for name, model in models.items():
        heads = measure.parameters(model.aux1) + measure.parameters(model.aux2)
        path = widest_path(model)
        convolutions = [layer for layer in path if isinstance(layer, nn.Conv2d)]
        values[f"{name}_parameters"] = measure.parameters(model) - heads
        values[f"{name}_parameters_with_heads"] = measure.parameters(model)
        values[f"{name}_multiply_adds"] = measure.multiply_adds(model, (1, 3, 224, 224))
        values[f"{name}_depth"] = len(convolutions) + 1
        values[f"{name}_receptive_field"] = measure.receptive_fields(path)[-1]
    for name, block in [("inception", Inception), ("naive", NaiveInception)]:
        costs = block_costs(block)
        totals = [sum(column) for column in zip(*costs.values())]
        for key, cost in [("3a", costs["3a"]), ("blocks", totals)]:
            values[f"{name}_{key}_parameters"] = cost[0]
            values[f"{name}_{key}_multiply_adds"] = cost[1]
    for key in ["3a", "blocks"]:
        for what in ["parameters", "multiply_adds"]:
            values[f"{key}_{what}_ratio"] = (
                values[f"naive_{key}_{what}"] / values[f"inception_{key}_{what}"])
    # AlexNet has 60 million (papers/krizhevsky2012.json#parameters)
    values["alexnet_ratio"] = 60e6 / values["paper_parameters"]
    # 2.7K (papers/szegedy2015.json#conv1_parameters) in table 1, and 34M
    # (papers/szegedy2015.json#conv1_multiply_adds): depthwise 7x7, 8 maps a colour, 1x1
    # Chollet 2017, section 2: Inception v1 began with such a layer
    values["separable_conv1_parameters"] = 3 * 8 * 7 * 7 + 3 * 8 * 64
    values["separable_conv1_multiply_adds"] = 112 ** 2 * (3 * 8 * 7 * 7 + 3 * 8 * 64)
    values["conv1_parameters"] = 3 * 64 * 7 * 7
    return values


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)
    if args.weights:
        weights.classify(googlenet(transform_input=True), "googlenet", args,
                         grad_cam, layer="inception5b")
        raise SystemExit

# %% Architecture
if __name__ == "__main__":
    third, fourth, fifth = [[f"inception{name}" for name in TABLE1 if stage in name]
                            for stage in "345"]
    with torch.device("meta"):
        model = googlenet()
    figure = figures.architecture(
        model, (1, 3, 224, 224),
        layers=["conv1", "maxpool1", "conv2", "conv3", "maxpool2", *third, "maxpool3",
                *fourth, "maxpool4", *fifth, "avgpool", "fc"])
    figures.save(figure, "googlenet-architecture")

# %% What the reductions save
if __name__ == "__main__":
    figure, axes = figures.panels(
        2, xlabel="block of table 1", sharey=False,
        titles=["parameters (M)", "multiply-adds (M)"])
    for role, label, block in [("control", "naive", NaiveInception),
                               ("idea", "1×1 first", Inception)]:
        costs = block_costs(block)
        for axis, column in zip(axes, zip(*costs.values())):
            axis.plot(range(9), [count / 1e6 for count in column], marker="o",
                      color=figures.color(role), label=label, clip_on=False)
    for axis in axes:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:,g}")
        axis.set_xticks(range(9), TABLE1)
        figures.label_lines(axis)
    _, work = list(block_costs(NaiveInception).values())[6]
    figures.annotate(axes[1], 6, work / 1e6, "3,344 channels come out,\nnot 832")
    figures.save(figure, "googlenet-cost")

# %% Block
if __name__ == "__main__":
    figure = figures.flow(Inception(192, TABLE1["3a"]), (1, 192, 28, 28),
                          size=(420, 420))
    figures.save(figure, "googlenet-block")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% With and without reductions
if __name__ == "__main__":
    networks, costs = compare.train(sides(args), args), {}
    train, _ = data.load(args, size=args.size)
    image = train[0][0]
    for kind in args.kinds:
        costs |= measure.costs(kind, partial(small(kind, args), len(image)),
                               (1, *image.shape))
    for key, cost in costs.items():
        results.record(key, cost)
    panels = {
        "naive": ("control", [("naive", "same widths"), ("thin", "thinned")]),
        "1×1 first": ("idea", [("reduced", "squeezed"), ("heads", "with heads")])}
    figures.save(figures.curves({
        title: (role, {
            f"{label}: {costs[f'{kind}_multiply_adds'] / 1e6:.1f} M":
                training.by_epoch(networks[kind], "test_error")
            for kind, label in kinds if kind in networks})
        for title, (role, kinds) in panels.items()}, ylabel="test error (%)"),
        "googlenet-reductions")

# %% What each branch sees
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained("reduced", compare.chosen("reduced", args), args.seed).model
    picture, image = test.picture(3), test[3][0].to(args.device)
    picture = picture.mean(2) if picture.ndim == 3 else picture
    with torch.no_grad():
        x = model.eval().maxpool(model.conv1(image[None]))   # (1, C, H, W)
    rows = {}
    for k, title in enumerate(["1×1", "1×1, 3×3", "1×1, 5×5", "pool, 1×1"], 1):
        branch = model.inception3a.get_submodule(f"branch{k}")
        layers = windows(model.conv1, model.maxpool, branch)
        field = measure.receptive_fields(layers)[-1]
        maps = branch(x).detach()[0].cpu()                   # (C, H, W)
        maps = maps[maps.flatten(1).std(1).topk(4).indices]  # the liveliest
        rows[f"{title}: {field} px"] = [
            framed(picture, *view(layers, maps.shape[1] // 2)),
            *maps / maps.max().clamp(min=1e-12)]
        results.record(f"branch{k}_field", field)
    figures.save(figures.images(rows, size=figures.BESIDE), "googlenet-branches")

# %% One image through the network
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained("reduced", compare.chosen("reduced", args), args.seed).model
    figures.save(figures.feature_maps(
        model, test[3][0], ["conv1", "inception3a", "inception3b", "inception4a",
                            "inception4e", "inception5b"]),
        "googlenet-feature-maps")

# %% Where it looks
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained("reduced", compare.chosen("reduced", args), args.seed).model
    figures.save(where_it_looks(model, "inception4e", test, args),
                 "googlenet-grad-cam")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
