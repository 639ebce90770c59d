"""Record what the decks' runnable snippets give, for pages without a kernel.

This is `npm run record`. Each module's snippets run in a kernel of their own, as a
lecturer would run them one after the other; static/recorded/MODULE.json has their
text, and the names of their figures. What each line of a forward computes is in
static/recorded/MODULE.shapes.json: in the first call that the module's facts() makes
or, where they make none, in that of a case which its tests declare. What is fresh
stays; with names, as in `npm run record -- resnet`, only these modules are looked at.
"""

import argparse
import ast
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import nbformat
import torch

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # code/, not code/lab/

from lab import UserError, live_shapes, results, runs, source, terminal  # noqa: E402
from lab.cli import CODE, ROOT, STATIC  # noqa: E402
from lab.notebooks import execute  # noqa: E402

RECORDED = STATIC / "recorded"
BOOTSTRAP = "from lab import live"


@cache
def references():
    """What the decks refer to, as the engine reads them."""
    node = os.environ.get("npm_node_execpath", "node")
    return json.loads(subprocess.run(
        [node, ROOT / "slides/engine/references.mjs", "--json"],
        capture_output=True, text=True, check=True).stdout)


def snippets():
    """{module: {symbol: text}} of what the decks let one run, in their order."""
    return _texts(lambda reference: reference.get("run") is True)


def forwards():
    """{module: {symbol: text}} of the classes, or their forward, that decks show."""
    return _texts(lambda reference: reference["kind"] == "code" and re.search(
        r"^ *def forward\(", reference.get("code", ""), re.MULTILINE))


def _texts(wanted):
    modules = {}
    for reference in references():
        if reference["ok"] and wanted(reference):
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


def shapes_path(name):
    return RECORDED / f"{name}.shapes.json"


def are_shapes_stale(name, texts):
    """Whether the shapes of a module's forwards are missing or of other code."""
    recorded = results.read(shapes_path(name))
    digests = {symbol: entry["code"]
               for symbol, entry in recorded.get("shapes", {}).items()}
    return recorded.get("made", {}).get("hash") != source.module_hash(
        CODE / f"{name}.py") or (
        digests != {symbol: _digest(text) for symbol, text in texts.items()})


def record_shapes(name, texts):
    """Write the shape of what each line of a module's forwards computes."""
    entries = {}
    shapes = first_shapes(name, {symbol.removesuffix(".forward") for symbol in texts})
    spans = source.definitions(source.read(CODE / f"{name}.py"))
    for symbol, text in texts.items():
        first, _ = spans[symbol]
        found = shapes[symbol.removesuffix(".forward")]
        entries[symbol] = {"code": _digest(text), "lines": {
            str(line - first): shape for line, shape in sorted(found.items())}}
    made = {"hash": source.module_hash(CODE / f"{name}.py")}
    with results.atomic(shapes_path(name)) as temporary:
        temporary.write_text(
            json.dumps({"made": made, "shapes": entries}, indent=1) + "\n", "utf-8")


def first_shapes(name, owners):
    """{class: {line of the file: shape}} of the first call of each class's forward."""
    module = importlib.import_module(name)
    path = CODE / f"{name}.py"
    nodes = {node.name: node for node in ast.parse(source.read(path)).body
             if isinstance(node, ast.ClassDef)}
    watches = {owner: live_shapes.Watch(
        getattr(module, owner), ast.Module([nodes[owner]], []), str(path),
        keep_first=True) for owner in owners}
    module.facts()
    sys.path.append(str(ROOT / "tests"))
    declared = importlib.import_module("declared")
    for case in declared.declared(name, "CASES", {}).values():
        if not all(watch.shapes for watch in watches.values()):
            torch.manual_seed(0)
            case.build()(*case.batch()[0])
    return {owner: watch.shapes for owner, watch in watches.items()}


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


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
    all_names = list({**modules, **forwards()})
    unknown = [name for name in names if name not in all_names]
    if unknown:
        raise UserError(f"no deck has a runnable snippet or a forward of {unknown[0]}; "
                        f"available: {', '.join(all_names)}")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in names or all_names:
        if name in forwards() and are_shapes_stale(name, forwards()[name]):
            record_shapes(name, forwards()[name])
            print(f"wrote {terminal.shown(shapes_path(name))}", flush=True)
        if name in modules and stale(name, modules[name]):
            print(f"recording {name}: {', '.join(modules[name])}", flush=True)
            start = time.perf_counter()
            record(name, modules[name])
            print(f"wrote {terminal.shown(RECORDED / f'{name}.json')} "
                  f"({time.perf_counter() - start:.0f} s)", flush=True)
    print(f"fresh: the recordings of {len(names or all_names)} modules")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
