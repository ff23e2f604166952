"""A study runs each stage once, shares it, goes on where it was stopped, and makes its table."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import tower_hash
from realm.errors import ConfigError
from realm.masking.store import ExampleStore
from realm.storage import MANIFEST, fingerprint_of, read_json
from realm.study import run as study_run
from realm.study.results import collect, write_table
from realm.study.run import StudyInputs, StudyRun, Watch
from realm.study.settings import StudySettings

MakeStudy = Callable[[Path], StudyRun]


@pytest.fixture(scope="module")
def make_study(study_file: Path, inputs: StudyInputs) -> MakeStudy:
    def make(out: Path) -> StudyRun:
        return StudyRun(StudySettings.load(study_file), inputs, out)

    return make


@pytest.fixture(scope="module")
def study(make_study: MakeStudy, tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    """Rows a to d and h with seed 0, after a stop in the middle of row a's fine-tuning."""
    made = make_study(tmp_path_factory.mktemp("study") / "out")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    made.run(["a"], [0], zero_shot_only=True)
    assert not list(made.folder(0, ".").glob("finetune-*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_run, "finetune", stop)
        with pytest.raises(KeyboardInterrupt):
            made.run(["a"], [0])
    assert list(collect(made).rows) == ["a", "b"]  # the same retriever, before any question
    assert collect(made).rows["a"].exact_match is None
    made.run(["a", "b", "c", "d", "h"], [0])
    return made


def fingerprint(run: Path) -> str:
    return str(read_json(find_checkpoint(run) / MANIFEST)["fingerprint"])


def test_rows_start_fine_tuning_from_the_parts_that_they_name(study: StudyRun) -> None:
    trained, ict, mlm = (study.folder(0, name) for name in ("pretrain-a", "ict", "mlm"))
    parts = {"a": [trained], "b": [trained, mlm], "c": [ict, trained], "d": [ict, mlm]}
    for row, runs in parts.items():
        started = read_json(study.folder(0, f"finetune-{row}") / MANIFEST)["inputs"]["start"]
        assert started == fingerprint_of([fingerprint(run) for run in runs]), row


def test_rows_without_pre_training_of_their_own_have_no_such_folder(study: StudyRun) -> None:
    made = {path.name for path in study.folder(0, ".").glob("pretrain-*")}
    assert made == {"pretrain-a", "pretrain-h"}


def test_the_retriever_is_measured_as_pre_training_left_it(study: StudyRun) -> None:
    for name, run in (("a", "pretrain-a"), ("start", "ict")):
        ranks = read_json(study.folder(0, f"zero-shot-{name}.json"))["ranks"]
        assert list(ranks) == [question.id for question in study.dev]
        towers = load_model(study.folder(0, run)).need_towers()
        indexes = study.folder(0, run).glob("index/step-*/manifest.json")
        hashes = {read_json(file)["content"]["model_hash"] for file in indexes}
        assert tower_hash(towers.passage) in hashes


def test_x_is_z_and_a_share_of_the_other_text(study: StudyRun) -> None:
    assert len(study.sentences) > len(study.store)
    examples = study.examples("a")
    origins = {examples[row].origin_sha256 for row in range(len(examples))}
    ours = {study.store.sha256(row) for row in range(len(study.store))}
    assert origins & ours, "a passage of Z is recognised as the example's own"


def test_a_row_with_its_own_masks_has_its_own_examples(study: StudyRun) -> None:
    own = study.examples("e")
    assert own.folder.name == "examples-e"
    assert isinstance(own, ExampleStore)
    assert own.fingerprint != study.examples("a").fingerprint
    assert study.examples("h").folder == study.examples("a").folder


def test_joint_pre_training_may_mask_other_text_alone(
    study_file: Path, inputs: StudyInputs, tmp_path: Path
) -> None:
    settings = StudySettings.load(study_file, overrides=["study.pretrain_text='also'"])
    made = StudyRun(settings, inputs, tmp_path / "out")
    examples = made.examples("a")
    ours = {made.store.sha256(row) for row in range(len(made.store))}
    assert not ours & {examples[row].origin_sha256 for row in range(len(examples))}
    alone = StudyRun(settings, replace(inputs, also=None), tmp_path / "out")
    with pytest.raises(ConfigError, match="give it with --also"):
        alone.examples("a")


def test_what_is_finished_is_not_done_again(study: StudyRun, make_study: MakeStudy) -> None:
    files = [*study.out.rglob("*.safetensors"), *study.out.rglob("*.json")]
    before = {file: file.stat().st_mtime_ns for file in files}
    told: list[str] = []
    again = StudyRun(study.settings, study.inputs, study.out, watch=Watch(tell=told.append))
    again.run(["a", "b", "c", "d", "h"], [0])
    assert {file: file.stat().st_mtime_ns for file in files} == before
    assert [line.split()[1] for line in told if line.startswith("row ")] == list("abcdh")
    assert collect(make_study(study.out)) == collect(study)


def test_the_table_holds_what_is_there_and_the_differences(study: StudyRun) -> None:
    table = collect(study)
    assert list(table.rows) == ["a", "b", "c", "d", "h"]
    assert table.rows["a"].recall == table.rows["b"].recall, "the same retriever"
    assert table.rows["c"].recall == table.rows["d"].recall
    assert [(c.first, c.second) for c in table.comparisons] == [("a", "d")]
    assert set(table.recall_at["a"]["0"]) == {"1", "5"}
    assert set(table.curves) == {"a", "h"}
    assert set(table.growth) == {"a", "h", "start"}
    assert [step for step, _ in table.growth["a"]["0"]] == [1, 2], "both checkpoints are kept"
    final = table.rows["a"].recall
    assert final is not None
    assert table.growth["a"]["0"][-1][1] == pytest.approx(final.mean)
    steps = [step for step, _ in table.curves["a"]["0"]["eval/utility/marginal_minus_null"]]
    assert steps == [0, 2]
    lines = table.markdown().splitlines()
    assert lines[2].startswith("| a | whole | 1 | ")
    assert lines[2].endswith("| 38.5 | 38.2 |")
    assert any(line.startswith("| a - d | ") for line in lines)


def test_the_table_is_written_as_text_and_as_numbers(study: StudyRun) -> None:
    write_table(collect(study), study.out)
    kept = json.loads((study.out / "table.json").read_text(encoding="utf-8"))
    assert kept["rows"]["a"]["recall"]["mean"] == collect(study).rows["a"].recall.mean  # type: ignore[union-attr]
    assert "| a - d | " in (study.out / "table.md").read_text(encoding="utf-8")


def test_rows_run_with_their_own_seeds_one_seed_before_the_next(
    study: StudyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, int]] = []
    monkeypatch.setattr(study, "run_row", lambda row, seed, **_: ran.append((row, seed)))
    study.run(["a", "d"])
    study.run(["d"], [4])
    assert ran == [("a", 0), ("d", 0), ("a", 1), ("d", 4)]
