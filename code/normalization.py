# %% [markdown]
# # Dropout and normalization
#
# - **Paper**: Nitish Srivastava, Geoffrey Hinton, Alex Krizhevsky, Ilya Sutskever,
#   Ruslan Salakhutdinov. *Dropout: A Simple Way to Prevent Neural Networks from
#   Overfitting*. JMLR 2014. [JMLR
#   15(56)](https://jmlr.org/papers/v15/srivastava14a.html)
# - **Paper**: Sergey Ioffe, Christian Szegedy. *Batch Normalization: Accelerating
#   Deep Network Training by Reducing Internal Covariate Shift*. ICML 2015.
#   [arXiv:1502.03167](https://arxiv.org/abs/1502.03167)
# - **Paper**: Jimmy Lei Ba, Jamie Ryan Kiros, Geoffrey E. Hinton. *Layer
#   Normalization*. arXiv 2016. [arXiv:1607.06450](https://arxiv.org/abs/1607.06450)
# - **Paper**: Dmitry Ulyanov, Andrea Vedaldi, Victor Lempitsky. *Instance
#   Normalization: The Missing Ingredient for Fast Stylization*. arXiv 2016.
#   [arXiv:1607.08022](https://arxiv.org/abs/1607.08022)
# - **Paper**: Yuxin Wu, Kaiming He. *Group Normalization*. ECCV 2018.
#   [arXiv:1803.08494](https://arxiv.org/abs/1803.08494)
# - **Idea**: keep the values inside a network in a range in which it trains, and keep
#   it from relying on any single one of them.
# - **Demo**: 400 digits, some with wrong labels, with and without dropout; twenty
#   layers whose weights are too large or too small, and training, with and without
#   batch norm; four norms.
# - **Time**: about 30 s on 2 CPU cores

# %%
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lab import cli, compare, data, figures, measure, parallel, results, training


# %% Dropout
def dropout(x, p=0.5, training=True):
    """Drops each value with probability p, 0 <= p < 1.

    Srivastava et al. 2014. What is kept grows by
    1 / (1 - p): the mean stays, and at test time there
    is nothing to do.
    """
    # paper, figure 2: instead times 1 - p at test time
    if not training:
        return x
    kept = torch.rand_like(x) >= p
    return x * kept / (1 - p)


# %% Batch normalisation
def batch_norm(x, running_mean, running_var, weight, bias,
               training=False, momentum=0.1, eps=1e-5):
    """Ioffe and Szegedy 2015: x (B, C, H, W), rest (C,).

    Training: with this batch's statistics, of which the
    running ones are an average. Testing: with those.
    """
    mean, var = running_mean, running_var
    if training:
        axes, n = (0, 2, 3), x.numel() / x.shape[1]
        var, mean = torch.var_mean(x, axes, correction=0)
        unbiased = var.detach() * n / (n - 1)
        running_mean.lerp_(mean.detach(), momentum)
        running_var.lerp_(unbiased, momentum)
    scale = weight / (var + eps).sqrt()  # (C,)
    shift = bias - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


# %% Normalisation over any axes
def normalize(x, axes, eps=1e-5):
    """Mean 0 and variance 1 over the given axes."""
    variance, mean = torch.var_mean(
        x, axes, correction=0, keepdim=True)
    return (x - mean) / (variance + eps).sqrt()


def layer_norm(x):
    """Ba et al. 2016: each image, all its channels."""
    return normalize(x, (1, 2, 3))


def instance_norm(x):
    """Ulyanov et al. 2016: each image and channel."""
    return normalize(x, (2, 3))


def group_norm(x, groups):
    """Wu and He 2018: each image and group of channels."""
    x = rearrange(x, "b (g c) h w -> b g c h w", g=groups)
    y = normalize(x, (2, 3, 4))
    return rearrange(y, "b g c h w -> b (g c) h w")


