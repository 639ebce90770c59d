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

# %%
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F


# %%
def scaled_dot_product(query, key, value, mask=None):
    """softmax(Q K^T / sqrt(d)) V, Vaswani et al. 2017, eq. 1.

    query (B, H, T, d), key and value (B, H, S, d), mask broadcastable to
    (B, H, T, S), True where attention is allowed. Returns the mixed values
    (B, H, T, d) and the weights (B, H, T, S), which sum to one over S; where
    nothing is allowed both are zero.
    """
    scores = query @ key.transpose(-2, -1) / key.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1).nan_to_num(0)
    return weights @ value, weights


# %%
def causal_mask(length, device=None):
    """(T, T), True where attention is allowed: nothing looks at what comes later."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


# %%
def padding_mask(tokens, padding=0):
    """(B, 1, 1, S) of tokens (B, S), True where there is one and no padding."""
    return (tokens != padding)[:, None, None]


# %%
class MultiHeadAttention(nn.Module):
    """num_heads attentions side by side, Vaswani et al. 2017, section 3.2.2.

    query (B, T, D), key and value (B, S, D) -> (B, T, D); mask broadcastable to
    (B, H, T, S), True where attention is allowed. Names as in nn.MultiheadAttention.
    """

    def __init__(self, embed_dim, num_heads, dropout=0.0):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query, key, value, mask=None):
        return self.attend(*self.project(query, key, value), mask)

    def project(self, query, key, value):
        """Queries (B, H, T, d), keys and values (B, H, S, d) of all heads."""
        if query is key is value:    # one product instead of three
            parts = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            parts = [F.linear(x, weight, bias) for x, weight, bias in zip(
                (query, key, value), self.in_proj_weight.chunk(3),
                self.in_proj_bias.chunk(3))]
        return [x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in parts]

    def attend(self, query, key, value, mask=None):
        """scaled_dot_product by torch's fused kernel, heads joined: (B, T, D)."""
        x = F.scaled_dot_product_attention(
            query, key, value, mask, dropout_p=self.dropout * self.training)
        return self.out_proj(x.transpose(1, 2).flatten(2))


# %%
@contextmanager
def attention_maps(model):
    """Inside, {name: weights (B, H, T, S)} of each MultiHeadAttention's latest call."""
    maps = {}

    def watch(name):
        def note(module, inputs, options):
            query, key, value, mask = (*inputs, *options.values(), None)[:4]
            query, key, value = module.project(query, key, value)
            maps[name] = scaled_dot_product(query, key, value, mask)[1].detach()
        return note

    handles = [module.register_forward_pre_hook(watch(name), with_kwargs=True)
               for name, module in model.named_modules()
               if isinstance(module, MultiHeadAttention)]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
