# %% [markdown]
# # Attention
#
# - **Paper**: Dzmitry Bahdanau, Kyunghyun Cho, Yoshua Bengio.
#   *Neural Machine Translation by Jointly Learning to Align and Translate*.
#   ICLR 2015. [arXiv:1409.0473](https://arxiv.org/abs/1409.0473)
# - **Paper**: Minh-Thang Luong, Hieu Pham, Christopher D. Manning.
#   *Effective Approaches to Attention-based Neural Machine Translation*.
#   EMNLP 2015. [arXiv:1508.04025](https://arxiv.org/abs/1508.04025)
# - **Paper**: Ashish Vaswani et al. *Attention Is All You Need*. NIPS 2017.
#   [arXiv:1706.03762](https://arxiv.org/abs/1706.03762)
# - **Paper**: Kelvin Xu et al. *Show, Attend and Tell: Neural Image Caption
#   Generation with Visual Attention*. ICML 2015.
#   [arXiv:1502.03044](https://arxiv.org/abs/1502.03044)
# - **Paper**: Alex Graves, Greg Wayne, Ivo Danihelka. *Neural Turing Machines*.
#   arXiv 2014. [arXiv:1410.5401](https://arxiv.org/abs/1410.5401)
# - **Idea**: for each word to write, look at all words read, each weighted by how well
#   it answers the question at hand; the weights are learned like everything else.
# - **Demo**: letters to sort or copy, with each mechanism and without attention: where
#   it looks, and what longer inputs do to it; softmax with and without 1/√d; heads.
# - **Time**: about 22 s on 2 CPU cores

# %%
import math
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn
from torch.nn import functional as F

from lab import cli, figures, measure, parallel, results, training


# %% [markdown]
# ## From scores to weights

# %%
def masked_softmax(scores, mask=None):
    """Weights that sum to one over the last axis, zero where mask is False.

    mask is broadcastable to scores. Where it allows nothing, all are zero.
    """
    if mask is None:
        return scores.softmax(dim=-1)
    lowest = torch.finfo(scores.dtype).min   # -inf: NaN if all are masked
    return scores.masked_fill(~mask, lowest).softmax(dim=-1) * mask


# %%
def causal_mask(length, device=None):
    """(T, T), True where allowed: no place looks at what comes later."""
    allowed = torch.ones(length, length, dtype=torch.bool, device=device)
    return allowed.tril()


# %%
def padding_mask(tokens, padding=0):
    """(B, 1, 1, S) of tokens (B, S), True where there is no padding."""
    return (tokens != padding)[:, None, None]


# %%
def window_mask(length, reach, device=None):
    """(T, T), True at most `reach` places away: restricted attention."""
    near = torch.ones(length, length, dtype=torch.bool, device=device)
    return near.tril(reach).triu(-reach)


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
    """q^T k / sqrt(D), Vaswani et al. 2017, section 3.2.1."""
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

    Places from max_length on are never looked at.
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
    """The value of one place, drawn, Xu et al. 2015, section 4.1.

    In evaluation the likeliest one. The weights are one there, else zero;
    their gradient is that of log p(place), for `reinforce`.
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
    """local-m: word t looks at t +- reach, Luong et al. 2015, 3.2."""

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
    """local-p: a window around a predicted place, Luong et al. 2015, 3.2.

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
    """No attention, the control: every step gets the last state."""

    def forward(self, query, key, value):
        weights = query.new_zeros(*query.shape[:2], key.shape[1])
        weights[..., -1] = 1
        return weights @ value, weights


# %% [markdown]
# ## Scaled dot-product and multi-head attention

# %%
def scaled_dot_product(query, key, value, mask=None):
    """softmax(Q K^T / sqrt(d)) V, Vaswani et al. 2017, eq. 1.

    query (B, H, T, d), key and value (B, H, S, d), mask broadcastable to
    (B, H, T, S), True where allowed. Returns the mixed values
    (B, H, T, d) and the weights (B, H, T, S), which sum to one over S;
    where nothing is allowed both are zero.
    """
    weights = masked_softmax(scaled_dot(query, key), mask)
    return weights @ value, weights


