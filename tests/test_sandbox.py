"""The sandbox of submissions: what it shows, what it refuses, and what it ends.

The limits are small here, so that an attack is over in a moment.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import nbformat
import psutil
import pytest

from conftest import one_line
from lab import UserError, exercises, grade, sandbox
from lab.sandbox import MiB

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux"),
    pytest.mark.timeout(200)]
SMALL = {"memory": 400 * MiB, "threads": 100, "descriptors": 300, "cell_seconds": 40,
         "seconds": 60}
FOLDER = """
import glob, os
folder = glob.glob('/tmp/lab-*')[0]
"""
FILL = "bytearray(b'x') * (100 * 2 ** 20)"


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """execute(*cells, **limits): the notebook after it ran, and what each cell said."""
    monkeypatch.setenv("PYTHONPATH", str(exercises.LAB.parent))
    monkeypatch.setenv("SECRET", "token")
    exercises.copy_lab(exercises.EXERCISES / "convolution.py", tmp_path / "lab")
    (tmp_path / "data").mkdir()

    def run(*cells, **limits):
        path = tmp_path / "run.ipynb"
        nbformat.write(nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells]), path)
        process = grade.PROCESSES.Process(target=sandbox.execute, daemon=True, args=(
            path, tmp_path / "lab", tmp_path / "data", True,
            sandbox.Limits(**SMALL | limits)))
        process.start()
        process.join(120)
        assert process.exitcode == 0
        done = nbformat.read(path, as_version=4)
        return done.metadata.get("ended"), ["".join(
            output.get("text", output.get("ename", "")) for output in cell.outputs)
            for cell in done.cells]

    return run


# name: (cells, words of the reason)
TOO_MUCH = {
    "memory": (f"hold = [{FILL} for _ in range(9)]", "memory"),
    "memory of others": (
        "import os, time\n"
        "for _ in range(9):\n    if not os.fork():\n        os.setsid()\n"
        f"        if os.fork(): os._exit(0)\n        hold = {FILL}\n"
        "        time.sleep(99)\ntime.sleep(99)", "memory"),
    "memory under a name": (
        "import ctypes\nctypes.CDLL(None).prctl(15, b'x\\nRssAnon: 0\\xff)')\n"
        f"hold = [{FILL} for _ in range(9)]", "memory"),
    "memory of a process whose first thread has ended": (
        "import ctypes, os, threading, time\nif not os.fork():\n"
        f"    hold = [{FILL} for _ in range(9)]\n"
        "    threading.Thread(target=time.sleep, args=[99]).start()\n"
        "    ctypes.CDLL(None).syscall(60, 0)\ntime.sleep(99)", "memory"),
    "files": ("for name in 'abcdefghi':\n"
              "    with open('/tmp/' + name, 'wb') as file:\n"
              f"        file.write({FILL})", "memory"),
    "deleted files": (
        "import tempfile\nhold = [tempfile.TemporaryFile() for _ in range(9)]\n"
        f"for file in hold:\n    file.write({FILL})\n    file.flush()", "memory"),
    "shared files": (
        "import os, time\nfor place in ['/tmp/', '/dev/shm/']:\n"
        "    with open(place + 'x', 'wb') as file:\n"
        f"        for _ in range(2):\n            file.write({FILL})\n"
        "time.sleep(30)", "memory"),
    "many files": (
        "import os\nfor number in range(10 ** 7):\n"
        "    if not number % 1000: os.mkdir(f'/tmp/{number}'); os.chdir('/tmp')\n"
        "    open(f'/tmp/{number // 1000 * 1000}/{number}', 'w').close()", "memory"),
    "deep folders": (
        "import os\nos.chdir('/tmp')\nwhile True:\n    os.mkdir('x' * 200)\n"
        "    os.chdir('x' * 200)", "memory"),
    "page tables": (
        "import mmap\nhuge = mmap.mmap(-1, 2 ** 39, 0x4022, mmap.PROT_READ)\n"
        "huge.madvise(15)\nfor place in range(0, 2 ** 39, 2 ** 21):\n"
        "    huge[place]\n", "memory"),
    "threads": (
        FOLDER + "os.symlink('/nowhere', folder + '/x')\nos.mkfifo(folder + '/y')\n"
        "import threading, time\nfor _ in range(999):\n"
        "    threading.Thread(target=time.sleep, args=[99]).start()\ntime.sleep(99)",
        "100 processes and threads"),
    "zombies": ("import os, time\nfor _ in range(999):\n"
                "    if not os.fork(): os._exit(0)\ntime.sleep(99)",
                "100 processes and threads"),
    "open files": ("hold = [open('/dev/null') for _ in range(800)]\n"
                "import time\ntime.sleep(99)", "300 files and sockets"),
    "connections that wait": (
        "import os, socket\nfor number in range(999):\n"
        "    place = f'/tmp/{number}'\n    server = socket.socket(socket.AF_UNIX)\n"
        "    server.bind(place)\n    server.listen(64)\n    for _ in range(60):\n"
        "        with socket.socket(socket.AF_UNIX) as client:\n"
        "            client.setblocking(False)\n            client.connect(place)\n"
        "            try:\n                while True: client.send(bytes(65536))\n"
        "            except BlockingIOError: pass\nimport time\ntime.sleep(99)",
        "memory"),
    "names": (FOLDER + "for number in range(10 ** 7):\n"
              "    open(f'{folder}/{number}' + 'x' * 190, 'w').close()", "memory"),
    "stopped": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
                "it took too long"),
    "alarm": ("import signal, time\nsignal.alarm(1)\ntime.sleep(99)",
              "it ended its own process"),
    "no message": (
        "kernel = get_ipython().kernel\nfor _ in range(9):\n"
        "    kernel.iopub_socket.send_multipart([b'x', b'<IDS|MSG>', b'', b'{'])\n"
        "import time\ntime.sleep(99)", "what no kernel sends"),
    "no content": (
        "kernel = get_ipython().kernel\nkernel.session.send(kernel.iopub_socket,\n"
        "    'stream', {}, parent=kernel.get_parent('shell'))\n"
        "import time\ntime.sleep(99)", "what no kernel sends"),
}
WAITS = ["stopped", "no message", "no content"]   # seen at the end of the cell only


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_takes_too_much_is_ended(execute, name):
    source, why = TOO_MUCH[name]
    limits = {"cell_seconds": 2, "seconds": 3} if name in WAITS else {}
    start = time.monotonic()
    ended, said = execute("print('before')", source, "print('after')", **limits)
    assert why in (ended or "not ended"), said
    assert said[0] == "before\n" and said[2] == ""
    assert time.monotonic() - start < 60


# Each of them must fail: way out, shared with others, or memory that nobody sees.
REFUSED = """
os.memfd_create('x')
mmap.mmap(-1, 4096)
mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096)
libc_call('shmget', 0, 4096, 0o1600)
libc_call('msgget', 0, 0o1600)
libc_call('mq_open', b'/x', 0o102, 0o600, None)
libc_call('unshare', 0x10000000)
libc_call('unshare', 0x400)
libc_call('ptrace', 16, 1, None, None)
libc_call('mount', b'none', b'/tmp', b'tmpfs', 0, None)
libc_call('syscall', 248, b'user', b'x', b'y', 1, -3)
libc_call('syscall', 425, 4, bytes(120))
libc_call('prctl', 24, 21, 0, 0, 0)
os.kill(1, 9) or os.kill(1, 19) or open('/proc/1/comm') and 1 / 0
os.setuid(0)
os.chroot('/tmp')
os.nice(-1)
resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999))
subprocess.run(['unshare', '-Urm', 'true'], check=True)
open('/proc/sys/kernel/core_pattern', 'w')
open('/proc/sys/kernel/hostname', 'w')
open('/proc/self/mem', 'wb').write(b'x')
open('/proc/sysrq-trigger', 'w')
open('/proc/1/mem', 'wb').write(b'x')
open('/proc/kcore', 'rb').read(9)
open('/proc/self/oom_score_adj', 'w').write('-1000')
open('/dev/zero', 'rb').read(9)[8]
open('/x', 'w')
open('/dev/x', 'w')
open('/usr/x', 'w')
open('/exercise/x', 'w')
open('/data/x', 'w')
open('/etc/shadow')
os.listdir('/sys') or os.listdir('/run') or os.listdir('/var')
os.listdir('/home')
socket.create_connection(('192.0.2.1', 80), 1)
socket.create_connection(('127.0.0.1', 22), 1)
socket.socket(socket.AF_VSOCK)
socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
socket.socket(9, socket.SOCK_SEQPACKET)
socket.socket().connect('\0/tmp/.X11-unix/X0')
open(CONNECTION, 'w')
os.replace(OWN, CONNECTION)
"""


def test_little_is_seen_and_less_is_possible(execute):
    lines = REFUSED.strip().splitlines()
    own = f"/tmp/own-{os.getpid()}"   # no other program on this machine has written it
    ended, said = execute(
        f"OWN = {own!r}" + """
