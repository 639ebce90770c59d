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
# - **Time**: about 55 s on 2 CPU cores

# %%
from collections import namedtuple
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from beam_search import DecoderState, beam_search, greedy
from lab import UserError, cli, compare, figures, measure, results, text, training
from multi_head import (
    KeyValueCache,
    MultiHeadAttention,
    attention_maps,
    causal_mask,
    padding_mask,
)

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
        if self.norm_first:    # pre-norm: Xiong et al. 2020
            y = self.norm1(x)
            x = x + self.dropout(self.self_attn(y, y, y, mask))
            y = self.feed_forward(self.norm2(x))
            return x + self.dropout(y)
        y = self.self_attn(x, x, x, mask)
        x = self.norm1(x + self.dropout(y))
        y = self.feed_forward(x)
        return self.norm2(x + self.dropout(y))

    def feed_forward(self, x):
        """Two linear layers, the same at each position: eq. 2."""
        # paper: dropout on sublayers only; library: here, on attention too
        y = F.relu(self.linear1(x))            # (B, S, d_ff)
        return self.linear2(self.dropout(y))   # (B, S, D)


# %%
class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, a network: figure 1, right.

    x (B, T, D), memory (B, S, D) -> (B, T, D). caches: KeyValueCaches of
    the two attentions, to which x and memory are added.
    """

    def __init__(self, d_model, num_heads, d_ff, dropout=0.1,
                 norm_first=False):
        super().__init__()
        self.norm_first = norm_first
        self.self_attn = MultiHeadAttention(d_model, num_heads, dropout)
        self.multihead_attn = MultiHeadAttention(d_model, num_heads, dropout)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None,
                caches=(None, None)):
        own, across = caches
        if self.norm_first:
            y = self.norm1(x)
            x = x + self.dropout(self.self_attn(y, y, y, mask, own))
            y = self.multihead_attn(self.norm2(x), memory, memory,
                                    memory_mask, across)
            x = x + self.dropout(y)
            return x + self.dropout(self.feed_forward(self.norm3(x)))
        y = self.self_attn(x, x, x, mask, own)
        x = self.norm1(x + self.dropout(y))
        y = self.multihead_attn(x, memory, memory, memory_mask, across)
        x = self.norm2(x + self.dropout(y))
        return self.norm3(x + self.dropout(self.feed_forward(x)))

    def feed_forward(self, x):
        y = F.relu(self.linear1(x))            # (B, T, d_ff)
        return self.linear2(self.dropout(y))   # (B, T, D)


# %%
class Encoder(nn.Module):
    """Layers one after the other, then a norm: (B, S, D) -> (B, S, D)."""

    def __init__(self, layers, norm):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, x, mask=None):
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


# %%
class Decoder(nn.Module):
    """Layers one after the other, all with the same memory, then a norm.

    x (B, T, D), memory (B, S, D) -> (B, T, D). caches: a pair for each layer.
    """

    def __init__(self, layers, norm):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, x, memory, mask=None, memory_mask=None, caches=None):
        caches = caches or [(None, None)] * len(self.layers)
        for layer, pair in zip(self.layers, caches):
            x = layer(x, memory, mask, memory_mask, pair)
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
        norm = partial(nn.LayerNorm, d_model) if final_norm else nn.Identity
        self.encoder = Encoder(
            [EncoderLayer(*sizes) for _ in range(num_layers)], norm())
        self.decoder = Decoder(
            [DecoderLayer(*sizes) for _ in range(num_layers)], norm())
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def forward(self, source, target, source_mask=None, target_mask=None):
        memory = self.encoder(source, source_mask)
        return self.decoder(target, memory, target_mask, source_mask)


# %%
def sinusoids(length, d_model):
    """The table (length, d_model) of section 3.5: row p has
    sin(p / 10000^(2i/D)) in column 2i, cos in 2i + 1."""
    position = torch.arange(length)[:, None]
    column = torch.arange(0, d_model, 2)
    angle = position / 10_000 ** (column / d_model)
    waves = torch.stack([angle.sin(), angle.cos()], dim=2)
    return waves.flatten(1)


# %%
class Positions(nn.Module):
    """Adds to x (B, T, D) rows of a table (length, D), from `start` on.

    kind: "sinusoidal", "learned" (table 3, row E) or "none", the control.
    """

    def __init__(self, kind, length, d_model):
        super().__init__()
        if kind == "learned":
            self.table = nn.Parameter(0.02 * torch.randn(length, d_model))
        else:
            table = sinusoids(length, d_model) * (kind == "sinusoidal")
            self.register_buffer("table", table, persistent=False)

    def forward(self, x, start=0):
        end = start + x.shape[1]
        if end > len(self.table):
            raise UserError(f"a sentence of {end:,} tokens is longer than "
                            f"the model's {len(self.table):,} positions")
        return x + self.table[start:end]


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
        self.positions = Positions(kind, length, d_model)
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
        """The state of a decoder that has written nothing."""
        memory, mask = self.encode(source)
        caches = [(KeyValueCache(), KeyValueCache())
                  for _ in self.transformer.decoder.layers]
        return DecoderState(memory, mask, caches)

    def step(self, tokens, state):
        """Logits (B, K) after one more token (B), which joins the state."""
        own, _ = state.caches[0]
        x = self.embed(tokens[:, None], start=len(own))     # (B, 1, D)
        x = self.transformer.decoder(
            x, state.memory, None, state.memory_mask, state.caches)
        state.memory = state.memory[:, :0]   # the caches have it now
        return F.linear(x[:, 0], self.embedding.weight)


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
# ## Training, section 5; sizes from table 3

# %%
def translation_loss(logits, target, smoothing=0.1):
    """Cross-entropy of logits (B, T, K), target (B, T).

    Label smoothing, section 5.4: smoothing is spread over all K tokens.
    """
    return F.cross_entropy(
        logits.flatten(0, 1), target.flatten(),
        ignore_index=PAD, label_smoothing=smoothing)


# %%
def warm_up(step, warmup):
    """Learning rate at step 1, 2, … over its peak, at step `warmup`: eq. 3."""
    return min(step / warmup, (warmup / step) ** 0.5)


# %%
VARIANTS = {"Transformer": {}, "without positions": {"kind": "none"},
            "with one head": {"num_heads": 1}}
METRICS = {"exact_match": "exact matches (%)", "bleu": "BLEU, validation"}


@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 4
    batch_size: int = cli.flag(512, "tokens of a side in a step")     # paper: 25,000
    lr: float | None = cli.flag(None, "learning rate at its peak", above=0)
    rates: tuple[float, ...] = (0.0025, 0.005, 0.01, 0.02)
    tune: bool = False
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
        if "Transformer" not in self.compared:
            raise ValueError("--compared lacks Transformer, with which the others "
                             "are compared")


SETTINGS = {"numbers": Settings(), "multi30k": Settings(
    epochs=12, batch_size=2048, lr=0.002, warmup=800, d_model=128, d_ff=512, runs=1,
    num_layers=4, dropout=0.1, tokens=4000, longest=100, metric="bleu", beam=5,
    compared=("Transformer",), text=("A girl has bought a red bicycle.",), threads=0)}


# %%
Trained = namedtuple("Trained", "model tokenizer history")


@training.memoize
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
        score = text.quality(model, tokenizer, validation, args.metric, greedy)
        return {args.metric: score[args.metric]}

    batches = text.Translations(train, tokenizer, args.longest).loader(args.batch_size)
    history = training.fit(
        step, batches, args, seed=seed, validate=validate, best=args.metric,
        save={"model": model, "optimizer": optimizer, "schedule": schedule},
        name=f"transformer-{variant}-{args.data}-{seed}".replace(" ", "-"))
    return Trained(model, tokenizer, history)


# %%
def sides(args):
    """The models compared: {name: its training}."""
    return {variant.replace(" ", "_"): (trained, variant) for variant in args.compared}


# %%
@training.memoize
def score(variant, args, seed):
    """text.quality() on the test set, by beam search."""
    model, tokenizer, _ = trained(variant, args, seed)
    return text.quality(model, tokenizer, text.load(args)[2], args.metric,
                        partial(beam_search, beam=args.beam))


# %%
def alignment(model, tokenizer, sentence):
    """Translate a sentence, and note what each new token attends to.

    Returns the source's tokens (S), those written (T), and the weights (H, T, S) of
    the last layer's attention to the source.
    """
    source = torch.tensor([text.known_tokens(tokenizer, sentence)],
                          device=model.embedding.weight.device)
    model.eval()
    written = greedy(model, source, limit=source.shape[1] + 50)
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
    source, target = torch.randint(UNKNOWN + 1, 100, (2, 64, 12))
    model = Translator(
        100, d_model=args.d_model, num_heads=args.num_heads,
        num_layers=num_layers, d_ff=4 * args.d_model, norm_first=norm_first,
        final_norm=norm_first)
    translation_loss(model(source, target[:, :-1]), target[:, 1:]).backward()
    stacks = model.transformer.encoder, model.transformer.decoder
    return [layer.linear2.weight.grad.norm().item()
            for stack in stacks for layer in stack.layers]


# %%
def facts():
    """Numbers on the slides that follow from the networks alone."""
    values, tokens = {}, torch.ones(1, 32, dtype=torch.long)
    for build in [base, big]:
        name = build.__name__
        values |= measure.costs(name, build, tokens, tokens)
        with torch.device("meta"):
            values[f"{name}_embedding"] = measure.parameters(build().embedding)
    with torch.device("meta"):
        layers = {"encoder_layer": EncoderLayer(512, 8, 2048),
                  "decoder_layer": DecoderLayer(512, 8, 2048),
                  "attention": MultiHeadAttention(512, 8),
                  "library": nn.Transformer(batch_first=True)}
    for name, layer in layers.items():
        values[f"{name}_parameters"] = measure.parameters(layer)
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
    decoder = model.transformer.decoder.layers
    D, heads = decoder[0].linear1.in_features, decoder[0].self_attn.num_heads
    feed = "feed-forward", f"{D} → {decoder[0].linear1.out_features} → {D}"
    embedding = "embedding", "+ positions", "purple"
    logits = "next token", f"{model.embedding.num_embeddings:,} logits", "purple"
    figures.save(figures.stacks([
        [("source", "S tokens", "muted"), embedding, (len(decoder), [
            ("self-attention", f"{heads} heads of {D // heads}"), feed])],
        [("target so far", "T tokens", "muted"), embedding, (len(decoder), [
            ("self-attention", "to what is before"),
            ("cross-attention", f"{heads} heads of {D // heads}"), feed]), logits]],
        memory=[f"memory, S × {D}:", "keys and values"]), "transformer-architecture")

# %% The table of positions
if __name__ == "__main__":
    table = sinusoids(64, 128)                              # (length, D)
    cosine = table @ table.T / table.square().sum(1)
    figure, (rows, similar) = figures.panels(
        2, sharey=False, ylabel="position",
        titles=["a row for each position", "similar: those nearby"])
    rows.imshow(figures.signed(table), aspect="auto")
    for position, role in (10, "idea"), (40, "purple"):
        similar.plot(cosine[position], color=figures.color(role),
                     label=f"position {position}")
        similar.plot(position, 1, "o", color=figures.color(role), label="_")
    rows.set(xlabel="column")
    similar.set(xlabel="the other position", ylabel="cosine of the two rows")
    for axis in (rows, similar):
        axis.grid(visible=False)
    figures.save(figure, "transformer-positions")

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
    compare.train(sides(args), args)
    training.precompute(
        (score, variant, compare.chosen(name, args), seed)
        for name, (_, variant) in sides(args).items() for seed in args.seeds)

# %% Where it attends
if __name__ == "__main__":
    model, tokenizer, _ = trained(
        "Transformer", compare.chosen("Transformer", args), args.seed)
    maps = []
    for sentence in args.text:
        source, written, weights = alignment(model, tokenizer, sentence)
        print(*source[:-1], "→", *written[:-1])
        maps.append(figures.Heatmap("", weights.mean(dim=0), written, source))
    figures.save(figures.heatmaps([maps]), "transformer-attention")

# %% With and without positions
if __name__ == "__main__":
    networks, comparison = compare.train(sides(args), args), {}
    for name, (_, variant) in sides(args).items():
        chosen = compare.chosen(name, args)
        scores = [score(variant, chosen, seed) for seed in args.seeds]
        results.record_range(f"{name}_test_{args.metric}",
                             [each[args.metric] for each in scores])
        role = "idea" if variant == "Transformer" else "control"
        comparison[variant] = role, {f"{args.runs} seeds": training.by_epoch(
            networks[name], args.metric)}
    results.record("parameters", measure.parameters(networks["Transformer"][0].model))
    if "signature" in scores[0]:
        results.record("signature", scores[0]["signature"])
    figure = figures.curves(comparison, ylabel=METRICS[args.metric])
    if "without positions" in args.compared:
        train, validation, test = text.load(args)
        limit = text.most_without_order([*train, *validation, *test], test)
        results.record("same_words", limit)
        axis = figure.axes[1]
        axis.axhline(limit, color=figures.color("muted"), dashes=(4, 3))
        figures.annotate(axis, (1 + args.epochs) / 2, limit,
                         f"{limit:.0%}: as much as can\nbe told without order")
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
