"""Report and comparison in a real browser: no request, no complaint, all images shown, by keyboard and on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from components.services.tracking.mlflow import Tracking
from components.steps import evaluate
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.reports.comparison.compare import ComparedReport, compare_reports
from dagnn_core.reports.comparison.html import render_comparison
from tests.fixtures.collection import Collection, collection

__all__ = ["collection"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: install the package chromium"),
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MAX_BYTES = 5_000_000


class Pages(NamedTuple):
    report: Path
    comparison: Path


@pytest.fixture(scope="module")
def pages(collection: Collection, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """The report of a calibrated model, and its comparison with one that is not."""
    root = tmp_path_factory.mktemp("pages")
    shutil.copy(empty_database, root / "mlflow.db")
    for name, model in (("best", collection.best), ("ridge", collection.ridge)):
        evaluate.run(
            dataset=collection.dataset,
            features=collection.best.parent / "features",
            model=model,
            params=EvaluateConfig(num_queries=4, num_retrieved=4),
            tracking=Tracking(uri=f"sqlite:///{root}/mlflow.db"),
            report_out=root / name,
        )
    reports = [ComparedReport.read(name, read_artifact(root / name, "report")) for name in ("ridge", "best")]
    page = render_comparison(compare_reports(reports), Dataset.read(collection.dataset))
    (root / "comparison.html").write_text(page, encoding="utf-8")
    return Pages(root / "best" / "report.html", root / "comparison.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens a page; when the test is over, it has asked for nothing else and complained of nothing."""
    contexts, requests, complaints = [], [], []

    def open_one(path: Path, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in requests) == len(contexts)
    assert complaints == []


@pytest.mark.parametrize("name", Pages._fields)
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_asked_for_and_nothing_overflows(
    pages: Pages, open_page: Any, name: str, viewport: dict[str, int], scheme: str
) -> None:
    path = getattr(pages, name)
    assert path.stat().st_size <= MAX_BYTES
    page = open_page(path, viewport=viewport, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], "the page scrolls sideways"
    broken = "[...document.images].filter((image) => image.complete && !image.naturalWidth).length"
    assert page.evaluate("document.images.length") > 20 and page.evaluate(broken) == 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(16, 19, 26)") == (scheme == "dark")


@pytest.mark.parametrize("name", Pages._fields)
def test_links_lead_to_parts_and_numbers(pages: Pages, open_page: Any, name: str) -> None:
    page = open_page(getattr(pages, name), accept_downloads=True)
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    with page.expect_download() as download:
        page.locator("a.numbers").first.click()
    rows = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert download.value.suggested_filename.endswith(".csv") and len(rows) > 1


def test_the_map_shows_items_highlights_labels_and_changes_projection(pages: Pages, open_page: Any) -> None:
    page = open_page(pages.report, viewport=DESKTOP)
    dot = page.locator(".map .dot.of-image").first
    dot.scroll_into_view_if_needed()
    assert not dot.locator(".tip").is_visible()
    dot.hover(force=True)
    assert page.locator(".map .tip:visible").count() == 1
    place = dot.bounding_box()
    page.locator("#tsne").focus()
    page.keyboard.press("ArrowRight")  # the radio buttons work by keyboard
    assert page.locator("#pca").is_checked() and dot.bounding_box() != place
    page.locator("#label-0").check()
    opacities = page.locator(".map .dot").evaluate_all(
        "(dots) => dots.map((dot) => [dot.classList.contains('l0'), getComputedStyle(dot).opacity])"
    )
    assert {opacity for has_label, opacity in opacities if has_label} == {"1"}
    assert {opacity for has_label, opacity in opacities if not has_label} == {"0.12"}


@pytest.mark.parametrize("name", Pages._fields)
def test_it_prints(pages: Pages, open_page: Any, name: str, tmp_path: Path) -> None:
    page = open_page(getattr(pages, name))
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.pdf(path=tmp_path / "page.pdf", format="A4").startswith(b"%PDF")
