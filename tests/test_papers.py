"""papers/: what papers report, with the protocol, and how each number was verified."""

import ast
import inspect
import io
import json
import re
import tokenize

import pytest
import torchvision

from declared import MODULES, ROOT
from lab import UserError, papers
from lab.weights import published_accuracy

PAPERS = {path.stem: json.loads(path.read_text("utf-8"))
          for path in ROOT.glob("papers/*.json")}
RESULTS = [pytest.param(name, key, result, id=f"{name}-{key}")
           for name, paper in sorted(PAPERS.items())
           for key, result in paper["results"].items()]
NEEDED = {"value", "what", "where", "verified"}
OPTIONAL = {"data", "split", "models", "crops"}
VERIFIED = re.compile("|".join([
    "from memory, not compared with the paper", "read in the paper's abstract",
    r"read in the authors' repository, [\w-]+/[\w-]+",
    "equal to the library's (default|own account): TEST",
    "(compared with what the code computes, TEST; )?"
    "compared with copies of (the paper's|both papers') text in public repositories",
    r"compared with copies of [^;,]+, which quotes the paper",
]).replace("TEST", r"tests/test_\w+\.py(::\w+(\[\w+\])?)?"))
READERS = [path.read_text("utf-8") for pattern in ["slides/*.md", "code/*.py"]
           for path in ROOT.glob(pattern)]


@pytest.mark.parametrize("name, key, result", RESULTS)
def test_a_result_has_its_protocol(name, key, result):
    assert NEEDED <= result.keys() <= NEEDED | OPTIONAL
    assert isinstance(result["value"], (int, float))
    assert VERIFIED.fullmatch(result["verified"]), "say what it was compared with"
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


# a number with a unit, such as 15 %, 60 million, 2.7K; and the record it refers to
UNITS = {"%": 0.01, "percent": 0.01, "K": 1e3, "M": 1e6, "million": 1e6, "G": 1e9,
         "GFLOPs": 1e9, "billion": 1e9}
NUMBER = re.compile(
    rf"(?<![\w.-])(\d[\d,]*(?:\.\d+)?)[ \u00a0]?({'|'.join(UNITS)})(?!\w)")
RECORD = re.compile(r"\(papers/(\w+)\.json#(\w+)\)")
SAID = re.compile(r"\bpaper\b[^:.]*:.*\d|\d.*\bin the paper|\bin the paper.*\d")
PLACE = re.compile(r"\b(sections?|tables?|figures?|eq\.|appendix)\b|papers/", re.I)


def remarks(code):
    """(line, words, context) of each docstring and block of comments.

    context: the docstrings around it, and the heading above it.
    """
    documented = [node for node in ast.walk(ast.parse(code)) if isinstance(
        node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node)]
    found = [(node.body[0].lineno, " ".join(ast.get_docstring(node).split()))
             for node in documented]
    comments = [token for token in tokenize.generate_tokens(io.StringIO(code).readline)
                if token.type == tokenize.COMMENT]
    headings, ends = {1: ""}, -1
    for token in comments:
        line, words = token.start[0], token.string.lstrip("# ")
        if token.string.startswith("# ## "):
            headings[line] = words
        if line == ends + 1 and not token.line[:token.start[1]].strip():
            start, before = found.pop()
            found.append((start, f"{before} {words}"))
        else:
            found.append((line, words))
        ends = line
    for line, words in found:
        around = [ast.get_docstring(node) for node in documented
                  if not isinstance(node, ast.Module)
                  and node.lineno <= line <= node.end_lineno]
        above = max(start for start in headings if start <= line)
        yield line, words, " ".join([headings[above], *around])


def unsourced(code):
    """What a module says of a paper's numbers without its source, a line each."""
    for line, words, context in remarks(code):
        for number in NUMBER.finditer(words):
            link = RECORD.search(words, number.end())
            after = NUMBER.search(words, number.end())
            if not link or after and after.start() < link.start():
                yield f"{line}: {number[0]}: which record, (papers/KEY.json#value)?"
                continue
            value = float(number[1].replace(",", "")) * UNITS[number[2]]
            if papers.value(*link.groups()) != pytest.approx(value):
                yield f"{line}: {number[0]}: {link[0]} says otherwise"
        for link in RECORD.finditer(words):
            papers.value(*link.groups())
        said = re.sub(r"\d+x\d+|\b(19|20)\d\d\b", "", words)
        if SAID.search(said) and not PLACE.search(words + context):
            yield f"{line}: {words}: in which section, table or figure?"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_names_the_source_of_a_number(name):
    code = (ROOT / f"code/{name}.py").read_text("utf-8")
    lines = [f"code/{name}.py:{line}" for line in unsourced(code)]
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.mark.parametrize("remark, words", [
    ("# 60 million", "which record"), ('"""Choose 15 % of them."""', "which record"),
    ("# 7 million (papers/krizhevsky2012.json#parameters)", "says otherwise"),
    ("# 6 million, 2.7K (papers/szegedy2015.json#conv1_parameters)", "which record"),
    ("x = 1   # paper: 0.1", "in which section"), ("# 0.1 in the paper", "in which"),
    ("# in the paper it is\n# 0.1", "in which section")])
def test_a_number_without_its_source_is_found(remark, words):
    assert [line for line in unsourced(remark) if words in line]


@pytest.mark.parametrize("remark", [
    "# 60 million (papers/krizhevsky2012.json#parameters)", "# paper: 5x5", "# a paper",
    "# paper of 2012: none", "# JFT-300M",
    "# 2.7K (papers/szegedy2015.json#conv1_parameters) and\n# 34M "
    "(papers/szegedy2015.json#conv1_multiply_adds)",
    "# paper, section 3: 0.1", "# ## Training, section 3\n\nx = 1   # paper: 0.1",
    'class A:\n    """Table 3."""\n    x = 1   # paper: 0.1', "x = 1   # 512 of 1,000"])
def test_a_number_with_its_source_passes(remark):
    assert not [*unsourced(remark)]
