"""Comparisons on slides: three seeds, rates chosen by one rule, trained to the end.

Where a comparison has less, its slide says so, in the words of SAYS.
"""

import json
import re

import pytest

from declared import ROOT

DECKS = sorted(path.name for path in ROOT.glob("slides/*.md"))
RECORD = re.compile(r"static/results/(\w+)\.json#([\w]+)\.([^)\s\"]+)")
SAYS = {"seeds": r"\b(one seed|two seeds)\b", "rule": r"\bnot tuned\b",
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
    if not side["tried"]:
        found.add("rule")
    elif len(side["tried"]) > 1:
        rates = sorted(map(float, side["tried"]))
        if side["value"] in (rates[0], rates[-1]):
            found.add("edge")
    if not side["flat"]:
        found.add("steps")
    return found


def shown_sides(slide):
    """{(module, run, side): what the record says} of the numbers that a slide links."""
    found = {}
    for module, run, key in RECORD.findall(slide):
        path = ROOT / f"static/results/{module}.json"
        sides = json.loads(path.read_text("utf-8")).get(run, {}).get("sides", {})
        names = [name for name in sides if key.startswith(f"{name}_")]
        if names:
            name = max(names, key=len)
            found[module, run, name] = sides[name]
    return found


@pytest.mark.parametrize("deck", DECKS)
def test_a_comparison_had_its_chance_or_its_slide_says_what_it_lacks(deck):
    problems = []
    for line, slide in slides(deck):
        text = re.sub(r"\[([^][]*)\]\([^)]*\)", r"\1", slide)
        lacks = {}
        for (module, run, name), side in shown_sides(slide).items():
            for what in lacking(side):
                lacks.setdefault(what, []).append(f"{module}.json#{run}.{name}")
        problems += [f"slides/{deck}:{line}: say {SAYS[what]!r}: {', '.join(names)}"
                     for what, names in lacks.items()
                     if not re.search(SAYS[what], text)]
    assert not problems, "\n" + "\n".join(problems)


def test_sides_that_are_compared_are_chosen_by_one_rule():
    rules = set()
    for path in ROOT.glob("static/results/*.json"):
        for run in json.loads(path.read_text("utf-8")).values():
            rules |= {side["rule"] for side in run.get("sides", {}).values()
                      if side["tried"]}
    assert rules == {"lowest training loss"}


@pytest.mark.parametrize("change, what", [
    ({"seeds": 1}, {"seeds"}), ({"tried": None}, {"rule"}), ({"value": 0.4}, {"edge"}),
    ({"flat": False}, {"steps"}), ({}, set())])
def test_what_is_lacking_is_found(change, what):
    side = {"seeds": 3, "value": 0.2, "flat": True,
            "tried": {"0.1": 3.0, "0.2": 1.0, "0.4": 2.0}} | change
    assert lacking(side) == what
