"""Offsets count code points, a browser counts UTF-16 units: what is marked is what is meant."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]
LETTERS = "a e\u0301\u00df\u0130\u65e5\ud55c\n\U0001d49c\U0001f469\u200d\U0001f467\u05e9\u202e"
MARKED = """
async (cases) => {
  const { countPoints, unitIndex, withRange } = await import("/text.js");
  return cases.map(([text, start, end]) => {
    const wrap = (words) => Object.assign(document.createElement("mark"), { textContent: words });
    const nodes = withRange(text, start, end, wrap);
    const marked = nodes.find((node) => node.nodeName === "MARK")?.textContent ?? "";
    const all = nodes.map((node) => node.textContent).join("");
    return [countPoints(text), unitIndex(text, start), marked, all];
  });
}
"""
BODIES = """
async (texts) => {
  const { body } = await import("/evidence.js");
  return texts.map((text) => body({ title: "Fermat", text }));
}
"""


def test_a_range_of_code_points_is_marked_in_any_text(site: Any, visit: Make) -> None:
    rng = random.Random(0)  # noqa: S311 - nothing secret
    cases: list[tuple[str, int, int]] = []
    for _ in range(300):
        text = "".join(rng.choices(LETTERS, k=rng.randint(1, 40)))
        start = rng.randint(0, len(text) - 1)
        cases.append((text, start, rng.randint(start + 1, len(text))))
    page = visit(site)
    for (text, start, end), told in zip(cases, page.evaluate(MARKED, cases), strict=True):
        before = len(text[:start].encode("utf-16-le")) // 2
        assert told == [len(text), before, text[start:end], text]


def test_lines_that_end_as_on_windows_flow_as_others_do(site: Any, visit: Make) -> None:
    text = "# Fermat\n\nFermat was born\nin 1607.\n\n- a list\n- of two\n\nThe end."
    page = visit(site)
    told = page.evaluate(BODIES, [text, text.replace("\n", "\r\n")])
    assert told[0] == "Fermat was born in 1607.\n\n- a list\n- of two\n\nThe end."
    assert told[1].replace("  ", " ").replace("\r\n", "\n") == told[0]
    assert len(told[1]) == len(text.replace("\n", "\r\n")) - len("# Fermat\r\n\r\n")


def test_an_answer_in_a_record_is_marked_in_the_record(site: Any, visit: Make, ask: Make) -> None:
    text = "\U0001d49c\U0001f469\u200d\U0001f467 cafe\u0301: fermat was born in 1607 in Toulouse."
    record = json.dumps({"id": "x", "text": text}, ensure_ascii=False)
    site.put("x.jsonl", f"\ufeff{record}\n", format="jsonl")
    page = visit(site)
    ask(page, "where was fermat born")
    (best, *_) = site.answer("where was fermat born")["answers"]
    assert text[best["start"] : best["end"]] == best["text"]
    page.click(".evidence .place")
    page.wait_for_selector("#reader mark")
    assert page.text_content("#reader mark") == best["text"]


def test_a_record_that_a_browser_cannot_read_is_shown_without_a_wrong_mark(
    site: Any, visit: Make, ask: Make, shows: Make
) -> None:
    """Python's JSON knows NaN, JavaScript's does not."""
    site.put("x.jsonl", '{"n": NaN, "text": "Fermat was born in Toulouse."}', format="jsonl")
    page = visit(site)
    ask(page, "where was fermat born")
    page.click(".evidence .place")
    shows(page, "#reader", "NaN")
    assert page.locator("#reader mark").count() == 0


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("The cafe\u0301 closes.", "cafe\u0301"),
        ("See \U0001d49c\U0001d4b7\U0001d4b8 here.", "\U0001d49c\U0001d4b7\U0001d4b8"),
        ("\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd is peace.", "\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd"),
        ("In \u0928\u092e\u0938\u094d\u0924\u0947 too.", "\u0928\u092e\u0938\u094d\u0924\u0947"),
    ],
    ids=["accents", "beyond 16 bits", "from the right", "marks inside"],
)
def test_the_word_at_the_cursor_is_blanked_whole(
    site: Any, visit: Make, sentence: str, word: str
) -> None:
    page = visit(site, "#fill")
    page.fill("#sentence", sentence)
    at = len(sentence[: sentence.index(word)].encode("utf-16-le")) // 2
    for inside in (at, at + len(word.encode("utf-16-le")) // 2):
        page.fill("#sentence", sentence)
        page.evaluate(f"document.querySelector('#sentence').setSelectionRange({inside}, {inside})")
        page.click("#blank")
        assert page.input_value("#sentence") == sentence.replace(word, "[MASK]")
        assert page.input_value("#fill-answer") == word
