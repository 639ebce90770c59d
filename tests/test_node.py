"""Each file of Node tests is one test here, and so is the type check."""

import shutil
import subprocess
from pathlib import Path

import pytest

root = Path(__file__).parents[1]
node = shutil.which("node")


def run(*command):
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "file", sorted(root.glob("tests/*.test.mjs")), ids=lambda file: file.name)
def test_node(file):
    run(node, "--test", file)


def test_types():
    run(node, "node_modules/typescript/bin/tsc", "-p", ".")