# %%
class MultiHeadAttention(nn.Module):
    """num_heads attentions side by side, Vaswani et al. 2017, 3.2.2.

    query (B, T, D), key and value (B, S, D) -> (B, T, D); mask
    broadcastable to (B, H, T, S), True where attention is allowed. Names
    as in nn.MultiheadAttention.
    """

    def __init__(self, embed_dim, num_heads, dropout=0.0):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = nn.Parameter(
            torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query, key, value, mask=None):
        return self.attend(*self.project(query, key, value), mask)

    def project(self, query, key, value):
        """Queries (B, H, T, d), keys and values (B, H, S, d) by head."""
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key is value:    # one product instead of three
            parts = F.linear(query, weight, bias).chunk(3, dim=-1)
        else:
            parts = map(F.linear, (query, key, value), weight.chunk(3),
                        bias.chunk(3))
        return [x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
                for x in parts]

    def attend(self, query, key, value, mask=None):
        """scaled_dot_product, by torch's fused kernel: (B, T, D)."""
        x = F.scaled_dot_product_attention(
            query, key, value, mask, dropout_p=self.dropout * self.training)
        return self.out_proj(x.transpose(1, 2).flatten(2))

    def weights(self, query, key, value, mask=None):
        """The weights (B, H, T, S) that forward uses, without dropout."""
        return scaled_dot_product(*self.project(query, key, value), mask)[1]


# %%
@contextmanager
def attention_maps(model):
    """{name: weights (B, H, T, S)} of MultiHeadAttentions' last calls."""
    maps = {}

    def watch(name):
        @torch.no_grad()
        def note(module, inputs, options):
            maps[name] = module.weights(*inputs, **options)
        return note

    handles = [
        module.register_forward_pre_hook(watch(name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, MultiHeadAttention)]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


# %% [markdown]
# ## A task that shows where it looks

# %%
def letters(task, count, length, generator):
    """Different letters of 26, and the same, copied or sorted.

    Returns source (B, S) in 1..26, target (B, T) and the place of each
    target letter in the source (B, T); T = S.
    """
    shuffled = torch.rand(count, 26, generator=generator).argsort(dim=1)
    source = shuffled[:, :length] + 1
    if task == "sort":
        return source, *source.sort(dim=1)
    return source, source, torch.arange(length).expand(count, -1)


# %%
def shift(target):
    """The word before each word of target (B, T); before the first, 0."""
    return F.pad(target[:, :-1], (1, 0))


# %%
class Translator(nn.Module):
    """Reads with one GRU, writes with another, and attends in between.

    source (B, S) and target (B, T), shifted by one -> logits (B, T, K) and
    weights (B, T, S). As in Luong et al. 2015 the decoder's state is the
    query; their input feeding is left out.
    """

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
        """The state after each word (B, S, D), and the last (1, B, D)."""
        return self.encoder(self.embedding(source))

    def write(self, shifted, states, last):
        query, _ = self.decoder(self.embedding(shifted), last)  # (B, T, D)
        context, weights = self.attention(query, states, states)
        both = torch.cat([context, query], dim=-1)              # (B, T, 2D)
        return self.output(torch.tanh(self.combine(both))), weights


# %%
@torch.no_grad()
def translate(model, source):
    """What it writes, word by word: words (B, S) and weights (B, S, S)."""
    states, last = model.read(source)
    words = torch.zeros_like(source[:, :1])
    for _ in range(source.shape[1]):
        logits, weights = model.write(words, states, last)
        words = torch.cat([words, logits[:, -1:].argmax(dim=-1)], dim=1)
    return words[:, 1:], weights


# %%
@torch.no_grad()
def follow(model, source, target):
    """What it would write after each right word, and its weights there."""
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
    lr: float = 0.02
    width: int = cli.flag(32, "of embeddings and states, a multiple of 4")
    shortest: int = cli.flag(4, "letters of the shortest words in training", least=2)
    longest: int = cli.flag(10, "letters of the longest words in training")
    samples: int = cli.flag(100, "words of the test set")
    runs: int = 3

    def __post_init__(self):
        if self.width % 4:
            raise ValueError(f"--width {self.width} is no multiple of 4 heads")
        if self.shortest > self.longest:
            raise ValueError(f"--shortest {self.shortest} is more than --longest "
                             f"{self.longest}")


SETTINGS = {"letters": Settings()}
TEST = 10_000   # from here on seeds are for testing


def right(model, task, length, args):
    """Share of letters written right; of weight where the next one stands."""
    generator = torch.Generator().manual_seed(TEST + length)
    source, target, places = (part.to(args.device) for part in letters(
        task, args.samples, length, generator))
    words, _ = translate(model.eval(), source)
    _, weights = follow(model, source, target)
    return {"accuracy": (words == target).float().mean().item(),
            "alignment": weights.gather(2, places[..., None]).mean().item()}


# %%
@parallel.memoize
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
        validate=lambda: right(model, task, args.longest, args))
    return training.Trained(model.eval(), history)


# %% [markdown]
# ## What scaling and heads are for

