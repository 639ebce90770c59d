# %% [markdown]
# # Heads: what they do and what they cost
#
# - **Paper**: Ashish Vaswani et al. *Attention Is All You Need*. NIPS 2017.
#   [arXiv:1706.03762](https://arxiv.org/abs/1706.03762)
# - **Idea**: several heads attend to several positions and keep them apart for what
#   follows, even if that is only a linear layer.
# - **Demo**: both neighbours of each letter found with one, two and four heads that are
#   read out linearly, and with one head before a hidden layer.
# - **Time**: about 40 s on 2 CPU cores

# %%
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lab import cli, compare, figures, results, training
from multi_head import Neighbours, neighbours

# %% [markdown]
# ## What is compared

# %%
def with_hidden_layer(model, hidden):
    """A Neighbours that is read out by two linear layers with a ReLU in between."""
    last = model.output
    model.output = nn.Sequential(
        nn.Linear(last.in_features, hidden), nn.ReLU(),
        nn.Linear(hidden, last.out_features))
    return model


# %%
def real_costs(n, d):
    """{layer: multiply-adds} for n positions of d numbers, all weights counted."""
    gate = 2 * n * d * d      # of a recurrent layer: from its input, from its state
    return {"projected": 4 * n * d * d + 2 * n * n * d,
            "rnn": gate, "gru": 3 * gate, "lstm": 4 * gate}


# %%
@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 12
    batches: int = cli.flag(80, "batches in an epoch")
    batch_size: int = 64
    lr: float | None = None
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)
    tune: bool = False
    width: int = cli.flag(32, "width of the model, a multiple of 4")
    hidden: int = cli.flag(256, "width of the hidden layer")
    length: int = cli.flag(10, "letters of a sequence", most=26)
    samples: int = cli.flag(100, "sequences of the test set")
    runs: int = 3

    def __post_init__(self):
        if self.width % 4:
            raise ValueError(f"--width {self.width} is no multiple of 4")


SETTINGS = {"letters": Settings()}
TEST = 10_000   # the seed of the test set


# %%
@training.memoize
def trained(num_heads, hidden, args, seed):
    """A Neighbours with `num_heads` heads, read out through `hidden`, Trained."""
    torch.manual_seed(seed)
    model = Neighbours(num_heads, args.length, args.width)
    if hidden:
        model = with_hidden_layer(model, args.hidden)
    model = training.place(model, args)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, fused=True)

    def step(batch):   # its number; fit() seeds each epoch
        words, target = (part.to(args.device) for part in neighbours(
            args.batch_size, args.length, generator=None))
        loss = F.cross_entropy(model(words).flatten(0, 2), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    @torch.no_grad()
    def accuracy():
        words, target = (part.to(args.device) for part in neighbours(
            args.samples, args.length, torch.Generator().manual_seed(TEST)))
        correct = model(words).argmax(dim=-1) == target
        return {"accuracy": correct.float().mean().item()}

    history = training.fit(
        step, range(2 if args.quick else args.batches), args, seed=seed,
        name=f"heads-{num_heads}{'-hidden' * hidden}-{seed}", validate=accuracy,
        save={"model": model, "optimizer": optimizer})
    return training.Trained(model.eval(), history)


# %%
NETWORKS = {"heads4": ("idea", "4 heads"), "heads2": ("muted", "2 heads"),
            "heads1": ("control", "1 head"),
            "hidden_heads1": ("purple", "1 head, hidden layer")}


def sides(args):
    """The networks compared: {name: its training}."""
    return {name: (trained, int(name[-1]), name.startswith("hidden"))
            for name in NETWORKS}


# %%
def facts():
    """Numbers on the slides that follow from the definitions alone."""
    args, values = Settings(), {}
    for n in (50, 1000):
        for layer, cost in real_costs(n, 512).items():
            values[f"{layer}_{n}_multiply_adds"] = cost
    # up to n = 2 d attention with its projections needs no more than an LSTM
    return values | {"length_of_an_lstm": 2 * 512,
                     "steps": args.epochs * args.batches}


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% One head and several
if __name__ == "__main__":
    networks = compare.train(sides(args), args)
    figure, (axis,) = figures.panels(xlabel="steps", ylabel="neighbours correct (%)")
    for name, (role, label) in NETWORKS.items():
        values = training.by_epoch(networks[name], "accuracy")
        steps = [args.batches * epoch for epoch in range(1, len(values[0]) + 1)]
        figures.band(axis, steps, values, role, label, linewidth=figures.HEAVY,
                     marker="o" if args.quick else "")
    axis.set_ylim(0, 1.02)
    figures.label_lines(axis)
    figures.save(figure, "heads-readout")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
