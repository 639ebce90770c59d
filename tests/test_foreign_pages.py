"""What a page of another site, an address or a diagram can do to a deck: nothing.

Attacks are run in Chromium, from 127.0.0.1 against decks at localhost: served as
`npm start` serves them, and as files of the static site.
"""
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect

from test_browser import IS_READY, running

SERVE = """
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { deckRenderer } from "./slides/engine/decks.mjs";
import { indexPage } from "./slides/engine/pages.mjs";
import { serve } from "./slides/engine/serve.mjs";
const root = process.cwd();
const renderDeck = await deckRenderer(root);
await mkdir("_site");
await symlink("../static", "_site/static");
await writeFile("_site/index.html", indexPage([], (name) => name));
await writeFile("_site/deck.html", await renderDeck("deck.md"));
const server = await serve({ root, port: 0, renderDeck });
console.log(server.url);
"""

DECK = """\
---
title: Attacked
family: Sample
date: 2026-11-21
---
# Attacked

Note: A secret of the speaker.

<!--s-->

## Second
"""

DIAGRAMS = """\
---
title: Diagrams
family: Sample
date: 2026-11-21
---
# Diagrams
""" + "".join(f"\n<!--s-->\n\n## Diagram\n\n```mermaid\n{text}\n```\n" for text in [
    """sequenceDiagram
  participant A as Alice<img src=x onerror=taken=1>$$\\text{Alice}$$
  A->>A: <img src=x onerror=taken=1>$$x<img src=x onerror=taken=1>$$""",
    """%%{init: {"securityLevel": "loose", "htmlLabels": true,
    "flowchart": {"htmlLabels": true}}}%%
flowchart LR
  a["<img src=x onerror=taken=1>"] -->|"<svg onload=taken=1>"| b
  click a href "javascript:taken=1"
  click b call alert(1)""",
    """%%{init: {"themeCSS": "</style><img src=x onerror=taken=1>",
    "fontFamily": "x;}</style><img src=x onerror=taken=1>"}}%%
flowchart LR
  a --> b""",
    """classDiagram
  class A["<img src=x onerror=taken=1>"]
  link A "javascript:taken=1" "x" """,
    """architecture-beta
  group api(cloud)["<img src=x onerror=taken=1>"]
  service db(database)["<img src=x onerror=taken=1>"] in api""",
])

RUN = "top.taken = self.taken = true"
HTML = f'"><img src=x onerror="{RUN}">'
CALLS = [
    {"method": "previewIframe", "args": [HTML]},
    {"method": "previewIframe", "args": [f"javascript:{RUN}"]},
    {"method": "showPreview", "args": [HTML]},
    {"method": "previewImage", "args": ["x", HTML]},
    {"method": "setState", "args": [{"indexh": 1, "previewIframe": HTML}]},
    {"method": "configure", "args": [{"url": f"javascript:{RUN}", "controls": True}]},
    {"method": "slide", "args": [1]},
    {"method": "toggleHelp", "args": [True]},
    {"method": "togglePause", "args": [True]},
    {"method": "triggerKey", "args": [83]},
    {"namespace": "reveal-notes", "type": "heartbeat"},
    {"namespace": "reveal-notes", "type": "connected"},
    {"namespace": "reveal-notes", "type": "call", "methodName": "next",
     "arguments": []},
    {"namespace": "reveal", "eventName": "ready"},
]
ATTACK = """(calls) => {
    window.told = [];
    window.onmessage = ({ data }) => window.told.push(data);
    const target = window.target ?? frames[0];
    for (const call of calls) {
        target.postMessage(JSON.stringify(call), "*");
        target.postMessage(call, "*");
    }
}"""
COUNT = ("addEventListener('message', "
         "() => window.heard = (window.heard ?? 0) + 1, true)")
HAS_HEARD = f"() => window.heard >= {2 * len(CALLS)}"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def decks(copy_lectures):
    """{what serves it: address of the deck}."""
    copy = copy_lectures()
    for deck in (copy / "slides").glob("*.md"):
        deck.unlink()
    (copy / "slides/deck.md").write_text(DECK)
    (copy / "slides/diagrams.md").write_text(DIAGRAMS)
    site = partial(Quiet, directory=copy / "_site")
    command = ["node", "--input-type=module", "-e", SERVE]
    with (running(command, copy) as url,
          ThreadingHTTPServer(("localhost", 0), site) as server):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        built = f"http://localhost:{server.server_port}/deck.html"
        yield {"start": f"{url}/deck.md", "build": built}
        server.shutdown()


@pytest.fixture
def foreign(browser, web):
    """A page of another site, whose browser counts the messages that a deck gets."""
    folder, address = web
    (folder / "attack.html").write_text("<!DOCTYPE html><title>Attack</title>")
    with browser.new_context() as context:
        context.set_default_timeout(10_000)
        context.add_init_script(COUNT)
        page = context.new_page()
        page.goto(f"{address}attack.html")
        yield page


def untouched(deck):
    """The deck, on its first slide, has run nothing and shows nothing else."""
    assert deck.evaluate("[window.taken, Reveal.getIndices().h, Reveal.isPaused()]") \
        == [None, 0, False]
    expect(deck.locator(".r-overlay, iframe, img[src=x]")).to_have_count(0)


@pytest.mark.parametrize("name", ["", "deck", "reveal.js - Notes"])
def test_the_opener_of_a_deck_cannot_speak_to_it(decks, foreign, name):
    with foreign.expect_popup() as popup:
        foreign.evaluate("([url, name]) => { window.target = open(url, name) }",
                         [decks["build"], name])
    deck = popup.value
    deck.wait_for_function(IS_READY)
    foreign.evaluate(ATTACK, CALLS)
    deck.wait_for_function(HAS_HEARD)
    untouched(deck)
    assert foreign.evaluate("window.told") == []