# %%
def softmax_jacobian(weights):
    """d w_i / d score_j = w_i (1[i = j] - w_j): (..., S) -> (..., S, S)."""
    outer = weights[..., :, None] * weights[..., None, :]
    return weights.diag_embed() - outer


# %%
def saturation(score, width, pairs=500, keys=32):
    """Scores of queries and keys of variance 1, and softmax of them.

    Returns the "variance" of scores, the mean "largest" weight and the mean
    norm of softmax's "jacobian".
    """
    query = torch.randn(pairs, 1, width)
    key = torch.randn(pairs, keys, width)
    scores = score(query, key)
    weights = scores.softmax(dim=-1)
    jacobian = softmax_jacobian(weights).flatten(2)
    return {"variance": scores.var().item(),
            "largest": weights.amax(dim=-1).mean().item(),
            "jacobian": jacobian.norm(dim=-1).mean().item()}


# %%
class Neighbours(nn.Module):
    """Words (B, T) -> logits (B, 2, T, K) of those before and after each.

    One layer of attention, which sees words and where they stand.
    """

    def __init__(self, num_heads, length, embed_dim, vocabulary=26):
        super().__init__()
        self.words = nn.Embedding(vocabulary, embed_dim)
        self.places = nn.Parameter(torch.randn(length, embed_dim))
        self.attention = MultiHeadAttention(embed_dim, num_heads)
        self.output = nn.Linear(embed_dim, 2 * vocabulary)

    def forward(self, words):
        x = self.words(words) + self.places           # (B, T, D)
        logits = self.output(self.attention(x, x, x))
        return torch.stack(logits.chunk(2, dim=-1), dim=1)


# %%
def neighbours(count, length, generator):
    """Words in a ring (B, T), and those before and after each (B, 2, T)."""
    words = torch.randint(26, (count, length), generator=generator)
    around = [words.roll(1, dims=1), words.roll(-1, dims=1)]
    return words, torch.stack(around, dim=1)


# %%
@parallel.memoize
def trained_heads(num_heads, args, seed):
    """Neighbours with so many heads, Trained for twice args.epochs."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = training.place(Neighbours(num_heads, args.longest, args.width), args)
    batches = [neighbours(args.batch_size, args.longest, generator)
               for _ in range(2 if args.quick else args.batches // 4)]
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr / 2)

    def step(batch):
        words, target = batch
        loss = F.cross_entropy(model(words).flatten(0, 2), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    @torch.no_grad()
    def accuracy():
        words, target = (part.to(args.device) for part in neighbours(
            args.samples, args.longest, torch.Generator().manual_seed(TEST)))
        right = model(words).argmax(dim=-1) == target
        return {"accuracy": right.float().mean().item()}

    history = training.fit(
        step, batches, args, seed=seed, name=f"attention-heads-{num_heads}-{seed}",
        epochs=2 * args.epochs, validate=accuracy,
        save={"model": model, "optimizer": optimizer})
    return training.Trained(model.eval(), history)


# %% [markdown]
# ## Figures and numbers

# %%
def maps(rows, note=""):
    """Weights as maps: a row for each word written, a column for each word read.

    rows: lists of (title, role, read, written, weights (T, S), places). places (T):
    what to frame; read, written: words, those in capitals in the control's colour.
    """
    figure, axis = figures.sheet()
    wide, top = figures.FULL[0] / max(map(len, rows)), 0
    for row in rows:
        for k, (title, role, *content) in enumerate(row):
            T, S = content[2].shape
            cell = min((wide - 50) / S, 184 / T if len(rows) > 1 else 250 / T)
            axis.text(k * wide + 26, top + 16, title, weight="bold",
                      va="center_baseline", color=figures.color(role))
            draw_map(axis, k * wide + 26, top + 60, cell, *content)
        top += 60 + T * cell + 14
    axis.text(26, top + 12, note, size=figures.SMALL, va="center_baseline",
              color=figures.color("muted"))
    figures.crop(figure, top + 24 * bool(note))
    return figure


# %%
def draw_map(axis, x, y, cell, read, written, weights, places=()):
    """One map of `maps`, its corner at (x, y), cells of `cell` pixels."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    T, S = weights.shape
    blue = torch.tensor(to_rgb(figures.color("idea"))).expand(T, S, 3)
    shown = torch.cat([blue, weights.clamp(0, 1)[..., None]], dim=-1)
    axis.imshow(shown.numpy(), extent=(x, x + S * cell, y + T * cell, y), aspect="auto")
    for corner, wide, high, role in [((x, y), S * cell, T * cell, "muted"), *(
            ((x + place * cell, y + t * cell), cell, cell, "ink")
            for t, place in enumerate(places))]:
        axis.add_patch(Rectangle(corner, wide, high, fill=False, linewidth=1.5,
                                 edgecolor=figures.color(role)))
    for words, at in [(read, lambda i: (x + (i + 0.5) * cell, y - 12)),
                      (written, lambda i: (x - 14, y + (i + 0.5) * cell))]:
        for i, word in enumerate(words):
            role = "control" if word.isupper() else "ink"
            axis.text(*at(i), word.lower(), size=16, ha="center", va="center_baseline",
                      weight="bold" if word.isupper() else "normal",
                      color=figures.color(role))


