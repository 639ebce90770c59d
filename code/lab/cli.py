"""The command line of every module: the same flags everywhere."""

import argparse
import os
import random
import shlex
import signal
import sys
from pathlib import Path

import numpy
import torch

from lab import results, terminal

ROOT = Path(__file__).resolve().parents[2]
CODE = ROOT / "code"
STATIC = ROOT / "static"


def arguments(weights=None, image=False, text=False, **datasets):
    """Parse the command line, seed everything and begin the run.

    datasets: for each data set that the module can use, in order, its defaults,
    such as digits={"epochs": 20, "batch_size": 32, "lr": 0.05}; the first is what
    the demo uses. epochs, batch_size and lr become flags, other keys only
    attributes. weights: the names that --weights takes, or str if any; image, text:
    whether there is an --image or a --text for them.

    Returns a namespace with data, those defaults or what the user asked for
    instead, data_dir, out (Path), seed, device (torch.device), quick, resume,
    weights, image, text, module (the script's name) and run ("demo", or the name of
    another data set). In a notebook or on a slide the flags come from $LAB_ARGS.
    Bad arguments end the program with one line and status 2.
    """
    terminal.prepare()
    notebook = in_notebook()
    script = None if notebook else Path(sys.modules["__main__"].__file__).resolve()
    parser = _parser(weights, image, text, datasets)
    parser.prog = f"python {_shown(script)}" if script else "$LAB_ARGS"
    args = parser.parse_args(
        shlex.split(os.environ.get("LAB_ARGS", "")) if notebook else None, Arguments())

    demo = next(iter(datasets), None)
    changed = [flag for flag, value in vars(args).items()
               if value not in (parser.get_default(flag), None) and flag != "out"]
    for key, value in datasets.get(args.data, {}).items():
        if getattr(args, key, None) is None:
            setattr(args, key, value)
        elif getattr(args, key) == value and key in changed:
            changed.remove(key)
    for flag, offered, given in [("--image FILE", image, args.image),
                                 ("--text SENTENCE", text, args.text)]:
        if weights and offered and (given is None) != (args.weights is None):
            parser.error(f"--weights NAME and {flag} go together")
    args.epochs = 1 if args.quick else getattr(args, "epochs", None)
    args.module = script.stem if script else "notebook"
    args.run = "demo" if args.data == demo else args.data
    args.device = _device(args.device, parser)
    if args.out is None:
        args.out = ROOT / "out" if changed else STATIC
    elif args.out.resolve() == STATIC and changed and (
            args.quick or args.run == "demo"):
        parser.error("--out static is for the default demo and for full runs on "
                     f"other data, not for {_flags(args, changed)}")

    if "WORLD_SIZE" in os.environ:
        args.device = _join(args.device)
    if not notebook:  # no window is opened, and a user's settings change no figure
        os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    # glibc gives freed memory back, and each step then pays for page faults; after
    # one large block was freed it keeps what smaller ones leave
    torch.empty(2 ** 23 - 64)
    random.seed(args.seed)
    numpy.random.seed(args.seed)
    torch.manual_seed(args.seed)
    shown = [key for key in changed if key not in ("data_dir", "resume")]
    program = f"{_launcher()} {_shown(script)}" if script else "notebook"
    command = f"{program} {_flags(args, shown)}".strip()
    results.begin(args, script, command)
    if not notebook:
        signal.signal(signal.SIGINT, _interrupted)
    return args


def in_notebook():
    """Whether this is a notebook or a slide rather than a script."""
    ipython = sys.modules.get("IPython")
    return bool(ipython and ipython.get_ipython()) or not hasattr(
        sys.modules["__main__"], "__file__")


class Arguments(argparse.Namespace):
    """What a run was asked for; hashable, so that a module can cache by it."""

    __hash__ = object.__hash__


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def _parser(weights, image, text, datasets):
    parser = _Parser(allow_abbrev=False)
    first = next(iter(datasets.values()), {})

    def flag(name, kind, text, **options):
        parser.add_argument(name, type=kind, help=text, **options)

    parser.set_defaults(data=None, weights=None, image=None, text=None)
    if datasets:
        flag("--data", str, "data set (default %(default)s)",
             choices=list(datasets), default=next(iter(datasets)))
        flag("--data-dir", Path, "for downloads and unpacked copies",
             default=ROOT / "data")
    for name, kind, text in [
            ("epochs", _whole(1), "passes over the training set"),
            ("batch_size", _whole(1), "samples in a step, over all processes"),
            ("lr", _positive, "learning rate")]:
        if any(name in defaults for defaults in datasets.values()):
            flag("--" + name.replace("_", "-"), kind,
                 f"{text} (default {first.get(name)})")
    flag("--seed", _whole(0), "of all random numbers (default 0)", default=0)
    flag("--device", str, "auto takes a GPU if there is one", default="auto",
         choices=["auto", "cpu", "cuda", "mps"])
    flag("--out", _folder, "where to write: static if all else is default, else out")
    if weights:
        flag("--weights", str, "published weights",
             choices=None if weights is str else weights)
    if image:
        flag("--image", _file, "a picture to look at")
    if text:
        flag("--text", str, "a sentence to look at")
    parser.add_argument("--quick", action="store_true",
                        help="a few samples and one epoch, to see that it runs")
    parser.add_argument("--resume", action="store_true",
                        help="go on where the same command was interrupted")
    return parser


def _whole(least):
    def number(text):
        if not text.isascii() or not text.isdigit() or not (
                least <= int(text) < 2 ** 32):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least} up")
        return int(text)
    return number


def _positive(text):
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _file(text):
    if not os.access(text, os.R_OK) or not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file that can be read")
    return Path(text)


def _folder(text):
    # These two are the project's, wherever one stands.
    folder = {"static": STATIC, "out": ROOT / "out"}.get(text, Path(text))
    first = next(path for path in [folder, *folder.absolute().parents]
                 if path.exists())
    if not first.is_dir() or not os.access(first, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder to write to")
    return folder


def _device(name, parser):
    here = {"cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in here.items() if available)
    if not here[name]:
        parser.error(f"argument --device: there is no {name} device here")
    return torch.device(name)


def _join(device):
    """Enter torchrun's process group; returns this process's device."""
    import atexit

    import ignite.distributed as idist
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    idist.initialize("nccl" if device.type == "cuda" else "gloo")
    atexit.register(idist.finalize)
    return device


def _shown(script):
    return script.relative_to(ROOT) if script.is_relative_to(ROOT) else script


def _launcher():
    processes = os.environ.get("LOCAL_WORLD_SIZE")
    return f"torchrun --nproc-per-node={processes}" if processes else "python"


def _flags(args, keys):
    words = []
    for key in keys:
        value = getattr(args, key)
        words += ["--" + key.replace("_", "-")]
        words += [] if value is True else [str(value)]
    return shlex.join(words)


def _interrupted(signum, frame):
    resume = "" if "--resume" in sys.argv else " --resume"
    how = (f"; continue with: {_launcher()} {shlex.join(sys.argv)}{resume}"
           if results.run.checkpoints else "")
    if int(os.environ.get("RANK", 0)) == 0:
        bar = "\n" if sys.stderr.isatty() else ""
        print(f"{bar}interrupted{how}", file=sys.stderr)
    raise SystemExit(130)
