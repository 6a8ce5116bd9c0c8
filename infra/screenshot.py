"""Takes the screenshot of the search page that README and quickstart show, of a service that runs on this machine.

dvc exp run -S model.preset=best -S train.preset=best
dagnn index build index --source artifacts/dataset --split test
dagnn serve &
python infra/screenshot.py
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).resolve().parents[1] / "docs/images/search.webp"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000/")
    parser.add_argument("--query", default="q=two+boats+under+the+moon&without=building", help="state of the page")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels; the height is 0.7 of it")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        viewport = {"width": options.width, "height": options.width * 7 // 10}
        page = browser.new_page(viewport=viewport, color_scheme=options.scheme)  # type: ignore[arg-type]
        page.goto(f"{options.url}?{options.query}", wait_until="networkidle")
        image = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    image.save(options.out, quality=88, method=6)


if __name__ == "__main__":
    main()
