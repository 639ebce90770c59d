"""lab.cli, lab.results and lab.measure: flags, records and numbers of models."""

import hashlib
import importlib
import json
import shutil
import signal
import sys
import typing
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from declared import MODULES
from lab import UserError, cli, measure, refresh, results, runs
from lab.source import module_hash

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 20
    batch_size: int = 32
    lr: float = 0.05
    dropout: float = 0.0
    runs: int = 3
    depths: tuple[int, ...] = cli.flag((56, 20), "layers", least=8)
    names: tuple[str, ...] = cli.flag(("a", "b"), "what is compared",
                                      choices=("a", "b", "c"))
    augment: bool = False
    tokens: int | None = cli.flag(None, "size of the vocabulary")

    def __post_init__(self):
        if self.batch_size > 1000:
            raise ValueError("a batch of over 1000 samples is too large for 20 epochs")


SETTINGS = {"digits": Settings(),
            "mnist": Settings(epochs=8, batch_size=64, lr=0.1, augment=True)}


@dataclass(frozen=True)
class TextSettings(cli.Settings):
    weights: str = cli.flag(None, "published weights")
    text: str = cli.flag(None, "a sentence to look at")


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Call cli.begin as code/toy.py would with these flags."""
    script = cli.ROOT / "code" / "toy.py"
    main = sys.modules["__main__"]
    monkeypatch.setattr(runs, "_current", None)
    monkeypatch.setattr(runs, "module_hash", lambda path: "abc")
    monkeypatch.setattr(runs, "training_hash", lambda path: "abc")
    monkeypatch.delenv("LAB_ARGS", raising=False)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    handler, threads = signal.getsignal(signal.SIGINT), torch.get_num_threads()

    def call(*flags, settings=SETTINGS):
        monkeypatch.setattr(main, "__file__", str(script), raising=False)
        monkeypatch.setattr(sys, "argv", ["code/toy.py", *map(str, flags)])
        return cli.begin(settings)

    yield call
    signal.signal(signal.SIGINT, handler)
    torch.set_num_threads(threads)


def test_defaults_are_those_of_the_data_set(begin):
    args = begin()
    assert (args.data, args.epochs, args.lr) == ("digits", 20, 0.05)
    assert (runs.current().module, runs.current().name, args.seed) == ("toy", "demo", 0)
    assert args.device.type in ("cpu", "cuda", "mps")
    args = begin("--data", "mnist", "--epochs", 2)
    assert (args.epochs, args.batch_size, args.lr) == (2, 64, 0.1)
    assert runs.current().name == "mnist"


def test_every_field_is_a_flag(begin, capsys):
    args = begin("--depths", 8, 110, "--names", "c", "--tokens", 9, "--augment",
                 "--dropout", 0.5, "--runs", 2, "--seed", 5)
    assert (args.depths, args.names, args.tokens) == ((8, 110), ("c",), 9)
    assert args.augment and args.dropout == 0.5
    assert list(args.seeds) == [5, 6]
    assert not begin("--data", "mnist", "--no-augment").augment
    with pytest.raises(SystemExit):
        begin("--help")
    said = " ".join(capsys.readouterr().out.split())
    for field in fields(Settings):
        assert f"--{field.name.replace('_', '-')}" in said
    for words in ["layers (default 56 20)", "learning rate (default 0.05)",
                  "size of the vocabulary", "digits,mnist"]:
        assert words in said


def test_help_has_the_defaults_of_the_data_set(begin, capsys):
    with pytest.raises(SystemExit):
        begin("--help", "--data", "mnist")
    said = " ".join(capsys.readouterr().out.split())
    assert "learning rate (default 0.1)" in said and "(default digits)" in said


def test_settings_are_recorded_by_data_set():
    """Those that are numbers and a module's own."""
    recorded = cli.values(SETTINGS)
    assert [key for key in recorded if key.startswith("digits.")] == [
        "digits.epochs", "digits.batch_size", "digits.lr", "digits.dropout",
        "digits.runs", "digits.depths.0", "digits.depths.1"]
    assert (recorded["digits.depths.0"], recorded["digits.depths.1"]) == (56, 20)
    assert (recorded["digits.epochs"], recorded["mnist.epochs"]) == (20, 8)


def test_settings_are_values(begin):
    """Equal ones are one key of a cache, changed ones another."""
    args = begin()
    assert args == begin() and hash(args) == hash(begin())
    assert replace(args, lr=0.5) != args
    with pytest.raises(FrozenInstanceError):
        args.lr = 0.5


