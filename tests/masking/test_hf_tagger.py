"""The transformers tagger, on a tiny BERT token classifier."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForTokenClassification,
    BertTokenizerFast,
    RobertaConfig,
    RobertaForTokenClassification,
)

from realm.errors import ConfigError
from realm.masking.hf_tagger import HfTagger
from realm.masking.taggers import make_tagger
from realm.records import Passage, Skipped
from realm.tokenizer import WordpieceTokenizer

MakePassage = Callable[..., Passage]
LABELS = ("O", "B-PER", "I-PER")


@pytest.fixture
def save(tmp_path: Path, tokenizer: WordpieceTokenizer) -> Callable[..., Path]:
    def save_model(*, always: str | None = None, word: str | None = None) -> Path:
        """Save a random model, one that always says one label, or one that knows one word."""
        torch.manual_seed(0)
        model = BertForTokenClassification(
            BertConfig(
                vocab_size=tokenizer.vocab_size,
                hidden_size=16,
                num_hidden_layers=0 if word else 1,
                num_attention_heads=2,
                intermediate_size=16,
                max_position_embeddings=24,
                id2label=dict(enumerate(LABELS)),
                label2id={label: number for number, label in enumerate(LABELS)},
            )
        )
        with torch.no_grad():
            if always is not None:
                model.classifier.weight.zero_()
                model.classifier.bias.copy_(
                    torch.tensor([10.0 * (label == always) for label in LABELS])
                )
            if word is not None:
                for parameter in model.bert.embeddings.parameters():
                    if parameter.ndim == 2:
                        parameter.zero_()
                direction = torch.linspace(-1, 1, 16)
                table = model.bert.embeddings.word_embeddings.weight
                table[tokenizer.encode(word).ids[0]] = direction
                model.classifier.weight.zero_()
                model.classifier.weight[1] = direction  # B-PER
                model.classifier.bias.copy_(torch.tensor([5.0, 0.0, 0.0]))
        folder = tmp_path / f"model-{always}-{word}"
        model.save_pretrained(folder)
        tokenizer.save(folder / "tokenizer.json")
        BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).save_pretrained(folder)
        return folder

    return save_model


def spans(tagger: HfTagger, *passages: Passage) -> list[list[tuple[str, str]]]:
    tagged = tagger.tag(passages, Skipped())
    return [
        [(p.text[s.start : s.end], s.label) for s in found]
        for p, found in zip(passages, tagged, strict=True)
    ]


def test_dates_come_from_the_rules_and_entities_from_the_model(
    save: Callable[..., Path], make_passage: MakePassage
) -> None:
    first = make_passage("The city was born.", "He left in 1990.")
    tagger = make_tagger(f"hf:{save(always='O')}")
    assert isinstance(tagger, HfTagger)
    assert spans(tagger, first, make_passage("In May 1990.")) == [
        [("1990", "DATE")],
        [("May 1990", "DATE")],
    ]
    every = HfTagger(str(save(always="I-PER")))
    for _ in range(2):
        assert spans(every, first) == [[("The city was born.", "PER"), ("1990", "DATE")]]


def test_a_sentence_longer_than_the_model_is_tagged_to_its_end(
    save: Callable[..., Path], make_passage: MakePassage
) -> None:
    passage = make_passage("the city and the river in the land of the capital " * 4)
    tagger = HfTagger(str(save(word="capital")))
    assert spans(tagger, passage) == [[("capital", "PER")] * 4]


def test_a_model_that_counts_positions_from_behind_its_padding_reads_so_many_fewer(
    tmp_path: Path, tokenizer: WordpieceTokenizer, make_passage: MakePassage
) -> None:
    """RoBERTa has 514 positions for 512 wordpieces; not all tokenizers tell."""
    torch.manual_seed(0)
    settings = RobertaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        pad_token_id=1,
    )
    RobertaForTokenClassification(settings).save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    BertTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json")).save_pretrained(tmp_path)
    passage = make_passage("the city and the river in the land of the capital " * 4)
    assert spans(HfTagger(str(tmp_path)), passage)[0]


def test_a_random_model_gives_sorted_disjoint_spans(
    save: Callable[..., Path], make_passage: MakePassage
) -> None:
    passage = make_passage("Anna was in Bonn, the city of 1990.", "   ", "A river in a land.")
    for span_text, label in spans(HfTagger(str(save())), passage)[0]:
        assert span_text.strip()
        assert label in {"PER", "DATE"}


def test_without_sentences_no_model_is_loaded(make_passage: MakePassage) -> None:
    tagger = HfTagger("nowhere/none")
    assert spans(tagger) == []
    assert spans(tagger, make_passage()) == [[]]


def test_a_model_that_is_not_there_is_a_config_error(
    tmp_path: Path, make_passage: MakePassage
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="cannot load token classifier"):
        spans(HfTagger(str(tmp_path / "empty")), make_passage("Bonn is."))


def test_the_fingerprint_follows_the_model(save: Callable[..., Path]) -> None:
    folder = save(always="O")
    first = HfTagger(str(folder)).fingerprint
    (folder / "more.txt").write_text("x")
    assert HfTagger(str(folder)).fingerprint != first
    assert HfTagger("a/b").fingerprint != HfTagger("a/b@main").fingerprint
