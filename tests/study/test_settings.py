"""A study's file: checked as a whole before anything runs."""

from pathlib import Path

import pytest

from realm.config import IctConfig, MaskConfig, PretrainConfig
from realm.errors import ConfigError
from realm.study.settings import StudySettings

RECIPE = Path(__file__).parents[2] / "reproductions" / "table2.toml"


def changed(study_file: Path, tmp_path: Path, old: str, new: str) -> Path:
    text = study_file.read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "study.toml"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    return file


def test_a_row_changes_what_it_names_and_nothing_else(study_file: Path) -> None:
    settings = StudySettings.load(study_file)
    base = settings.stage("pretrain", PretrainConfig, row="a")
    other = settings.stage("pretrain", PretrainConfig, row="h")
    assert other.refresh.mode == "off"
    assert other.refresh.model_copy(update={"mode": "sync"}) == base.refresh
    assert other.model_copy(update={"refresh": base.refresh}) == base
    assert settings.stage("mask", MaskConfig, row="e").scheme == "token"
    assert settings.stage("mask", MaskConfig, row="a").scheme == "salient"


def test_each_seed_goes_into_every_training_stage(study_file: Path) -> None:
    settings = StudySettings.load(study_file)
    assert settings.stage("ict", IctConfig, seed=7).seed == 7
    assert settings.stage("pretrain", PretrainConfig, row="a", seed=7).seed == 7


def test_overrides_name_a_section_and_win(study_file: Path) -> None:
    told = ["pretrain.refresh.every_steps=2", "ict.steps=9"]
    settings = StudySettings.load(study_file, overrides=told)
    assert settings.stage("pretrain", PretrainConfig, row="a").refresh.every_steps == 2
    assert settings.stage("pretrain", PretrainConfig, row="a").refresh.mode == "sync"
    assert settings.stage("ict", IctConfig).steps == 9
    with pytest.raises(ConfigError, match=r"expected SECTION\.KEY=VALUE"):
        StudySettings.load(study_file, overrides=["steps=9"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[rows.h]", '[rows."h*"]', "expected the name of a folder"),
        ("[study]", "[studies]", r"found tables \['studies'\]"),
        ('["a", "d"]', '["a", "x"]', r"found rows \['x'\], the study has"),
        ('mode = "off"', 'mood = "off"', r"pretrain of row h.*no setting 'refresh\.mood'"),
        ('scheme = "token"', 'scheme = "words"', "mask of row e"),
        ('label = "whole"', 'label = "whole"\nretriever = "mine"', r"\[a\] retriever"),
        ("seeds = [0, 1]", "seeds = [0, -1]", r"\[a\] seeds"),
        ("recall_at = [1, 5]", "recall_at = []", r"\[study\] recall_at"),
        ("recall_at = [1, 5]", "recall_at = [0, 5]", r"\[study\] recall_at"),
        (
            'encoder = "start"\npretrained_as = "a"',
            'pretrained_as = "a"\npretrain = { steps = 3 }',
            "row b takes its parts from row a, and has its own",
        ),
        (
            'retriever = "start"\npretrained_as = "a"',
            'retriever = "start"\npretrained_as = "b"',
            "row c takes its parts from row b, which has those of row a; expected pretrained_as",
        ),
        ("[ict]", "[ict]\nseed = 5", r"\[ict\] has seed, which would not be used; seed: say with"),
        ("[mlm]", '[mlm]\ndevice = "cuda:1"', "has device, which would not be used"),
        ('mode = "off"', 'mode = "off" }, seed = 5, optimizer = {', "pretrain of row h has seed"),
        ("[rows.h]", "[rows.start]", "found a row named 'start' with a trained retriever"),
    ],
)
def test_what_is_wrong_in_any_row_is_told_before_anything_runs(
    study_file: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        StudySettings.load(changed(study_file, tmp_path, old, new))


def test_a_study_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("[ict]\nsteps = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no row"):
        StudySettings.load(tmp_path / "study.toml")


def test_the_rows_of_table_2_change_one_thing_each() -> None:
    settings = StudySettings.load(RECIPE)
    assert list(settings.rows) == list("abcdefghij")
    joint = {
        name: settings.stage("pretrain", PretrainConfig, row=name).as_dict() for name in "aefghij"
    }
    assert joint["e"] == joint["f"] == joint["a"]
    assert {name: settings.stage("mask", MaskConfig, row=name).scheme for name in "aef"} == {
        "a": "salient",
        "e": "token",
        "f": "span",
    }
    fresh = joint["a"]["refresh"].pop("every_steps")
    assert joint["g"]["refresh"].pop("every_steps") == 30 * fresh
    assert joint["g"] == joint["a"]
    for name, key, value in (("i", "null_passage", False), ("j", "exclude_own", False)):
        joint[name]["refresh"].pop("every_steps")
        assert joint[name] == {**joint["a"], key: value}
    assert [settings.source(name) for name in "bc"] == ["a", "a"]
    assert "trained" not in {settings.rows["d"].retriever, settings.rows["d"].encoder}
    assert all(settings.rows[name].seeds == (0, 1, 2) for name in "adeg")
