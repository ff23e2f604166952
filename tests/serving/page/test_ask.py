"""The tab "Ask": answers, their words in context, and the way to their place."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

Make = Callable[..., Any]
FERMAT = "# Fermat\n\nFermat was born in 1607 in Toulouse. Fermat worked as a lawyer.\n"
QUESTION = "where was fermat born"


def test_an_answer_stands_marked_in_its_passage_and_in_its_document(
    site: Any, visit: Make, ask: Make, shows: Make
) -> None:
    site.put("town/fermat.md", FERMAT)
    page = visit(site)
    ask(page, QUESTION)
    told = site.answer(QUESTION)
    best = told["answers"][0]
    assert page.inner_text("#answer") == best["text"]
    shows(page, "#ask-said", f"Answer: {best['text']}. Probability")  # to a screen reader
    assert page.inner_text(".said .p-value") == f"{best['probability']:.3f}"
    assert page.inner_text(".tag") == "not calibrated"
    assert page.inner_text(".evidence mark") == best["text"]
    assert page.locator(".read li").count() == len(told["passages"])
    assert page.inner_text(".evidence .place") == f"town/fermat.md:{best['line']}"

    page.click(".evidence .place")
    page.wait_for_selector("#reader mark")
    assert "".join(page.locator("#reader mark").all_inner_texts()) == best["text"]
    assert page.get_attribute(".line:has(mark)", "data-line") == str(best["line"])
    assert page.get_attribute("#tab-documents", "aria-selected") == "true"
    page.go_back()
    page.wait_for_selector("#panel-ask:not([hidden])")
    assert page.inner_text("#answer") == best["text"]


def test_the_same_text_in_other_documents_is_named_and_linked(
    site: Any, visit: Make, ask: Make
) -> None:
    """Names are text, whatever they look like; where there are none, nothing is shown."""
    site.put("fermat.md", FERMAT)
    page = visit(site)
    ask(page, QUESTION)
    assert page.locator(".evidence .also").count() == 0
    names = ["fermat.md", "old/fermat.md", "z<img src=x onerror=alert(1)>.md"]
    for name in names[1:]:
        site.put(name, FERMAT)
    page = visit(site)
    ask(page, QUESTION)
    best = site.answer(QUESTION)["answers"][0]
    places = [f"{one['document']}:{one['line']}" for one in best["same_text"]]
    assert sorted([f"{best['document']}:{best['line']}", *places]) == sorted(
        f"{name}:{best['line']}" for name in names
    )
    assert page.inner_text(".evidence .also") == f"Also in {', '.join(places)}"
    assert any("<img" in place for place in places)
    assert page.locator(".evidence img").count() == 0

    page.click(".evidence .also .place >> nth=1")
    page.wait_for_selector("#reader mark")
    assert "".join(page.locator("#reader mark").all_inner_texts()) == best["text"]
    assert best["same_text"][1]["document"] in page.inner_text("#reader")


def test_an_address_asks_its_question(site: Any, visit: Make, ask: Make, shows: Make) -> None:
    site.put("fermat.md", FERMAT)
    page = visit(site, "#ask?q=where+was+fermat+born&n=2")
    page.wait_for_selector("#answer")
    assert page.input_value("#question") == QUESTION
    assert page.locator(".answer-row").count() == 2
    ask(page, "who worked as a lawyer")
    assert "q=who+worked" in page.url
    page.go_back()
    shows(page, "#answer", site.answer(QUESTION)["answers"][0]["text"])
    assert page.input_value("#question") == QUESTION


def test_another_answer_shows_its_own_evidence(site: Any, visit: Make, ask: Make) -> None:
    site.put("fermat.md", FERMAT)
    page = visit(site)
    ask(page, QUESTION)
    second = site.answer(QUESTION)["answers"][1]
    page.locator(".answer-row").nth(1).click()
    assert page.inner_text(".evidence mark") == second["text"]
    assert page.get_attribute(".answer-row >> nth=1", "aria-current") == "true"


def test_no_answer_says_why_and_shows_its_guess_on_demand(
    site: Any, visit: Make, ask: Make, shows: Make
) -> None:
    site.put("fermat.md", FERMAT)
    page = visit(site)
    page.fill("#ask-min", "1")
    ask(page, QUESTION)
    assert page.inner_text("#answer") == "No answer"
    best = site.answer(QUESTION)["answers"][0]
    assert f"p = {best['probability']:.3f}; less than 1.000" in page.inner_text(".why")
    page.click("#anyway")
    shows(page, "#answer", best["text"])
    assert "min=0" in page.url


def test_a_guess_is_not_offered_where_there_is_none(site: Any, visit: Make, shows: Make) -> None:
    site.put("fermat.md", FERMAT)
    told = {**site.answer(QUESTION), "answer": None, "answers": [], "min_probability": 0.5}
    page = visit(site)
    page.route("**/answer", lambda route: route.fulfill(json=told))
    page.evaluate("location.hash = '#ask?q=where'")
    shows(page, ".why", "No passage that was read holds one.")
    assert page.locator("#anyway").count() == 0


def test_a_probability_that_may_be_off_says_why(site: Any, visit: Make, shows: Make) -> None:
    site.put("fermat.md", FERMAT)
    why = "it was calibrated reading 5 passages, not 1"
    told = {**site.answer(QUESTION), "calibrated": True, "why_inexact": why}
    page = visit(site)
    page.route("**/answer", lambda route: route.fulfill(json=told))
    page.evaluate("location.hash = '#ask?q=where&read=1'")
    shows(page, ".doubt", f"Probabilities may be off: {why}.")
    told = {**told, "answer": None, "min_probability": 1.0}
    page.evaluate("location.hash = '#ask?q=who&read=1'")
    shows(page, "#answer", "No answer")
    shows(page, ".doubt", f"Probabilities may be off: {why}.")
    told = {**told, "why_inexact": None}
    page.evaluate("location.hash = '#ask?q=when'")
    page.wait_for_selector("#answer")
    assert page.locator(".doubt").count() == 0


def test_words_after_astral_and_combining_characters_are_marked_right(
    site: Any, visit: Make, ask: Make
) -> None:
    heading = "# Fermat \U0001f468\u200d\U0001f469\u200d\U0001f467\n\n"
    text = heading + (
        "\U0001f600\U0001f600 \U0001d518 cafe\u0301 e\u0308\u0301 Fermat was born in 1607"
        " \U0001f5fc in Toulouse. \U0001f680 Fermat worked as a lawyer."
    )
    site.put("fermat.md", text)
    page = visit(site)
    page.fill("#ask-answers", "12")
    ask(page, QUESTION)
    answers = site.answer(QUESTION, num_answers=12)["answers"]
    astral = next(n for n, answer in enumerate(answers) if answer["start"] > 20)
    page.locator(".answer-row").nth(astral).click()
    chosen = answers[astral]
    assert page.text_content(".evidence mark") == chosen["text"]
    assert text[chosen["start"] : chosen["end"]] == chosen["text"]
    before = page.evaluate("document.querySelector('.evidence mark').previousSibling.data")
    assert chosen["passage"]["start"] == 0
    assert before == text[len(heading) : chosen["start"]]
    page.click(".evidence .place")
    page.wait_for_selector("#reader mark")
    assert page.text_content("#reader mark") == chosen["text"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "Found no question"),
        ("why " * 200, "expected"),
        ("x" * 5000, "at most 4000 characters"),
    ],
    ids=["empty", "longer than the model reads", "longer than the server takes"],
)
def test_a_question_that_cannot_be_asked_is_told_so(
    site: Any, visit: Make, question: str, message: str, ask: Make, shows: Make
) -> None:
    site.put("fermat.md", FERMAT)
    page = visit(site)
    page.fill("#question", question)
    page.press("#question", "Enter")
    shows(page, ".notice.alarm", message)
    ask(page, QUESTION)
    assert page.locator(".notice.alarm").count() == 0


def test_a_server_that_is_gone_is_told_so(site: Any, visit: Make, shows: Make) -> None:
    page = visit(site)
    page.route("**/answer", lambda route: route.abort())
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    shows(page, ".notice.alarm", "The server does not answer")


def test_an_earlier_question_takes_nothing_from_a_later_one(
    site: Any, visit: Make, shows: Make
) -> None:
    site.put("fermat.md", FERMAT)
    page = visit(site)
    held: list[Any] = []
    asked: list[str] = []

    def hold_first(route: Any) -> None:
        asked.append(route.request.post_data_json["question"])
        if len(asked) == 1:
            held.append(route)
        else:
            route.continue_()

    page.route("**/answer", hold_first)
    page.evaluate("location.hash = '#ask?q=first'")
    page.wait_for_selector("#ask-result[aria-busy=true]")
    page.evaluate("location.hash = '#ask?q=second'")
    page.wait_for_selector("#answer")
    page.click("#tab-documents")
    page.click("#tab-ask")
    page.wait_for_timeout(200)
    assert asked == ["first", "second"]  # what was answered is not asked again

    asked.clear()
    page.evaluate("location.hash = '#ask?q=third'")
    page.wait_for_selector("#ask-result[aria-busy=true]")
    page.evaluate("location.hash = '#ask?q=fourth&n=99'")
    shows(page, "#ask-result", "Found another number of answers")
    with suppress(Exception):  # the page has given it up
        held[-1].continue_()
    page.wait_for_timeout(500)
    shows(page, "#ask-result", "Found another number of answers")

    page.evaluate("location.hash = '#ask?q=fifth'")
    page.wait_for_selector("#answer")
    page.fill("#ask-answers", "99")
    page.press("#question", "Enter")
    shows(page, "#ask-result", "Found another number of answers")
    page.click("#tab-documents")
    page.click("#tab-ask")
    page.wait_for_selector("#answer")  # the question that stands there is answered again
