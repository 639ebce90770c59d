# %% [markdown]
# # Attention
#
# - **Paper**: Dzmitry Bahdanau, Kyunghyun Cho, Yoshua Bengio.
#   *Neural Machine Translation by Jointly Learning to Align and Translate*.
#   ICLR 2015. [arXiv:1409.0473](https://arxiv.org/abs/1409.0473)
# - **Paper**: Minh-Thang Luong, Hieu Pham, Christopher D. Manning.
#   *Effective Approaches to Attention-based Neural Machine Translation*.
#   EMNLP 2015. [arXiv:1508.04025](https://arxiv.org/abs/1508.04025)
# - **Paper**: Kelvin Xu et al. *Show, Attend and Tell: Neural Image Caption
#   Generation with Visual Attention*. ICML 2015.
#   [arXiv:1502.03044](https://arxiv.org/abs/1502.03044)
# - **Paper**: Alex Graves, Greg Wayne, Ivo Danihelka. *Neural Turing Machines*.
#   arXiv 2014. [arXiv:1410.5401](https://arxiv.org/abs/1410.5401)
# - **Idea**: for each token to generate, attend to all source tokens, each weighted by
#   how well it matches the query; the weights are learned like everything else.
# - **Demo**: letters to sort or copy, with each mechanism and without attention: where
#   it attends, and how much is correct.
# - **Time**: about 35 s on 2 CPU cores

# %%
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lab import cli, compare, figures, measure, results, training
from multi_head import masked_softmax

# %% [markdown]
# ## Scores: how well does a key answer a query?
#
# query (B, T, D) and key (B, S, D) -> scores (B, T, S)

# %%
class Additive(nn.Module):
    """v^T tanh(W q + U k), Bahdanau et al. 2015, appendix A.1.2."""

    def __init__(self, embed_dim):
        super().__init__()
        self.query = nn.Linear(embed_dim, embed_dim, bias=False)
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v = nn.Linear(embed_dim, 1, bias=False)

    def forward(self, query, key):
        query, key = self.query(query), self.key(key)
        pairs = torch.tanh(query[:, :, None] + key[:, None])  # (B, T, S, D)
        return self.v(pairs).squeeze(-1)


# %%
class Concat(nn.Module):
    """v^T tanh(W [q; k]), Luong et al. 2015, section 3.1."""

    def __init__(self, embed_dim):
        super().__init__()
        self.joint = nn.Linear(2 * embed_dim, embed_dim, bias=False)
        self.v = nn.Linear(embed_dim, 1, bias=False)

    def forward(self, query, key):
        T, S = query.shape[1], key.shape[1]
        pairs = torch.cat([query[:, :, None].expand(-1, -1, S, -1),
                           key[:, None].expand(-1, T, -1, -1)], dim=-1)
        return self.v(torch.tanh(self.joint(pairs))).squeeze(-1)


# %%
def dot(query, key):
    """q^T k, Luong et al. 2015, section 3.1."""
    return query @ key.transpose(-2, -1)


# %%
def scaled_dot(query, key):
    """q^T k / sqrt(D): the dot product of multi_head.py."""
    return dot(query, key) / key.shape[-1] ** 0.5


# %%
class General(nn.Module):
    """q^T W k, Luong et al. 2015, section 3.1."""

    def __init__(self, embed_dim):
        super().__init__()
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)

    def forward(self, query, key):
        return dot(query, self.key(key))


# %%
class Content(nn.Module):
    """b cos(q, k), Graves et al. 2014, section 3.3.1; b is the query's."""

    def __init__(self, embed_dim):
        super().__init__()
        self.strength = nn.Linear(embed_dim, 1)

    def forward(self, query, key):
        cosine = dot(F.normalize(query, dim=-1), F.normalize(key, dim=-1))
        return F.softplus(self.strength(query)) * cosine


# %%
class Location(nn.Module):
    """W q, whatever the keys are, Luong et al. 2015, section 3.1.

    Positions from max_length on are never attended to.
    """

    def __init__(self, embed_dim, max_length):
        super().__init__()
        self.places = nn.Linear(embed_dim, max_length, bias=False)

    def forward(self, query, key):
        scores = self.places(query)               # (B, T, max_length)
        missing = key.shape[1] - scores.shape[-1]
        return F.pad(scores, (0, missing), value=-torch.inf)  # < 0 cuts


