"""Data sets of text: sentences with their translations, or with an opinion's label.

Each is (training, validation, test). Embedded ones are made here; real ones are read
from $LAB_DATA or --data-dir, as in lab.data.
"""

import gzip
import random
import re
import zlib
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.request import urlretrieve

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from lab import UserError, files, runs, training

SOURCE = "https://raw.githubusercontent.com"

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]  # the first tokens of a vocabulary
PAD, BOS, EOS, UNKNOWN = range(4)
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # 0..4 in whole_words


class Texts(list):
    """Samples (text, translation) or (text, label); classes: the labels' names."""

    def __init__(self, samples, name, classes=None):
        super().__init__(samples)
        self.name, self.classes = name, classes

    def first(self, n):
        """The first n samples."""
        return Texts(self[:n], self.name, self.classes)


def load(args):
    """Training, validation and test set of args.data, as Texts.

    --quick leaves 64, 32 and 32 samples. Raises UserError if the set is not here and
    cannot be fetched, or is corrupt.
    """
    if args.data in REAL:
        parts = REAL[args.data](args.data_dir)
    else:
        parts = EMBEDDED[args.data]()
    if args.quick:
        parts = [part.first(n) for part, n in zip(parts, (64, 32, 32))]
    names = ["train", "validation", "test"]
    runs.note_samples(**{name: len(part) for name, part in zip(names, parts)})
    return parts


MORPHEME = re.compile("null|hundert|tausend|und|zwanzig|dreißig|"
                      "(?:vier|fünf|sech|sieb|acht|neun)zig|zehn|elf|zwölf|eins?|"
                      "zwei|drei|vier|fünf|sechs?|sieb(?:en)?|acht|neun")


@cache
def numbers():
    """0 to 9,999 in English words and in German morphemes, both by num2words.

    ("two hundred and twenty three", "zwei hundert drei und zwanzig"): without the
    spaces the German is one word, as it is written. 8,000 numbers at random are for
    training, 500 for validation, 1,500 for testing.
    """
    from num2words import num2words
    pairs = []
    for n in range(10_000):
        english = num2words(n).replace(",", "").replace("-", " ")
        german = num2words(n, lang="de")
        pairs.append((english, " ".join(MORPHEME.findall(german))))
    random.Random(0).shuffle(pairs)
    return [Texts(part, "numbers")
            for part in (pairs[:8000], pairs[8000:8500], pairs[8500:])]


# What a hotel is judged by, and adjectives that praise and that damn, the most frequent
# first: the n-th comes 1/n times as often as the first, as words do.
ASPECTS = ("room service soup wine menu breakfast staff view pool chef bar "
           "garden").split()
PRAISE = "good great lovely fresh warm perfect charming superb".split()
BLAME = "bad poor dull cold bland awful ugly stale".split()
FREQUENCIES = [1 / rank for rank in range(1, 9)]


@cache
def reviews(n_train=4000, n_validation=500, n_test=1000, seed=0):
    """Opinions from a small grammar with negation and concession, endlessly many.

    ("fresh soup and hardly bad wine . poor menu but great chef .", 1): two sentences
    of one opinion on a hotel; what stands before "but" is of the other. Half of the
    opinions are good (1). No review is in two parts.
    """
    generator, found = random.Random(seed), {}
    while len(found) < n_train + n_validation + n_test:
        label = generator.randrange(2)
        aspects = generator.sample(ASPECTS, 4)
        first, second = (_sentence(aspects[i:i + 2], label, generator)
                         for i in (0, 2))
        found[f"{first} . {second} ."] = label
    samples = list(found.items())
    ends = n_train, n_train + n_validation, n_train + n_validation + n_test
    return [Texts(samples[start:end], "reviews", ["bad", "good"])
            for start, end in zip((0, *ends), ends)]


