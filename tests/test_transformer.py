"""The Transformer held against nn.Transformer, its paper and brute force."""

import itertools
from functools import partial

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn

import transformer
from beam_search import beam_search, greedy
from declared import Case
from identical import assert_identical
from lab import UserError, measure, text
from lab.text import BOS, EOS, PAD
from multi_head import attention_maps

TINY = {"d_model": 16, "num_heads": 2, "num_layers": 2, "d_ff": 32, "dropout": 0.0}


def pairs(vocabulary=12, length=6):
    """Random tokens of sources and targets: ((source, target), what comes next)."""
    source, target = (torch.randint(3, vocabulary, (4, length + i)) for i in range(2))
    return (source, target[:, :-1]), target[:, 1:]


def translator(**options):
    sizes = TINY | {"dropout": 0.1, "length": 6}
    return Case(partial(transformer.Translator, 12, **sizes, **options), pairs,
                partial(transformer.translation_loss, smoothing=0))


CASES = {"Translator": translator(),
         "Translator pre-norm": translator(norm_first=True, kind="learned")}


def lively(model):
    """The model in evaluation; it does more than to repeat its last token."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight)
    return model.eval()


def tiny(vocabulary=7, **options):
    return lively(transformer.Translator(vocabulary, length=64, **TINY | options))


def sentences(*lengths, vocabulary=7):
    """Random tokens that end with EOS, PAD behind the shorter ones."""
    rows = [torch.cat([torch.randint(3, vocabulary, (n - 1,)), torch.tensor([EOS])])
            for n in lengths]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


# Against nn.Transformer


@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:.*nested tensors is")
@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
def test_identical(norm_first, masked):
    """Same parameters by name, outputs in eval and train mode, and gradients."""
    reference = nn.Transformer(32, 4, 3, 3, 64, dropout=0.0, batch_first=True,
                               norm_first=norm_first)
    for weight in reference.parameters():
        nn.init.normal_(weight, std=0.2)
    ours = transformer.Transformer(32, 4, 3, 64, dropout=0.0, norm_first=norm_first)
    source, target = torch.randn(3, 7, 32), torch.randn(3, 5, 32)
    allowed = torch.arange(7) < torch.tensor([[7], [4], [2]])
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    masks = (allowed[:, None, None], causal) if masked else ()
    theirs = {"src_key_padding_mask": ~allowed, "memory_key_padding_mask": ~allowed,
              "tgt_mask": ~causal} if masked else {}
    assert_identical(
        ours, reference, source, target, *masks,
        call=lambda source, target, *masks: reference(source, target, **theirs))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_default_sizes_are_the_librarys():
    with torch.device("meta"):
        ours, reference = transformer.Transformer(), nn.Transformer()
    shapes = {name: weight.shape for name, weight in reference.state_dict().items()}
    assert {name: weight.shape for name, weight in ours.state_dict().items()} == shapes


# Against the paper


def test_published_sizes():
    """Table 3 says 65 and 213 million; with its 37,000 tokens we count these."""
    found = {build.__name__: transformer.facts()[f"{build.__name__}_parameters"] / 1e6
             for build in (transformer.base, transformer.big)}
    assert found["base"] == pytest.approx(65, rel=0.04)
    assert found["big"] == pytest.approx(213, rel=0.01)


def test_paper_has_no_norm_after_the_last_layer():
    with torch.device("meta"):
        stack = transformer.base().transformer
    assert not stack.decoder.norm.state_dict() and len(stack.decoder.layers) == 6
    norms = [m for m in stack.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 6 * 2 + 6 * 3


def test_weights_are_tied():
    model = tiny(vocabulary=11)
    of_tokens = [name for name, p in model.named_parameters() if p.shape[0] == 11]
    assert of_tokens == ["embedding.weight"]
    source, target = sentences(4), sentences(3)
    model(source, target)[0, 0, 9].backward()
    assert model.embedding.weight.grad[9].any()


def test_sinusoids():
    """The formulas of section 3.5, one by one."""
    table = transformer.sinusoids(40, 12).double()
    for position, i in itertools.product([0, 1, 7, 39], range(6)):
        angle = torch.tensor(position / 10_000 ** (2 * i / 12), dtype=torch.double)
        assert table[position, 2 * i] == pytest.approx(angle.sin().item(), abs=1e-5)
        assert table[position, 2 * i + 1] == pytest.approx(angle.cos().item(), abs=1e-5)


def test_a_shift_is_a_linear_map():
    """Section 3.5: row p + k is the same linear function of row p for every p."""
    table = transformer.sinusoids(50, 8).double()
    for k in (1, 9):
        shift = torch.linalg.lstsq(table[:-k], table[k:]).solution
        torch.testing.assert_close(table[:-k] @ shift, table[k:], atol=1e-4, rtol=0)


def test_warm_up():
    """Times the paper's peak it is eq. 3; it is highest at the last warm-up step."""
    for step in (1, 100, 4000, 10_000):
        rate = 512 ** -0.5 * min(step ** -0.5, step * 4000 ** -1.5)
        peak = transformer.facts()["base_peak_learning_rate"]
        assert peak * transformer.warm_up(step, 4000) == pytest.approx(rate)
    rates = [transformer.warm_up(step, 60) for step in range(1, 200)]
    assert max(rates) == rates[59] == 1


