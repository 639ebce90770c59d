# %% [markdown]
# # The CNN family
#
# - **Paper**: Alfredo Canziani, Adam Paszke, Eugenio Culurciello.
#   *An Analysis of Deep Neural Network Models for Practical Applications*.
#   arXiv 2016.
#   [arXiv:1605.07678](https://arxiv.org/abs/1605.07678)
# - **Idea**: an architecture is worth what it reaches for its price, so put accuracy
#   against parameters and against multiply-adds.
# - **Demo**: the family from AlexNet to ConvNeXt in one figure, and small members of
#   it in a contest: the same seconds of training for each.
# - **Time**: about 45 s on 2 CPU cores; `npm run results` gives each 5 minutes on
#   CIFAR-10

# %%
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

import alexnet
import convnext
import googlenet
import inception
import lenet
import resnet
import vgg
from lab import cli, data, figures, measure, results, training, weights

# %% [markdown]
# ## The networks for ImageNet

# %%
# torchvision's name, label, builder, side of the images.
PUBLISHED = [
    ("alexnet", "AlexNet", alexnet.alexnet, 224),
    ("vgg16", "VGG-16", vgg.vgg16, 224),
    ("googlenet", "GoogLeNet", googlenet.googlenet, 224),
    ("inception_v3", "Inception v3", inception.inception_v3, 299),
    ("resnet50", "ResNet-50", resnet.resnet50, 224),
    ("resnet152", "ResNet-152", resnet.resnet152, 224),
    ("convnext_tiny", "ConvNeXt-T", convnext.convnext_tiny, 224),
    ("convnext_base", "ConvNeXt-B", convnext.convnext_base, 224),
]


# %%
def costs(model, shape):
    """Parameters, without auxiliary heads, and multiply-adds for one image."""
    heads = [part for name, part in model.named_children() if "aux" in name.lower()]
    return (measure.parameters(model) - sum(map(measure.parameters, heads)),
            measure.multiply_adds(model, shape))


# %%
def facts():
    """Numbers on the slides: computed, or published by torchvision."""
    values = {"resnet50_v2_accuracy":
              weights.published_accuracy("resnet50", "IMAGENET1K_V2")}
    with torch.device("meta"):
        models = {name: (build(), (1, 3, side, side))
                  for name, _, build, side in PUBLISHED}
        models["lenet"] = lenet.LeNet5(), (1, 1, 28, 28)
        for name, contestant in CONTESTANTS.items():
            models[f"small_{name}"] = contestant.build(3, scale=1), (1, 3, 32, 32)
    for name, (model, shape) in models.items():
        parameters, multiply_adds = costs(model, shape)
        values[f"{name}_parameters"] = parameters
        values[f"{name}_multiply_adds"] = multiply_adds
    values["networks"] = 1 + len(CONTESTANTS)   # with LeNet
    for name, *_ in PUBLISHED:
        values[f"{name}_accuracy"] = weights.published_accuracy(name)
    return values


# %% [markdown]
# ## The contest: small networks, the same seconds for each

# %%
@dataclass(frozen=True)
class Contestant:
    """A small network for 32x32 images, build(in_channels, scale of its width), and
    how to train it."""
    label: str
    build: Callable
    optimizer: Callable
    loss: Callable = F.cross_entropy


sgd = partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=5e-4)
adamw = partial(torch.optim.AdamW, weight_decay=0.05)
CONTESTANTS = {
    "alexnet": Contestant(
        "AlexNet", lambda channels, scale: alexnet.SmallAlexNet(channels),
        partial(sgd, lr=0.02)),
    "vgg": Contestant(
        "VGG", lambda channels, scale: vgg.small_vgg(channels, width=round(32 * scale)),
        partial(sgd, lr=0.1)),
    "googlenet": Contestant(
        "GoogLeNet", lambda channels, scale: googlenet.SmallGoogLeNet(
            channels, width=scale / 4),
        partial(sgd, lr=0.1), loss=googlenet.googlenet_loss),
    "inception": Contestant(
        "Inception v3", lambda channels, scale: inception.SmallInception(
            channels, width=round(24 * scale)),
        partial(sgd, lr=0.1)),
    "resnet": Contestant(
        "ResNet-20", lambda channels, scale: resnet.CifarResNet(
            20, width=round(16 * scale), in_channels=channels),
        partial(sgd, lr=0.1)),
    "convnext": Contestant(
        "ConvNeXt", lambda channels, scale: convnext.small_convnext(
            channels, width=round(24 * scale)),
        partial(adamw, lr=4e-3)),
}


