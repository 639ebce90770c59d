"""npm run new: the example of CONTRIBUTING.md, followed to its end."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from declared import ROOT
from lab import UserError, new_module, source

ROW, DECK = re.findall(r"^```md\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(
    "utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def copy(copy_lectures):
    """The lectures with a module that `npm run new -- tiny_net` has begun.

    Without what somebody who follows the example has written already.
    """
    copy = copy_lectures()
    shutil.copy(ROOT / "pyproject.toml", copy)
    for name in ["code/tiny_net.py", "tests/test_tiny_net.py", "slides/tiny.md",
                 "static/results/tiny_net.json"]:
        (copy / name).unlink(missing_ok=True)
    rows = (ROOT / "README.md").read_text("utf-8").splitlines(keepends=True)
    (copy / "README.md").write_text(
        "".join(row for row in rows if "tiny_net" not in row), "utf-8")
    done = run(copy, "code/lab/new_module.py", "tiny_net")
    assert done.returncode == 0, done.stderr
    assert "wrote code/tiny_net.py\nwrote tests/test_tiny_net.py\n" in done.stdout
    assert "npm test -- --module tiny_net" in done.stdout
    return copy


def run(copy, *words):
    return subprocess.run([sys.executable, *words], cwd=copy, capture_output=True,
                          text=True)


def npm_test(copy, *words):
    """Run what tests the module; -k and the like in words."""
    return run(copy, "-m", "pytest", "-q", "--module", "tiny_net", *words)


def test_what_is_missing_is_said_in_one_line_each(copy):
    """That is the first thing one sees, before anything trains."""
    done = npm_test(copy, "-k", "time or fresh or listed or shown")
    for line in [
            "code/tiny_net.py has no record: run npm run figures -- tiny_net",
            "run npm run figures -- tiny_net: facts in tiny_net.json, ",
            "README.md does not list code/tiny_net.py; below its deck, add the row: | ",
            "no deck shows code/tiny_net.py: in slides/, link its code and figures"]:
        assert re.search(f"^{re.escape(line)}", done.stdout, re.M), done.stdout
    assert "4 failed" in done.stdout


@pytest.mark.timeout(600)
def test_the_example_passes(copy):
    done = run(copy, "code/lab/refresh.py", "tiny_net")
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((copy / "static/results/tiny_net.json").read_text("utf-8"))
    module, readme = copy / "code/tiny_net.py", copy / "README.md"
    module.write_text(re.sub(r"about \d+ s", f"about {record['demo']['seconds']:.0f} s",
                             module.read_text("utf-8")), "utf-8")
    readme.write_text(readme.read_text("utf-8").replace(
        "|---|---|---|---|---|\n", f"|---|---|---|---|---|\n{ROW}"), "utf-8")
    (copy / "slides/tiny.md").write_text(DECK, "utf-8")
    done = npm_test(copy)
    assert done.returncode == 0, done.stdout


def test_a_figure_is_redrawn_without_training(copy):
    """What was measured stays; what was not trained before is, and is named."""
    module, record = copy / "code/tiny_net.py", copy / "static/results/tiny_net.json"
    figure = copy / "static/img/tiny-net-comparison.svg"
    before, drawn = json.loads(record.read_text("utf-8"))["demo"], figure.read_bytes()
    for old, new, trained in [
            ('ylabel="training error (%)"', 'ylabel="error (%)"', []),
            ("    networks =", '    chosen = compare.chosen("pointwise", args)\n'
             "    trained(True, chosen, seed=9)\n    networks =",
             ["training trained(True, 9): it was not kept"])]:
        assert old in module.read_text("utf-8")
        module.write_text(module.read_text("utf-8").replace(old, new), "utf-8")
        done = run(copy, "code/lab/refresh.py", "tiny_net", "--redraw")
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.findall("^training .*", done.stdout, re.M) == trained
        assert ("epoch" in done.stdout + done.stderr) == bool(trained)
        after = json.loads(record.read_text("utf-8"))["demo"]
        assert after["hash"] != before["hash"] and figure.read_bytes() != drawn
        assert after | {"hash": before["hash"]} == before


def test_what_trains_is_hashed_without_what_draws(tmp_path):
    module = tmp_path / "toy.py"
    text = new_module.fill("module.py", "toy")
    module.write_text(text)
    digest = source.training_hash(module)
    for old, new, same in [
            ("error (%)", "error", True), ("networks =", "nets =", True),
            ("cli.begin(SETTINGS)", "cli.begin(SETTINGS)  # all", True),
            ("(0.003, 0.01", "(0.002, 0.01", False),
            ('"control": (trained, False)', '"control": (trained, True)', False)]:
        assert old in text
        module.write_text(text.replace(old, new))
        assert (source.training_hash(module) == digest) == same, old


@pytest.mark.parametrize("name, words", [
    ("resnet", "code/resnet.py exists"), ("modules", "tests/test_modules.py exists"),
    ("json", "would hide"), ("torch", "would hide"), ("declared", "would hide"),
    ("SqueezeNet", "no name of a module"), ("1x1", "no name of a module"),
    ("class", "no name of a module"), ("a-b", "no name of a module")])
def test_a_name_that_cannot_be_is_refused(name, words):
    with pytest.raises(UserError, match=words) as error:
        new_module.check(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("template", ["module.py", "test_module.py"])
def test_a_long_name_fits(template):
    text = new_module.fill(template, "inception_resnet_v2")
    assert max(map(len, text.splitlines())) <= 88
    assert not re.search("new.?net", text, re.I)
