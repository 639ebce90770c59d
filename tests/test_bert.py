"""BERT held against Hugging Face's, its paper and checkpoints as published."""

import json
from functools import partial

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import models

import bert
from declared import Case
from identical import assert_identical
from lab import UserError, measure, text

SMALL = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 3,
         "num_attention_heads": 4, "intermediate_size": 48,
         "max_position_embeddings": 16}
WORDS = [*text.BERT_SPECIAL,
         *"the soup was cold warm never a film plot new york".split(),
         "##s", "##er", "paris", "Paris", "."]
TINY = bert.BertConfig(
    vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=8, initializer_range=0.1)


def random_words(target, samples=4, length=8):
    """Random words, all there, two texts a row: ((ids, mask, texts), target(ids))."""
    ids = torch.randint(1, TINY.vocab_size, (samples, length))
    texts = (torch.arange(length) > 4).long().expand_as(ids)
    return (ids, torch.ones_like(ids), texts), target(ids)


def pretraining_loss(output, target):
    scores, follows = output
    return bert.pretraining_loss(scores.flatten(0, 1), target.flatten(), follows,
                                 target[:, 0] % 2)


CASES = {
    "BertForPreTraining": Case(partial(bert.BertForPreTraining, TINY),
                               partial(random_words, lambda ids: ids),
                               pretraining_loss),
    "BertForSequenceClassification": Case(
        partial(bert.BertForSequenceClassification, TINY),
        partial(random_words, lambda ids: ids[:, 0] % 2)),
}


def reference(kind="ForPreTraining", **options):
    """Hugging Face's model, its norms not at 0 and 1."""
    config = transformers.BertConfig(**SMALL | options)
    model = getattr(transformers, f"Bert{kind}")(config)
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, mean=float("weight" in name), std=0.2)
    return model


def inputs(batch=3, length=12):
    """Two texts a row, of different lengths."""
    ends = torch.tensor([length, length - 1, length - 5])[:batch, None]
    places = torch.arange(length)
    mask = (places < ends).long()
    ids = torch.randint(1, SMALL["vocab_size"], (batch, length)) * mask
    return {"input_ids": ids, "attention_mask": mask,
            "token_type_ids": (places > 4).long() * mask}


