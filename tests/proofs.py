"""What the decks cite: references, and the tests that prove a claim of a slide."""

import json
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def node(*words):
    """What a Node program of the project prints, read as JSON."""
    done = subprocess.run(["node", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def references(deck=None):
    """All references of one deck, or of all."""
    found = node("slides/engine/references.mjs", "--json")
    return [each for each in found if not deck or each["deck"] == f"slides/{deck}"]


def place(reference):
    return "{deck}:{line}".format(**reference)


def decks_of(module):
    """The names of the decks that refer to a module."""
    return {Path(each["deck"]).name for each in references()
            if each.get("module") == module}


def cited(proof, tests):
    """Those of the tests that a proof is; without parameters it is all of them."""
    return {test for test in tests if test == proof["target"]
            or test.startswith(f"{proof['target']}[")}


def proofs():
    return [each for each in references() if each["kind"] == "proof" and each["ok"]]


def unproven(tests, passed):
    """A line for each test that a deck cites and that did not pass in this run."""
    return [f"{place(proof)}: {test} did not pass in this run"
            for proof in proofs() for test in sorted(cited(proof, tests) - passed)]
