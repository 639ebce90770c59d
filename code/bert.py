# %% [markdown]
# # BERT
#
# - **Paper**: Jacob Devlin, Ming-Wei Chang, Kenton Lee, Kristina Toutanova. *BERT:
#   Pre-training of Deep Bidirectional Transformers for Language Understanding*.
#   NAACL 2019. [arXiv:1810.04805](https://arxiv.org/abs/1810.04805)
# - **Idea**: let a Transformer's encoder fill gaps in text that nobody had to label,
#   with words from both sides in view; then teach it a task with a few labels.
# - **Demo**: pre-training in miniature; filled gaps; attention maps.
# - **Time**: about 35 s on 2 CPU cores; `--data mr` and `--data sst2`: film reviews

# %%
from collections import OrderedDict
from dataclasses import dataclass, fields
from functools import cache

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from lab import (
    UserError,
    cli,
    compare,
    figures,
    measure,
    papers,
    results,
    text,
    training,
    weights,
)
from multi_head import scaled_dot_product

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
    """Embed the token, its position and its text: (B, T) -> (B, T, D)."""

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
        x = self.word_embeddings(input_ids)             # (B, T, D)
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
        x = F.scaled_dot_product_attention(               # (B, H, T, d)
            *self.project(x), mask,
            dropout_p=self.dropout if self.training else 0.0)
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
    """The first half of a layer: (B, T, D) -> (B, T, D)."""

    def __init__(self, config):
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertOutput(config, config.hidden_size)

    def forward(self, x, mask=None):
        return self.output(self.self(x, mask), x)


# %%
class BertLayer(nn.Module):
    """Attention, then a feed-forward network: (B, T, D) -> (B, T, D)."""

    def __init__(self, config):
        super().__init__()
        intermediate = config.intermediate_size
        self.attention = BertAttention(config)
        self.intermediate = layers(
            dense=nn.Linear(config.hidden_size, intermediate), activation=nn.GELU())
        self.output = BertOutput(config, intermediate)

    def forward(self, x, mask=None):
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)   # to 4 D and back


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
    """Tokens (B, T) -> their states (B, T, D), and that of the whole text (B, D).

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
        x = self.embeddings(input_ids, token_type_ids)   # (B, T, D)
        x = self.encoder(x, mask)
        return x, self.pooler(x[:, 0])                   # the state of [CLS]


# %% [markdown]
# ## Its heads

# %%
class MaskedLMHead(nn.Module):
    """Logits of the tokens: (..., D) -> (..., vocab_size).

    Its weight matrix is that of the word embeddings.
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
    """Logits of tokens (B, T, K), and of [B follows A, it does not] (B, 2).

    predict (B, T): where tokens are to be predicted, everywhere if None; there
    are then (predict.sum(), K) logits.
    """

    def __init__(self, config):
        super().__init__()
        self.bert = BertModel(config)
        words = self.bert.embeddings.word_embeddings
        self.cls = nn.ModuleDict({
            "predictions": MaskedLMHead(config, words),
            "seq_relationship": nn.Linear(config.hidden_size, 2)})
        initialize(self, config)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None,
                predict=None):
        x, pooled = self.bert(input_ids, attention_mask, token_type_ids)
        if predict is not None:
            x = x[predict]
        return self.cls["predictions"](x), self.cls["seq_relationship"](pooled)


# %%
class BertForSequenceClassification(nn.Module):
    """Tokens (B, T) -> logits (B, num_labels), from the state of [CLS]."""

    def __init__(self, config, num_labels=2):
        super().__init__()
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        initialize(self, config)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        _, pooled = self.bert(input_ids, attention_mask, token_type_ids)
        return self.classifier(self.dropout(pooled))


