"""What the README says is there and true."""

import json
import re
from pathlib import Path

import pytest

from declared import MODULES, ROOT

README = (ROOT / "README.md").read_text("utf-8")
PROSE = re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", README, flags=re.S))
LINKS = re.findall(r"\[([^\]]*)\]\(([^)#\s]+)(?:#([^)\s]+))?\)", PROSE)


@pytest.mark.parametrize("target", sorted(
    {target for _, target, _ in LINKS if "://" not in target}))
def test_links(target):
    assert (ROOT / target).exists()


@pytest.mark.parametrize("text, target, key", [link for link in LINKS if link[2]])
def test_numbers(text, target, key):
    """Numbers are those of the records, rounded as they are written."""
    run, _, name = key.partition(".")
    record = ROOT / "static" / "results" / f"{Path(target).stem}.json"
    value = json.loads(record.read_text("utf-8"))[run]["values"][name]
    number, unit = re.fullmatch(r"([\d.,]+)( %)?", text).groups()
    decimals = len(number.partition(".")[2])
    assert f"{value * 100 if unit else value:,.{decimals}f}" == number


def test_commands():
    scripts = json.loads((ROOT / "package.json").read_text("utf-8"))["scripts"]
    commands = re.findall(r"npm (?:run )?(\w+)", README)
    assert commands and set(commands) <= set(scripts)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_listed(name):
    if f"code/{name}.py" not in {target for _, target, _ in LINKS}:
        pytest.fail(f"README.md does not list code/{name}.py; below its deck, add the "
                    f"row: | | [{name}.py](code/{name}.py) | MODEL | "
                    f"[PARAMETERS](code/{name}.py#facts.parameters) | what is compared:"
                    f" [N %](static/results/{name}.json#demo.KEY) |", pytrace=False)


@pytest.mark.parametrize("deck", sorted(path.name for path in ROOT.glob("slides/*.md")))
def test_every_deck_is_listed(deck):
    assert f"slides/{deck}" in {target for _, target, _ in LINKS}
