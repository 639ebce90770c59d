# %% [markdown]
# # AlexNet
#
# - **Paper**: Alex Krizhevsky, Ilya Sutskever, Geoffrey E. Hinton.
#   *ImageNet Classification with Deep Convolutional Neural Networks*. NIPS 2012.
#   [doi:10.1145/3065386](https://doi.org/10.1145/3065386)
# - **Idea**: LeNet's recipe, made a thousand times larger, can be trained if its
#   units do not saturate (ReLU), if it is kept from overfitting (dropout,
#   shifted and mirrored images), and if two GPUs share the work.
# - **Demo**: one network with ReLU and with tanh, each at its best learning rate
#   as in the paper's figure 1; then with and without dropout, its first filters,
#   maps and Grad-CAM.
# - **Time**: about 40 s on 2 CPU cores

# %%
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from grad_cam import grad_cam, where_it_looks
from lab import cli, compare, data, figures, measure, results, training, weights

# %% [markdown]
# ## The network of 2012

# %%
def local_response_norm(a, k=2, n=5, alpha=1e-4, beta=0.75):
    """Loud neighbours quieten a unit, section 3.3.

    b_i = a_i / (k + alpha sum_j a_j^2)^beta, where j runs
    over the n channels around i. (B, C, H, W) -> the same.
    """
    pad = (0, 0, 0, 0, n // 2, n // 2)
    squares = F.pad(a.square(), pad)
    energy = squares.unfold(1, n, 1).sum(dim=-1)
    return a / (k + alpha * energy) ** beta


# %%
class AlexNetOriginal(nn.Module):
    """Figure 2: (B, 3, 227, 227) -> logits (B, K).

    paper: 224x224, from which an 11x11 window of stride 4 cannot make the 55x55
    maps of its figure; 227x227 gives them without padding.
    """

    def __init__(self, num_classes=1000, dropout=0.5, groups=2,
                 channels=(96, 256, 384, 384, 256), hidden_size=4096):
        super().__init__()
        c1, c2, c3, c4, c5 = channels
        self.conv1 = nn.Conv2d(3, c1, 11, stride=4)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=groups)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=groups)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=groups)
        self.fc6 = nn.Linear(c5 * 6 * 6, hidden_size)
        self.fc7 = nn.Linear(hidden_size, hidden_size)
        self.fc8 = nn.Linear(hidden_size, num_classes)
        # paper, section 3.3: alpha 1e-4 times the sum; torch: times the mean of 5
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)
        self.dropout = nn.Dropout(dropout)
        initialize(self)

    def forward(self, x):
        x = self.pool(self.norm(F.relu(self.conv1(x))))   # (B, 96, 27, 27)
        x = self.pool(self.norm(F.relu(self.conv2(x))))   # (B, 256, 13, 13)
        x = F.relu(self.conv4(F.relu(self.conv3(x))))     # (B, 384, 13, 13)
        x = self.pool(F.relu(self.conv5(x)))              # (B, 256, 6, 6)
        x = self.dropout(F.relu(self.fc6(x.flatten(1))))  # (B, 4096)
        x = self.dropout(F.relu(self.fc7(x)))             # (B, 4096)
        return self.fc8(x)                                # (B, K)


# %%
def initialize(model):
    """Section 5: weights from N(0, 0.01^2), biases 0 or 1.

    The ones give these layers' ReLUs positive inputs at
    first, and so a gradient.
    """
    ones = ["conv2", "conv4", "conv5", "fc6", "fc7"]
    for name, layer in model.named_children():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, float(name in ones))


# %% [markdown]
# ## The network that libraries call AlexNet

# %%
class AlexNet(nn.Module):
    """One tower, fewer filters: Krizhevsky 2014, arXiv:1404.5997, as in torchvision.

    (B, 3, H, W) -> logits (B, K); H = W = 224.
    """

    def __init__(self, num_classes=1000, dropout=0.5, hidden_size=4096):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1), nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2))
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        # paper of 2012: dropout after each hidden layer; torchvision: before it
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 6 * 6, hidden_size), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(hidden_size, hidden_size), nn.ReLU(),
            nn.Linear(hidden_size, num_classes))

    def forward(self, x):
        x = self.avgpool(self.features(x))       # (B, 256, 6, 6)
        return self.classifier(x.flatten(1))


