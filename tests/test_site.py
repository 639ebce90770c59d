"""The static site of the lectures as they are: valid pages, and no dead link."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
DECK = """\
---
title: Below
family: CNN
date: 2026-11-28
---

# Below

[The CNNs](../cnn.md) and [one of their slides](../cnn.md#references)

<!--s-->

## Code

[LeNet5](../../code/lenet.py#LeNet5)

<!--s-->

## A figure

![A network](../../static/img/lenet-architecture.svg)
"""
ERROR_PAGES = """
import { mkdirSync, writeFileSync } from "node:fs";
import { brokenDeckPage, messagePage } from "./slides/engine/pages.mjs";
mkdirSync("pages");
writeFileSync("pages/broken.html", brokenDeckPage("<i>.md", 'a "reason" & <more>'));
writeFileSync("pages/message.html", messagePage(404, "There is nothing here"));
"""


@pytest.fixture(scope="module")
def site(copy_lectures):
    """The folder of the site, built in a copy of the repository."""
    copy = copy_lectures()
    below = copy / "slides/week 1/C# intro 100%.md"
    below.parent.mkdir()
    below.write_text(DECK, "utf-8")
    (copy / "slides/TODO.md").write_text("# To do", "utf-8")
    for name in ["package-lock.json", ".htmlvalidate.json"]:
        shutil.copy(ROOT / name, copy)
    said = node(copy, "slides/engine/build.mjs")
    assert said.count("slides/TODO.md is no deck: it has no front matter") == 1
    return copy / "_site"


def node(folder, *arguments):
    done = subprocess.run(["node", *arguments], cwd=folder, text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


class Page(HTMLParser):
    """What a page names: its own anchors, and what it links to or loads."""

    def __init__(self, file):
        super().__init__()
        self.anchors, self.targets = {""}, []
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.anchors.add(value)
            elif name in ("href", "src", "poster", "data"):
                self.targets.append(value)


def test_every_page_is_valid_html(site):
    node(site.parent, "--input-type=module", "-e", ERROR_PAGES)
    done = subprocess.run(
        ["node", "node_modules/html-validate/bin/html-validate.mjs", "--formatter",
         "json=faults.json", "_site/**/*.html", "pages/*.html"],
        cwd=site.parent, text=True, capture_output=True)
    faults = [f"{Path(page['filePath']).name}:{fault['line']}: {fault['message']}"
              for page in json.loads((site.parent / "faults.json").read_text())
              for fault in page["messages"]]
    assert faults == []
    assert done.returncode == 0, done.stderr


def test_no_link_of_the_site_is_dead(site):
    pages = {page: Page(page) for page in site.rglob("*.html")}
    assert len(pages) > 10 and site / "week 1/C# intro 100%.html" in pages
    assert not (site / "TODO.html").exists()
    targets = [(page, target) for page, content in pages.items()
               for target in content.targets]
    for pattern, name in [("*.css", r"url\(['\"]?([^'\")]+)"),
                          ("*.js", r"\b(?:from|import)\s*\(?\s*\"(\.[^\"]+)\"")]:
        targets += [(file, target) for file in (site / "static").glob(pattern)
                    for target in re.findall(name, file.read_text("utf-8"))]
    dead = [f"{source.relative_to(site)}: {target}" for source, target in targets
            if not leads_somewhere(site, source, target, pages)]
    assert dead == []


def leads_somewhere(site, source, target, pages):
    address = urlsplit(urljoin(f"/{source.relative_to(site).as_posix()}", target))
    if address.scheme:
        return address.scheme in ("https", "data")
    file = site / unquote(address.path).lstrip("/")
    anchor = unquote(address.fragment).removeprefix("/")
    return file.is_file() and (file not in pages or anchor in pages[file].anchors)
