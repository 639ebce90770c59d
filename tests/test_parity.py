"""Our models held against torchvision's, by the REFERENCES of their test files."""

import importlib
import sys
from dataclasses import fields

import pytest
import torch
import torchvision

from declared import MODULES, declared, references
from identical import assert_identical, fill
from lab import measure

every_module = pytest.mark.parametrize("name", MODULES)
every_reference = pytest.mark.parametrize("module, reference", [
    pytest.param(module, reference, id=reference.name)
    for module, reference in references()])


@every_reference
def test_identical(module, reference):
    """Same parameters by name, outputs, running statistics and gradients."""
    options = {"image_size": reference.size} if reference.sized else {}
    with torch.device("meta"):
        ours, theirs = reference.ours(module, **options), reference.theirs(**options)
    images = torch.randn(reference.samples, 3, reference.size, reference.size)
    assert_identical(ours.to_empty(device="cpu"), fill(theirs), images,
                     tolerance=reference.tolerance)


@every_reference
def test_multiply_adds(module, reference):
    """As many, in G, as torchvision publishes, with as many parameters."""
    published = reference.weights.meta
    with torch.device("meta"):
        ours = reference.ours(module)
        counted = reference.ours(module, **reference.counted)
    work = measure.multiply_adds(ours, (1, 3, reference.side, reference.side))
    assert round(work / 1e9, 3) == published["_ops"]
    assert measure.parameters(counted) == published["num_params"]


def forgotten(name):
    """What no reference of a module holds against torchvision, in one line, or None."""
    module, file = importlib.import_module(name), f"tests/test_{name}.py"
    ours = [reference for owner, reference in references() if owner == name]
    compared = [reference.name for reference in ours] + declared(name, "TOO_LARGE", [])
    for key, value in vars(module).items():
        if getattr(value, "__module__", None) == name and key not in compared and (
                key in torchvision.models.list_models()):
            return f"torchvision has {key} too: add Reference({key!r}, …) in {file}"
    if ours and not any(reference.timed for reference in ours):
        return f"no reference of {file} is in the benchmark: give one timed=2"
    loads = any(reference.published for reference in ours) or hasattr(
        sys.modules[f"test_{name}"], "test_published")
    if "weights" in [each.name for each in fields(module.Settings)] and not loads:
        return (f"no test loads --weights: give a Reference in {file} published=True, "
                "or write test_published there")
    return None


@every_module
def test_nothing_is_forgotten(name):
    """Builders that torchvision has too are compared, published weights loaded."""
    if line := forgotten(name):
        pytest.fail(line, pytrace=False)


@pytest.mark.parametrize("references, words", [
    ("", "add Reference('resnet18', …) in tests/test_toy.py"),
    ("Reference('resnet18', size=8)", "give one timed=2"),
    ("Reference('resnet18', size=8, timed=2)", "published=True"),
    ("Reference('resnet18', size=8, timed=2, published=True)", None)])
def test_what_is_forgotten_is_named(references, words, tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(
        "from lab.cli import ImageSettings as Settings\ndef resnet18():\n    pass\n")
    (tmp_path / "test_toy.py").write_text(
        f"from declared import Reference\nREFERENCES = [{references}]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("declared.MODULES", ["toy"])
    for name in ["toy", "test_toy"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    line = forgotten("toy")
    for name in ["toy", "test_toy"]:
        del sys.modules[name]
    assert line is None if words is None else words in line
