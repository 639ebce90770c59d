"""lab.compare: one rule for every side, on seeds that are not shown."""

import json
import math
from dataclasses import dataclass

import pytest
import torch

from lab import UserError, cli, compare, measure, results, runs, training


@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 4
    lr: float | None = None
    rates: tuple[float, ...] = (0.1, 0.2, 0.4)
    tune: bool = False
    runs: int = 3


calls = []


@training.memoize
def trained(best, args, seed):
    """As if trained: the loss is lowest at the rate `best`, and ends level."""
    calls.append((best, args.lr, seed))
    loss = abs(math.log(args.lr / best)) + seed / 1000
    loss = math.nan if args.lr > 10 * best else loss
    return training.Trained(None, {
        "seconds": 4 * [1.0], "loss": [9.0, loss, loss, loss],
        "training_error": [0.9, loss, loss, loss]})


@pytest.fixture
def args(tmp_path, monkeypatch):
    """args(**settings): the settings of a run that has begun, without any record."""
    monkeypatch.setattr(runs, "_current", None)
    monkeypatch.setattr(results, "RECORDS", tmp_path)
    calls.clear()
    trained.kept.clear()

    def begin(display=False, tune=False, changed="", **options):
        settings = Settings(data="toy", device=torch.device("cpu"), out=tmp_path,
                            **options)
        script = None if display else cli.CODE / "lenet.py"
        runs.begin(settings, "demo", script, "python code/toy.py", tune=tune,
                   changed=changed)
        runs.current().module = "toy"
        return settings

    return begin


def test_each_side_gets_the_rate_of_its_lowest_training_loss(args):
    networks = compare.train({"a": (trained, 0.2), "b": (trained, 0.35)}, args())
    shown = {(best, lr) for best, lr, seed in calls if seed < 3}
    assert shown == {(0.2, 0.2), (0.35, 0.4)}
    assert {seed for *_, seed in calls} == {0, 1, 2, *compare.SEEDS}
    assert [len(networks[name]) for name in "ab"] == [3, 3]
    values = runs.current().values
    assert values["a_lr"] == 0.2 and values["b_lr"] == 0.4
    assert values["a_loss_lowest"] == pytest.approx(0)
    assert values["a_loss_highest"] == pytest.approx(0.002)


@pytest.mark.parametrize("best, wanted", [(0.8, 0.8), (0.025, 0.025)])
def test_the_grid_goes_on_while_the_best_rate_is_at_its_edge(args, best, wanted):
    compare.train({"a": (trained, best)}, args())
    tried = runs.current().sides["a"]["tried"]
    assert runs.current().sides["a"]["value"] == wanted
    rates = sorted(map(float, tried))
    assert rates[0] < wanted < rates[-1]


def test_a_training_that_diverges_has_lost(args):
    compare.train({"a": (trained, 0.02)}, args(rates=(0.02, 0.04, 0.5)))
    side = runs.current().sides["a"]
    assert side["value"] == 0.02 and side["tried"]["0.5"] is None


def test_a_recorded_choice_is_not_made_again_without_tune(args, tmp_path):
    sides = {"a": (trained, 0.2)}
    compare.train(sides, args())
    results.save({})
    recorded = json.loads((tmp_path / "results" / "toy.json").read_text())
    assert recorded["choices"]["demo"]["a.lr"]["value"] == 0.2
    assert recorded["demo"]["sides"]["a"]["seeds"] == 3
    (tmp_path / "toy.json").write_text(json.dumps(recorded))
    for options, seeds in [({}, {0, 1, 2}), ({"tune": True}, {0, 1, 2, 100, 101})]:
        calls.clear()
        trained.kept.clear()
        compare.train(sides, args(**options))
        assert {seed for *_, seed in calls} == seeds


def test_a_choice_for_other_settings_is_called_so(args, tmp_path, capsys):
    """In the record and on the screen; not where it is made for these."""
    sides = {"a": (trained, 0.2)}
    compare.train(sides, args(changed="--epochs 2"))
    assert "chosen_for" not in runs.current().sides["a"]
    results.save({})
    (tmp_path / "toy.json").write_text(
        (tmp_path / "results" / "toy.json").read_text("utf-8"))
    assert "default" not in capsys.readouterr().out
    for changed in ["", "--epochs 2"]:
        compare.train(sides, args(changed=changed))
        assert ("chosen_for" in runs.current().sides["a"]) == bool(changed)
        assert ("not for --epochs 2" in capsys.readouterr().out) == bool(changed)


@pytest.mark.parametrize("seed, refused", [(97, False), (98, True), (102, False)])
def test_seeds_that_choose_are_not_shown(args, seed, refused):
    settings = args(seed=seed)
    if refused:
        with pytest.raises(UserError, match="take one above 101"):
            compare.train({"a": (trained, 0.2)}, settings)
    else:
        compare.train({"a": (trained, 0.2)}, settings)


def test_a_rate_that_was_asked_for_holds_for_all(args):
    settings = args(lr=0.3)
    runs.current().choices["a.lr"] = {"value": 0.1, "tried": {"0.1": 1.0}}
    compare.train({"a": (trained, 0.2), "b": (trained, 0.4)}, settings)
    assert runs.current().sides["a"]["value"] == 0.3
    assert {lr for _, lr, _ in calls} == {0.3}
    assert runs.current().sides["a"]["tried"] is None
    assert compare.chosen("a", settings) == settings


@pytest.mark.parametrize("options", [{"quick": True}, {"display": True}])
def test_quick_runs_and_slides_choose_nothing(args, options):
    compare.train({"a": (trained, 0.1)}, args(**options))
    assert {lr for _, lr, _ in calls} == {0.2}
    assert len(calls) == (1 if "quick" in options else 3)


def test_whether_a_curve_has_flattened():
    def history(*errors):
        return [{"training_error": list(errors), "seconds": [0] * len(errors)}]

    assert compare._is_flat(history(0.9, 0.2, 0.1, 0.1))
    assert not compare._is_flat(history(0.9, 0.6, 0.4, 0.2))
    assert not compare._is_flat(history(0.9))


def test_a_control_of_equal_cost_is_found():
    """The width whose cost is nearest, whether below or above."""
    def build(width):
        return torch.nn.Linear(width, width, bias=False)

    for target, width in [(100, 10), (105, 10), (111, 11), (0, 1), (10 ** 9, 1024)]:
        assert measure.match_width(build, measure.parameters, target) == width


def test_costs_are_parameters_and_multiply_adds_by_name():
    def build():
        return torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)

    assert measure.costs("conv", build, (1, 3, 16, 16)) == {
        "conv_parameters": 216, "conv_multiply_adds": 216 * 256}


@pytest.mark.parametrize("flags, words", [
    (["--rates", 0.1], "--rates are for --tune"),
    (["--tune", "--quick"], "leave out --tune")])
def test_flags_without_effect_are_refused(script, tmp_path, flags, words, capsys):
    assert script("resnet", *flags, "--out", tmp_path) == 2
    assert words in capsys.readouterr().err


def test_one_rate_alone_is_taken(args):
    compare.train({"a": (trained, 0.2)}, args(rates=(0.1,)))
    assert runs.current().sides["a"]["value"] == 0.1