# %%
@dataclass(frozen=True)
class Settings(cli.Settings):
    budget: float = cli.flag(3.5, "seconds of training for each network", above=0)
    scale: float = cli.flag(0.25, "of all widths", least=0.1, most=1)
    batch_size: int = 32
    augment: bool = False
    size = 32  # the networks take no other


SETTINGS = {"digits": Settings(),
            "cifar10": Settings(budget=300.0, scale=1.0, batch_size=128, augment=True,
                                threads=0),
            "fashion_mnist": Settings(budget=300.0, scale=1.0, batch_size=128,
                                      augment=True, threads=0)}


# %%
@training.memoize
def trained(name, args, epochs):
    """A contestant Trained for `epochs` epochs, without validation."""
    contestant = CONTESTANTS[name]
    return training.train_classifier(
        partial(contestant.build, scale=args.scale), args, args.seed, None,
        contestant.loss, contestant.optimizer, epochs, validate=False)


# %%
@training.memoize
def result(name, args):
    """Test accuracy, seconds of training and epochs of one contestant.

    How many epochs this machine makes in args.budget seconds, trials say: one of an
    epoch, then one of a twentieth of that time, because a first epoch is no average.
    """
    epochs = 1
    for share in (1 / 20, 1):
        _, trial = trained(name, args, epochs)
        seconds = sum(trial["seconds"]) / len(trial["seconds"])
        epochs = max(1, round(share * args.budget / seconds))
    model, history = trained(name, args, epochs)
    _, test = data.load(args, size=args.size)
    accuracy = training.evaluate(model, test, args)["accuracy"]
    return accuracy, sum(history["seconds"]), len(history["seconds"])


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Accuracy against price
if __name__ == "__main__":
    from matplotlib.ticker import EngFormatter
    values = facts()
    figure, axes = figures.panels(
        2, ylabel="top-1 accuracy on ImageNet (%)",
        titles=["parameters", "multiply-adds per image"])
    today, untried = "ResNet-50, recipe of 2021", "LeNet-5, never tried"
    # torchvision trained its ConvNeXts by such a recipe, too
    modern = today, "ConvNeXt-T", "ConvNeXt-B"
    for axis, price in zip(axes, ["parameters", "multiply_adds"]):
        places = {label: (values[f"{name}_{price}"], values[f"{name}_accuracy"])
                  for name, label, *_ in PUBLISHED}
        places[today] = values[f"resnet50_{price}"], values["resnet50_v2_accuracy"]
        first = values[f"lenet_{price}"]
        places[untried] = first, 0.5
        axis.set(xscale="log", ylim=(0.5, 0.88))
        axis.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axis.set_xlim(first, 1.5 * max(x for x, _ in places.values()))
        figures.points(axis, places,
                       dict.fromkeys(modern, "control") | {untried: "muted"})
    figures.save(figure, "cnn-family-accuracy")

# %% The same seconds for each
if __name__ == "__main__":
    accuracies, roles = {}, {}
    for name, contestant in CONTESTANTS.items():
        accuracy, seconds, epochs = result(name, args)
        for key, value in [("accuracy", accuracy), ("seconds", seconds),
                           ("epochs", epochs)]:
            results.record(f"{name}_{key}", value)
        print(f"{contestant.label}: {accuracy:.1%} after {epochs} epochs, "
              f"{seconds:.0f} s", flush=True)
        plural = "s" * (epochs > 1)
        accuracies[f"{contestant.label}, {epochs} epoch{plural}"] = 100 * accuracy
    best = max(accuracies, key=accuracies.get)
    figures.save(figures.bars(accuracies, unit="%", digits="{:.1f}",
                              roles={best: "idea"}), "cnn-family-contest")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
