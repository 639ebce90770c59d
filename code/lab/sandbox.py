"""Execute a notebook that nobody trusts.

Its kernel runs in bubblewrap: no network, a read-only system without homes and without
this repository, files in memory only, an empty environment, no system call that a
lecture has no use for. One process talks with the kernel and writes the notebook after
every cell, so that what was done stays, whatever comes after. Another, which nothing of
the submission can reach, watches what is used and ends it; the notebook's metadata say
why it "ended" early.
"""

import asyncio
import ctypes
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbgrader.preprocessors import Execute

from lab import UserError

KiB, MiB = 2 ** 10, 2 ** 20
KEPT = 1_000_000   # characters of the outputs of one cell
SYSTEM = ["/usr", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime",
          "/etc/fonts", "/etc/passwd"]
IN_MEMORY = {"/dev/shm": 256 * MiB, "/tmp": 1024 * MiB}   # all that can be written to
# Calls that hold memory that no process shows, reach other processes, the machine or
# its host, or is a part of the kernel that often lets code escape.
REFUSED = """
    memfd_create memfd_secret shmget msgget semget mq_open add_key keyctl request_key
    ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd unshare setns mount
    umount2 pivot_root chroot open_tree move_mount fsopen fsmount fspick mount_setattr
    io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd
    fanotify_init open_by_handle_at name_to_handle_at quotactl swapon acct reboot
    init_module finit_module delete_module kexec_load kexec_file_load syslog vmsplice
    personality""".split()
FAMILIES = [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK]
SHARED_ANONYMOUS = 0x21   # MAP_SHARED | MAP_ANONYMOUS


@dataclass(frozen=True)
class Limits:
    """What a submission may use; all but the first of all its cells together."""
    cell_seconds: float = 60
    seconds: float = 600
    memory: int = 4096 * MiB   # of its processes, and of the files in IN_MEMORY
    threads: int = 256
    descriptors: int = 4096    # open files and sockets, which hold memory too
    output: int = 64 * MiB
    spare: int = 512 * MiB     # what the machine must have left


# The sandbox ----------------------------------------------------------------------


def bubblewrap():
    """Find the program; UserError where it is missing or not allowed to work."""
    program = shutil.which("bwrap")
    if not program:
        raise UserError(
            "bubblewrap is missing (apt install bubblewrap; Linux only): without it a "
            "submission can do all that you can; grade in a Linux container or virtual "
            "machine, or, for work that you trust, with --unsafe")
    with call_filter() as calls:
        trial = tried([*wrapped({}, calls), sys.executable, "-c", ""], calls)
    if trial.returncode:
        why = (trial.stderr.strip().splitlines() or [f"status {trial.returncode}"])[0]
        raise UserError(
            f"bubblewrap does not work here: {why} (it needs version 0.8, for "
            "--disable-userns, and user namespaces; a container may forbid them)")
    return program


def tried(command, calls):
    return subprocess.run(command, capture_output=True, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, pass_fds=[calls.fileno()])


def wrapped(readable, calls, folder=None, environment=None):
    """The command line before a program that puts it into the sandbox.

    readable: {path outside: path inside}; calls: the filter of system calls; folder:
    where the kernel finds its connection file and puts its sockets, in memory.
    """
    words = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--uid",
             "65534", "--gid", "65534", "--die-with-parent", "--new-session",
             "--cap-drop", "ALL", "--seccomp", str(calls.fileno()), "--proc", "/proc",
             # For root /proc/sys is writable; /dev/zero can be shared memory.
             "--remount-ro", "/proc", "--dev", "/dev", "--dev-bind", "/dev/null",
             "/dev/zero", "--remount-ro", "/dev"]
    for path, size in IN_MEMORY.items():
        words += ["--size", str(size), "--tmpfs", path]
    for path in map(Path, ["/bin", "/sbin", "/lib", "/lib32", "/lib64"]):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            words += ["--ro-bind", str(path), str(path)]
    pythons = {path: path for path in (sys.prefix, sys.base_prefix)}
    system = {path: path for path in SYSTEM}
    for outside, inside in (system | pythons | readable).items():
        words += ["--ro-bind-try", str(outside), str(inside)]
    if folder:
        connection = str(folder / CONNECTION)
        words += ["--size", str(MiB), "--tmpfs", str(folder),
                  "--ro-bind", connection, connection]
    words += ["--remount-ro", "/", "--chdir", "/tmp", "--clearenv"]
    for name, value in (ENVIRONMENT | (environment or {})).items():
        words += ["--setenv", name, str(value)]
    return words


