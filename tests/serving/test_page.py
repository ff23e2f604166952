"""The page in a real browser: what people see, press and read, against the real server."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import realm
from realm.checkpoint.checkpoints import Model, save_checkpoint
from realm.serving.settings import Access
from realm.storage import REQUEST, locked, write_json
from realm.tokenizer import WordpieceTokenizer

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 20_000
FERMAT = "# Fermat\n\nFermat was born in 1607 in Toulouse. Fermat worked as a lawyer.\n"
EULER = "# Euler\n\nEuler was born in 1707 in Basel. Euler worked as a teacher.\n"
QUESTION = "where was fermat born"
CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const lum = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return parts(getComputedStyle(document.body).backgroundColor);
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest("svg, .visually-hidden, noscript, dialog") || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const [a, b] = [lum(parts(style.color)), lum(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${e.textContent.slice(0, 30)}`);
  }
  return poor;
}"""

Make = Callable[..., Any]
playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed (the dev extra has it)"
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield launched
        launched.close()


@dataclass(frozen=True, kw_only=True)
class Site:
    """A server, asked beside the browser for what the page should show."""

    client: httpx.Client

    @property
    def address(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def post(self, path: str, **asked: object) -> dict[str, Any]:
        response = self.client.post(path, json=asked)
        assert response.status_code == 200, response.text
        return response.json()

    def put(self, id: str, text: str, *, format: str = "markdown") -> None:  # noqa: A002
        self.post("/documents", id=id, text=text, format=format)

    def answer(self, question: str, **choices: object) -> dict[str, Any]:
        return self.post("/answer", question=question, **choices)

    def document(self, id: str) -> dict[str, Any]:  # noqa: A002
        return self.client.get(f"/documents/{id}").json()


@pytest.fixture
def open_site(serve: Make, make_packed: Make, tmp_path: Path) -> Iterator[Make]:
    """Start a server with a tiny untrained model and an empty library."""
    with ExitStack() as opened:

        def start(
            *, token: str | None = None, runs: Sequence[Path] = (), encoder: Path | None = None
        ) -> Site:
            model = opened.enter_context(
                realm.load(make_packed(), library=tmp_path / "library", encoder=encoder)
            )
            client = serve(model, access=Access(token=token) if token else None, runs=runs)
            if token:
                client.headers["Authorization"] = f"Bearer {token}"
            return Site(client=client)

        yield start


@pytest.fixture
def encoder(
    tokenizer: WordpieceTokenizer, make_towers: Make, make_encoder: Make, tmp_path: Path
) -> Path:
    """What `realm pretrain` leaves, untrained."""
    model = Model(tokenizer=tokenizer, towers=make_towers(), encoder=make_encoder())
    save_checkpoint(tmp_path / "encoder", model, settings={}, inputs={})
    return tmp_path / "encoder"


@pytest.fixture
def site(open_site: Make) -> Site:
    return open_site()


def write_metrics(run: Path, steps: Iterable[int]) -> None:
    """Append to a run's log, as its trainer does; loss is 8 / step."""
    with (run / "metrics.jsonl").open("a") as log:
        for step in steps:
            line = {
                "step": step,
                "loss": 8 / step,
                "utility/marginal_minus_null": step / 10,
                "index/staleness_steps": (step - 1) % 4,
                "index/refreshed": float(step % 4 == 1),
            }
            log.write(json.dumps(line) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A folder as `realm pretrain` has it while it trains."""
    run = tmp_path / "runs" / "pretraining"
    run.mkdir(parents=True)
    settings = {"stage": "pretrain", "steps": 20}
    write_json(run / REQUEST, {"kind": "run", "settings": settings})
    write_metrics(run, range(1, 9))
    with locked(run):
        yield run


@pytest.fixture
def visit(browser: Any) -> Iterator[Make]:
    """Open a page; at the end nothing may have left its origin, nor any error been logged."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def watch(page: Any, address: str) -> None:
        def on_console(message: Any) -> None:
            # A refusal is shown by the page; the browser logs its status as well.
            if message.type == "error" and "Failed to load resource" not in message.text:
                complaints.append(message.text)

        def on_request(request: Any) -> None:
            if not request.url.startswith(f"{address}/"):
                complaints.append(f"request to {request.url}")

        page.on("console", on_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", on_request)

    def open_page(site: Any, where: str = "", **options: Any) -> Any:
        context = browser.new_context(reduced_motion="reduce", **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watch(page, site.address)
        page.goto(f"{site.address}/{where}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def ask(page: Any, question: str) -> None:
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_selector("#answer")
    page.wait_for_selector("#ask-result[aria-busy=false]")


def shows(page: Any, selector: str, text: str) -> None:
    """Wait until the first element that a selector finds has a text."""
    playwright_api.expect(page.locator(selector).first).to_contain_text(text, timeout=PATIENCE_MS)


def test_an_answer_stands_marked_in_its_passage_and_in_its_document(site: Any, visit: Make) -> None:
    site.put("town/fermat.md", FERMAT)
    page = visit(site)
    ask(page, QUESTION)
    told = site.answer(QUESTION)
    best = told["answers"][0]
    assert page.inner_text("#answer") == best["text"]
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


def test_an_address_asks_its_question(site: Any, visit: Make) -> None:
    site.put("fermat.md", FERMAT)
    page = visit(site, "#ask?q=where+was+fermat+born&n=2")
    page.wait_for_selector("#answer")
    assert page.input_value("#question") == QUESTION
    assert page.locator(".answer-row").count() == 2
    ask(page, "who worked as a lawyer")
    assert "q=who+worked" in page.url
    page.go_back()
    playwright_api.expect(page.locator("#question")).to_have_value(QUESTION)


def test_another_answer_shows_its_own_evidence(site: Any, visit: Make) -> None:
    site.put("fermat.md", FERMAT)
    page = visit(site)
    ask(page, QUESTION)
    second = site.answer(QUESTION)["answers"][1]
    page.locator(".answer-row").nth(1).click()
    assert page.inner_text(".evidence mark") == second["text"]
    assert page.get_attribute(".answer-row >> nth=1", "aria-current") == "true"


def test_no_answer_says_why_and_shows_its_guess_on_demand(site: Any, visit: Make) -> None:
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


def test_a_document_comes_is_asked_goes_and_comes_back(
    site: Any, visit: Make, tmp_path: Path
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


def test_a_pasted_text_becomes_a_document(site: Any, visit: Make) -> None:
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


def test_indexing_shows_its_progress(site: Any, visit: Make, tmp_path: Path) -> None:
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


def test_a_script_in_a_document_stays_text(site: Any, visit: Make) -> None:
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


def test_words_after_astral_and_combining_characters_are_marked_right(
    site: Any, visit: Make
) -> None:
    text = (
        "# Fermat \U0001f468\u200d\U0001f469\u200d\U0001f467\n\n"
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
    passage_start = chosen["passage"]["start"]
    assert before == re.sub(r"(?<!\n)\n(?!\n)", " ", text[passage_start : chosen["start"]])
    page.click(".evidence .place")
    page.wait_for_selector("#reader mark")
    assert page.text_content("#reader mark") == chosen["text"]


def test_a_record_of_json_lines_opens_as_its_own_text(site: Any, visit: Make) -> None:
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
    site: Any, visit: Make, question: str, message: str
) -> None:
    site.put("fermat.md", FERMAT)
    page = visit(site)
    page.fill("#question", question)
    page.press("#question", "Enter")
    shows(page, ".notice.alarm", message)
    ask(page, QUESTION)
    assert page.locator(".notice.alarm").count() == 0


def test_a_document_that_is_not_there_is_told_so(site: Any, visit: Make) -> None:
    page = visit(site, "#documents?id=gone.md")
    shows(page, "#reader .notice.alarm", "gone.md")
    page.click(".back")
    shows(page, "#listing", "There are no documents yet")


def test_a_server_that_is_gone_is_told_so(site: Any, visit: Make) -> None:
    page = visit(site)
    page.route("**/answer", lambda route: route.abort())
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    shows(page, ".notice.alarm", "The server does not answer")


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
    assert page.get_attribute("#tab-ask", "tabindex") == "0"
    assert page.get_attribute("#tab-training", "tabindex") == "-1"
    assert page.is_visible("#panel-ask")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press("/")
    assert focused() == "question"


def test_it_fits_a_phone_and_can_be_read_in_the_light_and_in_the_dark(
    open_site: Make, visit: Make, run: Path
) -> None:
    site = open_site(runs=[run.parent])
    site.put("a/" + "long-name-" * 12 + ".md", FERMAT + "x" * 300)
    page = visit(site, viewport={"width": 360, "height": 740})
    ask(page, QUESTION)
    for tab, ready in (
        ("ask", "#answer"),
        ("fill", "#fill-result .welcome"),
        ("documents", ".document-link"),
        ("training", ".curve"),
    ):
        page.click(f"#tab-{tab}")
        page.wait_for_selector(ready)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(CONTRAST) == [], (tab, scheme)
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (min(map(int, re.findall(r"\d+", ground))) > 128) == (scheme == "light")


def test_a_word_is_blanked_and_a_model_without_an_encoder_says_so(site: Any, visit: Make) -> None:
    page = visit(site, "#fill")
    page.fill("#sentence", "Fermat was born in Toulouse.")
    page.evaluate("document.querySelector('#sentence').setSelectionRange(19, 27)")
    page.click("#blank")
    assert page.input_value("#sentence") == "Fermat was born in [MASK]."
    assert page.input_value("#fill-answer") == "Toulouse"
    page.evaluate("document.querySelector('#sentence').setSelectionRange(0, 6)")
    page.click("#blank")
    assert page.input_value("#sentence") == "[MASK] was born in Toulouse."
    assert page.input_value("#fill-answer") == "Fermat"
    page.click("#fill-button")
    shows(page, "#fill-result", "This model cannot fill blanks")


def test_a_sentence_without_a_blank_is_told_so(site: Any, visit: Make) -> None:
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


def test_curves_grow_while_a_run_trains(open_site: Make, visit: Make, run: Path) -> None:
    page = visit(open_site(runs=[run.parent]), "#training")
    shows(page, "#run-state", "step 8 of 20")
    charts = page.locator(".charts >> nth=0").inner_text()
    assert "Loss" in charts
    assert "Retrieval utility" in charts
    assert page.locator(".chart >> nth=0 >> .refresh").count() == 2
    plot = page.locator(".plot").first
    before = page.locator(".curve").first.get_attribute("d")
    plot.focus()
    page.keyboard.press("Home")
    assert plot.get_attribute("aria-valuetext").startswith("step 1: training 8")
    page.keyboard.press("ArrowRight")
    assert plot.get_attribute("aria-valuenow") == "2"
    plot.hover(position={"x": 60, "y": 60})
    shows(page, ".chart .key .quiet", "step")

    write_metrics(run, range(9, 12))
    shows(page, "#run-state", "step 11 of 20")
    assert page.locator(".curve").first.get_attribute("d") != before


def test_without_runs_it_says_how_to_start(site: Any, visit: Make) -> None:
    shows(visit(site, "#training"), "#runs", "realm serve --runs FOLDER")


def test_a_token_is_asked_for_and_kept(open_site: Make, visit: Make) -> None:
    site = open_site(token="correct-horse-battery")
    site.put("fermat.md", FERMAT)
    page = visit(site)
    for token in ("wrong", "correct-horse-battery"):
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token", token)
        page.press("#token", "Enter")
    shows(page, "#facts", "Documents")
    ask(page, QUESTION)
    page.reload()
    ask(page, QUESTION)
    assert page.is_hidden("#token-dialog")
