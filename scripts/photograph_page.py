"""Photograph each tab of the page that `realm serve` shows: the figures of docs/page.md.

A server must be running, with documents, an encoder and a run; the commands stand in docs/page.md.
Needs Chromium, Pillow and playwright. The page takes the fonts of the machine it is shown on: for
these figures Inter, JetBrains Mono and Charis SIL were installed.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DESKTOP = {"width": 1280, "height": 800}
TALL = {"width": 1280, "height": 1060}
PHONE = {"width": 360, "height": 780}
MAX_BYTES = 150_000
QUESTION = "Who turned Beethoven round to see the applause after his Ninth Symphony?"
SENTENCE = "Irregularities in the path of Uranus led to the discovery of [MASK]."


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="of the server: http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--no-answer", default="What is the price of a train ticket to Oslo?")
    parser.add_argument("--sentence", default=SENTENCE)
    parser.add_argument("--answer", default="Neptune", help="what stands in the blank")
    parser.add_argument("--run", required=True, help="name of a run that the server shows")
    told = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)

        def take(name: str, where: str, ready: str, **options: object) -> None:
            photograph(browser, f"{told.address}/{where}", ready, told.out / name, **options)

        asked = f"#ask?{urlencode({'q': told.question})}"
        blank = f"#fill?{urlencode({'s': told.sentence, 'y': told.answer})}"
        refused = f"#ask?{urlencode({'q': told.no_answer})}"
        take("page-ask.png", asked, "#answer")
        take("page-ask-dark.png", asked, "#answer", color_scheme="dark")
        take("page-ask-phone.png", asked, "#answer", viewport=PHONE)
        take("page-no-answer.png", refused, ".answer.none")
        take("page-place.png", asked, ".evidence mark", then=open_place)
        take("page-fill.png", blank, ".table3", viewport=TALL)
        take("page-documents.png", "#documents", ".listing")
        take("page-training.png", f"#training?{urlencode({'run': told.run})}", ".curve")
        browser.close()


def open_place(page: Page) -> None:
    """Follow the evidence to its document."""
    page.click(".evidence a.place")
    page.wait_for_selector("#reader mark")


def photograph(
    browser: Browser,
    address: str,
    ready: str,
    out: Path,
    *,
    viewport: dict[str, int] = DESKTOP,
    color_scheme: str = "light",
    then: Callable[[Page], None] | None = None,
) -> None:
    """Write one photograph, in so few colours that it is small; rare ones are kept."""
    is_phone = viewport == PHONE
    context = browser.new_context(
        viewport=viewport,  # pyright: ignore[reportArgumentType]
        color_scheme=color_scheme,  # pyright: ignore[reportArgumentType]
        device_scale_factor=2 if is_phone else 1,
        reduced_motion="reduce",
        is_mobile=is_phone,
        has_touch=is_phone,
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(ready)
    if then:
        then(page)
    page.wait_for_timeout(500)
    taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    few = taken.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
    few.save(out, optimize=True)
    print(f"{out}: {out.stat().st_size:,} bytes")  # noqa: T201 - a script
    if out.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{out} is larger than {MAX_BYTES:,} bytes")


if __name__ == "__main__":
    main()