@pytest.mark.parametrize("flags, out", [
    ([], "static"), (["--data", "digits"], "static"), (["--seed", 0], "static"),
    (["--lr", "0.05"], "static"), (["--lr", "0.06"], "out"), (["--quick"], "out"),
    (["--data", "mnist"], "out"), (["--resume"], "out"), (["--device", "cpu"], "out"),
    (["--data", "mnist", "--out", cli.STATIC], "static")])
def test_only_the_default_demo_writes_to_static(begin, flags, out):
    assert begin(*flags).out == cli.ROOT / out


@pytest.mark.parametrize("flags, command", [
    (["--data", "mnist", "--out", cli.STATIC], "python code/toy.py --data mnist"),
    (["--lr", "0.050", "--resume"], "python code/toy.py"),
    (["--quick", "--seed", 3], "python code/toy.py --seed 3 --quick"),
    (["--depths", 20, 8, "--augment"], "python code/toy.py --depths 20 8 --augment"),
    (["--data", "mnist", "--no-augment"],
     "python code/toy.py --data mnist --no-augment"),
    (["--names", "b", "a"], "python code/toy.py --names b a")])
def test_the_command_has_what_changes_the_result(begin, flags, command):
    begin(*flags)
    assert runs.current().command == command


@pytest.mark.parametrize("flags, words", [
    (["--data", "minst"], "'digits', 'mnist'"),
    (["--epochs", "0"], "'0' is not a whole number from 1 up"),
    (["--epochs", "²"], "not a whole number"), (["--batch-size", "x"], "'x'"),
    (["--lr", "nan"], "'nan' is not a number above 0"), (["--lr", "-1"], "above 0"),
    (["--seed", "99999999999"], "is not a whole number from 0 to 4294967295"),
    (["--device", "tpu"], "'auto', 'cpu'"),
    (["--depths", "7"], "'7' is not a whole number from 8 up"),
    (["--depths"], "at least one"), (["--names", "d"], "'a', 'b', 'c'"),
    (["--dropout", "1.5"], "'1.5' is not a number from 0 to 1"),
    (["--batch-size", "1001"], "toy.py: a batch of over 1000 samples is too large"),
    (["--weights", "x"], "unrecognized"), (["--epo", "3"], "unrecognized"),
    (["--out", __file__], "no folder to write to"), (["--out", ""], "no folder"),
    (["--data-dir", __file__], "no folder"), (["--data-dir", ""], "no folder"),
    (["--threads", "65"], "from 0 to 64"), (["--runs", "1001"], "from 1 to 1000"),
    (["--lr", "1001"], "above 0 and at most 1000"),
    (["--epochs", "1000001"], "from 1 to 1000000"),
    (["--out", cli.STATIC, "--epochs", 3], "not for --epochs 3"),
    (["--out", cli.STATIC, "--data", "mnist", "--quick"], "--out static is for")])
def test_bad_arguments_are_one_line_and_status_2(begin, capsys, flags, words):
    with pytest.raises(SystemExit) as stop:
        begin(*flags)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and words in said


def number_flags(settings):
    """The flags of a module that take numbers, and their types."""
    default = next(iter(settings.values()))
    for name, kind in typing.get_type_hints(type(default)).items():
        kind = (typing.get_args(kind) or [kind])[0]
        if kind in (int, float) and hasattr(default, name):
            yield f"--{name.replace('_', '-')}", kind


@pytest.mark.parametrize("value", [
    "-1", "nan", "inf", "-inf", "1e308", "9" * 20, "9" * 5000, "x", "", "1,5", "١"])
def test_no_flag_of_a_module_takes_what_is_no_sensible_number(begin, capsys, value):
    for module in MODULES:
        settings = importlib.import_module(module).SETTINGS
        for flag, _ in number_flags(settings):
            with pytest.raises(SystemExit) as stop:
                begin(flag, value, settings=settings)
            said = capsys.readouterr().err
            assert stop.value.code == 2 and said.count("\n") == 1, (module, flag)
            assert f"argument {flag}: " in said or "arguments: -inf" in said


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")])
def test_too_little_memory_is_one_line(begin, capsys, error):
    begin("--batch-size", 1000)
    sys.excepthook(type(error), error, None)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "python code/toy.py --batch-size 1000: there is not enough memory" in said
    sys.excepthook(RuntimeError, RuntimeError("another"), None)
    assert capsys.readouterr().err.endswith("RuntimeError: another\n")


