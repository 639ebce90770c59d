"""Inception v3: factors of a convolution, grids halved, smoothed labels."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import inception
from declared import Case, Reference, images
from lab import measure

CASES = {
    "Inception3": Case(
        partial(inception.Inception3, num_classes=10, aux_logits=False),
        partial(images, channels=3, size=75)),
    "InceptionAux": Case(partial(inception.InceptionAux, 8, num_classes=10),
                         partial(images, channels=8, size=17)),
    "SmallInception": Case(partial(inception.SmallInception, 1, width=4),
                           partial(images, channels=1, size=16)),
    "SmallInception 5x5": Case(
        partial(inception.SmallInception, 1, width=4, large=inception.conv5x5,
                reduction=inception.pool_first), partial(images, channels=1, size=16)),
}
# Two samples: batch norm of one position needs them.
REFERENCES = [Reference("inception_v3", size=299, samples=2,
                        options={"init_weights": False}, published=True, timed=2)]


def cost(build, shape):
    """Multiply-adds of build() on an input of that shape."""
    with torch.device("meta"):
        return measure.multiply_adds(build(), shape)


def seen(module, channels, size=15):
    """Height and width of what one output pixel in the middle depends on."""
    x = torch.randn(1, channels, size, size, requires_grad=True)
    middle = size // 2
    module.eval()(x)[:, :, middle, middle].sum().backward()
    touched = x.grad[0].abs().sum(0) > 0
    return int(touched.any(1).sum()), int(touched.any(0).sum())


def test_paper_size():
    """The abstract: under 25 million parameters, about 5 billion multiply-adds."""
    facts = inception.facts()
    assert facts["parameters"] == 27_161_264
    assert facts["inference_parameters"] < 25e6 < facts["parameters"]
    assert 5e9 < facts["multiply_adds"] < 6e9


def test_grids():
    """Table 1: 35x35x288, 17x17x768, 8x8x1280 and 8x8x2048 between the blocks."""
    with torch.device("meta"):
        model = inception.inception_v3(aux_logits=False).eval()
    shapes = {}
    names = {part: name for name, part in model.named_children()}

    def note(part, inputs, output):
        shapes[names[part]] = tuple(output.shape[1:])

    for part in names:
        part.register_forward_hook(note)
    model(torch.empty(1, 3, 299, 299, device="meta"))
    assert shapes["Conv2d_1a_3x3"] == (32, 149, 149)
    assert shapes["Conv2d_2b_3x3"] == (64, 147, 147)
    assert shapes["Mixed_5d"] == (288, 35, 35)
    assert shapes["Mixed_6a"] == shapes["Mixed_6e"] == (768, 17, 17)
    assert shapes["Mixed_7a"] == (1280, 8, 8)
    assert shapes["Mixed_7c"] == (2048, 8, 8)


def test_depth():
    """48 layers on the longest way; the paper counts 42."""
    with torch.device("meta"):
        assert inception.depth(inception.inception_v3()) == 48


@pytest.mark.parametrize("build", [
    inception.conv5x5, inception.two_conv3x3, inception.conv1x5_5x1])
def test_factors_see_the_same(build):
    """Each factorisation of a 5x5 keeps the grid and sees 5x5 pixels."""
    module = build(3, 8)
    for norm in module.modules():  # a ReLU that is off would hide pixels
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.constant_(norm.bias, 100)
    assert module(torch.randn(2, 3, 9, 9)).shape == (2, 8, 9, 9)
    assert seen(module, 3) == (5, 5)


def test_factors_cost():
    """Section 3: 25/9 of a 3x3; two 3x3 28 % cheaper; 3x1 and 1x3 33 % cheaper."""
    shape = (1, 16, 12, 12)
    whole = cost(lambda: inception.conv5x5(16, 16), shape)
    three = cost(lambda: inception.padded(16, 16, 3), shape)
    two = cost(lambda: inception.two_conv3x3(16, 16), shape)
    rows = cost(lambda: inception.conv1x5_5x1(16, 16), shape)
    row = cost(lambda: inception.padded(16, 16, 1, 3), shape)
    assert whole / three == 25 / 9
    assert two / whole == 18 / 25
    assert rows / whole == 10 / 25
    assert 2 * row / three == 6 / 9


def test_figure5():
    """The paper's A block: the library's output shape, no 5x5, and cheaper."""
    paper = inception.InceptionModule(192, 64, (48, 64), (64, 96), 32)
    library = inception.InceptionA(192, pool_features=32)
    x = torch.randn(2, 192, 9, 9)
    assert paper(x).shape == library(x).shape == (2, 256, 9, 9)

    def kernels(block):
        return sorted(conv.kernel_size[0] for conv in block.modules()
                      if isinstance(conv, nn.Conv2d))

    assert kernels(paper) == [1, 1, 1, 1, 3, 3, 3]
    assert kernels(library) == [1, 1, 1, 1, 3, 3, 5]
    shape = (1, 192, 35, 35)
    saved = (25 - 9) * 48 * 64 * 35 * 35
    assert measure.multiply_adds(library, shape) - saved == (
        measure.multiply_adds(paper, shape))


def test_reductions():
    """C x H x W to 2C x H/2 x W/2; the paper's is cheaper than both of figure 9."""
    reductions = [inception.conv_first, inception.pool_first,
                  inception.ParallelReduction]
    for build in reductions:
        assert build(8)(torch.randn(2, 8, 12, 12)).shape == (2, 16, 6, 6)
    first, bottleneck, parallel = (cost(lambda: build(8), (1, 8, 12, 12))
                                   for build in reductions)
    assert first == 4 * bottleneck == 8 * parallel