MODELS = {
    "BertForPreTraining": (
        "ForPreTraining",
        lambda output: (output.prediction_logits, output.seq_relationship_logits)),
    "BertModel": (
        "Model", lambda output: (output.last_hidden_state, output.pooler_output)),
    "BertForSequenceClassification": (
        "ForSequenceClassification", lambda output: output.logits),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
def test_identical(name, masked):
    """Same parameters by name, outputs and gradients as Hugging Face's."""
    kind, outputs_of = MODELS[name]
    ours, theirs = getattr(bert, name)(bert.BertConfig(**SMALL)), reference(kind)
    ids, *rest = inputs().values()
    assert_identical(  # a key's bias adds the same to all scores of a softmax
        ours, theirs, ids, *(rest if masked else []),
        call=lambda *given: outputs_of(theirs(*given)), idle=["self.key.bias"])


def test_tied():
    """The words' scores come from their embeddings: one matrix, learned once."""
    model = bert.BertForPreTraining(bert.BertConfig(**SMALL))
    head = model.cls["predictions"]
    assert head.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert head.bias is head.decoder.bias


def test_chosen_places():
    """Scores of some positions equal those of all, there."""
    model = bert.BertForPreTraining(bert.BertConfig(**SMALL)).eval()
    batch = inputs()
    predict = torch.rand(batch["input_ids"].shape) < 0.3
    everywhere, follows = model(**batch)
    some, the_same = model(**batch, predict=predict)
    assert some.shape == (int(predict.sum()), SMALL["vocab_size"])
    torch.testing.assert_close(some, everywhere[predict])
    torch.testing.assert_close(follows, the_same)


@pytest.mark.parametrize("name, config, millions", [
    ("base", bert.BASE, 110), ("large", bert.LARGE, 340)])
def test_paper_parameters(name, config, millions):
    """Section 3: 110M and 340M in all; large has 335 to 336, with or without heads."""
    with torch.device("meta"):
        ours = bert.BertForPreTraining(config)
        keys = vars(config).keys() & transformers.BertConfig().to_dict().keys()
        theirs = transformers.BertForPreTraining(transformers.BertConfig(
            **{key: getattr(config, key) for key in keys}))
    count = measure.parameters(ours)
    assert count == bert.facts()[f"{name}_parameters"]
    assert count == sum(p.numel() for p in theirs.parameters())
    assert round(count / 1e6, -1) == millions


# Masks and pairs


def test_masking():
    """15 % of the words: of these 80 % are [MASK], 10 % any word, 10 % as they were."""
    ids = torch.randint(5, 1000, (1000, 104))
    ids[:, 0], ids[:, 50], ids[:, 100:] = 2, 3, 0
    masked, hidden = bert.mask_tokens(ids, 1000)
    assert torch.equal(masked[~hidden], ids[~hidden])
    assert (hidden.sum(1) == round(0.15 * 98)).all()
    assert not hidden[ids < 5].any()
    replaced = masked[hidden]
    same, mask = replaced == ids[hidden], replaced == text.BERT_SPECIAL.index("[MASK]")
    assert mask.float().mean() == pytest.approx(0.8, abs=0.01)
    assert same.float().mean() == pytest.approx(0.1, abs=0.01)
    others = replaced[~same & ~mask]
    assert others.min() >= 5 and others.unique().numel() > 700
    places = hidden.float().mean(0)[1:50]
    assert (places - 15 / 98).abs().max() < 0.06  # everywhere as often


def test_masking_short_rows():
    """A word is hidden in every row, however short, and never what is no word."""
    ids = torch.tensor([[2, 7, 3, 0, 0], [2, 8, 9, 3, 0]])
    for _ in range(20):
        _, hidden = bert.mask_tokens(ids, 10)
        assert hidden.sum(1).tolist() == [1, 1] and not hidden[ids < 5].any()


@pytest.mark.parametrize("word, pieces", [
    ("playing", "playing"), ("unplayable", "un ##play ##able"), ("\u265e", "[UNK]")])
def test_word_pieces(word, pieces):
    """The longest piece first, from the left; [UNK] where no pieces can spell it."""
    vocabulary = ["[UNK]", "playing", "un", "##play", "##able"]
    tokenizer = models.WordPiece(dict(zip(vocabulary, range(9))), unk_token="[UNK]")
    assert [token.value for token in tokenizer.tokenize(word)] == pieces.split()


@pytest.mark.parametrize("review, parts", [
    ("the soup was cold . the film was new .", ("the soup was cold .",
                                                "the film was new .")),
    ("a new film .", ("a new", "film .")),
    ("film", ("", "film"))])
def test_halves(review, parts):
    assert text.halves(review) == parts


def test_sentence_pairs():
    """Half the second texts are those that follow; labels say which."""
    texts = [(f"first {i} . second {i} .", 0) for i in range(200)]
    tokenizer = text.whole_words([review for review, _ in texts], 1, 64)
    batch, is_random = text.SentencePairs(texts, tokenizer)[torch.arange(200)]
    numbers = [[tokenizer.id_to_token(int(i)) for i in row[row >= 5]]
               for row in batch["input_ids"]]
    follows = torch.tensor([words[1] == words[4] for words in numbers])
    assert 70 < is_random.sum() < 130
    assert follows[is_random == 0].all()
    assert follows[is_random == 1].float().mean() < 0.1
    row = [tokenizer.id_to_token(int(i)) for i in batch["input_ids"][0]]
    assert row[0] == "[CLS]" and row[4] == "[SEP]" and row[-1] == "[SEP]"
    assert batch["token_type_ids"][0].tolist() == [0] * 5 + [1] * 4


def test_pretraining_loss():
    """As Hugging Face's, without the tokens that are not masked."""
    theirs, batch = reference().eval(), inputs()
    hidden = (torch.rand(batch["input_ids"].shape) < 0.4) & (batch["input_ids"] > 4)
    words, is_random = batch["input_ids"], torch.tensor([0, 1, 1])
    expected = theirs(**batch, labels=words.masked_fill(~hidden, -100),
                      next_sentence_label=is_random)
    loss = bert.pretraining_loss(
        expected.prediction_logits[hidden], words[hidden],
        expected.seq_relationship_logits, is_random)
    torch.testing.assert_close(loss, expected.loss)


def test_attention_maps():
    """As Hugging Face's, by its eager implementation; padding is not looked at."""
    theirs = reference("Model", attn_implementation="eager").eval()
    ours = bert.BertModel(bert.BertConfig(**SMALL)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    batch = inputs()
    with torch.no_grad():
        expected = torch.stack(theirs(**batch, output_attentions=True).attentions)
    found = bert.attention_maps(ours, batch)
    torch.testing.assert_close(found, expected)
    assert not found[:, 2, :, :, 7:].any()
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]))


