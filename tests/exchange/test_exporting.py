"""realm export: what others load, and what comes back from the old layout equals what went out."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor

from realm.answering import Answerer
from realm.checkpoint.checkpoints import find_checkpoint, load_model, save_checkpoint
from realm.checkpoint.defaults import stage_defaults
from realm.checkpoint.parts import Model
from realm.config import FinetuneConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError
from realm.exchange import exporting, hf_realm
from realm.exchange.exporting import export_run
from realm.exchange.hf_realm import write_safetensors
from realm.exchange.importing import import_weights
from realm.index.snapshot import Snapshot, snapshot_folder
from realm.model.encoder import build_encoder
from realm.model.inputs import Inputs
from realm.model.reader import build_reader
from realm.records import Question
from realm.storage import MANIFEST, fingerprint, read_json
from realm.tokenizer import WordpieceTokenizer
from realm.training.finetune import finetune

Copied = Callable[..., Path]
MakeModel = Callable[..., Any]
PUBLISHED = Path(__file__).parent / "published"
KINDS = {
    "embedder": "RealmEmbedder",
    "scorer_shared": "RealmEmbedder",
    "scorer_two_tower": "RealmScorer",
    "encoder": "RealmKnowledgeAugEncoder",
    "reader": "RealmReader",
    "openqa": "RealmForOpenQA",
}
QUESTIONS = ("Who built the bridge of salt?", "Where is the bird?", "Who was king?")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Import a checkpoint of ours, once."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str) -> Path:
        vocabulary = PUBLISHED / "openqa" / "vocab.txt"
        own = name == "openqa"
        import_weights(PUBLISHED / name, folder / name, tokenizer=None if own else vocabulary)
        return folder / name

    return run


@pytest.fixture(scope="module")
def tuned(runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine-tune the imported open-QA model: its towers are untied."""
    out = tmp_path_factory.mktemp("tuned") / "qa"
    start = runs("openqa")
    asked = [
        Question(id=str(n), question=text, answers=("the king", "queen Imra", "bird"))
        for n, text in enumerate(QUESTIONS)
    ]
    config = FinetuneConfig(
        **(stage_defaults(start, "finetune") | {"retriever_beam": 50}),
        steps=2,
        batch_size=2,
        threads=1,
        autocast="none",
        held_out=0.0,
        optimizer={"learning_rate": 1e-2, "warmup_steps": 0},
    )
    finetune(asked, PassageStore.open(start / "passages"), out, run=start, config=config)
    return out


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Save parts as a checkpoint."""

    def save(
        tokenizer: WordpieceTokenizer, name: str = "parts", *, settings: Any = None, **parts: Any
    ) -> Path:
        model = Model(tokenizer=tokenizer, **parts)
        save_checkpoint(tmp_path / name, model, settings=settings or {}, inputs={})
        return tmp_path / name

    return save


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Return the message of an export that fails, after a look that it left nothing."""

    def fail(run: Path, to: Any = "hf-realm", **options: Any) -> str:
        before = sorted(path.name for path in tmp_path.iterdir())
        with pytest.raises((ConfigError, ArtifactError)) as caught:
            export_run(run, tmp_path / "refused", to=to, **options)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        return str(caught.value)

    return fail


def assert_equal_models(found: Model, expected: Model) -> None:
    assert found.modules.keys() == expected.modules.keys()
    for name, part in expected.modules.items():
        assert found.modules[name].settings == part.settings
        theirs = found.modules[name].state_dict()
        assert theirs.keys() == part.state_dict().keys()
        for key, value in part.state_dict().items():
            assert theirs[key].equal(value), key
    assert found.tokenizer.fingerprint == expected.tokenizer.fingerprint


def texts_of(folder: Path) -> list[str]:
    store = PassageStore.open(folder)
    return [store.text(row) for row in range(len(store))]


def vectors_of(run: Path) -> Tensor:
    snapshot = Snapshot.open(snapshot_folder(run, 0), verify=True)
    return snapshot.exact[torch.arange(len(snapshot))]


def answers_of(run: Path, *, read: int | None = None, **options: Any) -> list[tuple[Any, ...]]:
    answerer = Answerer.load(run, **options)
    answered = answerer.answer(QUESTIONS, num_passages=read, num_answers=8)
    return [
        (one.read_rows, answer.text, answer.start, round(answer.probability, 5))
        for one in answered
        for answer in one.answers
    ]


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# The old layout


