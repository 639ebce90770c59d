"""The decks as people see them: every slide in Chromium at 1280×720, and the keys.

A copy of the lectures is served, with small decks added that show what a test needs and
that may be changed while they are watched.
"""
import os
import re
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).parents[1]
DECKS = sorted(path.name for path in (ROOT / "slides").glob("*.md"))
SHOWN = [*DECKS, "sample.md", "diagram.md"]
THEMES = ["light", "dark"]
SLIDE_FAULTS = (ROOT / "tests/slide_faults.js").read_text()
ACCESSIBILITY_FAULTS = (ROOT / "tests/accessibility_faults.js").read_text()
SHOW = """(i) => {
    const { h, v } = Reveal.getIndices(Reveal.getSlides()[i]);
    Reveal.slide(h, v, Infinity);
}"""
PLACES = """() => [...document.querySelectorAll("section.present *")]
    .filter((element) => element.checkVisibility())
    .map((element) => Object.values(element.getBoundingClientRect().toJSON()))"""
IS_READY = "() => window.Reveal?.isReady()"
AXE = (ROOT / "node_modules/axe-core/axe.min.js").read_text()

SERVE = """
import { deckRenderer } from "./slides/engine/decks.mjs";
import { serve } from "./slides/engine/serve.mjs";
const root = process.cwd();
const server = await serve({ root, port: 0, renderDeck: await deckRenderer(root) });
console.log(server.url);
"""

MODULE = '''\
# %% [markdown]
# # Sample
#
# - **Paper**: Ada Author, Ben Builder. *On Samples*. CVPR 2016.
#   [arXiv:1512.03385](https://arxiv.org/abs/1512.03385)
# - **Idea**: have something to show.

# %%
def plain(x):
    """What is compared with."""
    x = x + 1
    return x


# %%
def residual(x):
    """What is proposed."""
    y = x
    x = x + 1
    return x + y


# %%
def ten(x):
    """How code of ten lines looks."""
    x = x + 1
    x = x + 2
    x = x + 3
    x = x + 4
    x = x + 5
    x = x + 6
    x = x + 7
    return x
'''

FIGURE = '''\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:description>{"module": "sample", "run": "long", "hash": "", "command": "python"}
</dc:description></metadata>
<circle cx="10" cy="10" r="8"/></svg>
'''

DECK = """\
---
title: Samples
family: Sample
date: 2026-11-21
---
# Samples

What a deck can hold

<!--s-->

## Steps through code

[plain](../code/sample.py#plain "lines=1-2|3,4 run")

Two steps.

Note: Say *this*.

<!--s-->

## Morph

[residual](../code/sample.py#residual "morph")

Lines move.

<!--v-->

## Fragments

- one
- two <!-- .element: class="fragment" -->
- three, **often** <!-- .element: class="fragment" -->

<!--s-->

## Figure

![A circle](../static/img/sample.svg)

<!--s-->

## Table and formula

| network | parameters |
|---|---:|
| LeNet-5 | 61,706 |

$$y = \\begin{pmatrix} 1 & 0 \\\\ 0 & 1 \\end{pmatrix} x$$

From [Author and Builder, 2016](https://arxiv.org/abs/1512.03385).

<!--s-->

## References

<!-- references -->
"""

DIAGRAM = """\
---
title: Diagrams
family: Sample
date: 2026-11-21
---
# Diagrams

```mermaid
flowchart LR
  x --> block --> y
```
"""

BROKEN = DECK.replace("#residual", "#residuals")

