"""Training with pytorch-ignite: the step is the module's, the rest is here.

The same arguments give the same weights, whether the run was interrupted or not:
before each epoch all random numbers are seeded by (seed, epoch).
"""

import contextlib
import copy
import random
import sys
import time
from collections import Counter
from typing import NamedTuple

import numpy
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lab import UserError, data, parallel, results, runs
from lab.cli import STATIC
from lab.parallel import memoize, precompute  # noqa: F401  (for modules)

# On a slide: watcher(name, epoch, epochs, means) draws a training after each step;
# epoch is what is done of `epochs`, means() the means of this epoch so far.
watcher = None


class Trained(NamedTuple):
    """A network and its history, as fit() returns it."""
    model: nn.Module
    history: dict


def by_epoch(trained, key):
    """[[value of each epoch] for each Trained], as figures.curves takes them."""
    return [each.history[key] for each in trained]


def at_end(trained, key):
    """The last value of each Trained."""
    return [each.history[key][-1] for each in trained]


def place(model, args):
    """The model on args.device, distributed in torchrun.

    Its kernels have their channels last in memory, which is faster on CPUs, too.
    """
    model = model.to(args.device)
    for weight in model.parameters():  # buffers not: DDP copies a mask onto itself
        if weight.ndim == 4:
            weight.data = weight.data.to(memory_format=torch.channels_last)
    if processes()[1] > 1:
        model = Distributed(model)
    return model


class Distributed(nn.parallel.DistributedDataParallel):
    """Averages the gradients of all processes; its layers keep their own names."""

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def named_modules(self, *args, **options):
        return self.module.named_modules(*args, **options)


def precision(args):
    """A context of bfloat16 mixed precision on CUDA, of full precision elsewhere."""
    if args.device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def loader(dataset, args, shuffle=True):
    """Batches dataset[indices], indices a tensor of args.batch_size (B) numbers.

    Under torchrun each process gets its equal share of every batch.
    """
    rank, world = processes() if shuffle else (0, 1)
    if args.batch_size % world:
        raise UserError(f"--batch-size {args.batch_size} cannot be shared equally "
                        f"by {world} processes")
    batches = Batches(len(dataset), args.batch_size, shuffle, rank, world)
    return DataLoader(dataset, sampler=batches, batch_size=None,
                      pin_memory=args.device.type == "cuda")


class Batches:
    """Index tensors of one epoch; the order depends on set_epoch's number only."""

    def __init__(self, length, batch_size, shuffle, rank, world):
        self.length, self.batch_size, self.shuffle = length, batch_size, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        full, rest = divmod(self.length, self.batch_size)
        return full + (rest >= self.world)

    def __iter__(self):
        order = torch.arange(self.length)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.epoch)
            order = torch.randperm(self.length, generator=generator)
        for batch in order.split(self.batch_size):
            equal = len(batch) // self.world * self.world
            if equal:
                yield batch[self.rank:equal:self.world]


