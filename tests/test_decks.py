"""Every claim of every deck: it resolves, its number is correct, its code runs."""

import json
import re
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

import conftest
from declared import MODULES, facts, settings
from lab import record, source
from proofs import cited, decks_of, node, place, proofs, references

ROOT = Path(__file__).resolve().parents[1]
DECKS = sorted(path.name for path in ROOT.glob("slides/*.md"))
READ_DECKS = """
import { readFileSync } from "node:fs";
import { readDeck } from "./slides/engine/deck.mjs";
import { minutesOf, planOf } from "./slides/engine/plan.mjs";
const read = (name) => {
  const { meta, stacks } = readDeck(readFileSync(`slides/${name}`, "utf8"));
  return [name, { meta, slides: stacks.flat().map((slide) => ({
    line: slide.line, minutes: minutesOf(slide) ?? 0, plan: planOf(slide),
    noted: slide.notes.some(({ content }) => content.replace(/^Note:/, "").trim()),
    isReferences: slide.blocks.flatMap(({ tokens }) => tokens)
      .some(({ type }) => type === "references"),
  })) }];
};
console.log(JSON.stringify(Object.fromEntries(process.argv.slice(1).map(read))));
"""

every_deck = pytest.mark.parametrize("deck", DECKS)


@every_deck
def test_every_reference_resolves(deck, record_property):
    found = references(deck)
    wrong = [f"{place(each)}: {each.get('target', '')}: {each['error']}"
             for each in found if not each["ok"]]
    assert not wrong, "\n" + "\n".join(wrong)
    for each in found:
        if each.get("stale"):
            record_property("note", f"{place(each)}: stale, measured by older code: "
                                    f"{each['target']}")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_shown(name):
    if not decks_of(name):
        pytest.fail(f"no deck shows code/{name}.py: in slides/, link its code and "
                    f"figures, such as [MODEL](../code/{name}.py#MODEL)", pytrace=False)


@every_deck
def test_every_fact_and_setting_is_what_the_module_says(deck):
    wrong = []
    for each in references(deck):
        if each["kind"] in ("fact", "setting") and each["ok"]:
            says = {"fact": facts, "setting": settings}[each["kind"]]
            computed = says(each["module"]).get(each["key"])
            if computed != each["value"]:
                wrong.append(f"{place(each)}: {each['target']} is {computed}")
    assert not wrong, "\n" + "\n".join(wrong)


