# %% [markdown]
# # Multi-head attention
#
# - **Paper**: Ashish Vaswani et al. *Attention Is All You Need*. NIPS 2017.
#   [arXiv:1706.03762](https://arxiv.org/abs/1706.03762)
# - **Paper**: Noam Shazeer. *Fast Transformer Decoding: One Write-Head is All You
#   Need*. arXiv 2019. [arXiv:1911.02150](https://arxiv.org/abs/1911.02150)
# - **Idea**: several attentions side by side, each in a part of the width, so that a
#   token can attend to several others and keep them apart.
# - **Demo**: softmax with and without 1/√d; masks; both neighbours of each letter
#   found with one, two and four heads; what each head attends to.
# - **Time**: about 10 s on 2 CPU cores

# %%
import math
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lab import cli, compare, figures, measure, results, training

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
    """(T, T), True where allowed: no position attends to later ones."""
    allowed = torch.ones(length, length, dtype=torch.bool, device=device)
    return allowed.tril()


# %%
def padding_mask(tokens, padding=0):
    """(B, 1, 1, S) of tokens (B, S), True where there is no padding."""
    return (tokens != padding)[:, None, None]


# %%
def window_mask(length, reach, device=None):
    """(T, T), True at most `reach` positions away: restricted attention."""
    near = torch.ones(length, length, dtype=torch.bool, device=device)
    return near.tril(reach).triu(-reach)


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
    scores = query @ key.transpose(-2, -1) / key.shape[-1] ** 0.5
    weights = masked_softmax(scores, mask)        # (B, H, T, S)
    return weights @ value, weights


# %%
class KeyValueCache:
    """Keys and values (B, H, S, d) of the positions so far, none at first."""

    def __init__(self, keys=None, values=None):
        self.keys, self.values = keys, values

    def append(self, key, value):
        """Add positions, maybe none; return all of them."""
        if self.keys is None:
            self.keys, self.values = key, value
        elif key.shape[2]:
            self.keys = torch.cat([self.keys, key], dim=2)
            self.values = torch.cat([self.values, value], dim=2)
        return self.keys, self.values

    def __len__(self):
        return 0 if self.keys is None else self.keys.shape[2]

    def __getitem__(self, rows):
        """The cache of these rows of the batch."""
        if self.keys is None:
            return KeyValueCache()
        return KeyValueCache(self.keys[rows], self.values[rows])


# %%
class MultiHeadAttention(nn.Module):
    """num_heads attentions side by side, Vaswani et al. 2017, 3.2.2.

    query (B, T, D), key and value (B, S, D) -> (B, T, D); mask
    broadcastable to (B, H, T, S), True where attention is allowed. With a
    KeyValueCache, key and value are new positions; the mask's S counts
    those in the cache, too. Names as in nn.MultiheadAttention.
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

    def forward(self, query, key, value, mask=None, cache=None):
        query, key, value = self.project(query, key, value)
        if cache is not None:
            key, value = cache.append(key, value)         # (B, H, S, d)
        x = F.scaled_dot_product_attention(               # (B, H, T, d)
            query, key, value, mask,
            dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(x.transpose(1, 2).flatten(2))

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

    def weights(self, query, key, value, mask=None, cache=None):
        """The weights (B, H, T, S) that forward would use, without dropout."""
        query, key, value = self.project(query, key, value)
        if cache is not None:
            key, value = cache[:].append(key, value)
        return scaled_dot_product(query, key, value, mask)[1]


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


# %%
def layer_costs(n, d, k=3, r=32):
    """{layer: (operations, sequential steps, longest path)}, table 1.

    Vaswani et al. 2017: n positions of d numbers, kernels of k, and
    neighbourhoods of r; as there, without constant factors and projections.
    """
    return {
        "self_attention": (n * n * d, 1, 1),
        "recurrent": (n * d * d, n, n),
        "convolutional": (k * n * d * d, 1, math.ceil(math.log(n, k))),
        "restricted": (r * n * d, 1, math.ceil(n / r)),
    }


# %% [markdown]
# ## What scaling and heads are for

# %%
def softmax_jacobian(weights):
    """d w_i / d score_j = w_i (1[i = j] - w_j): (..., S) -> (..., S, S)."""
    outer = weights[..., :, None] * weights[..., None, :]
    return weights.diag_embed() - outer


# %%
def saturation(width, scaled, pairs=500, keys=32):
    """Scores of queries and keys of variance 1, and softmax of them.

    scaled: whether they are divided by sqrt(width). Returns the "variance" of
    scores, the mean "largest" weight and the mean norm of softmax's "jacobian".
    """
    query = torch.randn(pairs, 1, width)
    key = torch.randn(pairs, keys, width)
    scores = query @ key.transpose(1, 2)          # (pairs, 1, keys)
    if scaled:
        scores = scores / width ** 0.5
    weights = scores.softmax(dim=-1)
    jacobian = softmax_jacobian(weights).flatten(2)
    return {"variance": scores.var().item(),
            "largest": weights.amax(dim=-1).mean().item(),
            "jacobian": jacobian.norm(dim=-1).mean().item()}


# %%
class Neighbours(nn.Module):
    """Words (B, T) -> logits (B, 2, T, K) of those before and after each.

    One layer of attention, which sees words and their positions.
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
@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 6
    batches: int = cli.flag(17, "batches in an epoch")
    batch_size: int = 64
    lr: float | None = None
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    tune: bool = False
    width: int = cli.flag(32, "width of the model, a multiple of 4")
    length: int = cli.flag(10, "letters of a word", most=26)
    samples: int = cli.flag(100, "words of the test set")
    heads: tuple[int, ...] = cli.flag((4, 2, 1), "numbers of heads compared")
    runs: int = 3

    def __post_init__(self):
        for heads in self.heads:
            if self.width % heads:
                raise ValueError(f"--width {self.width} is no multiple of --heads "
                                 f"{heads}")


