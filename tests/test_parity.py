"""Our models held against torchvision's, by the REFERENCES of their test files."""

import pytest
import torch

from declared import references
from identical import assert_identical, fill
from lab import measure

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