# What has no room on its slide, and what has.
UNFIT = {
    "bullets": "\n".join(f"- point {n}" for n in range(20)),
    "a table": "|" + " column |" * 14 + "\n" + "|---" * 14 + "|",
    "a formula": "$$" + "a + " * 60 + "b$$",
    "a column": "![A circle](../static/img/sample.svg)\n\n"
                "| one | two |\n|---|---|\n| " + "W" * 40 + " | b |",
    "prose beside": "![A circle](../static/img/sample.svg)\n\n" + "Many words. " * 90,
    "late bullets": "\n".join(
        f'- point {n} <!-- .element: class="fragment" -->' for n in range(20)),
    "a box": '<div style="height: 900px">\n\na\n\n</div>',
    "cut": '<div style="height: 60px; overflow: hidden">\n\na\n\nb\n\nc\n\n</div>',
}
FIT = {
    "a formula in lines": "Here " + "$" + "a + " * 60 + "b$",
    "few bullets": "\n".join(f"- point {n}" for n in range(8)),
    "a small formula": "$$\\sum_{i=1}^n \\frac{x_i}{\\sqrt{d}}$$\n\nand $\\hat y$",
    "a long word": "W" * 120,
    "an address": f"<https://example.org/{'path/' * 50}>",
    "long notes": "a\n\nNote:\n\n" + "\n\n".join(f"Say {n}." for n in range(60)),
}
ROOM = DECK.partition("<!--s-->")[0] + "".join(
    f"<!--s-->\n\n## {title}\n\n{text}\n\n" for title, text in (UNFIT | FIT).items())

# How large the type of what a slide has must be (px), and what it has.
GROWN = {
    "few words": (34, "Few words.\n\n- one\n"
                      "- two <!-- .element: class=\"fragment\" -->"),
    "many words": (25, "Many words in it. " * 60),
    "a wide formula": (25, "$$" + "a + " * 20 + "b$$"),
    "words beside": (30, "![A circle](../static/img/sample.svg)\n\nFew words."),
    "a small table": (34, "| a | b |\n|---|---|\n| 1 | 2 |"),
    "a table of many rows": (22, "| a | b |\n|---|---|\n" + "| 1 | 2 <br> 3 |\n" * 6),
    "short code": (28, "[plain](../code/sample.py#plain)"),
    "short code to run": (28, "[residual](../code/sample.py#residual \"run\")"),
    "ten lines to run": (22, "[ten](../code/sample.py#ten \"run\")"),
    "ten lines": (28, "[ten](../code/sample.py#ten)"),
    "long code": (18, "```python\n" + "x = 1\n" * 20 + "```"),
    "before a morph": (22, "[plain](../code/sample.py#plain)"),
    "after a morph": (22, "[residual](../code/sample.py#residual \"morph\")\n\nMore."),
}
GROWING = DECK.partition("<!--s-->")[0] + "".join(
    f"<!--s-->\n\n## {title}\n\n{text}\n\n" for title, (_, text) in GROWN.items())

PLANNED = DECK.partition("<!--s-->")[0] + """<!--s-->

## a

<!--v-->

<!-- .slide: data-plan="80" -->

## b

Note: Time: 1 minute.

<!--s-->

<!-- .slide: data-plan="120" -->

## c

Note: Time: 0.5 minutes.

<!--v-->

<!-- .slide: data-plan="80" -->

## d

<!--s-->

## e
"""

TEXTS = {"room": ROOM, "planned": PLANNED, "sample": DECK, "diagram": DIAGRAM,
         "broken": BROKEN, "watched": DECK, "growing": GROWING}


MISFITS = """async () => {
  const { misfit } = await import(new URL("static/fit.js", location.href).href);
  await document.fonts.ready;
  return [...document.querySelectorAll(".pdf-page section")]
    .filter(misfit)
    .map((slide) => slide.querySelector("h1, h2").textContent);
}"""


def test_what_has_no_room_on_its_slide_is_found(open_deck):
    page = open_deck("room.md?print-pdf")
    page.wait_for_selector(".pdf-page")
    assert page.evaluate(MISFITS) == list(UNFIT)


@pytest.mark.parametrize("width, height", [(1280, 720), (900, 900)])
def test_a_slide_without_room_is_an_error_slide(open_deck, width, height):
    page = open_deck("room.md")
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate("location.hash = '#/bullets'")
    slide = page.locator("section.present")
    slide.get_by_text("This slide has an error").wait_for()
    line = ROOM[:ROOM.index("## bullets")].count("\n") + 1
    text = slide.inner_text()
    assert f"slides/room.md:{line}" in text
    assert re.search(r"no room: “.*point 19” ends 3\d\d px too low", text), text
    page.evaluate("location.hash = '#/few-bullets'")
    page.locator("section.present.measured").wait_for()
    assert "point 7" in page.locator("section.present").inner_text()


