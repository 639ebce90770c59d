# %% [markdown]
# # Transformer
#
# - **Paper**: Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones,
#   Aidan N. Gomez, Łukasz Kaiser, Illia Polosukhin. *Attention Is All You Need*.
#   NIPS 2017. [arXiv:1706.03762](https://arxiv.org/abs/1706.03762)
# - **Idea**: translate with attention alone: no recurrence, so that all positions of
#   a sentence are read, and learned, at the same time.
# - **Demo**: English number words to German ones, which turn tens and ones around:
#   numbers it has never seen, with and without positions, with four heads and one.
# - **Time**: about 30 s on 2 CPU cores

# %%
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from attention import (MultiHeadAttention, attention_maps, causal_mask,
                       padding_mask)
from lab import (UserError, cli, figures, measure, parallel, results, text,
                 training)

PAD, BOS, EOS, UNKNOWN = text.PAD, text.BOS, text.EOS, text.UNKNOWN


# %% [markdown]
# ## Layers

# %%
class EncoderLayer(nn.Module):
    """Self-attention, then a network for each position: figure 1, left.

    x (B, S, D) -> (B, S, D); mask as in MultiHeadAttention.
    """

    def __init__(self, d_model, num_heads, d_ff, dropout=0.1,
                 norm_first=False):
        super().__init__()
        self.norm_first = norm_first
        self.self_attn = MultiHeadAttention(d_model, num_heads, dropout)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask=None):
        def attend(x):
            return self.self_attn(x, x, x, mask)

        x = self.add(x, self.norm1, attend)
        return self.add(x, self.norm2, self.feed_forward)

    def add(self, x, norm, sublayer):
        """x and what a sublayer makes of it, section 3.1."""
        if self.norm_first:   # pre-norm: Xiong et al. 2020
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

    def feed_forward(self, x):
        """Two linear layers, the same at each position: eq. 2."""
        # paper: dropout on sublayers only; library: here, on attention too
        return self.linear2(self.dropout(F.relu(self.linear1(x))))


# %%
class DecoderLayer(EncoderLayer):
    """Self-attention, attention to the source, a network: figure 1, right.

    x (B, T, D), memory (B, S, D) -> (B, T, D).
    """

    def __init__(self, d_model, num_heads, d_ff, dropout=0.1,
                 norm_first=False):
        super().__init__(d_model, num_heads, d_ff, dropout, norm_first)
        self.multihead_attn = MultiHeadAttention(d_model, num_heads, dropout)
        self.norm3 = nn.LayerNorm(d_model)

    def forward(self, x, memory, mask=None, memory_mask=None):
        return self.sublayers(
            x, lambda x: self.self_attn(x, x, x, mask),
            lambda x: self.multihead_attn(x, memory, memory, memory_mask))

    def sublayers(self, x, look_back, look_across):
        x = self.add(x, self.norm1, look_back)
        x = self.add(x, self.norm2, look_across)
        return self.add(x, self.norm3, self.feed_forward)

    def start(self, memory, memory_mask):
        """Keys and values before the first position: the memory's only."""
        nothing = memory[:, :0]
        _, *own = self.self_attn.project(nothing, nothing, nothing)
        _, *across = self.multihead_attn.project(nothing, memory, memory)
        return [*own, *across, memory_mask]

    def step(self, x, state):
        """One position x (B, 1, D), which joins the state."""
        def look_back(x):
            query, key, value = self.self_attn.project(x, x, x)
            state[0] = torch.cat([state[0], key], dim=2)
            state[1] = torch.cat([state[1], value], dim=2)
            return self.self_attn.attend(query, *state[:2])

        def look_across(x):
            no = x[:, :0]   # no new keys: the memory's are kept
            query, *_ = self.multihead_attn.project(x, no, no)
            return self.multihead_attn.attend(query, *state[2:])

        return self.sublayers(x, look_back, look_across)


# %%
class Stack(nn.Module):
    """Layers one after the other with the same context, then a norm."""

    def __init__(self, layers, norm):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, x, *context):
        for layer in self.layers:
            x = layer(x, *context)
        return self.norm(x)


# %% [markdown]
# ## The model

