"""Whether two implementations are one: same weights, outputs and gradients."""

import torch


def fill(model):
    """Give a model built on the meta device cheap random weights, as after training.

    None is 0 or 1, neither in norms nor in running statistics.
    """
    model.to_empty(device="cpu")
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("weight") and value.ndim == 1:  # a norm's
            value.uniform_(0.5, 1)
        elif value.ndim > 1:  # He's variance, so that ReLUs keep the signal
            bound = (6 / value[0].numel()) ** 0.5
            value.uniform_(-bound, bound)
        elif value.is_floating_point():
            value.uniform_(-0.2, 0.2)
        else:
            value.zero_()
    return model


def assert_identical(ours, reference, *inputs, call=None, idle=(), tolerance=1e-5):
    """Ours takes the reference's weights by name, and does the same with them.

    Compared are the outputs in eval and in train mode, then the gradients of all
    parameters and inputs, and the buffers. call(*inputs) is what the reference does
    with the inputs of ours, if it is called in another way. idle: endings of the
    parameters that change nothing, so that their gradient is 0 but for rounding.
    """
    ours.load_state_dict(reference.state_dict(), strict=True)
    calls = [(ours, ours), (reference, call or reference)]
    with torch.no_grad():
        evaluated = [parts(call(*inputs)) for model, call in calls if model.eval()]
    for part, expected in zip(*evaluated, strict=True):
        assert_same(part, expected, "in eval mode", tolerance)
    trained = [train_step(model, call, inputs) for model, call in calls]
    for what in trained[1]:
        assert trained[0][what].keys() == trained[1][what].keys(), what
        for key, expected in trained[1][what].items():
            found = trained[0][what][key]
            if str(key).endswith(tuple(idle)) and idle:
                assert max(found.abs().max(), expected.abs().max()) < 1e-4, key
            else:
                assert_same(found, expected, f"{what} {key}", tolerance)


def train_step(model, call, inputs):
    """{what: {key: tensor}} of a call in train mode: outputs, gradients, buffers."""
    leaves = {id(x): x.detach().clone().requires_grad_() for x in inputs
              if torch.is_tensor(x) and x.is_floating_point()}
    model.train().zero_grad()
    torch.manual_seed(1)  # the same dropout
    outputs = parts(call(*(leaves.get(id(x), x) for x in inputs)))
    torch.manual_seed(2)
    sum((part * torch.randn(part.shape)).sum() for part in outputs).backward()
    return {
        "output in train mode": dict(enumerate(outputs)),
        "gradient of": {key: p.grad for key, p in model.named_parameters()},
        "gradient of input": dict(enumerate(x.grad for x in leaves.values())),
        "buffer": {key: buffer for key, buffer in model.state_dict().items()
                   if key in dict(model.named_buffers())}}


def parts(output):
    """What a model returns, as a tuple."""
    return output if isinstance(output, tuple) else (output,)


def assert_same(ours, reference, what, tolerance=1e-5):
    """Equal but for rounding: within 1e-5 of the largest value, which is not zero."""
    scale = reference.abs().max()
    assert scale > 0, what
    assert (ours - reference).abs().max() <= tolerance * scale, what


def assert_same_gradients(ours, reference, *inputs):
    """Equal values, and equal gradients with respect to every input."""
    torch.testing.assert_close(ours, reference)
    upstream = torch.randn_like(reference)
    for a, b in zip(torch.autograd.grad(ours, inputs, upstream),
                    torch.autograd.grad(reference, inputs, upstream)):
        torch.testing.assert_close(a, b)


def leaf(*shape, scale=1.0):
    return (scale * torch.randn(*shape)).requires_grad_()
