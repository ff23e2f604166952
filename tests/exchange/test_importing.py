"""realm import: everything is checked before anything is written, and the run is in our format."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from realm.answering import Answerer
from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.defaults import stage_defaults
from realm.checkpoint.parts import tower_hash
from realm.checkpoint.sources import passages_of
from realm.corpus import split as split_module
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError, CorpusError, RealmError
from realm.exchange import importing
from realm.exchange.importing import ImportReport, import_weights, load_vocabulary
from realm.index import builder
from realm.index.snapshot import Snapshot, snapshot_folder
from realm.storage import MANIFEST, fingerprint

Copied = Callable[..., Path]
KilledAfter = Callable[[int, Callable[[], object]], bool]
QUESTION = "Who built the bridge of salt?"
PARTS = {
    "embedder": ("RealmEmbedder", ("embedder",)),
    "scorer_shared": ("RealmScorer", ("embedder",)),
    "scorer_two_tower": ("RealmScorer", ("embedder",)),
    "encoder": ("RealmKnowledgeAugEncoder", ("encoder",)),
    "reader": ("RealmReader", ("reader",)),
    "openqa": ("RealmForOpenQA", ("embedder", "reader")),
}


class Evil:
    """Asks its reader to create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "run"


@pytest.fixture
def refused(out: Path, tmp_path: Path) -> Callable[..., str]:
    """Return the message of an import that fails, after a look that it left nothing."""

    def fail(source: Path, error: type[RealmError] = ConfigError, **options: Any) -> str:
        before = {str(path): path.stat().st_mtime_ns for path in source.rglob("*")}
        with pytest.raises(error) as caught:
            import_weights(source, out, **options)
        assert not out.parent.exists() or list(out.parent.iterdir()) == []
        assert {str(path): path.stat().st_mtime_ns for path in source.rglob("*")} == before
        assert not (tmp_path / "was-run").exists()
        return str(caught.value)

    return fail


def write_records(folder: Path, values: list[Any], dtype: Any = object) -> None:
    array = np.empty(len(values), dtype=dtype)
    array[:] = values
    np.save(folder / "block_records.npy", array, allow_pickle=True)


def texts_of(run: Path) -> list[str]:
    store = PassageStore.open(run / "passages")
    return [store.text(row) for row in range(len(store))]


def records_of(folder: Path) -> list[str]:
    return [r.decode() for r in np.load(folder / "block_records.npy", allow_pickle=True).tolist()]


def block_emb(folder: Path) -> torch.Tensor:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)["block_emb"]


def vectors_of(run: Path) -> torch.Tensor:
    snapshot = Snapshot.open(snapshot_folder(run, 0), verify=True)
    return snapshot.exact[torch.arange(len(snapshot))]


# What is made


@pytest.mark.parametrize("name", PARTS)
def test_every_class_becomes_a_run_with_its_parts(name: str, copied: Copied, out: Path) -> None:
    report = import_weights(copied(name), out)
    kind, parts = PARTS[name]
    num_passages = 20 if name == "openqa" else 0
    assert (report.run, report.kind, report.parts) == (out, kind, parts)
    assert (report.num_passages, report.already_done) == (num_passages, False)
    assert tuple(load_model(out).modules) == parts
    assert (out / "passages").is_dir() is (out / "index").is_dir() is (name == "openqa")


def test_a_run_is_in_our_format_and_needs_its_source_no_more(copied: Copied, out: Path) -> None:
    source = copied("openqa")
    import_weights(source, out)
    shutil.rmtree(source)
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        "manifest.json",
        "request.json",
        "sources.json",
        "checkpoints/step-0/manifest.json",
        "checkpoints/step-0/model.json",
        "checkpoints/step-0/model.safetensors",
        "checkpoints/step-0/tokenizer.json",
        "passages/manifest.json",
        "passages/passages-00000.arrow",
        "passages/skipped.jsonl",
        "passages/tokenizer.json",
        "index/step-0/manifest.json",
        "index/step-0/scan-00000.bf16",
        "index/step-0/exact-00000.f32",
    }
    assert passages_of(out) == (out / "passages").resolve()
    moved = out.rename(out.with_name("moved"))
    answered = Answerer.load(moved).answer([QUESTION])[0]
    assert answered.answers
    assert len(answered.read_rows) == 3


