"""The spaCy tagger, with a stand-in for spaCy where it is not installed."""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from realm.errors import ConfigError
from realm.masking.spacy_tagger import SpacyTagger
from realm.masking.taggers import make_tagger
from realm.records import Passage, Skipped

MakePassage = Callable[..., Passage]


class Pipeline:
    """Tags every capital letter's word as a person, every number as a cardinal."""

    pipe_names: Sequence[str] = ("tok2vec", "ner")

    def pipe(self, texts: Sequence[str], batch_size: int) -> Iterator[SimpleNamespace]:
        """Yield each text with its entities."""
        assert batch_size > 0
        for text in texts:
            entities, start = list[SimpleNamespace](), 0
            for word in text.split(" "):
                label = "PERSON" if word.istitle() else "CARDINAL" if word.isdigit() else ""
                if label:
                    entities.append(
                        SimpleNamespace(start_char=start, end_char=start + len(word), label_=label)
                    )
                start += len(word) + 1
            yield SimpleNamespace(ents=entities)


@pytest.fixture
def spacy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("spacy")
    module.__spec__ = ModuleSpec("spacy", None)
    module.load = lambda name, exclude: Pipeline()  # type: ignore[attr-defined] # noqa: ARG005
    monkeypatch.setitem(sys.modules, "spacy", module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "meta.json").write_text("{}")
    return tmp_path / "pipeline"


def test_without_spacy_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # noqa: ARG005
    monkeypatch.setattr("realm.masking.spacy_tagger.find_spec", lambda name: None)  # noqa: ARG005
    with pytest.raises(ConfigError, match=r"pip install 'realm-lm\[ner\]'"):
        make_tagger("spacy:en_core_web_sm")


@pytest.mark.usefixtures("spacy")
@pytest.mark.parametrize("pipeline", ["en_core_web_none", "no/folder", "no.package"])
def test_without_the_pipeline_the_error_says_how_to_get_it(pipeline: str) -> None:
    with pytest.raises(ConfigError, match=f"python -m spacy download {pipeline}"):
        SpacyTagger(pipeline)


@pytest.mark.usefixtures("spacy")
def test_entities_become_spans_with_our_labels(folder: Path, make_passage: MakePassage) -> None:
    passages = [make_passage("I met Anna and 12 men"), make_passage("nobody")]
    tagger = SpacyTagger(str(folder))
    tagged = [spans for p in passages for spans in tagger.tag([p], Skipped())]
    assert [[(s.start, s.end, s.label) for s in spans] for spans in tagged] == [
        [(0, 1, "PER"), (6, 10, "PER"), (15, 17, "QUANTITY")],
        [],
    ]


def test_a_pipeline_that_cannot_be_loaded_is_a_config_error(
    spacy: ModuleType, folder: Path, make_passage: MakePassage
) -> None:
    def fail(name: str, exclude: list[str]) -> Pipeline:
        raise OSError(f"no model in {name}, {exclude}")

    spacy.load = fail  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="cannot load spaCy pipeline"):
        list(SpacyTagger(str(folder)).tag([make_passage("Bonn")], Skipped()))


def test_a_pipeline_that_finds_no_entities_is_a_config_error(
    spacy: ModuleType, folder: Path, make_passage: MakePassage
) -> None:
    blank = SimpleNamespace(pipe_names=["tagger"])
    spacy.load = lambda name, exclude: blank  # type: ignore[attr-defined] # noqa: ARG005
    with pytest.raises(ConfigError, match="expected a component that finds entities"):
        list(SpacyTagger(str(folder)).tag([make_passage("Bonn")], Skipped()))


@pytest.mark.usefixtures("spacy")
def test_the_fingerprint_follows_the_pipeline(folder: Path) -> None:
    first = SpacyTagger(str(folder)).fingerprint
    (folder / "meta.json").write_text('{"version": "2"}')
    assert SpacyTagger(str(folder)).fingerprint != first
    assert SpacyTagger("pytest").fingerprint != SpacyTagger("json").fingerprint
