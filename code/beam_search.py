# %% [markdown]
# # Beam search
#
# - **Paper**: Yonghui Wu et al. *Google's Neural Machine Translation System: Bridging
#   the Gap between Human and Machine Translation*. arXiv 2016.
#   [arXiv:1609.08144](https://arxiv.org/abs/1609.08144)
# - **Paper**: Philipp Koehn, Rebecca Knowles. *Six Challenges for Neural Machine
#   Translation*. WNMT 2017. [arXiv:1706.03872](https://arxiv.org/abs/1706.03872)
# - **Idea**: a model says how probable the next token is; to find a probable sentence,
#   keep the best few beginnings at each step instead of only the best one.
# - **Demo**: languages so small that all their sentences can be scored: how often
#   greedy and beam search find the best one, and how long what they find is.
# - **Time**: about 2 s on 2 CPU cores

# %%
from dataclasses import dataclass

import torch

from lab import cli, figures, results
from lab.text import BOS, EOS, PAD, UNKNOWN

# A model that is searched has start(source) -> state, and step(tokens (B), state) ->
# logits (B, K) of the next token, which adds these tokens to the state. state[rows] is
# the state of these rows of the batch, some maybe several times.


# %%
@dataclass
class DecoderState:
    """What the decoder attends to: memory, and the layers' pairs of caches."""
    memory: torch.Tensor          # (B, S, D); after the first step (B, 0, D)
    memory_mask: torch.Tensor     # (B, 1, 1, S)
    caches: list

    def __getitem__(self, rows):
        """The state of these rows of the batch."""
        caches = [(own[rows], across[rows]) for own, across in self.caches]
        return DecoderState(self.memory[rows], self.memory_mask[rows], caches)


# %% [markdown]
# ## Searching

# %%
@torch.no_grad()
def greedy(model, source, limit):
    """Take the most probable token, again and again: (B, S) -> (B, T).

    A sentence ends with EOS, or with its token number `limit`.
    """
    state = model.start(source)
    tokens = torch.full_like(source[:, :1], BOS)
    over = torch.zeros_like(source[:, 0], dtype=torch.bool)
    while not over.all() and tokens.shape[1] <= limit:
        log_p = next_log_p(model.step(tokens[:, -1], state), over)
        best = log_p.argmax(dim=1)                          # (B)
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
@torch.no_grad()
def beam_search(model, source, limit, beam=4, alpha=0.6):
    """Return the best of `beam` sentences kept at each step: (B, T)."""
    rows = torch.arange(len(source), device=source.device)
    state = model.start(source)[rows.repeat_interleave(beam)]
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
        state = state[rows]
    return tokens.view(len(source), beam, -1)[:, 0, 1:]


# %%
def best_steps(log_p, step, length, alpha):
    """Choose the best `beam` continuations of each sentence.

    log_p (B, beam) so far, step (B beam, K), length (B beam) with it.
    Returns log_p (B, beam), the rows (B beam) they continue, their tokens.
    """
    B, beam = log_p.shape
    total = log_p[:, :, None] + step.unflatten(0, (B, beam))  # (B, beam, K)
    rank = total / length_penalty(length, alpha).view(B, beam, 1)
    best = rank.flatten(1).topk(beam).indices                 # (B, beam)
    which, token = best // step.shape[1], best % step.shape[1]
    rows = which + beam * torch.arange(B, device=best.device)[:, None]
    return total.flatten(1).gather(1, best), rows.flatten(), token.flatten()


# %%
@torch.no_grad()
def exhaustive(model, source, limit):
    """Find the most probable of all sentences with at most `limit` tokens.

    source (1, S) -> (T), and its log P. Sentences that are not over by then count,
    too, as they do for beam search.
    """
    state, log_p = model.start(source), torch.zeros(1)
    tokens = torch.full_like(source[:, :1], BOS)
    over = torch.zeros(1, dtype=torch.bool)
    for _ in range(limit):
        step = next_log_p(model.step(tokens[:, -1], state), over)
        rows, last = step.isfinite().nonzero(as_tuple=True)  # every continuation
        log_p = log_p[rows] + step[rows, last]
        tokens = torch.cat([tokens[rows], last[:, None]], dim=1)
        over, state = over[rows] | (last == EOS), state[rows]
    best = log_p.argmax()
    return tokens[best, 1:], log_p[best]


# %%
@torch.no_grad()
def score(model, source, sentences):
    """Compute log P (B) of sentences (B, T), as the searches write them."""
    state, total = model.start(source), 0
    last = torch.full_like(sentences[:, 0], BOS)
    over = torch.zeros_like(last, dtype=torch.bool)
    for token in sentences.T:
        log_p = next_log_p(model.step(last, state), over)
        total = total + log_p.gather(1, token[:, None])[:, 0]
        over, last = over | (token == EOS), token
    return total


# %% [markdown]
# ## Languages whose best sentence is known

