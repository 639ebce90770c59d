"""lab.training: one fit for every kind of training, resumed without a trace."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lab import UserError, runs, training


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Arguments of a new run of a toy module; keywords change them."""
    script = tmp_path / "toy.py"
    script.write_text("toy = 1\n")
    monkeypatch.setattr(runs, "_current", None)

    def begin(**changes):
        args = SimpleNamespace(**{**dict(
            data="digits", epochs=3, batch_size=8, lr=0.1, seed=0, quick=False,
            resume=False, out=tmp_path, device=torch.device("cpu")), **changes})
        runs.begin(args, "demo", script, "python toy.py")
        return args

    return begin


def samples(n=20):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, 4, generator=generator)
    return TensorDataset(inputs, (inputs.sum(1) > 0).long())


def train(args, **options):
    """Train a small network with dropout; returns it, its optimizer and history."""
    torch.manual_seed(args.seed)
    model = training.place(
        nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 2)), args)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2])

    def step(batch):
        inputs, labels = batch
        loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    history = training.fit(
        step, training.loader(samples(), args), args, name="toy",
        save={"model": model, "optimizer": optimizer}, scheduler=schedule,
        validate=lambda: training.accuracy(model, samples(), args), **options)
    return model, optimizer, history


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(
        first.state_dict().values(), second.state_dict().values(), strict=True))


def test_history_has_the_means_and_what_validation_says(arguments):
    args, seen = arguments(epochs=2), []

    def step(batch):
        seen.append(float(len(batch[0])))
        return {"size": torch.tensor(seen[-1]), "constant": 3}

    history = training.fit(step, training.loader(samples(20), args), args,
                           validate=lambda: {"score": len(seen)})
    assert seen == [8, 8, 4] * 2
    assert history["size"] == pytest.approx([20 / 3] * 2)
    assert history["constant"] == [3, 3] and history["score"] == [3, 6]
    assert len(history["seconds"]) == 2


def test_seconds_are_those_of_the_steps(arguments, monkeypatch):
    """Validation counts for the run, not for the training."""
    clock = [0.0]

    def pass_time(seconds):
        clock[0] += seconds
        return {}

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    args = arguments(epochs=2)
    history = training.fit(lambda batch: pass_time(3), [0, 1], args,
                           validate=lambda: pass_time(100))
    assert history["seconds"] == [6, 6] and runs.current().seconds() == 212


def test_five_steps_are_enough_for_a_cycle():
    """PyTorch's own schedule divides by zero there."""
    for steps in range(1, 9):
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
        schedule = training.one_cycle(optimizer, steps)
        rates = [optimizer.param_groups[0]["lr"]]
        for _ in range(steps - 1):
            optimizer.step()
            schedule.step()
            rates.append(optimizer.param_groups[0]["lr"])
        assert max(rates) <= 0.5 and (steps < 3 or max(rates) > 0.3)


def test_two_optimisers_dict_batches_and_losses_of_some_steps_only(arguments):
    args = arguments(epochs=2)
    generator, discriminator = nn.Linear(2, 4), nn.Linear(4, 1)
    optimisers = [torch.optim.SGD(part.parameters(), lr=0.1)
                  for part in (generator, discriminator)]
    Pair = namedtuple("Pair", "real words")
    batches = [{"pair": Pair(torch.randn(5, 4), ["a", "b"]), "noise": [
        torch.randn(5, 2)], "length": 5} for _ in range(4)]
    steps = []

    def step(batch):
        assert generator.training and batch["pair"].words == ["a", "b"]
        steps.append(batch["length"])
        fake = generator(batch["noise"][0])
        loss = discriminator(fake.detach()).mean() - discriminator(
            batch["pair"].real).mean()
        optimisers[1].zero_grad()
        loss.backward()
        optimisers[1].step()
        if len(steps) % 2:
            return {"discriminator": loss}
        optimisers[0].zero_grad()
        (-discriminator(fake).mean()).backward()
        optimisers[0].step()
        return {"discriminator": loss, "generator": loss * 0 + 7}

    generator.eval()
    history = training.fit(step, batches, args, save={
        "generator": generator, "discriminator": discriminator})
    assert steps == [5] * 8
    assert history["generator"] == [7, 7] and len(history["discriminator"]) == 2


