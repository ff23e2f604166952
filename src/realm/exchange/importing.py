"""A checkpoint in the old Hugging Face layout -> a run of ours (`realm import`).

RUN/
    checkpoints/step-0/   parameters, tokenizer, and the settings they were published with
    passages/             the block records, one passage each (open-QA only)
    index/step-0/         the passages' embeddings that came with them
    manifest.json         written last

Nothing that a file says is run: weights are tensors by name, block records are texts.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from realm.checkpoint.checkpoints import checkpoint_folder, list_checkpoints, save_checkpoint
from realm.checkpoint.parts import Model, tower_hash
from realm.checkpoint.run_folder import open_run, start_run
from realm.checkpoint.sources import write_sources
from realm.checkpoint.stored import StoredWeights, weight_files
from realm.config import SplitConfig
from realm.corpus.split import check_processes, store_whole
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.exchange.block_records import BlockRecords
from realm.exchange.layout import PASSAGE_VECTORS, Kind, OldConfig, read_config
from realm.exchange.naming import NumTowers, build_model
from realm.index.builder import publish_vectors
from realm.index.snapshot import Snapshot, snapshot_folder
from realm.records import Article, Progress
from realm.storage import MANIFEST, Request, fingerprint, read_json, write_json
from realm.tokenizer import WordpieceTokenizer

BLOCK_RECORDS = "block_records.npy"
PASSAGES = "passages"
SHARD_ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What `import_weights` made, or found already made."""

    run: Path
    kind: Kind
    parts: tuple[str, ...]
    """embedder, encoder, reader: what the checkpoint holds."""
    num_passages: int
    already_done: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Everything that was looked at before anything is written."""

    folder: Path
    kind: Kind
    config: OldConfig
    weights: StoredWeights
    model: Model
    records: BlockRecords | None


def import_weights(
    source: Path,
    out: Path,
    *,
    tokenizer: Path | None = None,
    block_records: Path | None = None,
    with_passages: bool = True,
    num_towers: NumTowers | None = None,
    num_processes: int = 1,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Convert a published REALM or ORQA checkpoint into a run that every verb takes.

    Everything is checked before anything is written: class, names and shapes of the weights,
    vocabulary, number of block records. Passages and embeddings are streamed; a killed import
    goes on after its finished shards.

    Args:
        source: folder with config.json, weights, vocab.txt, and block_records.npy for open-QA.
        out: run folder to write.
        tokenizer: vocab.txt or tokenizer.json, where `source` has none.
        block_records: the npy file, where it lies elsewhere.
        with_passages: False leaves block records and their embeddings out.
        num_towers: refuse a scorer with more or fewer towers.
        num_processes: worker processes that tokenise the passages.
        rebuild: replace what `out` holds.
        progress: called with (passages stored, passages in all).

    Returns:
        What the run holds.

    Raises:
        ConfigError: a file is missing, or the files do not belong together.
        CorpusError: the block records cannot be read.
        ArtifactError: a file is damaged, or `out` was made from something else.
    """
    check_processes(num_processes)
    kind, config = read_config(source)
    vocabulary = load_vocabulary(source, tokenizer)
    wants_passages = with_passages and kind == "RealmForOpenQA"
    records_file = _records_file(source, block_records) if wants_passages else None
    request = Request(
        kind="run",
        settings={"stage": "import", "class": kind, "num_towers": num_towers},
        inputs={
            "config.json": fingerprint(source / "config.json"),
            **{file.name: fingerprint(file) for file in weight_files(source)},
            "tokenizer": vocabulary.fingerprint,
            **({BLOCK_RECORDS: fingerprint(records_file)} if records_file else {}),
        },
    )
    started = time.monotonic()
    with open_run(out, request, rebuild=rebuild) as done:
        if done is None:
            weights = StoredWeights.open(source)
            model = build_model(source, kind, config, weights, vocabulary, num_towers=num_towers)
            records = BlockRecords.open(records_file) if records_file else None
            found = _Source(
                folder=source,
                kind=kind,
                config=config,
                weights=weights,
                model=model,
                records=records,
            )
            _check_records(found)
            start_run(out, request)
            _write(found, out, request, num_processes=num_processes, progress=progress)
    content = read_json(out / MANIFEST)["content"]
    return ImportReport(
        run=out,
        kind=kind,
        parts=tuple(content["parts"]),
        num_passages=int(content["num_passages"]),
        already_done=done is not None,
        seconds=time.monotonic() - started,
    )


def load_vocabulary(source: Path, tokenizer: Path | None = None) -> WordpieceTokenizer:
    """Return the tokenizer of a checkpoint in the old layout.

    Its tokenizer_config.json decides upper case, accents and Chinese characters, as it did there.

    Raises:
        ConfigError: there is none, or it is no BERT vocabulary.
    """
    if tokenizer is not None:
        return WordpieceTokenizer.load(tokenizer)
    if not (source / "vocab.txt").is_file():
        if (source / "tokenizer.json").is_file():
            return WordpieceTokenizer.load(source)
        raise ConfigError(
            f"{source} has no vocab.txt; expected the vocabulary of the checkpoint there, or pass "
            "--tokenizer vocab.txt (the published ones use that of bert-base-uncased)"
        )
    return WordpieceTokenizer.load(source / "vocab.txt")


