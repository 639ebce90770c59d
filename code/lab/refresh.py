"""Run the demos whose record, facts or figures are missing or stale.

This is `npm run figures`; with names, as in `npm run figures -- resnet`, only these
modules are looked at. With --check it only lists them and exits with status 1 if there
are any. With --tune and with --redraw it runs all of them: --tune chooses the learning
rates of comparisons again, --redraw takes trainings from the latest run where the code
that trains is the same. Figures that no code draws any more are to be deleted by hand.
"""

import argparse
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # code/, not code/lab/

from lab import UserError, results, source, terminal  # noqa: E402
from lab.cli import CODE, ROOT, STATIC  # noqa: E402


def stale(module):
    """What is missing or stale of a module's default demo, as short texts."""
    current = source.module_hash(module)
    record = STATIC / "results" / f"{module.stem}.json"
    entries = results.read(record)
    found = [f"{entry} in {record.name}" for entry in ("facts", "settings", "demo")
             if entries.get(entry, {}).get("hash") != current]
    trains = source.training_hash(module)
    found += [f"the choice of {side} (--tune)" for side, choice in entries.get(
        "choices", {}).get("demo", {}).items() if choice["hash"] != trains]
    names, hashes = drawn(module), demo_figures(module)
    found += [f"no {name}" for name in names if not (STATIC / "img" / name).exists()]
    return found + [name for name, made_by in hashes.items()
                    if name in names and made_by != current]


def compares(module):
    """Whether a module chooses learning rates."""
    return "compare.train(" in source.read(module)


def undrawn(module):
    """Figures of a module's default demo that its code no longer draws: their paths."""
    names = drawn(module)
    return [f"static/img/{name}" for name in demo_figures(module) if name not in names]


def demo_figures(module):
    """{file name: hash of the code} of the figures that a default demo has drawn."""
    origins = {figure.name: provenance(figure)
               for figure in sorted((STATIC / "img").glob("*.*"))}
    return {name: origin["hash"] for name, origin in origins.items()
            if origin.get("module") == module.stem and origin.get("run") == "demo"}


def drawn(module):
    """File names of the figures that a module's demo saves."""
    return [name + ending for name, (_, kind) in source.figures(
                source.read(module)).items()
            for ending in ([".png"] if kind == "png" else [".svg", ".dark.svg"])]


def provenance(figure):
    """What lab.figures wrote into a figure of where it came from; {} if nothing."""
    if figure.suffix == ".svg":
        text = re.search("<dc:description>(.*?)</dc:description>",
                         figure.read_text("utf-8"), re.S)
        text = html.unescape(text[1]) if text else "{}"
    elif figure.suffix == ".png":
        from PIL import Image
        with Image.open(figure) as picture:
            text = picture.info.get("Description", "{}")
    else:
        return {}
    try:
        return json.loads(text)
    except ValueError:
        return {}


def asked(names):
    """The modules of these names, or all that have a demo; UserError without one."""
    modules = {module.stem: module for module in sorted(CODE.glob("*.py"))
               if any(cell.is_demo for cell in source.cells(
                   source.read(module)).values())}
    for name in names:
        if name not in modules:
            raise UserError(f"no module '{name}' with a demo in code/; available: "
                            f"{', '.join(modules)}")
    return [modules[name] for name in names or modules]


def main():
    terminal.prepare()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a module")
    parser.add_argument("--check", action="store_true", help="only list them")
    parser.add_argument("--tune", action="store_true",
                        help="run them all, and choose learning rates again")
    parser.add_argument("--redraw", action="store_true",
                        help="run them all, with the trainings of their latest run")
    args = parser.parse_args()
    modules = asked(args.names)
    left = 0
    for module in modules:
        for figure in undrawn(module):
            print(f"delete {figure}: {module.name} draws it no more", flush=True)
            left += 1
        reasons = stale(module)
        if not reasons and not args.redraw and not args.tune:
            continue
        print(f"{module.name}: {', '.join(reasons) or 'fresh'}", flush=True)
        status = 0
        if not args.check:
            print(f"running python {module.relative_to(ROOT)}", flush=True)
            redraw = {"LAB_REDRAW": "1"} if args.redraw else {}
            tune = ["--tune"] if args.tune and compares(module) else []
            status = subprocess.run([sys.executable, module, *tune], cwd=ROOT,
                                    env=os.environ | redraw).returncode
            reasons = stale(module)
            if status or reasons:
                print(f"{module.name}: status {status}; still missing or stale: "
                      f"{', '.join(reasons) or 'nothing'}", flush=True)
        left += bool(status or reasons)
    if not left:
        print(f"fresh: {len(modules)} of {len(modules)} demos")
    raise SystemExit(1 if left else 0)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
