"""Code of slides in a real kernel: namespaces, edits, what is shown, what is cut."""

import json
import os
import queue
import re
import textwrap
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

ROOT = Path(__file__).resolve().parents[1]
TOY = '''
# %%
def base():
    return 1


# %%
class Block:
    def size(self):
        return 10 * base()


# %%
class Twice(Block):
    def size(self):
        return 2 * super().size()


# %% Arguments
if __name__ == "__main__":
    from lab import cli, figures, training
    args = cli.begin({"digits": cli.Settings()})

# %% Show the size
if __name__ == "__main__":
    print(Twice().size(), args.data)
'''


class Answer:
    """What a kernel sent for one request."""

    def __init__(self):
        self.request, self.text, self.error = None, "", ""
        self.data, self.metadata, self.updates = [], [], 0

    def take(self, kind, content):
        if kind == "stream":
            self.text += content["text"]
        elif kind == "error":
            lines = "\n".join(content["traceback"])
            self.error += re.sub(r"\x1b\[[\d;]*m", "", lines)
        elif kind in ("display_data", "update_display_data"):
            self.data.append(content["data"])
            self.metadata.append(content["metadata"])
            self.updates += kind == "update_display_data"


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(
        cwd=str(ROOT / "code"), env={**os.environ, "MPLBACKEND": "Agg"})
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture
def ask(kernel):
    """ask(code, during=…): the kernel's answer; during(answer) after each message."""
    _, client = kernel

    def ask(code, during=lambda answer: None):
        answer = Answer()
        answer.request = request = client.execute(code, store_history=False)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                message = client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and (
                    message["content"]["execution_state"] == "idle"):
                return answer
            answer.take(message["msg_type"], message["content"])
            during(answer)
        raise AssertionError(f"no end after 60 s: {code}")

    return ask


@pytest.fixture
def toy(ask, tmp_path):
    """A folder that stands for code/, with toy.py in it; toy(symbol, text) runs."""
    (tmp_path / "toy.py").write_text(TOY, "utf-8")
    started = ask(f"""
import sys
from pathlib import Path
from lab import cli, live
cli.CODE, cli.ROOT = Path({str(tmp_path)!r}), Path({str(tmp_path)!r})
live._modules.clear()
for name in ["toy", "other", "user"]:
    sys.modules.pop(name, None)
sys.path[:] = [path for path in sys.path if "pytest" not in path]
sys.path.insert(0, {str(tmp_path)!r})
""")
    assert not started.error, started.error

    def run(symbol, text, module="toy", **options):
        code = textwrap.dedent(text).strip("\n")
        return ask(f"live.run({module!r}, {symbol!r}, {code!r})", **options)

    run.folder = tmp_path
    return run


SIZE = "print(Twice().size(), args.data)"


def size(toy, **options):
    answer = toy("show-the-size", SIZE, **options)
    assert not answer.error, answer.error
    return answer.text.strip()


def test_a_demo_cell_runs_in_its_module_with_its_arguments(toy):
    assert size(toy) == "20 digits"


def test_an_edit_takes_the_place_of_a_definition(toy):
    """For all that is built on it: functions that call it, classes that inherit."""
    assert not toy("base", "def base():\n    return 7").error
    assert size(toy) == "140 digits"
    assert not toy("Block.size", "def size(self):\n    return base() + 1").error
    assert size(toy) == "16 digits"
    assert not toy("base", "def base():\n    return 1").error
    assert size(toy) == "4 digits"


def test_reset_restores(toy, ask):
    toy("base", "def base():\n    return 7")
    assert size(toy) == "140 digits"
    assert not ask('live.reset("toy", "base")').error
    assert size(toy) == "20 digits"


def test_modules_do_not_meet(toy):
    (toy.folder / "other.py").write_text(TOY, "utf-8")
    toy("base", "def base():\n    return 7")
    assert size(toy, module="other") == "20 digits"
    assert size(toy) == "140 digits"


def test_a_module_changed_on_disk_is_read_again(toy):
    toy("base", "def base():\n    return 7")
    text = TOY.replace("return 1\n", "return 3\n")
    (toy.folder / "toy.py").write_text(text, "utf-8")
    assert size(toy) == "60 digits"


