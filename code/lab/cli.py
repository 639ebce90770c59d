"""The command line of every module: its settings are its flags."""

import argparse
import multiprocessing
import os
import random
import shlex
import signal
import sys
import types
import typing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy
import torch

from lab import parallel, runs, terminal

ROOT = Path(__file__).resolve().parents[2]
CODE = ROOT / "code"
STATIC = ROOT / "static"


def flag(default, text=None, **limits):
    """A field of Settings with its flag's text for --help, if not that of COMMON.

    limits: least, most, above (numbers), or choices; without, those of LIMITS.
    """
    return field(default=default,
                 metadata={**({"text": text} if text else {}), **limits})


# What a number is at least and at most, if its flag does not say: more is a mistake.
LIMITS = {int: (1, 1_000_000), float: (0, 1_000_000)}

# What fields mean that many modules have; a module's own are flag(default, text).
COMMON = {
    "epochs": dict(text="passes over the training set"),
    "batch_size": dict(text="samples in a step"),
    "lr": dict(text="learning rate", above=0, most=1000),
    "rates": dict(text="learning rates to choose from, for each network", above=0,
                  most=1000),
    "tune": dict(text="choose each network's learning rate again"),
    "weight_decay": dict(text="how strongly the optimizer pulls weights to zero",
                         most=1000),
    "dropout": dict(text="share of the values set to zero in training", most=1),
    "runs": dict(text="trainings that differ only in their seed", most=1000),
    "size": dict(text="height and width of the images, in pixels", least=8, most=512),
    "augment": dict(text="shift and mirror the training images at random"),
    # with fewer channels a depthwise layer of PyTorch 2.15 crashes on a CPU
    "width": dict(text="channels of the first layers", least=4, most=1024),
    "depth": dict(text="layers", most=200),
}


@dataclass(frozen=True)
class Settings:
    """The flags of every module; a module's own are a subclass.

    Every field is a flag. A subclass has fields of COMMON with their defaults, and
    others made by flag(). Raise ValueError in __post_init__ where values don't fit
    together. Settings are equal, and hash, by value.
    """
    data: str = flag(None, "data set")
    data_dir: Path = flag(ROOT / "data", "for downloads and unpacked copies")
    seed: int = flag(0, "where all random numbers begin", least=0, most=2 ** 32 - 1)
    device: str = flag("auto", "auto takes a GPU if there is one",
                       choices=("auto", "cpu", "cuda", "mps"))
    threads: int = flag(1, "threads of each process; 0: as many as PyTorch takes",
                        least=0, most=64)
    out: Path = flag(None, "where to write: static if all else is default, else out")
    quick: bool = flag(False, "a few samples and one epoch, to see that it runs")
    resume: bool = flag(False, "go on where the same command was interrupted")

    @property
    def seeds(self):
        """The seeds of the runs of a comparison; --quick has one."""
        return range(self.seed, self.seed + (1 if self.quick else self.runs))


_SHARED = {each.name for each in fields(Settings)}


@dataclass(frozen=True)
class ImageSettings(Settings):
    """Flags of a module that can show what published weights see in an image."""
    weights: str = flag(None, "published weights", choices=("imagenet",))
    image: Path = flag(None, "an image to look at")


def begin(settings):
    """Parse the command line, seed everything and begin the run.

    settings: {data set: its Settings}; the first is what the demo uses. Returns the
    settings of the chosen data set, with the other flags given instead of the
    defaults, device a torch.device and out a Path. In a notebook or on a slide the
    flags come from $LAB_ARGS. Bad arguments end the program with one line and
    status 2.
    """
    terminal.prepare()
    notebook = in_notebook()
    script = None if notebook else Path(sys.modules["__main__"].__file__).resolve()
    words = shlex.split(os.environ.get("LAB_ARGS", "")) if notebook else None
    parser = _parser(settings, f"python {_shown(script)}" if script else "$LAB_ARGS",
                     words)
    args, changed = _asked(settings, parser, words)
    if "WORLD_SIZE" in os.environ:
        args = replace(args, device=_join(args.device))

    shown = [key for key in changed if key not in ("data_dir", "resume")]
    program = f"{_launcher()} {_shown(script)}" if script else "notebook"
    command = f"{program} {_flags(args, shown)}".strip()
    if args.quick and hasattr(args, "epochs"):
        args = replace(args, epochs=1)
    if not notebook:  # no window is opened, and a user's settings change no figure
        os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
        signal.signal(signal.SIGINT, _interrupted)
        sys.excepthook = _stopped
    parallel.use_threads(args.threads)
    random.seed(args.seed)
    numpy.random.seed(args.seed)
    torch.manual_seed(args.seed)
    name = "demo" if args.data == next(iter(settings)) else args.data
    tune = getattr(args, "tune", False)
    if tune:  # of the run: the same trainings are the same
        args = replace(args, tune=False)
    own = [key for key in changed if key not in _SHARED | {"runs"}
           and not key.startswith("lr")]
    runs.begin(args, name, script, command, _processes(args, notebook),
               values(settings), tune, _flags(args, own))
    if script and name == "demo" and args.out == STATIC:
        runs.current().keep_trainings(ROOT / f"out/trainings/{script.stem}.pickle")
        if os.environ.get("LAB_REDRAW"):
            parallel.recall()
    return args


