"""Taggers by name."""

from pathlib import Path

import pytest

from realm.errors import ConfigError
from realm.masking.hf_tagger import HfTagger
from realm.masking.pretagged import PretaggedTagger
from realm.masking.rules import RuleTagger
from realm.masking.taggers import Tagger, make_tagger


def test_each_kind_of_tagger_is_made_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    file.write_text('{"id": "a", "spans": []}\n')
    assert isinstance(make_tagger("rules"), RuleTagger)
    assert isinstance(make_tagger(f"jsonl:{file}"), PretaggedTagger)
    assert isinstance(make_tagger("hf:some/model"), HfTagger)
    assert isinstance(make_tagger("rules"), Tagger)


@pytest.mark.parametrize(
    "spec", ["", "rule", "rules:", "trained:", "spacy", "spacy:", "hf:", "jsonl:", "x:y"]
)
def test_an_unknown_name_is_refused_with_what_there_is(spec: str) -> None:
    with pytest.raises(ConfigError, match="expected rules, trained, spacy:PIPELINE, hf:"):
        make_tagger(spec)