def test_the_server_parts_a_deck_from_its_opener(decks, foreign):
    with foreign.expect_popup() as popup:
        foreign.evaluate("(url) => { window.target = open(url) }", decks["start"])
    deck = popup.value
    deck.wait_for_function(IS_READY)
    assert foreign.evaluate("target.closed")
    assert deck.evaluate("opener") is None
    foreign.evaluate(ATTACK, CALLS)
    untouched(deck)


@pytest.mark.parametrize("outer", [
    "<iframe src='{}'></iframe>",
    "<iframe src='{}' sandbox='allow-scripts'></iframe>",
    "<iframe src='{}' name='reveal.js - Notes' allow='*'></iframe>"])
def test_a_deck_of_the_site_does_not_run_in_a_foreign_frame(decks, foreign, outer):
    foreign.evaluate("(html) => document.body.innerHTML = html",
                     outer.format(decks["build"]))
    frame = foreign.frames[1]
    frame.wait_for_load_state()
    foreign.evaluate(ATTACK, CALLS)
    frame.wait_for_function(HAS_HEARD)
    assert frame.evaluate("[window.taken, window.Reveal]") == [None, None]
    assert foreign.evaluate("[window.taken, told.length]") == [None, 0]
    if "sandbox" not in outer:
        link = frame.get_by_role("link", name="Attacked")
        expect(link).to_have_attribute("href", decks["build"])
        expect(frame.locator("section")).to_have_count(0)


def test_nor_does_another_page_of_the_site(decks, foreign):
    index = decks["build"].replace("deck.html", "index.html")
    foreign.evaluate("(url) => document.body.innerHTML = `<iframe src='${url}'>`",
                     index)
    frame = foreign.frames[1]
    link = frame.get_by_role("link", name="Deep Learning Architectures")
    expect(link).to_have_attribute("href", index)
    expect(frame.locator("main")).to_have_count(0)


def test_the_server_lets_no_foreign_page_frame_a_deck(decks, foreign):
    foreign.evaluate("(url) => document.body.innerHTML = `<iframe src='${url}'>`",
                     decks["start"])
    foreign.frames[1].wait_for_load_state()
    assert foreign.frames[1].url.startswith("chrome-error:")


@pytest.mark.parametrize("kind, query", [
    ("build", "url=javascript%3Aopener.taken%3D1%2F%2F"),
    ("start", "url=javascript%3Aopener.taken%3D1%2F%2F"),
    ("start", "theme=!url=javascript%3Aopener.taken%3D1%2F%2F"),
    ("start", "receive&x_url=javascript%3Aopener.taken%3D1%2F%2F&theme=dark"),
])
def test_an_address_does_not_configure_the_speaker_view(decks, foreign, kind, query):
    foreign.goto(f"{decks[kind]}?{query}#/second")
    foreign.wait_for_function(IS_READY)
    with foreign.expect_popup() as popup:
        foreign.keyboard.press("s")
    slide = popup.value.frame_locator("#current-slide iframe")
    expect(slide.locator("section.present h2")).to_have_text("Second")
    assert foreign.evaluate("window.taken") is None
    assert popup.value.frames[1].url.startswith(decks[kind])


@pytest.mark.parametrize("kind", ["start", "build"])
def test_what_is_written_into_a_page_does_not_run(decks, foreign, kind):
    """Not even by us: only scripts in files of our own origin run."""
    foreign.goto(decks[kind])
    foreign.wait_for_function(IS_READY)
    with foreign.expect_popup() as popup:
        foreign.keyboard.press("s")
    for page in [foreign, popup.value]:
        page.evaluate("""(html) => {
            document.addEventListener("securitypolicyviolation", (violation) =>
                window.blocked = violation.effectiveDirective);
            document.body.insertAdjacentHTML("beforeend", html);
        }""", HTML)
        page.wait_for_function("() => window.taken || window.blocked")
        assert page.evaluate("window.blocked") == "script-src-attr"
        assert page.evaluate("window.taken") is None


def test_a_diagram_runs_nothing(decks, browser):
    """Nor would it if no policy stopped it."""
    with browser.new_context(bypass_csp=True) as context:
        page = context.new_page()
        page.goto(decks["start"].replace("deck.md", "diagrams.md"))
        expect(page.locator(".mermaid:has(> svg, > .failure)")).to_have_count(5)
        expect(page.locator(".mermaid > svg").first).to_be_attached()
        active = page.locator(".mermaid *").evaluate_all("""(all) => all.flatMap(
            (element) => [...element.attributes].filter(({ name, value }) =>
                /^on/.test(name) || /^(java|vb)script:|^data:text/i.test(value.trim())
            ).map(({ name }) => name))""")
        assert active == []
        assert page.evaluate("window.taken") is None


def test_speaker_view_leads(decks, foreign):
    foreign.goto(decks["start"])
    foreign.wait_for_function(IS_READY)
    with foreign.expect_popup() as popup:
        foreign.keyboard.press("s")
    speaker = popup.value
    expect(speaker.locator(".speaker-controls-notes")).to_contain_text("A secret")
    slide = speaker.frame_locator("#current-slide iframe")
    expect(slide.locator("section.present h1")).to_be_visible()
    speaker.locator("body").press("ArrowRight")
    expect(foreign.locator("section.present h2")).to_have_text("Second")