SETTINGS = {"letters": Settings()}
TEST = 10_000   # the seed of the test set


# %%
@training.memoize
def trained(num_heads, args, seed):
    """A Neighbours with `num_heads` heads, Trained."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = training.place(Neighbours(num_heads, args.length, args.width), args)
    batches = [neighbours(args.batch_size, args.length, generator)
               for _ in range(2 if args.quick else args.batches)]
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    def step(batch):
        words, target = batch                     # (B, T), (B, 2, T)
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
        step, batches, args, seed=seed, name=f"multi_head-{num_heads}-{seed}",
        validate=accuracy, save={"model": model, "optimizer": optimizer})
    return training.Trained(model.eval(), history)


# %%
def sides(args):
    """The networks compared: {name: its training}."""
    return {f"heads{heads}": (trained, heads) for heads in args.heads}


# %%
def facts():
    """Numbers on the slides that follow from the definitions alone."""
    values = {}
    for n in [50, 1000]:
        for layer, costs in layer_costs(n, 512).items():
            for kind, cost in zip(["operations", "sequential", "path"], costs):
                values[f"{layer}_{n}_{kind}"] = cost
    with torch.device("meta"):
        for heads in [1, 8]:
            values[f"heads{heads}_parameters"] = measure.parameters(
                MultiHeadAttention(512, heads))
    values["weights_512_bytes"], values["weights_2048_bytes"] = (
        8 * n * n * 4 for n in (512, 2048))
    return values


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Softmax with and without scaling
if __name__ == "__main__":
    widths = [2 ** k for k in range(11)]
    figure, axes = figures.panels(
        3, xlabel="width d", sharey=False,
        titles=["variance of scores", "largest of 32 weights", "slope of softmax"])
    for title, role, scaled in [("q·k", "control", False), ("q·k/√d", "idea", True)]:
        runs = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            runs.append([saturation(width, scaled) for width in widths])
        for axis, key in zip(axes, runs[0][0]):
            values = [[at[key] for at in run] for run in runs]
            figures.band(axis, widths, values, role, title, linewidth=figures.HEAVY)
            for width, each in zip(widths, zip(*values)):
                name = "scaled_dot" if scaled else "dot"
                results.record_range(f"{name}_{width}_{key}", each)
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks([1, 16, 256], ["1", "16", "256"])
    axes[0].set_yscale("log")
    for axis in axes[1:]:
        axis.set_ylim(bottom=0)
    for axis in axes:
        figures.label_lines(axis)
    torch.manual_seed(args.seed)
    slope = saturation(widths[8], scaled=False)["jacobian"]
    figures.annotate(axes[2], widths[8], slope, "less and less gradient\ncomes through")
    figures.save(figure, "multi_head-saturation")

# %% Masks
if __name__ == "__main__":
    torch.manual_seed(args.seed)
    words = torch.tensor([[1, 2, 3, 4, 5, 6, 0, 0]])
    query, key, value = torch.randn(3, 1, 1, words.shape[1], 8)
    padding, causal = padding_mask(words), causal_mask(words.shape[1])
    kinds = {"all": None, "causal": causal, "padding": padding,
             "causal & padding": causal & padding, "window": window_mask(8, reach=1)}
    letters = [*"abcdef··"]
    maps = [figures.Heatmap(title, scaled_dot_product(query, key, value, mask)[1][0, 0],
                            letters, letters) for title, mask in kinds.items()]
    figures.save(figures.heatmaps([maps], size=(1168, 300)), "multi_head-masks")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% One head and several
if __name__ == "__main__":
    networks = compare.train(sides(args), args)
    figure, (axis,) = figures.panels(xlabel="epoch", ylabel="neighbours correct (%)",
                                     size=figures.BESIDE)
    for heads, role in zip(sorted(args.heads), ["control", "muted", "idea"]):
        values = training.by_epoch(networks[f"heads{heads}"], "accuracy")
        label = "1 head" if heads == 1 else f"{heads} heads"
        figures.band(axis, range(1, len(values[0]) + 1), values, role, label,
                     linewidth=figures.HEAVY, marker="o" if len(values[0]) == 1 else "")
    axis.set_ylim(0, 1.02)
    figures.label_lines(axis)
    figures.save(figure, "multi_head-heads")

# %% What each head attends to
if __name__ == "__main__":
    words, _ = neighbours(1, args.length, torch.Generator().manual_seed(args.seed))
    letters, row = [chr(97 + word) for word in words[0].tolist()], []
    for heads, role in [(min(args.heads), "control"), (max(args.heads), "idea")]:
        model = trained(heads, compare.chosen(f"heads{heads}", args), args.seed).model
        with attention_maps(model) as maps, torch.no_grad():
            model(words.to(args.device))
        for k, weights in enumerate(maps["attention"][0].cpu(), start=1):
            title = "one head" if heads == 1 else f"head {k} of {heads}"
            row.append(figures.Heatmap(title, weights, letters, letters, role))
    figures.save(figures.heatmaps([row], size=(1168, 320)), "multi_head-heads-maps")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
