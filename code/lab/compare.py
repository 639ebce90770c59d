"""Comparisons in which each side has its chance: one rule chooses its learning rate.

The rule: of the rates in args.rates the one with the lowest training loss after the
last epoch, on average over two seeds that are not shown; while the best rate is at an
edge, the grid goes on there. What was chosen is kept in static/results, so that a demo
need not choose again; --tune does. With other settings the choice for the default ones
holds. Where training errors reach zero, the rule decides by what is left of the loss,
which says nothing of the test error.
"""

import math
import time
from dataclasses import replace

from lab import UserError, parallel, results, runs

SEEDS = 100, 101   # of the trainings that choose; seeds that are shown begin at --seed
MOST = 12          # rates that are tried for one side


def train(sides, args, field="lr"):
    """Train each side for every seed, at the rate chosen for it: {name: [Trained]}.

    sides: {name: (function, *arguments)}; function(*arguments, args, seed) is
    memoized and returns Trained. field: the setting that is chosen, "lr" from
    args.rates. A value that was asked for (--lr) holds for all sides. --quick trains
    one seed of each. Final metrics are recorded, with the choices, under the names.
    UserError if a seed that chooses would be shown.
    """
    if common := set(SEEDS).intersection(args.seeds):
        raise UserError(f"--seed {args.seed} would show seed {min(common)}, which "
                        f"chooses learning rates: take one above {max(SEEDS)}")
    chosen = choose(sides, args, field)
    others = _made_for_others(sides, args, field)
    if others:
        print(f"{field} of {', '.join(others)} was chosen for the default settings, "
              f"not for {runs.current().changed}; --tune chooses again", flush=True)
    calls = {name: [(*side, replace(args, **{field: chosen[name]}), seed)
                    for seed in args.seeds] for name, side in sides.items()}
    parallel.precompute(sum(calls.values(), []))
    trained = {name: [function(*arguments) for function, *arguments in those]
               for name, those in calls.items()}
    for name, those in trained.items():
        histories = [each.history for each in those]
        results.record_runs(name, histories)
        results.record(f"{name}_{field}", chosen[name])
        asked_for = getattr(args, field) is not None
        choice = {} if asked_for else _known().get(f"{name}.{field}", {})
        if name in others:
            choice = choice | {"chosen_for": "default settings"}
        runs.current().sides[name] = {
            "tried": None, **choice, "field": field, "value": chosen[name],
            "seeds": len(args.seeds), "epochs": len(histories[0]["seconds"]),
            "flat": _is_flat(histories)}
    return trained


def chosen(name, args, field="lr"):
    """The settings of one side, at the rate chosen for it."""
    value = choose({name: None}, args, field)[name]
    return replace(args, **{field: value})


def choose(sides, args, field="lr"):
    """Choose the rate of each side, unless that is recorded or asked for: {name: rate}.

    With --quick, in a notebook and on a slide a side without a record gets the middle
    of the grid.
    """
    if getattr(args, field) is not None:
        return dict.fromkeys(sides, getattr(args, field))
    known, rates = _known(), sorted(getattr(args, _grid(field)))
    missing = {name: side for name, side in sides.items()
               if f"{name}.{field}" not in known}
    if missing and (args.quick or runs.current().display):
        known |= {f"{name}.{field}": {"value": rates[len(rates) // 2]}
                  for name in missing}
    elif missing:
        _tune(missing, args, field, rates)
        known = _known()
    return {name: known[f"{name}.{field}"]["value"] for name in sides}


def _tune(sides, args, field, rates):
    """Try rates for each side, all that are still to be tried side by side."""
    started, tried = time.perf_counter(), {name: {} for name in sides}
    seconds = dict.fromkeys(sides, 0.0)
    waiting = dict.fromkeys(sides, rates)
    while any(waiting.values()):
        calls = {(name, rate): [(*sides[name], replace(args, **{field: rate}), seed)
                                for seed in SEEDS]
                 for name, wanted in waiting.items() for rate in wanted}
        parallel.precompute(sum(calls.values(), []))
        for (name, rate), those in calls.items():
            trained = [function(*arguments) for function, *arguments in those]
            tried[name][rate] = _loss(trained)
            seconds[name] += sum(sum(each.history["seconds"]) for each in trained)
        waiting = {name: _beyond(losses) for name, losses in tried.items()}
    for name, losses in tried.items():
        best = min(losses, key=losses.get)
        print(f"{name}: {field} {best:g}, of "
              + ", ".join(f"{rate:g}" for rate in sorted(losses)), flush=True)
        runs.current().choices[f"{name}.{field}"] = {
            "hash": runs.current().training_hash, "value": best,
            "rule": "lowest training loss", "tuning_seeds": list(SEEDS),
            "tuning_seconds": round(seconds[name], 1),
            "tried": {f"{rate:g}": loss if math.isfinite(loss) else None
                      for rate, loss in sorted(losses.items())}}
    runs.current().leave_out(time.perf_counter() - started)


def _beyond(losses):
    """The rate to try next because the best one is at an edge of the grid, if any."""
    rates, best = sorted(losses), min(losses, key=losses.get)
    if not 1 < len(rates) < MOST or best not in (rates[0], rates[-1]):
        return []
    if best == rates[-1]:
        return [float(f"{best * rates[-1] / rates[-2]:.3g}")]
    return [float(f"{best * rates[0] / rates[1]:.3g}")]


def _loss(trained):
    """The mean loss of the last epoch; a training that diverged has lost."""
    mean = sum(each.history["loss"][-1] for each in trained) / len(trained)
    return mean if math.isfinite(mean) else math.inf


def _known():
    """{"NAME.FIELD": choice} of this run and, without --tune, of the committed record.

    On other data a choice holds that was made there.
    """
    current = runs.current()
    recorded = {} if current.tune else results.read(
        results.RECORDS / f"{current.module}.json").get("choices", {})
    return {**recorded.get(current.name, {}), **current.choices}


def _made_for_others(sides, args, field):
    """The sides whose recorded choice was made for other settings than these."""
    current = runs.current()
    if getattr(args, field) is not None or not current.changed:
        return []
    recorded = _known().keys() - current.choices.keys()
    return [name for name in sides if f"{name}.{field}" in recorded]


def _grid(field):
    return field.replace("lr", "rates")


def _is_flat(histories):
    """Whether the last quarter of the epochs brings less than a 20th of what all do.

    By the training error, where it is measured: a loss may begin without bounds. A rate
    that falls to zero flattens any curve: then this says that the schedule has ended.
    """
    key = "training_error" if "training_error" in histories[0] else "loss"
    means = [sum(values) / len(values)
             for values in zip(*(history[key] for history in histories))]
    quarter = math.ceil(len(means) / 4)
    if len(means) <= quarter:
        return False
    return means[-1 - quarter] - means[-1] <= (means[0] - means[-1]) / 20
