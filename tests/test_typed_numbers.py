"""No number of a deck is typed: each is a link to where it is computed or reported."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DECKS = sorted(path.name for path in ROOT.glob("slides/*.md"))

# What is checked elsewhere or is no number: taken out before numbers are sought.
APART = re.compile("|".join([
    r"\A---\n.*?\n---\n",                           # front matter
    r"^```.*?^```",                                 # code
    r"^`npm run exercises[^\n]*$",                  # points and time of an exercise
    r"`[^`\n]+`",
    r"<!--.*?-->",
    r"\$\$.*?\$\$", r"\$[^$\n]+\$",                 # formulas
    r"(?<!!)\[[^][]*\]\((?:[^()\s\"]|\([^()]*\))*(?: \"[^\"]*\")?\)",  # links
    r"^Time:.*?$",
    r"\b(?:sections?|tables?|figures?|equations?) [\dA-Z][\d.]*\w?",
    r"\b(?:19[5-9]|20[0-3])\d\b",                   # years
    r"\b1,?000 (?:ImageNet )?classes",
    r"&#\d+;",                                      # characters
    r"(?:\d+(?:, | and ))*\d+ (?:values|maps|channels)\b",        # sizes of layers
    r"\((?:\d+, )+\d+\)", r"\b[a-z] = \d+(?:, \d+)*(?![\d.])",
]), re.DOTALL | re.MULTILINE)
UNITS = ("%|[kMGB]|million|billion|points?|BLEU|m?s|seconds?|minutes?|hours?|days?|"
         "weeks?|epochs|passes|steps|[MG]i?B|[GT]PUs?")
NUMBER = re.compile(  # not in names such as ResNet-50 and sizes such as 3×3
    r"(?<![\w.−×-])(?<!\d[,:])"
    r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e-?\d+)?"
    rf"(?:[ \u00a0]?(?:{UNITS})(?!\w))?(?![\w×])")


def typed(text):
    """The typed numbers of a deck: (line, number as written)."""
    text = APART.sub(lambda part: re.sub(r"[^\n]+", "", part[0]), text)
    return [(text.count("\n", 0, number.start()) + 1, number[0])
            for number in NUMBER.finditer(text)
            if not number[0].isdigit() or int(number[0]) >= 1000]


@pytest.mark.parametrize("deck", DECKS)
def test_no_number_is_typed(deck):
    found = typed((ROOT / "slides" / deck).read_text("utf-8"))
    wrong = [f"slides/{deck}:{line}: {number} is typed: link it to papers/, "
             "static/results/ or code/" for line, number in found]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("text, numbers", [
    ("an error of 15.3 %, 1.2 million images, 3 GB",
     ["15.3 %", "1.2 million", "3 GB"]),
    ("![falls to 14 %](../static/img/a.svg)", ["14 %"]),
    ("## It ends at 4,096\n\nNote:\nSay: after 90 epochs", ["4,096", "90 epochs"]),
    ("![ends at [14 %](../static/results/a.json#demo.x)](../static/img/a.svg)", []),
    ("[61,706](../code/a.py#facts.parameters), [He, 2016](https://a.b/1512.3)", []),
    ('[Wu, 2018](https://a.b/c "Yuxin Wu. *Group*. 12.5 %. 2018.")', []),
    ("ResNet-50 of 2015, 3×3, 7×7×512, section 4.1, $0.5$, `--lr 0.1`, 50 layers", []),
    ("```\nx = 0.1\n```\n\n$$\nx = 1.5\n$$\n\nTime: 1.5 minutes.", [])])
def test_what_is_a_typed_number(text, numbers):
    assert [number for _, number in typed(text)] == numbers
