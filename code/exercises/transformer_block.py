# %% [markdown]
# # A Transformer block
#
# **Goal**: afterwards you can write the block of every Transformer so that torch's own
# weights fit into it, in both orders of its norms, give it positions, and make a small
# language model that cannot see the future.
#
# **Time**: 60 to 90 minutes. **Points**: 18, of which a human gives 2.
#
# **How**: replace every `raise NotImplementedError()` by your solution. Run the check
# below it, or `python transformer_block.py` for all of them: they tell you what to look
# at. The checks that you see are a part of those that grade your work. Keep the cells
# and the names as they are; add cells where you like.
#
# **Hand in**: this file, as `.py` or as `.ipynb`.
#
# Paper: Ashish Vaswani et al. *Attention Is All You Need*. NIPS 2017.
# [arXiv:1706.03762](https://arxiv.org/abs/1706.03762)
#
# Axes: B batch, T length, D width of the model.

# %% nbgrader={"grade_id": "setup", "locked": true}
import torch
from torch import nn
from torch.nn import functional as F

from lab import checks

checks.begin(__name__)

# %% [markdown]
# ## 1. Layer normalisation (3 points)
#
# Each position for itself: subtract the mean of its D features, divide by the root of
# their variance (the mean of squares, not the unbiased one) plus eps, then scale by
# `weight` and shift by `bias`, which begin at one and zero. Torch's own is not allowed.

# %% nbgrader={"grade_id": "norm", "solution": true}
class LayerNorm(nn.Module):
    """(..., D) -> (..., D); state_dict as of nn.LayerNorm."""

    def __init__(self, width, eps=1e-5):
        super().__init__()
        ### BEGIN SOLUTION
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)
        return centred / (variance + self.eps).sqrt() * self.weight + self.bias
        ### END SOLUTION


# %% nbgrader={"grade_id": "norm-checks", "points": 3}
torch.manual_seed(0)
x = torch.randn(2, 5, 16)
norm = checks.call(LayerNorm, 16)
checks.parameters(norm, 32)
checks.equal(checks.without(norm, "layer_norm"), nn.LayerNorm(16), 3 * x + 1)
### BEGIN HIDDEN TESTS
reference = nn.LayerNorm(16, eps=0.1)
nn.init.normal_(reference.weight)
nn.init.normal_(reference.bias)
own = checks.call(LayerNorm, 16, 0.1)
checks.call(own.load_state_dict, reference.state_dict())
checks.equal(checks.without(own, "layer_norm"), reference,
             (0.1 * x + 5).requires_grad_(), tolerance=1e-4)
checks.equal(checks.call(LayerNorm, 4), nn.LayerNorm(4), torch.full((3, 4), 7.0))
checks.eval_mode(own, x)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Positions (3 points)
#
# Section 3.5 of the paper: feature 2i of position p is sin(p / 10000^(2i/D)), feature
# 2i + 1 is the cosine of the same.

# %% nbgrader={"grade_id": "positions", "solution": true}
def positions(length, width):
    """The positions' encodings (length, width), width even."""
    ### BEGIN SOLUTION
    rates = 10000 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "positions-checks", "points": 3}
checks.shape(positions, 6, 8, expected=(6, 8))
checks.equal(lambda *size: positions(*size)[0],
             lambda *size: torch.tensor([0.0, 1] * 4), 6, 8)
### BEGIN HIDDEN TESTS
def by_the_formula(length, width):
    import math
    table = torch.zeros(length, width)
    for place in range(length):
        for i in range(width // 2):
            angle = place / 10000 ** (2 * i / width)
            table[place, 2 * i] = math.sin(angle)
            table[place, 2 * i + 1] = math.cos(angle)
    return table


checks.equal(positions, by_the_formula, 50, 12, tolerance=1e-4)
checks.equal(positions, by_the_formula, 1, 2)
# The product of two encodings depends on their distance only.
table = checks.call(positions, 40, 16)
checks.equal(lambda x: (x @ x.t()).diagonal(3), lambda x: (x[0] @ x[3]).expand(37),
             table, tolerance=1e-4)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The block (6 points)
#
# Self-attention, then two linear layers with a ReLU between them; each has a norm and
# is added to its input. The paper's order (post-norm) is norm(x + f(x)), what is used
# today (pre-norm) is x + f(norm(x)).
#
# Names as in `nn.TransformerEncoderLayer`: `self_attn` (take `nn.MultiheadAttention`
# with `batch_first=True`), `linear1`, `linear2`, `norm1`, `norm2` (your `LayerNorm`),
# so that its weights fit. Dropout follows the attention, the ReLU and `linear2`.
# Torch's mask is True where attention is **not** allowed; pass it on as `attn_mask`,
# with `need_weights=False`.

# %% nbgrader={"grade_id": "block", "solution": true}
class Block(nn.Module):
    """x (B, T, D), mask (T, T) as torch has it -> (B, T, D)."""

    def __init__(self, width, num_heads, hidden, dropout=0.0, norm_first=False):
        super().__init__()
        ### BEGIN SOLUTION
        self.norm_first = norm_first
        self.self_attn = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        ### END SOLUTION

    def forward(self, x, mask=None):
        ### BEGIN SOLUTION
        def attend(x):
            return self.dropout(self.self_attn(
                x, x, x, attn_mask=mask, need_weights=False)[0])

        def transform(x):
            return self.dropout(self.linear2(self.dropout(self.linear1(x).relu())))

        if self.norm_first:
            x = x + attend(self.norm1(x))
            return x + transform(self.norm2(x))
        x = self.norm1(x + attend(x))
        return self.norm2(x + transform(x))
        ### END SOLUTION


# %% nbgrader={"grade_id": "block-checks", "points": 6}
block = checks.call(Block, 16, 4, 32)
checks.shape(block, x, expected=(2, 5, 16))
checks.parameters(block, 2224)
checks.eval_mode(checks.call(Block, 16, 4, 32, 0.5), x)
### BEGIN HIDDEN TESTS
future = torch.ones(5, 5).triu(1) > 0
for norm_first in [False, True]:
    reference = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True,
                                           norm_first=norm_first)
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.3)
    own = checks.call(Block, 16, 4, 32, 0.0, norm_first)
    checks.call(own.load_state_dict, reference.state_dict())
    for mask in [None, future]:
        checks.equal(own, reference, x.clone().requires_grad_(), mask, tolerance=1e-4)
