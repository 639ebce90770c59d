"""Vision Transformers held against torchvision, and what their demo is made of."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torchvision
from einops import rearrange
from torch import nn

import vit
from declared import Case, Reference
from declared import images as random_images
from lab import data, measure
from multi_head import attention_maps

SMALL = {"patch_size": 4, "hidden_dim": 16, "num_heads": 2, "mlp_dim": 32,
         "num_classes": 10, "image_size": 16}


def vision_transformer(change=lambda model: model, **options):
    def build():
        model = vit.VisionTransformer(depth=2, **SMALL, **options)
        nn.init.normal_(model.heads.head.weight)  # at zero it holds gradients back
        return change(model)
    return Case(build, partial(random_images, channels=3, size=16))


CASES = {"VisionTransformer": vision_transformer(),
         "VisionTransformer dropout": vision_transformer(dropout=0.1),
         "VisionTransformer bag": vision_transformer(vit.without_positions)}
REFERENCES = [Reference("vit_b_16", size=32, sized=True, published=True, timed=1),
              Reference("vit_l_16", size=32, sized=True),
              Reference("vit_b_32", size=64, sized=True),
              Reference("vit_l_32", size=64, sized=True)]
TOO_LARGE = ["vit_h_14"]   # of which test_costs compares names and shapes


@pytest.fixture
def model():
    """A small ViT whose head is no longer zero."""
    model = vit.VisionTransformer(depth=2, **SMALL)
    nn.init.normal_(model.heads.head.weight)
    return model.eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 16)


@pytest.mark.parametrize("name, side, version", [
    pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in [
        ("vit_b_16", 384, "IMAGENET1K_SWAG_E2E_V1"),
        ("vit_l_16", 512, "IMAGENET1K_SWAG_E2E_V1"),
        ("vit_h_14", 224, "IMAGENET1K_SWAG_LINEAR_V1"),
        ("vit_h_14", 518, "IMAGENET1K_SWAG_E2E_V1")]])
def test_costs(name, side, version):
    """As many parameters and multiply-adds as torchvision publishes for other sides."""
    published = torchvision.models.get_model_weights(name)[version].meta
    with torch.device("meta"):
        ours = getattr(vit, name)(image_size=side)
        reference = torchvision.models.get_model(name, image_size=side)
    assert measure.parameters(ours) == published["num_params"]
    work = measure.multiply_adds(ours, (1, 3, side, side))
    assert round(work / 1e9, 3) == published["_ops"]
    ours.load_state_dict(reference.state_dict(), strict=True)


@pytest.mark.parametrize("name, millions", [
    ("vit_b_16", 86), ("vit_l_16", 307), ("vit_h_14", 632)])
def test_paper_parameters(name, millions):
    """Those of the paper's table 1, which leaves out the head of 1000 classes."""
    with torch.device("meta"):
        model = getattr(vit, name)()
    found = measure.parameters(model) - measure.parameters(model.heads)
    assert found / 1e6 == pytest.approx(millions, rel=0.015)


def test_initialisation():
    """torchvision's: with the same seed the same numbers."""
    torch.manual_seed(1)
    ours = vit.VisionTransformer(depth=2, **SMALL).state_dict()
    torch.manual_seed(1)
    reference = torchvision.models.VisionTransformer(num_layers=2, **SMALL)
    for key, value in reference.state_dict().items():
        assert torch.equal(ours[key], value), key


def test_dropout():
    """At torchvision's positions, none of them within attention."""
    ours = vit.VisionTransformer(depth=2, dropout=0.3, **SMALL)
    reference = torchvision.models.VisionTransformer(num_layers=2, dropout=0.3, **SMALL)
    places = [{name: module.p for name, module in model.named_modules()
               if isinstance(module, nn.Dropout)} for model in (ours, reference)]
    assert places[0] == places[1] and len(places[0]) == 7


def test_a_bag_of_patches(model, images):
    """Without position embeddings the order of the patches makes no difference."""
    puzzles = vit.shuffle_patches(images, 4)
    assert not torch.allclose(model(images), model(puzzles), atol=1e-3)
    bag = vit.without_positions(model)
    torch.testing.assert_close(bag(images), bag(puzzles))


def test_puzzles_with_their_positions(model, images):
    """A ViT whose positions are shuffled alike sees no puzzle: it knows no grid."""
    puzzles = vit.shuffle_patches(images, 4)
    before = model(images)
    places = model.encoder.pos_embedding.data[:, 1:]
    grid = rearrange(places, "1 (h w) d -> 1 d h w", h=4)
    moved = vit.shuffle_patches(grid, 1)
    places[:] = rearrange(moved, "1 d h w -> 1 (h w) d")
    torch.testing.assert_close(model(puzzles), before)