def test_so_is_one_that_it_imports(toy):
    user = toy.folder / "user.py"
    user.write_text("from toy import base\n\n\n# %% Show\n"
                    'if __name__ == "__main__":\n    print(base())\n', "utf-8")
    assert toy("show", "print(base())", module="user").text == "1\n"
    text = TOY.replace("return 1\n", "return 3\n")
    (toy.folder / "toy.py").write_text(text, "utf-8")
    assert toy("show", "print(base())", module="user").text == "3\n"


def test_what_does_not_run_changes_nothing(toy):
    answer = toy("Block", "class Block:\n    size = 1 / 0")
    assert answer.error.endswith("ZeroDivisionError: division by zero")
    assert size(toy) == "20 digits"


def test_a_file_that_does_not_run_is_not_taken_for_read(toy):
    assert size(toy) == "20 digits"
    failing = TOY.replace("class Twice", "1 / 0\n\n\nclass Twice")
    (toy.folder / "toy.py").write_text(failing)
    for _ in range(2):
        assert "ZeroDivisionError" in toy("show-the-size", SIZE).error
    (toy.folder / "toy.py").write_text(TOY)
    assert size(toy) == "20 digits"


def line_of(text):
    return TOY.splitlines().index(text) + 1


def test_a_traceback_has_the_lines_of_the_slide(toy):
    toy("Block", "class Block:\n    def size(self):\n        return base() + 'one'")
    answer = toy("show-the-size", SIZE)
    first = line_of("class Block:")
    assert answer.error.splitlines() == [
        f"toy.py (show-the-size):{line_of('    ' + SIZE)} in <module>", f"    {SIZE}",
        f"toy.py:{line_of('class Twice(Block):') + 2} in size",
        "    return 2 * super().size()",
        f"toy.py (Block, edited):{first + 2} in size", "    return base() + 'one'",
        "TypeError: unsupported operand type(s) for +: 'int' and 'str'"]


def test_lines_of_libraries_are_counted(toy):
    answer = toy("show-the-size", "import json\njson.loads('{')")
    assert "  … 3 lines of libraries" in answer.error
    assert "live" not in answer.error and answer.error.count("\n") < 6


def test_a_syntax_error_names_its_line(toy):
    answer = toy("base", "def base():\n    return (")
    assert f"line {line_of('def base():') + 1}" in answer.error
    assert "SyntaxError" in answer.error and "return (" in answer.error
    assert size(toy) == "20 digits"


def test_a_symbol_that_is_gone(toy):
    assert "no longer has bass: load the page again" in toy("bass", "pass").error


def test_the_last_expression_is_shown(toy):
    assert toy("show-the-size", "Twice().size()").data == [{"text/plain": "20"}]
    shown = toy("base", "def base():\n    return 7\n\nbase() + 1").data
    assert shown == [{"text/plain": "8"}]
    assert size(toy) == "140 digits"


def test_a_million_lines_are_cut(toy):
    answer = toy("show-the-size", "for i in range(1_000_000):\n    print(i)")
    assert len(answer.text) < 120_000 and answer.text.startswith("0\n1\n")
    assert re.search(r"… [\d,]+ characters left out …", answer.text)
    assert answer.text.endswith("999999\n")


@pytest.mark.parametrize("text", [
    "print('x' * 10 ** 8)", "'x' * 10 ** 8", "display('x' * 10 ** 8)",
    "from IPython.display import HTML\nHTML('x' * 10 ** 8)",
    "import sys\nsys.stderr.write('x' * 10 ** 8); None"])
def test_a_huge_text_is_cut(toy, text):
    answer = toy("show-the-size", "from IPython.display import display\n" + text)
    shown = answer.text + "".join(json.dumps(data) for data in answer.data)
    assert "left out" in shown and len(shown) < 250_000


def test_a_progress_bar_goes_on(toy):
    answer = toy("show-the-size", """
        for i in range(5_000):
            print(f"\\r{i:100}", end="")
        print("\\rend")
    """)
    assert answer.text.endswith("\rend\n") and "left out" not in answer.text


