"""The flow of tensors through a block, drawn from what its forward calls."""

import copy
import inspect
from dataclasses import dataclass, field

from lab.diagrams import describe
from lab.look import color, sheet, width

NAME, DETAIL = 17, 15  # sizes of type
LINE, PAD = 20, 9  # from one line to the next, around the lines of a box
GAP, ARROW = 12, (20, 40)  # between boxes side by side; between two layers
SIGNS = {"add": "+", "mul": "×", "matmul": "@"}
PASSED_BY = ("getitem", "getattr", "flatten", "unsqueeze", "squeeze", "dropout",
             "Dropout", "Identity", "StochasticDepth", "Permute", "Rearrange")
FOLLOWERS = {"relu": "ReLU", "ReLU": "ReLU", "GELU": "GELU", "gelu": "GELU",
             "tanh": "tanh"}
FOLLOWING = {*FOLLOWERS.values(), "norm", "scale"}  # join the box of what they follow


def flow(model, *examples, whole=(), down=True, role="idea", size=(332, 500)):
    """Draw what a model's forward calls, from its inputs to its output.

    examples: its inputs or their shapes, such as (1, 64, 56, 56). whole: classes that
    are one box; all others are looked into. down: from top to bottom, else from left
    to right. role: the colour of layers. Shapes are without the batch axis. The
    figure has at most `size` pixels.
    """
    boxes = _boxes(model, examples, whole)
    for box in boxes:
        if box.role == "idea":
            box.role = role
    figure, axis = sheet(size)
    layers = _layers(boxes)
    for compact in (False, True):
        for box in boxes:
            box.measure(figure, compact)
        try:
            _place(layers, size, down)
            break
        except ValueError:
            if compact:
                raise
    for box in boxes:
        for source in box.sources:
            _arrow(axis, source, box, down)
    for box in boxes:
        box.draw(axis)
    used = max(box.y + box.high / 2 for box in boxes) + 2
    figure.set_figheight(used / 72)
    axis.set_ylim(used, 0)
    return figure


@dataclass(eq=False)
class Box:
    """An input, a layer with what follows it, or a sum; or a bend of a long arrow.

    compact: its words stand below each other.
    """

    lines: list  # of text; the first is its name
    sources: list = field(default_factory=list)  # boxes
    role: str = "idea"
    shape: tuple = ()
    x: float = 0.0  # of its centre
    y: float = 0.0
    wide: float = 4.0
    high: float = 4.0
    compact: bool = False

    @property
    def is_sign(self):
        return len(self.lines) == 1 and self.lines[0] in SIGNS.values()

    def texts(self):
        """Its lines, each with its style."""
        name, *details = self.lines
        names = name.split(" ", 1) if self.compact else [name]
        if details and not self.compact:
            details = [", ".join(details)]
        shape = ["×".join(map(str, self.shape))] if self.shape else []
        return ([(line, {"size": NAME, "weight": "bold"}) for line in names]
                + [(line, {"size": DETAIL}) for line in details]
                + [(line, {"size": DETAIL, "color": color("muted")}) for line in shape])

    def measure(self, figure, compact):
        """Find its size; a sum is a circle without a shape."""
        self.compact = compact
        if self.is_sign:
            self.wide = self.high = 30
        elif self.lines:
            texts = self.texts()
            self.wide = 2 * PAD + max(width(figure, text, **style)
                                      for text, style in texts)
            self.high = 2 * PAD + LINE * len(texts) - 4

    def draw(self, axis):
        from matplotlib.patches import Circle, FancyBboxPatch

        if not self.lines:
            return
        if self.is_sign:
            axis.add_patch(Circle((self.x, self.y), 15, facecolor=color("paper"),
                                  edgecolor=color("ink"), linewidth=1.5))
            axis.text(self.x, self.y, self.lines[0], ha="center", va="center_baseline",
                      size=20, weight="bold")
            return
        left, top = self.x - self.wide / 2, self.y - self.high / 2
        axis.add_patch(FancyBboxPatch(
            (left, top), self.wide, self.high, boxstyle="round,pad=0,rounding_size=7",
            facecolor=color(self.role, 0.13), edgecolor=color(self.role),
            linewidth=1.3))
        for row, (text, style) in enumerate(self.texts()):
            axis.text(self.x, top + PAD + 13 + LINE * row, text, ha="center", **style)


