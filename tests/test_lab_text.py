"""lab.text: every data set of sentences, its vocabularies and its batches."""

import gzip
import hashlib
import random
import re
from types import SimpleNamespace

import pytest
import torch

from beam_search import greedy
from conftest import REAL_DATA, listing, one_line, real
from lab import UserError, runs, text, training
from test_transformer import tiny

ENGLISH = ["a man .", "two dogs run .", "a child .", "three women ."]
GERMAN = ["ein Mann .", "zwei Hunde rennen .", "ein Kind .", "drei Frauen ."]


@pytest.fixture(autouse=True)
def run(monkeypatch):
    monkeypatch.setattr(runs, "_current", SimpleNamespace(
        command="python code/toy.py --data multi30k"))
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr(text, "SOURCE", "http://127.0.0.1:9")


def content(file):
    """What stands in for a file of a real data set."""
    if file.startswith("multi30k"):
        lines = GERMAN if ".de" in file else ENGLISH
        return gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)
    if file.endswith(".tsv"):
        return "a fine film\t1\na dull caf\u00e9\t0\n".encode()
    sentence = "na\xefve , but fine" if file.endswith("pos") else "so dull \x96 so long"
    return "".join(f"{sentence} {i}\n" for i in range(30)).encode("latin-1")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A folder with small files for each real set, which have the correct digests."""
    folder, known = tmp_path / "lab_data", {}
    for name, (source, parts) in text.FILES.items():
        for file in parts:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(file))
        known[name] = source, {
            file: (there, hashlib.sha256((folder / file).read_bytes()).hexdigest())
            for file, (there, _) in parts.items()}
    monkeypatch.setattr(text, "FILES", known)
    return folder


@pytest.fixture
def repositories(web, monkeypatch):
    """The folder of a web server that stands for the sets' repositories."""
    folder, address = web
    monkeypatch.setattr(text, "SOURCE", address.rstrip("/"))
    return folder


# Embedded


def test_numbers_are_num2words_split():
    from num2words import num2words
    parts = text.numbers()
    assert [len(part) for part in parts] == [8000, 500, 1500]
    found = {english: german for part in parts for english, german in part}
    assert len(found) == 10_000
    assert found["four hundred and twenty three"] == "vier hundert drei und zwanzig"
    assert found["zero"] == "null" and found["one"] == "eins"
    assert found["seventeen"] == "sieb zehn" and found["thirty"] == "dreißig"
    for n in range(10_000):   # no letter is lost between the morphemes
        english = re.sub("[,-]", " ", num2words(n)).replace("  ", " ")
        assert found[english].replace(" ", "") == num2words(n, lang="de")


def test_numbers_are_few_words():
    train, _, test = text.numbers()
    for k, most in (0, 35), (1, 35):
        known = {word for pair in train for word in pair[k].split()}
        assert len(known) < most
        assert {word for pair in test for word in pair[k].split()} <= known


def opinion(review):
    """What the grammar says that a review's label is, read from its last clause."""
    labels = set()
    for sentence in review.split(" . "):
        clause = re.split(" and | but ", sentence)[-1].split()
        word = next(word for word in clause if word in text.PRAISE + text.BLAME)
        negated = bool({"not", "never", "hardly"} & set(clause))
        labels.add(int((word in text.PRAISE) != negated))
    label, = labels
    return label


def test_reviews_have_the_opinion_of_their_last_clauses():
    parts = text.reviews()
    assert [len(part) for part in parts] == [4000, 500, 1000]
    assert parts[0].classes == ["bad", "good"]
    reviews = [review for part in parts for review, _ in part]
    assert len(set(reviews)) == 5500
    for part in parts:
        assert all(opinion(review) == label for review, label in part)
        assert 0.45 < sum(label for _, label in part) / len(part) < 0.55
    assert any(" but " in r for r in reviews) and any(" never " in r for r in reviews)


def test_reviews_are_endless_and_the_same_for_a_seed():
    first, again, other = (text.reviews(20, 5, 5, seed) for seed in (0, 0, 1))
    assert first == again and first != other
    assert [len(part) for part in text.reviews(30, 10, 10, seed=2)] == [30, 10, 10]


def test_words_neither_praise_and_blame_nor_repeat():
    assert len({*text.PRAISE, *text.BLAME}) == len(text.PRAISE) + len(text.BLAME)