def test_shuffle_patches(images):
    """Whole patches, at another position, the same for every image."""
    puzzles = vit.shuffle_patches(images, 4)
    before, after = (rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=4, q=4)
                     for x in (images, puzzles))
    places = torch.cdist(after, before).argmin(dim=2)
    assert torch.equal(places, places[:1].expand(3, -1))
    assert places[0].tolist() != list(range(16))
    assert sorted(places[0].tolist()) == list(range(16))
    assert torch.equal(after, before[:, places[0]])


def test_attention_rollout(model, images):
    """Written out for two layers, from the weights of their heads."""
    with attention_maps(model) as maps, torch.no_grad():
        model(images[:1])
    first, second = (0.5 * weights[0].mean(0) + 0.5 * torch.eye(17)
                     for weights in maps.values())
    flow = second @ first
    torch.testing.assert_close(flow.sum(1), torch.ones(17))
    heat = vit.attention_rollout(model, images[0])
    assert heat.shape == (16, 16) and heat.max() == 1 and heat.min() >= 0
    coarse = flow[0, 1:].view(1, 1, 4, 4)
    fine = nn.functional.interpolate(coarse, (16, 16), mode="bilinear")[0, 0]
    torch.testing.assert_close(heat, fine / fine.max())


def test_attention_rollout_of_blind_attention(model, images):
    """Where all tokens look everywhere alike, so does the rollout."""
    for block in model.encoder.layers:
        nn.init.zeros_(block.self_attention.in_proj_weight)
    torch.testing.assert_close(vit.attention_rollout(model, images[0]),
                               torch.ones(16, 16))


def test_position_similarity(model):
    similarity = vit.position_similarity(model)
    places = model.encoder.pos_embedding[0, 1:]
    assert similarity.shape == (4, 4, 4, 4)
    torch.testing.assert_close(
        similarity[1, 2, 3, 0],
        torch.cosine_similarity(places[6], places[12], dim=0))
    torch.testing.assert_close(
        similarity.reshape(16, 16).diagonal(), torch.ones(16))


def test_nearness():
    """1 where the nearer are the more alike, 0 for random ones, -1 if reversed."""
    model = vit.VisionTransformer(depth=1, **{**SMALL, "image_size": 32})
    assert abs(vit.nearness(vit.position_similarity(model))) < 0.2
    places = torch.cartesian_prod(torch.arange(8), torch.arange(8)).float()
    apart = torch.cdist(places, places).view(8, 8, 8, 8)
    assert vit.nearness(-apart) == pytest.approx(1)
    assert vit.nearness(apart) == pytest.approx(-1)


def test_sets_and_shifts():
    """The first samples again and again; the test set stays; a reflection comes in."""
    args = SimpleNamespace(data="digits", size=16, patch_size=4, quick=False,
                           samples=[50, 1400, 9999])
    full, expected = data.digits(16)
    train, test = vit.sets(args, 50)
    assert vit.sizes(args) == [50, 1400] and len(train) == 1400
    assert torch.equal(train.tensors[0][100:150], full.tensors[0][:50])
    assert torch.equal(train.tensors[1][:50], full.tensors[1][:50])
    assert torch.equal(test.tensors[0], expected.tensors[0])
    moved = vit.shifted(test, 3).tensors[0]
    torch.testing.assert_close(moved[..., 3:], test.tensors[0][..., :-3])
    reflected = test.tensors[0][..., 1:4].flip(-1)
    torch.testing.assert_close(moved[..., :3], reflected)


@pytest.mark.parametrize("channels, settings", [
    (1, {"size": 16, "depth": 2, "hidden_dim": 32, "num_heads": 2, "cnn_width": 6}),
    (3, {"size": 32, "depth": 4, "hidden_dim": 48, "num_heads": 3, "cnn_width": 14})])
def test_equal_multiply_adds(channels, settings):
    """The demo's networks differ by at most a tenth."""
    args = SimpleNamespace(patch_size=4, position_std=0.02, **settings)
    shape = (1, channels, args.size, args.size)
    work = [measure.multiply_adds(vit.network(kind, args, channels), shape)
            for kind in ("vit", "bag", "cnn")]
    assert max(work) < 1.1 * min(work)
