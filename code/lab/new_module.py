"""Begin a module: write code/NAME.py and tests/test_NAME.py from the template.

This is `npm run new -- NAME`. Both are complete and tested, of a tiny architecture, and
are to be changed into that of the paper.
"""

import argparse
import importlib.util
import keyword
import re
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # code/, not code/lab/

from lab import UserError, terminal  # noqa: E402
from lab.cli import CODE, ROOT  # noqa: E402

TEMPLATE = Path(__file__).parent / "template"
ORDER = """\
Change this tiny architecture into that of the paper, in this order:
  1. the header, the model and facts() in code/{name}.py
  2. CASES, REFERENCES and the paper's claims in tests/test_{name}.py
  3. npm test -- --module {name}, after every step from here on
  4. the demo, then npm run figures -- {name}
  5. slides in a deck of slides/, and a row in README.md
CONTRIBUTING.md follows an example to its end."""


def check(name):
    """Raise UserError if a module cannot have this name."""
    files = [f"code/{name}.py", f"tests/test_{name}.py"]
    there = [file for file in files if (ROOT / file).exists()]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"'{name}' is no name of a module: take lower-case letters, "
                        "digits and _, such as squeezenet")
    if there:
        raise UserError(f"{there[0]} exists: take another name, or edit that file")
    if importlib.util.find_spec(name) or (ROOT / f"tests/{name}.py").exists():
        raise UserError(f"'{name}' is a Python module already, which code/{name}.py "
                        "would hide: take another name")


def fill(template, name):
    """Put a module's name into the text of a template."""
    text = (TEMPLATE / template).read_text("utf-8")
    model = "".join(part.capitalize() for part in name.split("_"))
    for placeholder, word in [("NewNet", model), ("new_net", name),
                              ("new-net", name.replace("_", "-"))]:
        text = text.replace(placeholder, word)
    return text


def main():
    terminal.prepare()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("name", metavar="NAME", help="such as squeezenet")
    name = parser.parse_args().name
    check(name)
    for path, template in [(CODE / f"{name}.py", "module.py"),
                           (ROOT / f"tests/test_{name}.py", "test_module.py")]:
        path.write_text(fill(template, name), "utf-8")
        print(f"wrote {terminal.shown(path)}")
    print(ORDER.format(name=name))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
