"""Published weights in our models: torchvision's, and checkpoints of Hugging Face."""

import json
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

    A single crop of each image of the validation set.
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


def hugging_face(name, files):
    """The folder of that name, or where the Hub's cache has what is published so.

    files: those that a checkpoint must have. Downloads it if need be; raises UserError
    if that fails.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging
    logging.set_verbosity_error()
    if Path(name).is_dir():
        return Path(name)
    reason = f"it has no {' or no '.join(files)}"
    for only_here in (True, False):
        try:
            folder = Path(snapshot_download(
                name, local_files_only=only_here,
                allow_patterns=[*files, "tokenizer_config.json"]))
        except Exception as error:  # what a network can raise is endless
            reason = str(error).strip().splitlines()[0]
        else:
            if all((folder / file).exists() for file in files):
                return folder
    raise UserError(f"{name} is no folder, is not in Hugging Face's cache and cannot "
                    f"be fetched ({reason})")


def readable(path, read):
    """Return what read(path) does; UserError if the file is missing or corrupt."""
    try:
        return read(path)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing: a checkpoint has it") from None
    except Exception as error:  # what damage makes a parser raise is endless
        raise UserError(f"{path} is corrupt ({type(error).__name__}): delete it and "
                        "try again") from None


def read_json(path):
    return dict(json.loads(path.read_text("utf-8")))


def load_safetensors(model, path, optional=(), renamed=()):
    """Put the weights of a safetensors file into a model.

    optional: beginnings of the names that may be missing there. renamed: {part of a
    name there: here}. Raises UserError if others are missing, or shapes differ.
    """
    from safetensors.torch import load_file
    states = {}
    for key, value in readable(path, load_file).items():
        for there, here in dict(renamed).items():
            key = key.replace(there, here)
        states[key] = value
    for key, value in model.state_dict().items():
        if key in states and states[key].shape != value.shape:
            raise UserError(f"{path}: {key} is {tuple(states[key].shape)}, by its "
                            f"config.json {tuple(value.shape)}")
    missing = [key for key in model.load_state_dict(states, strict=False).missing_keys
               if not key.startswith(tuple(optional))]
    if missing:
        raise UserError(f"{path} has no {missing[0]}" + (
            f", nor {len(missing) - 1} others" if missing[1:] else ""))
