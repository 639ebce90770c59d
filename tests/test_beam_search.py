"""Searches held against all sentences of small languages, and against each other."""

import itertools

import pytest
import torch

import beam_search
from lab.text import BOS, EOS, PAD, UNKNOWN

WORDS, LIMIT = 3, 4


@pytest.fixture
def language():
    return beam_search.RandomLanguage(20, WORDS, 8, seed=0)


SOURCE = torch.arange(20)[:, None]


def every_sentence():
    """All of at most LIMIT tokens, EOS counted; the longest need not be over."""
    words = range(UNKNOWN + 1, UNKNOWN + 1 + WORDS)
    over = [(*words_, EOS) for n in range(LIMIT)
            for words_ in itertools.product(words, repeat=n)]
    return over + list(itertools.product(words, repeat=LIMIT))


def log_p(language, number, sentence):
    """By the table of probabilities alone."""
    logits = language.logits[number].clone()
    logits[..., [PAD, BOS]] = -torch.inf
    table, last, total = logits.log_softmax(-1), BOS, 0.0
    for position, token in enumerate(sentence):
        total, last = total + table[position, last, token].item(), token
    return total


def without_padding(sentence):
    return tuple(token for token in sentence.tolist() if token != PAD)


def test_exhaustive_search_finds_the_best_of_all_sentences(language):
    for number in range(5):
        best = max(every_sentence(), key=lambda y: log_p(language, number, y))
        found, score = beam_search.exhaustive(language, SOURCE[number][None], LIMIT)
        assert without_padding(found) == best
        assert score.item() == pytest.approx(log_p(language, number, best), abs=1e-5)


@pytest.mark.parametrize("alpha", [0, 0.6, 3])
def test_a_beam_that_loses_nothing_is_exhaustive(language, alpha):
    found = beam_search.beam_search(language, SOURCE, LIMIT, beam=200, alpha=alpha)
    for number in range(5):
        best = max(every_sentence(), key=lambda y: log_p(language, number, y)
                   / beam_search.length_penalty(len(y), alpha))
        assert without_padding(found[number]) == best


def test_a_beam_of_one_is_greedy(language):
    assert torch.equal(beam_search.beam_search(language, SOURCE, 8, beam=1),
                       beam_search.greedy(language, SOURCE, 8))


def test_a_wider_beam_finds_what_is_as_probable_or_more_on_average(language):
    scores = [beam_search.score(language, SOURCE, beam_search.beam_search(
        language, SOURCE, LIMIT, beam, alpha=0)).mean() for beam in (1, 4, 200)]
    assert scores[0] < scores[1] <= scores[2]


def test_the_score_of_a_sentence_is_its_log_p(language):
    sentences = beam_search.greedy(language, SOURCE, LIMIT)
    scores = beam_search.score(language, SOURCE, sentences)
    for number, sentence in enumerate(sentences):
        assert scores[number].item() == pytest.approx(
            log_p(language, number, without_padding(sentence)), abs=1e-5)


def test_length_penalty(language):
    """Wu et al. 2016, eq. 14; without alpha there is none."""
    assert beam_search.length_penalty(7, alpha=0) == 1
    assert beam_search.length_penalty(7, alpha=0.6) == pytest.approx(2 ** 0.6)
    short, long = [
        (beam_search.beam_search(language, SOURCE, 8, 50, alpha) != PAD).sum()
        for alpha in (0, 5)]
    assert short < long


def test_unknown_words_are_never_written(language):
    assert not (beam_search.beam_search(language, SOURCE, 8) == UNKNOWN).any()


def test_steps_of_exhaustive_search(monkeypatch):
    """A step for each beginning that is not over, as counted in a search."""
    settings = beam_search.Settings()
    language = beam_search.RandomLanguage(1, settings.words, settings.limit, seed=0)
    steps, step = 0, language.step

    def counting(tokens, state):
        nonlocal steps
        steps += ((tokens != EOS) & (tokens != PAD)).sum().item()
        return step(tokens, state)

    monkeypatch.setattr(language, "step", counting)
    beam_search.exhaustive(language, SOURCE[:1], settings.limit)
    assert steps == beam_search.facts()["steps_of_exhaustive"] == 781