def test_a_figure_comes_for_both_themes(toy):
    answer = toy("show-the-size", """
        figure, (axis,) = figures.panels(xlabel="x")
        axis.plot([1, 2], label="one")
        figures.save(figure, "toy-lines")
    """)
    (data,), (metadata,) = answer.data, answer.metadata
    assert metadata == {"figure": "toy-lines"}
    assert "<svg" in data["image/svg+xml"]
    assert "#11161d" not in data["image/svg+xml"]
    assert data["application/vnd.lab.dark-svg+xml"] != data["image/svg+xml"]
    assert not list(toy.folder.rglob("*.svg"))


TRAINING = """
    import time
    def step(batch):
        time.sleep(0.02)
        return {"loss": 1 / (1 + float(batch.sum()))}
    import torch
    training.fit(step, [torch.ones(1)] * 60, args, name="steps", epochs=2)
    print("trained")
"""


def test_a_training_draws_its_loss(toy):
    began = time.monotonic()
    answer = toy("show-the-size", TRAINING)
    seconds = time.monotonic() - began
    assert answer.text.endswith("trained\n") and not answer.error
    lines = answer.data[-1]["application/vnd.lab.curve+json"]["lines"]["steps"]
    assert 3 <= len(lines) <= 2 * seconds + 1
    assert answer.updates == len(answer.data) - 1
    assert lines == sorted(lines) and 1 < lines[-1][0] <= 2 and lines[-1][1] == 0.5


def test_a_training_that_diverges_goes_on(toy):
    answer = toy("show-the-size", TRAINING.replace("1 / (1", "float('nan') / (1"))
    assert answer.text.endswith("trained\n") and not answer.error
    lines = answer.data[-1]["application/vnd.lab.curve+json"]["lines"]["steps"]
    assert {loss for _, loss in lines} == {None}


def test_stop_ends_a_training_and_keeps_its_curve(toy, kernel):
    manager, _ = kernel
    stopped = []

    def stop(answer):
        if answer.updates and not stopped:
            stopped.append(manager.interrupt_kernel())

    answer = toy("show-the-size", TRAINING, during=stop)
    assert answer.error == "Stopped." and "trained" not in answer.text
    assert answer.data
    assert size(toy) == "20 digits"


def test_stop_ends_an_endless_loop(toy, kernel):
    manager, _ = kernel
    answer = toy("show-the-size", "print('on')\nwhile True:\n    pass",
                 during=lambda answer: answer.text and manager.interrupt_kernel())
    assert answer.error == "Stopped."


def test_a_stream_that_a_block_replaced_is_put_back(toy):
    assert not toy("show-the-size", "import io, sys\nsys.stdout = io.StringIO()").error
    assert size(toy) == "20 digits"


def test_exit_is_no_end_of_the_kernel(toy):
    assert "SystemExit" in toy("show-the-size", "raise SystemExit(3)").error
    assert size(toy) == "20 digits"


MODEL = """
import torch
from torch import nn


# %%
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, x):
        x = self.fc(x)
        pair = x, x[
            :1]
        return pair[1].sum()


# %% Call
if __name__ == "__main__":
    Model()(torch.ones(2, 3))
"""


def test_shapes_of_the_latest_call(toy, ask):
    """Of the lines as they are on the slide, in models that are there already."""
    def shapes(symbol="Model"):
        data = ask(f'display(live.shapes("other", "{symbol}"), raw=True)').data
        return {int(line): text for line, text in data[0]["application/json"].items()}

    (toy.folder / "other.py").write_text(MODEL, "utf-8")
    first = MODEL.splitlines().index("    def forward(self, x):") + 1
    call = "model(torch.ones(2, 3)); None"
    assert not toy("call", f"model = Model()\n{call}", module="other").error
    assert shapes() == {}
    assert not ask('live.watch_shapes("other", "Model.forward", True)').error
    toy("call", call, module="other")
    assert shapes() == {
        first + 1: "(2, 5)", first + 3: "(2, 5), (1, 5)", first + 4: "()"}
    edited = "def forward(self, x):\n    x = 2 * x\n    return self.fc(x)"
    assert not toy("Model.forward", edited, module="other").error
    toy("call", f"model = Model()\n{call}", module="other")
    assert shapes("Model.forward") == {first + 1: "(2, 3)", first + 2: "(2, 5)"}
    assert not ask('live.watch_shapes("other", "Model", False)').error
    assert not toy("call", call, module="other").error and shapes() == {}