import ctypes, glob, mmap, os, resource, socket, subprocess
CONNECTION = glob.glob('/tmp/lab-*/k.json')[0]
open(OWN, 'w').write('own')
libc = ctypes.CDLL(None, use_errno=True)
def libc_call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
""",
        "print([name for name in os.listdir('/') if name != 'lost+found'])",
        "print(dict(os.environ))",
        "print(os.getuid(), len([name for name in os.listdir('/proc') if "
        "name.isdigit()]), os.path.exists(OWN))", *lines)
    assert ended is None
    assert said[0] == ""
    assert set(eval(said[1])) <= {"bin", "sbin", "lib", "lib32", "lib64", "usr", "etc",
                                  "proc", "dev", "tmp", "exercise", "data",
                                  sys.prefix.split("/")[1],
                                  sys.base_prefix.split("/")[1]}
    assert "token" not in said[2] and "'LAB_DATA': '/data'" in said[2]
    uid, processes, there = said[3].split()
    assert uid == "65534" and int(processes) < 6 and there == "True"
    assert not os.path.exists(own)
    possible = [line for line, word in zip(lines, said[4:])
                if not word.endswith("Error")]
    assert not possible


def test_what_a_lecture_uses_is_possible(execute):
    ended, said = execute(
        "import multiprocessing, torch\nfrom torch.utils import data",
        "set_ = data.TensorDataset(torch.arange(64.0))\n"
        "print(sum(x.sum().item() for x, in data.DataLoader(set_, 8, num_workers=2)))",
        "with multiprocessing.Pool(2) as pool:\n    print(sum(pool.map(abs, [-1, 2])))",
        "shared = torch.zeros(1000).share_memory_()\n"
        "worker = multiprocessing.Process(target=shared.add_, args=[1])\n"
        "worker.start()\nworker.join()\nprint(int(shared.sum()))",
        "import numpy\nmapped = numpy.memmap('/tmp/x', 'f4', 'w+', shape=9)\n"
        "mapped[:] = 1\nprint(int(mapped.sum()))",
        "open('/tmp/sparse', 'wb').truncate(2 ** 40)\n"
        "open('/tmp/deleted', 'wb').write(bytes(2 ** 20))\n!rm /tmp/deleted\n"
        "import time\ntime.sleep(0.3)\nprint('still here')",
        "import asyncio\nprint(await asyncio.sleep(0, 'awaited'))\n"
        "import subprocess\n"
        "print(subprocess.check_output(['echo', 'echoed'], text=True))",
        memory=2000 * MiB, cell_seconds=60, seconds=120)
    assert ended is None
    assert said == ["", "2016.0\n", "3\n", "1000\n", "9\n", "still here\n",
                    "awaited\nechoed\n\n"]


def test_nothing_of_the_host_is_reached_by_the_sockets_of_the_kernel(execute):
    """The kernel puts links to another socket, or a fifo, in their place."""
    with socket.socket(socket.AF_UNIX) as host:
        path = f"/tmp/lab-test-{os.getpid()}"
        host.bind(path)
        host.listen()
        host.settimeout(0.1)
        try:
            execute(f"""