def test_reduction_keeps_the_pooled_half():
    x = torch.randn(2, 3, 8, 8)
    out = inception.ParallelReduction(3)(x)
    assert torch.equal(out[:, 3:], F.max_pool2d(x, 3, stride=2, padding=1))


def test_variants_differ_only_in_the_factors():
    """All but the 5x5 branch, or all but the reductions, has the same shapes."""
    shapes = {name: {key: value.shape for key, value in inception.SmallInception(
        1, width=4, **options).state_dict().items()}
        for name, options in inception.VARIANTS.items()}
    ours = shapes["two_3x3"]
    for name, part in [("5x5", "branch5x5_2"), ("1x5_5x1", "branch5x5_2"),
                       ("pool_first", "reduce"), ("conv_first", "reduce")]:
        rest = [{key: shape for key, shape in of.items() if part not in key}
                for of in (ours, shapes[name])]
        assert rest[0] == rest[1] and shapes[name] != ours


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
def test_label_smoothing(epsilon):
    """The loss of section 7, written by hand, is torch's."""
    logits = torch.randn(6, 10, requires_grad=True)
    labels = torch.randint(10, (6,))
    ours = inception.label_smoothing_loss(logits, labels, epsilon)
    torchs = F.cross_entropy(logits, labels, label_smoothing=epsilon)
    torch.testing.assert_close(ours, torchs)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, torchs)]
    torch.testing.assert_close(*gradients)


def test_label_smoothing_is_best_at_q():
    """No prediction has a lower loss than q' itself: 0.91 for the label of ten."""
    q = torch.full((1, 10), 0.01)
    q[0, 3] = 0.91
    logits = q.log().requires_grad_()
    inception.label_smoothing_loss(logits, torch.tensor([3])).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(1, 10), atol=1e-6, rtol=0)


def test_outputs():
    """Two logits in training, one without the auxiliary head or in evaluation."""
    with torch.device("meta"):
        x = torch.empty(2, 3, 299, 299)
        model = inception.inception_v3(num_classes=7)
        logits, aux_logits = model(x)
        assert logits.shape == aux_logits.shape == (2, 7)
        assert model.eval()(x).shape == (2, 7)
        assert inception.inception_v3(7, aux_logits=False)(x).shape == (2, 7)


def test_initialisation():
    """As torchvision's: 0.1, but 0.001 in the auxiliary fc."""
    model = inception.InceptionAux(16, 10).apply(inception.initialize)
    assert model.conv1.conv.weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert model.fc.weight.std().item() == pytest.approx(0.001, rel=0.1)


def test_contest_size():
    assert 0.3e6 < measure.parameters(inception.SmallInception(3)) < 1e6