def test_a_notebook_has_the_edits(toy, ask):
    toy("base", "def base():\n    return 7")
    text = ask('display(live.notebook("toy"), raw=True)').data[0]["text/plain"]
    cells = json.loads(text)["cells"]
    assert any("return 7" in "".join(cell["source"]) for cell in cells)
    assert any("print(Twice().size()" in "".join(cell["source"]) for cell in cells)


def test_an_edit_is_saved_beside_nothing_else(toy, ask):
    def save(name):
        code = f'live.save("toy", "base", "def base():\\n    return 9", {name!r})'
        return ask(f"display({code}, raw=True)").data[0]["text/plain"]

    assert save("mine.py") == "saved as out/live/mine.py"
    copy = toy.folder / "out/live/mine.py"
    assert copy.read_text("utf-8") == TOY.replace("return 1\n", "return 9\n")
    assert "there already" in save("mine")
    for name in ["", "../toy", "a/b", "a b"]:
        assert "give the copy a name" in save(name)
    assert (toy.folder / "toy.py").read_text("utf-8") == TOY


def test_what_a_run_has_sent_can_be_had_again(toy, ask):
    """In its order, what was updated as it is now, and for the latest runs only."""
    first = toy("show-the-size", """
        from IPython.display import display
        print("one", end=" ")
        print("two")
        handle = display({"text/plain": "old"}, raw=True, display_id=True)
        handle.update({"text/plain": "new"}, raw=True)
        print("three")
        1 / 0
    """)
    again = ask(f"live.repeat({first.request!r})")
    kinds = [kind for kind, _ in again.data[0]["application/json"]]
    contents = [content for _, content in again.data[0]["application/json"]]
    assert kinds == ["stream", "display_data", "stream"]
    assert contents[0]["text"] == "one two\n"
    assert contents[1]["data"] == {"text/plain": "new"}
    assert contents[2]["text"].startswith("three\n")
    assert "ZeroDivisionError" in contents[2]["text"]
    for _ in range(8):
        size(toy)
    gone = ask(f"live.repeat({first.request!r})")
    assert gone.data[0]["application/json"] == []


TYPE = "nobody can type here: write the value into the code"
PRINT = "no debugger runs on a slide: print what you want to see"


@pytest.mark.parametrize("text, message", [
    ("input('name? ')", TYPE),
    ("def f():\n    return [int(input()) for _ in range(2)]\n\nf()", TYPE),
    ("import getpass\ngetpass.getpass()", TYPE),
    ("import getpass\ngetpass.unix_getpass()", TYPE),
    ("import sys\nsys.stdin.readline()", TYPE),
    ("import sys\nfor line in sys.stdin:\n    print(line)", TYPE),
    ("import sys\nsys.stdin.buffer.read()", TYPE),
    ("import code\ncode.interact()", TYPE),
    ("breakpoint()", PRINT),
    ("def f():\n    import pdb; pdb.set_trace()\n\nf()", PRINT),
    ("import pdb\npdb.run('1')", PRINT),
    ("from IPython.core.debugger import set_trace\nset_trace()", PRINT),
    ("from IPython import embed\nembed()", PRINT),
    ("%debug", PRINT), ("%pdb on", PRINT)])
def test_nothing_waits_for_a_keyboard(toy, text, message):
    """It fails at once, in one line that says what to do, and the next run works."""
    began = time.monotonic()
    answer = toy("show-the-size", text)
    assert time.monotonic() - began < 20
    last = answer.error.splitlines()[-1]
    assert message in last and "NotOnSlides" not in last
    assert size(toy) == "20 digits"


@pytest.mark.parametrize("text", [
    "!cat", "import subprocess\nsubprocess.run(['cat']); None",
    "import os\nos.read(0, 1); None", "open(0, closefd=False).read(); None"])