def test_passages_are_the_block_records_row_by_row(copied: Copied, out: Path) -> None:
    source = copied("openqa")
    import_weights(source, out)
    store = PassageStore.open(out / "passages")
    assert texts_of(out) == records_of(source)
    assert [store[row].article_id for row in (0, 7, 19)] == ["0", "7", "19"]
    assert {store[row].title for row in range(20)} == {""}
    assert store.tokenizer.fingerprint == load_model(out).tokenizer.fingerprint


def test_the_snapshot_is_the_checkpoints_own_block_emb(copied: Copied, out: Path) -> None:
    source = copied("openqa")
    import_weights(source, out)
    assert vectors_of(out).equal(block_emb(source))
    snapshot = Snapshot.open(snapshot_folder(out, 0))
    assert snapshot.model_hash == tower_hash(load_model(out).need_towers().passage)
    assert snapshot.passages_fingerprint == PassageStore.open(out / "passages").fingerprint


def test_settings_of_the_checkpoint_are_those_of_the_run(copied: Copied, out: Path) -> None:
    import_weights(copied("openqa"), out)
    settings = json.loads((find_checkpoint(out) / MANIFEST).read_text())["settings"]
    assert settings["class"] == "RealmForOpenQA"
    assert (settings["query_wordpieces"], settings["passage_wordpieces"]) == (32, 64)
    lengths = Answerer.load(out).lengths
    assert (lengths.num_passages, lengths.joint, lengths.question) == (3, 40, 20)
    model = load_model(out)
    assert model.need_reader().norm.eps == 1e-3
    assert model.need_reader().max_answer_wordpieces == 4
    assert model.need_towers().query.norm.eps == 1e-12
    for part in (model.need_towers().query, model.need_reader()):
        assert part.bert.config.hidden_act == "gelu_new"
        assert part.bert.embeddings.word_embeddings.padding_idx == 1
    assert stage_defaults(out, "pretrain")["marginal"] == "token"
    assert stage_defaults(out, "finetune")["retriever_beam"] == 5


@pytest.mark.parametrize("name", ["embedder", "openqa"])
def test_the_format_of_the_weights_changes_nothing(
    name: str, copied: Copied, tmp_path: Path
) -> None:
    source = copied(name)
    import_weights(source, tmp_path / "one")
    if name == "embedder":
        weights = load_file(source / "model.safetensors")
        (source / "model.safetensors").unlink()
    else:
        weights = torch.load(source / "pytorch_model.bin", weights_only=True)
        (source / "pytorch_model.bin").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, some in parts.items():
        save_file({n: weights[n].clone() for n in some}, source / file)
    where = {n: file for file, some in parts.items() for n in some}
    index = json.dumps({"weight_map": where})
    (source / "model.safetensors.index.json").write_text(index)
    import_weights(source, tmp_path / "two")
    model = "checkpoints/step-0/model.safetensors"
    assert fingerprint(tmp_path / "one" / model) == fingerprint(tmp_path / "two" / model)
    if name == "openqa":
        assert vectors_of(tmp_path / "two").equal(vectors_of(tmp_path / "one"))


def test_half_precision_vectors_become_single(copied: Copied, out: Path) -> None:
    source = copied("openqa")
    weights = torch.load(source / "pytorch_model.bin", weights_only=True)
    weights["block_emb"] = (weights["block_emb"] * 1.01).half()
    torch.save(weights, source / "pytorch_model.bin")
    import_weights(source, out)
    assert vectors_of(out).equal(weights["block_emb"].float())


def test_vectors_that_lie_across_are_read_in_order(copied: Copied, out: Path) -> None:
    source = copied("openqa")
    weights = torch.load(source / "pytorch_model.bin", weights_only=True)
    expected = weights["block_emb"]
    weights["block_emb"] = expected.t().contiguous().t()
    torch.save(weights, source / "pytorch_model.bin")
    import_weights(source, out)
    assert vectors_of(out).equal(expected)


