"""What the test file of a module declares: CASES and REFERENCES.

tests/test_NAME.py of code/NAME.py has CASES = {"LeNet5": Case(...)}, small instances
of which every public nn.Module of the module must be a part, and, where torchvision
has the models too, REFERENCES = [Reference(...)], and TOO_LARGE the names of those that
do not fit into memory twice. The generic tests and the benchmark collect them.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from lab import cli

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.stem for path in ROOT.glob("code/*.py"))


@dataclass(frozen=True)
class Case:
    """build() -> model; batch() -> (inputs, target); loss(output, target) -> scalar.

    The model is called as model(*inputs). Random numbers are the test's to seed.
    """
    build: Callable[[], nn.Module]
    batch: Callable[[], tuple]
    loss: Callable = F.cross_entropy


@dataclass(frozen=True)
class Reference:
    """A model of torchvision that ours of the same name must equal.

    size, samples: of the images compared. sized: both are built with image_size=size.
    options: what torchvision's is built with besides. counted: what ours is built
    with to have the parameters that torchvision counts. published: the module's
    --weights shows this model. timed: images in the benchmark's batch, 0 for none.
    """
    name: str
    size: int
    samples: int = 1
    sized: bool = False
    tolerance: float = 1e-5
    options: dict = field(default_factory=dict)
    counted: dict = field(default_factory=dict)
    published: bool = False
    timed: int = 0

    def ours(self, module, **options):
        return getattr(importlib.import_module(module), self.name)(**options)

    def theirs(self, **options):
        return torchvision.models.get_model(self.name, **self.options, **options)

    @property
    def weights(self):
        """The weights that torchvision publishes, with what it says of them."""
        return torchvision.models.get_model_weights(self.name)["IMAGENET1K_V1"]

    @property
    def side(self):
        """Height and width of the images that these weights take."""
        return self.weights.transforms().crop_size[0]


def images(channels, size, classes=10, samples=4):
    """Random images and classes: ((images,), labels)."""
    return ((torch.randn(samples, channels, size, size),),
            torch.randint(classes, (samples,)))


def per_position(output, target):
    """Cross-entropy of logits (B, T, K), alone or first of what a model returns."""
    logits = output[0] if isinstance(output, tuple) else output
    return F.cross_entropy(logits.flatten(0, -2), target.flatten())


def cases():
    """(module, name, Case) of all modules whose test file can be imported."""
    return [(module, name, case) for module in MODULES
            for name, case in declared(module, "CASES", {}).items()]


def references():
    """(module, Reference) of all modules whose test file can be imported."""
    return [(module, reference) for module in MODULES
            for reference in declared(module, "REFERENCES", [])]


def declared(module, name, default):
    return default if problem(module) else getattr(
        sys.modules[f"test_{module}"], name, default)


def problem(module):
    """Why the test file of a module cannot be imported, in one line, or None."""
    file = f"tests/test_{module}.py"
    try:
        importlib.import_module(f"test_{module}")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == f"test_{module}":
            return (f"{file} is missing: it tests code/{module}.py and declares its "
                    "CASES")
        line = str(error).strip().partition("\n")[0]
        return f"{file} cannot be imported: {type(error).__name__}: {line}"


@cache
def facts(module):
    """What a module computes of itself; once for all tests that ask."""
    return importlib.import_module(module).facts()


def settings(module):
    """The defaults of a module's own flags, as its record has them."""
    return cli.values(importlib.import_module(module).SETTINGS)