# %%
class Transformer(nn.Module):
    """Encoder and decoder, section 3.1, with the names of nn.Transformer.

    source (B, S, D), target (B, T, D) -> (B, T, D); source_mask (B, 1, 1, S) and
    target_mask (T, T) are True where attention is allowed.
    """

    def __init__(self, d_model=512, num_heads=8, num_layers=6, d_ff=2048,
                 dropout=0.1, norm_first=False, final_norm=True):
        super().__init__()
        sizes = d_model, num_heads, d_ff, dropout, norm_first
        # paper: no norm after the last layer; library: always
        for name, layer in ("encoder", EncoderLayer), ("decoder", DecoderLayer):
            setattr(self, name, Stack(
                [layer(*sizes) for _ in range(num_layers)],
                nn.LayerNorm(d_model) if final_norm else nn.Identity()))
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def forward(self, source, target, source_mask=None, target_mask=None):
        memory = self.encoder(source, source_mask)
        return self.decoder(target, memory, target_mask, source_mask)


# %%
def sinusoids(length, d_model):
    """The table (length, d_model) of section 3.5.

    Row p has sin(p / 10000^(2i/D)) in column 2i and the
    cosine in column 2i + 1.
    """
    position = torch.arange(length)[:, None]
    column = torch.arange(0, d_model, 2)
    angle = position / 10_000 ** (column / d_model)
    waves = torch.stack([angle.sin(), angle.cos()], dim=2)
    return waves.flatten(1)


# %%
class Positions(nn.Module):
    """Adds rows of a table (length, D), from `start` on, to x (B, T, D)."""

    def __init__(self, table, learned=False):
        super().__init__()
        if learned:
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table, persistent=False)

    def forward(self, x, start=0):
        end = start + x.shape[1]
        if end > len(self.table):
            raise UserError(f"a sentence of {end:,} tokens is longer than "
                            f"the model's {len(self.table):,} positions")
        return x + self.table[start:end]


# %%
def positions(kind, length, d_model):
    """Sinusoids, a table to learn (table 3, row E) or none, the control."""
    if kind == "sinusoidal":
        return Positions(sinusoids(length, d_model))
    if kind == "learned":
        return Positions(torch.randn(length, d_model) * 0.02, learned=True)
    return Positions(torch.zeros(length, d_model))


# %%
class Translator(nn.Module):
    """Tokens source (B, S), target (B, T) -> logits (B, T, K) of each next one.

    One matrix for source, target and output: section 3.4. Source and target share
    a vocabulary of K tokens, where PAD fills up what is shorter.
    """

    def __init__(self, vocabulary, kind="sinusoidal", length=512, **sizes):
        super().__init__()
        self.transformer = Transformer(**sizes)
        d_model = self.transformer.decoder.layers[0].linear1.in_features
        self.embedding = nn.Embedding(vocabulary, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model ** -0.5)
        self.positions = positions(kind, length, d_model)
        self.dropout = nn.Dropout(sizes.get("dropout", 0.1))

    def forward(self, source, target):
        return self.decode(target, *self.encode(source))

    def embed(self, tokens, start=0):
        scale = self.embedding.embedding_dim ** 0.5
        x = scale * self.embedding(tokens)
        return self.dropout(self.positions(x, start))

    def encode(self, source):
        """The memory (B, S, D) and its mask (B, 1, 1, S)."""
        mask = padding_mask(source, PAD)
        return self.transformer.encoder(self.embed(source), mask), mask

    def decode(self, target, memory, memory_mask):
        """Logits (B, T, K): no position sees those after it."""
        causal = causal_mask(target.shape[1], target.device)
        x = self.transformer.decoder(
            self.embed(target), memory, causal, memory_mask)
        return F.linear(x, self.embedding.weight)

    def start(self, source):
        """The state of a decoder that has written nothing, by layer."""
        memory = self.encode(source)
        layers = self.transformer.decoder.layers
        return [layer.start(*memory) for layer in layers]

    def step(self, tokens, state):
        """Logits (B, K) after one more token (B), which joins the state."""
        x = self.embed(tokens[:, None], start=state[0][0].shape[2])
        for layer, kept in zip(self.transformer.decoder.layers, state):
            x = layer.step(x, kept)
        x = self.transformer.decoder.norm(x[:, 0])
        return F.linear(x, self.embedding.weight)


