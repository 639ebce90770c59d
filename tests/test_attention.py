"""Attention held against torch's, against loops written by hand, and its masks."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attention
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
    words, neighbours = attention.neighbours(4, 6, None)
    return (words,), neighbours


def drawn(output, target):
    """The loss of hard attention: its value is that of the positions drawn."""
    logits, weights = output
    losses = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    return attention.reinforce(losses, weights, baseline=losses.detach().mean()).mean()


def sorter(mechanism):
    """Four sequences to sort; hard attention has a loss of its own."""
    def batch():
        source, target, _ = attention.letters("sort", 4, 6, None)
        return (source, attention.shift(target)), target

    return Case(lambda: attention.Translator(attention.MECHANISMS[mechanism](32), 32),
                batch, drawn if mechanism == "hard" else per_position)


CASES = {
    "MultiHeadAttention": Case(
        partial(attention.MultiHeadAttention, 32, 4), self_attention, per_position),
    **{f"Translator {mechanism}": sorter(mechanism)
       for mechanism in attention.MECHANISMS},
    "Neighbours": Case(partial(attention.Neighbours, 4, length=6, embed_dim=32), around,
                       per_position),
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
    "causal": lambda: attention.causal_mask(S),
    "padding": lambda: attention.padding_mask(torch.tensor(
        [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 0, 0, 0, 0]])),
    "causal and padding": lambda: attention.causal_mask(S) & MASKS["padding"](),
    "window": lambda: attention.window_mask(S, reach=1),
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
    for attend in (lambda *qkv: attention.scaled_dot_product(*qkv, mask)[0],
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
    weights = attention.scaled_dot_product(*qkv, mask)[1]
    same(weights.sum(-1), torch.ones(B, H, S))
    if mask is not None:
        assert not weights[~mask.expand_as(weights)].any()


def both(heads=H):
    """Ours and nn.MultiheadAttention with the same weights, none at zero."""
    ours = attention.MultiHeadAttention(D, heads)
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
    """nn.MultiheadAttention: outputs and all gradients, in self-attention.

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
    mask = attention.padding_mask(tokens)
    expected, weights = theirs(query, key, value, key_padding_mask=tokens == 0,
                               average_attn_weights=False)
    same(ours(query, key, value, mask), expected)
    same(ours.weights(query, key, value, mask), weights)


def test_initialised_as_torch():
    """The same weights from the same random numbers."""
    states = []
    for build in (lambda: attention.MultiHeadAttention(D, H),
                  lambda: nn.MultiheadAttention(D, H)):
        torch.manual_seed(1)
        states.append(build().state_dict())
    same(states[0], states[1], 0)


def test_dropout():
    """Of weights, in training only: a mean over many calls is the output without it."""
    model = attention.MultiHeadAttention(D, H, dropout=0.5)
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
    return attention.scaled_dot_product(x, x, x, mask)[0]


def attend_fused(x, mask):
    model = attention.MultiHeadAttention(D, H)
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
    mask = attention.causal_mask(S) & ~attention.window_mask(S, reach=1)
    with torch.autograd.detect_anomaly(check_nan=True):
        output, weights = attention.scaled_dot_product(x, x, x, mask)
        output.sum().backward()
    assert not weights[:, :, :2].any()


def test_a_nan_is_not_hidden():
    scores = torch.tensor([[1.0, math.nan, 2.0]])
    mask = torch.tensor([True, True, False])
    assert attention.masked_softmax(scores, mask).isnan().any()


# Masks -----------------------------------------------------------------------


def test_masks():
    t, s = torch.arange(S)[:, None], torch.arange(S)
    assert torch.equal(attention.causal_mask(S), s <= t)
    assert torch.equal(attention.window_mask(S, reach=2), (s - t).abs() <= 2)
    tokens = torch.tensor([[5, 0, 3], [9, 9, 9]])
    assert attention.padding_mask(tokens).shape == (2, 1, 1, 3)
    assert attention.padding_mask(tokens).flatten(1).tolist() == [
        [True, False, True], [True, True, True]]
    assert attention.padding_mask(tokens, padding=9)[1].sum() == 0


def test_causal():
    """What comes later changes nothing that stands before it."""
    model, x = attention.MultiHeadAttention(D, H), torch.randn(1, S, D)
    mask, changed = attention.causal_mask(S), x.clone()
    changed[:, 4:] += 1
    before, after = (model(z, z, z, mask) for z in (x, changed))
    same(after[:, :4], before[:, :4])
    assert ((after - before)[:, 4:].abs().amax(-1) > 1e-3).all()


