# %% [markdown]
# # One vector for a whole sequence
#
# - **Paper**: Ilya Sutskever, Oriol Vinyals, Quoc V. Le. *Sequence to Sequence Learning
#   with Neural Networks*. NIPS 2014. [arXiv:1409.3215](https://arxiv.org/abs/1409.3215)
# - **Paper**: Kyunghyun Cho et al. *Learning Phrase Representations using RNN
#   Encoder–Decoder for Statistical Machine Translation*. EMNLP 2014.
#   [arXiv:1406.1078](https://arxiv.org/abs/1406.1078)
# - **Idea**: one recurrent network reads a sequence, another generates one; all that
#   passes between them is the last state of the first.
# - **Demo**: letters sorted with that state alone and with attention: how many steps
#   each takes where the state is wide enough, and what each reaches where it is not.
# - **Time**: about 35 s on 2 CPU cores

# %%
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from attention import MECHANISMS, Translator, accuracy, letters, shift
from lab import cli, compare, figures, results, training

# %% [markdown]
# ## Steps, and capacity

# %%
@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 24
    batches_wide: int = cli.flag(15, "batches in an epoch of a wide state")
    batches_narrow: int = cli.flag(40, "batches in an epoch of a narrow state")
    batch_size: int = 64
    lr: float | None = None
    rates: tuple[float, ...] = (0.01, 0.02, 0.04)
    tune: bool = False
    wide: int = cli.flag(32, "width of a state that can hold the letters")
    narrow: int = cli.flag(8, "width of a state that can hardly hold them")
    length: int = cli.flag(10, "letters to sort", most=26)
    samples: int = cli.flag(100, "sequences of the test set")
    clip: float = cli.flag(1.0, "largest norm of a step's gradient", above=0)
    runs: int = 3


SETTINGS = {"letters": Settings()}


# %%
@training.memoize
def trained(mechanism, width, batches, args, seed):
    """A Translator of that width, Trained to sort for `batches` steps an epoch.

    It is given the correct letters so far (teacher forcing) and tested on its own.
    The rate is constant, so that no schedule flattens a curve. fit() seeds each epoch.
    """
    torch.manual_seed(seed)
    model = training.place(Translator(MECHANISMS[mechanism](width), width), args)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, fused=True)

    def step(batch):
        source, target, _ = (part.to(args.device) for part in letters(
            "sort", args.batch_size, args.length, generator=None))
        logits, _ = model(source, shift(target))
        loss = F.cross_entropy(logits.transpose(1, 2), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        optimizer.step()
        return {"loss": loss}

    history = training.fit(
        step, range(2 if args.quick else batches), args, seed=seed,
        name=f"fixed_vector-{mechanism}-{width}-{seed}",
        save={"model": model, "optimizer": optimizer},
        validate=lambda: {"accuracy": accuracy(
            model, "sort", args.length, args)["accuracy"]})
    return training.Trained(model.eval(), history)


# %%
STATES = ["wide", "narrow"]
TITLES = {"additive": "with attention", "none": "last state only"}


def sides(args):
    """The translators compared: {name: its training}."""
    return {f"{state}_{mechanism}": (trained, mechanism, getattr(args, state),
                                     getattr(args, f"batches_{state}"))
            for state in STATES for mechanism in TITLES}


# %%
def steps_to(share, histories, batches):
    """Mean steps until that share of the letters is correct; None if one never is."""
    first = [next((epoch for epoch, value in enumerate(history["accuracy"], start=1)
                   if value >= share), None) for history in histories]
    return None if None in first else batches * sum(first) / len(first)


# %%
def facts():
    """Numbers on the slides that follow from the settings alone."""
    args = Settings()
    return {f"steps_{state}": args.epochs * getattr(args, f"batches_{state}")
            for state in STATES}


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% Speed and capacity
if __name__ == "__main__":
    networks, drawn = compare.train(sides(args), args), {}
    for state in STATES:
        drawn[state], (axis,) = figures.panels(
            xlabel="steps", ylabel="letters correct (%)")
        for mechanism, role in ("additive", "idea"), ("none", "control"):
            those = networks[f"{state}_{mechanism}"]
            values = training.by_epoch(those, "accuracy")
            batches = getattr(args, f"batches_{state}")
            steps = [batches * epoch for epoch in range(1, len(values[0]) + 1)]
            figures.band(axis, steps, values, role, TITLES[mechanism],
                         linewidth=figures.HEAVY, marker="o" if args.quick else "")
            reached = steps_to(0.9, [each.history for each in those], batches)
            if reached is not None:
                results.record(f"{state}_{mechanism}_steps_to_90", reached)
        axis.set_ylim(0, 1.02)
        figures.label_lines(axis)
    figures.save(drawn["wide"], "fixed_vector-speed")
    figures.save(drawn["narrow"], "fixed_vector-capacity")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