# %%
def spelled(words, wanted=None):
    """Letters of words in 1..26; where they are not what is wanted, capitals."""
    wanted = words if wanted is None else wanted
    return [chr(64 + word if word != right else 96 + word)
            for word, right in zip(words.tolist(), wanted.tolist())]


# %%
# What is compared: {mechanism: title}.
SORTING = {"additive": "additive", "dot": "dot", "general": "general",
           "scaled": "scaled dot", "content": "content (cosine)", "hard": "hard",
           "location": "location", "local_p": "local-p"}
COPYING = {"none": "no attention", "location": "location", "local_m": "local-m",
           "local_p": "local-p"}


def compare(task, mechanisms, args):
    """Record each of {mechanism: title}, and draw where it looks in one example."""
    source, target, places = letters(
        task, 1, args.longest, torch.Generator().manual_seed(args.seed))
    panels = []
    for mechanism, title in mechanisms.items():
        models, histories = zip(*[trained(task, mechanism, args, seed)
                                  for seed in args.seeds])
        results.record_runs(f"{task}_{mechanism}", histories, "accuracy", "alignment")
        mean = sum(history["accuracy"][-1] for history in histories) / args.runs
        words, weights = follow(models[0], source.to(args.device),
                                target.to(args.device))
        role = "control" if mechanism == "none" else "idea"
        panels.append((f"{title}: {mean:.0%}", role, spelled(source[0]), spelled(
            words[0].cpu(), target[0]), weights[0].cpu(), places[0].tolist()))
    return maps([panels[i:i + 4] for i in range(0, len(panels), 4)],
                "framed: where the letter to write stands; orange: a wrong letter")


# %%
def layer_costs(n, d, k=3, r=32):
    """{layer: (operations, sequential steps, longest path)}, table 1.

    Vaswani et al. 2017: n places of d numbers, kernels of k places,
    neighbourhoods of r; as there, without constant factors.
    """
    return {
        "self_attention": (n * n * d, 1, 1),
        "recurrent": (n * d * d, n, n),
        "convolutional": (k * n * d * d, 1, math.ceil(math.log(n, k))),
        "restricted": (r * n * d, 1, math.ceil(n / r)),
    }


# %%
def facts():
    """What the slides state of attention, computed."""
    values = {}
    for n in [50, 1000]:
        for layer, costs in layer_costs(n, 512).items():
            for kind, cost in zip(["operations", "sequential", "path"], costs):
                values[f"{layer}_{n}_{kind}"] = cost
    with torch.device("meta"):
        for heads in [1, 8]:
            values[f"heads{heads}_parameters"] = measure.parameters(
                MultiHeadAttention(512, heads))
        for score in [Additive(512), Concat(512), General(512), Content(512),
                      Location(512, max_length=50)]:
            values[f"{type(score).__name__}_parameters"] = measure.parameters(score)
        for name in ["none", "additive", "dot", "general"]:
            values[f"translator_{name}_parameters"] = measure.parameters(
                Translator(MECHANISMS[name](32), 32))
    values["weights_512_bytes"], values["weights_2048_bytes"] = (
        8 * n * n * 4 for n in (512, 2048))
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
    parallel.precompute([
        *product([trained], ["sort"], ["none", *SORTING], [args], args.seeds),
        *product([trained], ["copy"], COPYING, [args], args.seeds),
        *product([trained_heads], [4, 2, 1], [args], args.seeds)])

# %% Who looks where, sorting
if __name__ == "__main__":
    figure = compare("sort", SORTING, args)
    figures.save(figure, "attention-alignment-sort")

# %% Who looks where, copying
if __name__ == "__main__":
    figure = compare("copy", COPYING, args)
    figures.save(figure, "attention-alignment-copy")