def test_padding():
    """A sentence gives the same in a batch with longer ones as alone."""
    model, x = attention.MultiHeadAttention(D, H), torch.randn(1, 3, D)
    padded = torch.cat([x, torch.randn(1, 4, D)], dim=1)
    mask = attention.padding_mask(torch.tensor([[1, 1, 1, 0, 0, 0, 0]]))
    same(model(padded, padded, padded, mask)[:, :3], model(x, x, x))


def test_no_order():
    """Words in another order give the same outputs in that order: none is first."""
    model, x = attention.MultiHeadAttention(D, H), torch.randn(1, S, D)
    order = torch.randperm(S)
    same(model(x[:, order], x[:, order], x[:, order]), model(x, x, x)[:, order])


def test_attention_maps():
    """The latest weights of each module by name, whatever way it was called."""
    model = nn.ModuleDict({"one": attention.MultiHeadAttention(D, H),
                           "two": attention.MultiHeadAttention(D, 1)})
    x, memory, mask = torch.randn(B, S, D), torch.randn(B, T, D), torch.rand(S, T) < 0.7
    with attention.attention_maps(model) as maps:
        model["one"](x, x, x)
        y = model["one"](value=memory, key=memory, query=x, mask=mask)
        model["two"](x, x, x, attention.causal_mask(S))
    assert maps.keys() == {"one", "two"}
    assert maps["one"].shape == (B, H, S, T) and maps["two"].shape == (B, 1, S, S)
    assert not maps["one"][:, :, ~mask].any() and not maps["two"].requires_grad
    value = model["one"].project(x, memory, memory)[2]
    mixed = (maps["one"] @ value).transpose(1, 2).flatten(2)
    same(model["one"].out_proj(mixed), y)
    model["two"](x, x, memory[:, :1].expand(-1, S, -1))
    assert torch.equal(maps["two"], maps["two"].tril()), "it still watches"


# The scores, each pair by itself ---------------------------------------------


def randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def additive(score, q, k):
    return score.v.weight[0] @ torch.tanh(score.query.weight @ q + score.key.weight @ k)


def concat(score, q, k):
    return score.v.weight[0] @ torch.tanh(score.joint.weight @ torch.cat([q, k]))


def content(score, q, k):
    raw = score.strength.weight[0] @ q + score.strength.bias[0]
    return torch.log(1 + torch.exp(raw)) * (q @ k) / (q.norm() * k.norm())


SCORES = {
    "additive": (attention.Additive, additive),
    "concat": (attention.Concat, concat),
    "dot": (lambda D: attention.dot, lambda score, q, k: (q * k).sum()),
    "scaled": (lambda D: attention.scaled_dot,
               lambda score, q, k: (q * k).sum() / math.sqrt(D)),
    "general": (attention.General, lambda score, q, k: q @ score.key.weight @ k),
    "content": (attention.Content, content),
}


@pytest.mark.parametrize("name", SCORES)
def test_score(name):
    """As its formula says, for each query and each key by itself."""
    build, formula = SCORES[name]
    score = build(D)
    if isinstance(score, nn.Module):
        randomised(score)
    query, key = torch.randn(B, T, D), torch.randn(B, S, D)
    with torch.no_grad():
        expected = torch.tensor([
            [[formula(score, q, k) for k in keys] for q in queries]
            for queries, keys in zip(query, key)])
    same(score(query, key), expected, 1e-4)


def test_concat_is_additive():
    """W [q; k] = W1 q + W2 k: Luong's concat is Bahdanau's score."""
    ours, theirs = randomised(attention.Concat(D)), attention.Additive(D)
    with torch.no_grad():
        theirs.query.weight.copy_(ours.joint.weight[:, :D])
        theirs.key.weight.copy_(ours.joint.weight[:, D:])
        theirs.v.weight.copy_(ours.v.weight)
    query, key = torch.randn(B, T, D), torch.randn(B, S, D)
    same(ours(query, key), theirs(query, key), 1e-4)
    assert measure.parameters(ours) == measure.parameters(theirs)


@pytest.mark.parametrize("max_length", [4, 7, 9])
def test_location(max_length):
    """Whatever the keys are; a place beyond max_length gets no weight."""
    score = attention.Location(D, max_length)
    query, key = torch.randn(B, T, D), torch.randn(B, S, D)
    weights = score(query, key).softmax(-1)
    assert torch.equal(weights, score(query, torch.randn(B, S, D)).softmax(-1))
    shown = min(max_length, S)
    expected = (query @ score.places.weight[:shown].T).softmax(-1)
    same(weights[..., :shown], expected)
    assert not weights[..., shown:].any()


