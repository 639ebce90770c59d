"""Fine-tuning: what is kept of the pre-trained network, and what is learned."""

import pytest
import torch

import bert
import fine_tuning
from lab import compare, runs

CASES = {}   # its networks are bert.py's


@pytest.fixture
def args(monkeypatch, tmp_path):
    """Settings of a quick run, with rates, and a current run."""
    settings = fine_tuning.Settings(
        data="reviews", device=torch.device("cpu"), quick=True, out=tmp_path,
        lr=1e-3, lr_labels=1e-3)
    monkeypatch.setattr(runs, "_current", None)
    runs.begin(settings, "demo", None, "test")
    return settings


def test_the_classifier_begins_with_the_pretrained_body(args, monkeypatch):
    """Scratch does not; the labelled reviews are the same for both."""
    begun = {}

    def fit(step, batches, args, save, **options):
        begun[len(begun)] = (save["model"].bert.state_dict(), [
            inputs["input_ids"].sum() for inputs, _ in batches])
        return {"seconds": [0.0], "loss": [1.0]}

    body = bert.pretrained(args, 0).model.bert.state_dict()
    monkeypatch.setattr(compare, "chosen", lambda name, args, **_: args)
    monkeypatch.setattr(fine_tuning, "pretrained", lambda *_: bert.pretrained(args, 0))
    monkeypatch.setattr(fine_tuning.training, "fit", fit)
    for start in ["pretrained", "scratch"]:
        fine_tuning.finetuned(16, start, args, 0)
    (pretrained, first), (scratch, second) = begun.values()
    same = [torch.equal(pretrained[key], body[key]) for key in body]
    assert all(same)
    assert not all(torch.equal(scratch[key], body[key]) for key in body)
    assert sum(first) == sum(second)


def test_a_new_layer_is_all_that_a_task_adds():
    values = fine_tuning.facts()
    model = bert.BertForSequenceClassification(bert.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8))
    assert sum(p.numel() for p in model.classifier.parameters()) == 2 * 16 + 2
    assert values["base_new_parameters"] == 2 * 768 + 2


def test_published(script, tmp_path, capsys):
    """Published weights are for bert.py; the flag is refused here."""
    assert script("fine_tuning", "--weights", "bert-base-uncased", "--text", "a [MASK]",
                  "--out", tmp_path) == 2
    assert "--weights and --text are for bert.py" in capsys.readouterr().err
