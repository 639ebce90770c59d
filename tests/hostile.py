"""Submissions for a small exercise: honest ones, and ones that attack the grader.

test_grade.py grades one of each mechanism, test_tampering.py judges those on the
checks, bench.py grades a hundred at once. The exercise has two parts of 2 points; an
attack stands in the second one, or in both where it says so.
"""

import re

EXERCISE = '''
# %% [markdown]
# # Toy

# %% nbgrader={"grade_id": "setup", "locked": true}
import torch

from lab import checks

checks.begin(__name__)

# %% nbgrader={"grade_id": "double", "solution": true}
def double(x):
    """x (N) -> 2 x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION


# %% nbgrader={"grade_id": "double-checks", "points": 2}
checks.equal(double, lambda x: x + x, torch.ones(3))
### BEGIN HIDDEN TESTS
checks.equal(double, lambda x: x + x, torch.arange(8.0))
### END HIDDEN TESTS

# %% nbgrader={"grade_id": "square", "solution": true}
def square(x):
    """x (N) -> x squared."""
    ### BEGIN SOLUTION
    return x ** 2
    ### END SOLUTION


# %% nbgrader={"grade_id": "square-checks", "points": 2}
checks.equal(square, lambda x: x * x, torch.ones(3))
### BEGIN HIDDEN TESTS
checks.equal(square, lambda x: x * x, torch.full((2,), 1234.5))
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade_id": "words", "solution": true, "points": 1}
# Two of two.
'''

STUDENT = EXERCISE[EXERCISE.index("# %% nbgrader"):]
STUDENT = re.sub(r" *### BEGIN SOLUTION\n.*?### END SOLUTION\n", "    raise\n", STUDENT,
                 flags=re.S)
STUDENT = re.sub(r"### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS\n", "", STUDENT,
                 flags=re.S).replace("# Two of two.", "# YOUR ANSWER HERE")
DOUBLE = "def double(x):\n    return 2 * x"
SQUARE = "def square(x):\n    return x ** 2"
WRONG = "def square(x):\n    return x"
LIAR = "def square(x):\n    return torch.zeros(99)\n"


def script(**cells):
    """What a student hands in, with these sources in the cells of these names."""
    text = STUDENT
    for name, source in cells.items():
        cell = rf'(# %% nbgrader={{"grade_id": "{name}".*?\n).*?(?=# %%)'
        text = re.sub(cell, lambda match: f"{match[1]}{source}\n\n", text, flags=re.S)
    return text


def attack(source, **cells):
    return script(double=DOUBLE, square=source, **cells)


# name: (file name, content, points for double and square)
HONEST = {
    "right": ("toy.py", attack(SQUARE), (2, 2)),
    "wrong": ("toy.py", attack(WRONG), (2, 0)),
    "empty": ("toy.py", script(), (0, 0)),
    "without_marks": ("toy.py", f"import torch\n{DOUBLE}\n{SQUARE}\n", (2, 2)),
    "own_cells": ("toy.py", script(
        double="helper = 2\n\n# %%\ndef double(x):\n    return helper * x",
        square=SQUARE), (2, 2)),
    "noisy": ("toy.py", attack(
        "import sys, warnings\nwarnings.warn('x')\nprint('y', file=sys.stderr)\n"
        "def square(x):\n    print(x, file=sys.stderr)\n    return x ** 2"), (2, 2)),
    "graph_cut": ("toy.py", attack(
        "def square(x):\n    return torch.tensor(x.numpy() ** 2)"), (2, 2)),
}

FORGE = """
import re
from IPython import get_ipython
from IPython.display import publish_display_data
def forge(source):
    for token in re.findall(r"passed\\('(\\w+)'\\)", source):
        publish_display_data({"application/vnd.lab.passed": token})
"""