CONNECTION = "k.json"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8",
               "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
               "PYTHONDONTWRITEBYTECODE": "1"}


class Comparison(ctypes.Structure):
    """libseccomp's struct scmp_arg_cmp, of an argument of a system call."""
    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int),
                ("first", ctypes.c_uint64), ("second", ctypes.c_uint64)]


def call_filter():
    """Open a file with the filter of system calls, as bubblewrap reads it."""
    try:
        seccomp = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise UserError("libseccomp is missing (apt install libseccomp2): the sandbox "
                        "needs it") from None
    allow, refuse = 0x7FFF0000, ctypes.c_uint32(0x00050000 | errno.EPERM)
    equal, greater, masked = 4, 6, 7
    rules = [(name, []) for name in REFUSED]
    rules += [("mmap", [Comparison(3, masked, SHARED_ANONYMOUS, SHARED_ANONYMOUS)])]
    rules += [("socket", [Comparison(0, greater, max(FAMILIES))])]
    rules += [("socket", [Comparison(0, equal, family)])
              for family in range(max(FAMILIES)) if family not in FAMILIES]
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(allow)))
    for name, comparisons in rules:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number == -1:   # a call that this machine or library does not know
            continue
        array = (Comparison * len(comparisons))(*comparisons)
        if seccomp.seccomp_rule_add_array(
                context, refuse, number, len(comparisons), array):
            raise UserError(f"libseccomp cannot refuse {name}: the sandbox needs it")
    file = tempfile.TemporaryFile()
    seccomp.seccomp_export_bpf(context, file.fileno())
    seccomp.seccomp_release(context)
    file.seek(0)
    return file


def scope(command, calls, limits):
    """Words before the command that give it a cgroup; none where systemd has no part.

    The kernel then holds the limits, a little above those of the watch, which says
    more.
    """
    words = ["systemd-run", *(["--user"] if os.getuid() else []), "--scope", "--quiet",
             "--collect", "-p", f"MemoryMax={limits.memory * 5 // 4}", "-p",
             "MemorySwapMax=0", "-p", f"TasksMax={limits.threads * 2}"]
    if not shutil.which(words[0]) or (
            tried([*words, *command, "true"], calls).returncode):
        words = []
    calls.seek(0)
    return words


class Kernel(AsyncKernelManager):
    """Starts the kernel of this very Python, silently."""

    def __init__(self, **options):
        super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
                         **options)

    async def start_kernel(self, **options):
        await super().start_kernel(stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, **options)

    @property
    def kernel_spec(self):
        spec = super().kernel_spec
        spec.interrupt_mode = "message"   # a signal would end bubblewrap
        return spec


def kernel_in(command, folder, calls):
    """A class of kernel manager whose kernel starts in the sandbox."""
    class Sandboxed(Kernel):
        def __init__(self, **options):
            # A path reaches into the sandbox, an address does not.
            super().__init__(transport="ipc", connection_file=str(folder / CONNECTION),
                             **options)

        def format_kernel_cmd(self, extra_arguments=None):
            return command + super().format_kernel_cmd(extra_arguments)

        async def start_kernel(self, **options):
            await super().start_kernel(pass_fds=[calls.fileno()], **options)
            for port in self.ports:
                await self.hold(f"{self.ip}-{port}")

        async def hold(self, path):
            """Have the kernel's socket at `path`, whatever the path leads to later.

            The submission, of which nothing has run yet, can replace what is in its
            folder: by a link to a socket of ours, for one.
            """
            while await self.is_alive():
                for process in family(self.provisioner.process.pid)[1:2]:
                    try:
                        inside = f"/proc/{process.pid}/root{path}"
                        held = os.open(inside, os.O_PATH | os.O_NOFOLLOW)
                        os.symlink(f"/proc/{os.getpid()}/fd/{held}", path)
                        return
                    except FileNotFoundError:
                        pass   # it is not there yet
                await asyncio.sleep(0.02)
            raise RuntimeError("the kernel died before it listened")

    return Sandboxed


# The conversation with the kernel ---------------------------------------------------