import glob, os, socket, time
for number, place in enumerate(glob.glob('/tmp/lab-*/k-ipc-*')):
    os.unlink(place)
    os.symlink({path!r}, place) if number < 4 else os.mkfifo(place)
for name in os.listdir('/proc/self/fd'):
    try:
        connection = socket.socket(fileno=int(name))
        if connection.family == socket.AF_UNIX and connection.getsockname():
            connection.shutdown(socket.SHUT_RDWR)
        connection.detach()
    except OSError:
        pass
time.sleep(2)
""", cell_seconds=4, seconds=8)
            with pytest.raises(TimeoutError):
                host.accept()
        finally:
            os.unlink(path)


def test_want_of_memory_of_the_machine_ends_it(execute):
    ended, said = execute("print('before')", "import time\ntime.sleep(99)",
                          spare=2 ** 50)
    assert (ended, said[1]) == ("the machine ran out of memory", "")


def test_who_starved_is_executed_again_and_alone(monkeypatch):
    """Of three at a time two are ended for want of memory; no one joins the third."""
    running, most, lock = [], {}, threading.Lock()
    meet = threading.Barrier(3)

    def in_process(name, lab, args):
        with lock:
            running.append(name)
        again = name in most
        if not again:
            meet.wait(30)
        most[name] = len(running)
        time.sleep(0.05)
        with lock:
            running.remove(name)
        return types.SimpleNamespace(
            metadata={"starved": not again and name != "small"})

    monkeypatch.setattr(grade, "in_process", in_process)
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda name: grade.executed(name, None, None),
                             ["large", "small", "larger"]))
    assert not any(one.metadata["starved"] for one in done)
    assert most == {"large": 1, "small": 3, "larger": 1}


def test_a_process_that_has_ended_can_be_watched_by_who_is_not_root():
    watcher = os.fork()
    if not watcher:
        if not os.getuid():
            os.setuid(65534)
        ended = subprocess.Popen(["true"])
        time.sleep(0.5)   # it has ended, and nobody has asked for its status
        os._exit(sandbox.used(psutil.Process(ended.pid)) != (0, 1, 0))
    assert os.waitpid(watcher, 0)[1] == 0


def test_an_error_of_the_watch_ends_the_submission(monkeypatch):
    """As when the kernel's folder, a process or a number is none of the usual ones."""
    def excess(talker, folder, limits):
        raise RuntimeError

    monkeypatch.setattr(sandbox, "excess", excess)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        # The first of the family writes what was done; here it only sleeps.
        monkeypatch.setattr(sandbox, "family", lambda pid: [sleeper, sleeper])
        why, starved, status = sandbox.watch(
            sleeper.pid, "/nowhere", sandbox.Limits())
    assert why == "it could not be watched: RuntimeError"
    assert not starved and status == signal.SIGKILL


