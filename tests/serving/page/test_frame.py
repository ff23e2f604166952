"""What all tabs share: keyboard, width, contrast, the token."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from realm.serving.settings import Limits

Make = Callable[..., Any]
TOKEN = "correct-horse-battery"  # noqa: S105
CONTRAST = Path(__file__).parent / "contrast.js"
FERMAT = "# Fermat\n\nFermat was born in 1607 in Toulouse. Fermat worked as a lawyer.\n"
QUESTION = "where was fermat born"


def test_everything_can_be_done_from_the_keyboard(site: Any, visit: Make) -> None:
    site.put("fermat.md", FERMAT)
    page = visit(site)
    press = page.keyboard.press

    def focused() -> str:
        return page.evaluate("document.activeElement.id || document.activeElement.className")

    assert focused() == "question"
    page.keyboard.type("wrong")
    press("Escape")
    assert page.input_value("#question") == ""
    page.keyboard.type(QUESTION)
    press("Enter")
    page.wait_for_selector("#answer")
    page.locator(".evidence .place").focus()
    press("Enter")
    page.wait_for_selector("#reader mark")
    assert focused() == "reader-title"
    press("Escape")
    page.wait_for_selector("#reader", state="hidden")

    page.locator("#tab-documents").focus()
    press("ArrowRight")
    assert focused() == "tab-training"
    press("Home")
    assert focused() == "tab-ask"
    page.wait_for_selector("#tab-ask[tabindex='0']")  # the address changes a moment later
    assert page.get_attribute("#tab-training", "tabindex") == "-1"
    assert page.is_visible("#panel-ask")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press("/")
    assert focused() == "question"


def test_the_focus_comes_back_to_the_link_that_opened_a_document(
    site: Any, visit: Make, ask: Make
) -> None:
    site.put("euler.md", FERMAT.replace("Fermat", "Euler"))
    site.put("fermat.md", FERMAT)
    page = visit(site)
    focused = "document.activeElement.textContent"
    ask(page, QUESTION)
    link = page.locator(".evidence .place")
    link.focus()
    link.press("Enter")
    page.wait_for_selector("#reader mark")
    page.go_back()
    page.wait_for_selector("#panel-ask:not([hidden])")
    assert page.evaluate(focused) == link.text_content()

    page.click("#tab-documents")
    page.wait_for_selector("#reader mark")  # where one last was
    page.keyboard.press("Shift+Tab")
    page.click(".back")
    page.wait_for_selector(".document-link")
    for name in ("Fermat", "Euler"):
        page.locator(".document-link", has_text=name).press("Enter")
        page.wait_for_selector("#reader-title")
        page.keyboard.press("Escape")
        page.wait_for_selector("#reader", state="hidden")
        page.wait_for_function(f"{focused}.includes({name!r})")


def test_it_fits_a_phone_and_can_be_read_in_the_light_and_in_the_dark(
    open_site: Make, visit: Make, run: Path, ask: Make
) -> None:
    site = open_site(runs=[run.parent])
    contrast = CONTRAST.read_text()
    site.put("a/" + "long-name-" * 12 + ".md", FERMAT + "x" * 300)
    page = visit(site, viewport={"width": 360, "height": 740})
    ask(page, QUESTION)
    for tab, ready in (
        ("ask", "#answer"),
        ("fill", "#fill-result > *"),
        ("documents", ".document-link"),
        ("training", ".curve"),
    ):
        page.click(f"#tab-{tab}")
        page.wait_for_selector(ready)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(contrast) == [], (tab, scheme)
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (min(map(int, re.findall(r"\d+", ground))) > 128) == (scheme == "light")


def test_a_token_is_asked_for_and_kept(
    open_site: Make, visit: Make, ask: Make, shows: Make
) -> None:
    site = open_site(token=TOKEN)
    site.put("fermat.md", FERMAT)
    page = visit(site)
    for token in ("wrong", TOKEN):
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token", token)
        page.press("#token", "Enter")
    shows(page, "#facts", "Documents")
    ask(page, QUESTION)
    page.reload()
    ask(page, QUESTION)
    assert page.is_hidden("#token-dialog")


def test_a_token_that_no_browser_can_send_is_told_so_and_not_kept(
    open_site: Make, visit: Make, shows: Make
) -> None:
    page = visit(open_site(token=TOKEN))
    page.wait_for_selector("#token-dialog[open]")
    page.fill("#token", "\u201c" + TOKEN)
    page.press("#token", "Enter")
    shows(page, "#token-wrong", "no browser can send")
    page.fill("#token", TOKEN)
    page.press("#token", "Escape")  # no token is given after all
    page.wait_for_selector("#token-dialog", state="hidden")
    shows(page, "#facts", "token_refused")
    page.reload()
    page.wait_for_selector("#token-dialog[open]")
    page.fill("#token", TOKEN)
    page.press("#token", "Enter")
    shows(page, "#facts", "Documents")


def test_the_files_of_the_page_are_not_counted_as_requests(open_site: Make, visit: Make) -> None:
    site = open_site(limits=Limits(requests_per_second=0.01, burst=16))
    page = visit(site)
    page.wait_for_selector("#ask-result .notice")
    page.reload()
    page.wait_for_selector("#ask-result .notice")
