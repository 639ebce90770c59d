"""Comparisons on slides: three seeds, rates chosen by one rule, trained to the end.

Where a comparison has less, its slide says so, in the words of SAYS.
"""

import json
import re

import pytest

from declared import ROOT

DECKS = sorted(path.name for path in ROOT.glob("slides/*.md"))
RECORD = re.compile(r"static/results/(\w+)\.json#([\w]+)\.([^)\s\"]+)")
# What is measured of sides, in a run whose record does not say how they were tuned.
METRIC = re.compile(
    r"(.+)_((?:training_|test_)?(?:accuracy|error|loss|exact_match|bleu))")
SAYS = {"seeds": r"\b(one seed|two seeds)\b",
        "rule": r"\b(not tuned|tuned by hand)\b",
        "edge": r"\bedge of its grid\b", "steps": r"\bafter [\d,]+ (epochs|steps)\b"}


def slides(deck):
    """(line, text) of each slide; links in it are their text."""
    text, line = (ROOT / "slides" / deck).read_text("utf-8"), 1
    for slide in re.split(r"^<!--[sv]-->$", text, flags=re.M):
        yield line, slide
        line += slide.count("\n")


def lacking(side):
    """What a side of a comparison lacks, keys of SAYS."""
    found = set()
    if side["seeds"] < 3:
        found.add("seeds")
    if not side["tried"] or "chosen_for" in side:
        found.add("rule")
    elif len(side["tried"]) > 1:
        rates = sorted(map(float, side["tried"]))
        if side["value"] in (rates[0], rates[-1]):
            found.add("edge")
    if not side["flat"]:
        found.add("steps")
    return found


def shown_sides(slide):
    """{(module, run, side): what it lacks} of the numbers that a slide links."""
    found, untold = {}, {}
    for module, run, key in RECORD.findall(slide):
        path = ROOT / f"static/results/{module}.json"
        record = json.loads(path.read_text("utf-8")).get(run, {})
        sides = record.get("sides", {})
        names = [name for name in sides if key.startswith(f"{name}_")]
        if names:
            name = max(names, key=len)
            found[module, run, name] = lacking(sides[name])
        elif run != "demo" and not sides and (measured := METRIC.fullmatch(key)):
            seeds = set() if f"{key}_lowest" in record["values"] else {"seeds"}
            untold.setdefault((module, run, measured[2]), {})[measured[1]] = seeds
    for (module, run, _), sides in untold.items():
        if len(sides) > 1:
            found |= {(module, run, name): {"rule", *seeds}
                      for name, seeds in sides.items()}
    return found


@pytest.mark.parametrize("deck", DECKS)
def test_a_comparison_had_its_chance_or_its_slide_says_what_it_lacks(deck):
    problems = []
    for line, slide in slides(deck):
        text = re.sub(r"\[([^][]*)\]\([^)]*\)", r"\1", slide)
        lacks = {}
        for (module, run, name), lack in shown_sides(slide).items():
            for what in lack:
                lacks.setdefault(what, []).append(f"{module}.json#{run}.{name}")
        problems += [f"slides/{deck}:{line}: say {SAYS[what]!r}: {', '.join(names)}"
                     for what, names in lacks.items()
                     if not re.search(SAYS[what], text)]
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("run, values, lack", [
    ("mr", {"a_accuracy": 0.5}, {}),
    ("mr", {"a_accuracy": 0.5, "b_error": 0.4}, {}),
    ("mr", {"a_accuracy": 0.5, "b_accuracy": 0.4}, {"rule", "seeds"}),
    ("mr", {"a_accuracy": 0.5, "a_accuracy_lowest": 0.4, "b_accuracy": 0.4,
            "b_accuracy_lowest": 0.4}, {"rule"}),
    ("demo", {"a_accuracy": 0.5, "b_accuracy": 0.4}, {})])
def test_a_record_that_does_not_tell_how_sides_were_tuned(
        tmp_path, monkeypatch, run, values, lack):
    monkeypatch.setattr("test_comparisons.ROOT", tmp_path)
    (tmp_path / "static/results").mkdir(parents=True)
    (tmp_path / "static/results/toy.json").write_text(
        json.dumps({run: {"values": values}}))
    slide = " ".join(f"[1](../static/results/toy.json#{run}.{key})" for key in values)
    assert set().union(*shown_sides(slide).values()) == set(lack)


def test_sides_that_are_compared_are_chosen_by_one_rule():
    rules = set()
    for path in ROOT.glob("static/results/*.json"):
        for run in json.loads(path.read_text("utf-8")).values():
            rules |= {side["rule"] for side in run.get("sides", {}).values()
                      if side["tried"]}
    assert rules == {"lowest training loss"}


@pytest.mark.parametrize("change, what", [
    ({"seeds": 1}, {"seeds"}), ({"tried": None}, {"rule"}), ({"value": 0.4}, {"edge"}),
    ({"flat": False}, {"steps"}), ({}, set()),
    ({"chosen_for": "default settings"}, {"rule"})])
def test_what_is_lacking_is_found(change, what):
    side = {"seeds": 3, "value": 0.2, "flat": True,
            "tried": {"0.1": 3.0, "0.2": 1.0, "0.4": 2.0}} | change
    assert lacking(side) == what