@every_deck
def test_front_matter(deck):
    meta = node("--input-type=module", "-e", READ_DECKS, *DECKS)[deck]["meta"]
    assert meta["title"] and meta["family"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", meta["date"])


@every_deck
def test_every_slide_has_notes(deck):
    """But the title and the references."""
    _, *slides = node("--input-type=module", "-e", READ_DECKS, *DECKS)[deck]["slides"]
    silent = [f"slides/{deck}:{slide['line']}" for slide in slides
              if not slide["noted"] and not slide["isReferences"]]
    assert not silent, f"no notes for the speaker: {', '.join(silent)}"


@every_deck
@pytest.mark.parametrize("plan", [45, 80, 120])
def test_a_lecture_takes_the_minutes_of_its_plan(deck, plan):
    """By the Time of its notes; all of a short deck is its longest plan."""
    slides = node("--input-type=module", "-e", READ_DECKS, *DECKS)[deck]["slides"]
    shown = [slide for slide in slides if slide["plan"] <= plan]
    minutes = sum(slide["minutes"] for slide in shown)
    assert minutes <= plan, f"data-plan of some slides of slides/{deck} must be larger"
    assert minutes >= 0.9 * plan or shown == slides, f"{minutes} minutes only"


def test_recorded_outputs_are_of_the_code_as_it_is():
    """What pages without a kernel show; npm run record makes it again."""
    stale = [name for name, texts in record.snippets().items()
             if record.stale(name, texts)]
    assert not stale, f"npm run record: {', '.join(stale)}"
    for name in record.snippets():
        recorded = json.loads((record.RECORDED / f"{name}.json").read_text("utf-8"))
        shown = [output.get("figure") for snippet in recorded["snippets"].values()
                 for output in snippet["outputs"]]
        for figure in filter(None, shown):
            assert (ROOT / f"static/img/{figure}.svg").exists()


def test_recorded_shapes_are_of_the_code_as_it_is():
    """What stands beside the lines of each forward; npm run record makes it again."""
    stale = [name for name, texts in record.forwards().items()
             if record.are_shapes_stale(name, texts)]
    assert not stale, f"npm run record: {', '.join(stale)}"


def test_recorded_shapes_are_of_the_first_call():
    """That facts() makes, at the paper's size; else of a case of the module's tests."""
    shapes = record.first_shapes("resnet", {"BasicBlock", "PlainBlock"})
    assert set(shapes["BasicBlock"].values()) == {"(1, 64, 56, 56)"}
    assert set(shapes["PlainBlock"].values()) == {"(4, 8, 16, 16)"}


@every_deck
def test_shown_cells_are_those_of_the_module(deck):
    """Line by line: test_modules runs them, and finds what leans on others."""
    wrong = [place(each) for each in references(deck)
             if each["kind"] == "cell" and each["ok"]
             and each["code"] not in cells(each["module"])]
    assert not wrong, f"no such cell: {', '.join(wrong)}"


@cache
def cells(name):
    """The code of a module's demo cells, from under their guard."""
    text = source.read(ROOT / f"code/{name}.py")
    lines = source.lines_of(text)
    return [textwrap.dedent("\n".join(lines[cell.first - 1:cell.last]))
            for cell in source.cells(text).values() if cell.is_demo]


def test_every_test_that_a_deck_cites_is_there():
    """That it passes, a whole run says at its end."""
    tests = collect({each["file"] for each in proofs()})
    wrong = [f"{place(proof)}: there is no test {proof['target']}"
             for proof in proofs() if not cited(proof, tests)]
    assert not wrong, "\n" + "\n".join(wrong)


def collect(files):
    """The ids of all tests in these files."""
    if not files:
        return set()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *sorted(files)],
        cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.splitlines())


def a_run(*arguments, **options):
    """A run of pytest with these arguments, as conftest sees it."""
    none = dict.fromkeys(["lf", "ignore", "ignore_glob", "deselect", "keyword",
                          "markexpr", "module", "collectonly"])
    return conftest.Run(SimpleNamespace(
        invocation_params=SimpleNamespace(dir=ROOT), args=arguments,
        option=SimpleNamespace(**none | options)))


def test_a_whole_run_fails_where_a_proof_did_not_pass(monkeypatch):
    """With the name of the test and of the slide, though no test failed."""
    proof = {"deck": "slides/a.md", "line": 3, "target": "tests/test_x.py::test_y"}
    monkeypatch.setattr("proofs.proofs", lambda: [proof])
    session = SimpleNamespace(exitstatus=0, config=SimpleNamespace(
        option=SimpleNamespace(collectonly=False)))
    run = a_run("tests")
    run.pytest_xdist_node_collection_finished(
        ["tests/test_x.py::test_y[1]", "tests/test_x.py::test_y[2]"])
    run.pytest_runtest_logreport(SimpleNamespace(
        when="call", passed=True, nodeid="tests/test_x.py::test_y[1]"))
    run.pytest_sessionfinish(session)
    assert session.exitstatus == 1
    assert run.unproven == [
        "slides/a.md:3: tests/test_x.py::test_y[2] did not pass in this run"]


def test_a_run_of_some_tests_asks_for_no_proofs():
    assert a_run("tests").is_whole and a_run(str(ROOT / "tests")).is_whole
    assert not a_run("tests/test_decks.py").is_whole
    for option in ["keyword", "lf", "module", "deselect", "ignore"]:
        assert not a_run("tests", **{option: "x"}).is_whole
