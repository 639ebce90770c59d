# %% [markdown]
# # BERT
#
# - **Paper**: Jacob Devlin, Ming-Wei Chang, Kenton Lee, Kristina Toutanova. *BERT:
#   Pre-training of Deep Bidirectional Transformers for Language Understanding*.
#   NAACL 2019. [arXiv:1810.04805](https://arxiv.org/abs/1810.04805)
# - **Idea**: let a Transformer's encoder fill gaps in text that nobody had to label,
#   with words from both sides in view; then teach it a task with a few labels.
# - **Demo**: pre-training in miniature, then an opinion's label learned from few
#   examples, against the same network from scratch; filled gaps; attention maps.
# - **Time**: about 30 s on 2 CPU cores; `--data mr` and `--data sst2`: film reviews

# %%
import json
from collections import OrderedDict
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import product
from pathlib import Path

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from attention import scaled_dot_product
from lab import (UserError, cli, figures, measure, parallel, results, text,
                 training)


# %% [markdown]
# ## The encoder

# %%
@dataclass(frozen=True)
class BertConfig:
    """The shape of a BERT, BERT-base by default; names as in config.json."""
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0


BASE = BertConfig()
LARGE = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
                   intermediate_size=4096)


# %%
class BertEmbeddings(nn.Module):
    """What a word is + where it stands + of which text: (B, T) -> (B, T, D)."""

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(
            config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids, token_type_ids=None):
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.word_embeddings(input_ids)
        x = x + self.token_type_embeddings(token_type_ids)
        x = x + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(x))


# %%
class BertSelfAttention(nn.Module):
    """num_attention_heads attentions side by side: (B, T, D) -> (B, T, D).

    mask: broadcastable to (B, H, T, T), True where attention is allowed.
    """

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def project(self, x):
        """Queries, keys and values of all heads, (B, H, T, d) each."""
        return [rearrange(layer(x), "b t (h d) -> b h t d", h=self.num_heads)
                for layer in (self.query, self.key, self.value)]

    def forward(self, x, mask=None):
        x = F.scaled_dot_product_attention(
            *self.project(x), mask, dropout_p=self.dropout * self.training)
        return rearrange(x, "b h t d -> b t (h d)")


# %%
class BertOutput(nn.Module):
    """The end of each half of a layer: LayerNorm(residual + Dropout(W x + b)).

    x (B, T, in_features), residual (B, T, D) -> (B, T, D)
    """

    def __init__(self, config, in_features):
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x, residual):
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


# %%
def layers(**parts):
    """Layers one after the other, by name."""
    return nn.Sequential(OrderedDict(parts))


# %%
class BertAttention(nn.Module):
    """The first half of a layer: each place reads all others."""

    def __init__(self, config):
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertOutput(config, config.hidden_size)

    def forward(self, x, mask=None):
        return self.output(self.self(x, mask), x)


# %%
class BertLayer(nn.Module):
    """Attention, then two matrices at each place alone: (B, T, D) -> (B, T, D)."""

    def __init__(self, config):
        super().__init__()
        wide = config.intermediate_size
        self.attention = BertAttention(config)
        self.intermediate = layers(
            dense=nn.Linear(config.hidden_size, wide), activation=nn.GELU())
        self.output = BertOutput(config, wide)

    def forward(self, x, mask=None):
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


# %%
class BertEncoder(nn.Module):
    """All layers: (B, T, D) -> (B, T, D)."""

    def __init__(self, config):
        super().__init__()
        self.layer = nn.ModuleList(
            BertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x, mask=None):
        for layer in self.layer:
            x = layer(x, mask)
        return x


# %%
class BertModel(nn.Module):
    """Words (B, T) -> what each means here (B, T, D), and all of them (B, D).

    attention_mask (B, T): 0 where there is only padding. token_type_ids (B, T): 0 in
    the first text, 1 in the second.
    """

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = layers(dense=nn.Linear(width, width), activation=nn.Tanh())

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        mask = None if attention_mask is None else rearrange(
            attention_mask.bool(), "b s -> b 1 1 s")
        x = self.embeddings(input_ids, token_type_ids)
        x = self.encoder(x, mask)
        return x, self.pooler(x[:, 0])      # the place of [CLS]


# %% [markdown]
# ## Its heads

