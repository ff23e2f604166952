"""The tab "Documents": they come, are read, go, and come back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Make = Callable[..., Any]
FERMAT = "# Fermat\n\nFermat was born in 1607 in Toulouse. Fermat worked as a lawyer.\n"
EULER = "# Euler\n\nEuler was born in 1707 in Basel. Euler worked as a teacher.\n"
QUESTION = "where was fermat born"


def test_a_document_comes_is_asked_goes_and_comes_back(
    site: Any, visit: Make, tmp_path: Path, ask: Make, shows: Make
) -> None:
    (tmp_path / "euler.md").write_text(EULER)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    page = visit(site)
    shows(page, "#ask-result", "There are no documents yet")
    page.click("#tab-documents")
    shows(page, "#listing", "There are no documents yet")
    page.set_input_files("#files", [tmp_path / "photo.png", tmp_path / "euler.md"])
    shows(page, ".upload.failed", "Found another kind of file")
    shows(page, ".upload.done", "Added")
    shows(page, "#listing", "euler.md")

    page.click("#tab-ask")
    ask(page, "where was euler born")
    assert page.inner_text(".evidence .place").startswith("euler.md:")

    page.click("#tab-documents")
    page.click(".acts button")
    shows(page, "#uploads", "Removed euler.md")
    shows(page, "#listing", "There are no documents yet")
    assert site.answer("where was euler born")["answer"] is None
    page.click("#tab-ask")
    shows(page, "#answer", "No answer")
    shows(page, ".why", "There are no documents to find it in.")

    page.click("#tab-documents")
    page.click("#undo")
    shows(page, "#listing", "euler.md")
    assert site.document("euler.md")["text"] == EULER


def test_undo_is_not_offered_where_the_server_would_not_take_it_back(
    site: Any, visit: Make, shows: Make
) -> None:
    site.put("euler.md", EULER)
    page = visit(site, "#documents")
    empty = json.dumps({"id": "euler.md", "text": " \n", "title": "", "format": "markdown"})

    def as_empty(route: Any) -> None:  # as a library can hold it
        if route.request.method == "GET":
            route.fulfill(body=empty, content_type="application/json")
        else:
            route.continue_()

    page.route("**/documents/euler.md", as_empty)
    page.click(".acts button")
    shows(page, "#uploads", "It cannot be brought back from here")
    shows(page, "#documents-said", "It cannot be brought back from here")
    assert page.locator("#undo").count() == 0
    shows(page, "#listing", "There are no documents yet")
    site.put("long.md", f"# {'Euler ' * 800}\n\n{EULER}")
    page.reload()
    page.click(".acts button")
    shows(page, "#uploads", "It cannot be brought back from here")


def test_undo_stays_where_it_did_not_work(site: Any, visit: Make, shows: Make) -> None:
    site.put("euler.md", EULER)
    page = visit(site, "#documents")
    page.click(".acts button")
    page.wait_for_selector("#undo")
    page.route("**/documents", lambda route: route.abort())
    page.click("#undo")
    shows(page, "#uploads", "euler.md was not put back")
    page.unroute("**/documents")
    page.click("#undo")
    shows(page, "#documents-said", "euler.md is back")
    assert site.document("euler.md")["text"] == EULER


def test_a_second_click_on_remove_leaves_the_way_back(site: Any, visit: Make, shows: Make) -> None:
    site.put("euler.md", EULER)
    site.put("fermat.md", FERMAT)
    page = visit(site, "#documents")
    held: list[Any] = []

    def hold(route: Any) -> None:
        if route.request.method == "DELETE":
            held.append(route)
        else:
            route.continue_()

    page.route("**/documents/euler.md", hold)
    page.click(".acts button >> nth=0")
    page.click(".acts button >> nth=0")  # nothing has happened yet, for all one sees
    page.wait_for_timeout(300)
    for route in held:
        route.continue_()
    shows(page, "#how-many", "1 document")
    page.wait_for_timeout(300)
    page.click("#undo")
    shows(page, "#how-many", "2 documents")


def test_a_pasted_text_becomes_a_document(site: Any, visit: Make, shows: Make) -> None:
    page = visit(site, "#documents")
    page.click("#paste")
    page.click("#paste-form >> text=Add the text")
    shows(page, ".upload.failed", "Found no text")
    page.fill("#paste-id", "minutes")
    page.fill("#paste-text", FERMAT)
    page.click("#paste-form >> text=Add the text")
    shows(page, ".upload.done", "Added")
    assert site.document("minutes.md")["text"] == FERMAT
    page.wait_for_selector("#paste-form", state="hidden")


def test_a_text_that_is_written_while_another_is_added_stays(
    site: Any, visit: Make, shows: Make
) -> None:
    page = visit(site, "#documents")
    held: list[Any] = []

    def hold(route: Any) -> None:
        if route.request.method == "POST":
            held.append(route)
        else:
            route.continue_()

    page.route("**/documents", hold)
    page.click("#paste")
    page.fill("#paste-text", FERMAT)
    page.click("#paste-form >> text=Add the text")
    shows(page, ".upload-state", "Indexing")
    page.fill("#paste-text", EULER)
    held[0].continue_()
    shows(page, ".upload.done", "Added")
    page.wait_for_timeout(300)
    assert page.input_value("#paste-text") == EULER
    assert page.is_visible("#paste-form")


def test_indexing_shows_its_progress(site: Any, visit: Make, tmp_path: Path, shows: Make) -> None:
    (tmp_path / "euler.md").write_text(EULER)
    page = visit(site, "#documents")
    held: list[Any] = []

    def hold(route: Any) -> None:
        if route.request.method == "POST":
            held.append(route)
        else:
            route.continue_()

    told = json.dumps({"done": 3, "total": 8})
    page.route("**/documents", hold)
    page.route(
        "**/documents/progress",
        lambda route: route.fulfill(body=told, content_type="application/json"),
    )
    page.set_input_files("#files", tmp_path / "euler.md")
    shows(page, ".upload-state", "3 of 8 passages")
    assert page.evaluate("document.querySelector('.upload-progress').value") == 3
    held[0].continue_()
    shows(page, ".upload.done", "Added")


def test_files_under_way_stay_shown_beside_others(
    site: Any, visit: Make, tmp_path: Path, shows: Make
) -> None:
    site.put("gauss.md", "Gauss was born in 1777 in Brunswick.")
    for name, text in (("euler", EULER), ("fermat", FERMAT)):
        (tmp_path / f"{name}.md").write_text(text)
    page = visit(site, "#documents")
    held: list[Any] = []

    def hold_first(route: Any) -> None:
        if route.request.method == "POST" and not held:
            held.append(route)
        else:
            route.continue_()

    page.route("**/documents", hold_first)
    page.set_input_files("#files", tmp_path / "euler.md")
    shows(page, ".upload", "Indexing")
    page.set_input_files("#files", tmp_path / "fermat.md")
    page.click(".acts button")
    shows(page, "#uploads", "Removed gauss.md")
    names = page.locator(".upload-name")
    assert names.all_inner_texts() == ["euler.md", "fermat.md"]
    held[0].continue_()
    page.wait_for_selector(".upload.done >> nth=1")
    assert names.all_inner_texts() == ["euler.md", "fermat.md"]
    page.click("#undo")
    shows(page, "#documents-said", "gauss.md is back")


def test_a_script_in_a_document_stays_text(site: Any, visit: Make, shows: Make) -> None:
    nasty = "<script>window.caught = 1</script><img src=x onerror='window.caught = 2'>"
    site.put("fermat <b>.md", f"# {nasty}\n\n{nasty} Fermat was born in 1607. {nasty}\n")
    page = visit(site, "#ask?q=<b onclick=x>where was fermat")
    page.wait_for_selector("#answer")
    page.locator(".passage summary").first.click()
    page.click("#tab-documents")
    shows(page, "#listing", nasty)
    page.click(".document-link")
    shows(page, "#reader", nasty)
    assert page.evaluate("window.caught") is None
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 0


def test_a_record_of_json_lines_opens_as_its_own_text(site: Any, visit: Make, ask: Make) -> None:
    records = [
        {"id": name, "title": name, "text": text.split("\n")[2]}
        for name, text in (("Euler", EULER), ("Fermat", FERMAT))
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    site.put("people.jsonl", lines, format="jsonl")
    page = visit(site)
    ask(page, QUESTION)
    best = site.answer(QUESTION)["answers"][0]
    page.click(".evidence .place")
    page.wait_for_selector("#reader mark")
    assert page.text_content("#reader mark") == best["text"]
    assert f"record on line {best['line']}" in page.inner_text("#reader")


def test_a_document_that_is_not_there_is_told_so(site: Any, visit: Make, shows: Make) -> None:
    page = visit(site, "#documents?id=gone.md")
    shows(page, "#reader .notice.alarm", "gone.md")
    page.click(".back")
    shows(page, "#listing", "There are no documents yet")


def test_files_are_dropped_anywhere(site: Any, visit: Make, shows: Make) -> None:
    page = visit(site)
    page.evaluate(
        """() => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File(["Euler was born in 1707."], "euler.txt"));
          dataTransfer.items.add(new File([""], "empty.txt"));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
        }"""
    )
    shows(page, ".upload.done", "Added")
    shows(page, ".upload.failed", "Found an empty file")
    shows(page, "#listing", "euler.txt")
    assert page.is_visible("#panel-documents")


def test_one_of_many_documents_is_found_by_its_name(site: Any, visit: Make, shows: Make) -> None:
    for number in range(13):
        site.put(f"letters/{number}.txt", FERMAT, format="text")
    page = visit(site, "#documents")
    shows(page, "#how-many", "13 documents")
    page.fill("#find", "letters 12")
    assert page.locator(".document-link").count() == 1
    page.press("#find", "Escape")
    assert page.locator(".document-link").count() == 13


def test_a_name_that_is_being_written_goes_on_when_the_listing_is_drawn_anew(
    site: Any, visit: Make, tmp_path: Path, shows: Make
) -> None:
    for number in range(13):
        site.put(f"letters/{number}.txt", FERMAT, format="text")
    (tmp_path / "letter-12.md").write_text(EULER)
    page = visit(site, "#documents")
    shows(page, "#how-many", "13 documents")
    page.type("#find", "letter 1")
    page.press("#find", "ArrowLeft")
    page.set_input_files("#files", tmp_path / "letter-12.md")
    shows(page, "#how-many", "14 documents")
    page.keyboard.type("s")
    assert page.input_value("#find") == "letter s1"


def test_an_earlier_listing_takes_nothing_from_a_later_one(
    site: Any, visit: Make, shows: Make
) -> None:
    site.put("fermat.md", FERMAT)
    page = visit(site)
    held: list[Any] = []

    def hold_first(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    page.route("**/documents", hold_first)
    page.click("#tab-documents")
    page.wait_for_timeout(200)
    site.put("euler.md", EULER)
    page.click("#tab-ask")
    page.click("#tab-documents")
    shows(page, "#how-many", "2 documents")
    route, response = held[0]
    route.fulfill(response=response)
    page.wait_for_timeout(300)
    shows(page, "#how-many", "2 documents")


def test_many_documents_are_in_order_at_once(site: Any, visit: Make, shows: Make) -> None:
    """A browser takes seconds for 20,000 names where it looks up how to compare each two anew."""
    count = 1_000
    told = [
        {
            "id": f"{number}.txt",
            "title": f"Letter {number}",
            "num_characters": 1,
            "num_passages": 1,
            "added_at": "2026-01-01T00:00:00Z",
        }
        for number in reversed(range(count))
    ]
    body = json.dumps({"documents": told, "num_passages": count})
    page = visit(site)
    page.evaluate(
        """() => {
          window.compared = 0;
          const compare = String.prototype.localeCompare;
          String.prototype.localeCompare = function (...told) {
            window.compared += 1;
            return compare.apply(this, told);
          };
        }"""
    )
    page.route(
        "**/documents", lambda route: route.fulfill(body=body, content_type="application/json")
    )
    page.click("#tab-documents")
    shows(page, ".document-link", "Letter 0")
    shows(page, ".document-link >> nth=2", "Letter 2")
    assert page.evaluate("window.compared") == 0
