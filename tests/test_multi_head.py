"""Multi-head attention held against torch's, its masks, its cache, and its cost."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attention
import multi_head
from declared import Case, per_position
from identical import assert_identical
from lab import measure

B, H, T, S, D = 2, 4, 5, 7, 16


def self_attention():
    """Random sentences, and for each position a class."""
    x = torch.randn(4, 6, 32)
    return (x, x, x), torch.randint(32, (4, 6))


def around():
    """Words, and those before and after each."""
    words, neighbours = multi_head.neighbours(4, 6, None)
    return (words,), neighbours


CASES = {
    "MultiHeadAttention": Case(
        partial(multi_head.MultiHeadAttention, 32, 4), self_attention, per_position),
    "Neighbours": Case(partial(multi_head.Neighbours, 4, length=6, embed_dim=32),
                       around, per_position),
}


def same(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def per_head():
    """Each head, sentence and word may look elsewhere, but somewhere."""
    mask = torch.rand(B, H, S, S) < 0.5
    return mask | torch.eye(S, dtype=torch.bool)


# Square masks, as self-attention has them; True where attention is allowed.
MASKS = {
    "none": lambda: None,
    "causal": lambda: multi_head.causal_mask(S),
    "padding": lambda: multi_head.padding_mask(torch.tensor(
        [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 0, 0, 0, 0]])),
    "causal and padding": lambda: multi_head.causal_mask(S) & MASKS["padding"](),
    "window": lambda: multi_head.window_mask(S, reach=1),
    "per head": per_head,
}
every_mask = pytest.mark.parametrize("mask", [
    pytest.param(mask, id=name.replace(" ", "_")) for name, mask in MASKS.items()])


# The formula, torch's kernel and torch's module ------------------------------


@every_mask
def test_formula_is_the_kernel(mask):
    """The formula spelled out and F.scaled_dot_product_attention, with gradients."""
    mask, results = mask(), []
    leaves = torch.randn(3, B, H, S, D).unbind()
    for attend in (lambda *qkv: multi_head.scaled_dot_product(*qkv, mask)[0],
                   lambda *qkv: F.scaled_dot_product_attention(*qkv, mask)):
        qkv = [leaf.clone().requires_grad_() for leaf in leaves]
        output = attend(*qkv)
        output.square().sum().backward()
        results.append([output.detach(), *(leaf.grad for leaf in qkv)])
    same(*results)


@every_mask
def test_weights_are_a_distribution(mask):
    """They sum to one, and what is masked has none."""
    mask, qkv = mask(), torch.randn(3, B, H, S, D)
    weights = multi_head.scaled_dot_product(*qkv, mask)[1]
    same(weights.sum(-1), torch.ones(B, H, S))
    if mask is not None:
        assert not weights[~mask.expand_as(weights)].any()


def both(heads=H):
    """Ours and nn.MultiheadAttention with the same weights, none at zero."""
    ours = multi_head.MultiHeadAttention(D, heads)
    theirs = nn.MultiheadAttention(D, heads, batch_first=True)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def for_torch(mask, T, S):
    """As nn.MultiheadAttention has it: True where forbidden, heads in the batch."""
    return None if mask is None else ~mask.expand(B, H, T, S).flatten(0, 1)


@every_mask
def test_identical(mask):
    """nn.MultiheadAttention: outputs and all gradients, in self-multi_head.

    In evaluation torch takes its fast path.
    """
    ours, theirs = both()
    mask, x = mask(), torch.randn(B, S, D)
    assert_identical(ours, theirs, x, x, x, mask, call=lambda q, k, v, mask: theirs(
        q, k, v, need_weights=False, attn_mask=for_torch(mask, S, S))[0])


def test_identical_cross():
    """Queries, keys and values that differ, and a key_padding_mask."""
    ours, theirs = both()
    query, key, value = (torch.randn(B, n, D) for n in (T, S, S))
    tokens = torch.tensor([[1] * 7, [1] * 3 + [0] * 4])
    mask = multi_head.padding_mask(tokens)
    expected, weights = theirs(query, key, value, key_padding_mask=tokens == 0,
                               average_attn_weights=False)
    same(ours(query, key, value, mask), expected)
    same(ours.weights(query, key, value, mask), weights)


def test_initialised_as_torch():
    """The same weights from the same random numbers."""
    states = []
    for build in (lambda: multi_head.MultiHeadAttention(D, H),
                  lambda: nn.MultiheadAttention(D, H)):
        torch.manual_seed(1)
        states.append(build().state_dict())
    same(states[0], states[1], 0)


def test_dropout():
    """Of weights, in training only: a mean over many calls is the output without it."""
    model = multi_head.MultiHeadAttention(D, H, dropout=0.5)
    x = torch.randn(1, S, D)
    with torch.no_grad():
        outputs = torch.stack([model(x, x, x) for _ in range(4000)])
        expected = model.eval()(x, x, x)
        assert torch.equal(model(x, x, x), expected)
    error = outputs.std(0) / len(outputs) ** 0.5
    assert outputs.std(0).min() > 0
    assert ((outputs.mean(0) - expected).abs() < 5 * error).all()


# A row that may attend to nothing --------------------------------------------


def attend_formula(x, mask):
    return multi_head.scaled_dot_product(x, x, x, mask)[0]


def attend_fused(x, mask):
    model = multi_head.MultiHeadAttention(D, H)
    return model(x[:, 0], x[:, 0], x[:, 0], mask)


def attend_soft(x, mask):
    model, x = attention.Attention(attention.Additive(D)), x[:, 0]
    return model(x, x, x, mask)[0]


@pytest.mark.parametrize("attend", [attend_formula, attend_fused, attend_soft])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nothing_allowed(attend, dtype):
    """No NaN, neither in outputs nor in gradients, and the other rows are as ever."""
    mask = torch.ones(S, S, dtype=torch.bool)
    mask[2] = False
    x = torch.randn(B, 1, S, D, requires_grad=True)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        torch.manual_seed(1)
        output = attend(x, mask)
        torch.manual_seed(1)
        without = attend(x, torch.ones_like(mask))
    output.float().square().sum().backward()
    assert output.isfinite().all() and x.grad.isfinite().all() and x.grad.any()
    rows = [i for i in range(S) if i != 2]
    same(output[..., rows, :], without[..., rows, :], 1e-2)
    if attend is not attend_fused:  # whose out_proj has a bias
        assert not output[..., 2, :].any()


@pytest.mark.parametrize("need_weights, training", [(True, True), (False, False)])
def test_nothing_allowed_in_torch(need_weights, training):
    """There nn.MultiheadAttention's default gives NaN, and so does its fast path."""
    _, theirs = both()
    mask, x = torch.zeros(S, S, dtype=torch.bool), torch.randn(B, S, D)
    mask[2] = True
    with torch.no_grad():
        output, _ = theirs.train(training)(x, x, x, attn_mask=mask,
                                           need_weights=need_weights)
    assert output[:, 2].isnan().all() and output[:, 3].isfinite().all()


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_nothing_allowed_without_anomaly():
    """NaN does not even arise on the way: autograd's anomaly detection is silent."""
    x = torch.randn(B, H, S, D, requires_grad=True)
    mask = multi_head.causal_mask(S) & ~multi_head.window_mask(S, reach=1)
    with torch.autograd.detect_anomaly(check_nan=True):
        output, weights = multi_head.scaled_dot_product(x, x, x, mask)
        output.sum().backward()
    assert not weights[:, :, :2].any()