def test_what_reads_nothing_ends(toy, text):
    assert not toy("show-the-size", text).error


@pytest.mark.parametrize("text, shown", [
    ("%timeit -n 2 -r 2 base()", "per loop"),
    ("%%time\nprint(base() + 41)", "42\nCPU times"),
    ("seconds = %timeit -n 1 -r 1 -o -q base()\nprint(len(seconds.all_runs))", "1"),
    ("y = base()\n!echo [{y}] \"a b\" # a comment", "[1] a b"),
    ("lines = !echo 1; echo 2\nprint(lines)", "['1', '2']"),
    ("%%bash\nread x; echo \"[$x]\"", "[]"),
    ("%cd -q ..\n%cd -q -\nprint('back')", "back"),
    ("base?", "function"),
    ("import asyncio\nprint(await asyncio.sleep(0.01, 'waited'))", "waited"),
    ("import asyncio\nasync def f():\n    return 'ran'\n\n"
     "print(asyncio.run(f()))", "ran"),
    ("async def f():\n    yield 7\n\n[x async for x in f()]", "[7]"),
    ("from PIL import Image\nImage.new('RGB', (4, 4))", "PIL.Image")])
def test_a_block_has_what_a_notebook_has(toy, text, shown):
    """Magics and commands see the module's names; the last value is shown."""
    answer = toy("show-the-size", text)
    assert not answer.error, answer.error
    told = answer.text + "".join(data["text/plain"] for data in answer.data)
    assert shown in told.replace("\r\n", "\n")


def test_a_semicolon_shows_no_value(toy):
    assert not toy("show-the-size", "base();  # as in a notebook").data
    assert toy("show-the-size", "'a;'").data


@pytest.mark.parametrize("text", [
    "raise ExceptionGroup('several', [ValueError('a')])",
    "import asyncio\nasync def f():\n    raise ValueError('a')\n\n"
    "async with asyncio.TaskGroup() as group:\n    group.create_task(f())"])
def test_a_group_of_errors_is_an_error(toy, text):
    answer = toy("show-the-size", text)
    assert "ExceptionGroup" in answer.error
    assert "interactiveshell" not in answer.error + answer.text


def test_a_magic_that_is_unknown_says_so(toy):
    answer = toy("show-the-size", "x = 1\n%nonsense")
    assert answer.error.splitlines()[-1].endswith(
        "Line magic function `%nonsense` not found.")


def test_stop_ends_what_is_awaited(toy, kernel):
    manager, _ = kernel
    answer = toy("show-the-size",
                 "import asyncio\nprint('on')\nawait asyncio.sleep(1000)",
                 during=lambda answer: answer.text and manager.interrupt_kernel())
    assert answer.error == "Stopped."
    assert size(toy) == "20 digits"


LATE = {
    "thread": "threading.Thread(target=later).start()",
    "timer": "threading.Timer(0.1, later).start()",
    "pool": "concurrent.futures.ThreadPoolExecutor().submit(later); None",
    "callback": "concurrent.futures.ProcessPoolExecutor(1).submit(int)"
                ".add_done_callback(lambda _: later())",
    "task": "async def task():\n    await asyncio.sleep(0.1)\n    later()\n\n"
            "kept = asyncio.create_task(task()); None",
}


@pytest.mark.parametrize("start", LATE.values(), ids=LATE)
def test_what_comes_late_belongs_to_its_run(toy, ask, start):
    """Though another one has begun, and also for a page that is loaded again."""
    first = toy("show-the-size", f"""
import asyncio, concurrent.futures, threading, time
from IPython.display import HTML, display
def later():
    time.sleep(0.3)
    print("late")
    display(HTML("<b>late</b>"))

print("over")
{start}
""")
    assert not first.error and "late" not in first.text
    second = toy("show-the-size", "import time\ntime.sleep(0.2)\nprint('second')")
    assert second.text == "second\n"
    end = time.monotonic() + 20
    found = []
    while len(found) < 2 and time.monotonic() < end:
        time.sleep(0.1)
        found = ask(f"live.repeat({first.request!r})").data[0][
            "application/json"]
    assert [kind for kind, _ in found] == ["stream", "display_data"]
    assert found[0][1]["text"] == "over\nlate\n"
    again = ask(f"live.repeat({second.request!r})").data[0]
    assert again["application/json"] == [["stream", {"text": "second\n"}]]