def test_the_order_depends_on_seed_and_epoch_alone(arguments):
    def order(seed):
        args, epochs = arguments(epochs=2), []
        indices = TensorDataset(torch.arange(50))
        training.fit(lambda batch: epochs.append(batch[0]) or {},
                     training.loader(indices, args), args, seed=seed)
        return torch.cat(epochs).tolist()

    first = order(0)
    torch.rand(1)
    assert first == order(0) != order(1)
    assert sorted(first[:50]) == sorted(first[50:]) == list(range(50))
    assert first[:50] != first[50:]


@pytest.mark.parametrize("done", [1, 2, 3])
def test_resumed_training_ends_with_the_same_weights(arguments, done, monkeypatch):
    whole, after = train(arguments(), best="accuracy"), torch.rand(1)
    write, checkpoints = torch.save, []

    def write_and_stop(content, path):
        write(content, path)
        checkpoints.extend([path] if "history" in content else [])
        if len(checkpoints) == done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", write_and_stop)
        train(arguments(), best="accuracy")
    resumed = train(arguments(resume=True), best="accuracy")
    assert torch.equal(after, torch.rand(1))
    assert same(whole[0], resumed[0])
    assert str(whole[1].state_dict()) == str(resumed[1].state_dict())
    for key in ("loss", "accuracy"):
        assert whole[2][key] == resumed[2][key]


def test_a_finished_training_is_not_repeated(arguments):
    whole, after = train(arguments()), torch.rand(1)
    again = train(arguments(resume=True))
    assert torch.equal(after, torch.rand(1))
    assert same(whole[0], again[0]) and whole[2] == again[2]