def test_a_nan_is_not_hidden():
    scores = torch.tensor([[1.0, math.nan, 2.0]])
    mask = torch.tensor([True, True, False])
    assert multi_head.masked_softmax(scores, mask).isnan().any()


# Masks -----------------------------------------------------------------------


def test_masks():
    t, s = torch.arange(S)[:, None], torch.arange(S)
    assert torch.equal(multi_head.causal_mask(S), s <= t)
    assert torch.equal(multi_head.window_mask(S, reach=2), (s - t).abs() <= 2)
    tokens = torch.tensor([[5, 0, 3], [9, 9, 9]])
    assert multi_head.padding_mask(tokens).shape == (2, 1, 1, 3)
    assert multi_head.padding_mask(tokens).flatten(1).tolist() == [
        [True, False, True], [True, True, True]]
    assert multi_head.padding_mask(tokens, padding=9)[1].sum() == 0


def test_causal():
    """What comes later changes nothing that stands before it."""
    model, x = multi_head.MultiHeadAttention(D, H), torch.randn(1, S, D)
    mask, changed = multi_head.causal_mask(S), x.clone()
    changed[:, 4:] += 1
    before, after = (model(z, z, z, mask) for z in (x, changed))
    same(after[:, :4], before[:, :4])
    assert ((after - before)[:, 4:].abs().amax(-1) > 1e-3).all()


def test_padding():
    """A sentence gives the same in a batch with longer ones as alone."""
    model, x = multi_head.MultiHeadAttention(D, H), torch.randn(1, 3, D)
    padded = torch.cat([x, torch.randn(1, 4, D)], dim=1)
    mask = multi_head.padding_mask(torch.tensor([[1, 1, 1, 0, 0, 0, 0]]))
    same(model(padded, padded, padded, mask)[:, :3], model(x, x, x))


def test_no_order():
    """Words in another order give the same outputs in that order: none is first."""
    model, x = multi_head.MultiHeadAttention(D, H), torch.randn(1, S, D)
    order = torch.randperm(S)
    same(model(x[:, order], x[:, order], x[:, order]), model(x, x, x)[:, order])


