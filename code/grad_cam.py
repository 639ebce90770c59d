# %% [markdown]
# # Grad-CAM
#
# - **Paper**: Ramprasaath R. Selvaraju, Michael Cogswell, Abhishek Das,
#   Ramakrishna Vedantam, Devi Parikh, Dhruv Batra.
#   *Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization*.
#   ICCV 2017. [arXiv:1610.02391](https://arxiv.org/abs/1610.02391)
# - **Idea**: the gradient of a class's score says how much each feature map counts for
#   it; the maps, weighed so and added, show which positions spoke for the class.
# - **Demo**: cover what Grad-CAM points at, and what it does not: how fast does the
#   network lose the digit? The control is the map of a network that never learned.
# - **Time**: about 45 s on 2 CPU cores

# %%
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from lab import cli, data, figures, measure, parallel, results, training


# %%
def grad_cam(model, layer, image, target=None):
    """Where `image` (C, H, W) speaks for class `target`.

    Eq. 1 and 2: the maps of `layer`, weighed by the mean
    gradient of the class's logit. Returns (H, W), 0..1.
    """
    kept, layer = [], model.get_submodule(layer)
    hook = layer.register_forward_hook(
        lambda module, inputs, output: kept.append(output))
    logits = model.eval()(image[None])
    hook.remove()
    if target is None:
        target = logits.argmax()
    maps = kept[0]                               # (1, C, h, w)
    slope, = torch.autograd.grad(logits[0, target], maps)
    weights = slope.mean(dim=(2, 3), keepdim=True)
    heat = F.relu((weights * maps).sum(1, keepdim=True))
    heat = F.interpolate(heat.detach(), image.shape[1:],
                         mode="bilinear")[0, 0]  # (H, W)
    return heat / heat.max().clamp(min=1e-12)


# %%
def where_it_looks(model, layer, test, args, columns=6):
    """A figure of the first 2 * columns test images, tinted by grad_cam for what
    the model says they are; mistakes are framed.

    layer: a module's name; test: a data.Images.
    """
    test = test.first(2 * columns)
    logits, labels = training.predict(model, test, args)
    said = logits.argmax(dim=1)
    heats = [grad_cam(model, layer, image.to(args.device)).cpu() for image, _ in test]
    return figures.images(
        [figures.heated(test.picture(i), heat) for i, heat in enumerate(heats)],
        [f"{test.classes[label]}, said {test.classes[answer]}"
         for label, answer in zip(labels, said)],
        highlight=(said != labels).nonzero().flatten().tolist(), columns=columns)


# %% [markdown]
# ## A network to ask

# %%
class SmallNetwork(nn.Module):
    """Four 3x3 convolutions, the first two pooled: (B, C, H, W) -> logits (B, K)."""

    def __init__(self, in_channels, num_classes=10, widths=(16, 32, 64, 64)):
        super().__init__()
        layers = []
        for i, channels in enumerate(widths):
            layers += [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
                       nn.BatchNorm2d(channels), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i < 2 else []
            in_channels = channels
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, x):
        x = self.features(x)                     # (B, 64, H/4, W/4)
        return self.fc(x.mean(dim=(2, 3)))


# %%
@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 5
    batch_size: int = 64
    lr: float = 0.1
    weight_decay: float = 5e-4
    augment: bool = False
    size: int = 32
    shown: int = cli.flag(400, "test images that are covered", least=12)
    runs: int = 3


SETTINGS = {
    "cluttered": Settings(),
    "fashion_mnist": Settings(augment=True, runs=1, threads=0),
    "cifar10": Settings(epochs=20, augment=True, runs=1, threads=0)}


# %%
@training.memoize
def trained(args, seed):
    """The network, Trained on args.data."""
    return training.train_classifier(SmallNetwork, args, seed,
                                     f"grad-cam-{args.data}-{seed}")


# %%
@training.memoize
def heats(args, seed, learned):
    """Grad-CAM (N, H, W) of args.shown images, by the trained or a new network."""
    test = data.load(args, size=args.size)[1].first(args.shown)
    model = trained(args, seed).model
    if not learned:
        torch.manual_seed(seed)
        model = SmallNetwork(test[0][0].shape[0]).to(args.device)
    return torch.stack([grad_cam(model, "features", image.to(args.device)).cpu()
                        for image in test.tensors[0]])


# %%
def cover(images, heat, share):
    """Paint the hottest `share` of each image's pixels with its darkest value.

    images (B, C, H, W), heat (B, H, W); pixels of equal heat in random order.
    """
    order = heat.flatten(1) + 1e-6 * torch.rand(heat.flatten(1).shape)
    hottest = order.topk(round(share * order.shape[1])).indices
    hidden = torch.zeros_like(order).scatter(1, hottest, 1.0).bool()
    darkest = images.amin(dim=(2, 3), keepdim=True)
    return torch.where(hidden.view(heat.shape)[:, None], darkest, images)


# %%
def facts():
    """What the slides state of the network that is asked."""
    return {"parameters": measure.parameters(SmallNetwork(1))}


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Trainings
if __name__ == "__main__":
    parallel.precompute(product([trained], [args], args.seeds))
    parallel.precompute(product([heats], [args], args.seeds, [True, False]))

# %% Where the network looked
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    hot = {name: heats(args, args.seed, learned)
           for name, learned in [("trained", True), ("untrained", False)]}
    shown = range(8)
    figures.save(figures.images(
        {"image": [test.picture(i) for i in shown]}
        | {name: [figures.heated(test.picture(i), heat[i]) for i in shown]
           for name, heat in hot.items()}), "grad-cam-digits")

# %% Cover what it looked at
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    images, labels = test.first(args.shown).tensors
    shares = [0, 0.05, 0.1, 0.15, 0.2, 0.3]
    figure, (axis,) = figures.panels(
        xlabel="pixels covered (%)", ylabel="test accuracy (%)")
    for label, role, learned in [("where it looked", "idea", True),
                                 ("where an untrained\nnetwork looked", "control",
                                  False), ("anywhere", "muted", None)]:
        runs = []
        for seed in args.seeds:
            model = trained(args, seed).model
            torch.manual_seed(seed)
            heat = (torch.zeros(len(images), *images.shape[2:]) if learned is None
                    else heats(args, seed, learned))
            covered = [TensorDataset(cover(images, heat, share), labels)
                       for share in shares]
            runs.append([training.evaluate(model, part, args)["accuracy"]
                         for part in covered])
        figures.band(axis, shares, runs, role, label)
        key = {True: "looked", False: "untrained", None: "anywhere"}[learned]
        mean = torch.tensor(runs).mean(0)
        results.record("accuracy", mean[0])
        results.record(f"{key}_covered10_accuracy", mean[2])
    axis.set_ylim(0, 1)
    figures.label_lines(axis)
    figures.save(figure, "grad-cam-cover")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