# %%
def base(vocabulary=37_000):
    """The paper's base model, table 3."""
    return Translator(vocabulary, d_model=512, num_heads=8, num_layers=6,
                      d_ff=2048, dropout=0.1, final_norm=False)


def big(vocabulary=37_000):
    """The paper's big model, table 3."""
    return Translator(vocabulary, d_model=1024, num_heads=16, num_layers=6,
                      d_ff=4096, dropout=0.3, final_norm=False)


# %% [markdown]
# ## Writing a translation

# %%
@torch.no_grad()
def greedy(model, source, limit=None, cached=True):
    """The most probable token, again and again: (B, S) -> (B, T).

    A translation ends with EOS, unless the limit came first; PAD follows.
    cached: whether keys and values are kept, or all is computed anew.
    """
    limit = limit or source.shape[1] + 50   # section 6.1
    tokens = torch.full_like(source[:, :1], BOS)
    over = torch.zeros_like(source[:, 0], dtype=torch.bool)
    state = model.start(source) if cached else model.encode(source)
    while not over.all() and tokens.shape[1] <= limit:
        logits = (model.step(tokens[:, -1], state) if cached
                  else model.decode(tokens, *state)[:, -1])
        best = next_log_p(logits, over).argmax(dim=1)
        over = over | (best == EOS)
        tokens = torch.cat([tokens, best[:, None]], dim=1)
    return tokens[:, 1:]


# %%
def next_log_p(logits, over):
    """log P (B, K) of the next token; after the end it is PAD, for free."""
    logits = logits.float()
    logits[:, [PAD, BOS]] = -torch.inf
    log_p = logits.log_softmax(dim=1)
    log_p[over] = -torch.inf
    log_p[over, PAD] = 0
    return log_p


# %%
def length_penalty(length, alpha):
    """Divides log P, which falls with length: Wu et al. 2016, eq. 14."""
    return ((5 + length) / 6) ** alpha


# %%
def reorder(state, rows):
    """The state of these rows of the batch, some maybe several times."""
    return [[part[rows] for part in layer] for layer in state]


# %%
@torch.no_grad()
def beam_search(model, source, beam=4, alpha=0.6, limit=None):
    """The best of `beam` translations at each step: (B, S) -> (B, T)."""
    limit = limit or source.shape[1] + 50
    rows = torch.arange(len(source), device=source.device)
    state = reorder(model.start(source), rows.repeat_interleave(beam))
    tokens = torch.full_like(rows, BOS).repeat_interleave(beam)[:, None]
    over = torch.zeros_like(tokens[:, 0], dtype=torch.bool)
    log_p = torch.zeros(len(source), beam, device=source.device)
    log_p[:, 1:] = -torch.inf   # at first all of a sentence are the same
    while not over.all() and tokens.shape[1] <= limit:
        step = next_log_p(model.step(tokens[:, -1], state), over)
        length = (tokens != PAD).sum(dim=1) - over.int()
        log_p, rows, last = best_steps(log_p, step, length, alpha)
        tokens = torch.cat([tokens[rows], last[:, None]], dim=1)
        over = over[rows] | (last == EOS)
        state = reorder(state, rows)
    return tokens.view(len(source), beam, -1)[:, 0, 1:]


# %%
def best_steps(log_p, step, length, alpha):
    """The best `beam` ways to go on with each sentence.

    log_p (B, beam) so far, step (B beam, K), length (B beam) with it.
    Returns log_p (B, beam), the rows (B beam) gone on from, their tokens.
    """
    B, beam = log_p.shape
    total = log_p[:, :, None] + step.unflatten(0, (B, beam))  # (B, beam, K)
    rank = total / length_penalty(length, alpha).view(B, beam, 1)
    best = rank.flatten(1).topk(beam).indices                 # (B, beam)
    which, token = best // step.shape[1], best % step.shape[1]
    rows = which + beam * torch.arange(B, device=best.device)[:, None]
    return total.flatten(1).gather(1, best), rows.flatten(), token.flatten()


