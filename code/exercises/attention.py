# %% [markdown]
# # Scaled dot-product and multi-head attention
#
# **Goal**: afterwards you can write attention with masks, say what the division by √d
# is for, split it into heads, and load the weights of torch's own into yours.
#
# **Time**: 60 to 90 minutes. **Points**: 19, of which a human gives 2.
#
# **How**: replace every `raise NotImplementedError()` by your solution. Run the check
# below it, or `python attention.py` for all of them: they tell you what to look at. The
# checks that you see are a part of those that grade your work. Keep the cells and the
# names as they are; add cells where you like.
#
# **Hand in**: this file, as `.py` or as `.ipynb`.
#
# Paper: Ashish Vaswani et al. *Attention Is All You Need*. NIPS 2017.
# [arXiv:1706.03762](https://arxiv.org/abs/1706.03762)
#
# Axes: B batch, H heads, T queries, S keys, d width of a head, D width of the model.
# Masks are boolean, True where attention is allowed.

# %% nbgrader={"grade_id": "setup", "locked": true}
import torch
from torch import nn
from torch.nn import functional as F

from lab import checks

checks.begin(__name__)

# %% [markdown]
# ## 1. Scaled dot-product attention (5 points)
#
# softmax(Q Kᵀ / √d) V, equation 1 of the paper. A query that may attend to nothing gets
# zeros, as weights and as output: no NaN. Torch's own function is not allowed.

# %% nbgrader={"grade_id": "scaled", "solution": true}
def scaled_dot_product(query, key, value, mask=None):
    """query (B, H, T, d), key and value (B, H, S, d) -> mixed values (B, H, T, d).

    mask: broadcastable to (B, H, T, S). Returns the weights (B, H, T, S), too.
    """
    ### BEGIN SOLUTION
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1).nan_to_num(0)
    return weights @ value, weights
    ### END SOLUTION


# %% nbgrader={"grade_id": "scaled-checks", "points": 5}
def mixed(query, key, value, mask=None):
    return checks.call(scaled_dot_product, query, key, value, mask)[0]


def weights(query, key, value, mask=None):
    return checks.call(scaled_dot_product, query, key, value, mask)[1]


torch.manual_seed(0)
query, (key, value) = torch.randn(2, 3, 4, 8), torch.randn(2, 2, 3, 5, 8)
some = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 0, 1],
                     [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]]) > 0
own = checks.without(mixed, "scaled_dot_product")
checks.shape(weights, query, key, value, expected=(2, 3, 4, 5))
checks.equal(own, F.scaled_dot_product_attention, query, key, value)
checks.equal(own, F.scaled_dot_product_attention, query, key, value, some)
### BEGIN HIDDEN TESTS
grown = [x.clone().requires_grad_() for x in (query, key, value)]
checks.equal(own, F.scaled_dot_product_attention, *grown, some, tolerance=1e-4)
checks.equal(lambda *x: weights(*x).sum(-1), lambda *x: torch.ones(2, 3, 4), query, key,
             value, some)
checks.equal(lambda *x: weights(*x) * ~some, lambda *x: torch.zeros(2, 3, 4, 5),
             query, key, value, some)
nothing = some.clone()
nothing[2] = False
for part in [mixed, weights]:
    found = part(*grown, nothing)
    if found.isnan().any() or found[:, :, 2].any():
        raise checks.Hint("a query that may attend to nothing does not get zeros.")
    found.sum().backward()
if any(x.grad.isnan().any() for x in grown):
    raise checks.Hint("a query that may attend to nothing has NaN as its gradient.")
checks.equal(own, F.scaled_dot_product_attention, 9 * query, 9 * key, value,
             some.expand(2, 1, 4, 5))
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Why √d? (2 points)
#
# Draw `count` queries and, for each, 16 keys of width d from a standard normal
# distribution. How large is the largest of the 16 weights, on average, with and without
# the division? Return that mean.