# %%
def initialize(model, config):
    """Weights from N(0, initializer_range^2), biases and the padding's word zero."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[config.pad_token_id] = 0


# %% [markdown]
# ## Pre-training, section 3.1

# %%
def mask_tokens(input_ids, vocab_size):
    """Choose 15 % of the tokens (papers/devlin2019.json#hidden_share).

    (B, T) -> what is shown (B, T), which are chosen (B, T), one a row at
    least. Of ten, eight become [MASK], one any token, one stays as it is.
    """
    first = len(text.BERT_SPECIAL)    # the ids before are no words
    is_word = input_ids >= first
    order = torch.rand(input_ids.shape, device=input_ids.device)
    rank = order.masked_fill(~is_word, 2).argsort(1).argsort(1)
    count = (0.15 * is_word.sum(1, keepdim=True)).round().clamp(1)
    hidden = is_word & (rank < count)
    fate = torch.rand(input_ids.shape, device=input_ids.device)
    any_word = torch.randint_like(input_ids, first, vocab_size)
    masked = input_ids.masked_fill(
        hidden & (fate < 0.8), text.BERT_SPECIAL.index("[MASK]"))
    return torch.where(hidden & (fate >= 0.9), any_word, masked), hidden


# %%
def pretraining_loss(scores, words, follows, is_random):
    """Cross-entropy of chosen tokens + of what follows."""
    return (F.cross_entropy(scores, words)
            + F.cross_entropy(follows, is_random))


# %%
@dataclass(frozen=True)
class Settings(cli.Settings):
    weights: str = cli.flag(None, "a published BERT: its name at Hugging Face")
    text: str = cli.flag(None, "a sentence with [MASK], for --weights")
    # paper: 12 or 24 layers of 768 or 1024, section 3; 10^6 steps of 256 x 512, A.2
    epochs: int = cli.flag(11, "passes over the training set, to pre-train")
    batch_size: int = 64
    lr: float | None = cli.flag(None, "learning rate of pre-training", above=0)
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3)
    tune: bool = False
    width: int = cli.flag(48, "width of the model")
    depth: int = 2
    heads: int = cli.flag(4, "attention heads of a layer")
    dropout: float = 0.0
    at_least: int = cli.flag(1, "how often a word of the vocabulary occurs")
    max_length: int = cli.flag(64, "tokens of a text; longer ones are cut", least=8)
    gaps: tuple[str, ...] = cli.flag((
        "hardly bad soup and never dull wine . [MASK] menu and not poor chef .",
        "bad soup and dull wine . [MASK] menu and poor chef ."),
        "reviews with a gap, [MASK], to fill")
    runs: int = 3

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"--width {self.width} is not for {self.heads} heads")
        for gap in self.gaps:
            if "[MASK]" not in gap.split():
                raise ValueError(f"--gaps {gap!r} has no word [MASK]")


FILMS = {"epochs": 10, "lr": 1e-3, "width": 128, "dropout": 0.1, "at_least": 2,
         "gaps": ("a [MASK] film .",), "threads": 0}
SETTINGS = {"reviews": Settings(), "sst2": Settings(**FILMS), "mr": Settings(**FILMS)}


# %%
@cache
def vocabulary(args):
    """A tokenizer with the words of the training part."""
    train, _, _ = text.load(args)
    return text.whole_words([review for review, _ in train], args.at_least,
                            args.max_length)


def miniature(args):
    """The shape of the demo's BERT."""
    # the authors' code: initializer_range 0.02, from which few steps do not get far
    return BertConfig(
        vocabulary(args).get_vocab_size(), args.width, args.depth, args.heads,
        4 * args.width, args.max_length, hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=args.dropout, initializer_range=0.1)


# %%
@training.memoize
def pretrained(args, seed):
    """A BERT, Trained on the training part without its labels."""
    torch.manual_seed(seed)
    train, _, _ = text.load(args)
    config = miniature(args)
    model = training.place(BertForPreTraining(config), args)
    batches = training.loader(text.SentencePairs(train, vocabulary(args)), args)
    # paper, appendix A.2: 1e-4 over 1,000,000 steps; here also weights that the
    # authors' code excepts decay, those of biases and LayerNorms
    update, state = training.adamw(model, args.lr, args.epochs * len(batches))

    def accuracy(logits, labels):
        return (logits.argmax(1) == labels).float().mean()

    def step(batch):
        inputs, is_random = batch
        words = inputs["input_ids"]
        masked, chosen = mask_tokens(words, config.vocab_size)
        with training.precision(args):
            scores, follows = model(**inputs | {"input_ids": masked}, predict=chosen)
            loss = pretraining_loss(scores, words[chosen], follows, is_random)
        update(loss)
        return {"loss": loss, "masked_tokens": accuracy(scores, words[chosen]),
                "next_sentence": accuracy(follows, is_random)}

    history = training.fit(step, batches, args, save=state, seed=seed,
                           name=f"bert-{args.data}-{seed}")
    return training.Trained(model, history)


# %% [markdown]
# ## Filling gaps, with our weights or published ones

# %%
@torch.no_grad()
def fill(model, tokenizer, sentence, best=5):
    """Fill each [MASK] of a sentence: [[(token, probability), ...], ...], best first.

    model: a BertForPreTraining. Raises UserError if there is no [MASK], or if the
    sentence is too long for the model.
    """
    inputs = text.encode(tokenizer, [sentence])
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
def published(name):
    """The BertForPreTraining that is published under a name, and its tokenizer.

    Raises UserError if its files are missing or corrupt or of another network.
    """
    folder = weights.hugging_face(
        name, ["config.json", "vocab.txt", "model.safetensors"])
    model = weights.readable(folder / "config.json", as_described)
    # Many checkpoints have only learned to fill gaps; the first ones named norms so.
    weights.load_safetensors(
        model, folder / "model.safetensors",
        optional=("cls.predictions.decoder", "bert.pooler", "cls.seq_relationship"),
        renamed={"LayerNorm.gamma": "LayerNorm.weight",
                 "LayerNorm.beta": "LayerNorm.bias"})
    tokenizer = text.word_pieces(folder)
    count, rows = tokenizer.get_vocab_size(), model.cls["predictions"].bias.numel()
    if count > rows:
        raise UserError(f"{folder / 'vocab.txt'} and BERT's own tokens are {count}, "
                        f"the model has rows for {rows}")
    return model, tokenizer


# %%
def as_described(path):
    """A BertForPreTraining as a config.json describes it."""
    config = weights.read_json(path)
    kind = config.get("model_type", "bert"), config.get("hidden_act", "gelu")
    if kind != ("bert", "gelu"):
        raise UserError(f"{path} is not BERT's: it says {' with '.join(kind)}")
    names = [field.name for field in fields(BertConfig)]
    return BertForPreTraining(BertConfig(
        **{key: config[key] for key in names if key in config}))


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
    """Numbers on the slides that follow from the networks alone."""
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
                f"{name}_multiply_adds_128": measure.multiply_adds(
                    model.bert, torch.zeros(1, 128, dtype=torch.long))}
    length, batch, steps = 512, 256, 1_000_000   # paper, appendix A.2
    return values | {
        "words_in_a_step": length * batch, "words_read": length * batch * steps,
        "hidden_of_512": 0.15 * length, "shown_as_mask": 0.15 * 0.8,
        "passes_over_the_text": length * batch * steps
            / papers.value("devlin2019", "words")}