def test_systemd_gives_it_a_cgroup_where_it_can(tmp_path, monkeypatch):
    program = tmp_path / "systemd-run"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with sandbox.call_filter() as calls:
        for status, wanted in [(1, False), (0, True)]:
            program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n'
                               f"exit {status}\n")
            program.chmod(0o755)
            words = sandbox.scope(["true"], calls, sandbox.Limits(memory=1000))
            assert bool(words) == wanted
    assert words[0] == "systemd-run" and "MemoryMax=1250" in words
    asked = (tmp_path / "asked").read_text()
    assert "--scope" in asked and "MemorySwapMax=0" in asked and "TasksMax=512" in asked


def test_without_bubblewrap_it_refuses(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError) as raised:
        sandbox.bubblewrap()
    one_line(raised, "bubblewrap is missing", "--unsafe")


def test_without_libseccomp_it_refuses(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: open("/nowhere"))
    with pytest.raises(UserError) as raised:
        sandbox.bubblewrap()
    one_line(raised, "apt install libseccomp2")


@pytest.mark.parametrize("said", ["No permissions", "Unknown option --disable-userns"])
def test_a_bubblewrap_that_does_not_work_is_reported(tmp_path, monkeypatch, said):
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\necho 'more' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError) as raised:
        sandbox.bubblewrap()
    one_line(raised, f"does not work here: {said} (it needs version 0.8")