def test_what_a_thread_prints_while_its_run_is_repeated_comes_after(toy, kernel):
    """Not before, where a page that shows what is repeated would lose it."""
    first = toy("show-the-size", """
        import threading
        is_read = threading.Event()

        def later():
            is_read.wait()
            print("late")

        threading.Thread(target=later).start()
    """)
    _, client = kernel
    client.execute(textwrap.dedent(f"""
        import time, toy
        from lab import live, live_output
        merged = live_output.Run.merged

        def slowly(run):
            found = merged(run)
            toy.is_read.set()
            time.sleep(0.3)
            return found

        live_output.Run.merged = slowly
        live.repeat({first.request!r})
        live_output.Run.merged = merged
    """))
    kinds = []
    while "stream" not in kinds or "display_data" not in kinds:
        message = client.get_iopub_msg(timeout=10)
        kinds.append(message["msg_type"])
        assert message["msg_type"] != "error", message["content"]
    assert kinds.index("display_data") < kinds.index("stream")


def test_a_thread_that_fails_shows_its_lines(toy):
    answer = toy("show-the-size", """
        import threading
        def fails():
            1 / 0

        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()
    """)
    assert "ZeroDivisionError" in answer.text and "    1 / 0" in answer.text
    assert "threading.py" not in answer.text


def test_a_thread_that_floods_later_is_cut(toy, ask):
    first = toy("show-the-size", """
        import threading
        thread = threading.Timer(0.1, lambda: print("x" * 10 ** 7))
        thread.start()
    """)
    assert not toy("show-the-size", "thread.join()").error
    (found,) = ask(f"live.repeat({first.request!r})").data[0][
        "application/json"]
    assert len(found[1]["text"]) < 110_000 and "left out" in found[1]["text"]


@pytest.mark.parametrize("bars", [
    "from tqdm.auto import tqdm, trange", "from tqdm.autonotebook import tqdm, trange",
    "from tqdm.notebook import tqdm, trange", "from tqdm import tqdm, trange"])
def test_progress_is_text(toy, bars):
    answer = toy("show-the-size", f"""
{bars}
for _ in trange(2, desc="outer"):
    for _ in tqdm(range(2), leave=False):
        pass
""")
    assert not answer.error and not answer.data
    assert "outer: 100%" in answer.text and "Warning" not in answer.text


def test_a_long_training_keeps_its_bar(toy):
    """What is written over takes little room, however long that continues."""
    answer = toy("show-the-size", """
        for i in range(80_000):
            print(f"\\r{i:100}", end="")
        print("\\rend")
    """)
    assert answer.text.endswith("\rend\n") and "left out" not in answer.text


def test_what_is_cleared_is_not_kept(toy, ask):
    answer = toy("show-the-size", """
        from IPython.display import clear_output
        for i in range(100):
            clear_output(wait=True)
            print("frame", i)
    """)
    found = ask(f"live.repeat({answer.request!r})").data[0]
    assert found["application/json"][-1] == ["stream", {"text": "frame 99\n"}]
    assert len(found["application/json"]) == 2


def test_a_large_json_is_cut(toy):
    answer = toy("show-the-size",
                 "from IPython.display import JSON\nJSON(list(range(2 * 10 ** 6)))")
    assert "left out" in answer.data[0]["text/plain"]
    assert len(json.dumps(answer.data)) < 250_000


def test_figures_show_whatever_backend_the_user_has(toy):
    """$MPLBACKEND is Agg in this kernel, as on servers and in containers."""
    answer = toy("show-the-size", """
        import os
        import matplotlib.pyplot as plt
        plt.plot([1, 2])
        print(os.environ["MPLBACKEND"])
    """)
    assert answer.text == "Agg\n" and "image/png" in answer.data[-1]