def fit(step, loader, args, save=None, validate=None, name=None, epochs=None,
        seed=None, scheduler=None, best=None):
    """Train for args.epochs epochs; returns {key: [one value per epoch]}.

    step(batch): one training step on a batch of `loader` that is already on the
    device; returns {key: scalar}, whose means over the epoch are in the history,
    with what validate() returns and "seconds", which the steps took. save: {name:
    what has a state_dict}, all that the training changes; its modules are put into
    training mode. scheduler steps once an epoch. epochs and seed replace those of
    args.

    With a name, each epoch ends with a line on stderr and a checkpoint, from which
    --resume continues.
    best: a key of the history; NAME-best.pt then has the epoch with its highest
    value (lowest if the key ends in loss or error), and the modules end with it.
    Raises UserError if a checkpoint is corrupt or of other arguments or code.
    """
    from ignite.engine import Engine, Events

    name = _with_rate(name, args)
    saved = dict(save or {}, **({"scheduler": scheduler} if scheduler else {}))
    modules = {key: part for key, part in saved.items() if isinstance(part, nn.Module)}
    epochs = 1 if args.quick else epochs or args.epochs
    seed = args.seed if seed is None else seed
    seed_after = int(torch.randint(2 ** 31, ()))  # the same if this is resumed
    checkpoint = Checkpoint(name, saved, args, epochs=epochs, seed=seed)
    history, top = checkpoint.resume() if args.resume else ({}, None)
    means = Means(args.device)

    def train_step(engine, batch):
        means.add(step(_to(batch, args.device)))
        _watch(name, engine.state.iteration / len(loader), epochs, means)

    trainer = Engine(train_step)
    _show_progress(trainer, name)

    @trainer.on(Events.EPOCH_STARTED)
    def start():
        _seed_epoch(loader, seed, trainer.state.epoch)
        means.clear()
        for module in modules.values():
            module.train()

    @trainer.on(Events.EPOCH_COMPLETED)
    def finish():
        nonlocal top
        values = _join(means.over_epoch(), validate() if validate else {})
        for key, value in values.items():
            history.setdefault(key, []).append(value)
        if scheduler:
            scheduler.step()
        if best and (top is None or _better(best, values[best], top[best])):
            top = {best: values[best], "epoch": trainer.state.epoch,
                   "states": copy.deepcopy(_states(modules))}
            checkpoint.save_best(top)
        checkpoint.save(history, top)
        if name and not watcher:
            _tell(f"{name} epoch {trainer.state.epoch}/{epochs}", values)

    done = len(history.get("seconds", []))
    if done < epochs:
        trainer.load_state_dict({"epoch": done, "max_epochs": epochs,
                                 "epoch_length": len(loader)})
        trainer.run(loader)
    if top:
        _load(modules, top["states"])
    _seed(seed_after)
    return history


def _join(trained, validated):
    """Both as one; ValueError if one would hide the other's value."""
    for key in trained.keys() & validated.keys():
        raise ValueError(f"validate() returns {key!r}, as the steps do: the record "
                         "would mix training and test")
    return trained | validated


def _watch(name, epoch, epochs, means):
    """Tell the watcher, if there is one, how far a training is."""
    if watcher:
        watcher(name or "training", epoch, epochs, means.so_far)


def _with_rate(name, args):
    """The name of a training, which compare.py may repeat at several rates."""
    is_compared = name and getattr(args, "rates", ())
    return f"{name}-lr{args.lr:g}" if is_compared else name


class Means:
    """The means of what the steps of an epoch return, and how long these take."""

    def __init__(self, device):
        self.device = device
        self.clear()

    def clear(self):
        """Begin an epoch."""
        self.sums, self.counts = Counter(), Counter()
        self.began = time.perf_counter()

    def add(self, values):
        """Add {key: scalar} of a step."""
        for key, value in values.items():
            value = value.detach().float() if torch.is_tensor(value) else value
            self.sums[key] += value
            self.counts[key] += 1

    def so_far(self):
        """{key: mean}, of this process."""
        return {key: self.sums[key] / self.counts[key] for key in self.sums}

    def over_epoch(self):
        """{key: mean as a float}, over all processes, and "seconds" since clear()."""
        means = {key: float(_mean(value, self.device))
                 for key, value in self.so_far().items()}
        return means | {"seconds": time.perf_counter() - self.began}