def multi30k(data_dir):
    """Multi30K, task 1: 29,000 + 1,014 + 1,000 captions in English and German.

    The test set is test_2016_flickr.
    """
    place = _place("multi30k", data_dir)
    return [parallel(place / f"multi30k/{part}.en.gz", place / f"multi30k/{part}.de.gz",
                     "multi30k") for part in ("train", "val", "test_2016_flickr")]


def sst2(data_dir):
    """SST-2, 6,920 + 872 + 1,821 sentences of film reviews, good (1) or bad (0)."""
    place = _place("sst2", data_dir)
    parts = []
    for part in ("train", "dev", "test"):
        path, samples = place / f"sst2/{part}.tsv", []
        for number, line in enumerate(read_lines(path), start=1):
            text, _, label = line.rpartition("\t")
            if label not in ("0", "1"):
                raise UserError(f"{path}:{number}: no label 0 or 1 after a tab")
            samples.append((text, int(label)))
        parts.append(Texts(samples, "sst2", ["bad", "good"]))
    return parts


def mr(data_dir):
    """MR, 10,662 sentences of film reviews: 8 tenths, 1 tenth, 1 tenth at random.

    No split is official; Kim 2014 cross-validates over ten.
    """
    place = _place("mr", data_dir)
    samples = [(line, label) for label, part in enumerate(["neg", "pos"])
               for line in read_lines(place / f"rt-polarity/rt-polarity.{part}",
                                      encoding="latin-1")]
    random.Random(0).shuffle(samples)
    tenth = len(samples) // 10
    return [Texts(part, "mr", ["bad", "good"]) for part in (
        samples[:-2 * tenth], samples[-2 * tenth:-tenth], samples[-tenth:])]


EMBEDDED = {"numbers": numbers, "reviews": reviews}
REAL = {"multi30k": multi30k, "sst2": sst2, "mr": mr}


def vocabulary(sentences, size=None):
    """Train a tokenizer: SPECIAL and the words of these sentences.

    With a size it has `size` tokens instead, bytes and their most frequent pairs
    (Sennrich et al. 2016), and can encode any word. encode(text).ids and decode(ids)
    turn a sentence into numbers and back.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    if size:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=SPECIAL, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL[UNKNOWN]))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


def bert_tokenizer(words, lowercase=True):
    """BERT's tokenizer: of a text, or a pair, [CLS] text [SEP] second text [SEP].

    words: a model of the tokenizers library, such as WordPiece. A batch is padded to
    its longest.
    """
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    tokenizer = Tokenizer(words)
    tokenizer.add_special_tokens(BERT_SPECIAL)
    ids = {word: tokenizer.token_to_id(word) for word in BERT_SPECIAL}
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.enable_padding(pad_id=ids["[PAD]"], pad_token="[PAD]")
    return tokenizer


def whole_words(texts, at_least, max_length):
    """A tokenizer for the words that occur in texts at least `at_least` times.

    Raises UserError if there are none.
    """
    from tokenizers import models, trainers
    tokenizer = bert_tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(
        min_frequency=at_least, special_tokens=BERT_SPECIAL, show_progress=False))
    if tokenizer.get_vocab_size() == len(BERT_SPECIAL):
        raise UserError(f"no word of the training set occurs {at_least} times: choose "
                        "a smaller --at-least")
    tokenizer.enable_truncation(max_length)
    return tokenizer


def encode(tokenizer, texts):
    """Texts, or pairs of texts, as BERT's inputs, {name: (B, T)}."""
    encoded = tokenizer.encode_batch_fast(texts)
    return {"input_ids": torch.tensor([each.ids for each in encoded]),
            "attention_mask": torch.tensor([each.attention_mask for each in encoded]),
            "token_type_ids": torch.tensor([each.type_ids for each in encoded])}


