"""Run the demos whose record, facts or figures are missing or stale.

This is `npm run figures`. With --check it only lists them and exits with status 1
if there are any.
"""

import argparse
import html
import json
import re
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # code/, not code/lab/

from lab import results, source, terminal  # noqa: E402
from lab.cli import CODE, ROOT, STATIC  # noqa: E402


def stale(module):
    """What is missing or stale of a module's default demo, as short texts."""
    current = source.module_hash(module)
    record = STATIC / "results" / f"{module.stem}.json"
    entries = results.read(record)
    found = [f"{entry} in {record.name}" for entry in ("facts", "settings", "demo")
             if entries.get(entry, {}).get("hash") != current]
    found += [f"no {name}" for name in drawn(module)
              if not (STATIC / "img" / name).exists()]
    for figure in sorted((STATIC / "img").glob("*.*")):
        origin = provenance(figure)
        if origin.get("module") == module.stem and origin.get("run") == "demo" and (
                origin["hash"] != current):
            found.append(figure.name)
    return found


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


def main():
    terminal.prepare()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="only list them")
    check = parser.parse_args().check
    modules = [module for module in sorted(CODE.glob("*.py"))
               if any(cell.is_demo for cell in source.cells(
                   source.read(module)).values())]
    left = 0
    for module in modules:
        reasons = stale(module)
        if not reasons:
            continue
        print(f"{module.name}: {', '.join(reasons)}", flush=True)
        status = 0
        if not check:
            print(f"running python {module.relative_to(ROOT)}", flush=True)
            status = subprocess.run([sys.executable, module], cwd=ROOT).returncode
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
    except KeyboardInterrupt:
        raise SystemExit(130)
