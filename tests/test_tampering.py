"""Forged points are seen, and honest work is never called tampering."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_output
from torch.overrides import TorchFunctionMode

from hostile import FORGE, HONEST, HOSTILE, LIAR, attack
from lab import checks, exercises, grade, sandbox, scrutiny, verdicts
from ordinary import ORDINARY

pytestmark = pytest.mark.timeout(600)   # of a kernel with many cells, at low priority
HERE = Path(__file__).resolve().parent
LIE = "lambda *given, **options: None"

# Each is to be called tampering: {name: (code, word of the reason)}
TAMPERING = {
    "a global that hides one of Python's": ("checks.zip = lambda *a: []", "zip"),
    "defaults": ("checks.overfits.__defaults__ = (None, 9e9, 0, 0)", "overfits"),
    "defaults by keyword": (
        "checks.equal.__kwdefaults__ = {'tolerance': 9e9}\n"
        "checks.equal.__defaults__ = (9e9,)", "equal"),
    "a method that hides one": ("torch.Tensor.isnan = lambda self: self > 9", "isnan"),
    "a property that hides one": (
        "torch.Tensor.shape = property(lambda self: (3,))", "shape"),
    "a layer": ("torch.nn.Linear.forward = lambda self, x: x", "forward"),
    "a base of layers": (
        "class Evil(torch.nn.Module):\n    pass\n"
        "torch.nn.Conv2d.__bases__ = (Evil, *torch.nn.Conv2d.__bases__)", "Conv2d"),
    "the class of a module": (
        "import types\nclass Liar(types.ModuleType):\n"
        "    def __getattribute__(self, name):\n"
        f"        return ({LIE}) if name == 'equal' else "
        "super().__getattribute__(name)\nchecks.__class__ = Liar", "checks"),
    "the class of the shell": (
        "class Shell(type(get_ipython())):\n    pass\n"
        "get_ipython().__class__ = Shell", "Shell"),
    "a module's place": (
        "import sys, types\nfake = types.ModuleType('torch')\n"
        "fake.__dict__.update(vars(torch))\nfake.equal = lambda *a: True\n"
        "sys.modules['torch'] = fake", "torch was replaced"),
    "a builtin of a library": ("import builtins\nbuiltins.any = bool", "any"),
    "a function of a library": ("import gc\nchecks.alike = gc.collect", "alike"),
    "an initialiser": ("torch.nn.init.normal_ = lambda x: x.zero_()", "normal_"),
    "the parser": (
        "compiler = get_ipython().compile\nparse = compiler.ast_parse\n"
        "compiler.ast_parse = lambda *a, **k: parse(*a, **k)", "ast_parse"),
    "the kernel": ("kernel = get_ipython().kernel\nexecute = kernel.do_execute\n"
                   "kernel.do_execute = lambda *a, **k: execute(*a, **k)",
                   "do_execute"),
    "the kernel's class": (
        "kind = type(get_ipython().kernel)\nold = kind.do_execute\n"
        "kind.do_execute = lambda *a, **k: old(*a, **k)", "do_execute"),
    "events": ("get_ipython().events.trigger = lambda *a: None", "trigger"),
    "a callback": ("get_ipython().events.register('pre_run_cell', lambda info: None)",
                   "given a hook"),
    "a callback that says it is a library's": (
        "import os\nnames = {}\nexec(compile('def hook(info): pass', os.__file__,"
        " 'exec'), names)\n"
        "get_ipython().events.register('pre_run_cell', names['hook'])",
        "given a hook"),
    "a transformer": ("get_ipython().input_transformers_post.append(lambda x: x)",
                      "given a hook"),
    "audit hook": (FORGE + "import sys\nsys.addaudithook(lambda event, args:\n"
                   "    event == 'compile' and forge(str(args[0])))\n", "audit hook"),
    "audit hook under another name": (
        "import sys\ngetattr(sys, 'add' + 'audit' + 'hook')(print)", "audit hook"),
    "reports of its own": (FORGE + "forge(\"passed('0123')\")", "no check has made"),
    "a library's tensors": (
        "torch.equal = torch.is_same_size", "equal was changed"),
}

# These get no points either, but by the checks themselves: [code].
IN_VAIN = {
    "a mode": (
        "from torch.overrides import TorchFunctionMode\n"
        "class Liar(TorchFunctionMode):\n"
        "    def __torch_function__(self, function, types, args=(), kwargs=None):\n"
        "        return True if 'close' in str(function) else function(\n"
        "            *args, **kwargs or {})\n"
        "Liar().__enter__()\n"),
    "names of Python": "isinstance = len = max = zip = lambda *given: 1\n",
    "a class of this name": "class checks:\n    equal = lambda *given: None\n",
    "a function of this name": "def builtins():\n    pass\n",
}


# Attacks on the checks, and attacks that are no more than a wrong solution.
ON_CHECKS = [name for name, (_, content, points) in HOSTILE.items()
             if points == (0, 0) and "grade_id" in content]
WRONG_ANSWERS = ["sys_exit", "rebinds", "own_tensor"]


@pytest.fixture(scope="module")
def judged():
    """{name: (notes, points)} of all that is above, in one process."""
    texts = {name: attack(f"{source}\n{LIAR}")
             for name, (source, _) in TAMPERING.items()}
    texts |= {name: attack(f"{source}\n{LIAR}") for name, source in IN_VAIN.items()}
    texts |= {f"hostile {name}": HOSTILE[name][1]
              for name in ON_CHECKS + WRONG_ANSWERS}
    texts |= {f"honest {name}": content for name, (_, content, _) in HONEST.items()}
    done = subprocess.run([sys.executable, HERE / "judge.py"], text=True,
                          input=json.dumps(texts), capture_output=True,
                          env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", TAMPERING)
def test_it_is_seen(judged, name):
    notes, points = judged[name]
    word = TAMPERING[name][1]
    assert points == [0, 0], notes
    assert any(why.startswith("tampered with: ") and word in why for _, why in notes)


@pytest.mark.parametrize("name", IN_VAIN)
def test_it_is_in_vain(judged, name):
    notes, points = judged[name]
    assert points == [2, 0]
    assert not any("tampered" in why for _, why in notes)


@pytest.mark.parametrize("name", ON_CHECKS)
def test_attacks_on_the_checks_are_seen(judged, name):
    notes, points = judged[f"hostile {name}"]
    assert points == [0, 0]
    assert any(why.startswith("tampered with: ") for _, why in notes)


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_attacks_that_change_nothing_are_wrong_answers(judged, name):
    notes, points = judged[f"hostile {name}"]
    assert points == [2, 0] == [*HOSTILE[name][2]]
    assert not any("tampered" in why for _, why in notes)


@pytest.mark.parametrize("name", HONEST)
def test_honest_work_is_not(judged, name):
    notes, points = judged[f"honest {name}"]
    assert points == [*HONEST[name][2]]
    assert all(why.startswith("cells are missing") for _, why in notes)


# Honest work -------------------------------------------------------------------

SETUP = """import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional as F
from lab import checks"""
CHECK = """
checks.equal(lambda x: x + x, lambda x: 2 * x, torch.ones(3))
checks.shape(nn.Linear(2, 2), torch.ones(3, 2), expected=(3, 2))
checks.gradient(F.softplus, torch.randn(3))
assert sum([1, 2]) == 3 and len(str(range(3))) > 2 and max(1, 2) == 2
assert torch.ones(2).dtype == torch.float32
assert torch.ones(1, requires_grad=True).mul(2).requires_grad
try:
    1 / 0