def test_an_image_for_published_weights(begin, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    picture.touch()
    settings = {"digits": cli.ImageSettings()}
    args = begin("--weights", "imagenet", "--image", picture, settings=settings)
    assert (args.weights, args.image) == ("imagenet", picture)
    missing = tmp_path / "none.png"
    for flags, words in [(["--image", missing], "none.png' is not a file"),
                         (["--weights", "x"], "'imagenet'"),
                         (["--weights", "imagenet"], "and --image FILE go together")]:
        with pytest.raises(SystemExit):
            begin(*flags, settings=settings)
        assert words in capsys.readouterr().err


def test_a_sentence_for_published_weights(begin, capsys):
    """Here of any name."""
    settings = {"reviews": TextSettings()}
    args = begin("--weights", "some/name", "--text", "a b", settings=settings)
    assert (args.weights, args.text) == ("some/name", "a b")
    assert args.out == cli.ROOT / "out"
    for flags in (["--weights", "some/name"], ["--text", "a b"]):
        with pytest.raises(SystemExit):
            begin(*flags, settings=settings)
        assert "--weights NAME and --text SENTENCE go" in capsys.readouterr().err


def test_threads(begin):
    """One by default, as many processes as cores have room for that; 0: torch's own."""
    begin()
    assert torch.get_num_threads() == 1
    assert runs.current().processes == runs.cores()
    begin("--threads", 2)
    assert torch.get_num_threads() == 2
    assert runs.current().processes == max(1, runs.cores() // 2)
    for flags in (["--threads", 0], ["--quick"]):
        begin(*flags)
        assert runs.current().processes == 1
    assert torch.get_num_threads() == 1


def test_without_a_run_there_is_one_message(monkeypatch):
    from lab import figures
    figure, _ = figures.panels()
    monkeypatch.setattr(runs, "_current", None)
    for use in (lambda: results.record("accuracy", 1), lambda: results.save({}),
                lambda: figures.save(figure, "figure")):
        with pytest.raises(RuntimeError, match=r"no run has begun: cli.begin\("):
            use()


def test_the_same_seed_gives_the_same_numbers(begin):
    begin("--seed", 7)
    first = torch.rand(3)
    begin("--seed", 7)
    assert torch.equal(first, torch.rand(3))


def test_a_notebook_takes_defaults_and_lab_args(begin, monkeypatch):
    begin()
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    monkeypatch.setattr(sys, "argv", ["kernel", "-f", "connection.json"])
    args = cli.begin(SETTINGS)
    assert args.epochs == 20 and runs.current().module == "notebook"
    assert runs.current().display and runs.current().processes == 1
    monkeypatch.setenv("LAB_ARGS", "--quick --data mnist")
    args = cli.begin(SETTINGS)
    assert args.quick and args.data == "mnist" and args.epochs == 1


def test_runs_are_recorded_by_their_last_epochs(begin):
    begin()
    results.record_runs("plain", [
        {"accuracy": [0.9, 0.5], "seconds": [1.0, 2.0]},
        {"accuracy": [0.1, 0.75], "seconds": [3.0, 5.0]}])
    assert runs.current().values == {
        "plain_accuracy": 0.625, "plain_accuracy_lowest": 0.5,
        "plain_accuracy_highest": 0.75, "plain_seconds": 5.5}


def test_a_record_keeps_other_runs(begin, tmp_path, capsys):
    begin("--out", tmp_path)
    runs.note_samples(train=1400, test=397)
    results.record("test_accuracy", torch.tensor(0.5))
    results.record("worst", float("nan"))
    results.save({"parameters": 61706})
    said = capsys.readouterr().out
    for words in ["1,400 train and 397 test samples of digits", "61,706", "0.5",
                  "python code/toy.py", "wrote ", "toy.json"]:
        assert words in said
    begin("--out", tmp_path, "--data", "mnist")
    results.record("mnist.test_accuracy", 0.75)
    results.save({"parameters": 61707})
    found = json.loads((tmp_path / "results" / "toy.json").read_text())
    assert found["facts"] == {"hash": "abc", "values": {"parameters": 61707}}
    assert found["settings"] == {"hash": "abc", "values": cli.values(SETTINGS)}
    assert found["demo"]["values"] == {"test_accuracy": 0.5, "worst": None}
    assert found["mnist"]["values"] == {"test_accuracy": 0.75}
    assert found["demo"]["samples"] == {"train": 1400, "test": 397}
    assert set(found["demo"]) == {
        "hash", "command", "seed", "data", "samples", "seconds", "peak_memory_mib",
        "hardware", "processes", "threads", "versions", "date", "sides", "values"}
    assert found["demo"]["peak_memory_mib"] > 50


@pytest.mark.parametrize("content", ["", "[1]", '{"demo": 3}', '{"demo":'])
def test_what_is_no_record_is_left_as_it_is(begin, tmp_path, content):
    file = tmp_path / "results" / "toy.json"
    file.parent.mkdir()
    file.write_text(content)
    begin("--out", tmp_path)
    with pytest.raises(UserError, match="toy.json is not a record"):
        results.save({})
    assert file.read_text() == content


def test_a_notebook_prints_and_writes_nothing(begin, tmp_path, capsys):
    begin("--out", tmp_path)
    runs.current().display = True
    results.save({"parameters": 5})
    assert "parameters  5" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_hash_is_of_code_and_imported_modules(tmp_path):
    (tmp_path / "b.py").write_text(
        '"""What it is,\n# and more."""\n# note\nimport a, torch  \n\n    # x\n'
        'y = 1  # z\nclass Y: """Doc."""\ndef f():\n    \'Doc.\'\n    "é", y\n')
    (tmp_path / "a.py").write_text("from lab import cli\r\nif b:\r\n    import b\r\n")
    expected = ("a\nfrom lab import cli\nif b:\n    import b\n"
                'b\nimport a, torch\ny = 1  # z\nclass Y:\ndef f():\n    "é", y\n')
    digest = hashlib.sha256(expected.encode()).hexdigest()
    assert module_hash(tmp_path / "b.py") == digest
    assert module_hash(tmp_path / "a.py") == digest


def test_parameters_and_multiply_adds_of_a_known_network():
    from torchvision.models import resnet18
    model = resnet18()
    before = model.bn1.num_batches_tracked.clone()
    assert measure.parameters(model) == 11_689_512
    assert measure.multiply_adds(model, (1, 3, 224, 224)) == 1_814_073_344
    assert model.training and model.conv1.weight.device.type == "cpu"
    assert model.bn1.num_batches_tracked == before


def test_multiply_adds_of_words():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3))
    assert measure.multiply_adds(model, torch.zeros(2, 5, dtype=torch.long)) == 120


