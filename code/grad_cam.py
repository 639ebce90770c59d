# %% [markdown]
# # Grad-CAM
#
# - **Paper**: Ramprasaath R. Selvaraju, Michael Cogswell, Abhishek Das,
#   Ramakrishna Vedantam, Devi Parikh, Dhruv Batra.
#   *Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization*.
#   ICCV 2017. [arXiv:1610.02391](https://arxiv.org/abs/1610.02391)
# - **Idea**: the gradient of a class's score says how much each feature map counts for
#   it; the maps, weighed so and added, show which places spoke for the class.
# - **Demo**: cover what Grad-CAM points at, and what it does not: how fast does the
#   network lose the digit? The control is the map of a network that never learned.
# - **Time**: about 30 s on 2 CPU cores

# %%
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from lab import cli, data, figures, measure, results, training


# %%
def grad_cam(model, layer, image, target=None):
    """Where `image` (C, H, W) speaks for class `target`.

    Eq. 1 and 2: the maps of `layer`, weighed by the mean
    gradient of the class's logit. Returns (H, W), 0..1.
    """
    kept = []
    hook = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: kept.append(output))
    logits = model.eval()(image[None])
    hook.remove()
    target = logits.argmax() if target is None else target
    maps = kept[0]                               # (1, C, h, w)
    gradient, = torch.autograd.grad(logits[0, target], maps)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = F.relu((weights * maps).sum(1, keepdim=True))
    heat = F.interpolate(heat.detach(), image.shape[1:],
                         mode="bilinear")[0, 0]  # (H, W)
    return heat / heat.max().clamp(min=1e-12)
