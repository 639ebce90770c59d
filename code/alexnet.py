# %% [markdown]
# # AlexNet
#
# - **Paper**: Alex Krizhevsky, Ilya Sutskever, Geoffrey E. Hinton.
#   *ImageNet Classification with Deep Convolutional Neural Networks*. NIPS 2012.
#   [doi:10.1145/3065386](https://doi.org/10.1145/3065386)
# - **Idea**: LeNet's recipe, made a thousand times larger, can be trained if its
#   units do not saturate (ReLU), if it is kept from learning by heart (dropout,
#   shifted and mirrored pictures), and if two GPUs share the work.
# - **Demo**: one network with ReLU and with tanh, each at its best learning rate
#   (here tanh is the faster one, unlike in the paper's figure 1); then with and
#   without dropout, its first filters, maps and Grad-CAM.
# - **Time**: about 17 s on 2 CPU cores

# %%
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from grad_cam import grad_cam, where_it_looks
from lab import (cli, data, figures, measure, parallel, results, training,
                 weights)


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
        # paper: alpha 1e-4 times the sum; torch: alpha times the mean of 5
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
# ## A small one, for pictures of 32x32

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
    # the fastest of 0.02, 0.04, 0.08, 0.16 for each, found as fastest_rate does
    relu_rates: tuple[float, ...] = cli.flag(
        (0.04,), "learning rates tried with ReLU", above=0)
    tanh_rates: tuple[float, ...] = cli.flag(
        (0.08,), "learning rates tried with tanh", above=0)
    weight_decay: float = 0.0
    augment: bool = False
    runs: int = 3
    size = 32  # the network takes no other

    def rates(self, activation):
        """The learning rates to try with an activation."""
        return {"ReLU": self.relu_rates, "tanh": self.tanh_rates}[activation]


SETTINGS = {
    "cluttered": Settings(),
    "cifar10": Settings(epochs=10, relu_rates=(0.02, 0.04), tanh_rates=(0.02, 0.04),
                        threads=0),
    "fashion_mnist": Settings(epochs=5, relu_rates=(0.02,), tanh_rates=(0.02,), runs=1,
                              threads=0)}


# %%
ACTIVATIONS = {"ReLU": nn.ReLU, "tanh": nn.Tanh}


@parallel.memoize
def trained(activation, dropout, lr, args, seed):
    """A SmallAlexNet, Trained without other regularisation, as in figure 1."""
    network = partial(SmallAlexNet, activation=ACTIVATIONS[activation], dropout=dropout)
    return training.train_classifier(
        network, args, seed, f"alexnet-{activation}-{dropout}-{lr}-{args.data}-{seed}",
        optimizer=partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True,
                          weight_decay=args.weight_decay))


# %%
def trials(activation, args):
    """The trainings that choose a rate, with a seed that no comparison uses."""
    rates = args.rates(activation)
    return [(activation, 0.0, lr, args, args.seed + 100)
            for lr in rates if len(rates) > 1]


# %%
def fastest_rate(activation, args):
    """Of args.rates the one after which the training error is lowest.

    paper, figure 1: each network's rate makes its training as
    fast as possible.
    """
    errors = [trained(*trial).history["training_error"][-1]
              for trial in trials(activation, args)]
    rates = args.rates(activation)
    return rates[errors.index(min(errors))] if errors else rates[0]


# %%
def epochs_until(history, error=0.25):
    """Epochs until the training error is at most `error`; None if it never is."""
    reached = (epoch for epoch, value in enumerate(history["training_error"], 1)
               if value <= error)
    return next(reached, None)


# %%
def neurons(model, side):
    """Values that the layers with weights give for one picture, {layer: count}."""
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
def sizes(model, side):
    """Parameters and multiply-adds, and how the model's two parts share them."""
    parameters = measure.parameters(model)
    work = measure.multiply_adds(model, (1, 3, side, side))
    matrices = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    in_matrices = sum(map(measure.parameters, matrices))
    return {
        "parameters": parameters,
        "convolution_parameters": parameters - in_matrices,
        "matrix_parameters": in_matrices,
        "matrix_share": in_matrices / parameters,
        "multiply_adds": work,
        "convolution_work_share":
            1 - sum(layer.weight.numel() for layer in matrices) / work,
    }