torch.manual_seed(1)
dropped = checks.call(Block, 16, 4, 32, 0.5).train()
checks.reproducible(lambda: dropped(x))
if not any(isinstance(part, nn.Dropout) and part.p == 0.5
           for part in dropped.modules()):
    raise checks.Hint("Block has no nn.Dropout with the rate that it is given.")
### END HIDDEN TESTS

# %% [markdown]
# ## 4. A language model (4 points)
#
# Embedding of the tokens plus `positions`, `depth` pre-norm blocks with 4 heads and 4 D
# hidden features, a `LayerNorm`, and one linear layer to the logits of the next token.
# A position must not see the ones after it.

# %% nbgrader={"grade_id": "model", "solution": true}
class LanguageModel(nn.Module):
    """tokens (B, T) -> logits (B, T, vocabulary) of what comes next."""

    def __init__(self, vocabulary, width=32, depth=2):
        super().__init__()
        ### BEGIN SOLUTION
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(
            Block(width, 4, 4 * width, norm_first=True) for _ in range(depth))
        self.norm = LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        ### END SOLUTION

    def forward(self, tokens):
        ### BEGIN SOLUTION
        length = tokens.shape[1]
        x = self.embedding(tokens)
        x = x + positions(length, x.shape[-1])
        future = torch.ones(length, length).triu(1) > 0
        for block in self.blocks:
            x = block(x, future)
        return self.head(self.norm(x))
        ### END SOLUTION


# %% nbgrader={"grade_id": "model-checks", "points": 4}
def next_token_loss(logits, tokens):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


torch.manual_seed(2)
model = checks.call(LanguageModel, 11)
tokens = torch.stack([(torch.arange(9) * step + start) % 11
                      for start, step in [(0, 1), (3, 2), (7, 3), (5, 5)]])
checks.shape(model, tokens, expected=(4, 9, 11))
checks.overfits(model, tokens, tokens, loss=next_token_loss, below=0.5, steps=150)
### BEGIN HIDDEN TESTS
checks.parameters(model, 26187)
changed = tokens.clone()
changed[:, 6] = (changed[:, 6] + 1) % 11
with torch.no_grad():
    first, second = checks.call(model, tokens), checks.call(model, changed)
if not torch.allclose(first[:, :6], second[:, :6], atol=1e-5):
    raise checks.Hint("a position of LanguageModel sees what comes after it.")
if torch.allclose(first[:, 7:], second[:, 7:], atol=1e-5):
    raise checks.Hint("a position of LanguageModel does not see what was before it.")
same = torch.full((1, 6), 3)
with torch.no_grad():
    found = checks.call(model, same)
if torch.allclose(found[0, 1], found[0, 5], atol=1e-4):
    raise checks.Hint("LanguageModel gives all positions of equal tokens the same.")
checks.eval_mode(model, tokens)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. In your own words (2 points, by a human)
#
# Why does the original order of the norms need a warm-up of the learning rate when the
# other one can do without, and which term of the pre-norm block's derivative is the
# reason? What is the norm before the last linear layer for? Three or four sentences.

# %% [markdown] nbgrader={"grade_id": "words", "solution": true, "points": 2}
# In the pre-norm block dy/dx = 1 + f'(norm(x)) norm'(x): the 1 carries the gradient
# past all blocks. Post-norm puts a norm on this path itself, so the gradients near the
# output are large at the start and a full learning rate breaks them. In the pre-norm
# stack each block adds to x and nothing brings it back to a fixed size: the last norm
# does.