class Run(Execute):
    """nbgrader's execution, with a limit for the whole and for what is printed."""

    def begin(self, path, limits):
        self.path, self.limits, self.printed, self.killed = path, limits, 0, None
        self.end = time.monotonic() + limits.seconds
        self.timeout_func = lambda cell: max(1, min(
            cell.metadata.get("seconds", limits.cell_seconds),
            self.end - time.monotonic()))

    def preprocess_cell(self, cell, resources, index):
        if cell.cell_type == "code":
            # Without history, so that no later cell finds a check in it.
            cell = self.execute_cell(cell, index, store_history=False)
        return cell, resources

    def process_message(self, message, cell, cell_index):
        content = message["content"]
        size = sum(len(str(value)) for value in content.values())
        self.printed += size
        cell.metadata["printed"] = cell.metadata.get("printed", 0) + size
        if self.printed > self.limits.output and not self.killed:
            self.killed = f"it printed more than {self.limits.output // MiB} MiB"
            kill(family(self.km.provisioner.process.pid))
        if cell.metadata["printed"] > KEPT and message["msg_type"] != "status" and (
                message["msg_type"] != "error"):
            return None
        return super().process_message(message, cell, cell_index)

    def on_cell_executed(self, **reply):
        super().on_cell_executed(**reply)
        reply["cell"].metadata["status"] = reply["execute_reply"]["content"]["status"]
        self.write()

    def on_cell_start(self, cell, cell_index):
        if time.monotonic() > self.end:
            raise TimeoutError

    def write(self, ended=None):
        if ended:
            self.nb.metadata["ended"] = ended
        write(self.nb, self.path)


def write(notebook, path):
    """Write it whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    nbformat.write(notebook, unfinished)
    os.replace(unfinished, path)


def converse(path, folder, kernel, limits):
    """Execute the cells one after the other, and write what comes of it."""
    run = Run(kernel_manager_class=kernel, shutdown_kernel="immediate",
              iopub_timeout=5)
    run.begin(path, limits)
    notebook, ended = nbformat.read(path, as_version=4), None
    try:
        run.preprocess(notebook, {"metadata": {"path": str(folder)}})
    except (DeadKernelError, RuntimeError):
        ended = "it ended its own process"
    except (CellTimeoutError, TimeoutError):
        ended = "it took too long and could not be stopped"
    except Exception as error:   # its kernel can say what it likes
        ended = f"its kernel sent what no kernel sends: {type(error).__name__}"
    run.write(run.killed or ended)


# The watch ------------------------------------------------------------------------


class Machine:
    """What submissions share, or one has alone."""

    def __init__(self):
        self.users, self.changed = 0, threading.Condition()

    @contextmanager
    def shared(self):
        with self.changed:
            self.users += 1
        try:
            yield
        finally:
            with self.changed:
                self.users -= 1
                self.changed.notify_all()

    @contextmanager
    def alone(self):
        with self.changed:   # held to the end, so that nobody else begins
            self.changed.wait_for(lambda: not self.users)
            yield


def execute(path, lab, data, safe, limits):
    """Execute the notebook at `path` and write its outputs into it.

    lab: the folder that `lab` is imported from; data: one that may be read, or None.
    In a process without threads, of which another one is forked.
    """
    with tempfile.TemporaryDirectory(prefix="lab-") as temporary:
        folder = Path(temporary)
        if not safe:
            os.environ["PYTHONPATH"] = str(lab)
            converse(path, folder, Kernel, limits)
            return
        talker = os.fork()
        if not talker:
            talk(path, folder, lab, data, limits)
        why, starved, status = watch(talker, folder, limits)
    notebook = nbformat.read(path, as_version=4)
    if status and not why:
        why = f"the grader failed, status {os.waitstatus_to_exitcode(status)}"
    if why:
        notebook.metadata |= {"ended": why, "starved": starved}
        write(notebook, path)


def talk(path, folder, lab, data, limits):
    """Be the process that starts the kernel and talks with it; does not return."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)   # PR_SET_PDEATHSIG: as the watch
        os.nice(5)   # the machine stays usable
        Path("/proc/self/oom_score_adj").write_text("1000")   # this goes first
        import resource
        most = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        readable = {lab: "/exercise"} | ({data: "/data"} if data else {})
        environment = {"PYTHONPATH": "/exercise"} | (
            {"LAB_DATA": "/data"} if data else {})
        calls = call_filter()
        command = scope(wrapped({}, calls), calls, limits) + wrapped(
            readable, calls, folder, environment)
        converse(path, folder, kernel_in(command, folder, calls), limits)
        status = 0
    finally:
        os._exit(status)


