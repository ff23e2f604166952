"""An imported checkpoint brings the settings it was published with; whatever is said wins."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realm.checkpoint.checkpoints import save_checkpoint
from realm.checkpoint.defaults import stage_defaults
from realm.checkpoint.parts import Model
from realm.config import EvaluateConfig, FinetuneConfig, PretrainConfig, load_config
from realm.errors import ArtifactError
from realm.exchange.importing import import_weights
from realm.tokenizer import WordpieceTokenizer

Copied = Callable[..., Path]


@pytest.fixture
def imported(copied: Copied, tmp_path: Path) -> Callable[..., Path]:
    """Import a checkpoint with some settings of its config.json changed."""

    def run(name: str = "openqa", **changes: Any) -> Path:
        source = copied(name)
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | changes))
        import_weights(source, tmp_path / "run")
        return tmp_path / "run"

    return run


def test_beams_and_lengths_are_those_of_the_config(imported: Callable[..., Path]) -> None:
    run = imported(reader_beam_size=4, searcher_beam_size=17, reader_seq_len=48)
    assert stage_defaults(run, "finetune") == {
        "num_passages": 4,
        "retriever_beam": 17,
        "joint_wordpieces": 48,
        "question_wordpieces": 24,
        "passage_wordpieces": 64,
    }
    assert stage_defaults(run, "evaluate") == {"num_passages": 4}


def test_pre_training_goes_on_with_the_token_marginal(imported: Callable[..., Path]) -> None:
    run = imported("scorer_two_tower", num_candidates=6)
    defaults = stage_defaults(run, "pretrain")
    assert defaults["marginal"] == "token"
    assert defaults["num_candidates"] == 6
    assert PretrainConfig().marginal == "span"


@pytest.mark.parametrize("name", ["embedder", "scorer_shared", "encoder", "reader", "openqa"])
def test_lengths_fit_64_positions_and_every_stage_takes_them(
    name: str, imported: Callable[..., Path]
) -> None:
    run = imported(name, reader_seq_len=320)
    for stage, cls in (
        ("pretrain", PretrainConfig),
        ("finetune", FinetuneConfig),
        ("evaluate", EvaluateConfig),
    ):
        config = load_config(cls, section=stage, defaults=stage_defaults(run, stage))
        lengths = {n: v for n, v in config.as_dict().items() if n.endswith("_wordpieces")}
        lengths.pop("max_answer_wordpieces", None)
        assert all(8 <= length <= 64 for length in lengths.values()), lengths


def test_the_published_sizes_give_the_published_lengths(imported: Callable[..., Path]) -> None:
    """512 positions, 320 in the reader: 96 + 288 as released."""
    from realm.exchange.layout import OldConfig

    config = OldConfig()
    assert (config.joint_wordpieces, config.question_wordpieces) == (320, 160)
    assert config.reader_beam_size == FinetuneConfig().num_passages
    assert config.searcher_beam_size == FinetuneConfig().retriever_beam
    assert stage_defaults(imported("embedder"), "pretrain").keys() == {
        "marginal",
        "num_candidates",
        "query_wordpieces",
        "passage_wordpieces",
        "joint_wordpieces",
    }


def test_a_settings_file_wins_over_the_defaults_and_set_over_both(
    imported: Callable[..., Path], tmp_path: Path
) -> None:
    run, file = imported(), tmp_path / "settings.toml"
    file.write_text("[finetune]\nretriever_beam = 7\nnum_passages = 2\n")
    config = load_config(
        FinetuneConfig,
        section="finetune",
        file=file,
        overrides=["num_passages=1"],
        defaults=stage_defaults(run, "finetune"),
    )
    assert (config.joint_wordpieces, config.retriever_beam, config.num_passages) == (40, 7, 1)


def test_a_checkpoint_of_our_own_brings_none(
    make_towers: Callable[..., Any], tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    settings = {"stage": "ict", "num_passages": 3}
    model = Model(tokenizer=tokenizer, towers=make_towers())
    save_checkpoint(tmp_path / "own", model, settings=settings, inputs={})
    for stage in ("pretrain", "finetune", "evaluate"):
        assert stage_defaults(tmp_path / "own", stage) == {}


def test_changing_what_is_returned_changes_nothing(imported: Callable[..., Path]) -> None:
    run = imported()
    stage_defaults(run, "finetune")["num_passages"] = 99
    assert stage_defaults(run, "finetune")["num_passages"] == 3


def test_a_folder_without_a_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found no folder"):
        stage_defaults(tmp_path / "gone", "finetune")
    with pytest.raises(ArtifactError, match="found no checkpoint"):
        stage_defaults(tmp_path, "finetune")