def _records_file(source: Path, given: Path | None) -> Path:
    file = given or source / BLOCK_RECORDS
    if not file.is_file():
        raise ConfigError(
            f"found no {file}; expected the passages of the checkpoint. Pass --block-records FILE "
            "where they lie elsewhere, or --without-passages to import the model alone"
        )
    return file


def _check_records(source: _Source) -> None:
    expected = source.config.num_block_records
    if source.records is not None and len(source.records) != expected:
        raise ConfigError(
            f"found {len(source.records):,} block records, expected {expected:,} as config.json "
            f"and {PASSAGE_VECTORS} have it; take all files from the same checkpoint"
        )
    if source.records is not None and not len(source.records):
        raise ConfigError(
            f"{source.folder} has no block record; expected one at least, or --without-passages"
        )
    for _ in source.records or ():
        pass  # damage shows here, before anything is written; to store them takes far longer


def _write(
    source: _Source,
    out: Path,
    request: Request,
    *,
    num_processes: int,
    progress: Progress | None,
) -> None:
    """Write the parts of the run that are not there yet, the manifest last."""
    num_passages = 0
    if source.records is not None:
        store = _write_passages(source, source.records, out, request, num_processes, progress)
        num_passages = len(store)
        write_sources(out, store)
        _write_index(source, store, out)
    if not list_checkpoints(out):
        save_checkpoint(
            checkpoint_folder(out, 0),
            source.model,
            settings=_settings(source),
            inputs=request.inputs,
        )
    content = {
        "steps": 0,
        "seconds": 0.0,
        "metrics": {},
        "parts": list(source.model.modules),
        "num_passages": num_passages,
    }
    made = read_json(list_checkpoints(out)[-1] / MANIFEST)["fingerprint"]
    write_json(out / MANIFEST, {**request.as_json(), "fingerprint": made, "content": content})


def _settings(source: _Source) -> dict[str, Any]:
    """Return what the checkpoint's manifest says: lengths, and defaults for later stages."""
    config = source.config
    room = config.max_position_embeddings
    reading = {
        "num_passages": config.reader_beam_size,
        "joint_wordpieces": config.joint_wordpieces,
        "question_wordpieces": config.question_wordpieces,
    }
    query, passage = min(96, room // 2), min(288, room)
    return {
        "stage": "import",
        "class": source.kind,
        "query_wordpieces": query,
        "passage_wordpieces": passage,
        **reading,
        "defaults": {
            "finetune": {
                **reading,
                "retriever_beam": config.searcher_beam_size,
                "passage_wordpieces": passage,
            },
            "evaluate": {"num_passages": config.reader_beam_size},
            "pretrain": {
                "marginal": "token",
                "num_candidates": max(2, config.num_candidates),
                "query_wordpieces": query,
                "passage_wordpieces": passage,
                "joint_wordpieces": min(384, room),
            },
        },
    }


def _write_passages(
    source: _Source,
    records: BlockRecords,
    out: Path,
    request: Request,
    num_processes: int,
    progress: Progress | None,
) -> PassageStore:
    def advance(done: int, _: int) -> None:
        if progress is not None:
            progress(done, len(records))

    store_whole(
        _articles(records),
        out / PASSAGES,
        source=BLOCK_RECORDS,
        source_fingerprint=request.inputs[BLOCK_RECORDS],
        config=SplitConfig(),
        tokenizer=source.model.tokenizer,
        num_processes=num_processes,
        progress=advance,
    )
    return PassageStore.open(out / PASSAGES)


def _articles(records: BlockRecords) -> Iterator[Article]:
    """Yield each record as an article of its own: they came without titles."""
    for number, text in zip(count(), records, strict=False):
        yield Article(id=str(number), title="", text=text)


def _write_index(source: _Source, store: PassageStore, out: Path) -> None:
    """Publish the checkpoint's own passage vectors as the run's snapshot.

    Fine-tuning changed the question tower after they were made, and the tower that made them is
    not in the checkpoint. They are filed under the only tower there is.
    """
    folder = snapshot_folder(out, 0)
    if folder.is_dir():  # whole or absent: an import that was killed had come further
        Snapshot.open(folder).check_passages(store.fingerprint)
        return
    request = Request(
        kind="index",
        settings={"step": 0, "shard_rows": SHARD_ROWS, "vectors": PASSAGE_VECTORS},
        inputs={
            "passages": store.fingerprint,
            "embedder": tower_hash(source.model.need_towers().passage),
        },
    )
    publish_vectors(
        lambda rows: source.weights.rows(PASSAGE_VECTORS, rows.start, rows.stop).float(),
        folder,
        request,
        num_passages=len(store),
        dim=source.config.retriever_proj_size,
    )