def _boxes(model, examples, whole):
    """What a forward calls, in its order, as boxes that know their sources."""
    model = copy.deepcopy(model).to("meta").eval()
    made, boxes = {}, []   # the box of each node; several may share one
    for node, shape in _trace(model, examples, whole):
        sources = list(dict.fromkeys(
            made[source] for source in node.all_input_nodes if source in made))
        if node.op == "placeholder":
            box = Box([node.target], role="muted")
        else:
            last = sources[0] if len(sources) == 1 else None
            name, lines, role = _described(node, model, last)
            if name in PASSED_BY and last:
                made[node] = last
                continue
            if lines[0] in FOLLOWING and last and last.role == "idea" and (
                    _is_only_user(node, last, made)):
                last.lines.append(lines[0])
                made[node] = last
                continue
            box = Box(lines, sources, role)
        if not box.is_sign:
            box.shape = shape
        made[node] = box
        boxes.append(box)
    return boxes


def _trace(model, examples, whole):
    """(node, shape) of what a forward calls that gives tensors, without the batch."""
    import torch
    from torch import fx

    class Tracer(fx.Tracer):
        def is_leaf_module(self, module, name):
            return isinstance(module, whole) or not any(module.children())

    class Values(fx.Interpreter):
        def run_node(self, node):
            values[node] = super().run_node(node)
            return values[node]

    values, parameters = {}, list(inspect.signature(model.forward).parameters.values())
    constant = {parameter.name: parameter.default
                for parameter in parameters[len(examples):]}
    graph = Tracer().trace(model, constant)
    inputs = [example.to("meta") if torch.is_tensor(example)
              else torch.zeros(example, device="meta") for example in examples]
    with torch.no_grad():
        Values(fx.GraphModule(model, graph)).run(*inputs, *constant.values())
    return [(node, tuple(getattr(values[node], "shape", ())[1:]))
            for node in graph.nodes if node.op not in ("get_attr", "output")
            and isinstance(values[node], (torch.Tensor, tuple))]


def _is_only_user(node, box, made):
    """Whether nothing else uses what a box gives."""
    users = {user for source, owner in made.items() if owner is box
             for user in source.users if made.get(user) is not box}
    return users == {node}


def _described(node, model, last):
    """The name of what a node calls, the lines of its box, and a colour.

    last: the box of its only source, if it has one.
    """
    if node.op == "call_module":
        module = model.get_submodule(node.target)
        name = type(module).__name__
        if "Norm" in name:
            return name, ["norm"], "muted"
        if name in FOLLOWERS:
            return name, [FOLLOWERS[name]], "muted"
        own = node.target.rpartition(".")[2]
        lines = describe(module, own if own.isidentifier() else name)
        return name, lines, "muted" if "Pool" in name else "idea"
    name = (node.target if isinstance(node.target, str)
            else node.target.__name__).strip("_").removeprefix("i")
    if name == "cat":
        return name, ["join"], "muted"
    if name == "mul" and last:   # with a parameter
        return name, ["scale"], "muted"
    return name, [SIGNS.get(name) or FOLLOWERS.get(name) or name], "muted"


def _layers(boxes):
    """Boxes by how many others lie before them; a long arrow has a bend in each."""
    depth = {}
    for box in boxes:
        depth[box] = 1 + max((depth[source] for source in box.sources), default=-1)
    layers = [[] for _ in range(1 + max(depth.values()))]
    for box in boxes:
        layers[depth[box]].append(box)
    for box in boxes:
        for k, source in enumerate(box.sources):
            for level in range(depth[source] + 1, depth[box]):
                bend = Box([], [source])
                layers[level].append(bend)
                source = box.sources[k] = bend
    return layers


