"""The small world's generator: facts told twice, entities held out, the same for every seed."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from intervals import interval
from measure import Outcome
from recipe import SmallWorld
from run import summary, table
from world import RELATIONS, World, telling, write

from realm.config import MaskConfig, SplitConfig
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError
from realm.evaluation.questions import read_questions
from realm.masking.examples import mask
from realm.masking.pretagged import PretaggedTagger
from realm.masking.store import ExampleStore
from realm.tokenizer import WordpieceTokenizer
from realm.training.pairing import COMMON


@pytest.fixture(scope="module")
def world() -> World:
    return World(num_passages=400, seed=3)


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    write(world, out)
    return out


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_seed_decides_every_byte(world: World, folder: Path, tmp_path: Path) -> None:
    again = World(num_passages=400, seed=3)
    count = write(again, tmp_path / "again")
    assert count == sum(
        len(lines(folder / f"{name}.jsonl"))
        for name in ("encyclopedia", "encyclopedia-held-out", "news")
    )
    assert 400 <= count < 450
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    assert World(num_passages=400, seed=4).name(0) != world.name(0)


def test_both_styles_tell_the_same_fact_in_words_that_the_other_never_uses(world: World) -> None:
    for relation in RELATIONS:
        assert not set(relation.encyclopedia) & set(relation.news)
    for article in (*world.encyclopedia(held_out=False), *world.encyclopedia(held_out=True)):
        for start, end, relation in article.spans:
            news = article.id.replace("encyclopedia", "news", 1)
            assert telling(news) == article.id
            entity = int(article.id.split("-")[1])
            told = world.fact(entity, next(r for r in RELATIONS if r.name == relation), "news")
            assert told.id == news
            assert told.text[slice(*told.spans[0][:2])] == article.text[start:end]
            assert article.title == told.title == world.name(entity)


def test_names_are_shared_and_whole_names_are_not(world: World) -> None:
    names = [world.name(entity) for entity in range(world.num_entities)]
    assert len(set(names)) == len(names)
    assert len({name.split()[0] for name in names}) < len(names)
    assert len({name.split()[1] for name in names}) < len(names)
    words = [*world.first, *world.last, *world.values]
    assert len(set(words)) == len(words)


def test_no_sentence_of_x_is_about_an_entity_held_out(world: World, folder: Path) -> None:
    trained = {line["title"] for line in lines(folder / "news.jsonl")}
    asked = {line["title"] for line in lines(folder / "news-held-out.jsonl")}
    assert trained
    assert asked
    assert not trained & asked
    known = {line["title"] for line in lines(folder / "encyclopedia-held-out.jsonl")}
    assert known == asked
    assert len(trained | asked) == world.num_entities


def test_masking_hides_the_value_and_nothing_else(world: World, folder: Path) -> None:
    tokenizer = WordpieceTokenizer.load(folder / "vocab.txt")
    config = SplitConfig(max_wordpieces=48)
    report = split([folder / "news.jsonl"], folder / "x", config=config, tokenizer=tokenizer)
    assert report.num_passages == report.num_articles == len(lines(folder / "news.jsonl"))
    store = PassageStore.open(folder / "x")
    tagger = PretaggedTagger(folder / "spans.jsonl")
    masked = mask(store, folder / "examples", config=MaskConfig(query_wordpieces=32), tagger=tagger)
    assert masked.num_examples == len(store)
    assert not masked.skipped.total
    examples = ExampleStore.open(folder / "examples")
    for number in range(len(examples)):
        example = examples[number]
        _, entity, relation = example.article_id.split("-")
        wanted = world.value(int(entity), next(r for r in RELATIONS if r.name == relation))
        assert tokenizer.decode(example.target_ids) == wanted.lower()  # one whole wordpiece
        assert tokenizer.unk_id not in example.original_ids


def test_every_question_names_the_article_with_its_answer(folder: Path) -> None:
    for suffix in ("", "-held-out"):
        texts = {a["id"]: a["text"] for a in lines(folder / f"encyclopedia{suffix}.jsonl")}
        questions = read_questions(folder / f"questions{suffix}.jsonl")
        assert len(questions) == len(RELATIONS) * len({id_.split("-")[1] for id_ in texts})
        for question in questions:
            assert question.passage_id is not None
            assert question.answers[0] in texts[question.passage_id]


def test_a_million_passages_are_a_stream() -> None:
    """Nothing is held but names and values; a value never stands in too many passages."""
    world = World(num_passages=1_000_000, seed=0)
    assert world.num_entities > 80_000
    first = list(islice(world.news(held_out=True), 3))
    assert len(first) == 3
    entities = sum(not world.is_held_out(entity) for entity in range(world.num_entities))
    passages_of_value = 2 * len(RELATIONS) * entities / len(world.values)  # in both styles
    assert passages_of_value < COMMON
    assert len(world.vocabulary()) < 30_522


def outcome(entity: str, rank: int | None) -> Outcome:
    return Outcome(entity=entity, rank=rank, is_right=False, is_right_alone=False)


def test_an_interval_knows_that_sentences_about_one_entity_go_together() -> None:
    """Four entities of 30 equal sentences are four observations, not 120."""
    one = [outcome(name, rank) for name, rank in zip("abcd", (1, 1, None, None), strict=True)]
    found = interval([[item for item in one for _ in range(30)]], lambda o: o.rank == 1)
    assert found.mean == pytest.approx(0.5)
    assert found.low <= 0.1
    assert found.high >= 0.9


def test_an_interval_knows_that_seeds_differ() -> None:
    good = [outcome(str(number), 1) for number in range(50)]
    bad = [outcome(str(number), None) for number in range(50)]
    alike = interval([good, good, good], lambda o: o.rank == 1)
    assert (alike.low, alike.high) == (1.0, 1.0)
    apart = interval([good, good, bad], lambda o: o.rank == 1)
    assert apart.low < 0.4


def test_the_table_names_every_system_with_its_interval() -> None:
    """What the null passage gives stands in the column of masked accuracy."""
    good = [Outcome(entity=str(n), rank=1, is_right=True, is_right_alone=n == 0) for n in range(10)]
    results = summary({"realm": [good], "off, index built anew": [good], "off": [good]})
    assert results["realm"]["recall@1"]["seeds"] == [1.0]
    lines = table(results).splitlines()
    assert lines[2].startswith("| REALM's encoder, null passage | - | - | 10.0 (0.0-30.0) | - |")
    assert "| REALM | 100.0 (100.0-100.0) |" in lines[3]
    assert lines[4].endswith("| 100.0 (100.0-100.0) |")


def test_another_world_is_refused(tmp_path: Path) -> None:
    assert SmallWorld(out=tmp_path, num_passages=400, seed=3).world.is_dir()
    with pytest.raises(ArtifactError, match=r"holds the world of .* expected .* another folder"):
        _ = SmallWorld(out=tmp_path, num_passages=500, seed=3).world
