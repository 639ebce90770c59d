"""lab.terminal: what is printed ends no program."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).resolve().parents[1] / "code"
PROGRAM = """
import sys
from lab import UserError, terminal
terminal.prepare()
for i in range(3000):
    print("✗ Zoë → 李 \\udcff", i)
print("10² ≠ 3", file=sys.stderr)
open(sys.argv[1], "w").write("written")
raise UserError("the → end")
"""


@pytest.fixture
def run(tmp_path):
    """Run PROGRAM by a line of shell; what comes out, and whether it got to its end."""
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")

    def run(line="$RUN", **environment):
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(CODE), **environment,
                 "RUN": f"{sys.executable} program.py end"})
        assert (tmp_path / "end").read_text() == "written"
        return done

    return run


@pytest.mark.parametrize("encoding, printed, errors", [
    ("ascii", "no Zoe -> ? ? 2999", "10? ? 3\nthe -> end"),
    ("cp1252", "no Zoë -> ? ? 2999", "10² ? 3\nthe -> end"),
    ("utf-8", "✗ Zoë → 李 ? 2999", "10² ≠ 3\nthe → end"),
])
def test_characters_that_an_encoding_lacks(run, encoding, printed, errors):
    done = run(PYTHONIOENCODING=encoding)
    assert done.returncode == 1
    assert done.stdout.decode(encoding).splitlines()[-1] == printed
    assert done.stderr.decode(encoding).strip() == errors


@pytest.mark.parametrize("line, said", [
    ("$RUN | head -1; exit ${PIPESTATUS[0]}", True),
    ("$RUN 2>&1 | true; exit ${PIPESTATUS[0]}", False),
    ("$RUN >&-", True),
    ("$RUN 2>&-", False),
    ("$RUN >&- 2>&-", False),
    ("$RUN > /dev/full", True),
    ("$RUN > /dev/full 2>&1", False),
])
def test_readers_that_have_ended(run, line, said):
    done = run(line)
    assert done.returncode == 1
    lost = "the output cannot be written: No space left on device\n"
    assert done.stderr.decode().removeprefix(lost) == (
        "10² ≠ 3\nthe → end\n" if said else "")
    assert (lost in done.stderr.decode()) == (line == "$RUN > /dev/full")


@pytest.mark.parametrize("unbuffered, printed", [("", ""), ("1", "out\n")])
def test_errors_are_said_at_once_and_output_where_python_is_asked_to(
    unbuffered, printed
):
    code = ("import os, sys; from lab import terminal; terminal.prepare(); "
            "print('out'); print('error', file=sys.stderr); os._exit(0)")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={"PYTHONPATH": str(CODE), "PYTHONUNBUFFERED": unbuffered})
    assert (done.stdout, done.stderr) == (printed, "error\n")


@pytest.mark.parametrize(
    "script", sorted(CODE.glob("lab/*.py")), ids=lambda file: file.name)
def test_every_command_prepares_its_output(script):
    """All that is run as a program, but the server, whose reader is ours."""
    text = script.read_text("utf-8")
    if script.stem != "kernels" and re.search(r"^    +main\(\)$", text, re.M):
        assert "def main():\n    terminal.prepare()\n" in text