def _users(layers):
    """{box: the boxes that it leads to}."""
    users = {box: [] for layer in layers for box in layer}
    for box in users:
        for source in box.sources:
            users[source].append(box)
    return users


def _place(layers, size, down):
    """Give each box its centre: layers along the flow, boxes of a layer beside it."""
    breadth, length = size if down else reversed(size)
    extent = (lambda box: box.wide) if down else (lambda box: box.high)
    depths = [max(box.high if down else box.wide for box in layer)
              for layer in layers]
    arrow = (length - 4 - sum(depths)) / max(1, len(layers) - 1)
    if arrow < ARROW[0]:
        raise ValueError(f"{len(layers)} layers are too many for {length} pixels: "
                         "name classes that are one box with whole=(…)")
    arrow, at = min(arrow, ARROW[1]), 2
    across, users = {}, _users(layers)
    for layer in layers:
        _spread(layer, across, lambda box: box.sources, extent)
    for _ in range(4):
        for layer in reversed(layers):
            _spread(layer, across, users.get, extent)
        for layer in layers:
            _spread(layer, across, lambda box: box.sources, extent)
    low = min(across[box] - extent(box) / 2 for box in across)
    high = max(across[box] + extent(box) / 2 for box in across)
    if high - low > breadth - 4:
        raise ValueError(f"the boxes side by side need {high - low:.0f} pixels and "
                         f"have {breadth - 4}: draw it sideways, with down=False")
    for layer, thick in zip(layers, depths):
        for box in layer:
            centre = across[box] - low + ((breadth - high + low) / 2 if down else 2)
            box.x, box.y = at + thick / 2, centre
            if down:
                box.x, box.y = box.y, box.x
            if not box.lines:   # a long arrow passes straight by the boxes of a layer
                box.wide, box.high = (box.wide, thick) if down else (thick, box.high)
        at += thick + arrow


def _spread(layer, across, neighbours, extent):
    """Bring each box of a layer as near to its neighbours as their extents allow."""
    wanted = {}
    for box in layer:
        near = [across[other] for other in neighbours(box) if other in across]
        wanted[box] = sum(near) / len(near) if near else across.get(box, 0.0)
    layer.sort(key=wanted.get)
    at = [0.0]
    for before, box in zip(layer, layer[1:]):
        least = (extent(before) + extent(box)) / 2 + GAP
        at.append(max(at[-1] + least, at[0] + wanted[box] - wanted[layer[0]]))
    shift = sum(wanted[box] - place for box, place in zip(layer, at)) / len(layer)
    across.update((box, place + shift) for box, place in zip(layer, at))


def _arrow(axis, source, box, down):
    """Draw an arrow from a box, through the bends of its way, to another."""
    from matplotlib.patches import FancyArrowPatch, Path

    way = [box, source]
    while not way[-1].lines:
        way.append(way[-1].sources[0])
    way.reverse()
    points, codes = [], []
    for before, after in zip(way, way[1:]):
        x, y = (before.x, before.y + before.high / 2) if down else (
            before.x + before.wide / 2, before.y)
        end_x, end_y = (after.x, after.y - after.high / 2 - 1) if down else (
            after.x - after.wide / 2 - 1, after.y)
        bends = ([(x, (y + end_y) / 2), (end_x, (y + end_y) / 2)] if down
                 else [((x + end_x) / 2, y), ((x + end_x) / 2, end_y)])
        start = [(x, y)]
        codes += [Path.LINETO if points else Path.MOVETO] + [Path.CURVE4] * 3
        points += [*start, *bends, (end_x, end_y)]
    axis.add_patch(FancyArrowPatch(
        path=Path(points, codes), arrowstyle="-|>", mutation_scale=12, linewidth=1.5,
        color=color("muted"), shrinkA=0, shrinkB=0, joinstyle="round"))