def train_classifier(network, args, seed, name, loss=F.cross_entropy, optimizer=None,
                     epochs=None, validate=True, sets=None, schedule=None):
    """network(in_channels) Trained on args.data.

    The history has loss and training_error of each epoch and, if validate, accuracy
    and test_error on the test set after it. loss(output, labels): output is what the
    model returns in training; of a tuple the first entry are the logits. optimizer:
    makes one from the parameters; without, it is SGD with args.lr, momentum 0.9 and
    args.weight_decay. schedule(optimizer, steps) makes what moves the learning rate
    after each step; without, it is one_cycle().
    args.size: side of the images; args.augment: shift and mirror them at random.
    epochs: instead of args.epochs.
    sets: a training and a test set, instead of args.data.
    """
    torch.manual_seed(seed)
    train, test = sets or data.load(args, size=args.size)
    model = place(network(train[0][0].shape[0]), args)
    if optimizer:
        optimizer = optimizer(model.parameters())
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9,
                                    weight_decay=args.weight_decay, nesterov=True)
    batches = loader(train, args)
    epochs = epochs or args.epochs
    schedule = (schedule or one_cycle)(optimizer, epochs * len(batches))

    def step(batch):
        images, labels = batch
        if args.augment:
            images = data.random_crop(images, padding=args.size // 8)
            images = data.random_flip(images)
        with precision(args):
            output = model(images)
            batch_loss = loss(output, labels)
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()
        schedule.step()
        logits = output[0] if isinstance(output, tuple) else output
        wrong = (logits.argmax(dim=1) != labels).float()
        return {"loss": batch_loss, "training_error": wrong.mean()}

    history = fit(
        step, batches, args, seed=seed, name=name, epochs=epochs,
        save={"model": model, "optimizer": optimizer, "schedule": schedule},
        validate=(lambda: accuracy(model, test, args)) if validate else None)
    return Trained(_bare(model), history)


def one_cycle(optimizer, steps):
    """A schedule, stepped after each of `steps` batches: up to the optimizer's rate in
    a fifth of them, from a 25th of it, then down to nearly zero; Smith 2018."""
    rate = optimizer.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.OneCycleLR(  # which divides by zero at 5 steps
        optimizer, rate, total_steps=max(steps, 6), pct_start=0.2)


def constant(optimizer, steps):
    """A schedule that leaves the optimizer's rate as it is."""
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1, total_iters=steps)


def adamw(model, lr, steps):
    """AdamW whose rate rises to lr for a tenth of the steps, then falls to zero.

    Returns update(loss), one step of it, and what it changes, for fit(save=…).
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01,
                                  fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=0.1, anneal_strategy="linear",
        cycle_momentum=False)

    def update(loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    return update, {"model": model, "optimizer": optimizer, "schedule": schedule}


class Checkpoint:
    """OUT/checkpoints/NAME.pt (out/ if OUT is static), whole at any moment.

    There is none without a name, nor in a notebook.
    """

    def __init__(self, name, saved, args, **other):
        self.name, self.saved, self.folder = name, saved, None
        self.began = time.perf_counter()
        if not name or not runs.has_begun() or runs.current().script is None:
            return
        runs.current().begin_checkpoints(name)
        out = STATIC.parent / "out" if args.out.resolve() == STATIC else args.out
        self.folder = out / "checkpoints"
        apart = {"data_dir", "device", "image", "out", "rates", "resume", "runs",
                 "text", "threads", "tune"}
        made_by = {key: value for key, value in vars(args).items()
                   if key not in apart}
        made_by |= {**other, "processes": processes()[1], "code": runs.current().hash}
        self.made_by = {key: str(value) for key, value in made_by.items()}

    def save(self, history, top):
        if self.folder and processes()[0] == 0:
            self._write(f"{self.name}.pt", made_by=self.made_by, history=history,
                        states=_states(self.saved), best=top,
                        seconds=time.perf_counter() - self.began)

    def save_best(self, top):
        if self.folder and processes()[0] == 0:
            self._write(f"{self.name}-best.pt", **top)

    def _write(self, file, **content):
        with (results.atomic(self.folder / file) as temporary,
              open(temporary, "wb") as written):
            try:
                torch.save(content, written)
            except RuntimeError as error:  # PyTorch hides that a disk is full
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def resume(self):
        """Restore the last epoch; returns its history and best, or ({}, None)."""
        path = self.folder and self.folder / f"{self.name}.pt"
        if not path or not path.exists():
            return {}, None
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            made_by, states = found["made_by"], found["states"]
            history, top = found["history"], found["best"]
            seconds = found["seconds"]
        except Exception as error:  # what torch.load says of a damaged file is endless
            raise UserError(f"{path} is corrupt ({type(error).__name__}): delete it "
                            "or run without --resume") from None
        for key, value in self.made_by.items():
            if made_by.get(key) != value:
                there = "" if key == "code" else f" ({made_by.get(key)}, now {value})"
                raise UserError(f"{path} was made with other {key}{there}: run "
                                "without --resume to start again")
        _load(self.saved, states)
        runs.current().resume(seconds)
        self.began -= seconds
        return history, top


@torch.no_grad()
def predict(model, dataset, args):
    """Logits (N, K) and labels (N) of a whole data set, on the CPU, in its order."""
    outputs = list(_outputs(model, dataset, args))
    logits, labels = (torch.cat(part).cpu() for part in zip(*outputs))
    return logits, labels


@torch.no_grad()
def evaluate(model, dataset, args, metrics=None):
    """Accuracy (0..1) and mean cross-entropy on a data set, {name: float}.

    metrics: {name: ignite metric of (logits, labels)} instead. Each process
    of torchrun evaluates the whole set.
    """
    from ignite.metrics import Accuracy, Loss
    metrics = metrics or {"accuracy": Accuracy(device=args.device),
                          "loss": Loss(F.cross_entropy, device=args.device)}
    for metric in metrics.values():
        metric.reset()
    for output in _outputs(model, dataset, args):
        for metric in metrics.values():
            metric.update(output)
    return {name: metric.compute() for name, metric in metrics.items()}


def accuracy(model, dataset, args):
    """Accuracy and error on a data set, 0..1, as fit(validate=…) takes them."""
    share = evaluate(model, dataset, args)["accuracy"]
    return {"accuracy": share, "test_error": 1 - share}


def processes():
    """This process's rank and how many there are: (0, 1) without torchrun."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _outputs(model, dataset, args):
    bare, training = _bare(model), model.training
    bare.eval()
    for batch in loader(dataset, args, shuffle=False):
        inputs, labels = _to(batch, args.device)
        with precision(args):
            logits = bare(inputs)
        yield logits.float(), labels
    bare.train(training)