# %% [markdown]
# ## Mechanisms: what to do with the scores
#
# query (B, T, D), key and value (B, S, D), mask broadcastable to (B, T, S), True where
# attention is allowed -> the context (B, T, D) and the weights (B, T, S)

# %%
class Attention(nn.Module):
    """Soft and global: the mean of all values, weighted by softmax."""

    def __init__(self, score):
        super().__init__()
        self.score = score

    def forward(self, query, key, value, mask=None):
        weights = masked_softmax(self.score(query, key), mask)
        return weights @ value, weights


# %%
class HardAttention(nn.Module):
    """The value of one position, drawn, Xu et al. 2015, section 4.1.

    In evaluation the likeliest one. The weights are one there, else zero;
    their gradient is that of log p(position), for `reinforce`.
    """

    def __init__(self, score):
        super().__init__()
        self.score = score

    def forward(self, query, key, value, mask=None):
        p = masked_softmax(self.score(query, key), mask)
        if self.training:
            place = p.flatten(0, 1).multinomial(1).view(*p.shape[:2], 1)
        else:
            place = p.argmax(dim=-1, keepdim=True)    # (B, T, 1)
        chosen = torch.zeros_like(p).scatter(-1, place, 1)
        p_place = p.gather(-1, place)
        return chosen @ value, chosen * (p_place / p_place.detach())


# %%
def reinforce(losses, weights, baseline):
    """The losses (B, T), with the gradient of their mean over all draws.

    E[loss]' = E[loss' + (loss - baseline) (log p)'], Xu et al. 2015, 4.1.
    weights (B, T, S): those of HardAttention.
    """
    surprise = losses.detach() - baseline
    return losses + surprise * (weights.sum(dim=-1) - 1)


# %%
class LocalMonotonic(nn.Module):
    """local-m: token t attends to t +- reach, Luong et al. 2015, 3.2."""

    def __init__(self, score, reach):
        super().__init__()
        self.score, self.reach = score, reach

    def forward(self, query, key, value, mask=None):
        T, S = query.shape[1], key.shape[1]
        t, s = (torch.arange(n, device=key.device) for n in (T, S))
        near = (s - t[:, None]).abs() <= self.reach          # (T, S)
        allowed = near if mask is None else near & mask
        weights = masked_softmax(self.score(query, key), allowed)
        return weights @ value, weights


# %%
class LocalPredictive(nn.Module):
    """local-p: a window around a predicted position, Luong et al. 2015, 3.2.

    It is S sigmoid(v^T tanh(W q)). The Gaussian around it, of deviation
    reach / 2, lets gradients through; the weights no longer sum to one.
    """

    def __init__(self, score, embed_dim, reach):
        super().__init__()
        self.score, self.reach = score, reach
        self.predict = nn.Sequential(
            nn.Linear(embed_dim, embed_dim, bias=False), nn.Tanh(),
            nn.Linear(embed_dim, 1, bias=False), nn.Sigmoid())

    def forward(self, query, key, value, mask=None):
        S = key.shape[1]
        length = S if mask is None else mask.sum(dim=-1, keepdim=True)
        centre = length * self.predict(query)         # (B, T, 1)
        distance = torch.arange(S, device=key.device) - centre
        near = distance.abs() <= self.reach           # (B, T, S)
        allowed = near if mask is None else near & mask
        weights = masked_softmax(self.score(query, key), allowed)
        weights = weights * torch.exp(-2 * (distance / self.reach) ** 2)
        return weights @ value, weights


# %%
class LastPlace(nn.Module):
    """No attention, the control: every step gets the last state alone."""

    def forward(self, query, key, value):
        weights = query.new_zeros(*query.shape[:2], key.shape[1])
        weights[..., -1] = 1
        return weights @ value, weights


# %% [markdown]
# ## A task that shows where it attends

# %%
def letters(task, count, length, generator):
    """Draw different letters of 26, and the same, copied or sorted.

    Returns source (B, S) in 1..26, target (B, T) and the position of each
    target letter in the source (B, T); T = S.
    """
    shuffled = torch.rand(count, 26, generator=generator).argsort(dim=1)
    source = shuffled[:, :length] + 1
    if task == "sort":
        return source, *source.sort(dim=1)
    return source, source, torch.arange(length).expand(count, -1)


