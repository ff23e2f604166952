"""realm split: published whole or not at all, the same bytes however it was run."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from realm.config import SplitConfig
from realm.corpus import split as module
from realm.corpus import workers
from realm.corpus.split import SplitReport, split, store_whole
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError, CorpusError, DamagedError
from realm.records import Article
from realm.storage import MANIFEST, fingerprint, read_json, scratch_folder, write_json
from realm.tokenizer import WordpieceTokenizer

WriteJsonl = Callable[[str, Iterable[dict[str, object]]], Path]
CONFIG = SplitConfig(max_wordpieces=32, min_wordpieces=8)
NUM_ARTICLES = 40


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_ARTICLES", 6)
    monkeypatch.setattr(workers, "BATCH_ARTICLES", 4)


@pytest.fixture
def articles(write_jsonl: WriteJsonl) -> Path:
    def records() -> Iterator[dict[str, object]]:
        for number in range(NUM_ARTICLES):
            yield {
                "id": f"a{number}",
                "title": "April",
                "text": "One two the of and. " * number + "A",
            }
            if number % 10 == 0:
                yield {"id": f"bad{number}", "text": 5}

    return write_jsonl("articles.jsonl", records())


def run(articles: Path, out: Path, tokenizer: WordpieceTokenizer, **options: object) -> SplitReport:
    return split([articles], out, config=CONFIG, tokenizer=tokenizer, **options)  # type: ignore[arg-type]


def stop_after(num_shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the next run after so many shards."""
    write = workers.write_shard
    left = [num_shards]

    def write_some(*arguments: object) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(workers, "write_shard", write_some)


def test_a_folder_of_passages_is_published_with_its_counts(
    tmp_path: Path, articles: Path, tokenizer: WordpieceTokenizer
) -> None:
    report = run(articles, tmp_path / "passages", tokenizer)
    store = PassageStore.open(tmp_path / "passages")
    assert report.num_passages == len(store) > NUM_ARTICLES
    assert report.num_articles == len({passage.article_id for passage in store}) == NUM_ARTICLES - 1
    assert report.num_wordpieces == int((store.lengths() - 4).sum())
    assert report.skipped.counts == {"wrong type": 4, "passage shorter than min_wordpieces": 1}
    assert not report.already_done

    manifest = json.loads((tmp_path / "passages" / MANIFEST).read_text())
    assert manifest["settings"] == CONFIG.as_dict()
    assert manifest["inputs"] == {
        "articles.jsonl": fingerprint(articles),
        "tokenizer": tokenizer.fingerprint,
    }
    assert manifest["content"] == {
        "num_articles": report.num_articles,
        "num_passages": report.num_passages,
        "num_wordpieces": report.num_wordpieces,
        "num_shards": 7,
        "skipped": report.skipped.counts,
    }
    assert sorted(path.name for path in (tmp_path / "passages").iterdir()) == [
        "manifest.json",
        *(f"passages-{number:05d}.arrow" for number in range(7)),
        "skipped.jsonl",
        "tokenizer.json",
    ]


