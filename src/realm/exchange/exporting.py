"""A run -> a folder that others load (`realm export`): ours, the old layout, another package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from realm.checkpoint.checkpoints import find_checkpoint, load_model, save_checkpoint
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import check_vocabulary, passages_of, run_of
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.exchange.hf_realm import OldSettings, Searched, write_hf_realm
from realm.exchange.sentence_transformers import write_sentence_transformers
from realm.index.opening import open_snapshot
from realm.records import Progress
from realm.storage import EXTRA, MANIFEST, Request, is_done, publish, read_json, write_json

Target = Literal["safetensors", "hf-realm", "sentence-transformers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What `export_run` made, or found already made."""

    folder: Path
    holds: tuple[str, ...]
    """Our parts (embedder, encoder, reader), or the classes of the old layout."""
    already_done: bool


def export_run(
    run: Path,
    out: Path,
    *,
    to: Target,
    passages: Path | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the newest model of a run for others.

    Args:
        run: a run, or one of its checkpoints.
        out: folder to write.
        to: safetensors is the model alone in our own format (no optimiser, no index), for
            `--model`; hf-realm the layout that transformers 4.16 to 4.57 load;
            sentence-transformers the retriever for that package.
        passages: search these in an open-QA checkpoint of hf-realm, instead of the run's own.
        rebuild: replace an export that stands there.
        progress: called while passages are embedded.

    Returns:
        Where it stands, and what it holds.

    Raises:
        ArtifactError: no checkpoint there, or `out` cannot be written or is something else.
        ConfigError: the target cannot express the model.
    """
    checkpoint = find_checkpoint(run)
    manifest = read_json(checkpoint / MANIFEST)
    settings: dict[str, Any] = manifest["settings"]
    inputs = {"checkpoint": str(manifest["fingerprint"])}
    if to == "safetensors":
        return _export_model(checkpoint, out, settings, inputs, rebuild=rebuild)
    store = None
    if to == "hf-realm" and {"embedder", "reader"} <= read_json(checkpoint / "model.json").keys():
        _check_retriever(settings)
        store = PassageStore.open(passages or passages_of(run_of(run)))
        inputs["passages"] = store.fingerprint
    request = Request(kind="export", settings={"to": to}, inputs=inputs)
    if is_done(out, request, rebuild=rebuild):
        holds = read_json(out / MANIFEST)["content"]["holds"]
        return ExportReport(folder=out, holds=tuple(holds), already_done=True)
    model = load_model(checkpoint)
    searched = None
    if store is not None:
        check_vocabulary(model, store)
        snapshot = open_snapshot(run_of(run), model, store, progress=progress)
        searched = Searched(store=store, snapshot=snapshot)
    with publish(out, request, replace=rebuild) as scratch:
        holds = _write(model, scratch, to, settings, searched)
        write_json(scratch / EXTRA, {"holds": holds})
    return ExportReport(folder=out, holds=tuple(holds), already_done=False)


def _check_retriever(settings: dict[str, Any]) -> None:
    """Refuse an open-QA model that answers from passages which the old classes do not find."""
    if settings.get("retriever") == "hybrid":
        raise ConfigError(
            "this run finds its passages by the dense score and BM25's (retriever='hybrid'), and "
            "the old classes know only the dense one: they would read other passages; expected a "
            "run fine-tuned with `--set retriever=dense`. `--to safetensors` keeps it as it is"
        )


def _export_model(
    checkpoint: Path,
    out: Path,
    settings: dict[str, Any],
    inputs: dict[str, str],
    *,
    rebuild: bool,
) -> ExportReport:
    request = Request(kind="checkpoint", settings=settings, inputs=inputs)
    done = is_done(out, request, rebuild=rebuild)
    if not done:
        model = load_model(checkpoint)
        save_checkpoint(out, model, settings=settings, inputs=inputs, replace=rebuild)
    holds = tuple(read_json(out / "model.json"))
    return ExportReport(folder=out, holds=holds, already_done=done)


def _write(
    model: Model, folder: Path, to: Target, settings: dict[str, Any], searched: Searched | None
) -> list[str]:
    if to == "sentence-transformers":
        longest = model.need_towers().passage.max_length
        query = settings.get("question_wordpieces", settings.get("query_wordpieces", 64))
        write_sentence_transformers(
            model,
            folder,
            query_wordpieces=min(int(query), longest),
            passage_wordpieces=min(int(settings.get("passage_wordpieces", 288)), longest),
        )
        return ["embedder"]
    old = _old_settings(settings)
    return list(write_hf_realm(model, folder, searched=searched, settings=old).values())


def _old_settings(settings: dict[str, Any]) -> OldSettings:
    """Return what the old config.json says of beams and lengths, as far as the run knows."""
    published = settings.get("defaults", {})
    known = {
        **published.get("pretrain", {}),
        **published.get("finetune", {}),
        **settings,  # a run's own before what its start was published with
    }
    names = {
        "num_candidates": "num_candidates",
        "reader_beam_size": "num_passages",
        "searcher_beam_size": "retriever_beam",
        "reader_seq_len": "joint_wordpieces",
    }
    return OldSettings(**{old: int(known[ours]) for old, ours in names.items() if ours in known})
