"""Scores and mechanisms of attention held against loops written by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attention
from declared import Case, per_position
from lab import measure
from multi_head import masked_softmax

B, H, T, S, D = 2, 4, 5, 7, 16


def drawn(output, target):
    """The loss of hard attention: its value is that of the positions drawn."""
    logits, weights = output
    losses = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    return attention.reinforce(losses, weights, baseline=losses.detach().mean()).mean()


def sorter(mechanism):
    """Four sequences to sort; hard attention has a separate loss."""
    def batch():
        source, target, _ = attention.letters("sort", 4, 6, None)
        return (source, attention.shift(target)), target

    return Case(lambda: attention.Translator(attention.MECHANISMS[mechanism](32), 32),
                batch, drawn if mechanism == "hard" else per_position)


CASES = {
    **{f"Translator {mechanism}": sorter(mechanism)
       for mechanism in attention.MECHANISMS},
}


def same(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# The formula, torch's kernel and torch's module ------------------------------


# A row that may attend to nothing --------------------------------------------


# Masks -----------------------------------------------------------------------


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
    """Whatever the keys are; a position beyond max_length gets no weight."""
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
    """The gradient reaches the predicted position through the Gaussian."""
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
    p = masked_softmax(attention.dot(query, key), mask)[0, 0]
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

    That of the score, which only log p(position) has, and that of the values.
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