def test_attention_maps():
    """The latest weights of each module by name, whatever way it was called."""
    model = nn.ModuleDict({"one": multi_head.MultiHeadAttention(D, H),
                           "two": multi_head.MultiHeadAttention(D, 1)})
    x, memory, mask = torch.randn(B, S, D), torch.randn(B, T, D), torch.rand(S, T) < 0.7
    with multi_head.attention_maps(model) as maps:
        model["one"](x, x, x)
        y = model["one"](value=memory, key=memory, query=x, mask=mask)
        model["two"](x, x, x, multi_head.causal_mask(S))
    assert maps.keys() == {"one", "two"}
    assert maps["one"].shape == (B, H, S, T) and maps["two"].shape == (B, 1, S, S)
    assert not maps["one"][:, :, ~mask].any() and not maps["two"].requires_grad
    value = model["one"].project(x, memory, memory)[2]
    mixed = (maps["one"] @ value).transpose(1, 2).flatten(2)
    same(model["one"].out_proj(mixed), y)
    model["two"](x, x, memory[:, :1].expand(-1, S, -1))
    assert torch.equal(maps["two"], maps["two"].tril()), "it still watches"


# The scores, each pair by itself ---------------------------------------------


# Local -----------------------------------------------------------------------


# Hard ------------------------------------------------------------------------


# The demo --------------------------------------------------------------------


def test_neighbours():
    generator = torch.Generator().manual_seed(0)
    words, around = multi_head.neighbours(3, 5, generator)
    for row, (before, after) in zip(words.tolist(), around.tolist()):
        assert before == [row[i - 1] for i in range(5)]
        assert after == [row[(i + 1) % 5] for i in range(5)]


def test_softmax_jacobian():
    scores = torch.randn(6)
    exact = torch.autograd.functional.jacobian(lambda z: z.softmax(0), scores)
    same(multi_head.softmax_jacobian(scores.softmax(0)), exact)


def test_variance_of_scores():
    """Vaswani et al. 2017, footnote 4: d; by 1 / sqrt(d) it is 1 whatever d is."""
    for d in (16, 256):
        found = multi_head.saturation(d, scaled=False)["variance"]
        assert found == pytest.approx(d, rel=0.15)
        found = multi_head.saturation(d, scaled=True)["variance"]
        assert found == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("n", [10, 100])
def test_layer_costs(n):
    """Table 1 beside multiply-adds counted in real layers, constants aside."""
    d, k, r = 32, 3, 9
    costs = multi_head.layer_costs(n, d, k, r)
    x = (1, 1, n, d)
    formula = measure.multiply_adds(Formula(), x, x, x)
    assert formula == 2 * costs["self_attention"][0]   # scores, and the mean of values
    convolution = nn.Conv1d(d, d, k, padding=k // 2)
    assert measure.multiply_adds(convolution, (1, d, n)) == costs["convolutional"][0]
    step = nn.Linear(d, d, bias=False)
    assert n * measure.multiply_adds(step, (1, d)) == costs["recurrent"][0]
    window = multi_head.window_mask(10 * n, reach=r // 2)
    assert window.sum(-1).max() * n * d == costs["restricted"][0]


class Formula(nn.Module):
    def forward(self, query, key, value):
        return multi_head.scaled_dot_product(query, key, value)[0]


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_heads_cost_no_parameters(heads):
    """4 d^2 + 4 d, into however many heads they are cut."""
    model = multi_head.MultiHeadAttention(D, heads)
    assert measure.parameters(model) == 4 * D * D + 4 * D


def test_a_cache_is_attention_over_all_positions_so_far():
    """One position at a time, as a decoder generates, or all at once with a mask."""
    model, x = multi_head.MultiHeadAttention(D, H).eval(), torch.randn(B, T, D)
    cache, steps = multi_head.KeyValueCache(), []
    for t in range(T):
        new = x[:, t:t + 1]
        weights = model.weights(new, new, new, cache=cache)
        assert weights.shape == (B, H, 1, t + 1)
        steps.append(model(new, new, new, cache=cache))
        assert len(cache) == t + 1
    same(torch.cat(steps, dim=1), model(x, x, x, multi_head.causal_mask(T)))


def test_a_cache_of_some_rows():
    model, x = multi_head.MultiHeadAttention(D, H).eval(), torch.randn(B, T, D)
    cache = multi_head.KeyValueCache()
    model(x, x, x, cache=cache)
    chosen = cache[torch.tensor([1, 1, 0])]
    same(chosen.keys[0], cache.keys[1])
    assert len(chosen) == T and chosen.values.shape[0] == 3
    assert len(multi_head.KeyValueCache()[torch.tensor([0])]) == 0
    nothing = x[:, :0]
    kept = cache.keys
    model(x[:, :1], nothing, nothing, cache=cache)
    assert cache.keys is kept
