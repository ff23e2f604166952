"""A sentence encoder as it comes, as a retriever."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from realm.config import EncoderConfig
from realm.evaluation.zero_shot import open_zero_shot

if TYPE_CHECKING:
    from realm.corpus.store import PassageStore

SCRATCH = EncoderConfig(init="scratch:1x32")


def test_a_passage_finds_itself_among_unit_vectors(store: "PassageStore", tmp_path: Path) -> None:
    torch.manual_seed(0)
    retriever = open_zero_shot(store, cache=tmp_path, encoder=SCRATCH)
    assert (retriever.name, retriever.score_weight) == ("minilm", 0.0)
    ((rows, scores),) = retriever.retrieve([store[3].text], len(store))
    assert sorted(rows) == list(range(len(store)))
    assert scores == sorted(scores, reverse=True)
    norms = retriever.snapshot.exact[torch.arange(len(store))].norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(len(store)))


def test_the_index_is_built_once(store: "PassageStore", tmp_path: Path) -> None:
    torch.manual_seed(0)
    open_zero_shot(store, cache=tmp_path, encoder=SCRATCH)
    told: list[int] = []
    open_zero_shot(store, cache=tmp_path, encoder=SCRATCH, progress=lambda d, _: told.append(d))
    assert told == []