def test_many_shards_are_one_snapshot(
    copied: Copied, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copied("openqa")
    import_weights(source, tmp_path / "whole")
    monkeypatch.setattr(importing, "SHARD_ROWS", 7)
    monkeypatch.setattr(split_module, "SHARD_ARTICLES", 6)
    import_weights(source, out)
    assert len(list((out / "index" / "step-0").glob("*.f32"))) == 3
    assert len(list((out / "passages").glob("*.arrow"))) == 4
    assert vectors_of(out).equal(block_emb(source))
    assert texts_of(out) == texts_of(tmp_path / "whole")


def test_the_number_of_processes_changes_no_byte(copied: Copied, tmp_path: Path) -> None:
    source = copied("openqa")
    for number in (1, 2):
        import_weights(source, tmp_path / str(number), num_processes=number)
    assert fingerprint(tmp_path / "1" / "passages") == fingerprint(tmp_path / "2" / "passages")


def test_progress_counts_passages(copied: Copied, out: Path) -> None:
    told: list[tuple[int, int]] = []
    import_weights(copied("openqa"), out, progress=lambda done, all_: told.append((done, all_)))
    assert told[-1] == (20, 20)
    assert told == sorted(told)


def test_nothing_but_the_files_of_the_layout_is_looked_at(copied: Copied, out: Path) -> None:
    """Code that a repository brings along is not run, whatever its config.json says."""
    source = copied("embedder")
    marker = out.parent.parent / "was-run"
    for name in ("modeling_realm", "configuration_realm", "tokenization_realm", "__init__"):
        (source / f"{name}.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    config = json.loads((source / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_realm.Evil", "AutoConfig": "configuration_realm.E"}
    (source / "config.json").write_text(json.dumps(config))
    told = json.loads((source / "tokenizer_config.json").read_text())
    told["auto_map"] = {"AutoTokenizer": ["tokenization_realm.Evil", None]}
    (source / "tokenizer_config.json").write_text(json.dumps(told))
    (source / "training_args.bin").write_bytes(pickle.dumps(Evil(marker)))
    assert import_weights(source, out).parts == ("embedder",)
    assert not marker.exists()


# Bad input


def test_a_missing_or_damaged_config_leaves_nothing(
    copied: Copied, refused: Callable[..., str]
) -> None:
    source = copied("openqa")
    (source / "config.json").write_text("{")
    assert "config.json is damaged" in refused(source, ArtifactError)
    (source / "config.json").unlink()
    assert "has no config.json; expected a checkpoint" in refused(source)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_size": "wide"}, "hidden_size: found 'wide'"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "a plain BERT is no REALM"),
        ({"position_embedding_type": "relative_key_query"}, "expected 'absolute'"),
        ({"retriever_proj_size": 9}, "block_emb of shape (20, 8), by config.json (20, 9)"),
        ({"architectures": ["RealmEmbedder"]}, "lacks cls.LayerNorm.bias"),
        ({"num_block_records": 19}, "block_emb of shape (20, 8), by config.json (19, 8)"),
    ],
)
def test_a_config_of_something_else_leaves_nothing(
    changes: dict[str, Any], told: str, copied: Copied, refused: Callable[..., str]
) -> None:
    source = copied("openqa")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | changes))
    assert told in refused(source)