# %%
def translate(model, tokenizer, sentences, search=greedy, batch=100):
    """The translations of a list of sentences, in its order."""
    device = model.embedding.weight.device
    sources = [torch.tensor(encoded.ids + [EOS], device=device)
               for encoded in tokenizer.encode_batch(sentences)]
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    written, was_training = {}, model.training
    model.eval()
    for start in range(0, len(order), batch):
        chosen = order[start:start + batch]
        source = nn.utils.rnn.pad_sequence(
            [sources[i] for i in chosen], batch_first=True, padding_value=PAD)
        written |= zip(chosen, tokenizer.decode_batch(search(model, source).tolist()))
    model.train(was_training)
    return [written[i].strip() for i in range(len(sentences))]


# %% [markdown]
# ## Training

# %%
def translation_loss(logits, target, smoothing=0.1):
    """Cross-entropy of logits (B, T, K), target (B, T).

    With label smoothing, section 5.4: 1 - smoothing is for
    the right token, the rest for all K alike.
    """
    return F.cross_entropy(
        logits.flatten(0, 1), target.flatten(),
        ignore_index=PAD, label_smoothing=smoothing)


# %%
def warm_up(step, warmup):
    """Learning rate of step 1, 2, … over its peak, at step `warmup`: eq. 3.

    The paper's peak is (d_model * warmup) ** -0.5.
    """
    return min(step / warmup, (warmup / step) ** 0.5)


# %%
def quality(model, tokenizer, pairs, args, search=greedy):
    """{"exact_match": 0..1}, or {"bleu": 0..100, "signature": sacrebleu's}.

    The model writes by itself: it sees no token of the right translation.
    """
    sources, targets = map(list, zip(*pairs))
    written = translate(model, tokenizer, sources, search)
    if args.metric == "exact_match":
        right = sum(a == b for a, b in zip(written, targets))
        return {"exact_match": right / len(pairs)}
    from sacrebleu.metrics import BLEU
    bleu = BLEU()
    score = bleu.corpus_score(written, [targets]).score
    return {"bleu": score, "signature": str(bleu.get_signature())}


# %%
VARIANTS = {"Transformer": {}, "without positions": {"kind": "none"},
            "with one head": {"num_heads": 1}}
METRICS = {"exact_match": ("exactly right (%)", 100), "bleu": ("BLEU, validation", 1)}


@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 4
    batch_size: int = cli.flag(512, "tokens of a side in a step")     # paper: 25,000
    lr: float = cli.flag(0.005, "learning rate at its peak", above=0)
    warmup: int = cli.flag(60, "steps until the peak")      # paper: 4,000 of 100,000
    d_model: int = cli.flag(64, "width of the model, an even number")    # paper: 512
    d_ff: int = cli.flag(128, "width of the feed-forward networks")     # paper: 2048
    num_heads: int = cli.flag(4, "attention heads")                        # paper: 8
    num_layers: int = cli.flag(1, "layers of the encoder, and of the decoder")    # 6
    dropout: float = 0.0                                                 # paper: 0.1
    smoothing: float = cli.flag(0.1, "share of a label spread over all tokens", most=1)
    tokens: int | None = cli.flag(
        None, "byte pairs of the vocabulary; without, whole words", least=300)
    longest: int = cli.flag(32, "tokens of a sentence; none is longer", least=4)
    metric: str = cli.flag("exact_match", "what chooses the best epoch",
                           choices=tuple(METRICS))
    beam: int = cli.flag(1, "hypotheses kept when the test set is translated")
    compared: tuple[str, ...] = cli.flag(tuple(VARIANTS), "models compared",
                                         choices=tuple(VARIANTS))
    text: tuple[str, ...] = cli.flag(
        ("seven hundred and twenty three", "seven thousand and ninety three"),
        "sentences to translate and to look at")
    runs: int = 3

    def __post_init__(self):
        if self.d_model % (2 * self.num_heads):
            raise ValueError(f"--d-model {self.d_model} is no multiple of twice "
                             f"--num-heads {self.num_heads}")