SIZES = """() => Object.fromEntries(
    [...document.querySelectorAll("section.content")].map((slide) => [
        slide.querySelector("h2").textContent,
        Number.parseFloat(getComputedStyle(slide.querySelector(".code, td")
            ?? slide.querySelector(".flow, .prose")).fontSize),
    ]))"""


def test_type_grows_into_the_room_of_a_slide(open_deck, plain_url):
    expected = {title: size for title, (size, _) in GROWN.items()}
    page = open_deck("growing.md?theme=light", reduced_motion="reduce")
    assert faults_of(page) == []
    show_all(page)
    assert page.evaluate(SIZES) == pytest.approx(expected, abs=0.6)
    for other in ["growing.md?print-pdf", f"{plain_url}/growing.md"]:
        other = open_deck(other, reduced_motion="reduce")
        show_all(other)
        assert other.evaluate(SIZES) == page.evaluate(SIZES)


def show_all(page):
    """Lay all slides out, where a deck shows only some of them."""
    page.add_style_tag(content=".reveal .slides section { display: flex !important }")


@pytest.fixture(scope="session")
def copy(copy_lectures):
    """The folder of a copy of the lectures, with the decks of these tests."""
    copy = copy_lectures()
    (copy / "code/sample.py").write_text(MODULE)
    (copy / "static/img").mkdir(exist_ok=True)
    for name in ["sample.svg", "sample.dark.svg"]:
        (copy / "static/img" / name).write_text(FIGURE)
    for name, text in TEXTS.items():
        (copy / f"slides/{name}.md").write_text(text)
    return copy


@pytest.fixture(scope="session")
def url(copy):
    """The address of our server for the copy."""
    with running(["node", "--input-type=module", "-e", SERVE], copy) as address:
        yield address