# %%
class MaskedLMHead(nn.Module):
    """A score for each word of the vocabulary: (..., D) -> (..., vocab_size).

    Its matrix is that of the word embeddings.
    """

    def __init__(self, config, word_embeddings):
        super().__init__()
        width = config.hidden_size
        self.transform = layers(
            dense=nn.Linear(width, width), activation=nn.GELU(),
            LayerNorm=nn.LayerNorm(width, eps=config.layer_norm_eps))
        self.decoder = nn.Linear(width, config.vocab_size)
        self.decoder.weight = word_embeddings.weight
        self.bias = self.decoder.bias       # Hugging Face has it under both names

    def forward(self, x):
        return self.decoder(self.transform(x))


# %%
class BertForPreTraining(nn.Module):
    """Scores of words (B, T, K), and of [B follows A, it does not] (B, 2).

    predict (B, T): where words are wanted, everywhere if None; there are then
    (predict.sum(), K) scores.
    """

    def __init__(self, config):
        super().__init__()
        self.bert = BertModel(config)
        words = self.bert.embeddings.word_embeddings
        self.cls = nn.ModuleDict({
            "predictions": MaskedLMHead(config, words),
            "seq_relationship": nn.Linear(config.hidden_size, 2)})
        initialise(self, config)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None,
                predict=None):
        x, pooled = self.bert(input_ids, attention_mask, token_type_ids)
        if predict is not None:
            x = x[predict]
        return self.cls["predictions"](x), self.cls["seq_relationship"](pooled)


# %%
class BertForSequenceClassification(nn.Module):
    """Words (B, T) -> logits (B, num_labels), from the place of [CLS]."""

    def __init__(self, config, num_labels=2):
        super().__init__()
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        initialise(self, config)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        _, pooled = self.bert(input_ids, attention_mask, token_type_ids)
        return self.classifier(self.dropout(pooled))