def values(settings):
    """Name the numbers among a module's own settings, {"mnist.epochs": 5}.

    settings: {data set: its Settings}. Those of a tuple are counted from 0:
    "cifar10.rates.1". Slides link to them.
    """
    own = {}
    for data, chosen in settings.items():
        for name in [each.name for each in fields(chosen) if each.name not in _SHARED]:
            value = getattr(chosen, name)
            if isinstance(value, tuple):
                own |= {f"{data}.{name}.{i}": item for i, item in enumerate(value)}
            else:
                own[f"{data}.{name}"] = value
    return {key: value for key, value in own.items() if type(value) in (int, float)}


def in_notebook():
    """Whether this is a notebook or a slide rather than a script."""
    ipython = sys.modules.get("IPython")
    return bool(ipython and ipython.get_ipython()) or not hasattr(
        sys.modules["__main__"], "__file__")


def _asked(settings, parser, words):
    """Settings with what words ask for, and the names of those that are no default."""
    given = vars(parser.parse_args(words))
    demo = next(iter(settings))
    data = given.get("data", demo)
    default = replace(settings[data], data=demo)
    try:
        args = replace(default, **given)
    except ValueError as error:
        parser.error(str(error))
    args = replace(args, data=data, device=_device(args.device, parser))
    for key, shown in [("image", "--image FILE"), ("text", "--text SENTENCE")]:
        if hasattr(args, "weights") and hasattr(args, key) and (
                args.weights is None) != (getattr(args, key) is None):
            parser.error(f"--weights NAME and {shown} go together")
    if hasattr(args, "tune"):
        if args.tune and args.quick:
            parser.error("--quick chooses no learning rates: leave out --tune")
        if not args.tune and any(name.startswith("rates") for name in given):
            parser.error("--rates are for --tune to choose from; one rate is --lr")
    changed = [each.name for each in fields(args) if each.name not in ("out", "tune")
               and getattr(args, each.name) != getattr(default, each.name)]
    if given.get("device", "auto") == "auto":
        changed.remove("device")
    if args.out is None:
        args = replace(args, out=ROOT / "out" if changed else STATIC)
    elif args.out.resolve() == STATIC and changed and (args.quick or data == demo):
        parser.error("--out static is for the default demo and for full runs on "
                     f"other data, not for {_flags(args, changed)}")
    return args, changed


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def _parser(settings, program, words):
    """The parser of all flags; its help has the defaults of the data set in words."""
    chooser = _Parser(prog=program, allow_abbrev=False, add_help=False)
    chooser.add_argument("--data", choices=list(settings), default=next(iter(settings)))
    data = chooser.parse_known_args(words)[0].data
    shown = replace(settings[data], data=data)
    parser = _Parser(prog=program, allow_abbrev=False,
                     argument_default=argparse.SUPPRESS)
    kinds = typing.get_type_hints(type(shown))
    for each in fields(shown):
        about = COMMON.get(each.name, {}) | each.metadata
        options = _options(each.name, kinds[each.name], about)
        if each.name == "data":
            options = {"type": str, "choices": list(settings)}
        elif any(getattr(each_set, each.name) == () for each_set in settings.values()):
            options["nargs"] = "*"
        default = next(iter(settings)) if each.name == "data" else getattr(
            shown, each.name)
        parser.add_argument(
            "--" + each.name.replace("_", "-"), **options,
            help=(about["text"] + _default(default)).replace("%", "%%"))
    return parser