def test_a_failed_write_leaves_the_last_checkpoint(arguments, monkeypatch, tmp_path):
    train(arguments())
    file = tmp_path / "checkpoints" / "toy.pt"
    before = file.read_bytes()

    def half(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(UserError, match="toy.pt cannot be written: No space left"):
        train(arguments())
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("content", [b"", b"half", None], ids="empty junk cut".split())
def test_a_corrupt_checkpoint_is_named(arguments, tmp_path, content):
    train(arguments())
    file = tmp_path / "checkpoints" / "toy.pt"
    file.write_bytes(file.read_bytes()[:-300] if content is None else content)
    with pytest.raises(UserError, match=f"^{file} is corrupt.*$"):
        train(arguments(resume=True))


@pytest.mark.parametrize("change, words", [
    ({"lr": 0.2}, r"other lr \(0.1, now 0.2\)"),
    ({"epochs": 9}, r"other epochs \(3, now 9\)"), ({"seed": 5}, "other seed")])
def test_a_checkpoint_of_other_arguments_is_refused(arguments, change, words):
    train(arguments())
    with pytest.raises(UserError, match=words):
        train(arguments(resume=True, **change))


def test_a_checkpoint_of_other_code_is_refused(arguments, tmp_path):
    train(arguments())
    (tmp_path / "toy.py").write_text("toy = 2\n")
    with pytest.raises(UserError, match="other code: run without --resume"):
        train(arguments(resume=True))


def test_two_trainings_of_one_name_are_refused(arguments):
    args = arguments()
    train(args)
    with pytest.raises(ValueError, match="'toy'"):
        train(args)


def test_the_best_epoch_is_kept_and_restored(arguments, tmp_path):
    args, model, scores = arguments(epochs=4), nn.Linear(1, 1), iter([1, 3, 2, 3])
    weights = []

    def step(batch):
        model.weight.data += 1
        return {}

    def validate():
        weights.append(model.weight.item())
        return {"score": next(scores)}

    training.fit(step, [0], args, save={"model": model}, name="toy", best="score",
                 validate=validate)
    kept = torch.load(tmp_path / "checkpoints" / "toy-best.pt")
    assert model.weight.item() == weights[1] and kept["epoch"] == 2
    assert kept["states"]["model"]["weight"].item() == weights[1]


@pytest.mark.parametrize("key, least", [("loss", True), ("accuracy", False)])
def test_of_a_loss_the_least_is_best(arguments, key, least):
    args, model, values = arguments(epochs=2), nn.Linear(1, 1), iter([1, 2])
    history = training.fit(lambda batch: {}, [0], args, save={"model": model},
                           name="toy", best=key, validate=lambda: {key: next(values)})
    top = torch.load(args.out / "checkpoints" / "toy.pt")["best"]
    assert history[key] == [1, 2] and top[key] == (1 if least else 2)


def test_quick_is_one_epoch_whatever_the_module_asks(arguments):
    args = arguments(quick=True)
    assert len(training.fit(lambda batch: {}, [0], args, epochs=7)["seconds"]) == 1


def test_evaluate_and_predict_the_whole_set_in_order(arguments):
    args, model = arguments(batch_size=7), nn.Sequential(nn.Linear(4, 2), nn.Dropout())
    dataset = samples(20)
    inputs, labels = dataset.tensors
    logits, found = training.predict(model, dataset, args)
    expected = model[0](inputs)
    assert torch.allclose(logits, expected) and torch.equal(found, labels)
    assert not logits.requires_grad and model.training
    measured = training.evaluate(model, dataset, args)
    assert measured == pytest.approx({
        "accuracy": (expected.argmax(1) == labels).float().mean().item(),
        "loss": F.cross_entropy(expected, labels).item()})


def test_each_process_gets_an_equal_share_of_every_batch():
    shares = [list(training.Batches(21, 8, True, rank, 2)) for rank in (0, 1)]
    assert [len(part) for part in shares[0]] == [len(part) for part in shares[1]]
    assert [len(part) for part in shares[0]] == [4, 4, 2]
    whole = list(training.Batches(21, 8, True, 0, 1))
    for both, one in zip(zip(*shares), whole):
        assert {*both[0].tolist(), *both[1].tolist()} <= {*one.tolist()}
    assert len(training.Batches(17, 8, True, 0, 2)) == 2
    assert len(list(training.Batches(17, 8, True, 1, 2))) == 2


@pytest.fixture
def stripes(monkeypatch):
    """Images of two kinds, instead of every data set."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    pictures = 0.1 * torch.randn(40, 1, 8, 8, generator=generator)
    pictures[labels == 1, :, :, ::2] += 1
    pictures[labels == 0, :, ::2] += 1
    sets = TensorDataset(pictures, labels), TensorDataset(pictures[:20], labels[:20])
    monkeypatch.setattr("lab.data.load", lambda args, size: sets)


def stripe_classifier(in_channels):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3, padding=1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def classifier_options(**changes):
    return {"size": 8, "augment": False, "weight_decay": 0, "epochs": 8} | changes


def test_train_classifier(arguments, stripes):
    args = arguments(**classifier_options())
    model, history = training.train_classifier(stripe_classifier, args, 0, "stripes")
    assert set(history) == {
        "loss", "training_error", "accuracy", "test_error", "seconds"}
    assert len(history["accuracy"]) == 8 and history["accuracy"][-1] == 1
    assert history["training_error"][-1] == 0
    again, _ = training.train_classifier(stripe_classifier, args, 0, None)
    other, history = training.train_classifier(
        stripe_classifier, args, 1, None, validate=False)
    first, second, third = (part[0].weight for part in (model, again, other))
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert "accuracy" not in history


def test_train_classifier_with_auxiliary_output(arguments, stripes):
    """The loss gets all that the model returns, the error is the first output's."""
    class TwoHeads(nn.Module):
        def __init__(self, in_channels):
            super().__init__()
            self.main, self.other = (stripe_classifier(in_channels) for _ in range(2))

        def forward(self, x):
            return (self.main(x), self.other(x)) if self.training else self.main(x)

    rates, kinds = [], []

    def optimizer(parameters):
        class Watched(torch.optim.AdamW):
            def step(self):
                rates.append(self.param_groups[0]["lr"])
                super().step()
        return Watched(parameters, lr=0.02)

    def loss(output, labels):
        kinds.append(type(output))
        return sum(F.cross_entropy(logits, labels) for logits in output)

    args = arguments(**classifier_options(augment=True, epochs=2))
    training.train_classifier(TwoHeads, args, 0, None, loss, optimizer)
    assert set(kinds) == {tuple} and len(rates) == 2 * 5
    assert max(rates) == pytest.approx(0.02) and rates[-1] < 0.01 * 0.02
    assert rates.index(max(rates)) < 4


def test_train_classifier_at_a_constant_rate(arguments, stripes):
    rates = []

    def optimizer(parameters):
        class Watched(torch.optim.SGD):
            def step(self):
                rates.append(self.param_groups[0]["lr"])
                super().step()
        return Watched(parameters, lr=0.02)

    args = arguments(**classifier_options(epochs=3))
    training.train_classifier(stripe_classifier, args, 0, None, optimizer=optimizer,
                              schedule=training.constant)
    assert rates == 3 * 5 * [0.02]


def test_a_validation_that_hides_what_the_steps_return_is_refused(arguments):
    """A record would mix training and test, and rates be chosen by the test set."""
    args = arguments()
    with pytest.raises(ValueError, match="validate.. returns 'loss'"):
        training.fit(lambda batch: {"loss": 1.0}, training.loader(samples(), args),
                     args, validate=lambda: {"loss": 0.0})