def test_label_smoothing():
    """Written out: 1 - e on the correct token, e shared by all; PAD does not count."""
    logits, target = torch.randn(2, 3, 5), torch.tensor([[3, 4, 2], [4, 2, PAD]])
    log_p = logits.log_softmax(-1)
    losses = [-(0.9 * log_p[b, t, target[b, t]] + 0.1 * log_p[b, t].mean())
              for b, t in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]]
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(transformer.translation_loss(logits, target), expected)


# What a position may see


def test_no_position_sees_those_after_it():
    model, source = tiny(), sentences(5, 3)
    target = sentences(6, 6)
    changed = target.clone()
    changed[:, 3:] = 5 + (target[:, 3:] == 5)
    before, after = model(source, target), model(source, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_padding_changes_nothing():
    model, target = tiny(), sentences(4)
    source = sentences(5)
    padded = torch.cat([source, torch.full((1, 3), PAD)], dim=1)
    torch.testing.assert_close(model(source, target), model(padded, target))


def test_without_positions_the_order_of_the_source_is_lost():
    source, target = sentences(6), sentences(4)
    turned = source.flip(1)
    model = tiny(kind="none")
    torch.testing.assert_close(model(source, target), model(turned, target))
    model = tiny()
    assert not torch.allclose(model(source, target), model(turned, target))


@pytest.mark.parametrize("kind", ["sinusoidal", "learned", "none"])
def test_too_long_a_sentence(kind):
    model = transformer.Translator(7, kind, length=5, **TINY)
    assert model(sentences(5), sentences(5)).shape == (1, 5, 7)
    with pytest.raises(UserError) as error:
        model(sentences(6), sentences(5))
    assert str(error.value) == (
        "a sentence of 6 tokens is longer than the model's 5 positions")


def test_only_learned_positions_are_parameters():
    sizes = {kind: measure.parameters(transformer.Translator(7, kind, 5, **TINY))
             for kind in ("sinusoidal", "learned", "none")}
    assert sizes["learned"] - sizes["none"] == 5 * 16
    assert sizes["sinusoidal"] == sizes["none"]


def test_mixed_precision():
    model = transformer.Translator(7, **TINY)
    source, target = sentences(5, 3), sentences(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = transformer.translation_loss(model(source, target), target)
        written = beam_search(model.eval(), source, limit=4, beam=2)
    loss.backward()
    assert loss.isfinite() and written.shape[0] == 2
    assert all(p.grad.isfinite().all() for p in model.parameters())


# Writing a translation


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"kind": "learned"}],
                         ids=["post-norm", "pre-norm", "learned"])
def test_cached_equals_uncached(options):
    """The same tokens, and before that the same logits at every step."""
    model, source = tiny(vocabulary=30, **options), sentences(6, 2, 4, vocabulary=30)
    target = torch.randint(3, 30, (3, 8))
    with torch.no_grad():
        whole = model(source, target)
        state = model.start(source)
        steps = [model.step(target[:, t], state) for t in range(8)]
    torch.testing.assert_close(torch.stack(steps, 1), whole, atol=1e-4, rtol=1e-4)
    cached, uncached = (greedy(each, source, limit=12)
                        for each in (model, Recomputed(model)))
    assert torch.equal(cached, uncached) and len(cached.unique()) > 2


