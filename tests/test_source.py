"""lab.source reads modules as the slides' engine does."""

import json
import subprocess
from pathlib import Path

import pytest

from lab import source

ROOT = Path(__file__).resolve().parents[1]
READ = """
import { readModule } from "./slides/engine/module.mjs";
const read = (path) => {
  const { cells, definitions, figures, hash } = readModule(path);
  return [path, {
    cells: [...cells].map(([slug, cell]) =>
      [slug, cell.title, cell.firstLine, cell.lastLine, cell.isDemo]),
    definitions: Object.fromEntries([...definitions].map(
      ([name, { firstLine, lastLine }]) => [name, [firstLine, lastLine]])),
    figures: Object.fromEntries(figures), hash }];
};
console.log(JSON.stringify(Object.fromEntries(process.argv.slice(1).map(read))));
"""
NASTY = '''# %% [markdown]
# # Nasty
"""Of the module, \\""" # inside
é."""; y = 1

# %%
import resnet, torch
\x0cfrom   lab import figures
x = "é"\t
TEXT = """
# %% A title inside a string
if __name__ == "__main__":
    a string
"""


# %% Definitions
@decorated
@twice(
    1)
def decorated_one(a,
                  b):
    def inner():
        pass

    return inner


async def waiting():
    await x


class Outer:
    """With methods."""

    field = 1

    @property
    def method(self):
        return 1

    async def coroutine(self):
        pass

    class Inner:
        def deep(self):
            pass


class One: pass


class Error(Exception): """Said in one line, é."""   # and a comment


def documented(x: str = "é"):  # a comment
    # another

    r\'\'\'Raw, with two
    # lines.\'\'\'
    """No docstring."""
    class Local:
        u"""Of a class in a function."""; "a" "second statement"
    return lambda: "not one"


async def joined():
    "Of two" \\
        'parts.'


def not_documented():
    ("in parentheses")


def formatted(): f"{x}"


def partly():
    "a" f"{x}"


def raw_bytes():
    b"none"
    if x:
        "none either"


if True:
    def hidden():
        pass

# %% After comments, before its guard
# a comment

if __name__ == "__main__":

    figures.save(figures.images(x, "not this"), "first")   # "neither"
    figures.save(
        draw("nor this"),
        'second', format="png")

# %% Einfache Anführungszeichen & so – 2!
if  __name__=='__main__' :   # a comment
    figures.save(x, f"{x}")
    figures.save(x, name, "third")
    figures.save(figure=x, format="svg")

# %% Einfache  Anführungszeichen & so: 2
if __name__ == "__main__":
    print("the same slug: the last counts")

# %% Not alone
if __name__ == "__main__":
    print(1)
print(2)

# %% No guard
figures.save(x, "nowhere")

# %% Another condition
if __name__ == "__main__" and x:
    print(1)

# %% In one line
if __name__ == "__main__": print(1)

# %%   Spaces   and_underscores
if __name__ == "__main__":
\tfigures.save(x, "tab")

# %% Nothing

#%% no cell
# %%no cell either
# %% Last
if __name__ == "__main__":
    print("no newline at the end")'''


def in_python(path):
    text = source.read(path)
    return {
        "cells": [[key, cell.title, cell.first, cell.last, cell.is_demo]
                  for key, cell in source.cells(text).items()],
        "definitions": {name: list(lines)
                        for name, lines in source.definitions(text).items()},
        "figures": {name: cell for name, (cell, _) in source.figures(text).items()},
        "hash": source.module_hash(path)}


def in_node(*paths):
    done = subprocess.run(["node", "--input-type=module", "-e", READ, *map(str, paths)],
                          cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_module_is_read_as_by_the_engine():
    paths = [*ROOT.glob("code/*.py"), *ROOT.glob("code/exercises/*.py")]
    found = in_node(*paths)
    for path in paths:
        for what, read in in_python(path).items():
            assert found[str(path)][what] == read, f"{what} of {path.name}"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_a_nasty_module_is_read_as_by_the_engine(tmp_path, newline):
    path = tmp_path / "nasty.py"
    (tmp_path / "resnet.py").write_text("x = 1")
    path.write_bytes(NASTY.replace("\n", newline).encode())
    found = in_node(path)[str(path)]
    for what, read in in_python(path).items():
        assert found[what] == read, what
    assert [cell[0] for cell in found["cells"] if cell[4]] == [
        "after-comments-before-its-guard", "einfache-anführungszeichen-so-2",
        "spaces-and-underscores", "last"]
    assert found["figures"] == {
        "first": "after-comments-before-its-guard",
        "second": "after-comments-before-its-guard",
        "tab": "spaces-and-underscores"}


@pytest.mark.parametrize("guard", [
    'if __name__ == "__main__":', "if __name__ == '__main__':",
    '# a comment\n\nif  __name__=="__main__" :  # why'])
def test_a_demo_cell_that_the_slides_run_is_known_to_the_kernel(
        guard, tmp_path, monkeypatch, capsys):
    """Whatever stands between its title and its guard."""
    from lab import cli, live
    (tmp_path / "guarded.py").write_text(
        f"x = 2\n\n# %% Say it\n{guard}\n    print(x + 1)\n")
    monkeypatch.setattr(cli, "CODE", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = live.LiveModule("guarded")
    module.refresh()
    assert in_node(tmp_path / "guarded.py")[str(tmp_path / "guarded.py")]["cells"] == [
        ["say-it", "Say it", *module.cells["say-it"], True]]
    module.run_cell("say-it", module.own_text(module.cells["say-it"]))
    assert capsys.readouterr().out == "3\n"