def watch(talker, folder, limits):
    """Wait for the end of the process, or bring it about.

    Returns (why it was ended, whether that was for want of memory of the machine, its
    status). Whatever goes wrong here ends the submission, never the watch.
    """
    why, starved, end = None, False, time.monotonic() + limits.seconds + 60
    while True:
        ended, status = os.waitpid(talker, os.WNOHANG)
        if ended:
            return why, starved, status
        if not why:
            try:
                why = excess(talker, folder, limits)
                if not why and psutil.virtual_memory().available < limits.spare:
                    why, starved = "the machine ran out of memory", True
                if not why and time.monotonic() > end:
                    why = "it took too long and could not be stopped"
            except Exception as error:
                why = f"it could not be watched: {type(error).__name__}"
            if why:
                end = time.monotonic() + 20   # to write what was done
        if why:   # first what the process has started, itself if it does not end
            everything = family(talker)
            kill(everything[1:] if time.monotonic() < end else everything)
        time.sleep(0.1)


def excess(talker, folder, limits):
    """Why all that the process has started has to end, None while it may go on."""
    (own, _, _), *members = map(used, family(talker))
    memory, threads, descriptors = map(sum, zip(*members)) if members else (0, 0, 0)
    for process in family(talker)[2:3]:   # after bubblewrap itself, which is outside
        memory += files(process.pid, [*IN_MEMORY, folder]) + sockets(process.pid)
    if memory > limits.memory:
        return f"it took more than {limits.memory // MiB} MiB of memory"
    if threads > limits.threads:
        return f"it started more than {limits.threads} processes and threads"
    if descriptors > limits.descriptors:
        return f"it opened more than {limits.descriptors} files and sockets"
    if own > limits.memory // 2:
        kill(family(talker))
        return "it printed more than this program can take"
    return None


def used(process):
    """(memory, threads, open files) of a process; zeros if it has ended.

    Its memory is what it does not share, and page tables. What is shared is files: of
    the disk, which are given up when memory is short, or `files` below.
    """
    threads = 0
    try:
        tasks = os.listdir(f"/proc/{process.pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0, 0
    for task in tasks:   # its first thread may have ended, and shows nothing then
        place = f"/proc/{process.pid}/task/{task}"
        try:
            found = status(place)
            threads = max(threads, found.get(b"Threads", 0))
            if b"RssAnon" not in found:
                continue
            descriptors = len(os.listdir(f"{place}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:   # a zombie's files are root's
            if b"RssAnon" not in status(place):
                continue
            raise
        return (found[b"RssAnon"] + found[b"VmPTE"]) * KiB, threads, descriptors
    return 0, threads, 0


def status(place):
    """The numbers of a thread that count; {} if it has ended."""
    try:
        said = Path(f"{place}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: int(number) for name, number in STATUS.findall(said)}


STATUS = re.compile(rb"^(RssAnon|VmPTE|Threads):\s*(\d+)", re.M)


def files(pid, folders):
    """Memory that files in a process's sandbox take, deleted and empty ones too."""
    root, total = f"/proc/{pid}/root", 0
    try:
        if os.path.samestat(os.stat(root), os.stat("/")):
            return 0   # it is not inside yet
        for path in folders:
            its = os.statvfs(f"{root}{path}")
            total += (its.f_blocks - its.f_bfree) * its.f_frsize
            total += (its.f_files - its.f_ffree) * 2 * KiB
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass   # it has ended, or has no such folder yet
    return total


def sockets(pid):
    """Memory that the sockets in the sandbox of a process can hold.

    Those that wait to be accepted count too: no process has them open.
    """
    total, net = 0, Path(f"/proc/{pid}/net")
    try:
        if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            return 0   # it is not inside yet
        local = (net / "unix").read_bytes().count(b"\n") - 1
        most = int(Path("/proc/sys/net/core/wmem_max").read_text())
        total += max(0, local) * 2 * most
        for kind in ["tcp", "tcp6", "udp", "udp6"]:
            for line in (net / kind).read_text().splitlines()[1:]:
                sent, _, received = line.split()[4].partition(":")
                total += int(sent, 16) + int(received, 16)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass   # it has ended, or this kernel has no such sockets
    return total


def family(pid):
    """A process and all its descendants, children before grandchildren."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def kill(processes):
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            pass   # it has ended
