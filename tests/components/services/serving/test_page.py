"""The page of the search service: its files as they are, and in a real browser, which finds all that a user does."""

import csv
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from components.services.serving.app import PAGE
from components.services.serving.service import Served
from dagnn_core.data.dataset import Dataset
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.search.build import add_to_index
from dagnn_core.search.index import SearchIndex
from dagnn_core.search.sources import TableSource
from tests.fixtures.collection import Collection, collection

__all__ = ["collection"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: install the package chromium"),
]
TEXT = "mountains with snow, at night"
SHOWS_A_THUMBNAIL = "[...document.querySelectorAll('#hits img')].some((image) => image.naturalWidth > 10)"
TOKEN = "0123456789abcdef"
PHONE = {"width": 390, "height": 844}
IMG = '"><img src=x onerror=hacked=1>'
HOSTILE = [
    (IMG, "<script>hacked=1</script> mountains with snow at night", "<svg onload=hacked=1>", "<b>bold"),
    ("../a?b#c%2F&q=1", "the night \u202eat sea <iframe srcdoc='<svg onload=hacked=1>'>", "boat|" + "x" * 300, ""),
    ("..", "at night " * 100 + "y" * 400, "__proto__|constructor", "a=b"),
]
"""Id, text, labels and the column `note` of items that somebody else has made."""


def sources() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in PAGE.iterdir()}


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_a_page_has_no_inline_script_or_style_and_names_no_other_host(name: str) -> None:
    html = sources()[name]
    assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|https?:|javascript:", html) == []
    for address in re.findall(r'(?:src|href)="([^"#]+)"', html):
        folder, _, file = address.rpartition("/")
        assert not address.startswith("/"), "an address from the root fails behind the prefix of a proxy"
        assert folder != "assets" or file in sources(), address


def test_the_script_inserts_texts_alone_and_finds_every_element() -> None:
    script = sources()["search.js"]
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://", script)
        == []
    )
    ids = set(re.findall(r'\bid="([\w-]+)"', sources()["index.html"]))
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= ids


