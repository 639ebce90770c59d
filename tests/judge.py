"""Judge submissions of the small exercise in a kernel of this process, each in a fork.

`python judge.py`, with {name: text} as JSON on standard input, prints {name: [notes,
points]}. It is what test_tampering.py needs to try many attacks in a moment; that
attacks do not get out of a kernel is for test_sandbox.py.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from ipykernel.inprocess.manager import InProcessKernelManager
from nbformat.v4 import new_output

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from hostile import EXERCISE  # noqa: E402
from lab import cells as read_cells  # noqa: E402
from lab import exercises, scrutiny, verdicts  # noqa: E402


def judge(shell, text):
    """(notes, points of the checks) of a submission."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.py"
        path.write_text(EXERCISE, "utf-8")
        annotated = exercises.source(path)
    cells, notes = read_cells.restored(
        exercises.without_solutions(annotated), exercises.student_version(annotated),
        read_cells.read("toy.py", text.encode()))
    notebook, roles = verdicts.instrumented(cells)
    outputs = []

    def publish(message):
        outputs.append(new_output("display_data", message["content"]["data"]))

    shell.display_pub.register_hook(publish)
    for cell in notebook.cells:
        outputs.clear()
        done = shell.run_cell(cell.source, store_history=False)
        error = done.error_before_exec or done.error_in_exec
        cell.metadata["status"] = "error" if error else "ok"
        cell.outputs = [*outputs, *([new_output(
            "error", ename=type(error).__name__, evalue=str(error), traceback=[])]
            if error else [])]
    notes += verdicts.judge(cells, nbformat.from_dict(notebook), roles, set())
    notes += scrutiny.notes(cells, read_cells.part)
    return notes, [0 if cell.outputs else 2 for cell in cells
                   if verdicts.is_check(cell)]


def main():
    texts, verdict = json.load(sys.stdin), {}
    manager = InProcessKernelManager()
    manager.start_kernel()
    shell = manager.kernel.shell
    # What torch loads when it is first used is there before the forks.
    shell.run_cell("import torch, torch._dynamo\nfrom lab import checks\n" + "\n".join(
        f"try: {line}\nexcept Exception: pass" for line in verdicts.CANARIES))
    shell.reset()
    for name, text in texts.items():
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                sys.stdout = sys.stderr = open(os.devnull, "w")
                os.write(write, json.dumps(judge(shell, text)).encode())
            except BaseException as error:
                os.write(write, json.dumps([[["", repr(error)]], None]).encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as said:
            verdict[name] = json.loads(said.read() or "[[], null]")
        os.waitpid(child, 0)
    print(json.dumps(verdict))


if __name__ == "__main__":
    main()