# %%
def facts():
    """What the slides state of AlexNets, computed."""
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
    }
    for name, model, side in [("original", original, 227), ("alexnet", library, 224),
                              ("ungrouped", ungrouped, 227)]:
        values |= {f"{name}_{key}": value for key, value in sizes(model, side).items()}
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
    share = sizes(model, 227)["matrix_share"]
    figure = figures.architecture(model, (1, 3, 227, 227), groups={
        f"convolutions: {100 - 100 * share:.0f} % of the weights": ("conv1", "pool"),
        f"matrices: {100 * share:.0f} %": ("fc6", "fc8")})
    figures.save(figure, "alexnet-architecture")

# %% Trainings
if __name__ == "__main__":
    parallel.precompute((trained, *trial) for activation in ACTIVATIONS
                        for trial in trials(activation, args))
    parallel.precompute(
        (trained, activation, dropout, fastest_rate(activation, args), args, seed)
        for activation, dropout in [("ReLU", 0.5), ("ReLU", 0.0), ("tanh", 0.0)]
        for seed in args.seeds)

# %% ReLU against tanh
if __name__ == "__main__":
    figure, (axis,) = figures.panels(xlabel="epoch", ylabel="training error (%)")
    for activation, role in [("tanh", "control"), ("ReLU", "idea")]:
        lr = fastest_rate(activation, args)
        histories = [trained(activation, 0.0, lr, args, seed).history
                     for seed in args.seeds]
        errors = 100 * torch.tensor([h["training_error"] for h in histories])
        epochs = range(1, errors.shape[1] + 1)
        figures.band(axis, epochs, errors, role, activation, linewidth=figures.HEAVY,
                     marker="o" if len(epochs) == 1 else "")
        results.record(f"{activation}_rate", lr)
        results.record_runs(activation, histories, "training_error", "accuracy")
        until = [epochs_until(h) for h in histories]
        if None not in until:
            results.record(f"{activation}_epochs_until_25", sum(until) / args.runs)
    muted = figures.color("muted")
    axis.axhline(25, color=muted, linestyle=(0, (4, 3)), linewidth=1.5)
    mark = "25 %: the mark of the paper's figure 1"
    axis.text(1.1, 26, mark, color=muted, va="bottom")
    axis.set_ylim(bottom=0)
    figures.label_lines(axis)
    figures.save(figure, "alexnet-relu-vs-tanh")

# %% With and without dropout
if __name__ == "__main__":
    comparison, lr = {}, fastest_rate("ReLU", args)
    for title, role, dropout in [("without dropout", "control", 0.0),
                                 ("with dropout", "idea", 0.5)]:
        histories = [trained("ReLU", dropout, lr, args, seed).history
                     for seed in args.seeds]
        comparison[title] = role, {
            "test": [[100 - 100 * a for a in h["accuracy"]] for h in histories],
            "training": [[100 * e for e in h["training_error"]] for h in histories]}
        results.record_runs(title.replace(" ", "_"), histories,
                            "training_error", "accuracy")
    figures.save(figures.curves(comparison, ylabel="error (%)"), "alexnet-dropout")

# %% First filters
if __name__ == "__main__":
    lr = fastest_rate("ReLU", args)
    model = trained("ReLU", 0.0, lr, args, args.seed).model
    figures.save(figures.filters(model.features[0].weight), "alexnet-filters")

# %% One picture through the network
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    lr = fastest_rate("ReLU", args)
    model = trained("ReLU", 0.0, lr, args, args.seed).model
    figures.save(figures.feature_maps(
        model, test[3][0], ["features.0", "features.3", "features.6", "classifier.4"]),
        "alexnet-feature-maps")

# %% Where it looks
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    lr = fastest_rate("ReLU", args)
    model = trained("ReLU", 0.0, lr, args, args.seed).model
    figures.save(where_it_looks(model, "features.7", test, args), "alexnet-grad-cam")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