def _bare(part):
    wrapped = isinstance(part, nn.parallel.DistributedDataParallel)
    return part.module if wrapped else part


def _states(parts):
    return {key: _bare(part).state_dict() for key, part in parts.items()}


def _load(parts, states):
    for key, part in parts.items():
        _bare(part).load_state_dict(states[key])


def _to(batch, device):
    """Every tensor of a batch of nested dicts, lists and tuples, on the device."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: _to(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_to(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(_to(value, device) for value in batch)
    return batch


def _show_progress(trainer, name):
    """A bar on a terminal; beside others this training has none."""
    from ignite.handlers import ProgressBar
    trainer.logger.disabled = True
    if sys.stderr.isatty() and processes()[0] == 0 and not parallel.is_worker():
        ProgressBar(desc=name or "training").attach(trainer)


def _seed_epoch(loader, seed, epoch):
    """Seed all random numbers, and the order of the samples."""
    order = _seed(seed, epoch)
    if hasattr(getattr(loader, "sampler", None), "set_epoch"):
        loader.sampler.set_epoch(order)


def _seed(*numbers):
    """Seed all random numbers of this process by these; returns one for the order."""
    rank = processes()[0]
    own, shared = (int(numpy.random.SeedSequence(entropy).generate_state(1)[0])
                   for entropy in ([*numbers, rank], numbers))
    random.seed(own)
    numpy.random.seed(own)
    torch.manual_seed(own)
    return shared


def _mean(value, device):
    if processes()[1] > 1:
        value = torch.as_tensor(value, device=device, dtype=torch.float32)
        torch.distributed.all_reduce(value)
        value = value / processes()[1]
    return value


def _better(key, value, top):
    if top != top:  # NaN
        return True
    return value < top if key.endswith(("loss", "error")) else value > top


def _tell(what, values):
    if processes()[0] == 0:
        numbers = "  ".join(f"{key} {value:.4g}" for key, value in values.items()
                            if key != "seconds")
        over_bar = "\r\033[K" if parallel.is_worker() and sys.stderr.isatty() else ""
        # at once, so that lines of processes side by side stay whole
        sys.stderr.write(f"{over_bar}{what}  {numbers}  {values['seconds']:.1f} s\n")