# %%
def initialise(model, config):
    """Weights from N(0, initializer_range^2), biases and the padding's word zero."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[config.pad_token_id] = 0


# %% [markdown]
# ## Text to numbers

# %%
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # the miniature's words 0..4


def tokenizer_of(words, lowercase=True):
    """Text, or a pair of texts, to the numbers of [CLS] text [SEP] second text [SEP].

    words: a model of the tokenizers library, such as WordPiece. A batch is padded to
    its longest.
    """
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    tokenizer = Tokenizer(words)
    tokenizer.add_special_tokens(SPECIAL)
    ids = {word: tokenizer.token_to_id(word) for word in SPECIAL}
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.enable_padding(pad_id=ids["[PAD]"], pad_token="[PAD]")
    return tokenizer


# %%
def whole_words(texts, at_least, max_length):
    """A tokenizer whose words are those that stand in texts so many times."""
    from tokenizers import models, trainers
    tokenizer = tokenizer_of(models.WordLevel(unk_token="[UNK]"))
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(
        min_frequency=at_least, special_tokens=SPECIAL, show_progress=False))
    tokenizer.enable_truncation(max_length)
    return tokenizer


# %%
def encode(tokenizer, texts):
    """Texts, or pairs of texts, as what BertModel takes, each (B, T)."""
    found = tokenizer.encode_batch_fast(texts)
    return {"input_ids": torch.tensor([text.ids for text in found]),
            "attention_mask": torch.tensor([text.attention_mask for text in found]),
            "token_type_ids": torch.tensor([text.type_ids for text in found])}


# %%
def halves(review):
    """Its first sentence and what follows; if it is the only one, cut in the middle."""
    first, _, rest = review.partition(" . ")
    if rest:
        return f"{first} .", rest
    words = review.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


# %% [markdown]
# ## Pre-training, section 3.1

# %%
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


# %%
def mask_words(input_ids, vocab_size):
    """Hide 15 % of each row's words, at least one: section 3.1, task 1.

    (B, T) -> what is shown (B, T), and where a word is hidden (B, T). Of
    ten hidden words eight are now [MASK], one is any word, one stays.
    """
    is_word = input_ids >= len(SPECIAL)
    order = torch.rand(input_ids.shape, device=input_ids.device)
    rank = order.masked_fill(~is_word, 2).argsort(1).argsort(1)
    count = (0.15 * is_word.sum(1, keepdim=True)).round().clamp(1)
    hidden = is_word & (rank < count)

    fate = torch.rand(input_ids.shape, device=input_ids.device)
    any_word = torch.randint_like(input_ids, len(SPECIAL), vocab_size)
    masked = input_ids.masked_fill(
        hidden & (fate < 0.8), SPECIAL.index("[MASK]"))
    return torch.where(hidden & (fate >= 0.9), any_word, masked), hidden


# %%
def pretraining_loss(scores, words, follows, is_random):
    """Cross-entropy of hidden words + of what follows."""
    return (F.cross_entropy(scores, words)
            + F.cross_entropy(follows, is_random))


# %%
@dataclass(frozen=True)
class Settings(cli.Settings):
    weights: str = cli.flag(None, "a published BERT: its name at Hugging Face")
    text: str = cli.flag(None, "a sentence with [MASK], for --weights")
    # paper: 12 or 24 layers of 768 or 1024, 1,000,000 steps of 256 x 512 words
    epochs: int = cli.flag(11, "passes over the training set, to pre-train")
    batch_size: int = 64
    lr: float = 4e-3
    width: int = cli.flag(48, "width of the model")
    depth: int = 2
    heads: int = cli.flag(4, "attention heads of a layer")
    dropout: float = 0.0
    at_least: int = cli.flag(1, "how often a word of the vocabulary occurs")
    max_length: int = cli.flag(64, "tokens of a text; longer ones are cut", least=8)
    lr_labels: float = cli.flag(3e-3, "learning rate of fine-tuning", above=0)
    steps: int = cli.flag(50, "steps of fine-tuning, at least")
    passes: int = cli.flag(6, "passes over the labelled reviews, at least")
    labels: tuple[int, ...] = cli.flag((16, 64, 256), "labelled reviews", least=2)
    gaps: tuple[str, ...] = cli.flag((
        "hardly bad soup and never dull wine . [MASK] menu and not poor chef .",
        "bad soup and dull wine . [MASK] menu and poor chef ."),
        "reviews with a gap, [MASK], to fill")
    runs: int = 3

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"--width {self.width} is no multiple of --heads "
                             f"{self.heads}")
        for gap in self.gaps:
            if "[MASK]" not in gap.split():
                raise ValueError(f"--gaps {gap!r} has no word [MASK]")


FILMS = Settings(
    epochs=10, lr=1e-3, width=128, dropout=0.1, at_least=2, lr_labels=1e-3, steps=200,
    gaps=("a [MASK] film .",), threads=0)
SETTINGS = {"reviews": Settings(),
            "sst2": replace(FILMS, labels=(100, 1000, 6920)),
            "mr": replace(FILMS, labels=(100, 1000, 8530))}


# %%
@cache
def vocabulary(args):
    """A tokenizer with the words of the training part."""
    train, _, _ = text.load(args)
    return whole_words([review for review, _ in train], args.at_least, args.max_length)


def miniature(args):
    """The shape of the demo's BERT."""
    return BertConfig(
        vocabulary(args).get_vocab_size(), args.width, args.depth, args.heads,
        4 * args.width, args.max_length, hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=args.dropout, initializer_range=0.1)