@pytest.mark.parametrize("name", ["embedder", "openqa"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_truncated_weights_leave_nothing(
    name: str, share: float, copied: Copied, refused: Callable[..., str]
) -> None:
    source = copied(name)
    file = source / ("model.safetensors" if name == "embedder" else "pytorch_model.bin")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    assert f"the weights in {file} cannot be read" in refused(source, ArtifactError)


def test_missing_weights_leave_nothing(copied: Copied, refused: Callable[..., str]) -> None:
    source = copied("embedder")
    (source / "model.safetensors").unlink()
    assert "has no model.safetensors or pytorch_model.bin" in refused(source)
    index = {"weight_map": {"a": "gone.bin"}}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert "gone.bin is missing" in refused(source, ArtifactError)


@pytest.mark.parametrize("write", [lambda v, f: f.write_bytes(pickle.dumps(v)), torch.save])
def test_weights_that_would_run_code_leave_nothing(
    write: Callable[..., object], copied: Copied, refused: Callable[..., str], tmp_path: Path
) -> None:
    source = copied("reader")
    weights: dict[str, Any] = torch.load(source / "pytorch_model.bin", weights_only=True)
    weights["extra"] = Evil(tmp_path / "was-run")
    write(weights, source / "pytorch_model.bin")
    assert "cannot be read" in refused(source, ArtifactError)


def test_towers_are_counted_before_anything_is_written(
    copied: Copied, refused: Callable[..., str], out: Path
) -> None:
    shared, two = copied("scorer_shared", "shared"), copied("scorer_two_tower", "two")
    assert "holds one tower, expected two" in refused(shared, num_towers="two")
    assert "holds two different towers, expected one" in refused(two, num_towers="one")
    assert import_weights(two, out, num_towers="two").parts == ("embedder",)
    assert not load_model(out).need_towers().shared


def test_no_process_leaves_nothing(copied: Copied, refused: Callable[..., str]) -> None:
    told = refused(copied("openqa"), num_processes=0)
    assert "found 0 worker processes, expected 1 or more" in told


# Vocabulary


def test_without_a_vocabulary_another_file_may_be_given(
    copied: Copied, refused: Callable[..., str], out: Path, tmp_path: Path
) -> None:
    source = copied("embedder")
    vocabulary = (source / "vocab.txt").rename(tmp_path / "vocab.txt")
    told = refused(source)
    assert "has no vocab.txt; expected the vocabulary of the checkpoint there, or pass " in told
    assert "--tokenizer vocab.txt" in told
    import_weights(source, out, tokenizer=vocabulary)
    assert load_model(out).tokenizer.vocab_size == 122
    load_model(out).tokenizer.save(source / "tokenizer.json")
    assert load_vocabulary(source).fingerprint == load_model(out).tokenizer.fingerprint
    assert "found no tokenizer at" in refused_with(source, out, tokenizer=tmp_path / "gone.txt")


def refused_with(source: Path, out: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        import_weights(source, out, **options)
    return str(caught.value)


def test_line_ends_of_windows_mean_the_same_words(copied: Copied) -> None:
    windows, unix = copied("openqa", "windows"), copied("openqa", "unix")
    content = (windows / "vocab.txt").read_bytes()
    assert b"\r\n" in content
    (unix / "vocab.txt").write_bytes(content.replace(b"\r\n", b"\n"))
    assert load_vocabulary(windows).fingerprint == load_vocabulary(unix).fingerprint
    assert "tower" in load_vocabulary(windows).vocabulary()


def test_upper_case_accents_and_characters_are_kept_where_the_tokenizer_says_so(
    copied: Copied,
) -> None:
    source = copied("embedder")
    usual = load_vocabulary(source)
    assert usual.encode("TOWER").ids == usual.encode("tower").ids
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = load_vocabulary(source)
    assert cased.encode("tower").ids == usual.encode("tower").ids
    assert cased.encode("TOWER").ids == [cased.unk_id]
    assert cased.fingerprint != usual.fingerprint
    (source / "tokenizer_config.json").write_text('{"strip_accents": false}')
    assert load_vocabulary(source).normalisation["strip_accents"] is False
    (source / "tokenizer_config.json").write_text('{"tokenize_chinese_chars": false}')
    assert load_vocabulary(source).normalisation["split_chinese"] is False
    (source / "tokenizer_config.json").unlink()
    assert load_vocabulary(source).fingerprint == usual.fingerprint


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        ('{"do_lower_case": "false"}', ConfigError, "found do_lower_case = 'false', expected true"),
        ('{"do_lower_case": null}', ConfigError, "found do_lower_case = None"),
        ('{"strip_accents": "yes"}', ConfigError, "found strip_accents = 'yes'"),
        ('{"tokenize_chinese_chars": 1}', ConfigError, "found tokenize_chinese_chars = 1"),
        ("[]", ArtifactError, "tokenizer_config.json holds a list"),
        ("{", ArtifactError, "tokenizer_config.json is damaged"),
    ],
)
def test_a_tokenizer_config_that_is_wrong_is_told(
    content: str,
    error: type[RealmError],
    told: str,
    copied: Copied,
    refused: Callable[..., str],
) -> None:
    source = copied("openqa")
    (source / "tokenizer_config.json").write_text(content)
    assert told in refused(source, error)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "tokenizer lacks ['[PAD]', '[UNK]'"),
        (b"\xff\xfe\x00", "is not a vocab.txt"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", "found the wordpiece 'a' twice"),
    ],
)
def test_a_vocabulary_that_is_none_leaves_nothing(
    content: bytes, told: str, copied: Copied, refused: Callable[..., str]
) -> None:
    source = copied("embedder")
    (source / "vocab.txt").write_bytes(content)
    assert told in refused(source)


