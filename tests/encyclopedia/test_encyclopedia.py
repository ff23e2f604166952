"""The encyclopedia that ships with the package: every rule its README states, over every line."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from realm import encyclopedia
from realm.encyclopedia import articles_file, questions_file
from realm.records import Split

SPLITS: tuple[Split, ...] = get_args(Split)
FILES = [articles_file(), *(questions_file(split) for split in SPLITS)]
RUN_WORDS = 8
Line = dict[str, Any]


def lines_of(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def articles() -> dict[str, Line]:
    return {article["id"]: article for article in lines_of(articles_file())}


@pytest.fixture(scope="module")
def by_split() -> dict[str, list[Line]]:
    return {split: lines_of(questions_file(split)) for split in SPLITS}


@pytest.fixture(scope="module")
def questions(by_split: dict[str, list[Line]]) -> list[Line]:
    return [question for split in SPLITS for question in by_split[split]]


def stands_in(phrase: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text) is not None


def names(title: str, text: str) -> bool:
    return stands_in(title, text) or stands_in(title[0].lower() + title[1:], text)


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def is_test(article_id: str) -> bool:
    return int(hashlib.sha256(article_id.encode()).hexdigest(), 16) % 100 < 30


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_nfc_text_with_one_json_object_a_line_and_no_control_characters(
    path: Path,
) -> None:
    raw = path.read_bytes()
    text = raw.decode("utf-8")
    assert raw.endswith(b"\n")
    assert unicodedata.is_normalized("NFC", text)
    assert not [char for char in text if unicodedata.category(char)[0] == "C" and char != "\n"]
    for line in text.split("\n")[:-1]:
        record = json.loads(line)
        assert isinstance(record, dict)
        strings = json.dumps(record, ensure_ascii=False)
        assert "\\n" not in strings
        assert "  " not in strings


def test_files_lie_beside_the_package_so_that_they_ship_with_it() -> None:
    folder = Path(encyclopedia.__file__).parent
    assert {path.parent for path in FILES} == {folder}
    assert "CC0 1.0" in (folder / "LICENSE-CC0.txt").read_text(encoding="utf-8")


def test_there_are_at_least_300_articles_with_the_stated_keys_sorted_by_id() -> None:
    lines = lines_of(articles_file())
    assert len(lines) >= 300
    assert all(list(line) == ["id", "title", "text", "links"] for line in lines)
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)


def test_ids_and_titles_are_unique_and_an_id_is_a_plain_slug() -> None:
    lines = lines_of(articles_file())
    assert len({line["id"] for line in lines}) == len(lines)
    assert len({line["title"].casefold() for line in lines}) == len(lines)
    assert not [line["id"] for line in lines if not re.fullmatch(r"[a-z0-9-]+", line["id"])]


def test_every_text_is_one_paragraph_of_80_to_200_words_that_names_its_title(
    articles: dict[str, Line],
) -> None:
    assert not [i for i, a in articles.items() if not 80 <= len(a["text"].split()) <= 200]
    assert not [i for i, a in articles.items() if "\n" in a["text"]]
    assert not [i for i, a in articles.items() if not names(a["title"], a["text"][:100])]


def test_every_link_resolves_and_its_title_stands_in_the_text(articles: dict[str, Line]) -> None:
    for article in articles.values():
        assert article["links"], article["id"]
        assert article["links"] == sorted(set(article["links"]) - {article["id"]})
        for link in article["links"]:
            assert names(articles[link]["title"], article["text"]), (article["id"], link)


def test_no_two_articles_share_a_run_of_eight_words(articles: dict[str, Line]) -> None:
    first: dict[tuple[str, ...], str] = {}
    shared: list[tuple[str, str, str]] = []
    for article_id, article in articles.items():
        words = words_of(article["text"])
        runs = zip(*(words[shift:] for shift in range(RUN_WORDS)), strict=False)
        shared.extend(
            (first[run], article_id, " ".join(run))
            for run in runs
            if first.setdefault(run, article_id) != article_id
        )
    assert not shared


def test_there_are_at_least_400_questions_with_the_stated_keys_and_unique_ids(
    questions: list[Line],
) -> None:
    keys = ["id", "question", "answers", "article_id", "passage_id", "answer_start", "also_in"]
    assert len(questions) >= 400
    assert all(list(question) == keys for question in questions)
    assert all(re.fullmatch(r"enc-\d{4}", question["id"]) for question in questions)
    assert len({question["id"] for question in questions}) == len(questions)
    assert len({question["question"].casefold() for question in questions}) == len(questions)
    assert all(question["question"].endswith("?") for question in questions)


def test_the_first_answer_stands_at_its_offset_in_the_article_as_whole_words(
    articles: dict[str, Line], questions: list[Line]
) -> None:
    for question in questions:
        text, start = articles[question["article_id"]]["text"], question["answer_start"]
        answer = question["answers"][0]
        assert question["passage_id"] == question["article_id"]
        assert text[start : start + len(answer)] == answer, question["id"]
        around = text[max(start - 1, 0) : start + len(answer) + 1]
        assert stands_in(answer, around), question["id"]
        assert 1 <= len(answer.split()) <= 5, question["id"]


def test_no_answer_stands_in_its_question(questions: list[Line]) -> None:
    assert not [
        question["id"]
        for question in questions
        for answer in question["answers"]
        if stands_in(answer.lower(), question["question"].lower())
    ]


def test_articles_named_by_also_in_exist_and_hold_the_answer(
    articles: dict[str, Line], questions: list[Line]
) -> None:
    for question in questions:
        assert question["also_in"] == sorted(set(question["also_in"]) - {question["article_id"]})
        for other in question["also_in"]:
            assert stands_in(question["answers"][0], articles[other]["text"]), question["id"]


def test_most_facts_are_told_in_two_articles(questions: list[Line]) -> None:
    assert sum(bool(question["also_in"]) for question in questions) >= 0.6 * len(questions)


def test_questions_are_split_by_the_hash_of_their_article(by_split: dict[str, list[Line]]) -> None:
    for split, questions in by_split.items():
        assert {is_test(question["article_id"]) for question in questions} == {split == "test"}


def test_both_splits_are_of_a_useful_size(articles: dict[str, Line], questions: list[Line]) -> None:
    counts = Counter(is_test(question["article_id"]) for question in questions)
    assert counts[True] >= 100
    assert counts[False] >= 300
    assert 0.25 <= sum(map(is_test, articles)) / len(articles) <= 0.35


def test_readme_states_the_counts(
    articles: dict[str, Line], by_split: dict[str, list[Line]]
) -> None:
    folder = articles_file().parent
    readme = (folder / "README.md").read_text(encoding="utf-8")
    everything = [question for questions in by_split.values() for question in questions]
    told_twice = sum(bool(question["also_in"]) for question in everything)
    num_words = sum(len(article["text"].split()) for article in articles.values())
    assert f"{len(articles)} short articles" in readme
    assert f"| `questions.train.jsonl` | {len(by_split['train'])} |" in readme
    assert f"| `questions.test.jsonl` | {len(by_split['test'])} |" in readme
    assert f"{told_twice} of\n  the {len(everything)} questions" in readme
    assert f"{num_words:,} words" in readme
    assert f"{sum(map(is_test, articles))} of {len(articles)} articles" in readme