# %%
def shift(target):
    """Shift target (B, T) by one, for teacher forcing; first stands 0."""
    return F.pad(target[:, :-1], (1, 0))


# %%
class Translator(nn.Module):
    """Reads with one GRU, generates with another, attends in between.

    source (B, S) and target (B, T), shifted by one -> logits (B, T, K) and
    weights (B, T, S). As in Luong et al. 2015 the decoder's state is the
    query; their input feeding is left out.
    """

    # paper: Bahdanau reads in both directions, with gated units; Luong stacks
    # LSTMs; here: one GRU, which reads from left to right

    def __init__(self, attention, embed_dim, vocabulary=27):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embed_dim)
        self.encoder = nn.GRU(embed_dim, embed_dim, batch_first=True)
        self.decoder = nn.GRU(embed_dim, embed_dim, batch_first=True)
        self.attention = attention
        self.combine = nn.Linear(2 * embed_dim, embed_dim)
        self.output = nn.Linear(embed_dim, vocabulary)

    def forward(self, source, shifted):
        return self.write(shifted, *self.read(source))

    def read(self, source):
        """The state after each token (B, S, D), and the last (1, B, D)."""
        return self.encoder(self.embedding(source))

    def write(self, shifted, states, last):
        query, _ = self.decoder(self.embedding(shifted), last)  # (B, T, D)
        context, weights = self.attention(query, states, states)
        both = torch.cat([context, query], dim=-1)              # (B, T, 2D)
        return self.output(torch.tanh(self.combine(both))), weights


# %%
@torch.no_grad()
def translate(model, source):
    """Generate token by token: tokens (B, S) and weights (B, S, S)."""
    states, last = model.read(source)
    words = torch.zeros_like(source[:, :1])
    for _ in range(source.shape[1]):
        logits, weights = model.write(words, states, last)
        words = torch.cat([words, logits[:, -1:].argmax(dim=-1)], dim=1)
    return words[:, 1:], weights


# %%
@torch.no_grad()
def follow(model, source, target):
    """Predict each token after the correct ones, with its weights there."""
    logits, weights = model(source, shift(target))
    return logits.argmax(dim=-1), weights


# %%
MECHANISMS = {
    "none": lambda width: LastPlace(),
    "additive": lambda width: Attention(Additive(width)),
    "concat": lambda width: Attention(Concat(width)),
    "dot": lambda width: Attention(dot),
    "general": lambda width: Attention(General(width)),
    "scaled": lambda width: Attention(scaled_dot),
    "content": lambda width: Attention(Content(width)),
    "location": lambda width: Attention(Location(width, max_length=20)),
    "local_m": lambda width: LocalMonotonic(General(width), reach=2),
    "local_p": lambda width: LocalPredictive(General(width), width, reach=2),
    "hard": lambda width: HardAttention(General(width)),
}


# %%
@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 3
    batches: int = cli.flag(70, "batches in an epoch", least=4)
    batch_size: int = 64
    lr: float | None = None
    rates: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04)
    tune: bool = False
    width: int = cli.flag(32, "width of embeddings and states")
    shortest: int = cli.flag(4, "letters of the shortest words in training", least=2)
    longest: int = cli.flag(10, "letters of the longest words in training", most=26)
    samples: int = cli.flag(100, "words of the test set")
    runs: int = 3

    def __post_init__(self):
        if self.shortest > self.longest:
            raise ValueError(f"--shortest {self.shortest} is more than --longest "
                             f"{self.longest}")


SETTINGS = {"letters": Settings()}
TEST = 10_000   # from here on seeds are for testing


def accuracy(model, task, length, args):
    """Measure the shares of correct letters, and of weight on the next one."""
    generator = torch.Generator().manual_seed(TEST + length)
    source, target, places = (part.to(args.device) for part in letters(
        task, args.samples, length, generator))
    words, _ = translate(model.eval(), source)
    _, weights = follow(model, source, target)
    return {"accuracy": (words == target).float().mean().item(),
            "alignment": weights.gather(2, places[..., None]).mean().item()}


