"""Grad-CAM against its formula, and what the demo covers."""

from functools import partial
from types import SimpleNamespace

import torch
from torch import nn

import grad_cam
from declared import Case, images
from lab import data

CASES = {"SmallNetwork": Case(partial(grad_cam.SmallNetwork, 1, widths=(4, 8, 8)),
                              partial(images, channels=1, size=8))}


def test_equals_the_formula():
    """Eq. 1 and 2 for a network whose gradient can be written down."""
    layer, head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 4)
    model = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    image = torch.randn(1, 5, 5)
    maps = layer(image[None])[0]
    weights = head.weight[2] / 25  # y = sum over k of w_k times the mean of map k
    expected = torch.einsum("k,khw->hw", weights, maps).relu()
    heat = grad_cam.grad_cam(model, "0", image, target=2)
    torch.testing.assert_close(heat, (expected / expected.max()).detach())
    assert not heat.requires_grad


def test_takes_the_best_class_and_enlarges():
    model = grad_cam.SmallNetwork(1)
    model.fc.weight.data.abs_()  # every map speaks for every class
    image = torch.randn(1, 16, 16)
    best = int(model.eval()(image[None]).argmax())
    heat = grad_cam.grad_cam(model, "features", image)
    assert heat.shape == (16, 16) and heat.max() == 1 and heat.min() >= 0
    assert torch.equal(heat, grad_cam.grad_cam(model, "features", image, best))
    assert not torch.equal(heat, grad_cam.grad_cam(model, "features", image, best - 1))


def test_nothing_that_speaks_for_a_class_is_a_map_of_zeros():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(1, 2))
    nn.init.ones_(model[0].weight)
    nn.init.constant_(model[3].weight, -1)
    heat = grad_cam.grad_cam(model, "0", torch.ones(1, 4, 4), target=0)
    assert torch.equal(heat, torch.zeros(4, 4))


def test_where_it_looks_says_what_the_model_says():
    args = SimpleNamespace(batch_size=5, device=torch.device("cpu"))
    _, test = data.digits()
    model = grad_cam.SmallNetwork(1)
    figure = grad_cam.where_it_looks(model, "features", test, args, columns=4)
    images, labels = test[:8]
    said = model.eval()(images).argmax(dim=1)
    captions = figure.axes[0].texts
    assert [caption.get_text() for caption in captions] == [
        f"{label}, said {answer}" for label, answer in zip(labels, said)]
    assert [caption.get_weight() == "bold" for caption in captions] == (
        said != labels).tolist()


def test_cover_hides_the_hottest():
    images, heat = torch.rand(3, 1, 4, 4), torch.rand(3, 4, 4)
    covered = grad_cam.cover(images, heat, share=0.25)
    for image, hot, result in zip(images, heat, covered):
        hidden = hot >= hot.flatten().sort().values[-4]
        assert torch.equal(result[0][~hidden], image[0][~hidden])
        assert torch.equal(result[0][hidden], image.min().expand(4))
    assert torch.equal(grad_cam.cover(images, heat, share=0), images)