def halves(review):
    """Divide a review after its first sentence, or its only one in the middle."""
    first, _, rest = review.partition(" . ")
    if rest:
        return f"{first} .", rest
    words = review.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def word_pieces(folder):
    """BERT's tokenizer of a published checkpoint; UserError if a file is corrupt."""
    from tokenizers import models

    from lab.weights import read_json, readable
    options, lowercase = folder / "tokenizer_config.json", True
    if options.exists():
        lowercase = readable(options, read_json).get("do_lower_case", True)
    return bert_tokenizer(readable(
        folder / "vocab.txt",
        lambda path: models.WordPiece.from_file(str(path), unk_token="[UNK]")),
        lowercase)


def translate(model, tokenizer, sentences, search, batch=100):
    """Translate a list of sentences: the translations, in its order.

    search(model, source (B, S), limit=…) -> tokens (B, T), as beam_search.py has it; a
    translation has at most 50 tokens more than its source (Vaswani et al. 2017, 6.1).
    """
    device = next(model.parameters()).device
    sources = [torch.tensor(encoded.ids + [EOS], device=device)
               for encoded in tokenizer.encode_batch(sentences)]
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    written, was_training = {}, model.training
    model.eval()
    for start in range(0, len(order), batch):
        chosen = order[start:start + batch]
        source = pad_sequence([sources[i] for i in chosen], batch_first=True,
                              padding_value=PAD)
        tokens = search(model, source, limit=source.shape[1] + 50)
        written |= zip(chosen, tokenizer.decode_batch(tokens.tolist()))
    model.train(was_training)
    return [written[i].strip() for i in range(len(sentences))]


def known_tokens(tokenizer, sentence):
    """The tokens of a sentence and EOS; UserError if it has a word that is unknown."""
    tokens = tokenizer.encode(sentence).ids + [EOS]
    if UNKNOWN in tokens:
        known = tokenizer.get_vocab()
        word = next(word for word in sentence.split() if word not in known)
        raise UserError(f"{word!r} is not in the vocabulary")
    return tokens


def quality(model, tokenizer, pairs, metric, search):
    """{"exact_match": 0..1}, or what bleu() returns, of a model's translations.

    The model sees no token of the correct translation. search: as for translate().
    """
    sources, targets = map(list, zip(*pairs))
    written = translate(model, tokenizer, sources, search)
    if metric == "bleu":
        return bleu(written, targets)
    matches = sum(a == b for a, b in zip(written, targets))
    return {"exact_match": matches / len(pairs)}


def bleu(written, targets):
    """{"bleu": 0..100, "signature": how sacrebleu computed it} of translations."""
    from sacrebleu.metrics import BLEU
    metric = BLEU()
    score = metric.corpus_score(written, [targets]).score
    return {"bleu": score, "signature": str(metric.get_signature())}


def most_without_order(pairs, test):
    """The share of `test` that is correct at best if the order of words is lost.

    Of the sources with the same words in any order only one can be correct.
    """
    alike = Counter(" ".join(sorted(source.split())) for source, _ in pairs)
    return sum(1 / alike[" ".join(sorted(source.split()))]
               for source, _ in test) / len(test)


class SentencePairs(Dataset):
    """Pairs of text without a label: does the second follow the first, or not (1)?"""

    def __init__(self, texts, tokenizer):
        self.pairs = [halves(text) for text, _ in texts]
        self.tokenizer = tokenizer

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, indices):
        is_random = torch.rand(len(indices)) < 0.5
        anywhere = torch.randint(len(self), (len(indices),))
        follows = torch.where(is_random, anywhere, indices)
        pairs = [(self.pairs[first][0], self.pairs[second][1])
                 for first, second in zip(indices, follows)]
        return encode(self.tokenizer, pairs), is_random.long()


class Labelled(Dataset):
    """Reviews with their label, as the two texts that they were in pre-training."""

    def __init__(self, samples, tokenizer):
        reviews, labels = zip(*samples)
        self.inputs = encode(tokenizer, [halves(review) for review in reviews])
        self.labels = torch.tensor(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, indices):
        longest = self.inputs["attention_mask"][indices].sum(1).max()
        inputs = {key: value[indices, :longest] for key, value in self.inputs.items()}
        return inputs, self.labels[indices]