# Published checkpoints


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Hugging Face's cache, empty, and no network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


@pytest.fixture
def checkpoint(tmp_path):
    """checkpoint(): a folder as transformers writes it, with a WordPiece vocabulary."""
    def write(folder=tmp_path / "tiny", kind="ForPreTraining", lowercase=True):
        model = reference(kind, vocab_size=len(WORDS)).eval()
        model.save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"do_lower_case": lowercase}))
        return folder, model

    return write


def cached(hub, name):
    """Where a download of the repository would put its files."""
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0123456789abcdef")
    return repository / "snapshots/0123456789abcdef"


def best_words(model, folder, sentence):
    """By transformers: [[(word, probability)]] of each gap."""
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    batch = tokenizer(sentence, return_tensors="pt")
    gaps = batch["input_ids"][0] == tokenizer.mask_token_id
    with torch.no_grad():
        scores = model(**batch)[0][0][gaps]
    return [[(tokenizer.convert_ids_to_tokens(int(i)), float(p)) for p, i in zip(*row)]
            for row in zip(*scores.softmax(-1).topk(5))]


@pytest.mark.parametrize("where", ["folder", "cache"])
@pytest.mark.parametrize("kind", ["ForPreTraining", "ForMaskedLM"])
@pytest.mark.parametrize("sentence", [
    pytest.param("The soup was [MASK] .", id="one"),
    pytest.param("[MASK] films, [MASK].", id="two")])
def test_published(where, kind, sentence, checkpoint, hub):
    """A checkpoint fills gaps as in transformers, tokenizer and all."""
    name = "tiny/bert"
    folder, theirs = (checkpoint(cached(hub, name), kind) if where == "cache"
                      else checkpoint(kind=kind))
    model, tokenizer = bert.published(name if where == "cache" else str(folder))
    found = bert.fill(model, tokenizer, sentence)
    expected = best_words(theirs, folder, sentence)
    assert len(found) == len(expected) == sentence.count("[MASK]")
    for ours, reference_words in zip(found, expected):
        assert [word for word, _ in ours] == [word for word, _ in reference_words]
        torch.testing.assert_close(torch.tensor([p for _, p in ours]),
                                   torch.tensor([p for _, p in reference_words]))


@pytest.mark.parametrize("lowercase, word", [(True, "paris"), (False, "Paris")])
def test_case(lowercase, word, checkpoint):
    """As tokenizer_config.json says."""
    folder, _ = checkpoint(lowercase=lowercase)
    _, tokenizer = bert.published(str(folder))
    assert tokenizer.encode("Paris").tokens == ["[CLS]", word, "[SEP]"]