# %%
def heads(maps, words, position):
    """Where each head attends to from a position, by maps (layers, H, T, T)."""
    rows, marked = {"": words}, {(0, position): ("control", 0.15)}
    for layer, by_head in enumerate(maps[:, :, position].tolist(), start=1):
        for head, row in enumerate(by_head, start=1):
            for column, weight in enumerate(row):
                marked[len(rows), column] = ("idea", weight)
            rows[f"layer {layer}, head {head}"] = [
                f"{100 * weight:.0f}" if weight > 0.1 else "" for weight in row]
    return figures.table(rows, marked)


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
    review = args.gaps[0].replace("[MASK]", "great")
    inputs = text.encode(tokenizer, [text.halves(review)])
    ids = inputs["input_ids"]
    masked, hidden = mask_tokens(ids.repeat(100, 1), tokenizer.get_vocab_size())
    other = (masked != ids) & (masked != text.BERT_SPECIAL.index("[MASK]"))
    row = (other.sum(1) == 1).int().argmax()      # one that has all there is to see
    shown, chosen = masked[row].tolist(), hidden[row].tolist()
    words = [tokenizer.id_to_token(i) for i in ids[0].tolist()]
    figures.save(figures.table(
        {"text": words, "position": [str(i) for i in range(len(words))],
         "text A or B": ["AB"[i] for i in inputs["token_type_ids"][0].tolist()],
         "BERT is shown": [tokenizer.id_to_token(i) for i in shown],
         "to be predicted": [word * there for word, there in zip(words, chosen)]},
        {(row, i): (role, 0.15) for i, there in enumerate(chosen) if there
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
    compare.train({"pretraining": (pretrained,)}, args)

# %% Pre-training
if __name__ == "__main__":
    trained = compare.train({"pretraining": (pretrained,)}, args)["pretraining"]
    results.record("parameters", measure.parameters(trained[0].model))
    results.record("vocabulary", vocabulary(args).get_vocab_size())
    train, _, _ = text.load(args)
    frequent = text.most_frequent(train, vocabulary(args))
    results.record("most_frequent", frequent)
    panels = {}
    for title, key, control, share in [
            ("masked tokens", "masked_tokens", "always the same word", frequent),
            ("the next sentence", "next_sentence", "tossing a coin", 0.5)]:
        runs = torch.tensor(training.by_epoch(trained, key))
        panels[title] = ["idea", "control"], {
            "BERT": runs, control: torch.full_like(runs, share)}
    figures.save(figures.curves(panels, ylabel="accuracy (%)"), "bert-pretraining")

# %% Fill a gap
if __name__ == "__main__":
    model = pretrained(compare.chosen("pretraining", args), args.seed).model
    gaps = {gap: fill(model, vocabulary(args), text.halves(gap))[0]
            for gap in args.gaps}
    roles = dict.fromkeys(text.BLAME, "control")
    figures.save(figures.grouped_bars(gaps, roles), "bert-gap")

# %% What each head attends to
if __name__ == "__main__":
    model = pretrained(compare.chosen("pretraining", args), args.seed).model
    tokenizer = vocabulary(args)
    inputs = text.encode(tokenizer, [text.halves(args.gaps[0])])
    words = [tokenizer.id_to_token(i) for i in inputs["input_ids"][0].tolist()]
    inputs = {key: value.to(args.device) for key, value in inputs.items()}
    maps = attention_maps(model.bert.eval(), inputs)[:, 0].cpu()  # (layers, H, T, T)
    figures.save(heads(maps, words, words.index("[MASK]")), "bert-heads")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