# %% Longer inputs
if __name__ == "__main__":
    lengths = [args.shortest, 6, 8, args.longest, 13, 16, 20]
    figure, (axis,) = figures.panels(xlabel="letters to sort",
                                     ylabel="letters right (%)")
    for mechanism, title, role, style in [
            ("additive", "additive", "idea", {"linewidth": figures.HEAVY}),
            ("dot", "dot", "sky", {}), ("scaled", "scaled dot", "purple", {}),
            ("none", "no attention", "control", {"linewidth": figures.HEAVY})]:
        models = [trained("sort", mechanism, args, seed).model for seed in args.seeds]
        runs = [[100 * right(model, "sort", n, args)["accuracy"] for n in lengths]
                for model in models]
        figures.band(axis, lengths, runs, role, title, **style)
        for n, found in zip(lengths, zip(*runs)):
            results.record(f"sort{n}_{mechanism}_accuracy",
                           sum(found) / len(found) / 100)
    axis.set_ylim(0, 102)
    axis.axvline(args.longest, color=figures.color("muted"), linewidth=1.5)
    axis.text(args.longest + 0.2, 3, "longer than in training",
              color=figures.color("muted"), size=figures.SMALL)
    figures.label_lines(axis)
    place, shares = lengths[4], [run[4] for run in runs]
    figures.annotate(axis, place, sum(shares) / len(shares),
                     "one vector has to hold all letters")
    figures.save(figure, "attention-length")

# %% Softmax with and without scaling
if __name__ == "__main__":
    widths = [2 ** k for k in range(11)]
    figure, axes = figures.panels(
        3, xlabel="width d", sharey=False,
        titles=["variance of scores", "largest of 32 weights", "slope of softmax"])
    for title, role, score in [("q·k", "control", dot),
                               ("q·k/√d", "idea", scaled_dot)]:
        runs = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            runs.append([saturation(score, width) for width in widths])
        for axis, key in zip(axes, runs[0][0]):
            found = [[at[key] for at in found] for found in runs]
            figures.band(axis, widths, found, role, title, linewidth=figures.HEAVY)
            for width in [64, 512]:
                results.record(f"{score.__name__}_{width}_{key}", sum(
                    values[widths.index(width)] for values in found) / len(found))
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks([1, 16, 256], ["1", "16", "256"])
    axes[0].set_yscale("log")
    for axis in axes[1:]:
        axis.set_ylim(bottom=0)
    for axis in axes:
        figures.label_lines(axis)
    slope = axes[2].lines[0].get_ydata()[8]
    figures.annotate(axes[2], widths[8], slope, "less and less gradient\ncomes through")
    figures.save(figure, "attention-saturation")

# %% Masks
if __name__ == "__main__":
    torch.manual_seed(args.seed)
    words = torch.tensor([[1, 2, 3, 4, 5, 6, 0, 0]])
    query, key, value = torch.randn(3, 1, 1, words.shape[1], 8)
    padding, causal = padding_mask(words), causal_mask(words.shape[1])
    kinds = {"all": None, "causal": causal, "padding": padding,
             "causal & padding": causal & padding, "window": window_mask(8, reach=1)}
    read = [*"abcdef··"]
    figures.save(maps([[
        (title, "ink", read, read, scaled_dot_product(query, key, value, mask)[1][0, 0])
        for title, mask in kinds.items()]]), "attention-masks")

# %% One head and several
if __name__ == "__main__":
    figure, (axis,) = figures.panels(xlabel="epoch", ylabel="neighbours right (%)",
                                     size=figures.BESIDE)
    for heads, role in [(1, "control"), (2, "muted"), (4, "idea")]:
        histories = [trained_heads(heads, args, seed).history for seed in args.seeds]
        results.record_runs(f"heads{heads}", histories, "accuracy")
        runs = [[100 * value for value in history["accuracy"]] for history in histories]
        figures.band(axis, range(1, len(runs[0]) + 1), runs, role,
                     f"{heads} head{'s' * (heads > 1)}", linewidth=figures.HEAVY,
                     marker="o" if len(runs[0]) == 1 else "")
    axis.set_ylim(0, 102)
    figures.label_lines(axis)
    figures.save(figure, "attention-heads")

# %% What each head looks at
if __name__ == "__main__":
    words, _ = neighbours(1, args.longest, torch.Generator().manual_seed(args.seed))
    read, row = spelled(words[0] + 1), []
    for heads, role in [(1, "control"), (4, "idea")]:
        model = trained_heads(heads, args, args.seed).model
        with attention_maps(model) as found, torch.no_grad():
            model(words.to(args.device))
        for k, weights in enumerate(found["attention"][0].cpu()):
            title = "one head" if heads == 1 else f"head {k + 1} of {heads}"
            row.append((title, role, read, read, weights))
    figures.save(maps([row]), "attention-heads-maps")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
