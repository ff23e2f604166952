"""The tab "Fill the blank": Table 3 for any sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Make = Callable[..., Any]
FERMAT = "# Fermat\n\nFermat was born in 1607 in Toulouse. Fermat worked as a lawyer.\n"
EULER = "# Euler\n\nEuler was born in 1707 in Basel. Euler worked as a teacher.\n"


def test_a_word_is_blanked_and_a_model_without_an_encoder_says_so(
    site: Any, visit: Make, shows: Make
) -> None:
    page = visit(site, "#fill")
    shows(page, "#fill-result", "realm serve --encoder RUN")
    page.fill("#sentence", "Fermat was born in Toulouse.")
    page.evaluate("document.querySelector('#sentence').setSelectionRange(19, 27)")
    page.click("#blank")
    assert page.input_value("#sentence") == "Fermat was born in [MASK]."
    assert page.input_value("#fill-answer") == "Toulouse"
    page.evaluate("document.querySelector('#sentence').setSelectionRange(0, 6)")
    page.click("#blank")
    assert page.input_value("#sentence") == "[MASK] was born in Toulouse."
    assert page.input_value("#fill-answer") == "Fermat"
    with page.expect_response("**/explain") as told:
        page.click("#fill-button")
    assert told.value.status == 409
    shows(page, "#fill-result", "This model cannot fill blanks")


def test_a_sentence_without_a_blank_is_told_so(site: Any, visit: Make, shows: Make) -> None:
    page = visit(site, "#fill")
    page.fill("#sentence", "Fermat was born in Toulouse.")
    page.press("#sentence", "Enter")
    shows(page, ".notice.alarm", "Found no [MASK]")


def test_table_3_comes_alive(open_site: Make, visit: Make, encoder: Path) -> None:
    site = open_site(encoder=encoder)
    site.put("fermat.md", FERMAT)
    site.put("euler.md", EULER)
    page = visit(site, "#fill")
    page.fill("#sentence", "Fermat was born in [MASK] .")
    page.fill("#fill-answer", "toulouse")
    page.fill("#fill-candidates", "3")
    page.press("#sentence", "Enter")
    page.wait_for_selector(".table3")
    told = site.post(
        "/explain", sentence="Fermat was born in [MASK] .", answer="toulouse", num_candidates=3
    )
    assert page.inner_text(".filled") == "Fermat was born in toulouse ."
    rows = page.locator(".table3 tbody tr")
    assert rows.count() == len(told["candidates"]) == 3
    assert "Null passage" in rows.first.inner_text()
    for number, candidate in enumerate(told["candidates"]):
        side = "harms" if candidate["utility"] < 0 else "helps"
        assert rows.nth(number).locator(f".utility.{side}").count() == 1
    page.go_back()
    page.wait_for_selector("#fill-result .welcome")