def _options(name, kind, about):
    """argparse's options for a type such as int, int | None or tuple[int, ...]."""
    if typing.get_origin(kind) is not None or isinstance(kind, types.UnionType):
        options = _options(name, typing.get_args(kind)[0], about)
        is_tuple = typing.get_origin(kind) is tuple
        return options | ({"nargs": "+", "action": _Tuple} if is_tuple else {})
    choices = {key: about[key] for key in ["choices"] if key in about}
    if kind is bool:
        switches = name in ("quick", "resume", "tune")
        return {"action": "store_true" if switches else argparse.BooleanOptionalAction}
    if kind is Path:
        if name in ("out", "data_dir"):
            return {"type": _out if name == "out" else _folder, "metavar": "FOLDER"}
        return {"type": _file, "metavar": "FILE"}
    if kind in (int, float):
        return {"type": _number(kind, about), "metavar": "N" if kind is int else "X"}
    return {"type": str} | (choices or {"metavar": "TEXT"})


class _Tuple(argparse.Action):
    def __call__(self, parser, namespace, values, option=None):
        setattr(namespace, self.dest, tuple(values))


def _default(value):
    if value is None or value is False or value == ():
        return ""
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    return f" (default {value})"


def _number(kind, about):
    """A parser of numbers within the limits of a flag, or of its kind."""
    least, most = (about.get(key, limit)
                   for key, limit in zip(("least", "most"), LIMITS[kind]))
    above = about.get("above")

    def number(text):
        try:
            value = kind(text) if text.isascii() and "_" not in text else None
        except ValueError:
            value = None
        if value is None or not least <= value <= most or (
                above is not None and not above < value):
            what = "a whole number" if kind is int else "a number"
            ends = "most" in about or value is not None and value > most
            limits = f"from {least} to {most}" if ends else f"from {least} up"
            if above is not None:
                limits = f"above {above}" + (f" and at most {most}" if ends else "")
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} {limits}")
        return value

    return number


def _file(text):
    if not os.access(text, os.R_OK) or not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file that can be read")
    return Path(text)


def _folder(text):
    """--data-dir: a folder, or where one can be made."""
    if not text or not _nearest(Path(text)).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no folder")
    return Path(text)


def _out(text):
    # These two are the project's, wherever one stands.
    folder = {"static": STATIC, "out": ROOT / "out"}.get(text, Path(text))
    above = _nearest(folder)
    if not text or not above.is_dir() or not os.access(above, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder to write to")
    return folder


def _nearest(path):
    """The path, or the nearest above it, that exists."""
    return next(each for each in [path, *path.absolute().parents] if each.exists())


def _device(name, parser):
    here = {"cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in here.items() if available)
    if not here[name]:
        parser.error(f"argument --device: no {name} device is available here")
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


def _processes(args, notebook):
    """How many processes may train side by side."""
    alone = (notebook or args.quick or not args.threads or args.device.type != "cpu"
             or "WORLD_SIZE" in os.environ)
    return 1 if alone else max(1, runs.cores() // args.threads)


def _shown(script):
    return script.relative_to(ROOT) if script.is_relative_to(ROOT) else script


def _launcher():
    processes = os.environ.get("LOCAL_WORLD_SIZE")
    return f"torchrun --nproc-per-node={processes}" if processes else "python"


def _flags(args, keys):
    words = []
    for key in keys:
        value, name = getattr(args, key), key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name}", *map(str, values)]
    return shlex.join(words)


def _stopped(kind, error, trace):
    """Say in one line that memory did not suffice; all other errors as ever."""
    if _is_lack_of_memory(error):
        print(f"{runs.current().command}: there is not enough memory for this: choose "
              "smaller numbers, such as --batch-size", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _is_lack_of_memory(error):
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _interrupted(signum, frame):
    resume = "" if "--resume" in sys.argv else " --resume"
    how = (f"; continue with: {_launcher()} {shlex.join(sys.argv)}{resume}"
           if runs.has_begun() and (
               runs.current().checkpoints or multiprocessing.active_children()) else "")
    if int(os.environ.get("RANK", 0)) == 0:
        bar = "\n" if sys.stderr.isatty() else ""
        print(f"{bar}interrupted{how}", file=sys.stderr)
    raise SystemExit(130)