def test_quick_leaves_a_few_samples_and_the_run_knows():
    parts = text.load(SimpleNamespace(data="numbers", quick=True))
    assert [len(part) for part in parts] == [64, 32, 32] and parts[0].name == "numbers"
    assert runs.current().samples == {"train": 64, "validation": 32, "test": 32}
    parts = text.load(SimpleNamespace(data="reviews", quick=True))
    assert parts[2].classes == ["bad", "good"]


# Real


def test_lab_data_is_read_and_never_written(small, monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_DATA", str(small))
    before = listing(small)
    train, validation, test = text.multi30k(tmp_path / "data")
    assert train == list(zip(ENGLISH, GERMAN)) == validation == test
    assert text.sst2(tmp_path / "data")[0] == [("a fine film", 1), ("a dull café", 0)]
    parts = text.mr(tmp_path / "data")
    assert [len(part) for part in parts] == [48, 6, 6]
    assert {label for _, label in parts[0]} == {0, 1}
    assert all(sentence.startswith("naïve" if label else "so dull")
               for part in parts for sentence, label in part)
    assert listing(small) == before and not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["multi30k", "sst2", "mr"])
def test_sets_are_downloaded(small, repositories, tmp_path, name):
    source, parts = text.FILES[name]
    for file, (there, _) in parts.items():
        (repositories / source).mkdir(parents=True, exist_ok=True)
        (small / file).rename(repositories / source / there)
    parts = getattr(text, name)(tmp_path / "data")
    assert len(parts) == 3 and all(parts)
    assert not list((tmp_path / "data").glob(".fetching*"))
    for file in repositories.rglob("*.*"):
        file.unlink()
    assert getattr(text, name)(tmp_path / "data") == parts


def test_a_download_that_was_altered_is_named(small, repositories, tmp_path):
    source, parts = text.FILES["sst2"]
    (repositories / source).mkdir(parents=True)
    for there, _ in parts.values():
        (repositories / source / there).write_bytes(b"<html>log in</html>")
    with pytest.raises(UserError) as error:
        text.sst2(tmp_path / "data")
    one_line(error, str(tmp_path / "data/sst2/train.tsv"), "corrupt", "SHA256")


@pytest.mark.parametrize("name, file", [
    ("multi30k", "multi30k/val.de.gz"), ("sst2", "sst2/dev.tsv"),
    ("mr", "rt-polarity/rt-polarity.neg")])
def test_a_damaged_file_is_named(small, name, file):
    path = small / file
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError) as error:
        getattr(text, name)(small)
    one_line(error, str(path), "corrupt", "SHA256")


def test_without_data_and_network_one_line_says_where_it_looked(
        small, monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_DATA", str(small))
    (small / "multi30k/train.de.gz").unlink()
    with pytest.raises(UserError) as error:
        text.multi30k(tmp_path / "data")
    one_line(error, "multi30k", str(small), "no train.de.gz", str(tmp_path / "data"),
             "with a network: python code/toy.py --data multi30k")
    assert not list((tmp_path / "data").iterdir())


def test_a_label_that_is_none_is_named(small, monkeypatch):
    path, (source, parts) = small / "sst2/dev.tsv", text.FILES["sst2"]
    path.write_text("fine\t1\nno label\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(text.FILES, "sst2", (
        source, parts | {"sst2/dev.tsv": ("dev.tsv", digest)}))
    with pytest.raises(UserError) as error:
        text.sst2(small)
    one_line(error, f"{path}:2: no label 0 or 1")


# Files of sentences


@pytest.fixture
def files(tmp_path):
    """Write two files of parallel sentences; returns their paths."""
    def write(source, target):
        paths = tmp_path / "a.en", tmp_path / "a.de"
        for path, lines in zip(paths, (source, target)):
            path.write_bytes(lines if isinstance(lines, bytes) else lines.encode())
        return paths
    return write


def test_parallel_files(files, capsys):
    pairs = text.parallel(*files("one\r\ntwo \n", "eins\nzwei"), "toy")
    assert pairs == [("one", "eins"), ("two", "zwei")] and pairs.name == "toy"
    assert capsys.readouterr().err == ""