@pytest.mark.parametrize("name", KINDS)
def test_what_was_imported_comes_back_bit_by_bit(
    name: str, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    report = export_run(runs(name), tmp_path / "old", to="hf-realm")
    assert (report.folder, report.holds) == (tmp_path / "old", (KINDS[name],))
    again = import_weights(tmp_path / "old", tmp_path / "again")
    assert again.kind == KINDS[name]
    assert_equal_models(load_model(tmp_path / "again"), load_model(runs(name)))
    if name == "openqa":
        run, back = runs(name), tmp_path / "again"
        assert texts_of(back / "passages") == texts_of(run / "passages")
        assert vectors_of(back).equal(vectors_of(run))
        assert answers_of(back) == answers_of(run)


@pytest.mark.parametrize("name", KINDS)
def test_the_old_names_and_settings_are_those_of_the_source(
    name: str, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    """What an old class has and never calls is left out: nothing else, nothing more."""
    export_run(runs(name), tmp_path / "old", to="hf-realm")
    found = load_file(tmp_path / "old" / "model.safetensors")
    source = PUBLISHED / name
    if (source / "model.safetensors").is_file():
        expected = load_file(source / "model.safetensors")
    else:
        expected = torch.load(source / "pytorch_model.bin", weights_only=True)
    if name == "scorer_shared":
        expected = {
            key.removeprefix("embedder."): value
            for key, value in expected.items()
            if key.startswith("embedder.")
        }
    assert all(value.equal(expected[key]) for key, value in found.items())
    left_out = expected.keys() - found.keys()
    heads = {"position_ids", "cls.predictions."}
    assert all(any(head in key for head in heads) for key in left_out), left_out
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    was = json.loads((source / "config.json").read_text())
    own = {"architectures", "num_block_records", "transformers_version"}
    by_us = {"searcher_seq_len", "torch_dtype", "dtype", "attention_probs_dropout_prob"}
    if "openqa" not in name:
        by_us |= {"max_span_width", "span_hidden_size", "retriever_proj_size"}
    for key in was.keys() - own - by_us - {"hidden_dropout_prob"}:
        assert config[key] == was[key], key
    assert config["architectures"] == [KINDS[name]]
    assert config["num_block_records"] == (20 if name == "openqa" else 0)


def test_block_records_are_what_numpy_reads(runs: Callable[[str], Path], tmp_path: Path) -> None:
    export_run(runs("openqa"), tmp_path / "old", to="hf-realm")
    found, expected = (
        np.load(folder / "block_records.npy", allow_pickle=True).tolist()
        for folder in (tmp_path / "old", PUBLISHED / "openqa")
    )
    assert found == expected


def test_a_fine_tuned_run_answers_the_same_after_its_return(tuned: Path, tmp_path: Path) -> None:
    towers = load_model(tuned).need_towers()
    assert not towers.shared
    assert not towers.query.projection.weight.equal(towers.passage.projection.weight)
    assert export_run(tuned, tmp_path / "old", to="hf-realm").holds == ("RealmForOpenQA",)
    import_weights(tmp_path / "old", tmp_path / "again")
    back = load_model(tmp_path / "again")
    query = back.need_towers().query.state_dict()
    assert all(value.equal(query[name]) for name, value in towers.query.state_dict().items())
    expected = answers_of(tuned, read=3)  # as it was trained; without a word it reads 5
    assert len(expected) > len(QUESTIONS)
    assert answers_of(tmp_path / "again") == expected


def test_no_beam_is_larger_than_the_corpus(tuned: Path, tmp_path: Path) -> None:
    """The old code fails where it is to find more passages than there are."""
    export_run(tuned, tmp_path / "old", to="hf-realm")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    assert (config["searcher_beam_size"], config["reader_beam_size"]) == (20, 3)
    assert (config["reader_seq_len"], config["num_block_records"]) == (40, 20)


def test_an_untied_run_without_a_reader_is_a_scorer(
    make_towers: MakeModel,
    tokenizer: WordpieceTokenizer,
    saved: Callable[..., Path],
    tmp_path: Path,
) -> None:
    towers = make_towers(share=False, pooling="pooler")
    run = saved(tokenizer, towers=towers)
    assert export_run(run, tmp_path / "old", to="hf-realm").holds == ("RealmScorer",)
    import_weights(tmp_path / "old", tmp_path / "again", num_towers="two")


def test_embedder_and_encoder_stand_in_folders_of_their_own(
    runs: Callable[[str], Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    embedder, encoder = load_model(runs("embedder")), load_model(runs("encoder"))
    run = saved(
        embedder.tokenizer,
        settings={"num_candidates": 5},
        towers=embedder.towers,
        encoder=encoder.encoder,
    )
    report = export_run(run, tmp_path / "old", to="hf-realm")
    assert report.holds == ("RealmEmbedder", "RealmKnowledgeAugEncoder")
    files = {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"}
    assert files_of(tmp_path / "old") == {
        MANIFEST,
        *(f"{place}/{file}" for place in ("embedder", "encoder") for file in files),
    }
    for place, expected in (("embedder", embedder), ("encoder", encoder)):
        import_weights(tmp_path / "old" / place, tmp_path / place)
        assert_equal_models(load_model(tmp_path / place), expected)
        assert stage_defaults(tmp_path / place, "pretrain")["num_candidates"] == 5


def random_inputs(vocab_size: int) -> Inputs:
    torch.manual_seed(3)
    ids = torch.randint(5, vocab_size, (6, 12))
    return Inputs(ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))


@pytest.mark.parametrize("share", [True, False], ids=["shared", "untied"])
def test_an_embedder_of_ours_gives_the_same_vectors_under_the_old_epsilon(
    make_towers: MakeModel,
    tokenizer: WordpieceTokenizer,
    saved: Callable[..., Path],
    tmp_path: Path,
    *,
    share: bool,
) -> None:
    """Ours has 1e-3 in the last layer norm, as released; the old classes have BERT's 1e-12."""
    towers = make_towers(share=share, pooling="pooler")
    with torch.no_grad():
        for tower in {towers.query, towers.passage}:
            tower.projection.weight.mul_(0.02)  # so that the epsilon counts
            tower.projection.bias.normal_(std=0.02)
    export_run(saved(tokenizer, towers=towers), tmp_path / "old", to="hf-realm")
    import_weights(tmp_path / "old", tmp_path / "again")
    back, inputs = load_model(tmp_path / "again").need_towers(), random_inputs(tokenizer.vocab_size)
    assert (towers.query.norm.eps, back.query.norm.eps) == (1e-3, 1e-12)
    assert not back.query.projection.weight.equal(towers.query.projection.weight)
    for side in ("query", "passage"):
        with torch.no_grad():
            expected = getattr(towers, side)(inputs)
            torch.testing.assert_close(getattr(back, side)(inputs), expected, atol=1e-5, rtol=0)
            getattr(towers, side).norm.eps = 1e-12  # what would come out unscaled
            assert (getattr(towers, side)(inputs) - expected).abs().max() > 1e-2
            getattr(towers, side).norm.eps = 1e-3


def test_mean_pooling_is_refused_by_name(
    make_towers: MakeModel,
    make_encoder: MakeModel,
    tokenizer: WordpieceTokenizer,
    saved: Callable[..., Path],
    refused: Callable[..., str],
) -> None:
    for number, parts in enumerate(({}, {"encoder": make_encoder()})):
        run = saved(tokenizer, str(number), towers=make_towers(pooling="mean"), **parts)
        told = refused(run)
        assert "pools by 'mean'" in told
        assert "`--set pooling=pooler`" in told
        assert "`--to sentence-transformers` can express it" in told


def test_a_run_with_hybrid_retrieval_is_refused(
    runs: Callable[[str], Path],
    saved: Callable[..., Path],
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    model = load_model(runs("openqa"))
    parts = {"towers": model.need_towers(), "reader": model.need_reader()}
    run = saved(model.tokenizer, settings={"retriever": "hybrid"}, **parts)
    told = refused(run, passages=runs("openqa") / "passages")
    assert "retriever='hybrid'" in told
    assert "--to safetensors" in told
    export_run(run, tmp_path / "kept", to="safetensors")


def test_embedder_and_reader_of_different_berts_are_refused(
    runs: Callable[[str], Path], saved: Callable[..., Path], refused: Callable[..., str]
) -> None:
    model, store = load_model(runs("openqa")), runs("openqa") / "passages"
    settings = model.need_reader().settings
    bert = settings["bert"] | {"intermediate_size": 32, "hidden_act": "gelu"}
    reader = build_reader(settings | {"bert": bert})
    run = saved(model.tokenizer, towers=model.towers, reader=reader)
    shutil.copytree(runs("openqa") / "index", run / "index")
    told = refused(run, passages=store)
    assert "embedder and reader differ in hidden_act, intermediate_size" in told
    assert "started from the same BERT" in told


def test_padding_rows_of_embedder_and_reader_count_as_a_difference(
    runs: Callable[[str], Path], saved: Callable[..., Path], refused: Callable[..., str]
) -> None:
    model = load_model(runs("openqa"))
    settings = model.need_reader().settings
    bert = {name: value for name, value in settings["bert"].items() if name != "pad_token_id"}
    run = saved(
        model.tokenizer, towers=model.towers, reader=build_reader(settings | {"bert": bert})
    )
    shutil.copytree(runs("openqa") / "index", run / "index")
    told = refused(run, passages=runs("openqa") / "passages")
    assert "embedder and reader differ in pad_token_id" in told


def test_a_padding_row_of_0_stays_0(
    make_encoder: MakeModel,
    tokenizer: WordpieceTokenizer,
    saved: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """A model of our own has BERT's; the old default would be 1."""
    encoder = make_encoder()
    export_run(saved(tokenizer, encoder=encoder), tmp_path / "old", to="hf-realm")
    assert json.loads((tmp_path / "old" / "config.json").read_text())["pad_token_id"] == 0
    import_weights(tmp_path / "old", tmp_path / "again")
    back = load_model(tmp_path / "again").need_encoder()
    assert back.bert.embeddings.word_embeddings.padding_idx == 0
    assert back.settings == encoder.settings


def test_upper_case_comes_back(
    make_encoder: MakeModel, tokenizer: WordpieceTokenizer, saved: Callable[..., Path]
) -> None:
    cased = WordpieceTokenizer.from_vocabulary(
        tokenizer.vocabulary(), lowercase=False, strip_accents=False, split_chinese=False
    )
    run = saved(cased, encoder=make_encoder())
    export_run(run, run.parent / "old", to="hf-realm")
    import_weights(run.parent / "old", run.parent / "again")
    assert load_model(run.parent / "again").tokenizer.fingerprint == cased.fingerprint


def test_other_passages_are_embedded_and_exported(
    runs: Callable[[str], Path], copied: Copied, tmp_path: Path
) -> None:
    source = copied("openqa")
    array = np.empty(20, dtype=object)
    array[:] = [f"The year {year} in Tovi.".encode() for year in range(20)]
    np.save(source / "block_records.npy", array, allow_pickle=True)
    import_weights(source, tmp_path / "other")
    run = shutil.copytree(runs("openqa"), tmp_path / "run")
    other = tmp_path / "other" / "passages"
    export_run(run, tmp_path / "old", to="hf-realm", passages=other)
    import_weights(tmp_path / "old", tmp_path / "again")
    assert texts_of(tmp_path / "again" / "passages")[3] == "The year 3 in Tovi."
    assert answers_of(tmp_path / "again") == answers_of(run, passages=other)


def test_a_model_without_passages_needs_some(
    copied: Copied, tmp_path: Path, refused: Callable[..., str]
) -> None:
    import_weights(copied("openqa"), tmp_path / "alone", with_passages=False)
    assert "does not say which passages it uses; pass --passages" in refused(tmp_path / "alone")


def test_passages_of_another_vocabulary_are_refused(
    runs: Callable[[str], Path], store: PassageStore, tmp_path: Path, refused: Callable[..., str]
) -> None:
    run = shutil.copytree(runs("openqa"), tmp_path / "run")
    before = fingerprint(run)
    assert "cut with another tokenizer than the model's" in refused(run, passages=store.folder)
    assert fingerprint(run) == before  # nothing was embedded


# Ours


def test_the_model_alone_is_what_a_run_had(tuned: Path, tmp_path: Path) -> None:
    report = export_run(tuned, tmp_path / "model", to="safetensors")
    assert report.holds == ("embedder", "reader")
    assert files_of(tmp_path / "model") == {
        MANIFEST,
        "model.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert_equal_models(load_model(tmp_path / "model"), load_model(tuned))
    store = Answerer.load(tuned).store.folder
    assert answers_of(tmp_path / "model", passages=store)  # embedded anew: it has no index


def test_an_imported_model_keeps_its_settings_in_an_export(
    runs: Callable[[str], Path], tmp_path: Path
) -> None:
    export_run(runs("openqa"), tmp_path / "model", to="safetensors")
    for stage in ("pretrain", "finetune", "evaluate"):
        expected = stage_defaults(runs("openqa"), stage)
        assert stage_defaults(tmp_path / "model", stage) == expected
    passages = runs("openqa") / "passages"
    assert Answerer.load(tmp_path / "model", passages=passages).lengths.num_passages == 3


# All targets

TARGETS = ("safetensors", "hf-realm", "sentence-transformers")


@pytest.mark.parametrize("to", TARGETS)
def test_an_export_holds_plain_data_only(tuned: Path, tmp_path: Path, to: Any) -> None:
    export_run(tuned, tmp_path / "out", to=to)
    endings = {Path(name).suffix for name in files_of(tmp_path / "out")}
    assert endings <= {".json", ".safetensors", ".txt", ".npy", ".md"}
    assert ".safetensors" in endings
    assert not any(path.name.startswith(".") for path in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("to", TARGETS)
def test_an_export_is_made_once_and_again_on_demand(tuned: Path, tmp_path: Path, to: Any) -> None:
    out = tmp_path / "out"
    first = export_run(tuned, out, to=to)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = export_run(tuned, out, to=to)
    assert (first.already_done, again.already_done) == (False, True)
    assert again.holds == first.holds
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    made = fingerprint(out)
    assert not export_run(tuned, out, to=to, rebuild=True).already_done
    assert fingerprint(out) == made
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("to", TARGETS)
def test_an_export_of_another_model_is_refused_until_rebuild(
    tuned: Path, runs: Callable[[str], Path], tmp_path: Path, to: Any
) -> None:
    out = tmp_path / "out"
    export_run(runs("openqa"), out, to=to)
    before = fingerprint(out)
    with pytest.raises(ArtifactError, match=r"was made from other .*--rebuild"):
        export_run(tuned, out, to=to)
    assert fingerprint(out) == before
    assert not export_run(tuned, out, to=to, rebuild=True).already_done
    assert fingerprint(out) != before


def test_an_export_for_somebody_else_is_refused_until_rebuild(tuned: Path, tmp_path: Path) -> None:
    export_run(tuned, tmp_path / "out", to="hf-realm")
    with pytest.raises(ArtifactError, match="setting to "):
        export_run(tuned, tmp_path / "out", to="sentence-transformers")


@pytest.mark.parametrize("to", TARGETS)
def test_an_export_over_a_run_or_a_folder_of_somebody_is_refused(
    tuned: Path, runs: Callable[[str], Path], tmp_path: Path, to: Any
) -> None:
    run = shutil.copytree(runs("embedder"), tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for out in (run, tmp_path / "mine"):
        before = fingerprint(out)
        for rebuild in (False, True):
            with pytest.raises(ArtifactError):
                export_run(tuned, out, to=to, rebuild=rebuild)
        assert fingerprint(out) == before


def disk_is_full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def full_after(num_writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full after so many vectors or texts."""
    rows = hf_realm._rows

    def some(snapshot: Snapshot) -> Any:
        yield from list(rows(snapshot))[:num_writes]
        disk_is_full()

    monkeypatch.setattr(hf_realm, "_rows", some)


@pytest.mark.parametrize("was_there", [False, True])
@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("hf-realm", "write_safetensors"),
        ("hf-realm", "write_plain_json"),
        ("hf-realm", "_rows"),
        ("sentence-transformers", "exporting.write_sentence_transformers"),
        ("sentence-transformers", "exporting.write_json"),
        ("safetensors", "exporting.save_checkpoint"),
    ],
)
def test_a_full_disk_publishes_nothing(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Any, name: str, was_there: Any
) -> None:
    out = tmp_path / "out"
    if was_there:
        export_run(tuned, out, to=to)
    before = fingerprint(out) if was_there else None
    with monkeypatch.context() as patch:
        if name == "_rows":
            full_after(0, patch)
        elif name.startswith("exporting."):
            patch.setattr(exporting, name.removeprefix("exporting."), disk_is_full)
        else:
            patch.setattr(hf_realm, name, disk_is_full)
        with pytest.raises((ArtifactError, OSError), match="No space left on device"):
            export_run(tuned, out, to=to, rebuild=was_there)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if was_there else [])
    assert before is None or fingerprint(out) == before
    export_run(tuned, out, to=to, rebuild=was_there)
    assert out.is_dir()


def test_a_checkpoint_may_be_named_instead_of_its_run(tuned: Path, tmp_path: Path) -> None:
    for number, run in enumerate((tuned, find_checkpoint(tuned))):
        export_run(run, tmp_path / str(number), to="hf-realm")
    assert fingerprint(tmp_path / "0") == fingerprint(tmp_path / "1")


@pytest.mark.parametrize("to", TARGETS)
def test_a_folder_that_is_no_run_is_told(
    tmp_path: Path, refused: Callable[..., str], to: Any
) -> None:
    assert "found no folder" in refused(tmp_path / "gone", to)
    (tmp_path / "empty").mkdir()
    assert "found no checkpoint in" in refused(tmp_path / "empty", to)


def test_sentence_transformers_loads_the_retriever(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert export_run(tuned, tmp_path / "out", to="sentence-transformers").holds == ("embedder",)
    retriever = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True)
    found = retriever.encode_query(list(QUESTIONS), convert_to_tensor=True)
    model = load_model(tuned)
    for text, vector in zip(QUESTIONS, found, strict=True):
        ids, segments = model.tokenizer.query_input(model.tokenizer.encode(text).ids, 20)
        inputs = Inputs(
            torch.tensor([ids]), torch.tensor([segments]), torch.ones(1, len(ids), dtype=torch.bool)
        )
        with torch.no_grad():
            expected = model.need_towers().query(inputs)[0]
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=0)


def test_without_towers_there_is_no_retriever(
    runs: Callable[[str], Path], refused: Callable[..., str]
) -> None:
    assert "has no embedder" in refused(runs("encoder"), "sentence-transformers")


# The file itself


def pieces_of(value: Tensor, sizes: Sequence[int]) -> Any:
    return iter(value.split(list(sizes)))


def test_a_streamed_safetensors_file_is_what_the_library_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "weight": torch.randn(3, 5),
        "größe": torch.randn(2),
        "scalar": torch.tensor(1.5),
        "none": torch.zeros(0, 4),
        "across": torch.randn(4, 3).t(),
        "frozen": torch.nn.Parameter(torch.ones(2)).detach(),
    }
    rows = torch.randn(10, 4)
    streamed = {"rows": ((10, 4), pieces_of(rows, [3, 3, 4])), "last": ((0, 2), iter([]))}
    write_safetensors(tmp_path / "ours", tensors, streamed)
    whole = {**tensors, "rows": rows, "last": torch.zeros(0, 2)}
    contiguous = {name: value.contiguous() for name, value in whole.items()}
    save_file(contiguous, tmp_path / "theirs", metadata={"format": "pt"})
    found, expected = load_file(tmp_path / "ours"), load_file(tmp_path / "theirs")
    assert found.keys() == expected.keys()
    assert all(value.equal(expected[name]) for name, value in found.items())
    assert all(value.shape == whole[name].shape for name, value in found.items())
    assert int.from_bytes((tmp_path / "ours").read_bytes()[:8], "little") % 8 == 0


def test_an_encoder_with_half_precision_is_written_in_single(
    runs: Callable[[str], Path], tmp_path: Path
) -> None:
    model = load_model(runs("encoder"))
    encoder = build_encoder(model.need_encoder().settings).half()
    half = Model(tokenizer=model.tokenizer, encoder=encoder)
    tmp_path.joinpath("out").mkdir()
    settings = hf_realm.OldSettings()
    hf_realm.write_hf_realm(half, tmp_path / "out", searched=None, settings=settings)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_what_a_run_was_made_with_counts_before_what_its_start_was_published_with(
    runs: Callable[[str], Path], tmp_path: Path
) -> None:
    source = find_checkpoint(runs("encoder"))
    settings = read_json(source / MANIFEST)["settings"]
    published = settings["defaults"]["pretrain"]["num_candidates"]
    told = {**settings, "num_candidates": published + 3}
    save_checkpoint(tmp_path / "run", load_model(source), settings=told, inputs={})
    export_run(tmp_path / "run", tmp_path / "old", to="hf-realm")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    assert config["num_candidates"] == published + 3