def most_frequent(texts, tokenizer):
    """The accuracy of always predicting the most frequent token, 0..1."""
    ids = encode(tokenizer, [review for review, _ in texts])["input_ids"]
    return ids[ids >= len(BERT_SPECIAL)].bincount().max().item() / (
        ids >= len(BERT_SPECIAL)).sum().item()


class Translations(Dataset):
    """Pairs of sentences as tokens: [indices] gives source (B, S) and target (B, T).

    A sentence ends with EOS, a target also begins with BOS, and PAD fills up a batch.
    Pairs of which one has more than `longest` tokens are left out, and counted on
    stderr.
    """

    def __init__(self, pairs, tokenizer, longest):
        sides = [[torch.tensor(begin + tokens.ids + [EOS]) for tokens in
                  tokenizer.encode_batch(list(side))]
                 for begin, side in zip(([], [BOS]), zip(*pairs))]
        self.pairs = [pair for pair in zip(*sides) if max(map(len, pair)) <= longest]
        if len(self.pairs) < len(pairs):
            files.say_once(f"{pairs.name}: left out {len(pairs) - len(self.pairs):,} "
                           f"pairs of more than {longest:,} tokens")
        if not self.pairs:
            raise UserError(f"no pair of {pairs.name} has at most {longest:,} tokens a "
                            "side: allow more")

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, indices):
        return [pad_sequence(side, batch_first=True, padding_value=PAD)
                for side in zip(*(self.pairs[i] for i in indices))]

    def loader(self, tokens):
        """Batches of about equal length, at most `tokens` tokens on either side."""
        lengths = [max(map(len, pair)) for pair in self.pairs]
        return DataLoader(self, sampler=TokenBatches(lengths, tokens), batch_size=None)


class TokenBatches:
    """Lists of indices for one epoch: sentences of about equal length together.

    What is in a batch, and their order, depends on set_epoch's number only; how many
    there are on nothing. A batch has at most `tokens` tokens, PAD counted, or one
    sentence. Under torchrun each process gets its share of every batch.
    """

    def __init__(self, lengths, tokens):
        self.lengths, self.epoch = torch.tensor(lengths), 0
        rank, world = training.processes()
        self.starts = starts = [0]
        for i, length in enumerate(self.lengths.sort().values.tolist()):
            if (i + 1 - starts[-1]) * length > tokens and i > starts[-1]:
                starts.append(i)
        self.ends = [*starts[1:], len(lengths)]
        self.share = slice(rank, None, world)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.starts)

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator)
        order = shuffled[self.lengths[shuffled].sort(stable=True).indices]
        for batch in torch.randperm(len(self), generator=generator).tolist():
            indices = order[self.starts[batch]:self.ends[batch]].tolist()
            yield indices[self.share] or indices


