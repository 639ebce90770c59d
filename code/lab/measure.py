"""Numbers that a model has before it is trained, for a module's facts()."""

from itertools import chain

import torch
from torch import nn


def parameters(model):
    """How many numbers the model learns."""
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