# %%
def alexnet(num_classes=1000, dropout=0.5):
    return AlexNet(num_classes, dropout)


# %% [markdown]
# ## A small one, for images of 32x32

# %%
class SmallAlexNet(nn.Module):
    """(B, C, 32, 32) -> logits (B, K); tanh is the control."""

    def __init__(self, in_channels=3, activation=nn.ReLU,
                 dropout=0.0, num_classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 16, 5, stride=2, padding=2),
            activation(), nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(16, 32, 5, padding=2),
            activation(), nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(32, 64, 3, padding=1), activation())
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(64 * 4 * 4, 256),
            activation(), nn.Dropout(dropout),
            nn.Linear(256, num_classes))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


# %% [markdown]
# ## Training

# %%
@dataclass(frozen=True)
class Settings(cli.ImageSettings):
    epochs: int = 6
    batch_size: int = 64
    # paper, figure 1: for each network the rate that makes it train fastest
    lr: float | None = None
    rates: tuple[float, ...] = (0.02, 0.04, 0.08, 0.16)
    tune: bool = False
    weight_decay: float = 0.0
    augment: bool = False
    runs: int = 3
    size = 32  # the network takes no other


SETTINGS = {
    "cluttered": Settings(),
    "cifar10": Settings(epochs=30, rates=(0.01, 0.02, 0.04, 0.08)),
    "fashion_mnist": Settings(epochs=5, lr=0.02, runs=1, threads=0)}


# %%
ACTIVATIONS = {"ReLU": nn.ReLU, "tanh": nn.Tanh}


@training.memoize
def trained(activation, dropout, args, seed):
    """A SmallAlexNet, Trained without other regularisation, as in figure 1.

    At a constant rate: one that falls to zero would flatten every curve in the same
    epochs. paper: a tenth of the rate whenever the validation error stops falling.
    """
    network = partial(SmallAlexNet, activation=ACTIVATIONS[activation], dropout=dropout)
    return training.train_classifier(
        network, args, seed, f"alexnet-{activation}-{dropout}-{args.data}-{seed}",
        schedule=training.constant)


# %%
def sides(args):
    """The networks compared: {name: its training}."""
    return {"with_dropout": (trained, "ReLU", 0.5),
            "without_dropout": (trained, "ReLU", 0.0),
            "ReLU": (trained, "ReLU", 0.0), "tanh": (trained, "tanh", 0.0)}


# %%
def epochs_until(history, error=0.25):
    """Epochs until the training error is at most `error`; None if it never is."""
    reached = (epoch for epoch, value in enumerate(history["training_error"], 1)
               if value <= error)
    return next(reached, None)