# %% nbgrader={"grade_id": "root", "solution": true}
def mean_largest_weight(d, scaled, count=2000):
    """A float between 1 / 16 (all keys alike) and 1 (all on one key)."""
    ### BEGIN SOLUTION
    query, keys = torch.randn(count, 1, d), torch.randn(count, 16, d)
    scores = (query * keys).sum(-1) / (d ** 0.5 if scaled else 1)
    return scores.softmax(-1).amax(-1).mean().item()
    ### END SOLUTION


# %% nbgrader={"grade_id": "root-checks", "points": 2}
for d in [4, 64, 1024]:
    print(f"d {d:4}: without √d {checks.call(mean_largest_weight, d, False):.2f}, "
          f"with {checks.call(mean_largest_weight, d, True):.2f}")
if not checks.call(mean_largest_weight, 1024, False) > 0.9:
    raise checks.Hint("without √d nearly all weight is on one key of width 1024.")
### BEGIN HIDDEN TESTS
for d, scaled, low, high in [(4, True, 0.2, 0.32), (256, True, 0.2, 0.32),
                             (4, False, 0.36, 0.5), (256, False, 0.84, 0.96)]:
    found = checks.call(mean_largest_weight, d, scaled)
    if not low < found < high:
        raise checks.Hint(f"mean_largest_weight({d}, {scaled}) returns {found:.3f}, "
                          f"which is not between {low} and {high}.")
checks.reproducible(lambda: torch.tensor(mean_largest_weight(8, True, 50)))
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Masks (3 points)
#
# `causal_mask` lets a position see itself and what is before it; `padding_mask` lets
# all see the first `lengths[b]` positions of sample b.

# %% nbgrader={"grade_id": "masks", "solution": true}
def causal_mask(length):
    """(length, length), True where the column is not after the row."""
    ### BEGIN SOLUTION
    return torch.ones(length, length).tril() > 0
    ### END SOLUTION


def padding_mask(lengths, size):
    """lengths (B) whole numbers -> (B, 1, 1, size), True where there is no padding."""
    ### BEGIN SOLUTION
    return (torch.arange(size) < lengths[:, None])[:, None, None]
    ### END SOLUTION


# %% nbgrader={"grade_id": "masks-checks", "points": 3}
checks.equal(causal_mask, lambda n: torch.tensor([[True, False], [True, True]]), 2)
checks.shape(padding_mask, torch.tensor([2, 3]), 4, expected=(2, 1, 1, 4))
### BEGIN HIDDEN TESTS
checks.equal(causal_mask, lambda n: torch.ones(n, n, dtype=torch.bool).tril(), 7)
checks.equal(padding_mask, lambda *given: torch.tensor(
    [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()[:, None, None],
    torch.tensor([2, 0, 4]), 4)
both = checks.call(padding_mask, torch.tensor([2, 4]), 4) & checks.call(causal_mask, 4)
checks.equal(lambda x: both & x, lambda x: torch.tensor(
    [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]],
     [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]]).bool()[:, None],
    torch.tensor(True))
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Heads (2 points)
#
# Head h has the h-th slice of D / H features.

# %% nbgrader={"grade_id": "heads", "solution": true}
def split_heads(x, num_heads):
    """(B, T, D) -> (B, H, T, D / H)."""
    ### BEGIN SOLUTION
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)
    ### END SOLUTION


def join_heads(x):
    """(B, H, T, d) -> (B, T, H d)."""
    ### BEGIN SOLUTION
    return x.transpose(1, 2).flatten(2)
    ### END SOLUTION


