"""Architecture diagrams, drawn from what a real module does with an example."""

import math
import os
from dataclasses import dataclass, field, replace

from lab.look import FULL, TITLE, as_image, color, sheet, stretch, width

NAME, DETAIL = 17, 15  # sizes of type
LINE = 21  # from one line to the next
GAP, ARROW = 14, 26  # least between two columns, between two volumes
DEPTH, SLOPE = 0.32, 0.5  # of the receding edges: share of the height, rise
HOOP = 34  # room for a shortcut's arc
MOST_PLATES = 6  # of a repeated block; the label says how many there are
ROLES = {"input": "muted", "conv": "idea", "pool": "muted", "vector": "purple"}


def architecture(model, example, title=None, layers=None, groups=None, size=FULL):
    """Draw a model's volumes as `example` passes: height is space, width channels.

    example: an input with its batch axis, or its shape (1, C, H, W). layers: names
    of the modules to show; without it they are chosen: convolutions, pooling, fully
    connected layers, and blocks (repeated ones once, "×3"). Where a block adds its
    input, an arc shows the shortcut. groups: {text: (first name, last name)} of what
    is shown, for a brace below.
    """
    root = trace(model, example)
    stages = [Stage("input", "input", [], root.input)]
    stages += _chosen(root, layers) if layers else _summary(root)
    return _draw(stages, title, groups or {}, _shown(example), size)


@dataclass
class Call:
    """One call of a module: shapes (C, H, W) or (D,) in and out, and what it called."""

    name: str
    module: object
    input: tuple
    output: tuple = ()
    calls: list = field(default_factory=list)
    adds: bool = False  # two volumes of one shape, as a shortcut does


@dataclass
class Stage:
    """What the diagram shows as one: a layer, or several alike."""

    name: str
    kind: str  # a key of ROLES
    details: list  # lines of text
    shape: tuple
    count: int = 1
    shortcuts: list = field(default_factory=list)  # per block: "", "same", "projected"
    key: object = None  # equal for layers that are shown as one

    @property
    def flat(self):
        """Whether it is a vector, drawn as a bar."""
        return self.shape[1:] in ((), (1, 1))