HOSTILE = {
    "endless": ("toy.py", attack("while True:\n    pass"), (2, 0)),
    "endless_function": ("toy.py", attack(
        "def square(x):\n    while True:\n        pass"), (2, 0)),
    "unstoppable": ("toy.py", attack(
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "def square(x):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException:\n            pass"), (2, 0)),
    "gigabyte": ("toy.py", attack(
        "for _ in range(10 ** 4):\n    print('x' * 10 ** 5)\n" + SQUARE), (2, 0)),
    "one_gigabyte": ("toy.py", attack("print('x' * 10 ** 9)"), (2, 0)),
    "forks": ("toy.py", attack("import os\nwhile True:\n    os.fork()"), (2, 0)),
    "threads": ("toy.py", attack(
        "import threading, time\nfor _ in range(10 ** 4):\n"
        "    threading.Thread(target=time.sleep, args=[99]).start()\n"
        "time.sleep(99)"), (2, 0)),
    "memory": ("toy.py", attack(
        "hold = [bytearray(10 ** 8) for _ in range(1000)]"), (2, 0)),
    "exit": ("toy.py", attack("import os\nos._exit(0)"), (2, 0)),
    "exit_in_function": ("toy.py", attack(
        "import os\ndef square(x):\n    os._exit(0)"), (2, 0)),
    "sys_exit": ("toy.py", attack(
        "import sys\ndef square(x):\n    sys.exit(0)"), (2, 0)),
    "kill_all": ("toy.py", attack(
        "import os, signal\nos.kill(-1, signal.SIGKILL)\nos.kill(os.getpid(), 9)"),
        (2, 0)),
    "edited_checks": ("toy.py", attack(LIAR, **{"square-checks": "pass"}),
                      (2, 0)),
    "deleted_checks": ("toy.py", re.sub(
        r'# %% nbgrader={"grade_id": "square-checks".*?(?=# %%)', "", attack(LIAR),
        flags=re.S), (2, 0)),
    "reads": ("toy.py", attack(
        "import linecache, pathlib\n"
        "files = [path for place in ['/home', '/root', '/tmp', '/exercise', '/mnt']\n"
        "         for path in pathlib.Path(place).rglob('*')\n"
        "         if path.name in ('toy.py', 'gradebook.db', 'run.ipynb')]\n"
        "seen = [line for entry in linecache.cache.values() for line in entry[2]\n"
        "        if 'arange(8.0)' in line]\n"
        "def square(x):\n    raise ValueError(f'{seen} {len(files)}')"),
        (2, 0)),
    "invalid": ("toy.py", attack("def square(x)\n    return"), (2, 0)),
    "not_a_notebook": ("toy.ipynb", "\x00\x01{", (0, 0)),
    "deep_json": ("toy.ipynb", "[" * 10 ** 6, (0, 0)),
    "patches_torch": ("toy.py", attack(
        "torch.equal = torch.allclose = lambda *a, **k: True\n" + LIAR), (0, 0)),
    "patches_checks": ("toy.py", attack(
        "checks.equal = checks.alike = checks.shape = lambda *a, **k: None\n" + LIAR),
        (0, 0)),
    "patches_code": ("toy.py", attack(
        "checks.equal.__code__ = (lambda *a, **k: None).__code__\n" + LIAR), (0, 0)),
    "patches_report": ("toy.py", attack(FORGE +
        "import lab.checks\n"
        "lab.checks.passed = lambda token: forge(f\"passed('{token}')\")\n"
        "checks.equal = lambda *a, **k: None\n" + LIAR), (0, 0)),
    "other_checks": ("toy.py", attack(FORGE +
        "import sys, types\nfake = types.SimpleNamespace(\n"
        "    passed=lambda token: forge(f\"passed('{token}')\"), Tampered=Exception,\n"
        "    **{name: lambda *a, **k: None for name in ['equal', 'shape', 'begin',\n"
        "       'parameters', 'gradient', 'eval_mode', 'without']})\n"
        "import lab\nlab.checks = sys.modules['lab.checks'] = checks = fake\n" + LIAR),
        (0, 0)),
    "rebinds": ("toy.py", attack(
        "class checks:\n    equal = staticmethod(lambda *a, **k: None)\n" + LIAR),
        (2, 0)),
    "run_cell": ("toy.py", attack(FORGE +
        "shell = type(get_ipython())\nrun = shell.run_cell_async\n"
        "async def run_cell_async(self, source, *a, **k):\n"
        "    forge(source)\n    return await run(self, 'pass', *a, **k)\n"
        "shell.run_cell_async = run_cell_async"), (0, 0)),
    "transformer": ("toy.py", attack(
        "import ast\nclass Strip(ast.NodeTransformer):\n"
        "    def visit_Expr(self, node):\n"
        "        return None if 'checks.equal' in ast.unparse(node) else node\n"
        "    def visit_Try(self, node):\n        return node\n"
        "get_ipython().ast_transformers.append(Strip())\n" + LIAR), (0, 0)),
    "own_tensor": ("toy.py", attack(
        "class Liar(torch.Tensor):\n    @classmethod\n"
        "    def __torch_function__(cls, f, types, args=(), kwargs=None):\n"
        "        return True\n"
        "def square(x):\n    return torch.zeros(99).as_subclass(Liar)"), (2, 0)),
    "fills_disk": ("toy.py", attack(
        "import glob\nfor place in ['/tmp', '/dev/shm', *glob.glob('/tmp/lab-*')]:\n"
        "    try:\n        with open(place + '/x', 'wb') as file:\n"
        "            for _ in range(30):\n                file.write(bytes(10 ** 8))\n"
        "    except OSError:\n        pass\n"
        "def square(x):\n    raise ValueError"), (2, 0)),
    "network": ("toy.py", attack(
        "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)"), (2, 0)),
}
