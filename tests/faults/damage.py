"""Damage done to files, and who reads each kind of file: who is to notice."""

import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from realm.checkpoint.calibration import load_calibration
from realm.checkpoint.checkpoints import load_model, load_state
from realm.checkpoint.parts import flat_state
from realm.checkpoint.pretrained import hash_tensors
from realm.checkpoint.run_records import read_held_out, read_metrics
from realm.checkpoint.sources import passages_of
from realm.corpus.store import PassageStore
from realm.errors import RealmError
from realm.evaluation.alignment import read_alignment
from realm.evaluation.comparing import ReportFile
from realm.index.approximate import ApproximateIndex
from realm.index.snapshot import Snapshot
from realm.library.library import Library
from realm.masking.store import ExampleStore
from realm.planning.machine import Calibration
from realm.refresh.parameters import Published, list_parameters, load_parameters
from realm.refresh.patches import read_patch
from realm.retrieval.bm25 import open_lexical
from realm.tokenizer import WordpieceTokenizer
from tests.faults.pipeline import (
    CACHE,
    INPUTS,
    LIBRARY,
    STOPPED,
    answer_from_files,
    answer_from_kept_library,
)
from tests.towns import World, call_realm

Expected = Literal["told", "rebuilt", "idle"]
Read = Callable[[World, Path], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file."""

    pattern: str
    """Of the file's place below the world's folder."""
    read: Read
    """Who reads it: returns all that comes of it."""
    expected: Expected = "told"
    """told: an error of ours with the file's name. rebuilt: the same result, from a new file.
    idle: the same result, because nothing that is computed depends on it."""
    why: str = ""
    """Why damage to it need not be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is done to a file."""

    kind: Literal["cut", "flip"]
    place: int
    """Size after the cut; or which bit is flipped."""

    def do(self, path: Path) -> None:
        """Damage a file."""
        content = bytearray(path.read_bytes())
        if self.kind == "cut":
            del content[self.place :]
        else:
            content[self.place // 8] ^= 1 << self.place % 8
        path.write_bytes(content)


def damages(size: int, seed: int, num_flips: int) -> Iterator[Damage]:
    """Yield cuts (to nothing, half, all but a byte), and flips at places drawn with a seed."""
    if not size:
        return
    for left in dict.fromkeys((0, size // 2, size - 1)):
        yield Damage(kind="cut", place=left)
    chance = random.Random(seed)  # noqa: S311
    for _ in range(num_flips):
        yield Damage(kind="flip", place=chance.randrange(size * 8))


def kind_of(place: str) -> Kind:
    """Return the kind of a file by its place.

    Raises:
        LookupError: nobody has said who reads it.
    """
    for kind in KINDS:
        if re.fullmatch(kind.pattern, place):
            return kind
    raise LookupError(f"{place}: a kind of file that KINDS does not know; say who reads it")


def outcome(world: World, path: Path, kind: Kind) -> tuple[str, object]:
    """Return ("told", message) or ("result", what came of reading)."""
    try:
        return "result", kind.read(world, path)
    except RealmError as error:
        return "told", str(error)


def _passages(_: World, path: Path) -> object:
    store = PassageStore.open(path.parent)
    return [asdict(passage) for passage in store], store.lengths().tolist(), _words(store.tokenizer)


def _words(tokenizer: WordpieceTokenizer) -> object:
    return tokenizer.fingerprint, tokenizer.encode("Who was born in the town?")


def _examples(_: World, path: Path) -> object:
    store = ExampleStore.open(path.parent)
    return [asdict(store[row]) for row in range(len(store))], _words(store.tokenizer)


def _model(_: World, path: Path) -> object:
    model = load_model(path.parent)
    return hash_tensors(flat_state(model)), _words(model.tokenizer)


def _state(world: World, path: Path) -> object:
    state = load_state(path.parent)
    return state.step, hash_tensors(dict(state.tensors)), state.values, _model(world, path)


def _snapshot(_: World, path: Path) -> object:
    snapshot = Snapshot.open(path.parent)
    rows = torch.arange(len(snapshot))
    query = torch.linspace(-1, 1, snapshot.exact.dim)[None]
    scores, found = snapshot.search(query, 8)
    told = (snapshot.step, snapshot.model_hash, snapshot.passages_fingerprint)
    return scores.tolist(), found.tolist(), snapshot.exact[rows].tolist(), told


def _approximate(world: World, path: Path) -> object:
    index = ApproximateIndex.open(path.parent, Snapshot.open(world / "index"))
    scores, found = index.search(torch.linspace(-1, 1, index.exact.dim)[None], 4)
    return scores.tolist(), found.tolist(), index.recall, index.recall_at


def _again(world: World, path: Path) -> object:
    """Run the verb that made a run once more: it is done already."""
    verb = {"qa": "finetune"}.get(path.parent.name, path.parent.name)
    return _asked(*world.command(verb))


def _asked(*command: object) -> str:
    ended = call_realm(*command)
    if ended.code:
        raise RealmError(ended.message)
    return ended.out


def _exported(world: World, _: Path) -> object:
    told = ("--to", "sentence-transformers", "--out", world / "exported")
    return _asked("export", world / "pretrain", *told)


def _resumed(world: World, _: Path) -> object:
    """Go on with a stopped run to its end."""
    ended = call_realm(*world.command("ict", world / STOPPED))
    if ended.code:
        raise RealmError(ended.message)
    return _state(world, world / STOPPED / "checkpoints" / "step-4" / "model.json")


def _library(world: World, _: Path) -> object:
    edition = Library(world / LIBRARY).current()
    documents = [(edition.info(name), edition.document(name)) for name in edition.held]
    tokenizer = WordpieceTokenizer.load(world / "packed")
    passages = [asdict(passage) for passage in edition.passages(tokenizer)]
    vectors = [
        (s.scan.float().tolist(), s.exact.tolist(), s.lines.tolist()) for s in edition.segments
    ]
    words = [(s.postings.rows.tolist(), s.postings.counts.tolist()) for s in edition.segments]
    return documents, passages, vectors, words


def _words_of_passages(world: World, path: Path) -> object:
    store = PassageStore.open(world / "passages")
    return open_lexical(path.parents[2], store).retrieve(["the painter from the river"], 5)


def _parameters(_: World, path: Path) -> object:
    assert all(one.step == 4 for one in list_parameters(path.parents[2]))  # or passed over
    loaded = load_parameters(Published(step=4, folder=path.parent, model_hash=""))
    return (
        hash_tensors(dict(loaded.tower.state_dict())),
        loaded.index,
        loaded.demand.rows.tolist(),
        loaded.demand.retrievals.tolist(),
    )


def _patch(world: World, path: Path) -> object:
    patch = read_patch(path.parent, PassageStore.open(world / "passages").fingerprint)
    return patch.step, patch.model_hash, patch.rows.tolist(), patch.vectors.tolist()


def _metrics(_: World, path: Path) -> object:
    read_metrics(path.parent)
    return None


KINDS = (
    Kind(pattern=r"passages/.*", read=_passages),
    Kind(pattern=r"examples/.*", read=_examples),
    Kind(pattern=rf"{STOPPED}/metrics\.jsonl", read=_resumed, expected="idle", why="a log"),
    Kind(pattern=rf"{STOPPED}/.*", read=_resumed),
    Kind(pattern=r"\w+/checkpoints/.*/training\..*", read=_state),
    Kind(pattern=r"\w+/checkpoints/.*", read=_model),
    Kind(pattern=r"(index|\w+/index/step-\d+)/.*", read=_snapshot),
    Kind(pattern=r"approximate/.*", read=_approximate),
    Kind(pattern=r"(ict|mlm|pretrain|qa)/manifest\.json", read=_again),
    Kind(
        pattern=r"\w+/request\.json",
        read=_again,
        expected="idle",
        why="once a run is finished, its manifest says the same (of a stopped run it is told)",
    ),
    Kind(
        pattern=r"\w+/seconds\.json",
        read=_again,
        expected="idle",
        why="how long a run took up to its last stop; read by a resume only, which tells it",
    ),
    Kind(
        pattern=r"\w+/metrics\.jsonl",
        read=_metrics,
        expected="idle",
        why="a log: its times differ from run to run, and nothing is computed from it",
    ),
    Kind(pattern=r"\w+/held-out\.json", read=lambda _, path: read_held_out(path.parent)),
    Kind(pattern=r"\w+/sources\.json", read=lambda _, path: str(passages_of(path.parent))),
    Kind(pattern=r"\w+/calibration\.json", read=lambda _, path: load_calibration(path.parent)),
    Kind(pattern=r"packed/.*", read=_model),
    Kind(
        pattern=r"\w+/bm25/.*",
        read=_words_of_passages,
        expected="rebuilt",
        why="a cache: the passages are there",
    ),
    Kind(
        pattern=rf"{CACHE}/libraries/.*",
        read=lambda world, _: answer_from_kept_library(world),
        expected="rebuilt",
        why="a cache: the files are there",
    ),
    Kind(
        pattern=rf"{CACHE}/.*",
        read=lambda world, _: answer_from_files(world),
        expected="rebuilt",
        why="a cache: the files are there",
    ),
    Kind(pattern=rf"{LIBRARY}/.*", read=_library),
    Kind(pattern=r"refreshed/embedders/.*", read=_parameters),
    Kind(pattern=r"refreshed/patches/.*", read=_patch),
    Kind(pattern=r"(report|bm25)\.json", read=lambda _, path: dict(ReportFile.read(path).content)),
    Kind(pattern=r"rates\.json", read=lambda _, path: Calibration.load(path)),
    Kind(pattern=r"pairs\.jsonl.*", read=lambda world, _: read_alignment(world / "pairs.jsonl")),
    Kind(pattern=r"exported/manifest\.json", read=_exported),
    Kind(
        pattern=r"exported/.*",
        read=_exported,
        expected="idle",
        why="another program's format, which that program reads",
    ),
)
"""In order: the first whose pattern fits a file is its kind."""


@dataclass(slots=True)
class Tally:
    """What came of the damage done."""

    told: int = 0
    rebuilt: int = 0
    harmless: int = 0
    """The result was the same: in a log, or in what says the same (the end of a last line)."""

    @property
    def total(self) -> int:
        """All damages."""
        return self.told + self.rebuilt + self.harmless


def files_of(world: World) -> list[str]:
    """Return the places of all files that realm has written, in order."""
    places = (path.relative_to(world.folder).as_posix() for path in world.folder.rglob("*"))
    return sorted(
        place for place in places if place.split("/")[0] not in INPUTS and (world / place).is_file()
    )


def check_file(
    world: World, pristine: World, place: str, some: Iterable[Damage], tally: Tally
) -> None:
    """Damage a file in each way, and see that it is told, or changes nothing.

    Args:
        world: is damaged, and put back as it was.
        pristine: a copy.
        place: of the file.
        some: what is done to it.
        tally: is counted up.
    """
    path, kind, top = world / place, kind_of(place), place.split("/")[0]
    expected = outcome(world, path, kind)
    assert expected[0] == "result", (place, expected)
    restore(world, pristine, top)
    for damage in some:
        damage.do(path)
        found, value = outcome(world, path, kind)
        restore(world, pristine, top)
        case = f"{place} after {damage}"
        if found == "told":
            assert kind.expected == "told", f"{case} is {kind.expected}, and was told: {value}"
            assert str(path) in str(value), f"{case}: its name is not in: {value}"
            tally.told += 1
            continue
        assert repr(value) == repr(expected[1]), f"{case}: a wrong result, and nobody was told"
        is_cut_short = damage.kind == "cut" and damage.place < path.stat().st_size - 1
        assert kind.expected != "told" or not is_cut_short, f"{case}: nobody was told"
        tally.rebuilt += kind.expected == "rebuilt"
        tally.harmless += kind.expected != "rebuilt"


def restore(world: World, pristine: World, top: str) -> None:
    """Put one part of the world back as it was."""
    part, kept = world / top, pristine / top
    if kept.is_dir():
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(kept, part)
    else:
        shutil.copyfile(kept, part)
