"""Run modules as notebooks: out/notebooks/NAME.ipynb, where missing or stale.

This is `npm run notebooks`. Every module is run from top to bottom in a kernel of its
own, with the default arguments, or with those of $LAB_ARGS. With names, as in
`npm run notebooks -- lenet resnet`, only these.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # code/, not code/lab/

from lab import UserError, results, source, terminal  # noqa: E402
from lab.cli import CODE, ROOT  # noqa: E402

NOTEBOOKS = ROOT / "out" / "notebooks"


def asked(names):
    """The modules of these names, or all; UserError for an unknown one."""
    modules = {module.stem: module for module in sorted(CODE.glob("*.py"))}
    names = [Path(name).name.removesuffix(".py") for name in names]
    for name in names:
        if name not in modules:
            raise UserError(f"no module code/{name}.py; available: "
                            f"{', '.join(modules)}")
    return [modules[name] for name in names or modules]


def is_fresh(path, made):
    """Whether a notebook is there and was made by this code with these arguments."""
    try:
        return json.loads(path.read_text("utf-8"))["metadata"]["lab"] == made
    except (OSError, ValueError, KeyError, TypeError):
        return False


def execute(notebook, name, record_timing=False):
    """The notebook with its outputs; UserError that names the cell that fails."""
    current = []
    os.environ.pop("MPLBACKEND", None)  # a notebook shows what is drawn in it
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=None, record_timing=record_timing,
        coalesce_streams=True, resources={"metadata": {"path": str(CODE)}},
        extra_arguments=["--log-level=ERROR"],  # not that loopback is not encrypted
        on_cell_start=lambda cell, cell_index: current.append(cell))
    try:
        client.execute()
    except CellExecutionError as error:
        reason = f"{error.ename}: {first_line(error.evalue)}"
    except DeadKernelError:
        reason = "its kernel died (is there enough memory?)"
    else:
        return notebook
    title = current[-1].metadata.get("title") or first_line(current[-1].source)
    raise UserError(f"{name}, cell \"{title}\": {reason}")


def first_line(text):
    return (text.strip().splitlines() or [""])[0]


def make(module, arguments):
    """Write the notebook of a module if it is missing or stale."""
    made = {"hash": source.module_hash(module), "arguments": arguments}
    path = NOTEBOOKS / f"{module.stem}.ipynb"
    if is_fresh(path, made):
        return
    print(f"running {module.relative_to(ROOT)}", flush=True)
    start = time.perf_counter()
    os.environ["LAB_MODULE"] = module.stem
    notebook = execute(jupytext.read(module), module.name)
    notebook.metadata["lab"] = made
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python"}
    with results.atomic(path) as temporary:
        nbformat.write(notebook, temporary)
    print(f"wrote {terminal.shown(path)} ({time.perf_counter() - start:.0f} s)",
          flush=True)


def main():
    terminal.prepare()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a module")
    modules = asked(parser.parse_args().names)
    # Kernels have it from here: idle OpenMP threads would spin, and take the cores
    # from all else that runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    failed = 0
    for module in modules:
        try:
            make(module, os.environ.get("LAB_ARGS", ""))
        except UserError as error:
            print(error, file=sys.stderr, flush=True)
            failed += 1
    if not failed:
        print(f"fresh: {len(modules)} of {len(modules)} notebooks")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