# %%
class RandomLanguage:
    """Random probabilities of the next token, for each last one and position.

    source (B, 1): the number of a language, below `count`. A sentence ends at each
    step with a probability of about 1 / (words + 1).
    """

    def __init__(self, count, words, limit, seed, sharpness=1.5):
        generator = torch.Generator().manual_seed(seed)
        tokens = UNKNOWN + 1 + words
        self.logits = sharpness * torch.randn(
            count, limit, tokens, tokens, generator=generator)
        self.logits[..., UNKNOWN] = -torch.inf

    def start(self, source):
        return torch.cat([source, torch.zeros_like(source)], dim=1)

    def step(self, tokens, state):
        logits = self.logits[state[:, 0], state[:, 1], tokens]
        state[:, 1] += 1
        return logits


# %%
@dataclass(frozen=True)
class Settings(cli.Settings):
    languages: int = cli.flag(200, "languages searched, for each seed")
    words: int = cli.flag(5, "words of a language", most=8)
    limit: int = cli.flag(5, "tokens of the longest sentence", most=7)
    beams: tuple[int, ...] = cli.flag((1, 2, 4, 8, 16), "beams compared")
    alphas: tuple[float, ...] = cli.flag((0.0, 0.6, 1.0), "length penalties compared")
    long: int = cli.flag(30, "tokens of the longest sentence where length is measured")
    runs: int = 3


SETTINGS = {"languages": Settings()}


# %%
def found(args, seed):
    """How often each beam finds the best sentence, and how probable what it finds is.

    Two lists, for args.beams: shares of the languages, and means of P / P(best).
    """
    count = 10 if args.quick else args.languages
    model = RandomLanguage(count, args.words, args.limit, seed)
    source = torch.arange(count)[:, None]
    best = torch.stack([exhaustive(model, row[None], args.limit)[1] for row in source])
    written = [beam_search(model, source, args.limit, beam, alpha=0)
               for beam in args.beams]
    ratios = [(score(model, source, sentences) - best).exp() for sentences in written]
    return ([(ratio > 0.9999).float().mean().item() for ratio in ratios],
            [ratio.mean().item() for ratio in ratios])


# %%
def lengths(alpha, args, seed):
    """The mean length of what each of args.beams finds, in tokens."""
    count = 10 if args.quick else args.languages
    model = RandomLanguage(count, args.words, args.long, seed)
    source = torch.arange(count)[:, None]
    written = [beam_search(model, source, args.long, beam, alpha)
               for beam in args.beams]
    return [(tokens != PAD).sum().item() / count for tokens in written]


# %%
def facts():
    """Numbers on the slides that follow from the definitions alone."""
    words, limit = Settings().words, Settings().limit
    over = sum(words ** n for n in range(limit))
    # a step of the decoder for each beginning, none of which is over
    return {"sentences": over + words ** limit, "steps_of_greedy": limit,
            "steps_of_beam4": 4 * limit, "steps_of_exhaustive": over,
            **{f"penalty_{n}": length_penalty(n, alpha=0.6) for n in (10, 20)}}


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Beam search against the best sentence
if __name__ == "__main__":
    runs = [found(args, seed) for seed in args.seeds]
    figure, axes = figures.panels(
        2, xlabel="beam; 1 is greedy search", sharey=False,
        titles=["best sentence found", "probability, of the best one's"])
    for axis, key, values in zip(axes, ["found", "ratio"], zip(*runs)):
        figures.band(axis, args.beams, values, "idea", "beam search",
                     linewidth=figures.HEAVY, marker="o", clip_on=False)
        axis.axhline(1, color=figures.color("control"), linewidth=figures.THIN,
                     label="exhaustive")
        for beam, each in zip(args.beams, zip(*values)):
            results.record_range(f"{key}_beam{beam}", each)
        axis.set_xscale("log", base=2)
        axis.set_xticks(args.beams, args.beams)
        axis.yaxis.set_major_formatter("{x:.0%}")
        axis.set_ylim(top=1.05)
    figures.label_lines(axes[1])
    figures.save(figure, "beam_search-found")

# %% Longer beams write less
if __name__ == "__main__":
    figure, (axis,) = figures.panels(
        xlabel="beam; 1 is greedy search", ylabel="tokens of a sentence")
    for alpha, role in zip(args.alphas, ["control", "idea", "purple"]):
        runs = [lengths(alpha, args, seed) for seed in args.seeds]
        figures.band(axis, args.beams, runs, role, f"α = {alpha:g}")
        for beam, each in zip(args.beams, zip(*runs)):
            results.record_range(f"length_alpha{alpha:g}_beam{beam}", each)
    axis.set_xscale("log", base=2)
    axis.set_xticks(args.beams, args.beams)
    axis.set_ylim(bottom=0)
    figures.label_lines(axis)
    figures.save(figure, "beam_search-length")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