def test_a_vocabulary_larger_than_the_embeddings_leaves_nothing(
    copied: Copied, refused: Callable[..., str]
) -> None:
    source = copied("openqa")
    with (source / "vocab.txt").open("a") as stream:
        stream.write("more\r\n")
    assert "embeds 122 wordpieces (config.json), its vocabulary has 123" in refused(source)


# Block records


def test_without_block_records_two_ways_out_are_named(
    copied: Copied, refused: Callable[..., str], out: Path, tmp_path: Path
) -> None:
    source = copied("openqa")
    moved = (source / "block_records.npy").rename(tmp_path / "elsewhere.npy")
    told = refused(source)
    assert f"found no {source / 'block_records.npy'}" in told
    assert "--block-records FILE" in told
    assert "--without-passages" in told
    alone = import_weights(source, tmp_path / "alone", with_passages=False)
    assert (alone.parts, alone.num_passages) == (("embedder", "reader"), 0)
    assert not (tmp_path / "alone" / "passages").exists()
    assert not (tmp_path / "alone" / "index").exists()
    assert import_weights(source, out, block_records=moved).num_passages == 20
    assert texts_of(out)[2] == "Mist."
    assert "found no " in refused_with(source, tmp_path / "no", block_records=tmp_path / "gone")


def test_a_model_without_passages_answers_from_others(
    copied: Copied, tmp_path: Path, out: Path
) -> None:
    source = copied("openqa")
    import_weights(source, tmp_path / "whole")
    import_weights(source, out, with_passages=False)
    with pytest.raises(ArtifactError, match="does not say which passages it uses; pass --passages"):
        Answerer.load(out)
    passages = tmp_path / "whole" / "passages"
    assert Answerer.load(out, passages=passages).answer([QUESTION])[0].answers


@pytest.mark.parametrize("num_records", [0, 19, 21])
def test_more_or_fewer_records_than_vectors_are_refused(
    num_records: int, copied: Copied, refused: Callable[..., str]
) -> None:
    source = copied("openqa")
    write_records(source, [b"The king of Tovi."] * num_records)
    told = refused(source)
    assert f"found {num_records} block records, expected 20 as config.json and block_emb" in told


def test_no_record_at_all_is_refused(copied: Copied, refused: Callable[..., str]) -> None:
    source = copied("openqa")
    write_records(source, [])
    weights = torch.load(source / "pytorch_model.bin", weights_only=True)
    weights["block_emb"] = torch.zeros(0, 8)
    torch.save(weights, source / "pytorch_model.bin")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"num_block_records": 0}))
    assert "has no block record; expected one at least, or --without-passages" in refused(source)


@pytest.mark.parametrize("row", [0, 19])
def test_records_that_would_run_code_leave_nothing(
    row: int, copied: Copied, refused: Callable[..., str], tmp_path: Path
) -> None:
    source = copied("openqa")
    values: list[Any] = [b"The king of Tovi."] * 20
    values[row] = Evil(tmp_path / "was-run")
    write_records(source, values)
    told = refused(source, ArtifactError)
    assert "block_records.npy: found " in told
    assert "nothing that a file names is ever run" in told


@pytest.mark.parametrize("share", [0.01, 0.2, 0.7, 0.99])
def test_truncated_records_leave_nothing(
    share: float, copied: Copied, refused: Callable[..., str]
) -> None:
    source = copied("openqa")
    whole = (source / "block_records.npy").read_bytes()
    (source / "block_records.npy").write_bytes(whole[: int(share * len(whole))])
    assert "block_records.npy" in refused(source, ArtifactError)


def test_a_record_that_is_no_text_is_named_and_leaves_nothing(
    copied: Copied, refused: Callable[..., str]
) -> None:
    source = copied("openqa")
    write_records(source, [*[b"The king of Tovi."] * 19, b"\xff\xff"])
    assert "record 19 (the first is 0) is not UTF-8 text" in refused(source, CorpusError)


def test_records_as_str_and_empty_ones_are_passages_too(copied: Copied, out: Path) -> None:
    source = copied("openqa")
    expected = ["", " ", "é 塔", *["The king of Tovi."] * 16, ""]
    write_records(source, expected)
    import_weights(source, out)
    assert texts_of(out) == expected
    assert vectors_of(out).equal(block_emb(source))


# Again, changed, killed


