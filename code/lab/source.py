"""temporary: the reader is written on another branch."""

import hashlib
import re
from pathlib import Path


def module_hash(path):
    """SHA-256 of a module and the modules beside it that it imports, transitively.

    Blank and comment-only lines don't count. slides/engine/module.mjs does the same.
    """
    found, waiting = {}, [Path(path)]
    while waiting:
        module = waiting.pop()
        if module.stem in found:
            continue
        source = module.read_bytes().decode("utf-8")
        lines = [line.rstrip() for line in source.split("\n")]
        lines = [line for line in lines if line and not line.lstrip().startswith("#")]
        found[module.stem] = "\n".join(lines) + "\n"
        waiting += imported_modules(lines, module.parent)
    digest = hashlib.sha256()
    for name, source in sorted(found.items()):
        digest.update(f"{name}\n{source}".encode())
    return digest.hexdigest()


def imported_modules(lines, folder):
    """The files of the modules in `folder` that lines of Python import."""
    names = (re.match(r"\s*(?:from|import)\s+([A-Za-z_]\w*)", line, re.A)
             for line in lines)
    files = [folder / f"{name[1]}.py" for name in names if name]
    return [file for file in dict.fromkeys(files) if file.is_file()]


