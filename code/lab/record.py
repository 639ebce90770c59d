"""Record what the decks' runnable snippets give, for pages without a kernel.

This is `npm run record`. Each module's snippets run in a kernel of their own, as a
lecturer would run them one after the other; static/recorded/MODULE.json has their
text, and the names of their figures. What is fresh stays; with names, as in
`npm run record -- resnet`, only these modules are looked at.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import nbformat
import torch

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # code/, not code/lab/

from lab import UserError, results, runs, source, terminal  # noqa: E402
from lab.cli import CODE, ROOT, STATIC  # noqa: E402
from lab.notebooks import execute  # noqa: E402

RECORDED = STATIC / "recorded"
BOOTSTRAP = "from lab import live"


def snippets():
    """{module: {symbol: text}} of what the decks let one run, in their order."""
    node = os.environ.get("npm_node_execpath", "node")
    found = subprocess.run([node, ROOT / "slides/engine/references.mjs", "--json"],
                           capture_output=True, text=True, check=True).stdout
    modules = {}
    for reference in json.loads(found):
        if reference["ok"] and reference.get("run") is True:
            modules.setdefault(reference["module"], {})[
                reference["symbol"]] = reference["code"]
    return modules


def stale(name, texts):
    """Whether the recording of a module's snippets is missing or of other code."""
    recorded = results.read(RECORDED / f"{name}.json")
    return recorded.get("made", {}).get("hash") != source.module_hash(
        CODE / f"{name}.py") or list(recorded.get("snippets", {})) != list(texts)


def record(name, texts):
    """Run a module's snippets in a fresh kernel and write what they give."""
    cells = [nbformat.v4.new_code_cell(BOOTSTRAP, metadata={"title": "start"})]
    cells += [nbformat.v4.new_code_cell(f"live.run({name!r}, {symbol!r}, {text!r})",
                                        metadata={"title": symbol})
              for symbol, text in texts.items()]
    notebook = execute(nbformat.v4.new_notebook(cells=cells), name, record_timing=True)
    made = {"hash": source.module_hash(CODE / f"{name}.py"),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "hardware": runs.hardware(torch.device("cpu")),
            "versions": runs.versions()}
    found = {cell.metadata["title"]: {"seconds": seconds(cell), "outputs": given(cell)}
             for cell in notebook.cells[1:]}
    with results.atomic(RECORDED / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({"made": made, "snippets": found}, indent=1,
                                        ensure_ascii=False) + "\n", "utf-8")


def seconds(cell):
    """How long a cell ran."""
    times = cell.metadata["execution"]
    began, ended = (datetime.fromisoformat(times[key]) for key in (
        "iopub.execute_input", "iopub.status.idle"))
    return round((ended - began).total_seconds(), 1)


def given(cell):
    """What a cell gave, but no curves: [{"text": …} or {"figure": NAME}]."""
    found = []
    for output in cell.outputs:
        figure = output.get("metadata", {}).get("figure")
        if figure:
            found.append({"figure": figure})
            continue
        data = output.get("data", {})
        if any("curve" in kind for kind in data):
            continue
        text = output.get("text", data.get("text/plain", ""))
        text = re.sub(r"\x1b\[[\d;]*m", "", text)
        if found and "text" in found[-1]:
            found[-1]["text"] += text
        elif text:
            found.append({"text": text})
    return found


def main():
    terminal.prepare()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a module")
    names, modules = parser.parse_args().names, snippets()
    unknown = [name for name in names if name not in modules]
    if unknown:
        raise UserError(f"no deck has a runnable snippet of {unknown[0]}; there is "
                        f"{', '.join(modules)}")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in names or modules:
        if stale(name, modules[name]):
            print(f"recording {name}: {', '.join(modules[name])}", flush=True)
            start = time.perf_counter()
            record(name, modules[name])
            print(f"wrote {terminal.shown(RECORDED / f'{name}.json')} "
                  f"({time.perf_counter() - start:.0f} s)", flush=True)
    print(f"fresh: {len(names or modules)} of {len(names or modules)} recordings")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
