"""The Jupyter server of live code: for one user of the machine, quiet, soon gone."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "the-token-of-this-server"
SESSION = json.dumps({"path": "slides/a.md", "name": "a", "type": "notebook",
                      "kernel": {}})
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows: no Unix sockets")


@pytest.fixture
def places():
    """A short folder for temporary files: pytest's own is too long for sockets."""
    folder = tempfile.mkdtemp(dir="/tmp", prefix="t-")
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


def wait(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert value
    return value


@contextmanager
def serving(**variables):
    """A server; yields its process and the path of its socket."""
    with subprocess.Popen(
            [sys.executable, ROOT / "code/lab/kernels.py"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **variables}) as process:
        process.stdin.write(f"{TOKEN}\n")
        process.stdin.flush()
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.stdin.close()
            process.wait(20)


def ask(path, method, target, body=None, token=TOKEN):
    """What the server answers at its socket: status and JSON."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(os.fspath(path))
    connection.request(method, target, body, {"Authorization": f"token {token}"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or "null")


def kernel_of(path):
    """Start a kernel; returns its process, once all its sockets are there."""
    status, session = ask(path, "POST", "/api/sessions", SESSION)
    assert status == 201
    name = session["kernel"]["id"]
    wait(lambda: len(list(path.parent.glob(f"kernel-{name}-ipc-*"))) == 5)
    return next(process for process in psutil.process_iter(["cmdline"])
                if any(name in word for word in process.info["cmdline"] or []))


def tcp_ports(process):
    return [connection.laddr for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN]


STRANGER = """
import os, socket, sys
from pathlib import Path

def tries(what):
    try:
        what()
    except OSError:
        return
    print("could", what.__name__, what.__defaults__)

path, *pids = sys.argv[1:]
def connect():
    socket.socket(socket.AF_UNIX).connect(path)
def enter():
    os.listdir(os.path.dirname(path))
tries(connect)
tries(enter)
for pid in pids:
    for name in ["environ", "fd", "cwd", "mem"]:
        def read(file=f"/proc/{pid}/{name}"):
            os.listdir(file) if name in ["fd", "cwd"] else open(file, "rb").read(1)
        tries(read)
    print(Path(f"/proc/{pid}/cmdline").read_text())
print("tried")
"""


def test_only_this_user_reaches_it_and_its_kernels(places):
    """Neither listens on TCP; as root we try, as another user, what is left."""
    with serving(TMPDIR=str(places)) as (process, path):
        assert ask(path, "GET", "/api/kernels", token="wrong")[0] == 403
        kernel = kernel_of(path)
        assert not tcp_ports(psutil.Process(process.pid))
        # by which forked processes hand the kernel what they print; it tells nothing,
        # and takes only what has its secret
        assert len(tcp_ports(kernel)) <= 1
        folder = path.parent
        assert folder.parent == places and folder.stat().st_mode & 0o077 == 0
        assert any(file.is_socket() for file in folder.glob("kernel-*"))
        for file in [path, *folder.glob("*.json"), *folder.glob("*secret*")]:
            assert file.stat().st_mode & 0o077 == 0, file
        if os.geteuid() == 0:
            places.chmod(0o755)
            seen = subprocess.run(
                ["python3", "-c", STRANGER, path, str(process.pid), str(kernel.pid)],
                user=65534, group=65534, extra_groups=[], cwd="/",
                capture_output=True, text=True)
            assert seen.stdout.endswith("tried\n"), seen.stderr
            assert "could" not in seen.stdout and TOKEN not in seen.stdout
        for pid in [process.pid, kernel.pid]:
            for name in ["cmdline", "environ"]:
                if (file := Path(f"/proc/{pid}/{name}")).exists():
                    assert TOKEN not in file.read_text()
    assert not folder.exists() and not list(places.iterdir())
    wait(lambda: not kernel.is_running())


def test_a_long_folder_for_temporary_files(places):
    """The path of a socket has 103 bytes at most; it listens once it says so."""
    long = places / ("x" * 60)
    long.mkdir()
    with serving(TMPDIR=str(long)) as (_, path):
        assert len(os.fsencode(path)) < 70 and path.parent.parent == Path("/tmp")
        assert ask(path, "GET", "/api/status")[0] == 200
        assert kernel_of(path)
    assert not path.parent.exists()


def post(url, target, body, **headers):
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", target, body, {"Origin": url, **headers})
    return json.loads(connection.getresponse().read())


def test_a_kernel_says_nothing_in_the_terminal(places):
    """Neither its server; a server that was killed leaves nothing, and another starts.
    """
    def sockets():
        return list(places.glob("*/server"))

    with subprocess.Popen(
            ["node", "tests/live_server.mjs", sys.executable], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(places)}) as lectures:
        url = lectures.stdout.readline().strip()
        (first,) = wait(sockets)
        lectures.stdin.write("key\n")
        lectures.stdin.flush()
        secret = post(url, "/kernel/enter", lectures.stdout.readline().strip())
        own = {"Authorization": f"token {secret['secret']}"}
        kernel = wait(lambda: post(url, "/kernel/api/sessions", SESSION, **own).get(
            "kernel"))["id"]
        processes = psutil.Process(lectures.pid).children(recursive=True)
        assert any(kernel in " ".join(child.cmdline()) for child in processes)
        time.sleep(2)  # a kernel needs a second to start
        (server,) = (child for child in processes
                     if any("kernels.py" in word for word in child.cmdline()))
        os.kill(server.pid, signal.SIGKILL)
        wait(lambda: sockets() and sockets() != [first])
        assert not first.parent.exists()
        lectures.terminate()
        assert lectures.wait(20) == 0
        assert lectures.stderr.read() == ""
    assert not list(places.iterdir())