def trace(model, example):
    """Record the calls that a forward pass of `example` makes, as a tree."""
    import torch
    from torch.overrides import TorchFunctionMode

    if not isinstance(example, torch.Tensor):
        example = torch.zeros(example)
    names = {module: name for name, module in model.named_modules()}
    stack = [Call("", None, ())]

    class Additions(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            shapes = [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]
            name = getattr(function, "__name__", "")
            if name.strip("_") in ("add", "iadd", "radd") and (
                    len(shapes) == 2 and shapes[0] == shapes[1] and len(shapes[0]) > 2):
                stack[-1].adds = True
            return function(*args, **(kwargs or {}))

    def enter(module, args):
        stack.append(Call(names[module], module, _shape(args)))

    def leave(module, args, output):
        call = stack.pop()
        call.output = _shape(output)
        stack[-1].calls.append(call)

    hooks = [hook for module in names for hook in (
        module.register_forward_pre_hook(enter), module.register_forward_hook(leave))]
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), Additions():
            model(example.to(next(model.parameters(), example).device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return stack[0].calls[0]


def _shown(example):
    """The example as an image, if it is one and not blank."""
    if getattr(example, "ndim", 0) != 4 or example.shape[1] not in (1, 3):
        return None
    values = stretch(example[0])
    return as_image(values) if values.any() else None


def _shape(values):
    """The shape, without the batch, of the first tensor in what a module passes on."""
    while isinstance(values, (tuple, list, dict)):
        values = next(iter(values.values() if isinstance(values, dict) else values))
    return tuple(values.shape[1:])


def _chosen(root, layers):
    calls = {call.name: call for call in _descendants(root)}
    for name in layers:
        if name not in calls:
            raise ValueError(f"no layer {name!r} is called; there are: "
                             + ", ".join(filter(None, calls)))
    return _join([_stage(calls[name]) for name in layers])


def _summary(root):
    """Stages that change a volume, with those of plain functions between them."""
    stages, shape = [], root.input
    for call in _units(root):
        stage = _stage(call)
        if stage is None:
            continue
        pooled = _pooled(shape, call.input)
        if pooled:
            stages.append(Stage("pool", "pool", [], pooled))
        stages.append(stage)
        shape = call.output
    return _join(stages)


def _pooled(before, after):
    """What a plain function pooled to between two modules' shapes, if one did."""
    if len(before) != 3 or before == after:
        return None
    channels = before[0]
    if len(after) == 3:
        return after if after[0] == channels and after[1] < before[1] else None
    side = math.isqrt(after[0] // channels)
    if side * side * channels == after[0] and side < before[1]:
        return channels, side, side
    return None


def _units(call):
    """The layers and blocks below a call, in order; containers are looked into."""
    units = [unit for part in call.calls for unit in _units(part)]
    visible = [unit for unit in units if _kind(unit)]
    container = type(call.module).__name__ in ("Sequential", "ModuleList")
    if not call.calls:
        return [call]
    if not call.name or container or any(
            part.adds for part in _descendants(call)[1:]):
        return units
    if len(visible) == 1:  # a layer with its normalisation and activation
        return [replace(visible[0], name=call.name)]
    return [call]


def _descendants(call):
    return [call, *(part for below in call.calls for part in _descendants(below))]


def _kind(call):
    """A key of ROLES, or "" for what only changes values: norms, activations, …"""
    type_name = type(call.module).__name__
    if call.calls:
        return "conv" if len(call.output) == 3 else "vector"
    if "Conv" in type_name:
        return "conv"
    if call.output == call.input and type_name != "Linear":
        return ""
    if len(call.output) == 1:
        flattened = math.prod(call.input) == call.output[0] and type_name != "Linear"
        return "" if flattened else "vector"
    return "pool" if call.output[0] == call.input[0] else "conv"


def _stage(call):
    kind = _kind(call)
    if not kind:
        return None
    inside, _, own = call.name.rpartition(".")
    *_, parent = inside.split(".")
    if call.calls:
        class_name = type(call.module).__name__
        name = next(filter(str.isidentifier, [own, parent, class_name]))
        shortcut = call.adds and ("same" if call.input == call.output else "projected")
        return Stage(name, kind, [class_name] * (name != class_name), call.output,
                     shortcuts=[shortcut or ""], key=(inside, class_name))
    details = _details(call.module, kind)
    if own.isidentifier():
        return Stage(own, kind, details, call.output)
    return Stage("fc" if kind == "vector" else kind, kind, details, call.output,
                 key=(inside, *details, call.output))


def _details(module, kind):
    """What a layer is, in a few short lines."""
    def pair(value):
        return "×".join(map(str, value if isinstance(value, tuple) else (value,) * 2))

    type_name = type(module).__name__
    if type_name == "Linear":
        return ["fully", "connected"]
    if type_name.startswith("Adaptive"):
        return ["global", "average" if "Avg" in type_name else "maximum"]
    if not hasattr(module, "kernel_size"):
        return [type_name]
    what = "max pool" if "Max" in type_name else "mean pool"
    if kind == "conv":
        what = "depthwise" if module.groups == module.in_channels > 1 else "conv"
    stride = pair(module.stride).split("×")[0]
    lines = [f"{pair(module.kernel_size)} {what}"]
    return lines + [f"stride {stride}"] * (kind == "conv" and stride != "1")


def describe(module, name):
    """What a layer is, in lines for a box: "3×3 conv", or else its name."""
    type_name = type(module).__name__
    if hasattr(module, "kernel_size"):
        return _details(module, "conv" if "Conv" in type_name else "pool")
    is_unnamed = type_name == "Linear" and "linear" not in name.lower()
    return [name, "linear"] if is_unnamed else [name]


def _join(stages):
    """Neighbours with one key become one stage."""
    joined = []
    for stage in stages:
        last = joined[-1] if joined else None
        if last and stage.key is not None and stage.key == last.key:
            last.count += 1
            last.name = os.path.commonprefix([last.name, stage.name])
            last.shape = stage.shape
            last.shortcuts += stage.shortcuts
        else:
            joined.append(stage)
    return joined


def _draw(stages, title, groups, shown, size):
    figure, axis = sheet(size)
    names = [stage.name for stage in stages]
    for name in (name for ends in groups.values() for name in ends):
        if name not in names:
            raise ValueError(f"no stage {name!r}; there are {', '.join(names)}")

    top, bottom = 46 if title else 2, size[1] - 40 * bool(groups)
    boxes, labels, columns, gap = _fit(figure, stages, size[0] - 4, bottom - top)
    floor = bottom - _room_for(labels)
    middle = floor - max(box.high for box in boxes) / 2
    x, lefts = 2, []
    for box, column, lines in zip(boxes, columns, labels):
        lefts.append(x + (column - box.wide) / 2)
        box.draw(axis, lefts[-1], middle)
        for row, (text, style) in enumerate(lines):
            axis.text(x + column / 2, floor + 24 + LINE * row, text, ha="center",
                      **style)
        x += column + gap
    if shown is not None:
        boxes[0].paint(axis, lefts[0], middle, shown)
    for box, left, right in zip(boxes, lefts, lefts[1:]):
        _arrow(axis, left + box.wide + 5, right - 5, middle)
    for text, (first, last) in groups.items():
        start = lefts[names.index(first)]
        end = max(left + box.wide for left, box, name in zip(lefts, boxes, names)
                  if name == last)
        _brace(axis, start, end, size[1] - 32, text)
    if title:
        axis.text(0, 28, title, size=TITLE, weight="bold")
    return figure


def _fit(figure, stages, wide, high):
    """The largest boxes that leave room between them, labels, columns and their gap."""
    for compact in (False, True):
        labels = [_label(stage, compact) for stage in stages]
        texts = [max(width(figure, text, **style) for text, style in lines)
                 for lines in labels]
        for percent in range(100, 20, -4):
            most = _Measure(stages, percent / 100, high - _room_for(labels))
            boxes = [_Box(stage, most) for stage in stages]
            columns = [max(box.wide, text) for box, text in zip(boxes, texts)]
            gap = (wide - sum(columns)) / max(1, len(stages) - 1)
            air = [(column - box.wide) / 2 for column, box in zip(columns, boxes)]
            if gap >= GAP and all(a + gap + b >= ARROW for a, b in zip(air, air[1:])):
                return boxes, labels, columns, gap
    raise ValueError(f"{len(stages)} stages are too many for a diagram: "
                     "name those to show with layers=[…]")


def _room_for(labels):
    return 20 + LINE * max(map(len, labels))


def _label(stage, compact):
    """The lines below a volume, each with its style; short ones if `compact`."""
    name = [stage.name + (f" ×{stage.count}" if stage.count > 1 else "")]
    shape, details = ["×".join(map(str, stage.shape))], stage.details
    if compact:
        channels, *space = stage.shape
        shape = [f"{channels}×" if space else f"{channels}",
                 *(["×".join(map(str, space))] if space else [])]
        details = [part for line in details
                   for part in (line.split(" ", 1) if len(line) > 8 else [line])]
        name = name[0].split() if len(name[0]) > 9 else name
    detail = {"size": DETAIL}
    return ([(line, {"size": NAME - compact, "weight": "bold"}) for line in name]
            + [(line, detail) for line in shape]
            + [(line, detail | {"color": color("muted")}) for line in details])


class _Measure:
    """What the volumes of one diagram are drawn in proportion to."""

    def __init__(self, stages, scale, room):
        volumes = [stage.shape for stage in stages if not stage.flat] or [(1, 1, 1)]
        self.scale = scale
        self.channels = max(64, *(shape[0] for shape in volumes))
        self.height = max(shape[1] for shape in volumes)
        self.width = max(shape[2] for shape in volumes)
        self.length = max([s.shape[0] for s in stages if s.flat], default=1)
        for stage in stages:
            if any(stage.shortcuts):  # arcs over tall volumes need room as well
                share = math.sqrt(stage.shape[1] / self.height)
                room = min(room, 2 * (room - HOOP) / (1 + share))
        self.front = room / (1 + SLOPE * DEPTH)


class _Box:
    """The volume of a stage in pixels, as one or several plates."""

    def __init__(self, stage, most):
        self.role, self.shortcuts = ROLES[stage.kind], stage.shortcuts[:MOST_PLATES]
        self.plates = min(stage.count, MOST_PLATES)
        if stage.flat:
            self.front = 40 + 150 * math.sqrt(stage.shape[0] / most.length)
            self.depth, self.thick = 9, 12
        else:
            channels, height, across = stage.shape
            self.front = max(14, most.front * math.sqrt(height / most.height))
            self.depth = DEPTH * most.scale * max(
                14, most.front * math.sqrt(across / most.width))
            self.thick = 5 + 40 * most.scale * math.sqrt(channels / most.channels)
        self.step = self.thick + 9
        self.rise = SLOPE * self.depth
        self.wide = self.plates * self.step - 9 + self.depth
        self.high = self.front + self.rise

    def draw(self, axis, left, middle):
        for k in range(self.plates):
            self._plate(axis, left + k * self.step, middle + self.high / 2)
        for k, kind in enumerate(self.shortcuts):
            if kind:
                start = left + self.depth / 2 + k * self.step - 3
                _hoop(axis, start, start + self.step - 4,
                      middle - self.high / 2 - 5, dashed=kind == "projected")

    def _plate(self, axis, left, bottom):
        from matplotlib.patches import Polygon

        def corners(*points):  # in (thickness, height, depth), each 0 or 1
            return [(left + x * self.thick + z * self.depth,
                     bottom - y * self.front - z * self.rise) for x, y, z in points]

        front = corners((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0))
        lid = corners((0, 1, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1))
        side = corners((1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0))
        for face, strength in ((lid, 0.16), (side, 0.42), (front, 0.27)):
            axis.add_patch(Polygon(face, facecolor=color(self.role, strength),
                                   edgecolor=color(self.role), linewidth=1.3,
                                   joinstyle="round"))

    def paint(self, axis, left, middle, shown):
        """Draw an image on the side."""
        from matplotlib.transforms import Affine2D

        bottom = middle + self.high / 2
        leaning = Affine2D([[self.depth, 0, left + self.thick],
                            [-self.rise, -self.front, bottom], [0, 0, 1]])
        axis.imshow(shown, extent=(0, 1, 0, 1), aspect="auto", vmin=0, vmax=1,
                    transform=leaning + axis.transData, zorder=1.5)


def _hoop(axis, start, end, y, dashed):
    from matplotlib.patches import FancyArrowPatch, Path

    path = Path([(start, y), (start, y - 32), (end, y - 32), (end, y)],
                [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    axis.add_patch(FancyArrowPatch(
        path=path, arrowstyle="-|>", mutation_scale=9, linewidth=2.2, shrinkA=0,
        shrinkB=0, color=color("idea"), linestyle=(0, (2, 1.6)) if dashed else "-"))


def _arrow(axis, start, end, y):
    from matplotlib.patches import FancyArrowPatch

    axis.add_patch(FancyArrowPatch(
        (start, y), (end, y), arrowstyle="-|>", mutation_scale=12, linewidth=1.5,
        color=color("muted"), shrinkA=0, shrinkB=0))


def _brace(axis, start, end, y, text):
    axis.plot([start, start, end, end], [y - 7, y, y, y - 7], color=color("muted"),
              linewidth=1.5, solid_joinstyle="round")
    axis.text((start + end) / 2, y + 22, text, ha="center", size=NAME,
              color=color("muted"))


def block(axis, mask, x, y, side, names):
    """Draw a tensor (B, C, S) as cubes, blue where True: C right, S down, B back.

    names: letters for the first two axes; the third is "H W".
    """
    import numpy as np
    from matplotlib.patches import Polygon

    mask = np.asarray(mask)
    B, C, S = mask.shape
    for (b, c, s), inside in np.ndenumerate(mask):
        for visible, shade, *corners in (
            (b == 0, 1, (0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1)),
            (s == 0, 0.8, (0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
            (c == C - 1, 0.6, (0, 1, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1)),
        ):
            if visible:
                axis.add_patch(Polygon(
                    [(x + side * (c + j + 0.5 * (b + i)),
                      y + side * (s + k - 0.35 * (b + i))) for i, j, k in corners],
                    linewidth=1.5, edgecolor=color("paper" if inside else "muted"),
                    facecolor=color("idea", shade) if inside else color("panel")))
    for name, right, down in ((names[0], C / 2 + B / 2, -0.35 * B - 0.4),
                              (names[1], C / 2, S + 0.6), ("H W", -0.6, S / 2)):
        axis.text(x + side * right, y + side * down, name, ha="center",
                  va="center_baseline", rotation=90 * (name == "H W"), size=18,
                  color=color("muted"))