# Where each real set comes from, and {file here: (file there, SHA-256)}.
FILES = {
    "multi30k": (
        "multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/", {
            "multi30k/train.en.gz": ("train.en.gz", "d79cfa999dd4c51d2cb42499b6796d5a"
                                     "882c3a8a961923c25a898c90f8bbd56f"),
            "multi30k/train.de.gz": ("train.de.gz", "726e39b2fa9eb9ffb6dc763fb35a179f"
                                     "80fae06ffc5d28b6ace5faa883de28a6"),
            "multi30k/val.en.gz": ("val.en.gz", "14f7d25ddd868909a9213e361768460e"
                                   "dcacdd6ab9d1e77b92560dc10c10dc28"),
            "multi30k/val.de.gz": ("val.de.gz", "f0cba2f995189cf5770f29a8a9a537a3"
                                   "ad3f51657ad873405082ff6863a5e75a"),
            "multi30k/test_2016_flickr.en.gz": (
                "test_2016_flickr.en.gz", "611d361c6334bc7246101d48097c13cf"
                "5c4413c5befc793cc629934359d532d9"),
            "multi30k/test_2016_flickr.de.gz": (
                "test_2016_flickr.de.gz", "9204244e408ccb38d2a55cfcd344df15"
                "005fc42a07a6e55ca6c52b6ababb8cc8"),
        }),
    "sst2": (
        "clairett/pytorch-sentiment-classification/"
        "457ffd83de90a9d6d472d8ffc31bbffe40a8b236/data/SST2/", {
            "sst2/train.tsv": ("train.tsv", "ec192f833a64da08f475488a77b0d0b4"
                               "7db47acd0f458bd18433fc793b569920"),
            "sst2/dev.tsv": ("dev.tsv", "eddea6b39e601dd4e7a672b53cc40fdf"
                             "6019fa80522f351206c24340ca5d9359"),
            "sst2/test.tsv": ("test.tsv", "831169c7e2e429d6026e1bdbb542f33b"
                              "636e3e596caad9602ebc953c205928b7"),
        }),
    "mr": (
        "yoonkim/CNN_sentence/23e0e1f7355705bb083043fda05c031b15acb38c/", {
            "rt-polarity/rt-polarity.neg": (
                "rt-polarity.neg", "4ace77d558c3714723843f1d65b60c01"
                "e3417b208180f0728808d76ad0eeeaca"),
            "rt-polarity/rt-polarity.pos": (
                "rt-polarity.pos", "2da124ec187a9d5a29c9f04e91c540e0"
                "2baed5af8868f550a26bd6fd4dbf8bf0"),
        }),
}


def parallel(source, target, name):
    """Texts of two files, line by line a sentence and its translation, maybe packed.

    Pairs with an empty line are left out, and counted on stderr. Raises UserError if
    a file is not UTF-8, or has more lines than the other.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise UserError(f"{source} has {len(sources):,} lines and {target} "
                        f"{len(targets):,}: line by line they must be translations")
    pairs = [(a, b) for a, b in zip(sources, targets) if a.strip() and b.strip()]
    if len(pairs) < len(sources):
        files.say_once(f"{name}: left out {len(sources) - len(pairs):,} pairs of "
                       f"{source} with an empty line")
    return Texts(pairs, name)


def read_lines(path, encoding="utf-8"):
    """The lines of a text file, which may be packed by gzip."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            lines[number - 1] = line.decode(encoding).strip()
        except UnicodeDecodeError:
            raise UserError(
                f"{path}:{number}: this line is not {encoding.upper()}") from None
    return lines[:-1] if lines[-1] == "" else lines


def _sentence(aspects, label, generator):
    """Two clauses; the second has the opinion `label`, with "and" the first, too."""
    joint = generator.choices(["and", "but"], [3, 1])[0]
    opinions = [label if joint == "and" else 1 - label, label]
    return f" {joint} ".join(_clause(aspect, opinion, generator)
                             for aspect, opinion in zip(aspects, opinions))


def _clause(aspect, opinion, generator):
    """An opinion, 1 good or 0 bad, on an aspect; a seventh denies its opposite."""
    negation = ""
    if generator.random() < 1 / 7:
        negation, opinion = generator.choice(["not ", "never ", "hardly "]), 1 - opinion
    word, = generator.choices(PRAISE if opinion else BLAME, FREQUENCIES)
    return f"{negation}{word} {aspect}"


def _place(name, data_dir):
    """The folder of a real set, its files as their authors published them."""
    folder, parts = FILES[name]

    def download(place):
        for file, (there, _) in parts.items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            urlretrieve(f"{SOURCE}/{folder}{there}", place / file)

    place = files.first(data_dir, list(parts)) or files.fetch(
        download, name, data_dir, [Path(file) for file in parts])
    for file, (_, digest) in parts.items():
        files.verify(place / file, digest, "sha256")
    return place
