"""Numbers that a model has before it is trained, for a module's facts()."""

from itertools import chain

import torch
from torch import nn


def parameters(model):
    """The number of parameters that the model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def multiply_adds(model, *inputs):
    """Multiply-adds of convolutions and matrix products in one forward pass.

    inputs: the shapes of the model's inputs, such as (1, 3, 224, 224), or tensors
    where the type matters. Nothing is computed: only shapes go through the model.
    """
    from torch.utils.flop_counter import FlopCounterMode
    state = {name: tensor.to("meta") for name, tensor in chain(
        model.named_parameters(), model.named_buffers())}
    inputs = [value.to("meta") if torch.is_tensor(value)
              else torch.empty(value, device="meta") for value in inputs]
    training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        torch.func.functional_call(model, state, tuple(inputs))
    model.train(training)
    return counter.get_total_flops() // 2


def costs(name, build, *inputs):
    """{NAME_parameters, NAME_multiply_adds} of the model that build() makes.

    inputs: as for multiply_adds. The model gets no memory.
    """
    with torch.device("meta"):
        model = build()
    return {f"{name}_parameters": parameters(model),
            f"{name}_multiply_adds": multiply_adds(model, *inputs)}


def match_width(build, cost, target, widths=range(1, 1025)):
    """The width at which cost(build(width)) is nearest to target; it grows with width.

    So a control gets as many parameters, or multiply-adds, as the idea has.
    """
    from bisect import bisect_left

    def cost_of(width):
        with torch.device("meta"):
            return cost(build(width))

    place = bisect_left(widths, target, key=cost_of)
    nearest = widths[max(place - 1, 0):place + 1]
    return min(nearest, key=lambda width: abs(cost_of(width) - target))


def receptive_fields(layers):
    """How many input pixels, along one side, a value after each layer depends on.

    layers: in order, modules or (kernel size, stride); modules without a kernel,
    such as ReLU, change nothing. Each layer adds (kernel - 1) times the distance
    between neighbouring values. Returns one number per layer.
    """
    fields, field, distance = [], 1, 1
    for layer in layers:
        kernel, stride, dilation = _window(layer)
        field += (kernel - 1) * dilation * distance
        distance *= stride
        fields.append(field)
    return fields


def _window(layer):
    if not isinstance(layer, nn.Module):
        return (*layer, 1)
    sizes = [getattr(layer, name, 1) for name in ("kernel_size", "stride", "dilation")]
    return tuple(size[0] if isinstance(size, tuple) else size for size in sizes)
