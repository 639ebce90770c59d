"""papers/: what papers report, with the protocol, and how each number was verified."""

import inspect
import json
import re
from pathlib import Path

import pytest
import torchvision

from lab import UserError, papers
from lab.weights import published_accuracy

ROOT = Path(__file__).resolve().parents[1]
PAPERS = {path.stem: json.loads(path.read_text("utf-8"))
          for path in ROOT.glob("papers/*.json")}
RESULTS = [pytest.param(name, key, result, id=f"{name}-{key}")
           for name, paper in sorted(PAPERS.items())
           for key, result in paper["results"].items()]
NEEDED = {"value", "what", "where", "verified"}
OPTIONAL = {"data", "split", "models", "crops"}
READERS = [path.read_text("utf-8") for pattern in ["slides/*.md", "code/*.py"]
           for path in ROOT.glob(pattern)]


@pytest.mark.parametrize("name, key, result", RESULTS)
def test_a_result_has_its_protocol(name, key, result):
    assert NEEDED <= result.keys() <= NEEDED | OPTIONAL
    assert isinstance(result["value"], (int, float))
    for file, test in re.findall(r"(tests/\w+\.py)(?:::(\w+))?", result["verified"]):
        assert re.search(rf"^def {test}", (ROOT / file).read_text("utf-8"), re.M)


@pytest.mark.parametrize("name, key, result", RESULTS)
def test_a_result_is_pointed_at(name, key, result):
    """By a slide or a module."""
    link, call = f"papers/{name}.json#{key})", f'papers.value("{name}", "{key}")'
    assert any(link in text or call in text for text in READERS), "remove it"


def test_the_library_says_so_itself():
    inception = torchvision.models.Inception_V3_Weights.IMAGENET1K_V1
    accuracy = inception.meta["_metrics"]["ImageNet-1K"]
    dropout = inspect.signature(torchvision.models.GoogLeNet).parameters["dropout"]
    assert {key: result["value"] for key, result in
            PAPERS["torchvision"]["results"].items()} == pytest.approx({
                "inception_v3_top1_error": 1 - published_accuracy("inception_v3"),
                "inception_v3_top5_error": 1 - accuracy["acc@5"] / 100,
                "googlenet_dropout": dropout.default})


def test_a_module_reads_a_value():
    assert papers.value("he2016", "top5_test_ensemble") == 0.0357
    with pytest.raises(UserError, match=r"papers/he2017.json: write one"):
        papers.value("he2017", "top5_test_ensemble")
    with pytest.raises(UserError, match=r"papers/he2016.json has no result 'top5'"):
        papers.value("he2016", "top5")