# %% Networks to measure
def convolutions(depth, norm=nn.Identity, width=16, gain=1.0):
    """depth 3x3 convolutions with ReLU on grey images, then a classifier.

    The first halves the size. norm: nn.BatchNorm2d or any layer that takes
    the number of channels. gain: of He's initial weights.
    """
    channels, layers = 1, []
    for k in range(depth):
        conv = nn.Conv2d(channels, width, 3, stride=1 + (k == 0), padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        conv.weight.data *= gain
        nn.init.zeros_(conv.bias)
        layers += [conv, norm(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, 10))


def perceptron(dropout, width=256):
    """Two hidden layers for 8x8 digits, dropout after each."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(width, 10))


# %% Errors in training
@torch.no_grad()
def error_rate(model, images):
    """Share of the images that the model classifies wrongly."""
    inputs, labels = images.tensors
    device = next(model.parameters()).device
    guesses = model.eval()(inputs.to(device)).argmax(1).cpu()
    return (guesses != labels).float().mean().item()


# %% Spread
def activation_sizes(model, images):
    """Standard deviation after each ReLU of a sequential model."""
    sizes = []
    for layer in model:
        images = layer(images)
        if isinstance(layer, nn.ReLU):
            sizes.append(images.std().item())
    return sizes


# %% Training
@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = cli.flag(4, "passes over the training set, of the convolutions")
    batch_size: int = 32
    lr: float | None = None
    rates: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1)
    tune: bool = False
    dropout: float = 0.5
    few: int = cli.flag(400, "digits that the perceptrons train on", most=1400)
    wrong: float = cli.flag(0.2, "share of these with a random label", most=1)
    passes: int = cli.flag(60, "passes over these digits")
    runs: int = 3


SETTINGS = {"digits": Settings()}


def train(model, images, args, seed, **options):
    """Minimise the cross-entropy by SGD; the model is Trained."""
    model = training.place(model, args)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)

    def step(batch):
        inputs, labels = batch
        loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    history = training.fit(
        step, training.loader(images, args), args, seed=seed,
        save={"model": model, "optimizer": optimizer}, **options)
    return training.Trained(model, history)


@training.memoize
def normalised(norm, args, seed):
    """Ten convolutions with a normalisation, or nn.Identity, Trained."""
    torch.manual_seed(seed)
    known, _ = data.load(args, size=8)
    return train(convolutions(10, norm), known, args, seed)


def digits_to_overfit(wrong, args):
    """Few digits, a share of them with a random label, and all others: two sets."""
    known, test = data.load(args, size=8)
    images, labels = (torch.cat(parts) for parts in zip(known.tensors, test.tensors))
    few = min(args.few, len(known))
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(few, generator=generator) < wrong
    guesses = torch.randint(10, (few,), generator=generator)
    return (TensorDataset(images[:few], torch.where(chosen, guesses, labels[:few])),
            TensorDataset(images[few:], labels[few:]))


@training.memoize
def overfitted(dropout, wrong, args, seed):
    """A perceptron, Trained on few digits: with its errors on them and on others."""
    torch.manual_seed(seed)
    few, others = digits_to_overfit(wrong, args)
    model = perceptron(dropout)
    epochs = 1 if args.quick else args.passes
    return train(model, few, args, seed, epochs=epochs, validate=lambda: {
        "test_error": error_rate(model, others),
        "training_error": error_rate(model, few)})


def sides(args):
    """The networks compared: {name: its training}."""
    return {"plain": (normalised, nn.Identity),
            "normalised": (normalised, nn.BatchNorm2d),
            "without": (overfitted, 0.0, args.wrong),
            "dropout": (overfitted, args.dropout, args.wrong),
            "clean_without": (overfitted, 0.0, 0.0),
            "clean_dropout": (overfitted, args.dropout, 0.0)}


# %% Facts
def facts():
    """Numbers on the slides that follow from the networks alone."""
    return {"batch_norm_parameters": measure.parameters(nn.BatchNorm2d(64)),
            "perceptron_parameters": measure.parameters(perceptron(0.5)),
            "convolutions_parameters": measure.parameters(convolutions(10))}


# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% Dropout where some labels are wrong
if __name__ == "__main__":
    networks = compare.train(sides(args), args)
    comparison = {title: (role, {
        "test": training.by_epoch(networks[name], "test_error"),
        "train": training.by_epoch(networks[name], "training_error")})
        for title, name, role in [("without dropout", "without", "control"),
                                  ("dropout", "dropout", "idea")]}
    figure = figures.curves(comparison, "error (%)", size=figures.BESIDE)
    figures.save(figure, "normalization-dropout")

# %% Without dropout, at the rate chosen for dropout
if __name__ == "__main__":
    at_its_rate = compare.chosen("dropout", args)
    calls = [(overfitted, 0.0, args.wrong, at_its_rate, seed) for seed in args.seeds]
    parallel.precompute(calls)
    results.record_runs("same_rate", [
        function(*arguments).history for function, *arguments in calls])

# %% Activations through 20 layers
if __name__ == "__main__":
    known, test = data.load(args, size=8)
    figure, [axis] = figures.panels(
        size=(572, 480), xlabel="layer", ylabel="standard deviation",
        titles=["activations, weights × 2 and × ½"])
    for name, norm, role in (("plain", nn.Identity, "control"),
                             ("normalised", nn.BatchNorm2d, "idea")):
        for gain, weights in ((2, "× 2"), (0.5, "× ½")):
            torch.manual_seed(args.seed)
            model = convolutions(20, norm, gain=gain)
            axis.plot(range(1, 21), activation_sizes(model, known[:256][0]),
                      label=f"{name}, {weights}", color=figures.color(role))
    axis.set(yscale="log", xticks=(1, 5, 10, 15, 20))
    figures.label_lines(axis)
    figures.save(figure, "normalization-activations")

# %% Training with and without normalisation
if __name__ == "__main__":
    networks = compare.train(sides(args), args)
    figure, [axis] = figures.panels(
        size=(572, 480), xlabel="epoch", titles=["training loss"])
    for name, role in [("plain", "control"), ("normalised", "idea")]:
        losses = training.by_epoch(networks[name], "loss")
        epochs = range(1, len(losses[0]) + 1)
        figures.band(axis, epochs, losses, role, name, linewidth=figures.HEAVY)
    axis.set_ylim(bottom=0)
    axis.set_xticks(epochs)
    figures.label_lines(axis)
    figures.save(figure, "normalization-training")

# %% Four normalisations, one formula
if __name__ == "__main__":
    norms = {"batch": ("B, H, W", lambda x: normalize(x, (0, 2, 3))),
             "layer": ("C, H, W", layer_norm),
             "instance": ("H, W", instance_norm),
             "group": ("C / G, H, W", lambda x: group_norm(x, groups=2))}
    figure, axis = figures.sheet()
    for k, (name, (axes, norm)) in enumerate(norms.items()):
        left = 36 + 290 * k
        x = torch.randn(3, 6, 3, 2, requires_grad=True)  # (B, C, H, W)
        norm(x)[0, -1, 0, 0].backward()
        shared = x.grad.flatten(2) != 0                  # (B, C, H W)
        figures.block(axis, shared, left, 128, 33, names="BC")
        axis.text(left, 40, name, weight="bold", size=26)
        axis.text(left, 400, f"mean over {axes}", weight="bold",
                  color=figures.color("idea"))
        axis.text(left, 432, f"{shared.sum()} of {shared.numel()} values")
    axis.text(36, 490, "Blue: what the normalised value at the upper right "
              "in front depends on, found by its gradient.")
    figures.save(figure, "normalization-norms")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