@pytest.fixture(scope="module")
def index(collection: Collection, tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    """The collection, and hostile items, two of which have images."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(collection.index, folder / "index")
    for number in range(2):
        Image.new("RGB", (60, 40), ("#203060", "#a04020")[number]).save(folder / f"{number}.png")
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [
                ("id", "text", "labels", "note", "image"),
                *((*row, f"{number}.png" if number < 2 else "") for number, row in enumerate(HOSTILE)),
            ]
        )
    model = TrainedModel.read(collection.best)
    add_to_index(folder / "index", model, TableSource(folder / "table.csv", folder), work=folder / "work")
    return SearchIndex.read(folder / "index", model)


@pytest.fixture(scope="module")
def url(serving: Any, index: SearchIndex) -> Iterator[str]:
    with serving(Served(index, "dagnn", "1")) as server:
        yield address_of(server)


def address_of(server: Any) -> str:
    return f"http://127.0.0.1:{server.port}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Tab:
    """A tab of the browser, and what it has complained of and asked for."""

    page: Any
    url: str
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, path: str = "", **query: Any) -> Any:
        self.page.goto(f"{self.url}{path}" + (f"?{urlencode(query, doseq=True)}" if query else ""))
        if not path:
            self.settled()
        return self.page

    def settled(self) -> None:
        self.page.wait_for_selector("#results[aria-busy=false]")

    def until(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true; the page's policy forbids Playwright's own way, an `eval`."""
        deadline = time.monotonic() + 20
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, f"never true: {condition}"
            time.sleep(0.02)

    def search(self, text: str) -> None:
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")
        self.settled()

    @property
    def summary(self) -> str:
        return str(self.page.inner_text("#summary"))

    @property
    def ids(self) -> list[str]:
        return list(self.page.locator("#hits .id").all_inner_texts())

    def labels(self) -> list[set[str]]:
        """Of each result, those that its item has."""
        cards = self.page.locator("#hits > li").all()
        return [set(card.locator(".tag:not(.guess) > span:first-child").all_inner_texts()) for card in cards]


@contextmanager
def tab_of(browser: Any, url: str, **options: Any) -> Iterator[Tab]:
    context = browser.new_context(**options)
    tab = Tab(context.new_page(), url)
    tab.page.set_default_timeout(20_000)
    tab.page.on("console", lambda message: tab.complaints.append(message.text))
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.page.on("dialog", lambda dialog: (tab.complaints.append(dialog.message), dialog.dismiss()))
    known = (url, "blob:", "data:")
    tab.page.on("request", lambda request: None if request.url.startswith(known) else tab.foreign.append(request.url))
    yield tab
    context.close()
    assert tab.foreign == []


@pytest.fixture
def tab(browser: Any, url: str) -> Iterator[Tab]:
    """A tab with an empty history; nothing of what happens in it may complain."""
    with tab_of(browser, url) as tab:
        yield tab
    assert tab.complaints == []


def image_of(collection: Collection) -> bytes:
    dataset = Dataset.read(collection.dataset)
    return next(iter(dataset.images([0])))


def ask(address: str, body: bytes, kind: str = "application/json") -> dict[str, Any]:
    with urlopen(Request(address, body, {"Content-Type": kind}), timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def search(url: str, **query: Any) -> dict[str, Any]:
    return ask(f"{url}search", json.dumps(query).encode())


class TestInABrowser:
    pytestmark = in_a_browser

    def test_a_text_finds_images_and_the_address_keeps_it(self, tab: Tab, url: str) -> None:
        page = tab.open()
        assert tab.summary == "Search by text, or start from a label"
        assert page.evaluate("document.activeElement.id") == "text"
        tab.search(TEXT)
        assert tab.summary == f"The 24 best images for “{TEXT}”"
        expected = search(url, text=TEXT, k=24)
        assert tab.ids == [hit["id"] for hit in expected["hits"]]
        tab.until(SHOWS_A_THUMBNAIL)
        assert page.locator("#hits .because").first.inner_text().startswith("because of ")
        assert page.title() == f"{TEXT} - DAGNN search"
        found = tab.ids
        page.click("#more")
        tab.until("document.querySelectorAll('#hits > li').length === 48")
        assert tab.ids[:24] == found
        assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "id-25"
        page.reload()
        tab.settled()
        assert len(tab.ids) == 48
        for expected_summary in (f"The 24 best images for “{TEXT}”", "Search by text, or start from a label"):
            page.go_back()
            tab.until(f"document.querySelector('#summary').textContent === {json.dumps(expected_summary)}")
        page.go_forward()
        tab.until("document.querySelectorAll('#hits > li').length === 24")

    def test_what_is_typed_while_the_page_loads_stays(self, tab: Tab) -> None:
        page, asked = tab.page, list[Any]()
        page.route("**/index", lambda route: asked.append(route))  # noqa: PLW0108 -- Playwright takes no built-in
        page.goto(tab.url)
        page.wait_for_selector("#results[aria-busy=true]")
        page.fill("#text", TEXT)
        while not asked:
            page.wait_for_timeout(20)
        asked[0].continue_()
        tab.settled()
        assert page.input_value("#text") == TEXT

    def test_the_target_can_be_texts(self, tab: Tab, url: str) -> None:
        page = tab.open(q=TEXT)
        page.get_by_role("radio", name="Texts").check(force=True)
        page.wait_for_selector("#hits.texts")
        tab.settled()
        assert tab.summary.startswith("The 24 best texts for")
        hits = search(url, text=TEXT, k=24, target="text")["hits"]
        assert page.locator("#hits .text").all_inner_texts()[0] == hits[0]["text"]
        assert "target=text" in page.url

    @pytest.mark.parametrize("way", ["drop", "paste", "choose"])
    def test_an_image_is_a_query(self, tab: Tab, collection: Collection, way: str) -> None:
        page, image = tab.open(), image_of(collection)
        if way == "choose":
            page.set_input_files("#file", {"name": "scene.jpg", "mimeType": "image/jpeg", "buffer": image})
        else:
            event = {"drop": "DragEvent", "paste": "ClipboardEvent"}[way]
            key = {"drop": "dataTransfer", "paste": "clipboardData"}[way]
            page.evaluate(
                f"""(bytes) => {{
                    const data = new DataTransfer();
                    data.items.add(new File([new Uint8Array(bytes)], "scene.jpg", {{ type: "image/jpeg" }}));
                    const options = {{ {key}: data, bubbles: true, cancelable: true }};
                    document.body.dispatchEvent(new {event}("{way}", options));
                }}""",
                list(image),
            )
        page.wait_for_selector("#hits > li")
        assert tab.summary.endswith("for scene.jpg")
        found = ask(f"{tab.url}search/image?target=image&k=24", image, "image/jpeg")
        assert tab.ids == [hit["id"] for hit in found["hits"]]
        assert page.locator("#example img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 10
        page.click("#example button")
        page.wait_for_selector("#example", state="hidden")
        page.go_back()
        page.wait_for_selector("#hits > li")
        page.reload()
        page.wait_for_selector("#notice")
        assert tab.summary == "The image of this search is gone"
        page.set_input_files("#file", {"name": "again.jpg", "mimeType": "image/jpeg", "buffer": image})
        page.wait_for_selector("#hits > li")
        page.go_back()
        tab.until("document.querySelector('#summary').textContent === 'The image of this search is gone'")

    def test_more_like_this(self, tab: Tab, url: str) -> None:
        page = tab.open(q=TEXT)
        wanted = tab.ids[1]
        page.locator("#hits .like").nth(1).click()
        tab.until(f"document.querySelector('#summary').textContent.endsWith('like {wanted}')")
        assert tab.ids == [hit["id"] for hit in search(url, id=wanted, k=24)["hits"]]
        assert page.evaluate("document.activeElement.id") == "results"
        assert page.locator("#example img").is_visible() and page.input_value("#text") == ""

    def test_labels_and_columns_filter(self, tab: Tab, index: SearchIndex) -> None:
        page = tab.open(q=TEXT)
        counts = dict(zip(index.label_names, index.labels.sum(axis=0).tolist(), strict=True))
        row = page.locator("#labels li", has=page.get_by_role("button", name=f"water {counts['water']}"))
        row.locator(".name").click()
        page.wait_for_selector("#active .chip")
        tab.settled()
        assert all("water" in labels for labels in tab.labels())
        page.get_by_role("button", name="not boat", exact=True).click()
        tab.until("document.querySelectorAll('#active .chip').length === 2")
        tab.settled()
        assert tab.ids and all("water" in labels and "boat" not in labels for labels in tab.labels())
        assert page.evaluate("document.activeElement.ariaLabel") == "not boat"
        page.select_option("#column", "split")
        page.fill("#value", "test")
        page.press("#value", "Enter")
        page.get_by_text("split = test").wait_for()
        tab.settled()
        splits = {index.ids[row]: index.item(row).columns["split"] for row in range(len(index))}
        assert tab.ids and {splits[item] for item in tab.ids} == {"test"}
        page.reload()
        tab.settled()
        assert page.locator("#active .chip > span").all_inner_texts() == ["water", "not boat", "split = test"]
        page.get_by_role("button", name="Remove the filter split = test").click()
        tab.until("document.querySelectorAll('#active .chip').length === 2")
        page.fill("#find-label", "wat")
        assert page.locator("#labels li:visible .name > span:first-child").all_inner_texts() == ["water", "boat"]

    def test_nothing_relevant_is_said_and_the_nearest_labels_lead_on(self, tab: Tab, url: str) -> None:
        texts = ("the water", "the night", "a house by the road", "sunset at the beach", TEXT)
        text, answer = next(
            (text, answer) for text in texts for answer in [search(url, text=text, k=24)] if answer["relevant"] is False
        )
        page = tab.open(q=text)
        assert tab.summary == f"Nothing relevant was found for “{text}”"
        assert len(tab.ids) == len(answer["hits"])
        suggestions = page.locator("#notice .suggestions button")
        assert suggestions.all_inner_texts() == list(answer["nearest_labels"])
        suggestions.first.click()
        nearest = next(iter(answer["nearest_labels"]))
        tab.until(f"document.querySelector('#text').value === {json.dumps(nearest)}")

    def test_filters_that_leave_nothing_can_be_removed(self, tab: Tab) -> None:
        page = tab.open(q=TEXT, filter="split=nothing")
        assert tab.summary == f"No image for “{TEXT}”"
        page.get_by_role("button", name="Remove the filters").click()
        page.wait_for_selector("#hits > li")

    def test_the_keyboard_alone(self, tab: Tab) -> None:
        page = tab.open()
        page.keyboard.type(TEXT)
        page.keyboard.press("Enter")
        page.wait_for_selector("#hits > li")
        for _ in range(80):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                """() => {
                    const element = document.activeElement.closest(".switch, .file") ?? document.activeElement;
                    const seen = element.matches(".switch") ? element.querySelector(":focus-visible + span") : element;
                    return [document.activeElement.className, getComputedStyle(seen).outlineStyle];
                }"""
            )
            assert focused[1] != "none", focused
            if focused[0] == "like":
                break
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        widths = page.evaluate("getComputedStyle(document.querySelector('#hits')).gridTemplateColumns")
        number = len(widths.split()) + 2
        assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == f"id-{number}"
        wanted = tab.ids[number - 1]
        page.keyboard.press("Enter")
        tab.until(f"document.querySelector('#summary').textContent.endsWith('like {wanted}')")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "like"
        page.keyboard.press("End")
        assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "id-24"

    @pytest.mark.parametrize("target", ["image", "text"])
    def test_hostile_items_stay_text(self, tab: Tab, target: str) -> None:
        for item, text, labels, note in HOSTILE[:2] if target == "image" else HOSTILE:
            label = labels.split("|")[-1]
            page = tab.open(**{"like": item, "with": label}, target=target)
            assert tab.ids == [item] and tab.summary.endswith(item)
            assert page.locator("#active .chip > span").all_inner_texts() == [label]
            assert page.locator("#hits .text").evaluate("(element) => element.textContent") == text.strip()
            assert tab.labels() == [set(labels.split("|"))]
            assert note in page.get_attribute("#hits .like", "title")
            page.evaluate("new Promise((done) => setTimeout(done, 50))")
            assert page.evaluate("window.hacked") is None
            assert page.locator("main :is(script, svg, iframe, b, style)").count() == 0

    def test_a_hostile_address_stays_text(self, tab: Tab) -> None:
        page = tab.open(**{"q": IMG, "with": IMG, "without": IMG, "filter": IMG, "k": IMG})
        page.wait_for_selector("#notice")
        assert page.evaluate("[window.hacked, document.querySelectorAll('#results img').length]") == [None, 0]
        tab.complaints.clear()  # the browser logs the status of the refusal

    def test_nothing_scrolls_sideways_on_a_phone(self, browser: Any, url: str) -> None:
        with tab_of(browser, url, viewport=PHONE, has_touch=True) as tab:
            states: list[dict[str, str]] = [{}, {"q": TEXT}, {"q": TEXT, "target": "text"}]
            states += [{"like": item, "target": "text"} for item, *_ in HOSTILE]
            states += [{"q": TEXT, "filter": "split=" + "z" * 300}, {"q": TEXT, "with": "x" * 300}]
            for state in states:
                page = tab.open(**state)
                assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], state
                if page.evaluate("!document.querySelector('#filters').open"):
                    page.click("#filters summary")
                    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], state

    @pytest.mark.parametrize(
        ("viewport", "scheme"), [({"width": 1280, "height": 860}, "light"), (PHONE, "dark")], ids=["desktop", "phone"]
    )
    def test_axe_finds_no_fault(self, browser: Any, url: str, viewport: dict[str, int], scheme: str) -> None:
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="not installed: make setup").Axe()
        with tab_of(browser, url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce") as tab:
            unknown = {"q": "xyzzy"}
            filtered = {"q": TEXT, "with": "water", "without": "boat", "filter": "split=test"}
            for state in ({}, {"q": TEXT}, {"like": HOSTILE[0][0], "target": "text"}, filtered, unknown):
                page = tab.open(**state)
                if page.evaluate("!document.querySelector('#filters').open"):
                    page.click("#filters summary")
                found = axe.run(page)
                assert found.violations_count == 0, found.generate_report()

    def test_an_item_without_thumbnail_is_shown(self, tab: Tab) -> None:
        def without_thumbnails(route: Any) -> None:
            answer = route.fetch()
            said = answer.json()
            for hit in said["hits"]:
                hit["thumbnail"] = None
            route.fulfill(response=answer, json=said)

        tab.page.route("**/search", without_thumbnails)
        page = tab.open(q=TEXT)
        assert page.locator("#hits img").count() == 0
        assert page.locator("#hits .missing").count() == 24

    def test_a_text_that_the_model_does_not_know(self, browser: Any, url: str) -> None:
        with tab_of(browser, url) as tab:
            page = tab.open(q="xyzzy")
            assert tab.summary == "The query 'xyzzy' has no word that the model knows"
            assert page.get_attribute("#notice", "role") == "alert"

    def test_a_token_is_asked_for_and_kept(self, browser: Any, serving: Any, index: SearchIndex) -> None:
        with serving(Served(index), tokens=(TOKEN,)) as server, tab_of(browser, address_of(server)) as tab:
            page = tab.page
            page.goto(f"{tab.url}?q=night")
            for given, said in (("wrong", "The service does not accept the token"), (TOKEN, "")):
                page.fill("#token", given)
                page.press("#token", "Enter")
                page.wait_for_selector(f"text={said}" if said else "#hits > li")
            tab.until(SHOWS_A_THUMBNAIL)
            assert page.get_attribute("#hits img >> nth=0", "src").startswith("blob:")
            page.reload()
            page.wait_for_selector("#hits > li")
            assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]

    def test_a_busy_service_is_asked_again_later(self, browser: Any, serving: Any, index: SearchIndex) -> None:
        limits = {"rate": 0.2}  # one query, and the next after five seconds
        with serving(Served(index), **limits) as server, tab_of(browser, address_of(server)) as tab:
            tab.open(q=TEXT)
            tab.search("night")
            assert re.search(r"The page tries again in [1-5] s\.", tab.page.inner_text("#notice"))
            tab.page.wait_for_selector("#hits > li")
            assert tab.summary.endswith("“night”")

    def test_a_service_that_stays_busy_is_left_alone(self, browser: Any, serving: Any, index: SearchIndex) -> None:
        with serving(Served(index), queue=0) as server, tab_of(browser, address_of(server)) as tab:
            asked: list[str] = []
            tab.page.on("request", lambda request: asked.append(request.method))
            tab.open(q=TEXT)
            tab.page.get_by_text("Try again soon").wait_for()
            assert asked.count("POST") == 4

    def test_a_service_that_is_away(self, browser: Any, url: str) -> None:
        with tab_of(browser, url) as tab:
            page = tab.open()
            page.context.set_offline(True)
            tab.search(TEXT)
            assert tab.summary == "The service does not answer"
            page.context.set_offline(False)
            page.get_by_role("button", name="Try again").click()
            page.wait_for_selector("#hits > li")

    def test_a_promotion_is_followed(
        self, browser: Any, serving: Any, index: SearchIndex, collection: Collection
    ) -> None:
        with serving(Served(index, "dagnn", "1")) as server, tab_of(browser, address_of(server)) as tab:
            page = tab.open(q=TEXT)
            assert page.inner_text("#about") == f"{len(index)} items · model dagnn 1"
            other = SearchIndex.read(collection.index, index.model)
            server.service.serve(Served(other, "dagnn", "2"))
            tab.search("night")
            assert page.inner_text("#about") == f"{len(other)} items · model dagnn 2"
            assert not page.get_by_text(HOSTILE[0][2]).is_visible()
            assert tab.complaints == []

    def test_the_reference_of_the_api(self, tab: Tab) -> None:
        page = tab.open("docs")
        page.wait_for_selector(".opblock")
        assert page.locator(".opblock-summary-path").count() >= 7
        page.locator(".opblock-summary").first.click()
        page.wait_for_selector(".opblock-body")
