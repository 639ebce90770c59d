"""Published weights: what torchvision distributes, in our models."""

import torch

from lab import UserError


def classify(model, name, args, top=5):
    """Print what `model`, with torchvision's weights for its own `name`, sees.

    args.image is the picture's file; prints the `top` classes of ImageNet with
    their probabilities and returns them as (class, probability) pairs. Raises
    UserError if the weights can't be fetched or read, or the picture can't.
    """
    published = _published(name)
    image = _picture(args.image)
    model.load_state_dict(_states(published), strict=True)
    model.to(args.device).eval()
    batch = published.transforms()(image)[None].to(args.device)     # (1, 3, H, W)
    with torch.no_grad():
        probabilities = model(batch)[0].softmax(dim=0)
    found = [(published.meta["categories"][int(i)], float(p))
             for p, i in zip(*probabilities.topk(top))]
    print(f"{args.image}, by {name} with the weights {published}:")
    for category, probability in found:
        print(f"  {probability:6.1%}  {category}")
    return found


def _published(name):
    from torchvision.models import get_model_weights
    return get_model_weights(name)["IMAGENET1K_V1"]


def _states(published):
    """The weights from torch's cache, else downloaded into it."""
    import os
    from pathlib import Path
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / os.path.basename(published.url)
    there = file.exists()
    try:
        return published.get_state_dict(progress=True, check_hash=True,
                                        map_location="cpu")
    except OSError as error:
        raise UserError(f"{file.name} is not in {folder} and can't be downloaded "
                        f"({error}): put it there, or try with a network")
    except Exception:
        if not there:
            raise
        raise UserError(f"{file} is corrupt: delete it, and it is fetched anew")


def _picture(file):
    from PIL import Image, UnidentifiedImageError
    try:
        return Image.open(file).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{file} is not a picture that can be read ({error})")