SETTINGS = {
    "numbers": Settings(),
    "multi30k": Settings(
        epochs=12, batch_size=2048, lr=0.002, warmup=800, d_model=128, d_ff=512,
        num_layers=4, dropout=0.1, tokens=4000, longest=100, metric="bleu", beam=5,
        compared=("Transformer",), text=("A girl has bought a red bicycle.",), runs=1,
        threads=0)}


# %%
class Trained(NamedTuple):
    model: Translator
    tokenizer: object
    history: dict


@parallel.memoize
def trained(variant, args, seed):
    """A Translator, Trained as in section 5.

    Of its epochs it is the one that translates the validation set best.
    """
    torch.manual_seed(seed)
    train, validation, _ = text.load(args)
    tokenizer = text.vocabulary(
        [sentence for pair in train for sentence in pair], args.tokens)
    sizes = {"d_model": args.d_model, "num_heads": args.num_heads, "d_ff": args.d_ff,
             "num_layers": args.num_layers, "dropout": args.dropout}
    model = training.place(Translator(
        tokenizer.get_vocab_size(), **sizes | VARIANTS[variant]), args)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, betas=(0.9, 0.98),
                                 eps=1e-9, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warm_up(step + 1, args.warmup))

    def step(batch):
        source, target = batch
        with training.precision(args):
            logits = model(source, target[:, :-1])   # each sees those before it
            loss = translation_loss(logits, target[:, 1:], args.smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return {"loss": loss}

    def validate():
        return {args.metric: quality(model, tokenizer, validation, args)[args.metric]}

    batches = text.Translations(train, tokenizer, args.longest).loader(args.batch_size)
    history = training.fit(
        step, batches, args, seed=seed, validate=validate, best=args.metric,
        save={"model": model, "optimizer": optimizer, "schedule": schedule},
        name=f"transformer-{variant}-{args.data}-{seed}".replace(" ", "-"))
    return Trained(model, tokenizer, history)


# %%
@parallel.memoize
def score(variant, args, seed):
    """quality() on the test set, by beam search."""
    _, _, test = text.load(args)
    model, tokenizer, _ = trained(variant, args, seed)
    return quality(model, tokenizer, test, args, partial(beam_search, beam=args.beam))


# %%
def alignment(model, tokenizer, sentence):
    """What the model writes, and where it looks while it writes each token.

    Returns the source's tokens (S), those written (T), and the weights (H, T, S) of
    the last layer's attention to the source.
    """
    source = torch.tensor([tokenizer.encode(sentence).ids + [EOS]],
                          device=model.embedding.weight.device)
    if UNKNOWN in source:
        known = set(tokenizer.get_vocab())
        word = next(word for word in sentence.split() if word not in known)
        raise UserError(f"the model knows no word {word!r}")
    model.eval()
    written = greedy(model, source)
    shifted = F.pad(written[:, :-1], (1, 0), value=BOS)
    with torch.no_grad(), attention_maps(model) as maps:
        model(source, shifted)
    *_, last = [maps[name] for name in maps if name.endswith("multihead_attn")]
    words = [[tokenizer.decode([i]).strip() or "end" for i in side.tolist()]
             for side in (source[0], written[0])]
    return *words, last[0]


# %%
def gradient_norms(norm_first, args, seed, num_layers=6):
    """Norm of the first gradient of each layer's linear2, encoder before decoder."""
    torch.manual_seed(seed)
    train, _, _ = text.load(args)
    tokenizer = text.vocabulary(
        [sentence for pair in train for sentence in pair], args.tokens)
    pairs = text.Translations(train.first(64), tokenizer, args.longest)
    source, target = pairs[range(len(pairs))]
    model = Translator(
        tokenizer.get_vocab_size(), d_model=args.d_model, num_heads=args.num_heads,
        num_layers=num_layers, d_ff=4 * args.d_model, norm_first=norm_first,
        final_norm=norm_first)
    translation_loss(model(source, target[:, :-1]), target[:, 1:]).backward()
    stacks = model.transformer.encoder, model.transformer.decoder
    return [layer.linear2.weight.grad.norm().item()
            for stack in stacks for layer in stack.layers]


# %%
def record(variant, args):
    """Note what trainings that differ only in their seed reach on the test set."""
    name = variant.replace(" ", "_")
    scores = [score(variant, args, seed) for seed in args.seeds]
    runs = [trained(variant, args, seed) for seed in args.seeds]
    found = [each[args.metric] for each in scores]
    results.record(f"{name}_{args.metric}", sum(found) / len(found))
    results.record(f"{name}_{args.metric}_lowest", min(found))
    results.record(f"{name}_{args.metric}_highest", max(found))
    seconds = [sum(run.history["seconds"]) for run in runs]
    results.record(f"{name}_seconds", sum(seconds) / len(seconds))
    results.record("parameters", measure.parameters(runs[0].model))
    if "signature" in scores[0]:
        results.record("signature", scores[0]["signature"])


# %%
def same_words(pairs, test):
    """The share of `test` that is right at best if the order of words is lost.

    Of the sources with the same words in any order only one can be right.
    """
    alike = Counter(" ".join(sorted(source.split())) for source, _ in pairs)
    return sum(1 / alike[" ".join(sorted(source.split()))]
               for source, _ in test) / len(test)


# %% [markdown]
# ## Figures

# %%
def architecture(model):
    """Encoder above, decoder below, as in figure 1, with the sizes of this model."""
    figure, axis = figures.sheet((1168, 420))
    layer = model.transformer.decoder.layers[0]
    D, heads = layer.linear1.in_features, layer.self_attn.num_heads
    many = f"{heads} heads of {D // heads}"
    feed = "feed-forward", f"{D} → {layer.linear1.out_features} → {D}"
    K = model.embedding.num_embeddings
    rows = [(104, "source", "S tokens", [("self-attention", many), feed]),
            (306, "target so far", "T tokens", [
                ("self-attention", "of what is before"),
                ("attention to source", many), feed])]
    for y, name, shape, sublayers in rows:
        draw_box(axis, 0, y, 126, name, shape, "muted")
        draw_box(axis, 152, y, 126, "embedding", "+ positions", "purple")
        draw_layer(axis, 306, y, sublayers, len(model.transformer.decoder.layers))
        draw_arrows(axis, y, [(126, 152), (278, 322)])
    draw_arrows(axis, 306, [(1036, 1052)])
    draw_box(axis, 1052, 306, 114, "next token", f"{K:,} logits", "purple")
    x, y = 322 + 238 + 80, 205   # from the encoder's end to the decoder's middle
    axis.plot([799, 830, 830, x, x], [104, 104, y, y, 262], linewidth=2.4,
              color=figures.color("idea"))
    draw_arrows(axis, 262, [(x, x)])
    axis.text(842, 150, f"memory, S × {D}:", color=figures.color("idea"), size=18)
    axis.text(842, 176, "keys and values", color=figures.color("idea"), size=18)
    return figure


# %%
def draw_layer(axis, x, y, sublayers, count):
    """A frame with sublayers, each with its shortcut to "add, norm"."""
    from matplotlib.patches import FancyBboxPatch
    wide = 16 + 238 * len(sublayers)
    axis.add_patch(FancyBboxPatch(
        (x, y - 82), wide, 138, "round,pad=0,rounding_size=12", linewidth=1.5,
        facecolor=figures.color("panel"), edgecolor=figures.color("lines")))
    axis.text(x + wide - 10, y - 58, f"×{count}", ha="right", weight="bold")
    for i, (name, detail) in enumerate(sublayers):
        left = x + 16 + 238 * i
        draw_box(axis, left, y, 160, name, detail, "idea")
        draw_box(axis, left + 172, y, 50, "add", "norm", "muted")
        axis.plot([left - 7] * 2 + [left + 197] * 2, [y, y - 50, y - 50, y - 36],
                  color=figures.color("idea"), linewidth=2.4)
        draw_arrows(axis, y, [(left + 160, left + 172)])
        if i:
            draw_arrows(axis, y, [(left - 16, left)])


# %%
def draw_box(axis, x, y, wide, name, detail, role):
    """A rounded box around (x + wide / 2, y) with two lines of text."""
    from matplotlib.patches import FancyBboxPatch
    axis.add_patch(FancyBboxPatch(
        (x, y - 36), wide, 72, "round,pad=0,rounding_size=8", linewidth=1.5,
        facecolor=figures.color(role, 0.14), edgecolor=figures.color(role)))
    for up, words, weight in (-12, name, "bold"), (14, detail, "normal"):
        axis.text(x + wide / 2, y + up, words, ha="center", va="center_baseline",
                  size=16, weight=weight)


# %%
def draw_arrows(axis, y, ends):
    """Arrows to the right; one without length points down."""
    for start, end in ends:
        axis.annotate("", (end, y if end > start else y + 8), (start, y), arrowprops={
            "arrowstyle": "-|>", "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0,
            "color": figures.color("idea" if start == end else "muted")})


# %%
def attention_figure(maps):
    """For each (source, written, weights (H, T, S)) where each token looked.

    The mean over the heads is shown.
    """
    figure, axis = figures.sheet((1168, 520))
    words, names = (14 + max(figures.width(figure, word, weight="bold")
                             for sides in maps for word in sides[k]) for k in (0, 1))
    room = 1168 / len(maps)
    side = min(62, *((room - names - 40) / len(source) for source, _, _ in maps),
               *((516 - words) / len(written) for _, written, _ in maps))
    for k, (source, written, weights) in enumerate(maps):
        left = k * room + names
        for column, word in enumerate(source):
            axis.text(left + (column + 0.5) * side, words - 8, word, rotation=90,
                      ha="center", va="bottom")
        for row, word in enumerate(written):
            axis.text(left - 10, words + (row + 0.5) * side, word, ha="right",
                      va="center_baseline", weight="bold", color=figures.color("idea"))
        for row, line in enumerate(weights.mean(0).tolist()):
            for column, weight in enumerate(line):
                axis.add_patch(square(
                    left + column * side, words + row * side, side, weight))
    figures.crop(figure, words + side * max(len(written) for _, written, _ in maps) + 2)
    return figure


# %%
def square(x, y, side, weight):
    """A cell of a map: the bluer, the nearer its weight is to one."""
    from matplotlib.patches import Rectangle
    return Rectangle((x + 1, y + 1), side - 2, side - 2, linewidth=0,
                     facecolor=figures.color("idea", 0.05 + 0.95 * weight))


# %%
def positions_figure(table):
    """The table (length, D), and how alike the rows of two positions are."""
    figure, axes = figures.panels(2, sharey=False, ylabel="position",
                                  titles=["a row for each position",
                                          "alike: those nearby"])
    axes[0].imshow(signed(table), aspect="auto")
    axes[0].set_xlabel("column")
    alike = table @ table.T / table.square().sum(1)
    for position, role in (10, "idea"), (40, "purple"):
        axes[1].plot(alike[position], color=figures.color(role),
                     label=f"position {position}")
        axes[1].plot(position, 1, "o", color=figures.color(role), label="_")
    axes[1].set_xlabel("the other position")
    axes[1].set_ylabel("cosine of the two rows")
    for axis in axes:
        axis.grid(visible=False)
    return figure


# %%
def signed(values):
    """Values from -1 to 1 as colours (…, 4): vermilion to blue, zero is clear."""
    from matplotlib.colors import to_rgb
    blue, vermilion = (torch.tensor(to_rgb(figures.color(role)))
                       for role in ("idea", "control"))
    sign = values[..., None] < 0
    return torch.cat([torch.where(sign, vermilion, blue), values.abs()[..., None]], -1)


# %%
def facts():
    """What the slides state of Transformers, computed."""
    values = {}
    with torch.device("meta"):
        tokens = torch.ones(1, 32, dtype=torch.long)
        for build in [base, big]:
            model, name = build(), build.__name__
            values[f"{name}_parameters"] = measure.parameters(model)
            values[f"{name}_embedding"] = measure.parameters(model.embedding)
            values[f"{name}_multiply_adds"] = measure.multiply_adds(
                model, tokens, tokens)
        layers = {"encoder_layer": EncoderLayer(512, 8, 2048),
                  "decoder_layer": DecoderLayer(512, 8, 2048),
                  "attention": MultiHeadAttention(512, 8)}
        library = nn.Transformer(batch_first=True)
    for name, layer in layers.items():
        values[f"{name}_parameters"] = measure.parameters(layer)
    values["library_parameters"] = measure.parameters(library)
    for name, d_model in ("base", 512), ("big", 1024):
        values[f"{name}_peak_learning_rate"] = (d_model * 4000) ** -0.5
    return values


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Encoder and decoder
if __name__ == "__main__":
    with torch.device("meta"):   # the figure needs sizes only
        model = base()
    figures.save(architecture(model), "transformer-architecture")

# %% The table of positions
if __name__ == "__main__":
    figures.save(positions_figure(sinusoids(64, 128)), "transformer-positions")

# %% Learning rate
if __name__ == "__main__":
    figure, (axis,) = figures.panels(xlabel="step", ylabel="learning rate")
    steps = range(1, 40_001, 50)
    for name, d_model, role in [("base", 512, "idea"), ("big", 1024, "purple")]:
        peak = (d_model * 4000) ** -0.5
        axis.plot(steps, [peak * warm_up(step, warmup=4000) for step in steps],
                  color=figures.color(role), label=name)
    axis.set_ylim(bottom=0)
    figures.label_lines(axis)
    figures.annotate(axis, 4000, (512 * 4000) ** -0.5,
                     "up for 4,000 steps,\nthen down with 1/√step")
    figures.save(figure, "transformer-schedule")

# %% Encoder layer
if __name__ == "__main__":
    figures.save(figures.flow(
        EncoderLayer(512, 8, 2048), (1, 32, 512), whole=(MultiHeadAttention,),
        down=False, size=(756, 240)), "transformer-encoder-layer")

# %% Trainings
if __name__ == "__main__":
    parallel.precompute(product([trained], args.compared, [args], args.seeds))
    parallel.precompute(product([score], args.compared, [args], args.seeds))

# %% Where it looks
if __name__ == "__main__":
    model, tokenizer, _ = trained("Transformer", args, args.seed)
    maps = [alignment(model, tokenizer, sentence) for sentence in args.text]
    for source, written, _ in maps:
        print(*source[:-1], "→", *written[:-1])
    figures.save(attention_figure(maps), "transformer-attention")

# %% With and without positions
if __name__ == "__main__":
    comparison, (train, validation, test) = {}, text.load(args)
    ylabel, scale = METRICS[args.metric]
    for variant in args.compared:
        record(variant, args)
        role = "idea" if variant == "Transformer" else "control"
        histories = [trained(variant, args, seed).history for seed in args.seeds]
        comparison[variant] = role, {f"{args.runs} seeds": [
            [scale * value for value in history[args.metric]]
            for history in histories]}
    figure = figures.curves(comparison, ylabel=ylabel)
    if "without positions" in args.compared:
        limit = same_words([*train, *validation, *test], test)
        results.record("same_words", limit)
        axis, y = figure.axes[1], scale * limit
        axis.axhline(y, color=figures.color("muted"), dashes=(4, 3))
        figures.annotate(axis, (1 + args.epochs) / 2, y,
                         f"{y:.0f} %: as much as can\nbe told without order")
    figures.save(figure, "transformer-controls")

# %% Gradient by layer
if __name__ == "__main__":
    figure, axes = figures.panels(
        2, titles=["encoder", "decoder"], xlabel="layer",
        ylabel="norm of its first gradient")
    for role, order in [("idea", "post"), ("purple", "pre")]:
        norms = torch.tensor([gradient_norms(order == "pre", args, seed)
                              for seed in args.seeds])
        for axis, part in zip(axes, norms.chunk(2, dim=1)):
            figures.band(axis, range(1, 7), part, role, f"{order}-norm")
        results.record(f"{order}_norm_gradient1", norms[:, 6].mean())
        results.record(f"{order}_norm_gradient6", norms[:, 11].mean())
    axes[0].set_ylim(bottom=0)
    figures.label_lines(axes[1])
    figures.save(figure, "transformer-norms")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