def test_line_separators_of_unicode_end_no_line(files):
    source = "one\u2028still one\x0b\x1ctoo\ntwo\n"
    assert len(text.parallel(*files(source, "eins\nzwei\n"), "toy")) == 2


def test_unequal_files_are_named(files):
    paths = files("one\ntwo\n", "eins\n")
    with pytest.raises(UserError) as error:
        text.parallel(*paths, "toy")
    one_line(error, f"{paths[0]} has 2 lines", f"{paths[1]} 1:")


def test_empty_lines_are_left_out_and_counted(files, capsys):
    paths = files("one\n\nthree\nfour\n", "eins\nzwei\n \nvier\n")
    pairs = text.parallel(*paths, "toy")
    assert pairs == [("one", "eins"), ("four", "vier")]
    said, = capsys.readouterr().err.splitlines()
    assert said.startswith("toy: left out 2 pairs of ")


def test_a_line_that_is_not_utf8_is_named(files):
    paths = files("one\ntwo\n", "eins\nzw\xf6lf\n".encode("latin-1"))
    with pytest.raises(UserError) as error:
        text.parallel(*paths, "toy")
    assert str(error.value) == f"{paths[1]}:2: this line is not UTF-8"


@pytest.mark.parametrize("damage", [
    lambda packed: packed[:-9], lambda packed: b"no gzip at all",
    lambda packed: packed[:10] + b"\xff" * 5 + packed[15:],
    lambda packed: packed[:-8] + b"????" + packed[-4:]],
    ids=["short", "unpacked", "altered", "checksum"])
def test_a_damaged_packed_file_cannot_be_read(tmp_path, damage):
    path = tmp_path / "a.en.gz"
    path.write_bytes(damage(gzip.compress(b"one\ntwo and more\n" * 9)))
    with pytest.raises(UserError) as error:
        text.read_lines(path)
    one_line(error, f"{path} cannot be read")


# Vocabularies


def test_a_vocabulary_of_words():
    words = text.vocabulary(ENGLISH)
    assert words.encode("two man .").ids != words.encode("man two .").ids
    assert words.decode(words.encode("two  man .").ids) == "two man ."
    assert words.encode("two cats").ids[1] == text.UNKNOWN
    assert words.get_vocab_size() == len(set(" ".join(ENGLISH).split())) + 4
    assert [words.id_to_token(i) for i in range(4)] == text.SPECIAL


def test_a_vocabulary_of_byte_pairs_knows_every_word():
    tokenizer = text.vocabulary(GERMAN * 20, size=300)
    assert tokenizer.get_vocab_size() <= 300
    for sentence in [*GERMAN, "Ærøskøbing, 數 🙂"]:
        ids = tokenizer.encode(sentence).ids
        assert text.UNKNOWN not in ids
        assert tokenizer.decode([text.BOS, *ids, text.EOS]).strip() == sentence
    assert len(tokenizer.encode(GERMAN[1]).ids) < len(GERMAN[1]) / 2
    again = text.vocabulary(GERMAN * 20, size=300)
    assert again.to_str() == tokenizer.to_str()


# Batches


@pytest.fixture
def translations():
    generator = random.Random(0)
    pairs = text.Texts([(" ".join("a" * generator.randint(1, 9)),
                         " ".join("b" * generator.randint(1, 9)))
                        for _ in range(200)], "toy")
    return text.Translations(pairs, text.vocabulary(["a b"]), longest=20)


def test_sentences_end_and_targets_begin(translations):
    source, target = translations[[0, 1, 2]]
    for rows, pairs in (source, 0), (target, 1):
        for row, pair in zip(rows, translations.pairs):
            assert torch.equal(row[row != text.PAD], pair[pairs])
            assert row[row != text.PAD][-1] == text.EOS
    assert (target[:, 0] == text.BOS).all() and not (source == text.BOS).any()


def test_long_pairs_are_left_out_and_counted(capsys):
    pairs = text.Texts([("a", "b"), ("a a a", "b"), ("a", "b b")], "toy")
    found = text.Translations(pairs, text.vocabulary(["a b"]), longest=3)
    assert len(found) == 1
    assert capsys.readouterr().err == (
        "toy: left out 2 pairs of more than 3 tokens\n")