def test_everything_left_out_is_listed_by_file_line_and_reason(
    tmp_path: Path, articles: Path, tokenizer: WordpieceTokenizer
) -> None:
    run(articles, tmp_path / "passages", tokenizer)
    lines = (tmp_path / "passages" / "skipped.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert len(told) == 5
    assert {"file": "articles.jsonl", "line": 2, "reason": "wrong type"} in told
    assert told[0] == {
        "file": "articles.jsonl",
        "line": 1,
        "reason": "passage shorter than min_wordpieces",
    }


def test_a_rerun_does_nothing_and_tells_the_same(
    tmp_path: Path, articles: Path, tokenizer: WordpieceTokenizer
) -> None:
    first = run(articles, tmp_path / "passages", tokenizer)
    changed = (tmp_path / "passages" / MANIFEST).stat().st_mtime_ns
    again = run(articles, tmp_path / "passages", tokenizer)
    assert again.already_done
    assert (tmp_path / "passages" / MANIFEST).stat().st_mtime_ns == changed
    assert (again.num_articles, again.num_passages, again.num_wordpieces) == (
        first.num_articles,
        first.num_passages,
        first.num_wordpieces,
    )
    assert again.skipped == first.skipped


@pytest.mark.parametrize("content", [b'{"file": "a\n', b"\xff\n", b"{}\n", None])
@pytest.mark.parametrize("has_checksums", [True, False])
def test_a_damaged_list_of_what_was_left_out_is_told_not_a_traceback(
    content: bytes | None,
    has_checksums: bool,  # noqa: FBT001 - older releases wrote none
    tmp_path: Path,
    articles: Path,
    tokenizer: WordpieceTokenizer,
) -> None:
    out = tmp_path / "passages"
    run(articles, out, tokenizer)
    if not has_checksums:
        write_json(out / MANIFEST, {**read_json(out / MANIFEST), "files": {}})
    (out / "skipped.jsonl").unlink()
    if content is not None:
        (out / "skipped.jsonl").write_bytes(content)
    with pytest.raises(DamagedError, match=r"skipped\.jsonl is .*(damaged|missing).* --rebuild"):
        run(articles, out, tokenizer)


def test_changed_inputs_are_refused_until_rebuild(
    tmp_path: Path, articles: Path, tokenizer: WordpieceTokenizer
) -> None:
    out = tmp_path / "passages"
    run(articles, out, tokenizer)
    articles.write_text('{"text": "One two the of and in."}')
    with pytest.raises(ArtifactError, match=r"input articles.jsonl \(found .*--rebuild"):
        run(articles, out, tokenizer)
    with pytest.raises(ArtifactError, match=r"setting max_wordpieces \(found 32, now 288\)"):
        split([articles], out, config=SplitConfig(), tokenizer=tokenizer)
    assert run(articles, out, tokenizer, rebuild=True).num_passages == 1
    assert len(PassageStore.open(out)) == 1


def test_the_number_of_processes_changes_no_byte(
    tmp_path: Path, articles: Path, tokenizer: WordpieceTokenizer
) -> None:
    alone = run(articles, tmp_path / "one", tokenizer)
    together = run(articles, tmp_path / "two", tokenizer, num_processes=2)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    assert alone == together


def test_a_killed_run_goes_on_after_its_finished_shards(
    tmp_path: Path,
    articles: Path,
    tokenizer: WordpieceTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = run(articles, tmp_path / "whole", tokenizer)
    out = tmp_path / "passages"
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            run(articles, out, tokenizer)
    assert not out.exists()
    scratch = scratch_folder(out)
    (scratch / ".passages-00099.arrow.partial").write_bytes(b"half written")
    (scratch / "passages-00001.arrow").write_bytes(b"damaged")
    untouched = (scratch / "passages-00000.arrow").stat().st_mtime_ns

    with monkeypatch.context() as patch:
        stop_after(5, patch)  # one damaged and four missing of seven
        resumed = run(articles, out, tokenizer)
    assert (out / "passages-00000.arrow").stat().st_mtime_ns == untouched
    assert resumed == whole
    assert fingerprint(out) == fingerprint(tmp_path / "whole")


def test_order_and_place_of_the_inputs_change_nothing(
    tmp_path: Path, write_jsonl: WriteJsonl, tokenizer: WordpieceTokenizer
) -> None:
    first = write_jsonl("x/a.jsonl", [{"text": "One two the of and in."}])
    second = write_jsonl("y/b.jsonl", [{"text": "Was in and of the two."}, {"text": None}])
    for out, inputs in (("one", [first, second]), ("two", [second, first])):
        split(inputs, tmp_path / out, config=CONFIG, tokenizer=tokenizer)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    assert str(tmp_path) not in (tmp_path / "one" / MANIFEST).read_text()


def test_inputs_of_one_name_are_told_apart(
    tmp_path: Path, write_jsonl: WriteJsonl, tokenizer: WordpieceTokenizer
) -> None:
    first = write_jsonl("x/a.jsonl", [{"id": "1", "text": "One two the of and in."}])
    second = write_jsonl("y/a.jsonl", [{"id": "2", "text": "Was in and of the two."}])
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "a.txt").write_text("One two the of and in.")
    inputs = [first, second, tmp_path / "tokenizer"]
    assert split(inputs, tmp_path / "p", config=CONFIG, tokenizer=tokenizer).num_articles == 3
    manifest = json.loads((tmp_path / "p" / MANIFEST).read_text())
    assert set(manifest["inputs"]) == {"a.jsonl", "a.jsonl (2)", "tokenizer (2)", "tokenizer"}
    assert manifest["inputs"]["tokenizer"] == tokenizer.fingerprint


def test_a_corpus_that_gives_no_passage_publishes_nothing(
    tmp_path: Path, write_jsonl: WriteJsonl, tokenizer: WordpieceTokenizer
) -> None:
    path = write_jsonl("a.jsonl", [{"text": "One."}, {"text": "Two."}])
    with pytest.raises(CorpusError, match="2 passage shorter than min_wordpieces"):
        run(path, tmp_path / "passages", tokenizer)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.jsonl"]


def test_a_malformed_line_stops_the_split_when_asked(
    tmp_path: Path, articles: Path, tokenizer: WordpieceTokenizer
) -> None:
    with pytest.raises(CorpusError, match=r"articles.jsonl:2: wrong type: found 5 in 'text'"):
        run(articles, tmp_path / "passages", tokenizer, on_error="fail")
    assert not (tmp_path / "passages").exists()


@pytest.mark.parametrize("num_processes", [1, 2])
def test_wikitext_that_cannot_be_parsed_stops_the_split_when_asked(
    tmp_path: Path,
    tokenizer: WordpieceTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    num_processes: int,
) -> None:
    pages = [
        f"<page><title>April {number}</title><ns>0</ns><id>{number}</id><revision><text>"
        f"{'{{x ' * 300 if number == 1 else 'One two the of and in is. ' * 5}"
        "</text></revision></page>\n"
        for number in range(20)
    ]
    dump = tmp_path / "wiki.xml"
    dump.write_text("<mediawiki>\n" + "".join(pages) + "</mediawiki>")
    out, told = tmp_path / "passages", r"wiki.xml:3: wikitext that cannot be parsed.*'April 1'"
    with pytest.raises(CorpusError, match=told):
        run(dump, out, tokenizer, on_error="fail", num_processes=num_processes)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(2, patch)
        run(dump, out, tokenizer)
    with pytest.raises(CorpusError, match=told):  # also where another run has passed over it
        run(dump, out, tokenizer, on_error="fail", num_processes=num_processes)
    report = run(dump, out, tokenizer)
    assert report.skipped.counts == {"wikitext that cannot be parsed": 1}
    assert report.num_articles == 19


def test_wrong_arguments_are_refused(
    tmp_path: Path, articles: Path, tokenizer: WordpieceTokenizer
) -> None:
    with pytest.raises(ConfigError, match="found 0 worker processes"):
        run(articles, tmp_path / "passages", tokenizer, num_processes=0)
    with pytest.raises(CorpusError, match="found no article in no input"):
        split([], tmp_path / "passages", config=CONFIG, tokenizer=tokenizer)
    with pytest.raises(CorpusError, match=r"found no .*gone\.jsonl"):
        run(tmp_path / "gone.jsonl", tmp_path / "passages", tokenizer)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_progress_counts_articles_up_to_all(
    tmp_path: Path, articles: Path, tokenizer: WordpieceTokenizer, num_processes: int
) -> None:
    told: list[tuple[int, int]] = []
    run(
        articles,
        tmp_path / "passages",
        tokenizer,
        num_processes=num_processes,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (NUM_ARTICLES, 0)
    assert told == sorted(told)
    assert len(told) >= 7


def test_large_articles_fill_a_shard_sooner(
    tmp_path: Path,
    articles: Path,
    tokenizer: WordpieceTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SHARD_CHARACTERS", 500)
    run(articles, tmp_path / "passages", tokenizer)
    assert len(list((tmp_path / "passages").glob("*.arrow"))) > 20


# Texts that come ready cut


WHOLE = [
    "One two the of.",
    "",
    "A",
    "  ",
    "The of and in is. " * 60,
    "一二 \U0001f469",
    "\n",
    "Was.",
] * 5


def store(out: Path, tokenizer: WordpieceTokenizer, **options: object) -> SplitReport:
    known = {"source": "texts.npy", "source_fingerprint": "f", "config": CONFIG}
    numbered = (Article(id=str(n), title="", text=text) for n, text in enumerate(WHOLE))
    return store_whole(numbered, out, tokenizer=tokenizer, **(known | options))  # type: ignore[arg-type]


def test_ready_texts_stay_whole_and_in_their_rows(
    tmp_path: Path, tokenizer: WordpieceTokenizer
) -> None:
    """Empty, short and overlong ones too, which `split` would leave out or cut."""
    report = store(tmp_path / "p", tokenizer)
    passages = PassageStore.open(tmp_path / "p")
    assert [passages.text(row) for row in range(len(passages))] == WHOLE
    assert [passage.article_id for passage in passages] == [str(n) for n in range(len(WHOLE))]
    assert all((p.start, p.end) == (0, len(p.text)) for p in passages)
    for row in (0, 1, 4, 5):
        assert passages.wordpieces(row).tolist() == tokenizer.encode(WHOLE[row]).ids
    assert len(passages.wordpieces(4)) > CONFIG.max_wordpieces
    assert (report.num_articles, report.num_passages) == (40, 40)
    assert report.num_wordpieces == sum(len(tokenizer.encode(text).ids) for text in WHOLE)
    assert report.skipped.total == 0
    sentences = passages[4].sentences
    assert len(sentences) == 60
    assert {passages[4].text[s:e] for s, e in sentences} == {"The of and in is."}


def test_ready_texts_are_the_same_bytes_from_any_number_of_processes(
    tmp_path: Path, tokenizer: WordpieceTokenizer
) -> None:
    alone = store(tmp_path / "one", tokenizer)
    assert store(tmp_path / "two", tokenizer, num_processes=2) == alone
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("*.arrow"))) == 7


def test_killed_the_store_of_ready_texts_goes_on_after_its_finished_shards(
    tmp_path: Path, tokenizer: WordpieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = store(tmp_path / "whole", tokenizer), tmp_path / "p"
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            store(out, tokenizer)
    assert not out.exists()
    (scratch_folder(out) / ".passages-00003.arrow.partial").write_bytes(b"half written")
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        assert store(out, tokenizer) == whole
    assert fingerprint(out) == fingerprint(tmp_path / "whole")


def test_ready_texts_of_another_source_start_anew(
    tmp_path: Path, tokenizer: WordpieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p"
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            store(out, tokenizer)
    with monkeypatch.context() as patch:
        stop_after(6, patch)  # of seven: none of the old ones counts
        with pytest.raises(KeyboardInterrupt):
            store(out, tokenizer, source_fingerprint="g")
    assert not store(out, tokenizer, source_fingerprint="g").already_done
    with pytest.raises(ArtifactError, match=r"input texts\.npy \(found .g., now .f.\)"):
        store(out, tokenizer)


def test_ready_texts_that_are_stored_are_not_read_again(
    tmp_path: Path, tokenizer: WordpieceTokenizer
) -> None:
    first = store(tmp_path / "p", tokenizer)

    def none() -> Iterator[Article]:
        raise AssertionError
        yield

    again = store_whole(
        none(),
        tmp_path / "p",
        source="texts.npy",
        source_fingerprint="f",
        config=CONFIG,
        tokenizer=tokenizer,
    )
    assert again.already_done
    assert (again.num_passages, again.num_wordpieces) == (first.num_passages, first.num_wordpieces)


def test_ready_texts_need_a_process_and_progress_counts_them(
    tmp_path: Path, tokenizer: WordpieceTokenizer
) -> None:
    with pytest.raises(ConfigError, match="found 0 worker processes"):
        store(tmp_path / "p", tokenizer, num_processes=0)
    assert list(tmp_path.iterdir()) == []
    told: list[int] = []
    store(tmp_path / "p", tokenizer, progress=lambda done, _: told.append(done))
    assert told == sorted(told)
    assert told[-1] == len(WHOLE)
