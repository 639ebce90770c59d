# %% [markdown]
# # NewNet
#
# - **Paper**: Min Lin, Qiang Chen, Shuicheng Yan.
#   *Network In Network*. ICLR 2014.
#   [arXiv:1312.4400](https://arxiv.org/abs/1312.4400)
# - **Idea**: a 1x1 convolution after each convolution is a small network that
#   slides over the image with it.
# - **Demo**: training error with and without the 1x1 convolutions.
# - **Time**: about 8 s on 2 CPU cores

# %%
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from lab import cli, compare, data, figures, measure, results, training

# %% [markdown]
# ## The network


# %%
class Block(nn.Module):
    """Filter an image, then mix the channels of each position.

    (B, C, H, W) -> (B, C', H/2, W/2). pointwise=False is the control.
    """

    def __init__(self, in_channels, channels, pointwise=True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size=3,
                              stride=2, padding=1)
        self.pointwise = (nn.Conv2d(channels, channels, kernel_size=1)
                          if pointwise else nn.Identity())

    def forward(self, x):
        x = F.relu(self.conv(x))             # (B, C', H/2, W/2)
        return F.relu(self.pointwise(x))


# %%
class NewNet(nn.Module):
    """(B, 1, H, W) -> logits (B, K): two blocks and the mean of each channel."""

    def __init__(self, width=16, pointwise=True, num_classes=10):
        super().__init__()
        self.block1 = Block(1, width, pointwise)
        self.block2 = Block(width, 2 * width, pointwise)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x):
        x = self.block2(self.block1(x))      # (B, 2 width, H/4, W/4)
        return self.fc(x.mean(dim=(2, 3)))   # (B, K)


# %% [markdown]
# ## Training

# %%
@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 10
    batch_size: int = 32
    lr: float | None = None
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    tune: bool = False
    width: int = 16
    runs: int = 3


SETTINGS = {"digits": Settings()}


# %%
@training.memoize
def trained(pointwise, args, seed):
    """A network with or without 1x1 convolutions, Trained on args.data."""
    torch.manual_seed(seed)
    train, test = data.load(args, size=8)
    model = training.place(NewNet(args.width, pointwise), args)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    batches = training.loader(train, args)
    schedule = training.one_cycle(optimizer, args.epochs * len(batches))

    def step(batch):
        images, labels = batch
        with training.precision(args):
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        wrong = (logits.argmax(dim=1) != labels).float()
        return {"loss": loss, "training_error": wrong.mean()}

    history = training.fit(
        step, batches, args, seed=seed,
        save={"model": model, "optimizer": optimizer, "schedule": schedule},
        validate=lambda: training.accuracy(model, test, args),
        name=f"new_net-{'1x1' if pointwise else '3x3'}-{args.data}-{seed}")
    return training.Trained(model, history)


# %%
def sides(args):
    """The networks compared: {name: its training}."""
    return {"pointwise": (trained, True), "control": (trained, False)}


# %%
def facts():
    """Numbers on the slides that follow from the network alone."""
    model = NewNet()
    return {
        "parameters": measure.parameters(model),
        "multiply_adds": measure.multiply_adds(model, (1, 1, 8, 8)),
        "control_parameters": measure.parameters(NewNet(pointwise=False)),
    }


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Architecture
if __name__ == "__main__":
    figure = figures.architecture(NewNet(), (1, 1, 8, 8))
    figures.save(figure, "new-net-architecture")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)   # at the rate that one rule chooses for each

# %% With and without 1x1 convolutions
if __name__ == "__main__":
    networks = compare.train(sides(args), args)
    figure = figures.curves({
        title: (role, {"training": training.by_epoch(networks[name], "training_error")})
        for title, role, name in [("3x3 alone", "control", "control"),
                                  ("3x3 and 1x1", "idea", "pointwise")]},
        ylabel="training error (%)")
    figures.save(figure, "new-net-comparison")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
