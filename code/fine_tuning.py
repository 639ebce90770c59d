# %% [markdown]
# # Fine-tuning
#
# - **Paper**: Jacob Devlin, Ming-Wei Chang, Kenton Lee, Kristina Toutanova. *BERT:
#   Pre-training of Deep Bidirectional Transformers for Language Understanding*.
#   NAACL 2019. [arXiv:1810.04805](https://arxiv.org/abs/1810.04805)
# - **Paper**: Jeremy Howard, Sebastian Ruder. *Universal Language Model Fine-tuning for
#   Text Classification*. ACL 2018. [arXiv:1801.06146](https://arxiv.org/abs/1801.06146)
# - **Idea**: a network that was pre-trained on text without labels learns a task from
#   few labelled examples: a new linear layer on top, and all weights go on learning.
# - **Demo**: opinions on hotels from 16, 64 and 256 labelled reviews, by a small BERT
#   that was pre-trained on unlabelled ones and by the same network from scratch.
# - **Time**: about 55 s on 2 CPU cores; `--data mr` and `--data sst2`: film reviews

# %%
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

import bert
from bert import BertForSequenceClassification, miniature, pretrained, vocabulary
from lab import cli, compare, figures, measure, results, text, training

# %% [markdown]
# ## Section 3.2: a task with labels

# %%
@dataclass(frozen=True)
class Settings(bert.Settings):
    lr_labels: float | None = cli.flag(None, "learning rate of fine-tuning", above=0)
    rates_labels: tuple[float, ...] = cli.flag(
        (1e-3, 3e-3, 1e-2), "learning rates of fine-tuning to choose from", above=0)
    steps: int = cli.flag(50, "steps of fine-tuning, at least")
    passes: int = cli.flag(6, "passes over the labelled reviews, at least")
    labels: tuple[int, ...] = cli.flag((16, 64, 256), "labelled reviews", least=2)

    def __post_init__(self):
        super().__post_init__()
        if self.weights or self.text:
            raise ValueError("--weights and --text are for bert.py")


FILMS = bert.FILMS | {"lr_labels": 1e-3, "steps": 200}
SETTINGS = {"reviews": Settings(),
            "sst2": Settings(labels=(100, 1000, 6920), **FILMS),
            "mr": Settings(labels=(100, 1000, 8530), **FILMS)}


# %%
@training.memoize
def finetuned(labels, start, args, seed):
    """A classifier, Trained on `labels` labelled reviews.

    start: "pretrained" or "scratch". The same seed is the same reviews in both.
    """
    order = torch.Generator().manual_seed(seed)
    train, _, _ = text.load(args)
    chosen = torch.randperm(len(train), generator=order)[:labels]
    samples = text.Labelled([train[i] for i in chosen], vocabulary(args))
    batches = training.loader(samples, args)
    epochs = max(args.passes, -(-args.steps // len(batches)))

    torch.manual_seed(seed)
    model = BertForSequenceClassification(miniature(args))
    if start == "pretrained":
        body = pretrained(compare.chosen("pretraining", replace(args, lr_labels=None)),
                          seed).model.bert
        model.bert.load_state_dict(body.state_dict())
    model = training.place(model, args)
    # paper: 2e-5 to 5e-5, appendix A.3
    update, state = training.adamw(model, args.lr_labels, epochs * len(batches))

    def step(batch):
        inputs, answers = batch
        with training.precision(args):
            loss = F.cross_entropy(model(**inputs), answers)
        update(loss)
        return {"loss": loss}

    history = training.fit(step, batches, args, save=state, seed=seed, epochs=epochs)
    _, _, test = text.load(args)
    history["accuracy"] = [accuracy(model, test, args)]
    return training.Trained(model, history)


# %%
def classifiers(args):
    """The classifiers compared: {name: its training}."""
    sizes = args.labels[:1 if args.quick else None]
    return {f"{start}_{labels}": (finetuned, labels, start)
            for start in ("pretrained", "scratch") for labels in sizes[::-1]}


# %%
@torch.no_grad()
def accuracy(model, samples, args):
    """The share of samples that a classifier labels correctly, 0..1."""
    model.eval()
    dataset = text.Labelled(samples, vocabulary(args))
    hits = 0.0
    for inputs, answers in training.loader(dataset, args, shuffle=False):
        inputs = {key: value.to(args.device) for key, value in inputs.items()}
        hits += (model(**inputs).argmax(1).cpu() == answers).sum().item()
    return hits / len(dataset)


# %%
def facts():
    """Numbers on the slides that follow from the networks alone."""
    with torch.device("meta"):
        model = BertForSequenceClassification(bert.BASE)
    return {"base_parameters": measure.parameters(model),
            "base_new_parameters": measure.parameters(model.classifier)}


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Trainings
if __name__ == "__main__":
    compare.train({"pretraining": (pretrained,)}, replace(args, lr_labels=None))
    compare.train(classifiers(args), args, field="lr_labels")

# %% Few labels
if __name__ == "__main__":
    trained = compare.train(classifiers(args), args, field="lr_labels")
    sizes = args.labels[:1 if args.quick else None]
    figure, (axis,) = figures.panels(
        xlabel="labelled reviews", ylabel="test accuracy (%)")
    means = {}
    for start, role, label in [("scratch", "control", "from scratch"),
                               ("pretrained", "idea", "pre-trained")]:
        runs = [training.at_end(trained[f"{start}_{labels}"], "accuracy")
                for labels in sizes]                       # by size, then by seed
        means[start] = [sum(values) / len(values) for values in runs]
        figures.band(axis, sizes, list(zip(*runs)), role, label,
                     linewidth=figures.HEAVY, marker="o", markersize=10, clip_on=False)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [f"{labels:,}" for labels in sizes])
    axis.minorticks_off()
    figures.label_lines(axis)
    middle = len(sizes) // 2
    low, high = means["scratch"][middle], means["pretrained"][middle]
    figures.annotate(axis, sizes[middle], high,
                     f"{sizes[middle]} labels: {high:.0%} against {low:.0%}")
    figures.save(figure, "fine_tuning-few-labels")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