class Recomputed:
    """A Translator that computes all positions again at each step."""

    def __init__(self, model):
        self.model = model

    def start(self, source):
        return [*self.model.encode(source), source[:, :0]]

    def step(self, tokens, state):
        *memory, written = state
        state[-1] = torch.cat([written, tokens[:, None]], dim=1)
        return self.model.decode(state[-1], *memory)[:, -1]


def score(model, source, tokens, alpha):
    """log P of a translation over its length penalty, by teacher forcing."""
    target = torch.tensor([[BOS, *tokens[:-1]]])
    logits = model(source, target)[0]
    logits[:, [PAD, BOS]] = -torch.inf
    log_p = logits.log_softmax(-1)
    total = sum(log_p[t, token].item() for t, token in enumerate(tokens))
    return total / ((5 + len(tokens)) / 6) ** alpha


@pytest.mark.parametrize("alpha", [0, 0.6, 3])
def test_beam_search_equals_exhaustive_search(alpha):
    """With a beam that loses nothing, on 3 tokens and up to 4 of them."""
    source, limit, found = sentences(3, 4, 2, vocabulary=5), 4, set()
    words = [token for token in range(5) if token not in (PAD, BOS, EOS)]
    every = [(*prefix, EOS) for n in range(limit)
             for prefix in itertools.product(words, repeat=n)]
    every += list(itertools.product(words, repeat=limit))   # cut off by the limit
    for seed in range(12):
        torch.manual_seed(seed)
        model = tiny(vocabulary=5)
        with torch.no_grad():
            written = beam_search(model, source, limit, beam=100, alpha=alpha)
            for row, tokens in zip(source, written.tolist()):
                row = row[row != PAD][None]
                best = max(every, key=lambda y: score(model, row, y, alpha))
                assert tuple(t for t in tokens if t != PAD) == best
                found.add(best)
    assert len(found) > 2


def test_a_state_of_some_rows():
    """Every part of it: memory, mask, and each layer's caches."""
    model, source = tiny(), sentences(4, 2)
    state, rows = model.start(source), torch.tensor([1, 1, 0])
    with torch.no_grad():
        model.step(torch.tensor([3, 4]), state)
        chosen, expected = state[rows], model.start(source[rows])
        model.step(torch.tensor([4, 4, 3]), expected)
        logits = [model.step(torch.tensor([5, 6, 3]), each)
                  for each in (chosen, expected)]
    torch.testing.assert_close(*logits)


def test_byte_pairs_by_hand():
    """The merges of a small text, the most frequent pair first, and a word not in it.

    Sennrich et al. 2016, section 3.2; here without the mark for the end of a word.
    """
    corpus = 5 * ["low"] + 2 * ["lower"] + 6 * ["newest"] + 3 * ["widest"]
    letters = {letter for word in corpus for letter in word}
    for merges, pieces in enumerate(["l o w e s t", "l o w es t", "l o w est",
                                     "lo w est", "low est"]):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(vocab_size=len(letters) + merges,
                                      show_progress=False)
        tokenizer.train_from_iterator(corpus, trainer)
        assert tokenizer.encode("lowest").tokens == pieces.split()


# From sentences to sentences


@pytest.fixture(scope="module")
def words():
    return text.vocabulary(["one two three four five six"])


def test_alignment(words):
    torch.manual_seed(0)
    model = tiny(words.get_vocab_size())
    source, written, weights = transformer.alignment(model, words, "three one two")
    assert source == ["three", "one", "two", "end"]
    assert weights.shape == (2, len(written), 4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, len(written)))
    with pytest.raises(UserError) as error:
        transformer.alignment(model, words, "three wun two")
    assert str(error.value) == "'wun' is not in the vocabulary"


def test_attention_maps_are_of_the_model():
    model = tiny()
    with attention_maps(model) as maps:
        model(sentences(5, 3), sentences(4, 4))
    assert len(maps) == 2 + 2 * 2
    across = maps["transformer.decoder.layers.1.multihead_attn"]
    assert across.shape == (2, 2, 4, 5) and not across[1, :, :, 3:].any()
    behind = maps["transformer.decoder.layers.0.self_attn"]
    assert not behind.triu(1).any()


def test_a_comparison_has_the_transformer():
    """The others are drawn and recorded beside it."""
    with pytest.raises(ValueError) as error:
        transformer.Settings(compared=("with one head",))
    assert str(error.value).startswith("--compared lacks Transformer")