# %% nbgrader={"grade_id": "heads-checks", "points": 2}
x = torch.arange(24.0).reshape(1, 3, 8)
checks.shape(split_heads, x, 2, expected=(1, 2, 3, 4))
checks.equal(lambda x: join_heads(split_heads(x, 4)), lambda x: x, x)
### BEGIN HIDDEN TESTS
checks.equal(lambda x: split_heads(x, 2)[:, 1].clone(), lambda x: x[:, :, 4:], x)
checks.equal(lambda x: join_heads(x)[:, :, 4:].clone(), lambda x: x[:, 1],
             torch.randn(2, 3, 5, 4)[:, :2])
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Multi-head attention (5 points)
#
# Section 3.2.2 of the paper, with the parameters of `nn.MultiheadAttention`:
# `in_proj_weight` (3D, D) and `in_proj_bias` (3D) project queries, keys and values, in
# this order; `out_proj` is an `nn.Linear`. Draw `in_proj_weight` by
# `nn.init.xavier_uniform_`; all biases begin at zero.

# %% nbgrader={"grade_id": "multi", "solution": true}
class MultiHeadAttention(nn.Module):
    """query (B, T, D), key and value (B, S, D) -> (B, T, D)."""

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        ### BEGIN SOLUTION
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        ### END SOLUTION

    def forward(self, query, key, value, mask=None):
        ### BEGIN SOLUTION
        heads = [split_heads(F.linear(x, weight, bias), self.num_heads)
                 for x, weight, bias in zip((query, key, value),
                                            self.in_proj_weight.chunk(3),
                                            self.in_proj_bias.chunk(3))]
        return self.out_proj(join_heads(scaled_dot_product(*heads, mask)[0]))
        ### END SOLUTION


# %% nbgrader={"grade_id": "multi-checks", "points": 5}
torch.manual_seed(1)
attention = checks.call(MultiHeadAttention, 12, 3)
x, memory = torch.randn(2, 4, 12), torch.randn(2, 6, 12)
checks.parameters(attention, 624)
checks.shape(attention, x, memory, memory, expected=(2, 4, 12))
### BEGIN HIDDEN TESTS
reference = nn.MultiheadAttention(12, 3, batch_first=True)
nn.init.normal_(reference.in_proj_bias)
nn.init.normal_(reference.out_proj.bias)
fresh = checks.call(MultiHeadAttention, 12, 3)
if fresh.in_proj_bias.any() or fresh.out_proj.bias.any() or (
        not 0.30 < fresh.in_proj_weight.abs().max() <= (6 / 48) ** 0.5 + 1e-6):
    raise checks.Hint("the parameters do not begin as they should.")
checks.call(attention.load_state_dict, reference.state_dict())
def torchs(query, key, value, mask):
    mask = None if mask is None else ~mask
    return reference(query, key, value, need_weights=False, attn_mask=mask)[0]


for mask in [None, torch.ones(4, 6).tril(1) > 0]:
    checks.equal(checks.without(attention, "scaled_dot_product"), torchs,
                 x.clone().requires_grad_(), memory.clone().requires_grad_(),
                 torch.randn(2, 6, 12, requires_grad=True), mask, tolerance=1e-4)
order = torch.randperm(6)
checks.equal(attention, lambda q, k, v: attention(q, k[:, order], v[:, order]),
             x, memory, memory, tolerance=1e-4)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.classifier = MultiHeadAttention(12, 3), nn.Linear(12, 4)

    def forward(self, x):
        return self.classifier(self.attention(x, x, x).mean(1))


checks.overfits(Pooled(), torch.randn(8, 5, 12), torch.arange(8) % 4)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. In your own words (2 points, by a human)
#
# What happens to the output of self-attention when the positions of its input are
# permuted? What follows for a model of sentences, and what do heads add that one wide
# attention of the same number of parameters has not? Three or four sentences.

# %% [markdown] nbgrader={"grade_id": "words", "solution": true, "points": 2}
# The output is permuted in the same way and otherwise unchanged, for scores depend on
# contents only: "dog bites man" and "man bites dog" are one and the same. So positions
# have to be put into the input (or into the scores). Each head has a softmax of its
# own, so a position can look at several places for several reasons at once, where one
# softmax can only mix them.
