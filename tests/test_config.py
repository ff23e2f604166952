"""Settings come from defaults, a TOML table and --set, and wrong ones are told, not guessed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from realm.config import (
    SECTIONS,
    ApproximateConfig,
    CalibrateConfig,
    ClassifyConfig,
    Config,
    EncoderConfig,
    EvaluateConfig,
    FinetuneConfig,
    IctConfig,
    IndexConfig,
    MaskConfig,
    MlmConfig,
    OptimizerConfig,
    PretrainConfig,
    RefreshConfig,
    SplitConfig,
    check,
    load_config,
)
from realm.errors import ConfigError
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

STAGES = {
    "split": SplitConfig,
    "mask": MaskConfig,
    "ict": IctConfig,
    "mlm": MlmConfig,
    "index": IndexConfig,
    "approximate": ApproximateConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "classify": ClassifyConfig,
    "evaluate": EvaluateConfig,
    "calibrate": CalibrateConfig,
}


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "settings.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_every_stage_has_its_section_and_defaults_that_are_valid() -> None:
    assert set(SECTIONS) == set(STAGES)
    for section, stage in STAGES.items():
        config = load_config(stage, section=section)
        assert config == stage()
        assert stage.model_validate(json.loads(json.dumps(config.as_dict()))) == config


def test_the_defaults_are_the_papers() -> None:
    """Sections 4.3 and 3.3; where we differ, the docstring says so."""
    config = PretrainConfig()
    assert config.num_candidates == 8
    assert config.marginal == "span"
    assert config.optimizer.learning_rate == 3e-5
    assert config.refresh.every_steps == 500
    assert SplitConfig().max_wordpieces == 288
    assert IctConfig().projection_size == 128
    assert IctConfig().remove_rate == 0.9
    assert FinetuneConfig().num_passages == 5
    assert FinetuneConfig().max_answer_wordpieces == 10


def test_a_file_goes_over_defaults_and_set_goes_over_the_file(toml: Callable[[str], Path]) -> None:
    file = toml(
        "[pretrain]\nsteps = 7\nseed = 3\n[pretrain.refresh]\nevery_steps = 11\n[ict]\nsteps = 9\n"
    )
    overrides = ["seed=4", "refresh.max_staleness_steps = 50", "marginal=token"]
    config = load_config(PretrainConfig, section="pretrain", file=file, overrides=overrides)
    assert (config.steps, config.seed, config.marginal) == (7, 4, "token")
    assert (config.refresh.every_steps, config.refresh.max_staleness_steps) == (11, 50)
    assert load_config(IctConfig, section="ict", file=file).steps == 9
    assert load_config(MlmConfig, section="mlm", file=file) == MlmConfig()


def test_a_file_written_on_windows_is_read(toml: Callable[[str], Path]) -> None:
    file = toml("\ufeff[ict]\r\nsteps = 9\r\n")
    assert load_config(IctConfig, section="ict", file=file).steps == 9


@pytest.mark.parametrize("stage", [IctConfig, MlmConfig, PretrainConfig, FinetuneConfig])
def test_one_nested_setting_leaves_the_stages_other_defaults_as_they_are(
    stage: type[Config],
) -> None:
    """A stage's learning rate is not the optimiser class's."""
    rate = stage().optimizer.learning_rate
    config = check(stage, {"optimizer": {"weight_decay": 0.0}}, section="x")
    assert config.optimizer.learning_rate == rate
    assert config.optimizer.weight_decay == 0.0
    assert stage(optimizer={"clip_norm": 2.0}).optimizer.learning_rate == rate
    assert stage(optimizer=OptimizerConfig()).optimizer == OptimizerConfig()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("none", None),
        ("1_000", 1_000),
    ],
)
def test_set_takes_toml_values_and_none(text: str, value: object) -> None:
    config = load_config(OptimizerConfig, section="x", overrides=[f"warmup_steps={text}"])
    assert config.warmup_steps == value


def test_set_takes_bare_words_lists_and_text_with_equals_signs() -> None:
    assert load_config(MaskConfig, section="mask", overrides=["tagger=jsonl:a=b.jsonl"]).tagger == (
        "jsonl:a=b.jsonl"
    )
    config = load_config(EvaluateConfig, section="evaluate", overrides=["recall_at=[1, 3]"])
    assert config.recall_at == (1, 3)
    config = load_config(PretrainConfig, section="pretrain", overrides=["null_passage=false"])
    assert config.null_passage is False


@pytest.mark.parametrize(
    ("stage", "override", "told"),
    [
        (PretrainConfig, "stepz=3", r"no setting 'stepz'; there are \[.*'steps'"),
        (
            PretrainConfig,
            "refresh.every=3",
            r"no setting 'refresh.every'; there are \['audit_passages'",
        ),
        (PretrainConfig, "optimizer.lr=3", r"no setting 'optimizer.lr'; there are .*learning_rate"),
        (PretrainConfig, "steps=many", "steps: found 'many'"),
        (PretrainConfig, "steps=0", "steps: found 0, .*greater than or equal to 1"),
        (PretrainConfig, "steps.more=0", r"steps: found \{'more': 0\}"),
        (PretrainConfig, "num_candidates=1", "greater than or equal to 2"),
        (PretrainConfig, "marginal=both", "'span' or 'token'"),
        (PretrainConfig, "seed", "expected key=value"),
        (PretrainConfig, "seed=-1", "seed: found -1, .*greater than or equal to 0"),
        (PretrainConfig, "seed=4294967296", "less than or equal to 4294967295"),
        (EvaluateConfig, "seed=-1", "greater than or equal to 0"),
        (CalibrateConfig, "seed=-1", "greater than or equal to 0"),
        (MaskConfig, "seed=-1", "greater than or equal to 0"),
        (ApproximateConfig, "seed=2147483647", "less than or equal to 2147483646"),
        (PretrainConfig, "optimizer.learning_rate=inf", "finite number"),
        (PretrainConfig, "optimizer.learning_rate=nan", "optimizer.learning_rate: found nan"),
        (PretrainConfig, "optimizer=fast", "optimizer: found 'fast'"),
        (PretrainConfig, "refresh.order=newest", "refresh.order: found"),
        (PretrainConfig, "joint_wordpieces=97", "no room for a passage .*expected 98"),
        (FinetuneConfig, "joint_wordpieces=65", "no room for a passage .*expected 66"),
        (ClassifyConfig, "joint_wordpieces=64", "no room for a passage .*expected 66"),
        (RefreshConfig, "mode=often", "'async', 'sync' or 'off'"),
        (EncoderConfig, "num_layers=0", "num_layers: found 0"),
        (SplitConfig, "max_wordpieces=600", "less than or equal to 510"),
    ],
)
def test_a_wrong_setting_is_told_with_what_was_found_and_what_there_is(
    stage: type[Config], override: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        load_config(stage, section="here", overrides=[override])
    if "=" in override:
        assert str(error.value).startswith("[here] ")


def test_the_least_joint_input_holds_a_wordpiece_of_the_passage_beside_the_longest_question() -> (
    None
):
    """Without one there is no span to choose: training ended in a traceback."""
    config = FinetuneConfig(question_wordpieces=32, joint_wordpieces=34)
    tokenizer = WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, "who", "she"])
    question = tokenizer.encode("who " * (config.question_wordpieces - 2)).ids
    passage = tokenizer.encode("she she").ids
    ids, _ = tokenizer.joint_input(question, passage, config.joint_wordpieces)
    assert ids.count(passage[0]) == 1


def test_all_wrong_settings_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        load_config(IctConfig, section="ict", overrides=["steps=0", "sed=1", "dropout=2"])
    assert all(name in str(error.value) for name in ("steps", "'sed'", "dropout"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[pretrian]\nsteps = 3\n", r"no use for \['pretrian'\]; there are tables \['split'"),
        ("steps = 3\n", r"no use for \['steps'\]"),
        ("ict = 3\n", r"found ict = 3, expected a table \[ict\]"),
        ("[[ict]]\nsteps = 3\n", r"expected a table \[ict\]"),
        ("[ict\n", "is not TOML"),
        ("[ict]\nstepz = 3\n", "no setting 'stepz'"),
    ],
)
def test_a_file_with_anything_unknown_is_refused(
    text: str, told: str, toml: Callable[[str], Path]
) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(IctConfig, section="ict", file=toml(text))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no config file"):
        load_config(IctConfig, section="ict", file=tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(IctConfig, section="ict", file=tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"[ict] # \xe9")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(IctConfig, section="ict", file=tmp_path / "latin.toml")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        IctConfig().steps = 3


def test_an_index_that_is_never_refreshed_may_be_as_stale_as_it_likes() -> None:
    assert RefreshConfig(mode="off", every_steps=100, max_staleness_steps=1).mode == "off"


def test_a_bound_that_would_stop_every_synchronous_run_is_refused() -> None:
    with pytest.raises(ValueError, match="every run would stop"):
        RefreshConfig(mode="sync", every_steps=100, max_staleness_steps=99)
    with pytest.raises(ValueError, match="10 steps between published"):
        RefreshConfig(every_steps=100, max_staleness_steps=10, when_stale="stop")