def test_old_names(checkpoint):
    """bert-base-uncased has its norms' weights as gamma and beta."""
    folder, theirs = checkpoint()
    file = folder / "model.safetensors"
    states = {key.replace("LayerNorm.weight", "LayerNorm.gamma")
              .replace("LayerNorm.bias", "LayerNorm.beta"): value
              for key, value in load_file(file).items()}
    states["bert.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(states, file)
    model, tokenizer = bert.published(str(folder))
    expected = best_words(theirs, folder, "the soup was [MASK]")
    assert bert.fill(model, tokenizer, "the soup was [MASK]")[0][0] == pytest.approx(
        expected[0][0])


@pytest.fixture
def complete(script, tmp_path):
    """Let the module fill a sentence's gaps by weights; the message it ends with."""
    return lambda weights, sentence="the soup was [MASK] .": script(
        "bert", "--weights", weights, "--text", sentence, "--out", tmp_path / "out")


def test_script(complete, checkpoint, capsys):
    """It prints the five best words with their probabilities."""
    folder, theirs = checkpoint()
    assert not complete(folder)
    printed = capsys.readouterr().out
    for word, probability in best_words(theirs, folder, "the soup was [MASK] .")[0]:
        assert f"{probability:6.1%}  {word}\n" in printed


def fails(complete, name, *words, **options):
    """The script ends with one line that has these words."""
    message = complete(name, **options)
    assert isinstance(message, str) and "\n" not in message, message
    for word in words:
        assert str(word) in message, message


@pytest.mark.parametrize("file", ["config.json", "vocab.txt", "model.safetensors"])
def test_missing_file(file, complete, checkpoint):
    folder, _ = checkpoint()
    (folder / file).unlink()
    fails(complete, folder, folder / file, "missing")


@pytest.mark.parametrize("file, content", [
    ("config.json", b"{"), ("config.json", b"[1]"),
    ("config.json", b'{"hidden_size": "wide"}'), ("model.safetensors", b""),
    ("model.safetensors", b"<html>"), ("vocab.txt", b"\xff\xfe\x00"),
    ("tokenizer_config.json", b"no")])
def test_corrupt_file(file, content, complete, checkpoint):
    folder, _ = checkpoint()
    (folder / file).write_bytes(content)
    fails(complete, folder, folder / file, "corrupt")


def test_truncated_weights(complete, checkpoint):
    folder, _ = checkpoint()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    fails(complete, folder, file, "corrupt")


@pytest.mark.parametrize("change, words", [
    ({"hidden_size": 32}, ["word_embeddings.weight is (21, 24)", "(21, 32)"]),
    ({"num_hidden_layers": 4}, ["has no bert.encoder.layer.3", "others"]),
    ({"vocab_size": 20}, ["(21, 24)", "(20, 24)"]),
    ({"model_type": "distilbert"}, ["not BERT's", "distilbert"]),
    ({"hidden_act": "relu"}, ["not BERT's", "relu"])])
def test_another_shape(change, words, complete, checkpoint):
    folder, _ = checkpoint()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    fails(complete, folder, folder, *words)


def test_no_head(complete, checkpoint):
    """A BertModel has read, but does not say which word is missing."""
    folder, _ = checkpoint(kind="Model")
    fails(complete, folder, "has no bert.embeddings")


def test_more_words_than_places(complete, checkpoint):
    folder, _ = checkpoint()
    with open(folder / "vocab.txt", "a") as file:
        file.write("more\nwords\n")
    fails(complete, folder, folder / "vocab.txt", len(WORDS) + 2, len(WORDS))


def test_no_network(complete, hub):
    fails(complete, "nobody/nothing", "nobody/nothing", "cache", "cannot be fetched")


def test_part_of_a_download(complete, hub, checkpoint):
    folder, _ = checkpoint(cached(hub, "tiny/bert"))
    (folder / "model.safetensors").unlink()
    fails(complete, "tiny/bert", "tiny/bert", "cannot be fetched")


def test_bad_name(complete, hub):
    fails(complete, "no such/na me", "no such/na me", "cannot be fetched")


def test_no_gap(complete, checkpoint):
    fails(complete, checkpoint()[0], "no [MASK]", "the soup", sentence="the soup")


def test_too_long(complete, checkpoint):
    """16 positions: [CLS] and [SEP] leave 14."""
    folder, _ = checkpoint()
    assert not complete(folder, sentence="soup " * 13 + "[MASK]")
    fails(complete, folder, "17 pieces", "16", sentence="soup " * 14 + "[MASK]")


def test_a_vocabulary_without_words_is_refused():
    with pytest.raises(UserError, match="occurs 3 times: choose a smaller --at-least"):
        text.whole_words(["the soup was cold .", "the film was new ."], 3, 16)


def test_fill_needs_no_labels():
    """Each [MASK] is filled by itself, best word first, probabilities below one."""
    tokenizer = text.whole_words(["the soup was cold .", "the film was new ."], 1, 16)
    config = bert.BertConfig(**SMALL | {"vocab_size": tokenizer.get_vocab_size()})
    model = bert.BertForPreTraining(config)
    first, second = bert.fill(model, tokenizer, "the [MASK] was [MASK] .", best=3)
    for words in (first, second):
        probabilities = [p for _, p in words]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len(words) == 3 and 0 < sum(probabilities) < 1
    with pytest.raises(UserError, match="no \\[MASK\\]"):
        bert.fill(model, tokenizer, "the soup")


def test_a_batch_is_as_wide_as_its_longest_review():
    reviews = [("good soup .", 1), ("bad soup and not good wine .", 0)]
    tokenizer = text.whole_words([review for review, _ in reviews], 1, max_length=64)
    samples = text.Labelled(reviews, tokenizer)
    short, _ = samples[torch.tensor([0])]
    both, labels = samples[torch.tensor([1, 0])]
    assert short["attention_mask"].all() and labels.tolist() == [0, 1]
    width = short["input_ids"].shape[1]
    assert torch.equal(both["input_ids"][1, :width], short["input_ids"][0])
    assert both["attention_mask"].sum(1).tolist() == [both["input_ids"].shape[1], width]