def test_soft():
    """The mean of the values by their weights, written out."""
    model = attention.Attention(attention.General(D))
    query, key, value = (torch.randn(B, n, D) for n in (T, S, S))
    mask = torch.rand(B, T, S) < 0.7
    mask[..., 0] = True
    with torch.no_grad():
        context, weights = model(query, key, value, mask)
    for b in range(B):
        for t in range(T):
            scores = [model.score.key.weight.detach() @ k @ query[b, t] for k in key[b]]
            powers = [math.exp(score) * bool(allowed)
                      for score, allowed in zip(scores, mask[b, t])]
            mean = sum(power / sum(powers) * v for power, v in zip(powers, value[b]))
            same(context[b, t], mean, 1e-4)
            same(weights[b, t], torch.tensor(powers) / sum(powers), 1e-4)


# Local -----------------------------------------------------------------------


def test_local_monotonic():
    """Weights of softmax over the window, and outside it none."""
    model = attention.LocalMonotonic(attention.General(D), reach=2)
    query, key, value = (torch.randn(B, S, D) for _ in range(3))
    context, weights = model(query, key, value)
    scores = model.score(query, key)
    for t in range(S):
        window = slice(max(0, t - 2), t + 3)
        expected = torch.zeros(B, S)
        expected[:, window] = scores[:, t, window].softmax(-1)
        same(weights[:, t], expected)
    same(context, weights @ value)


@pytest.mark.parametrize("lengths", [None, [7, 4]], ids=["whole", "padded"])
def test_local_predictive(lengths):
    """Luong et al. 2015, eq. 9 and 10, written out; sigma is half of the reach."""
    model, reach = randomised(attention.LocalPredictive(attention.General(D), D, 3)), 3
    query, key, value = (torch.randn(B, n, D) for n in (T, S, S))
    mask = None
    if lengths:
        mask = torch.arange(S) < torch.tensor(lengths)[:, None, None]   # (B, 1, S)
    context, weights = model(query, key, value, mask)
    scores = model.score(query, key).detach()
    hidden, _, v, _ = model.predict
    for b in range(B):
        length = lengths[b] if lengths else S
        for t in range(T):
            inner = v.weight[0] @ torch.tanh(hidden.weight @ query[b, t])
            p = length / (1 + math.exp(-inner.item()))
            window = [s for s in range(length) if abs(s - p) <= reach]
            aligned = dict(zip(window, scores[b, t, window].softmax(-1)))
            expected = torch.tensor([
                aligned[s] * math.exp(-(s - p) ** 2 / (2 * (reach / 2) ** 2))
                if s in aligned else 0.0 for s in range(S)])
            same(weights[b, t], expected, 1e-4)
    same(context, weights @ value)


def test_local_predictive_learns_where():
    """The gradient reaches the predicted place through the Gaussian."""
    model = attention.LocalPredictive(attention.dot, D, reach=2)
    query, key, value = (torch.randn(B, n, D) for n in (T, S, S))
    model(query, key, value)[0].square().sum().backward()
    assert all(p.grad.any() for p in model.predict.parameters())


# Hard ------------------------------------------------------------------------


def test_hard():
    """One value: drawn as often as its weight says, the likeliest in evaluation."""
    model = attention.HardAttention(attention.dot)
    query, key, value = (torch.randn(1, n, 4) for n in (1, 3, 3))
    mask = torch.tensor([True, True, False])
    p = attention.masked_softmax(attention.dot(query, key), mask)[0, 0]
    n = 20_000
    many = query.expand(1, n, 4)
    context, weights = model(many, key, value, mask)
    assert torch.equal(weights.sum(-1), torch.ones(1, n))
    assert torch.equal(context, weights @ value)
    error = (p * (1 - p) / n).sqrt()
    assert ((weights.mean((0, 1)) - p).abs() <= 4 * error).all()
    context, weights = model.eval()(query, key, value, mask)
    assert weights[0, 0].argmax() == p.argmax()
    same(context[0, 0], value[0, p.argmax()])


@pytest.mark.parametrize("baseline", [0.0, 3.0])
def test_reinforce(baseline):
    """Unbiased, with any baseline: the mean over draws is the gradient of E[loss].

    That of the score, which only log p(place) has, and that of the values.
    """
    n, places = 40_000, 4
    scores = torch.randn(places, requires_grad=True)
    values = torch.randn(places, 1, requires_grad=True)
    exact = torch.autograd.grad(scores.softmax(0) @ (values - 1).square()[:, 0],
                                [scores, values])
    model = attention.HardAttention(lambda query, key: query)   # its scores are given
    context, weights = model(scores.expand(1, n, places), None, values[None])
    losses = (context[..., 0] - 1).square()
    surrogate = attention.reinforce(losses, weights, baseline)
    assert torch.equal(surrogate, losses)
    found = torch.autograd.grad(surrogate.mean(), [scores, values])
    for estimate, gradient in zip(found, exact):
        assert (estimate - gradient).abs().max() < 0.06 * gradient.abs().max()