def test_receptive_fields_by_layer():
    layers = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.AvgPool2d(2), (5, 1), (2, 2)]
    assert measure.receptive_fields(layers) == [5, 5, 6, 14, 16]
    assert measure.receptive_fields([nn.Conv2d(1, 1, 3, dilation=2)]) == [5]


@pytest.fixture
def house(tmp_path, monkeypatch):
    """code/toy.py with a demo that draws, and a fresh record and figures of it."""
    monkeypatch.setattr(refresh, "STATIC", tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "img").mkdir()
    toy = tmp_path / "toy.py"
    toy.write_text('# %% Draw\nif __name__ == "__main__":\n    figures.save(\n        '
                   'figures.images(x), "a")\n    figures.save(y, "b", format="png")\n')
    source = {"module": "toy", "run": "demo", "hash": module_hash(toy)}
    (tmp_path / "results" / "toy.json").write_text(
        json.dumps({"facts": source, "settings": source, "demo": source}))
    for name in ("a.svg", "a.dark.svg"):
        (tmp_path / "img" / name).write_text("<dc:description>" + json.dumps(
            source).replace('"', "&quot;") + "</dc:description>")
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    text = PngInfo()
    text.add_text("Description", json.dumps(source))
    Image.new("L", (1, 1)).save(tmp_path / "img" / "b.png", pnginfo=text)
    return toy


def test_a_comment_makes_nothing_stale_a_statement_everything(house):
    assert refresh.stale(house) == []
    house.write_text("# comment\n\n" + house.read_text())
    assert refresh.stale(house) == []
    house.write_text("changed = 1\n" + house.read_text())
    assert refresh.stale(house) == ["facts in toy.json", "settings in toy.json",
                                    "demo in toy.json", "a.dark.svg", "a.svg",
                                    "b.png"]


def test_a_figure_that_is_drawn_no_more_is_to_be_deleted(house):
    """To draw it again is what no run can do, so it is not stale."""
    img = house.parent / "img"
    (img / "b.png").rename(img / "old.png")
    shutil.copy(img / "a.svg", img / "b.svg")
    assert refresh.stale(house) == ["no b.png"]
    assert refresh.undrawn(house) == ["static/img/b.svg", "static/img/old.png"]


@pytest.mark.parametrize("file", ["a.svg", "a.dark.svg", "b.png"])
def test_a_missing_figure_is_found(house, file):
    (house.parent / "img" / file).unlink()
    assert refresh.stale(house) == [f"no {file}"]


def test_check_lists_what_is_stale_and_runs_nothing(house, monkeypatch, capsys):
    monkeypatch.setattr(refresh, "CODE", house.parent)
    monkeypatch.setattr(sys, "argv", ["refresh.py", "--check"])
    with pytest.raises(SystemExit) as end:
        refresh.main()
    assert end.value.code == 0 and "fresh" in capsys.readouterr().out
    (house.parent / "results" / "toy.json").unlink()
    with pytest.raises(SystemExit) as end:
        refresh.main()
    assert end.value.code == 1
    assert capsys.readouterr().out == (
        "toy.py: facts in toy.json, settings in toy.json, demo in toy.json\n")
