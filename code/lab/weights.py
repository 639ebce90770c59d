"""Published weights: what torchvision distributes, in our models."""

import re
from pathlib import Path

import torch

from lab import UserError, figures, files, images


def classify(model, name, args, explain, layer=None, top=5,
             title="Grad-CAM of the best answer"):
    """Show what `model`, with torchvision's weights for its own `name`, sees.

    args.image is the image's file. Prints the `top` classes of ImageNet with
    their probabilities, draws them beside the image and, below `title`, beside
    what explain(model, layer, image, target) says of the first (image (3, H, W), a
    map (H, W) in 0..1), and returns them as (class, probability) pairs. layer: the
    name of one of the model's modules; without one it is explain(model, image), of
    all answers. Raises UserError if the weights can't be fetched or read, or the
    image can't.
    """
    published = _published(name)
    picture = images.middle(images.read(args.image))
    model.load_state_dict(_states(published), strict=True)
    model.to(args.device).eval()
    prepare = published.transforms()
    image = prepare(picture).to(args.device)                         # (3, H, W)
    with torch.no_grad():
        probabilities = model(image[None])[0].softmax(dim=0)
    best = probabilities.topk(top)
    found = [(published.meta["categories"][int(i)], float(p)) for p, i in zip(*best)]
    print(f"{args.image}, by {name} with the weights {published}:")
    for category, probability in found:
        print(f"  {probability:6.1%}  {category}")
    seen = image.cpu() * torch.tensor(prepare.std)[:, None, None]
    seen = seen + torch.tensor(prepare.mean)[:, None, None]
    heat = (explain(model, layer, image, int(best.indices[0])) if layer
            else explain(model, image))
    figures.save(figures.prediction(seen.clamp(0, 1), heat, found, title),
                 f"{name}-{args.image.stem}")
    return found


def published_accuracy(name, version="IMAGENET1K_V1"):
    """Top-1 accuracy (0..1) on ImageNet that torchvision states for its weights.

    One picture, one crop, the validation set.
    """
    return _published(name, version).meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100


def _published(name, version="IMAGENET1K_V1"):
    from torchvision.models import get_model_weights
    return get_model_weights(name)[version]


def _states(published):
    """The weights from torch's cache, else downloaded into it.

    torchvision names a file of weights after the first digits of its SHA-256.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(published.url).name
    try:
        if file.exists():
            files.verify(file, re.search("-([0-9a-f]{8,})", file.name)[1], "sha256")
        return published.get_state_dict(progress=True, check_hash=True,
                                        map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{file.name} is not in {folder} and can't be downloaded "
                        f"({error}): put it there, or try with a network") from None
    except Exception as error:  # a wrong hash; or what torch.load says of damage
        raise UserError(f"{file} is corrupt, or its download was "
                        f"({type(error).__name__}): delete it and try again") from None