# %%
def adam(model, lr, steps):
    """AdamW, its learning rate rising to lr for a tenth of the steps, then falling."""
    # paper: 1e-4 over 10,000 of 1,000,000 steps; 2e-5 to 5e-5 for fine-tuning
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01,
                                  fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=0.1, anneal_strategy="linear",
        cycle_momentum=False)

    def step(loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    return step, {"model": model, "optimizer": optimizer, "schedule": schedule}


# %%
@parallel.memoize
def pretrained(args, seed):
    """A BERT, Trained on the training part without its labels."""
    torch.manual_seed(seed)
    train, _, _ = text.load(args)
    config = miniature(args)
    model = training.place(BertForPreTraining(config), args)
    batches = training.loader(SentencePairs(train, vocabulary(args)), args)
    learn, state = adam(model, args.lr, args.epochs * len(batches))

    def step(batch):
        inputs, is_random = batch
        words = inputs["input_ids"]
        masked, hidden = mask_words(words, config.vocab_size)
        with training.precision(args):
            scores, follows = model(**inputs | {"input_ids": masked}, predict=hidden)
            loss = pretraining_loss(scores, words[hidden], follows, is_random)
        learn(loss)
        return {"loss": loss, "hidden_words": share(scores, words[hidden]),
                "next_sentence": share(follows, is_random)}

    history = training.fit(step, batches, args, save=state, seed=seed,
                           name=f"bert-{args.data}-{seed}")
    return training.Trained(model, history)


def share(scores, answers):
    """How many of scores (N, K) are highest at their answer (N), 0..1."""
    return (scores.argmax(1) == answers).float().mean()


# %%
def most_frequent(texts, tokenizer):
    """How often the most frequent word is right where any word may be hidden, 0..1."""
    ids = encode(tokenizer, [review for review, _ in texts])["input_ids"]
    return ids[ids >= len(SPECIAL)].bincount().max().item() / (
        ids >= len(SPECIAL)).sum().item()


# %% [markdown]
# ## Fine-tuning, section 3.2

# %%
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


# %%
@parallel.memoize
def finetuned(args, seed, labels, start):
    """A classifier, Trained on so many labelled reviews.

    start: "pretrained" or "scratch". The same seed is the same reviews in both.
    """
    order = torch.Generator().manual_seed(seed)
    train, _, _ = text.load(args)
    chosen = torch.randperm(len(train), generator=order)[:labels]
    samples = Labelled([train[i] for i in chosen], vocabulary(args))
    batches = training.loader(samples, args)
    epochs = max(args.passes, -(-args.steps // len(batches)))

    torch.manual_seed(seed)
    model = BertForSequenceClassification(miniature(args))
    if start == "pretrained":
        body = pretrained(args, seed).model.bert
        model.bert.load_state_dict(body.state_dict())
    model = training.place(model, args)
    learn, state = adam(model, args.lr_labels, epochs * len(batches))

    def step(batch):
        inputs, answers = batch
        with training.precision(args):
            loss = F.cross_entropy(model(**inputs), answers)
        learn(loss)
        return {"loss": loss}

    history = training.fit(step, batches, args, save=state, seed=seed, epochs=epochs)
    return training.Trained(model, history)


# %%
@torch.no_grad()
def accuracy(model, samples, args):
    """The share of labels that a classifier gets right, 0..1."""
    model.eval()
    dataset = Labelled(samples, vocabulary(args))
    hits = 0.0
    for inputs, answers in training.loader(dataset, args, shuffle=False):
        inputs = {key: value.to(args.device) for key, value in inputs.items()}
        hits += (model(**inputs).argmax(1).cpu() == answers).sum().item()
    return hits / len(dataset)


# %% [markdown]
# ## Filling gaps, with our weights or published ones

# %%
@torch.no_grad()
def fill(model, tokenizer, sentence, best=5):
    """The best words for each [MASK] of a sentence: [[(word, probability), ...], ...].

    model: a BertForPreTraining. Raises UserError if there is no [MASK], or if the
    sentence is too long for the model.
    """
    inputs = encode(tokenizer, [sentence])
    gaps = inputs["input_ids"] == tokenizer.token_to_id("[MASK]")
    places = model.bert.embeddings.position_embeddings.num_embeddings
    if not gaps.any():
        raise UserError(f"there is no [MASK] in {sentence!r} to fill")
    if gaps.shape[1] > places:
        raise UserError(f"{gaps.shape[1]} pieces of words, and places for {places}: "
                        f"{sentence!r} is too long")
    device = next(model.parameters()).device
    inputs = {key: value.to(device) for key, value in inputs.items()}
    scores, _ = model.eval()(**inputs, predict=gaps.to(device))
    top = scores.softmax(1).topk(best)
    return [[(tokenizer.id_to_token(word), probability)
             for word, probability in zip(words, probabilities)]
            for words, probabilities in zip(top.indices.tolist(), top.values.tolist())]


# %%
FILES = ["config.json", "vocab.txt", "model.safetensors"]


def checkpoint_folder(name):
    """The folder of that name, or where Hugging Face's cache has what is published so.

    Downloads it if need be. Raises UserError if that fails.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging
    logging.set_verbosity_error()
    if Path(name).is_dir():
        return Path(name)
    reason = f"it has no {' or no '.join(FILES)}"
    for only_here in (True, False):
        try:
            folder = Path(snapshot_download(
                name, local_files_only=only_here,
                allow_patterns=[*FILES, "tokenizer_config.json"]))
        except Exception as error:  # what a network can raise is endless
            reason = str(error).strip().splitlines()[0]
        else:
            if all((folder / file).exists() for file in FILES):
                return folder
    raise UserError(f"{name} is no folder, is not in Hugging Face's cache and cannot "
                    f"be fetched ({reason})")


# %%
def readable(path, read):
    """What read(path) returns. Raises UserError if it cannot."""
    try:
        return read(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: a checkpoint has {', '.join(FILES)}")
    except Exception as error:  # what damage makes a parser raise is endless
        raise UserError(f"{path} is corrupt ({type(error).__name__}): delete it and "
                        "try again")


def read_json(path):
    return dict(json.loads(path.read_text("utf-8")))


def untrained(path):
    """A BertForPreTraining as a config.json describes it."""
    found = read_json(path)
    kind = found.get("model_type", "bert"), found.get("hidden_act", "gelu")
    if kind != ("bert", "gelu"):
        raise UserError(f"{path} is not BERT's: it says {' with '.join(kind)}")
    names = [field.name for field in fields(BertConfig)]
    return BertForPreTraining(BertConfig(
        **{key: found[key] for key in names if key in found}))


# %%
def published(name):
    """The BertForPreTraining that is published under a name, and its tokenizer.

    Raises UserError if its files are missing or corrupt or of another network.
    """
    from tokenizers import models
    folder = checkpoint_folder(name)
    model = readable(folder / "config.json", untrained)
    load(model, folder / "model.safetensors")

    options, lowercase = folder / "tokenizer_config.json", True
    if options.exists():
        lowercase = readable(options, read_json).get("do_lower_case", True)
    words = readable(folder / "vocab.txt", lambda path: models.WordPiece.from_file(
        str(path), unk_token="[UNK]"))
    tokenizer = tokenizer_of(words, lowercase)
    count, places = tokenizer.get_vocab_size(), model.cls["predictions"].bias.numel()
    if count > places:
        raise UserError(f"{folder / 'vocab.txt'} and BERT's own words are {count}, "
                        f"the model has places for {places}")
    return model, tokenizer


# %%
def load(model, path):
    """Put the weights of a safetensors file into a BertForPreTraining.

    Its pooler and its head for the next sentence may be missing there: many have only
    filled gaps. Raises UserError if others are, or if shapes differ.
    """
    from safetensors.torch import load_file
    states = {key.replace("LayerNorm.gamma", "LayerNorm.weight")  # the first ones
              .replace("LayerNorm.beta", "LayerNorm.bias"): value
              for key, value in readable(path, load_file).items()}
    for key, value in model.state_dict().items():
        if key in states and states[key].shape != value.shape:
            raise UserError(f"{path}: {key} is {tuple(states[key].shape)}, by its "
                            f"config.json {tuple(value.shape)}")
    optional = "cls.predictions.decoder", "bert.pooler", "cls.seq_relationship"
    missing = [key for key in model.load_state_dict(states, strict=False).missing_keys
               if not key.startswith(optional)]
    if missing:
        raise UserError(f"{path} has no {missing[0]}" + (
            f", nor {len(missing) - 1} others" if missing[1:] else ""))


# %%
@torch.no_grad()
def attention_maps(model, inputs):
    """What each head attends to: (layers, B, H, T, T), each row sums to one."""
    x = model.embeddings(inputs["input_ids"], inputs["token_type_ids"])
    mask = rearrange(inputs["attention_mask"].bool(), "b s -> b 1 1 s")
    maps = []
    for layer in model.encoder.layer:
        query, key, value = layer.attention.self.project(x)
        maps.append(scaled_dot_product(query, key, value, mask)[1])
        x = layer(x, mask)
    return torch.stack(maps)


# %%
def facts():
    """What the slides state of BERT, computed."""
    values = {}
    with torch.device("meta"):
        for name, config in [("base", BASE), ("large", LARGE)]:
            model = BertForPreTraining(config)
            layer, count = model.bert.encoder.layer[0], measure.parameters
            embeddings, body = count(model.bert.embeddings), count(model.bert)
            values |= {
                f"{name}_parameters": count(model),
                f"{name}_body_parameters": body,
                f"{name}_head_parameters": count(model) - body,
                f"{name}_embedding_parameters": embeddings,
                f"{name}_embedding_share": embeddings / count(model),
                f"{name}_layer_parameters": count(layer),
                f"{name}_attention_share": count(layer.attention) / count(layer),
                f"{name}_classifier_parameters": 2 * config.hidden_size + 2,
                f"{name}_multiply_adds_128": measure.multiply_adds(
                    model.bert, torch.zeros(1, 128, dtype=torch.long))}
    length, batch, steps = 512, 256, 1_000_000   # paper, appendix A.2
    return values | {
        "words_in_a_step": length * batch,
        "words_read": length * batch * steps,
        "hidden_of_512": 0.15 * length,
        "masked_of_hidden": 0.8, "shown_as_mask": 0.15 * 0.8,
        "passes_over_the_text": length * batch * steps / 3.3e9}


# %% [markdown]
# ## Figures

# %%
def table(rows, marked):
    """Rows of words, column by column, some on a coloured ground.

    rows: {name: words}, all of the same length. marked: {(row, column): (role,
    strength of the ground 0..1)}.
    """
    figure, axis = figures.sheet()
    names, columns = list(rows), list(zip(*rows.values()))
    wide = [max(figures.width(figure, word, size=18) for word in column) + 14
            for column in columns]
    x, high = max(figures.width(figure, name, size=18) for name in names) + 24, 46
    for row, name in enumerate(names):
        axis.text(0, high * (row + 0.5), name, va="center_baseline", size=18,
                  color=figures.color("muted"))
    for column, (words, room) in enumerate(zip(columns, wide)):
        for row, word in enumerate(words):
            role, strength = marked.get((row, column), ("ink", 0))
            if strength:
                axis.barh(high * (row + 0.5), room - 4, high - 8, x + 2,
                          color=figures.color(role, strength))
            axis.text(x + room / 2, high * (row + 0.5), word, size=18, ha="center",
                      va="center_baseline", weight="bold" if strength else "normal",
                      color=figures.color("paper" if strength > 0.55 else role))
        x += room
    figures.crop(figure, high * len(names))
    return figure


# %%
def filled(gaps, roles):
    """The best words for each gap as bars: {sentence: [(word, probability), ...]}.

    roles: {word: role}, the best word's colour where nothing is said.
    """
    figure, axis = figures.sheet()
    every = [found for words in gaps.values() for found in words]
    left = max(figures.width(figure, word) for word, _ in every) + 20
    y, scale = 0, 700 / max(probability for _, probability in every)
    for sentence, words in gaps.items():
        axis.text(0, y + 18, sentence, va="center_baseline", weight="bold")
        for word, probability in words:
            y += 34
            role = figures.color(roles.get(word, "idea"))
            length = scale * probability
            axis.text(left - 12, y + 22, word, va="center_baseline", ha="right")
            axis.barh(y + 20, length, 22, left, color=role)
            axis.text(left + length + 10, y + 22, f"{probability:.1%}",
                      va="center_baseline", color=role, weight="bold")
        y += 60
    figures.crop(figure, y - 8)
    return figure


# %%
def heads(maps, words, place):
    """What each head reads at a place, by its weights: maps (layers, H, T, T)."""
    rows, marked = {"": words}, {(0, place): ("control", 0.15)}
    for layer, weights in enumerate(maps[:, :, place].tolist(), start=1):
        for head, row in enumerate(weights, start=1):
            for column, weight in enumerate(row):
                marked[len(rows), column] = ("idea", weight)
            rows[f"layer {layer}, head {head}"] = [
                f"{100 * weight:.0f}" if weight > 0.1 else "" for weight in row]
    return table(rows, marked)


# %%
def record_accuracies(name, sizes, found):
    """Record mean and range over runs, found[run][size], for each number of labels."""
    for labels, runs in zip(sizes, zip(*found)):
        results.record(f"{name}_{labels}_accuracy", sum(runs) / len(runs))
        results.record(f"{name}_{labels}_accuracy_lowest", min(runs))
        results.record(f"{name}_{labels}_accuracy_highest", max(runs))


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)
    if args.weights:
        model, tokenizer = published(args.weights)
        for gap in fill(model.to(args.device), tokenizer, args.text):
            for word, probability in gap:
                print(f"{probability:6.1%}  {word}")
            print()
        raise SystemExit

# %% What BERT is given
if __name__ == "__main__":
    torch.manual_seed(args.seed)
    tokenizer = vocabulary(args)
    inputs = encode(tokenizer, [halves(args.gaps[0].replace("[MASK]", "great"))])
    ids = inputs["input_ids"]
    masked, hidden = mask_words(ids.repeat(100, 1), tokenizer.get_vocab_size())
    other = (masked != ids) & (masked != SPECIAL.index("[MASK]"))
    row = (other.sum(1) == 1).int().argmax()      # one that has all there is to see
    shown, asked = masked[row].tolist(), hidden[row].tolist()
    words = [tokenizer.id_to_token(i) for i in ids[0].tolist()]
    figures.save(table(
        {"text": words, "position": [str(i) for i in range(len(words))],
         "text A or B": ["AB"[i] for i in inputs["token_type_ids"][0].tolist()],
         "BERT is shown": [tokenizer.id_to_token(i) for i in shown],
         "and asked for": [word * there for word, there in zip(words, asked)]},
        {(row, i): (role, 0.15) for i, there in enumerate(asked) if there
         for row, role in [(3, "control"), (4, "idea")]}), "bert-input")

# %% Two heads
if __name__ == "__main__":
    with torch.device("meta"):   # the figure needs shapes only
        model, tokens = BertForPreTraining(BASE), torch.ones(1, 128, dtype=int)
    figures.save(figures.flow(
        model, tokens, whole=(BertModel,), down=False, size=(800, 190)),
        "bert-heads-of-pretraining")

# %% Trainings
if __name__ == "__main__":
    sizes = args.labels[:1 if args.quick else None]
    scratch, after = [product([finetuned], [args], args.seeds, sizes[::-1], [start])
                      for start in ["scratch", "pretrained"]]
    parallel.precompute([*product([pretrained], [args], args.seeds), *scratch])
    parallel.precompute(after)

# %% Pre-training
if __name__ == "__main__":
    histories = [pretrained(args, seed).history for seed in args.seeds]
    results.record_runs("pretraining", histories, "hidden_words", "next_sentence")
    model = pretrained(args, args.seed).model
    results.record("parameters", measure.parameters(model))
    results.record("vocabulary", vocabulary(args).get_vocab_size())
    train, _, _ = text.load(args)
    frequent = most_frequent(train, vocabulary(args))
    results.record("most_frequent", frequent)
    panels = {}
    for title, key, control, share_of_it in [
            ("a hidden word", "hidden_words", "always the same word", frequent),
            ("the next sentence", "next_sentence", "tossing a coin", 0.5)]:
        runs = 100 * torch.tensor([history[key] for history in histories])
        panels[title] = ["idea", "control"], {
            "BERT": runs, control: torch.full_like(runs, 100 * share_of_it)}
    figures.save(figures.curves(panels, ylabel="guessed right (%)"), "bert-pretraining")

# %% Few labels
if __name__ == "__main__":
    _, _, test = text.load(args)
    sizes = args.labels[:1 if args.quick else None]
    figure, (axis,) = figures.panels(
        xlabel="labelled reviews", ylabel="test accuracy (%)")
    for start, role, label in [("scratch", "control", "from scratch"),
                               ("pretrained", "idea", "pre-trained")]:
        found = [[accuracy(finetuned(args, seed, labels, start).model, test, args)
                  for labels in sizes] for seed in args.seeds]
        record_accuracies(start, sizes, found)
        figures.band(axis, sizes, 100 * torch.tensor(found), role, label,
                     linewidth=figures.HEAVY, marker="o", markersize=10, clip_on=False)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [f"{labels:,}" for labels in sizes])
    axis.minorticks_off()
    figures.label_lines(axis)
    middle = len(sizes) // 2
    low, high = (line.get_ydata()[middle] for line in axis.lines)
    figures.annotate(axis, sizes[middle], high,
                     f"{sizes[middle]} labels: {high:.0f} % against {low:.0f} %")
    figures.save(figure, "bert-few-labels")

# %% Fill a gap
if __name__ == "__main__":
    model = pretrained(args, args.seed).model
    gaps = {gap: fill(model, vocabulary(args), halves(gap))[0]
            for gap in args.gaps}
    figures.save(filled(gaps, dict.fromkeys(text.BLAME, "control")), "bert-gap")

# %% What each head attends to
if __name__ == "__main__":
    model = pretrained(args, args.seed).model
    tokenizer = vocabulary(args)
    inputs = encode(tokenizer, [halves(args.gaps[0])])
    words = [tokenizer.id_to_token(i) for i in inputs["input_ids"][0].tolist()]
    inputs = {key: value.to(args.device) for key, value in inputs.items()}
    maps = attention_maps(model.bert.eval(), inputs)[:, 0].cpu()  # (layers, H, T, T)
    figures.save(heads(maps, words, words.index("[MASK]")), "bert-heads")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