# %%
@training.memoize
def trained(task, mechanism, args, seed):
    """A Translator with that mechanism, Trained for args.epochs."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = training.place(Translator(MECHANISMS[mechanism](args.width), args.width),
                           args)
    batches = [letters(task, args.batch_size, length, generator)
               for length in torch.randint(args.shortest, args.longest + 1, (
                   2 if args.quick else args.batches,), generator=generator).tolist()]
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.lr, total_steps=args.epochs * len(batches), pct_start=0.1)
    baseline = math.log(26)   # of a guess; later a moving average, as in Xu et al.

    def step(batch):
        nonlocal baseline
        source, target, _ = batch
        logits, weights = model(source, shift(target))
        losses = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        loss = losses.mean()
        optimizer.zero_grad()
        if mechanism == "hard":
            reinforce(losses, weights, baseline).mean().backward()
            baseline = 0.9 * baseline + 0.1 * loss.item()
        else:
            loss.backward()
        optimizer.step()
        schedule.step()
        return {"loss": loss}

    history = training.fit(
        step, batches, args, seed=seed, name=f"attention-{task}-{mechanism}-{seed}",
        save={"model": model, "optimizer": optimizer, "schedule": schedule},
        validate=lambda: accuracy(model, task, args.longest, args))
    return training.Trained(model.eval(), history)


# %%
# The mechanisms compared: {name: title}.
SORTING = {"none": "no attention", "additive": "additive", "dot": "dot",
           "general": "general", "scaled": "scaled dot", "content": "content (cosine)",
           "hard": "hard", "location": "location", "local_p": "local-p"}
COPYING = {"none": "no attention", "location": "location", "local_m": "local-m",
           "local_p": "local-p"}


def sides(args):
    """The translators compared: {name: its training}."""
    return {f"{task}_{mechanism}": (trained, task, mechanism)
            for task, mechanisms in [("sort", SORTING), ("copy", COPYING)]
            for mechanism in mechanisms}


# %% [markdown]
# ## Figures and numbers

# %%
def spelled(words):
    """The letters of words in 1..26."""
    return [chr(96 + word) for word in words.tolist()]


# %%
def alignments(task, mechanisms, networks, args):
    """Draw for each of {mechanism: title} where it attends in one example."""
    source, target, places = letters(
        task, 1, args.longest, torch.Generator().manual_seed(args.seed))
    maps = []
    for mechanism, title in mechanisms.items():
        trained = networks[f"{task}_{mechanism}"]
        share = torch.tensor(training.at_end(trained, "accuracy")).mean()
        words, weights = follow(trained[0].model, source.to(args.device),
                                target.to(args.device))
        wrong = (words[0].cpu() != target[0]).nonzero().flatten().tolist()
        maps.append(figures.Heatmap(
            f"{title}: {share:.0%}", weights[0].cpu(), spelled(words[0]),
            spelled(source[0]), "control" if mechanism == "none" else "idea",
            frames=list(enumerate(places[0].tolist())), wrong=wrong))
    return figures.heatmaps(
        [maps[i:i + 4] for i in range(0, len(maps), 4)],
        "framed: where the next letter stands; orange: an incorrect letter")


# %%
def facts():
    """Numbers on the slides that follow from the definitions alone."""
    values = {}
    with torch.device("meta"):
        for score in [Additive(512), Concat(512), General(512), Content(512),
                      Location(512, max_length=50)]:
            values[f"{type(score).__name__}_parameters"] = measure.parameters(score)
        for name in ["none", "additive", "dot", "general"]:
            values[f"translator_{name}_parameters"] = measure.parameters(
                Translator(MECHANISMS[name](32), 32))
    return values


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% A score, a softmax, a mean
if __name__ == "__main__":
    words = (1, 6, 32)
    figures.save(figures.flow(
        Attention(Additive(32)), words, words, words, whole=(Additive,),
        down=False, size=(760, 190)), "attention-soft")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% Who attends where, sorting
if __name__ == "__main__":
    networks = compare.train(sides(args), args)
    mechanisms = {key: title for key, title in SORTING.items() if key != "none"}
    figures.save(alignments("sort", mechanisms, networks, args),
                 "attention-alignment-sort")

# %% Who attends where, copying
if __name__ == "__main__":
    networks = compare.train(sides(args), args)
    figures.save(alignments("copy", COPYING, networks, args),
                 "attention-alignment-copy")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