# %%
def neurons(model, side):
    """Values that the layers with weights give for one image, {layer: count}."""
    counts, hooks = {}, []
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            hooks.append(layer.register_forward_hook(
                lambda _, inputs, output, name=name:
                counts.update({name: output[0].numel()})))
    model(torch.empty(1, 3, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    return counts


# %%
def sizes(name, model, side):
    """Parameters and multiply-adds of a model and of its two parts, by NAME_."""
    costs = measure.costs(name, lambda: model, (1, 3, side, side))
    parameters, work = costs.values()
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    in_linear = sum(map(measure.parameters, linear))
    return costs | {
        f"{name}_convolution_parameters": parameters - in_linear,
        f"{name}_matrix_parameters": in_linear,
        f"{name}_matrix_share": in_linear / parameters,
        f"{name}_convolution_work_share":
            1 - sum(layer.weight.numel() for layer in linear) / work,
    }


# %%
def facts():
    """Numbers on the slides that follow from the networks alone."""
    with torch.device("meta"):
        original, ungrouped = AlexNetOriginal(), AlexNetOriginal(groups=1)
        library, small = alexnet(), SmallAlexNet(in_channels=1)
    pool = original.pool
    way = [original.conv1, pool, original.conv2, pool, original.conv3,
           original.conv4, original.conv5, pool]
    values = {
        "original_receptive_field": measure.receptive_fields(way)[-1],
        "alexnet_receptive_field": measure.receptive_fields(library.features)[-1],
        "original_neurons": sum(neurons(original, 227).values()),
        "small_parameters": measure.parameters(small),
        **sizes("original", original, 227), **sizes("alexnet", library, 224),
        **sizes("ungrouped", ungrouped, 227)}
    for key in ["parameters", "multiply_adds"]:
        values[f"saved_{key}"] = values[f"ungrouped_{key}"] - values[f"original_{key}"]
    for name in ["conv1", "conv2", "fc6", "fc7", "fc8"]:
        layer = original.get_submodule(name)
        values[f"original_{name}_parameters"] = measure.parameters(layer)
    return values


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)
    if args.weights:
        weights.classify(alexnet(), "alexnet", args, grad_cam, layer="features.11")
        raise SystemExit

# %% Architecture
if __name__ == "__main__":
    with torch.device("meta"):   # the figure needs shapes only
        model = AlexNetOriginal()
    share = sizes("original", model, 227)["original_matrix_share"]
    figure = figures.architecture(model, (1, 3, 227, 227), groups={
        f"convolutions: {100 - 100 * share:.0f} % of the weights": ("conv1", "pool"),
        f"fully connected: {100 * share:.0f} %": ("fc6", "fc8")})
    figures.save(figure, "alexnet-architecture")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% ReLU against tanh
if __name__ == "__main__":
    networks = compare.train(sides(args), args)
    figure, (axis,) = figures.panels(xlabel="epoch", ylabel="training error (%)")
    for activation, role in [("tanh", "control"), ("ReLU", "idea")]:
        errors = training.by_epoch(networks[activation], "training_error")
        figures.band(axis, range(1, len(errors[0]) + 1), errors, role, activation,
                     linewidth=figures.HEAVY, marker="o" if len(errors[0]) == 1 else "")
        until = [epochs_until(history) for _, history in networks[activation]]
        if None not in until:
            results.record(f"{activation}_epochs_until_25", sum(until) / len(until))
    muted = figures.color("muted")
    axis.axhline(0.25, color=muted, linestyle=(0, (4, 3)), linewidth=1.5)
    mark = "25 %: the mark of the paper's figure 1"
    axis.text(1.1, 0.26, mark, color=muted, va="bottom")
    axis.set_ylim(bottom=0)
    figures.label_lines(axis)
    figures.save(figure, "alexnet-relu-vs-tanh")

# %% With and without dropout
if __name__ == "__main__":
    networks, comparison = compare.train(sides(args), args), {}
    for name, role in [("without_dropout", "control"), ("with_dropout", "idea")]:
        comparison[name.replace("_", " ")] = role, {
            "test": training.by_epoch(networks[name], "test_error"),
            "training": training.by_epoch(networks[name], "training_error")}
    figures.save(figures.curves(comparison, ylabel="error (%)"), "alexnet-dropout")

# %% First filters
if __name__ == "__main__":
    model = trained("ReLU", 0.0, compare.chosen("ReLU", args), args.seed).model
    figures.save(figures.filters(model.features[0].weight), "alexnet-filters")

# %% One image through the network
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained("ReLU", 0.0, compare.chosen("ReLU", args), args.seed).model
    figures.save(figures.feature_maps(
        model, test[3][0], ["features.0", "features.3", "features.6", "classifier.4"]),
        "alexnet-feature-maps")

# %% Where it looks
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    model = trained("ReLU", 0.0, compare.chosen("ReLU", args), args.seed).model
    figures.save(where_it_looks(model, "features.7", test, args), "alexnet-grad-cam")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