def test_the_same_import_again_is_already_done(copied: Copied, out: Path) -> None:
    source = copied("openqa")
    first = import_weights(source, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = import_weights(source, out)
    assert again.already_done
    assert (again.kind, again.parts, again.num_passages) == (
        first.kind,
        first.parts,
        first.num_passages,
    )
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def scale(source: Path, factor: float) -> None:
    weights = torch.load(source / "pytorch_model.bin", weights_only=True)
    weights["block_emb"] = weights["block_emb"] * factor
    torch.save(weights, source / "pytorch_model.bin")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (lambda source: scale(source, 2.0), "input pytorch_model.bin"),
    "records": (
        lambda source: write_records(source, [b"The king."] * 20),
        "input block_records.npy",
    ),
    "vocabulary": (
        lambda source: (source / "tokenizer_config.json").write_text('{"do_lower_case": false}'),
        "input tokenizer",
    ),
    "config": (
        lambda source: (source / "config.json").write_text(
            (source / "config.json").read_text().replace('"reader_beam_size": 3', '"x": 3')
        ),
        "input config.json",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_source_is_refused_until_rebuild(what: str, copied: Copied, out: Path) -> None:
    source = copied("openqa")
    import_weights(source, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    change, told = CHANGES[what]
    change(source)
    with pytest.raises(ArtifactError, match=r"was made from other .*--rebuild") as caught:
        import_weights(source, out)
    assert told in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert not import_weights(source, out, rebuild=True).already_done
    assert texts_of(out) == records_of(source)
    assert vectors_of(out).equal(block_emb(source))
    assert import_weights(source, out).already_done
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_rebuild_from_something_damaged_keeps_what_was_there(copied: Copied, out: Path) -> None:
    source = copied("openqa")
    import_weights(source, out)
    before = fingerprint(out)
    write_records(source, [*[b"The king of Tovi."] * 19, b"\xff\xff"])
    with pytest.raises(CorpusError, match="is not UTF-8"):
        import_weights(source, out, rebuild=True)
    assert fingerprint(out) == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_an_import_into_a_folder_of_something_else_is_refused(copied: Copied) -> None:
    source = copied("embedder")
    before = sorted(path.name for path in source.iterdir())
    with pytest.raises(ArtifactError, match="exists and is not a folder that realm finished"):
        import_weights(source, source)
    assert sorted(path.name for path in source.iterdir()) == before


def disk_is_full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (builder, "write_shard"),
        (importing, "write_sources"),
        (importing, "save_checkpoint"),
        (importing, "write_json"),
    ],
)
def test_an_import_that_fails_half_way_goes_on_where_it_stood(
    module: Any, name: str, copied: Copied, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copied("openqa")
    import_weights(source, out.parent / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(module, name, disk_is_full)
        with pytest.raises((ArtifactError, OSError), match="No space left on device"):
            import_weights(source, out)
    assert not (out / MANIFEST).exists()
    written = (out / "passages" / "passages-00000.arrow").stat().st_mtime_ns
    assert not import_weights(source, out).already_done
    assert (out / "passages" / "passages-00000.arrow").stat().st_mtime_ns == written
    assert fingerprint(out) == fingerprint(out.parent / "whole")
    assert import_weights(source, out).already_done


def test_an_unfinished_import_does_not_go_on_from_another_source(
    copied: Copied, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copied("openqa")
    with monkeypatch.context() as patch:
        patch.setattr(builder, "write_shard", disk_is_full)
        with pytest.raises(ArtifactError, match="No space left"):
            import_weights(source, out)
    scale(source, 2.0)
    with pytest.raises(
        ArtifactError, match=r"unfinished run with other inputs\.pytorch_model\.bin"
    ):
        import_weights(source, out)
    import_weights(source, out, rebuild=True)
    assert vectors_of(out).equal(block_emb(source))


def test_killed_at_any_moment_an_import_goes_on_to_the_same_end(
    copied: Copied, tmp_path: Path, killed_after: KilledAfter
) -> None:
    source = copied("openqa")
    import_weights(source, tmp_path / "whole")
    expected = fingerprint(tmp_path / "whole")
    num_events, killed = 1, True
    while killed:
        out = tmp_path / f"killed-{num_events}"

        def action(out: Path = out) -> ImportReport:
            return import_weights(source, out)

        killed = killed_after(num_events, action)
        action()
        assert fingerprint(out) == expected, num_events
        num_events += 37
    assert num_events > 150