def test_batches_have_about_equal_tokens_and_each_pair_once(translations):
    sampler = translations.loader(60).sampler
    batches = list(sampler)
    assert sorted(sum(batches, [])) == list(range(200)) and len(batches) == len(sampler)
    for batch in batches:
        lengths = [sampler.lengths[i] for i in batch]
        assert len(batch) * max(lengths) <= 60 and max(lengths) - min(lengths) <= 3
    assert sum(len(b) * max(sampler.lengths[i] for i in b) > 40 for b in batches) > (
        0.8 * len(batches))


def test_batches_depend_on_the_epoch_only(translations):
    first, second = (translations.loader(60).sampler for _ in range(2))
    epochs = []
    for epoch in (3, 4):
        first.set_epoch(epoch), second.set_epoch(epoch)
        epochs.append(list(first))
        assert list(second) == epochs[-1]
    assert epochs[0] != epochs[1] and len(epochs[0]) == len(epochs[1])
    assert set(map(frozenset, epochs[0])) != set(map(frozenset, epochs[1]))


def test_a_sentence_longer_than_a_batch_is_one(translations):
    batches = list(translations.loader(4).sampler)
    assert sorted(sum(batches, [])) == list(range(200))


def test_processes_share_every_batch(translations, monkeypatch):
    whole = list(translations.loader(60).sampler)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(training, "processes", lambda: (rank, 2))
        shares.append(list(translations.loader(60).sampler))
    for batch, *parts in zip(whole, *shares):
        assert all(parts) and set(sum(parts, [])) == set(batch)
        assert abs(len(parts[0]) - len(parts[1])) <= 1


# What is really there


@real
@pytest.mark.parametrize("name, counts, positive", [
    ("multi30k", [29_000, 1014, 1000], None), ("sst2", [6920, 872, 1821], 3610),
    ("mr", [8530, 1066, 1066], None)])
def test_real_data(name, counts, positive, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LAB_DATA", str(REAL_DATA))
    before = listing(REAL_DATA)
    parts = text.load(SimpleNamespace(data=name, data_dir=tmp_path, quick=False))
    assert [len(part) for part in parts] == counts
    assert capsys.readouterr().err == "" and listing(REAL_DATA) == before
    if positive:
        assert sum(label for _, label in parts[0]) == positive
    if name == "multi30k":
        assert all(isinstance(b, str) for _, b in parts[0])
    else:
        assert 0.45 < sum(label for _, label in parts[0]) / counts[0] < 0.55


# Translations


@pytest.fixture(scope="module")
def words():
    return text.vocabulary(["one two three four five six"])


def test_translate_keeps_the_order(words):
    """Batches of any size, the shortest sentences first, give the same."""
    torch.manual_seed(0)
    model = tiny(words.get_vocab_size())
    several = ["one two three", "four", "two two", "six five four three", "one"]

    def search(model, source, limit):
        return greedy(model, source, limit=9)

    single = [text.translate(model, words, [sentence], search)[0]
              for sentence in several]
    assert text.translate(model, words, several, search, batch=2) == single
    assert len(set(single)) > 1 and not any("<" in sentence for sentence in single)


def test_quality_counts_exact_translations(words, monkeypatch):
    monkeypatch.setattr(text, "translate", lambda *args: ["a b", "c", "d"])
    pairs = [("1", "a b"), ("2", "c"), ("3", "e")]
    assert text.quality(None, words, pairs, "exact_match", None) == {
        "exact_match": 2 / 3}


def test_quality_is_sacrebleus(words, monkeypatch):
    import sacrebleu
    written = ["a man is on the red ladder .", "two dogs run over a field of grass ."]
    targets = ["a man is on a red ladder .", "two dogs run across a field of grass ."]
    monkeypatch.setattr(text, "translate", lambda *args: written)
    score = text.quality(None, words, list(zip("12", targets)), "bleu", None)
    assert score["bleu"] == sacrebleu.corpus_bleu(written, [targets]).score
    assert "tok:13a" in score["signature"] and "case:mixed" in score["signature"]


def test_most_without_order():
    """One of two sources with the same words, all of those with words of their own."""
    pairs = [("one two", ""), ("two one", ""), ("three", ""), ("one two two", "")]
    assert text.most_without_order(pairs, pairs) == (1 / 2 + 1 / 2 + 1 + 1) / 4