except Exception as error:
    assert isinstance(error, ZeroDivisionError)
"""
TOGETHER = 4   # cells before a check


def locked(source, name, **more):
    own = {"schema_version": 3, "task": False, "grade": bool(more), "solution": False,
           "locked": True, "grade_id": name}
    return new_code_cell(source, metadata={"nbgrader": own | more})


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
@pytest.mark.parametrize("ordinary", [ORDINARY, ORDINARY[::-1]],
                         ids=["forward", "backward"])
def test_ordinary_cells_are_not_tampering(tmp_path, monkeypatch, ordinary):
    monkeypatch.setenv("PYTHONPATH", str(exercises.LAB.parent))
    exercises.copy_lab(exercises.EXERCISES / "convolution.py", tmp_path / "lab")
    cells = [locked(SETUP, "setup")]
    for first in range(0, len(ordinary), TOGETHER):
        some = ordinary[first:first + TOGETHER]
        cells += [*map(new_code_cell, some), locked(CHECK, "\n".join(some), points=1)]
    notebook, roles = verdicts.instrumented(cells)
    path = tmp_path / "run.ipynb"
    nbformat.write(notebook, path)
    process = grade.PROCESSES.Process(
        target=sandbox.execute, daemon=True,
        args=(path, tmp_path / "lab", None, True, sandbox.Limits()))
    process.start()
    process.join(500)
    notes = verdicts.judge(cells, nbformat.read(path, as_version=4), roles, set())
    assert not notes
    assert not [(cell.metadata.nbgrader.grade_id, cell.outputs[0].evalue)
                for cell in cells if verdicts.is_check(cell) and cell.outputs]


def test_a_check_has_its_own_defaults_and_gives_back_those_of_the_student():
    class Mode(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            return function(*args, **kwargs or {})

    hooks = torch.nn.modules.module._global_forward_hooks
    with Mode() as mode, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.set_default_dtype(torch.float64)
        hook = torch.nn.modules.module.register_module_forward_hook(lambda *given: None)
        state = torch.manual_seed(7).get_state()
        try:
            checks.settle()
            assert torch.ones(1).dtype == torch.float32 and not hooks
            assert torch.is_grad_enabled()
            assert not torch.overrides._get_current_function_mode_stack()
            drawn = torch.rand(1)
            warnings.warn("is no error now")
            checks.settle()   # as after a cell that was stopped
            assert torch.rand(1) == drawn
        finally:
            checks.resume()
            dtype = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
            found = dict(hooks)
            hook.remove()
        assert dtype == torch.float64 and found
        assert torch.overrides._get_current_function_mode_stack() == [mode]
        assert not torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), state)
        with pytest.raises(UserWarning):
            warnings.warn("is an error again")


# What a kernel sends -----------------------------------------------------------


def error(name, value=""):
    return {name: new_output("error", ename=name, evalue=value, traceback=[])}


@pytest.mark.parametrize("kind, tokens, errors, status, why", [
    ("check", ["1a"], {}, "ok", None),
    ("check", [], error("Hint"), "error", None),
    ("check", ["1a"], error("CellTimeoutError"), "error", None),
    ("check", ["1a"], error("ValueError"), "ok", None),   # of a figure, after the cell
    ("check", ["1a"], error("Hint"), "error", "has reported its end, and failed"),
    ("check", ["1a", "2b"], {}, "ok", "a report that no check has made"),
    ("own", ["1a"], {}, "ok", "a report that no check has made"),
    ("canary", ["1a", "a1"], {}, "ok", "a check that must fail has passed"),
    ("check", [], error("Tampered", "x" * 999 + "\n=y"), "error", "x" * 200),
    ("own", [], error("Tampered", "=HYPERLINK()"), "error", None),
])
def test_what_is_tampering(kind, tokens, errors, status, why):
    token = None if kind == "own" else "1a"
    found = verdicts.tampering(kind, token, tokens, errors, status)
    if why is None:
        assert found is None
    else:
        assert found.startswith("tampered with: ") and found.endswith(why)
        assert len(found) < 220 and "\n" not in found


# What a human should look at -----------------------------------------------------

LOOK_AT = r"""
sys.addaudithook(print)
sys.settrace(print)
from sys import settrace as harmless
sys.monitoring.use_tool_id(1, "x")
getattr(sys, "set" + "trace")(print)
getattr(sys, "".join(["set", "trace"]))(print)
getattr(sys, name)(print)
!cat /proc/self/maps
%code_wrap sure
vars(sys)[name](print)
setattr(type(get_ipython()), name, print)
exec(text)
eval(bytes.fromhex("70"))
__import__("ctypes")
import ctypes
from ctypes import pythonapi
importlib.import_module(name)
gc.get_objects()
inspect.currentframe().f_back
inspect.stack()[1].frame.f_locals
checks.equal.__code__ = double.__code__
checks.passed("x")
lab.checks.passed.__closure__[0].cell_contents
(lambda: 0).__globals__
().__class__.__mro__[1].__subclasses__()
display({"application/vnd." + "lab.passed": 1}, raw=True)
from IPython.display import publish_display_data
get_ipython().display_pub.publish({})
shell = get_ipython(); shell.run_cell_async = print
get_ipython().kernel.iopub_socket.send(b"")
sys.modules["lab.checks"] = fake
open("/proc/self/mem", "wb")
class Liar(torch.Tensor):\n    __torch_function__ = print
%time sys.settrace
def broken(:\n    sys.settrace(print)
"""


@pytest.mark.parametrize("source", LOOK_AT.strip().splitlines())
def test_a_human_looks_at(source):
    source = source.replace("\\n", "\n")
    cell = new_code_cell(source)
    (name, why), = scrutiny.notes([cell], verdicts.part)
    assert why.startswith("look at its code: it uses ") and len(why) < 400


@pytest.mark.parametrize("source", [
    " " * 10 ** 6 + "\n'settrace'", "+".join(["'x'"] * 3000) + "\nsettrace",
    "(" * 10 ** 5 + "settrace"], ids=["spaces", "sum", "brackets"])
def test_code_that_is_made_to_be_slow_to_read(source):
    assert scrutiny.suspicious(source) == ["settrace"]


def test_a_human_is_told_of_what_is_redefined():
    cells = [locked("import torch\ntest_set = load()\nSIZE = 3", "setup"),
             new_code_cell("test_set = easy\ndef SIZE(): pass\ntorch = own = 1")]
    assert scrutiny.notes(cells, verdicts.part) == [
        ("", "it redefines what the checks may use: SIZE, test_set")]


@pytest.mark.parametrize("source", [
    *ORDINARY, *sorted({cell.source for path in exercises.EXERCISES.glob("*.py")
                        for cell in exercises.source(path).cells
                        if cell.cell_type == "code"})])
def test_nobody_has_to_look_at_ordinary_code(source):
    assert not scrutiny.suspicious(source)