@pytest.fixture(scope="session")
def plain_url(copy):
    """The address of plain reveal-md for the copy."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    program = ["node", "node_modules/reveal-md/bin/reveal-md.js", "slides"]
    options = ["--disable-auto-open", "--port", str(port)]
    with running(program + options, copy) as address:
        yield address


@contextmanager
def running(command, folder):
    """Runs a server for as long as the block; gives the address that it prints."""
    environment = {**os.environ, "NO_UPDATE_NOTIFIER": "1"}
    with subprocess.Popen(command, cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE) as server:
        try:
            printed = (re.search(r"http://[\w.]+:\d+", line) for line in server.stdout)
            address = next(filter(None, printed), None)
            assert address, f"{command} did not start"
            yield address[0]
        finally:
            server.terminate()


@pytest.fixture
def open_deck(browser, url):
    """Opens an address of the server in a page; fails where the page complains."""
    complaints = []
    contexts = []

    def open_deck(path, **options):
        address = path if "://" in path else f"{url}/{path}"
        host = urlsplit(address).netloc
        context = browser.new_context(
            viewport={"width": 1280, "height": 720}, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("console", lambda message: message.type in ("error", "warning")
                and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request:
                urlsplit(request.url).netloc not in ("", host)
                and complaints.append(f"asks another host: {request.url}"))
        page.on("response", lambda response: response.status >= 400
                and complaints.append(f"{response.status}: {response.url}"))
        page.goto(address)
        if ".md" in address:
            page.wait_for_function(IS_READY)
            page.wait_for_function("""() => [...document.querySelectorAll(".mermaid")]
                .every((diagram) => diagram.querySelector("svg, .failure"))""")
            page.evaluate("document.fonts.ready")
        return page

    yield open_deck
    for context in contexts:
        context.close()
    assert complaints == []


def faults_of(page):
    count = page.evaluate("Reveal.getSlides().length")
    return [fault for i in range(count) for fault in page.evaluate(SLIDE_FAULTS, i)]


def place(page):
    """(across, down, fragment) of the current slide."""
    return tuple(page.evaluate("Object.values(Reveal.getIndices())"))


# Every slide of every deck --------------------------------------------------


@pytest.mark.parametrize("deck", SHOWN)
def test_every_slide_shows_all_it_has(open_deck, deck):
    assert faults_of(open_deck(f"{deck}?theme=light", reduced_motion="reduce")) == []


@pytest.mark.parametrize("deck", ["sample.md", "diagram.md"])
def test_places_and_sizes_are_the_same_in_dark(open_deck, deck):
    """What a theme could move is in these small decks: code, figures, diagrams."""
    light, dark = (open_deck(f"{deck}?theme={theme}", reduced_motion="reduce")
                   for theme in THEMES)
    assert faults_of(dark) == []
    for slide in range(light.evaluate("Reveal.getSlides().length")):
        places = [page.evaluate(SHOW, slide) or page.evaluate(PLACES)
                  for page in [light, dark]]
        assert places[0] == places[1] and places[0]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("deck", SHOWN)
def test_slides_are_accessible(open_deck, deck, theme):
    """Every third slide, and all of the sample deck: contrast, names, roles, order.

    In dark only what colours decide.
    """
    page = open_deck(f"{deck}?theme={theme}", reduced_motion="reduce")
    page.evaluate(AXE)
    step = 1 if deck == "sample.md" else 3
    for slide in range(0, page.evaluate("Reveal.getSlides().length"), step):
        page.evaluate(SHOW, slide)
        scope = "section.present:not(.stack)" if slide else "html"
        found = page.evaluate(ACCESSIBILITY_FAULTS, [scope, theme == "dark"])
        assert found == [], f"{deck}, slide {slide + 1}"


def test_the_page_of_all_decks_is_accessible(open_deck):
    for theme in THEMES:
        page = open_deck(f"?theme={theme}")
        page.evaluate(AXE)
        assert page.evaluate(ACCESSIBILITY_FAULTS, ["html", False]) == []
        expect(page.get_by_role("link", name="Samples").first).to_be_visible()
        assert page.evaluate("document.documentElement.dataset.theme") == theme


FAULTY = {
    "reaches out of the frame": '<div style="width: 1300px">wide</div>',
    "lies over the footer": '<p style="height: 545px">high</p>',
    "is cut off": '<pre style="width: 9px; overflow: hidden">wide</pre>',
    "did not load": '<img src="data:," alt="nothing">',
    "has no alternative text": '<img src="static/img/sample.svg" alt>',
    "code of 17px": '<pre><code style="font-size: 17px">x</code></pre>',
    "code lines too tight": '<pre><code style="line-height: 1">x</code></pre>',
    "diagram not drawn": '<pre class="mermaid">x</pre>',
}


def test_faults_are_seen(open_deck):
    page = open_deck("sample.md")
    # so that the deck itself does not show an error in its place
    page.evaluate("document.querySelectorAll('section').forEach("
                  "(slide) => slide.classList.add('measured'))")
    for fault, html in FAULTY.items():
        body = page.locator(".body").nth(3)
        body.evaluate("(body, html) => body.innerHTML = html", html)
        assert fault in "\n".join(page.evaluate(SLIDE_FAULTS, 3))


# Keys -------------------------------------------------------------------------


def test_arrows_go_through_slides_and_fragments(open_deck):
    page = open_deck("sample.md#/morph")
    assert place(page) == (2, 0, None)
    page.keyboard.press("ArrowDown")
    for fragment in [-1, 0, 1]:
        assert place(page) == (2, 1, fragment)
        page.keyboard.press("ArrowRight")
    assert place(page)[:2] == (3, 0)
    page.keyboard.press("ArrowLeft")
    assert place(page)[0] == 2
    page.keyboard.press("Home")
    assert place(page)[0] == 0


def test_code_steps_forwards_and_backwards(open_deck):
    page = open_deck("sample.md#/steps-through-code")
    first = page.locator(".present .line").first.get_attribute("data-line")
    plain, one, two = "", "0,1", "2,3"

    def focus():
        lines = page.locator(".present .line.focus").evaluate_all(
            "(lines) => lines.map((line) => Number(line.dataset.line))")
        others = page.locator(".present .line:not(.focus)").count()
        assert page.locator(".present .line.dim").count() == (others if lines else 0)
        return ",".join(str(line - int(first)) for line in lines)

    seen = [focus()]
    for key in ["ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft"]:
        page.keyboard.press(key)
        seen.append(focus())
    assert seen == [plain, one, two, one, plain]


def test_theme_is_toggled_and_remembered(open_deck):
    page = open_deck("sample.md")
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    page.keyboard.press("t")
    assert page.evaluate(theme) == "dark"
    page.reload()
    assert page.evaluate(theme) == "dark"
    page.goto(page.url.split("#")[0] + "?theme=light")
    assert page.evaluate(theme) == "light"


def test_figures_follow_the_theme(open_deck):
    page = open_deck("sample.md#/figure")
    figure = page.locator(".present img:visible")
    expect(figure).to_have_attribute("src", re.compile("sample.svg"))
    page.keyboard.press("t")
    expect(figure).to_have_attribute("src", re.compile("sample.dark.svg"))


def test_diagrams_follow_the_theme(open_deck):
    page = open_deck("diagram.md")
    drawn = page.locator(".present .mermaid svg")
    before = drawn.get_attribute("id")
    page.keyboard.press("t")
    expect(drawn).not_to_have_attribute("id", before)


def test_search_finds_words_on_slides(open_deck):
    page = open_deck("sample.md")
    page.keyboard.press("Control+Shift+F")
    box = page.get_by_role("searchbox")
    expect(box).to_be_focused()
    page.keyboard.type("THREE, often")
    page.keyboard.press("Enter")
    assert place(page) == (2, 1, 1)
    expect(page.locator(".search output")).to_have_text("1 of 1")
    assert page.evaluate("CSS.highlights.get('found').size") == 1
    box.fill("(nowhere")
    page.keyboard.press("Enter")
    expect(page.locator(".search output")).to_have_text("not found")
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    assert place(page) == (2, 1, 0)


def test_overview_and_help(open_deck):
    page = open_deck("sample.md")
    page.keyboard.press("o")
    expect(page.locator(".reveal.overview")).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(page.locator(".reveal.overview")).to_have_count(0)
    assert place(page)[0] == 1
    page.keyboard.press("Shift+?")
    expect(page.get_by_text("Light or dark")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Light or dark")).to_have_count(0)


def test_speaker_view_follows(open_deck):
    page = open_deck("sample.md#/steps-through-code")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    speaker = popup.value
    expect(speaker.locator(".speaker-controls-notes em")).to_have_text("this")
    slide = speaker.frame_locator("#current-slide iframe")
    expect(slide.locator("section.present h2")).to_have_text("Steps through code")
    expect(slide.locator(".present .line.focus")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect(slide.locator(".present .line.focus")).to_have_count(2)


def test_a_short_lecture_leaves_out_what_is_for_longer_ones(open_deck):
    titles = """() => Reveal.getSlides().map((slide) =>
        slide.querySelector("h2")?.textContent + slide.dataset.timing)"""
    whole = ["aundefined", "b60", "c30", "dundefined", "eundefined"]
    for minutes, shown in [("", whole), ("?minutes=120", whole), ("?minutes=x", whole),
                           ("?minutes=80", [*whole[:2], *whole[3:]]),
                           ("?minutes=45", [whole[0], whole[4]])]:
        page = open_deck(f"planned.md{minutes}")
        assert page.evaluate(titles)[1:] == shown
        expect(page.locator(".number").last).to_have_text(
            f"{len(shown) + 1} / {len(shown) + 1}")


def test_speaker_view_keeps_the_clock_of_the_plan(open_deck):
    page = open_deck("planned.md?minutes=80#/b")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    speaker = popup.value
    expect(speaker.locator(".pacing .minutes-value")).to_have_text(re.compile("0"))
    expect(speaker.get_by_text("Time to finish current slide")).to_be_visible()
    current, upcoming = [
        speaker.frame_locator(f"#{name}-slide iframe")
        .locator("section.content.present") for name in ["current", "upcoming"]]
    expect(current).to_contain_text("b")
    page.keyboard.press("ArrowRight")
    expect(current).to_contain_text("d")
    expect(upcoming).to_contain_text("e")


def test_slides_have_names_for_screen_readers(open_deck):
    page = open_deck("sample.md#/figure")
    expect(page.get_by_role("group", name=re.compile("5 of 7"))).to_be_visible()
    expect(page.get_by_role("heading", name="Figure")).to_be_visible()
    expect(page.get_by_role("img", name="A circle")).to_be_visible()


# Errors, changes, paper, plain reveal-md -----------------------------------------


def test_a_broken_slide_says_what_is_wrong(open_deck):
    page = open_deck("broken.md")
    error = page.locator("section.error")
    expect(error).to_have_count(1)
    line = 1 + BROKEN[:BROKEN.index("#residuals")].count("\n")
    for text in [f"slides/broken.md:{line}", "sample.py#residuals", "residual"]:
        assert text in error.text_content()
    sample = open_deck("sample.md")
    assert page.locator(".slides h2").count() == sample.locator(".slides h2").count()
    page.keyboard.press("Shift+ArrowRight")
    page.evaluate("Reveal.slide(2)")
    expect(error).to_be_visible()


def test_changes_are_shown_at_once(open_deck, copy):
    page = open_deck("watched.md#/figure")
    figure = page.locator(".present img:visible")
    soon = {"timeout": 1500}  # ms: within 1 s, and what a busy machine adds
    page.evaluate("window.isOld = true")

    (copy / "static/img/sample.svg").write_text(FIGURE.replace('r="8"', 'r="4"'))
    expect(figure).to_have_attribute("src", re.compile(r"\.svg\?\d+"), **soon)
    assert page.evaluate("window.isOld")

    deck = copy / "slides/watched.md"
    deck.write_text(deck.read_text().replace("## Fragments", "## Pieces"))
    page.wait_for_function("() => !window.isOld", **soon)
    page.wait_for_function(IS_READY)
    expect(page.locator(".present h2")).to_have_text("Figure")
    expect(page.locator("#pieces")).to_have_count(1)


def test_a_page_that_was_refused_the_news_asks_again(browser, url):
    """And is the new one, because it may have missed something."""
    with browser.new_context() as context:
        page = context.new_page()
        page.add_init_script("""
            sessionStorage.loads = Number(sessionStorage.loads ?? 0) + 1;
            const later = setTimeout;
            window.setTimeout = (action, wait, ...more) =>
                later(action, Math.min(wait, 200), ...more);""")
        page.route("**/events", lambda route: route.fulfill(status=503), times=1)
        page.goto(f"{url}/sample.md")
        page.wait_for_function("() => sessionStorage.loads === '2'")


def test_paper_is_light_and_shows_all(open_deck):
    page = open_deck("sample.md?print-pdf&theme=dark")
    page.wait_for_selector(".pdf-page")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.locator(".pdf-page").count() == 7
    assert page.locator(".line:is(.focus, .dim)").count() == 0
    assert page.locator(".fragment:not(.visible)").count() == 0
    expect(page.get_by_text("Say this.")).to_be_hidden()
    assert pages(page) == 7

    plain = open_deck("sample.md?theme=dark#/steps-through-code/0")
    assert pages(plain) == 7
    plain.emulate_media(media="print")
    paper = plain.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    hidden = plain.locator("li.fragment").evaluate_all(
        "(all) => all.filter((one) => getComputedStyle(one).opacity !== '1').length")
    assert hidden == 0


def pages(page):
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def test_paper_has_diagrams_however_late_they_are_drawn(open_deck):
    """For print, Reveal takes the slides out of the page until the next frame."""
    page = open_deck("", reduced_motion="reduce")
    page.add_init_script("""window.requestAnimationFrame = (frame) =>
        setTimeout(frame, document.querySelector(".slides section") ? 0 : 3000)""")
    page.route("**/diagrams.js", lambda route: (time.sleep(1), route.continue_()))
    page.goto(page.url + "diagram.md?print-pdf")
    expect(page.locator(".pdf-page .mermaid svg")).to_have_count(1)


def test_paper_has_notes_if_asked(open_deck):
    """Each on a page of its own that says whose they are; a long one on more."""
    notes = open_deck("sample.md?print-pdf&showNotes=separate-page")
    notes.wait_for_selector(".pdf-page")
    page = notes.locator(".speaker-notes-pdf")
    expect(page).to_have_count(1)
    expect(page).to_have_attribute("data-slide", "2 / 7 · Steps through code")
    expect(page).to_have_text("Say this.")
    assert pages(notes) == 8
    page.evaluate("(notes) => notes.innerHTML += '<p>More.</p>'.repeat(40)")
    assert pages(notes) == 11


def test_the_keyboard_shows_how_a_paper_measured(open_deck):
    slide = "how-not-to-be-fooled-by-a-results-table"
    number = open_deck(f"cnn.md#/{slide}").locator(f"#{slide} a.reported").first
    number.press("Tab")
    number.focus()
    shown = number.evaluate("(link) => getComputedStyle(link, '::after').content")
    assert "one model, 144 crops" in shown and number.get_attribute("title") in shown


@pytest.mark.parametrize("theme", THEMES)
def test_code_opens_in_the_source(open_deck, theme):
    page = open_deck(f"sample.md?theme={theme}#/steps-through-code")
    link = page.get_by_role("link", name=re.compile("open at this line"))
    with page.expect_popup() as popup:
        link.focus()
        page.keyboard.press("Enter")
    source = popup.value
    source.wait_for_load_state()
    assert source.url.endswith("/source/sample.html#plain")
    marked = source.locator(":target .line")
    expect(marked).to_have_count(4)
    expect(marked.first).to_be_in_viewport()
    expect(marked.first).to_have_text("def plain(x):")
    assert source.evaluate("document.documentElement.dataset.theme") == theme
    source.evaluate(AXE)
    assert source.evaluate(ACCESSIBILITY_FAULTS, ["html", False]) == []
    with source.expect_download() as download:
        source.get_by_role("link", name="Download sample.py").click()
    assert download.value.path().read_text() == MODULE
    figure = open_deck(f"sample.md?theme={theme}#/figure")
    href = figure.locator(".present .command a").get_attribute("href")
    assert href == "source/sample.html"


def test_nothing_moves_where_motion_is_reduced(open_deck):
    page = open_deck("sample.md#/steps-through-code", reduced_motion="reduce")
    page.evaluate("Reveal.slide(2)")
    assert page.evaluate("document.getAnimations().length") == 0
    assert page.locator("[data-auto-animate-target]").count() == 0


@pytest.mark.parametrize("deck", SHOWN)
def test_plain_reveal_md_shows_the_same_slides(url, plain_url, deck):
    ours, plain = (urlopen(f"{address}/{deck}").read().decode()
                   for address in (url, plain_url))
    slides = re.compile(r'<div class="slides">.*</section>', re.DOTALL)
    ours = re.sub(r'<a class="open"[^>]*>(.*?)</a>', r"\1", slides.search(ours)[0])
    assert slides.search(plain)[0].replace('"/_assets/', '"') == ours


def test_plain_reveal_md_finds_all_files(open_deck, plain_url):
    assert faults_of(open_deck(f"{plain_url}/sample.md")) == []


def test_plain_reveal_md_keeps_to_the_same_policy(open_deck, plain_url):
    """And has the guard, which takes away what an address would tell reveal."""
    page = open_deck(f"{plain_url}/sample.md?theme=dark&url=javascript%3Aalert()")
    assert urlsplit(page.url).query == "theme=dark"
    policy = page.locator("meta[http-equiv=Content-Security-Policy]")
    expect(policy).to_have_attribute("content", re.compile(
        "^default-src 'self'; script-src 'self' 'sha256-[^' ]+'; style-src"))
