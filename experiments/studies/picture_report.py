"""The top of a report as a picture, from a browser: docs/pictures/report.png.

python -m experiments.studies.picture_report runs/demo/report.html --out docs/pictures/report.png
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

WIDTH, HEIGHT = 1200, 1500


def main() -> None:
    """Open the page, and write what it shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/report.png"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(_picture(options.report.resolve()))


def _picture(report: Path) -> bytes:
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.as_uri())
        shot = page.screenshot()
        browser.close()
    picture, file = Image.open(io.BytesIO(shot)).convert("RGB").quantize(128), io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
