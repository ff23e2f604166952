"""A tiny model that also looks at words, and libraries for it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from realm.records import Document

if TYPE_CHECKING:
    from realm.fine_tuned import FineTuned
    from realm.library.indexing import Indexer
    from realm.library.library import Library


@pytest.fixture
def model(make_packed: Callable[..., Path]) -> Path:
    return make_packed(name="hybrid", retriever="hybrid", lexical_weight=0.5)


@pytest.fixture
def tuned(model: Path) -> "FineTuned":
    from realm.fine_tuned import FineTuned

    return FineTuned.load(model)


@pytest.fixture
def indexer(tuned: "FineTuned") -> "Indexer":
    from realm.config import IndexConfig
    from realm.library.indexing import Indexer

    indexer = Indexer(tuned)
    indexer.config = IndexConfig(  # vectors then do not depend on what is embedded beside them
        passage_wordpieces=indexer.split.max_wordpieces, autocast="none", batch_tokens=256
    )
    return indexer


@pytest.fixture
def library(indexer: "Indexer", tmp_path: Path) -> "Library":
    from realm.library.library import Library

    return Library.create(tmp_path / "library", indexer)


@pytest.fixture
def documents(articles: list[dict[str, str]]) -> list[Document]:
    """The small world, a document for each person."""
    return [Document(id=a["id"], title=a["title"], text=a["text"]) for a in articles]
