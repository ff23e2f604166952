"""A study runs each stage once, shares it, goes on where it was stopped, and makes its table."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import tower_hash
from realm.config import EvaluateConfig
from realm.errors import ConfigError, CorpusError
from realm.masking.store import ExampleStore
from realm.storage import MANIFEST, fingerprint_of, read_json
from realm.study import run as study_run
from realm.study.measures import measure_exact_match
from realm.study.results import RowResult, StudyTable, collect, write_table
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


def test_text_that_several_processes_made_is_the_same(
    study: StudyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = study.examples("a").fingerprint
    used: list[int] = []

    def count(verb: Callable[..., object]) -> Callable[..., object]:
        def counted(*given: object, num_processes: int = 1, **told: object) -> object:
            used.append(num_processes)
            return verb(*given, **told)

        return counted

    for name in ("split", "mask"):
        monkeypatch.setattr(study_run, name, count(getattr(study_run, name)))
    again = StudyRun(study.settings, study.inputs, tmp_path / "out", num_processes=3)
    assert again.examples("a").fingerprint == expected
    assert used == [3, 3]  # X is split, then masked


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
    alone = StudyRun(settings, replace(inputs, also=None), tmp_path / "alone")
    with pytest.raises(ConfigError, match="give it with --also"):
        alone.run(["a"])
    assert not alone.out.exists()


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


# What the measurements say


def changed(study_file: Path, out: Path, inputs: StudyInputs, *overrides: str) -> StudyRun:
    return StudyRun(StudySettings.load(study_file, overrides=overrides), inputs, out)


def write_measured(study: StudyRun, ranks: dict[str, int | None], **more: object) -> None:
    """Write a zero-shot measurement of row d, as a run of the study leaves it."""
    file = study.folder(0, "zero-shot-start.json")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"key": "0", "step": 2, "ranks": ranks, **more}), "utf-8")


def test_recall_at_5_is_looked_for_whatever_k_is_asked_for(
    study: StudyRun, study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths: list[int] = []
    monkeypatch.setattr(
        study_run, "measure_zero_shot", lambda *_, depth, **__: depths.append(depth) or ""
    )
    for told in ("[1]", "[1, 20]"):
        made = changed(study_file, study.out, study.inputs, f"study.recall_at={told}")
        made.run(["d"], [0], zero_shot_only=True)
    assert set(depths) == {5, 20}


def test_the_table_leaves_out_what_was_not_looked_for_so_deep(
    study_file: Path, inputs: StudyInputs, tmp_path: Path
) -> None:
    made = changed(study_file, tmp_path, inputs, "study.recall_at=[1, 5, 20]")
    write_measured(made, {"q1": 4, "q2": None}, depth=5)
    table = collect(made)
    assert table.recall_at["d"] == {"0": {"1": 0.0, "5": 0.5}}
    assert table.growth["start"] == {"0": [(2, 0.5)]}


def test_of_an_older_measurement_the_deepest_rank_says_how_deep_it_was(
    study_file: Path, inputs: StudyInputs, tmp_path: Path
) -> None:
    made = changed(study_file, tmp_path / "deep", inputs, "study.recall_at=[1, 5, 20]")
    write_measured(made, {"q1": 7, "q2": None})
    assert collect(made).recall_at == {row: {"0": {"1": 0.0, "5": 0.0}} for row in "cd"}
    made = changed(study_file, tmp_path / "shallow", inputs, "study.recall_at=[1]")
    write_measured(made, {"q1": 1, "q2": None})
    assert not collect(made).rows, "rank 1 is no recall@5"


def test_a_measurement_of_an_older_release_is_told_its_depth_and_not_made_again(
    study: StudyRun,
) -> None:
    file = study.folder(0, "zero-shot-start.json")
    kept = read_json(file)
    file.write_text(json.dumps({n: v for n, v in kept.items() if n != "depth"}), "utf-8")
    study.run(["d"], [0], zero_shot_only=True)
    assert read_json(file) == kept
    assert kept["depth"] == 5


def test_questions_that_share_an_id_are_refused_before_anything_is_made(
    study_file: Path, inputs: StudyInputs, tmp_path: Path
) -> None:
    line = {"id": "q", "question": "who wrote Emma", "answers": ["Jane Austen"]}
    dev = tmp_path / "dev.jsonl"
    dev.write_text(f"{json.dumps(line)}\n" * 2, "utf-8")
    made = changed(study_file, tmp_path / "out", replace(inputs, dev=dev))
    with pytest.raises(CorpusError, match="found 2 questions with the id 'q', expected a diff"):
        made.run()
    assert not made.out.exists()


def _record(name: str, **judged: bool | None) -> dict[str, object]:
    return {"id": name, "exact_match": None, "regex_match": None, **judged}


@pytest.mark.parametrize(
    ("records", "metric", "share"),
    [
        ([_record("a", exact_match=True), _record("b", exact_match=False)], "exact match", 0.5),
        ([_record("a", regex_match=True), _record("b", regex_match=True)], "regex match", 1.0),
        ([_record("a", exact_match=True), _record("b", regex_match=False)], "right", 0.5),
    ],
)
def test_the_table_says_what_the_answers_were_judged_by(
    study_file: Path,
    inputs: StudyInputs,
    tmp_path: Path,
    records: list[dict[str, object]],
    metric: str,
    share: float,
) -> None:
    made = changed(study_file, tmp_path, inputs)
    write_measured(made, {"a": 1, "b": 2}, depth=5)
    made.folder(0, "report-d.json").write_text(json.dumps({"questions": records}), "utf-8")
    table = collect(made)
    assert table.metric == metric
    assert table.rows["d"].exact_match is not None
    assert table.rows["d"].exact_match.mean == share
    assert table.markdown().startswith(f"| row | | seeds | recall@5 | {metric} |")


def test_questions_with_patterns_alone_are_measured_to_the_end(
    study: StudyRun, tmp_path: Path
) -> None:
    asked = [
        replace(question, answers=(), answer_patterns=question.answers) for question in study.dev
    ]
    told = measure_exact_match(
        study.folder(0, "finetune-d"),
        asked,
        tmp_path / "report.json",
        config=study.settings.stage("evaluate", EvaluateConfig),
        split_name="patterns",
        device="cpu",
    )
    assert re.fullmatch(r"regex match \d+\.\d%", told)


def test_a_label_does_not_take_the_table_apart() -> None:
    row = RowResult(
        label="p(z|x) of\nthe start", seeds=(0,), recall=None, exact_match=None,
        exact_match_seeds=(), paper_recall=None, paper_exact_match=None,
    )  # fmt: skip
    table = StudyTable(
        metric="exact match", rows={"a": row}, comparisons=(), recall_at={}, curves={}, growth={}
    )
    assert table.markdown().splitlines()[-1] == "| a | p(z\\|x) of the start | 1 | - | - |  |  |"


def test_whoever_reads_a_table_meanwhile_reads_the_whole_of_the_old_one(tmp_path: Path) -> None:
    """A new file takes its name when it is on the disk: a kill leaves the one or the other."""
    table = StudyTable(
        metric="exact match", rows={}, comparisons=[], recall_at={}, curves={}, growth={}
    )
    write_table(table, tmp_path)
    old = (tmp_path / "table.md").read_text("utf-8")
    with (tmp_path / "table.md").open(encoding="utf-8") as stream:
        write_table(replace(table, metric="regex match"), tmp_path)
        assert stream.read() == old
    assert "regex match" in (tmp_path / "table.md").read_text("utf-8")
