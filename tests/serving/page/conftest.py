"""The page in a real browser, against the real server around a tiny untrained model."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import realm
from realm.checkpoint.checkpoints import save_checkpoint
from realm.checkpoint.parts import Model
from realm.serving.settings import Access, Limits
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

Make = Callable[..., Any]


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
            *,
            token: str | None = None,
            limits: Limits | None = None,
            runs: Sequence[Path] = (),
            encoder: Path | None = None,
        ) -> Site:
            model = opened.enter_context(
                realm.load(make_packed(), library=tmp_path / "library", encoder=encoder)
            )
            access = Access(token=token) if token else None
            client = serve(model, access=access, limits=limits, runs=runs)
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


def _write_metrics(run: Path, steps: Iterable[int]) -> None:
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
def write_metrics() -> Make:
    """Append to a run's log, as its trainer does; loss is 8 / step."""
    return _write_metrics


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A folder as `realm pretrain` has it while it trains."""
    run = tmp_path / "runs" / "pretraining"
    run.mkdir(parents=True)
    settings = {"stage": "pretrain", "steps": 20}
    write_json(run / REQUEST, {"kind": "run", "settings": settings})
    _write_metrics(run, range(1, 9))
    with locked(run):
        yield run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window; where there is none, the test is skipped.

    Not for the session: while it is open, nothing else in this thread may run an event loop.
    """
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is missing")
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}: apt-get install chromium")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield launched
        launched.close()


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


@pytest.fixture
def shows() -> Make:
    """Wait until the first element that a selector finds has a text."""
    from playwright.sync_api import expect

    def wait(page: Any, selector: str, text: str) -> None:
        expect(page.locator(selector).first).to_contain_text(text, timeout=PATIENCE_MS)

    return wait


@pytest.fixture
def ask() -> Make:
    """Ask a question, and wait for what is said to it."""

    def enter(page: Any, question: str) -> None:
        page.fill("#question", question)
        page.press("#question", "Enter")
        page.wait_for_selector("#answer")
        page.wait_for_selector("#ask-result[aria-busy=false]")

    return enter