def test_baseline_lowers_variance():
    """Why there is one: the mean loss as baseline, against none."""
    scores, losses = torch.zeros(4), 10 + torch.arange(4.0)
    spreads = []
    for baseline in (0.0, losses.mean()):
        gradients = []
        for place in torch.randint(4, (2000,)):
            z = scores.clone().requires_grad_()
            p = z.softmax(0)[place]
            weights = (p / p.detach())[None, None]
            attention.reinforce(losses[place][None], weights, baseline).sum().backward()
            gradients.append(z.grad)
        spreads.append(torch.stack(gradients).std(0).mean())
    assert spreads[1] < spreads[0] / 4


# The demo --------------------------------------------------------------------


@pytest.mark.parametrize("task", ["copy", "sort"])
def test_letters(task):
    generator = torch.Generator().manual_seed(0)
    source, target, places = attention.letters(task, 50, 9, generator)
    assert source.min() >= 1 and source.max() <= 26
    assert all(len(set(row)) == 9 for row in source.tolist())
    assert torch.equal(source.gather(1, places), target)
    wanted = [sorted(row) if task == "sort" else row for row in source.tolist()]
    assert target.tolist() == wanted


@pytest.mark.parametrize("mechanism", attention.MECHANISMS)
def test_translate(mechanism):
    """What it writes word by word is what it says of its own words at once."""
    model = attention.Translator(attention.MECHANISMS[mechanism](D), D).eval()
    source = torch.randint(1, 27, (3, 6))
    words, weights = attention.translate(model, source)
    found, again = attention.follow(model, source, words)
    assert torch.equal(found, words)
    same(weights, again)


def test_shift():
    """A word sees those before it: the first sees none, the last word is not seen."""
    assert attention.shift(torch.tensor([[7, 8, 9]])).tolist() == [[0, 7, 8]]


def test_mechanisms_differ_in_their_score_only():
    """All else has the same names, shapes and first values of the same seed."""
    shapes = set()
    for build in attention.MECHANISMS.values():
        model = attention.Translator(build(D), D)
        shapes.add(tuple((name, tuple(p.shape)) for name, p in model.named_parameters()
                         if not name.startswith("attention")))
    assert len(shapes) == 1


def test_no_attention_sees_the_last_state_only():
    model = attention.LastPlace()
    query, key, value = (torch.randn(B, n, D) for n in (T, S, S))
    context, weights = model(query, key, value)
    assert torch.equal(context, value[:, -1:].expand(-1, T, -1))
    assert torch.equal(weights.argmax(-1), torch.full((B, T), S - 1))


def test_neighbours():
    generator = torch.Generator().manual_seed(0)
    words, around = attention.neighbours(3, 5, generator)
    for row, (before, after) in zip(words.tolist(), around.tolist()):
        assert before == [row[i - 1] for i in range(5)]
        assert after == [row[(i + 1) % 5] for i in range(5)]


def test_softmax_jacobian():
    scores = torch.randn(6)
    exact = torch.autograd.functional.jacobian(lambda z: z.softmax(0), scores)
    same(attention.softmax_jacobian(scores.softmax(0)), exact)


def test_variance_of_scores():
    """Vaswani et al. 2017, footnote 4: d; by 1 / sqrt(d) it is 1 whatever d is."""
    for d in (16, 256):
        found = attention.saturation(attention.dot, d)["variance"]
        assert found == pytest.approx(d, rel=0.15)
        found = attention.saturation(attention.scaled_dot, d)["variance"]
        assert found == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("n", [10, 100])
def test_layer_costs(n):
    """Table 1 beside multiply-adds counted in real layers, constants aside."""
    d, k, r = 32, 3, 9
    costs = attention.layer_costs(n, d, k, r)
    x = (1, 1, n, d)
    formula = measure.multiply_adds(Formula(), x, x, x)
    assert formula == 2 * costs["self_attention"][0]   # scores, and the mean of values
    convolution = nn.Conv1d(d, d, k, padding=k // 2)
    assert measure.multiply_adds(convolution, (1, d, n)) == costs["convolutional"][0]
    step = nn.Linear(d, d, bias=False)
    assert n * measure.multiply_adds(step, (1, d)) == costs["recurrent"][0]
    window = attention.window_mask(10 * n, reach=r // 2)
    assert window.sum(-1).max() * n * d == costs["restricted"][0]


class Formula(nn.Module):
    def forward(self, query, key, value):
        return attention.scaled_dot_product(query, key, value)[0]


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_heads_cost_no_parameters(heads):
    """4 d^2 + 4 d, into however many heads they are cut."""
    model = attention.MultiHeadAttention(D, heads)
    assert measure.parameters(model) == 4 * D * D + 4 * D
