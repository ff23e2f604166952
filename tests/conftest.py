"""A small world that every room's tests can share: a tokenizer, passages, and untrained models."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from realm.records import MaskedExample, Passage, SalientSpan, Skipped

if TYPE_CHECKING:
    from realm.corpus.store import PassageStore
    from realm.index.snapshot import Snapshot
    from realm.masking.taggers import Tagger
    from realm.model.embedder import Towers
    from realm.model.encoder import Encoder
    from realm.model.reader import Reader
    from realm.tokenizer import WordpieceTokenizer

# The machine may be busy; CI draws the same examples every time, elsewhere new ones are sought.
settings.register_profile("realm", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("realm")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

MakeStore = Callable[..., Any]
MakeExample = Callable[..., MaskedExample]
MakeModel = Callable[..., Any]
Copied = Callable[..., Path]
PUBLISHED = Path(__file__).parent / "exchange" / "published"
Launch = Callable[..., list[subprocess.Popen[str]]]
Torchrun = Callable[..., subprocess.CompletedProcess[str]]
KilledAfter = Callable[[int, Callable[[], object]], bool]

LEAVE = "\nimport os, sys; sys.stdout.flush(); sys.stderr.flush(); os._exit(0)\n"
"""As `realm` ends a rank: on a busy machine torch may abort while its threads are taken down."""

PLACES = (
    ("Fermat", "1607", "Toulouse", "a lawyer", "number theory"),
    ("Euler", "1707", "Basel", "a teacher", "graph theory"),
    ("Gauss", "1777", "Brunswick", "a surveyor", "number theory"),
    ("Noether", "1882", "Erlangen", "a teacher", "ring theory"),
    ("Cantor", "1845", "Halle", "a violinist", "set theory"),
    ("Abel", "1802", "Oslo", "a student", "group theory"),
    ("Galois", "1811", "Paris", "a student", "group theory"),
    ("Hilbert", "1862", "Koenigsberg", "a judge", "proof theory"),
)


def small_world() -> list[dict[str, str]]:
    """Eight people with three passages each."""
    return [
        {
            "id": f"p{number}",
            "title": f"{name} of {town}",
            "text": (
                f"{name} was born in the year {year} near the old harbour of {town}. "
                f"The family of {name} wanted a child to become {trade}. "
                f"In {town} everybody still knows the house where {name} lived as {trade}. "
                f"The letters of {name} changed {field} for ever. "
                f"A street in {town} and a prize for {field} are named after {name}."
            ),
        }
        for number, (name, year, town, trade, field) in enumerate(PLACES)
    ]


@pytest.fixture(scope="session")
def killed_after() -> KilledAfter:
    """Run an action in a child that dies without notice before its n-th call to the file system."""

    def run(num_events: int, action: Callable[[], object]) -> bool:
        """Return whether it died before the action came to its end."""
        child = os.fork()
        if child:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in {0, 9}, "the action failed"
            return code == 9
        seen = 0

        def hook(event: str, _: object) -> None:
            nonlocal seen
            if event == "open" or event.startswith("os."):
                seen += 1
                if seen > num_events:
                    os._exit(9)

        code = 1
        signal.alarm(60)  # a fork of a process with threads may hang: then it fails
        try:
            sys.addaudithook(hook)
            action()
            code = 0
        finally:
            os._exit(code)

    return run


@pytest.fixture(scope="session")
def torchrun(tmp_path_factory: pytest.TempPathFactory) -> Torchrun:
    """Run a script in several processes under torchrun, as on one machine of a cluster."""

    def run(
        script: str, *arguments: object, world: int = 2, restarts: int = 0
    ) -> subprocess.CompletedProcess[str]:
        file = tmp_path_factory.mktemp("ranks") / "script.py"
        file.write_text(script + LEAVE, encoding="utf-8")
        options = [f"--nproc-per-node={world}", f"--max-restarts={restarts}"]
        return subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", *options]
            + [str(part) for part in (file, *arguments)],
            env=_rank_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Start a script in several processes with nobody above them who would end the others."""

    def start(
        script: str, *arguments: object, world: int = 2, **environment: str
    ) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        place = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            subprocess.Popen(
                [sys.executable, "-c", script + LEAVE, *map(str, arguments)],
                env={**_rank_environment(), **place, "RANK": str(rank), **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]

    return start


def _rank_environment() -> dict[str, str]:
    import realm

    source = Path(realm.__file__).parents[1]
    told = {
        "PYTHONPATH": str(source),
        "OMP_NUM_THREADS": "1",
        "REALM_RANKS_TIMEOUT_SECONDS": "120",
        "PYTHONFAULTHANDLER": "1",  # where a rank aborts, its stack is told
    }
    return {**os.environ, **told}


@pytest.fixture
def copied(tmp_path: Path) -> Copied:
    """Copy a published checkpoint and the vocabulary into a folder, where it may be damaged."""

    def copy(name: str, to: str = "source") -> Path:
        folder = tmp_path / to
        folder.mkdir()
        files = ["config.json", "model.safetensors", "pytorch_model.bin", "block_records.npy"]
        for file in (PUBLISHED / name / file for file in files):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
        for file in ("vocab.txt", "tokenizer_config.json"):
            shutil.copyfile(PUBLISHED / "openqa" / file, folder / file)
        return folder

    return copy


@pytest.fixture(scope="session")
def articles() -> list[dict[str, str]]:
    """What `store` is split from."""
    return small_world()


@pytest.fixture(scope="session")
def tokenizer() -> "WordpieceTokenizer":
    from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

    words = sorted(
        {word for a in small_world() for word in re.findall(r"\w+|[.]", a["text"].lower())}
    )
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*words, *"[](),?!-$&'", *letters, *(f"##{letter}" for letter in letters)]
    return WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *dict.fromkeys(pieces)])


@pytest.fixture(scope="session")
def make_store(
    tokenizer: "WordpieceTokenizer", tmp_path_factory: pytest.TempPathFactory
) -> MakeStore:
    """Split articles into passages and open them."""
    from realm.config import SplitConfig
    from realm.corpus.split import split
    from realm.corpus.store import PassageStore

    def make(articles: Sequence[Mapping[str, str]], *, max_wordpieces: int = 40) -> PassageStore:
        folder = tmp_path_factory.mktemp("passages")
        lines = "".join(json.dumps(article) + "\n" for article in articles)
        (folder / "articles.jsonl").write_text(lines, encoding="utf-8")
        config = SplitConfig(max_wordpieces=max_wordpieces)
        split([folder / "articles.jsonl"], folder / "out", config=config, tokenizer=tokenizer)
        return PassageStore.open(folder / "out")

    return make


@pytest.fixture(scope="session")
def store(make_store: MakeStore) -> "PassageStore":
    """Some two dozen passages."""
    return make_store(small_world())


class CapitalTagger:
    """Tags names (a capital inside a sentence) and years; the same for ever, unlike `rules`."""

    name = "capitals"
    fingerprint = "capitals-1"

    def tag(self, passages: Sequence[Passage], skipped: Skipped) -> Iterator[list[SalientSpan]]:
        """Yield the spans of each passage."""
        del skipped
        for passage in passages:
            found = re.finditer(r"(?<=[a-z] )[A-Z][a-z]+|\b1\d\d\d\b", passage.text)
            yield [SalientSpan(start=m.start(), end=m.end(), label="NAME") for m in found]


@pytest.fixture(scope="session")
def tagger() -> "Tagger":
    return CapitalTagger()


@pytest.fixture(scope="session")
def make_examples(tagger: "Tagger", tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """Mask the sentences of a store."""
    from realm.config import MaskConfig
    from realm.masking.examples import mask
    from realm.masking.store import ExampleStore

    def make(store: "PassageStore") -> ExampleStore:
        folder = tmp_path_factory.mktemp("examples") / "out"
        mask(store, folder, config=MaskConfig(query_wordpieces=32), tagger=tagger)
        return ExampleStore.open(folder)

    return make


@pytest.fixture(scope="session")
def make_start(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Write checkpoints as `ict` and `mlm` would leave them, with random parameters."""
    import torch

    from realm.checkpoint.checkpoints import save_checkpoint
    from realm.checkpoint.parts import Model
    from realm.checkpoint.pretrained import load_pretrained
    from realm.config import EncoderConfig
    from realm.model.embedder import Embedder, Towers

    def make(store: "PassageStore") -> dict[str, Path]:
        folder = tmp_path_factory.mktemp("start")
        torch.manual_seed(0)
        scratch = EncoderConfig(init="scratch:1x32")
        pretrained = load_pretrained(scratch, tokenizer=store.tokenizer)
        towers = Towers(Embedder(pretrained.build(), projection_size=16, pooling="mean"))
        towers.query.init_score_scale(8.0)
        parts = {"embedder": {"towers": towers}, "encoder": {"encoder": pretrained.build_encoder()}}
        for name, part in parts.items():
            save_checkpoint(
                folder / name, Model(tokenizer=store.tokenizer, **part), settings={}, inputs={}
            )
        return {name: folder / name for name in parts}

    return make


@pytest.fixture(scope="session")
def make_example() -> MakeExample:
    """Mask words of one sentence of a passage."""

    def make(
        store: "PassageStore",
        row: int,
        *words: str,
        sentence: int = 0,
    ) -> MaskedExample:
        passage, tokenizer = store[row], store.tokenizer
        start, end = passage.sentences[sentence]
        text = passage.text[start:end]
        ids, offsets = tokenizer.encode(text)
        spans = [re.search(rf"\b{re.escape(word)}\b", text).span() for word in words]  # type: ignore[union-attr]
        positions = [
            place
            for place, (first, last) in enumerate(offsets)
            if any(s < last and first < e for s, e in spans)
        ]
        return MaskedExample(
            row=0,
            origin=row,
            origin_sha256=passage.sha256,
            article_id=passage.article_id,
            sentence=text,
            span_start=spans[0][0],
            span_end=spans[0][1],
            label="NAME",
            original_ids=tuple(ids),
            query_ids=tuple(
                tokenizer.mask_id if place in positions else piece
                for place, piece in enumerate(ids)
            ),
            positions=tuple(positions),
            target_ids=tuple(ids[place] for place in positions),
        )

    return make


@pytest.fixture(scope="session")
def bert_shape(tokenizer: "WordpieceTokenizer") -> dict[str, Any]:
    """Settings of a BERT that is small enough for a test."""
    return {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
    }


@pytest.fixture
def make_towers(bert_shape: dict[str, Any]) -> MakeModel:
    """Build untrained towers in evaluation mode."""
    import torch

    from realm.model.embedder import build_towers

    def make(
        *, share: bool = True, pooling: str = "mean", dim: int = 16, seed: int = 0
    ) -> "Towers":
        torch.manual_seed(seed)
        settings = {"bert": bert_shape, "projection_size": dim, "pooling": pooling}
        towers = build_towers({**settings, "share_towers": share}).eval()
        for tower in {towers.query, towers.passage}:
            tower.init_score_scale(4.0)
        return towers

    return make


@pytest.fixture
def make_encoder(bert_shape: dict[str, Any]) -> MakeModel:
    """Build an untrained encoder in evaluation mode."""
    import torch

    from realm.model.encoder import build_encoder

    def make(*, seed: int = 0) -> "Encoder":
        torch.manual_seed(1_000 + seed)
        return build_encoder({"bert": bert_shape}).eval()

    return make


@pytest.fixture
def make_reader(bert_shape: dict[str, Any]) -> MakeModel:
    """Build an untrained reader in evaluation mode."""
    import torch

    from realm.model.reader import build_reader

    def make(*, widths: int = 4, seed: int = 0) -> "Reader":
        torch.manual_seed(2_000 + seed)
        settings = {"bert": bert_shape, "span_hidden": 12, "max_answer_wordpieces": widths}
        return build_reader(settings).eval()

    return make


@pytest.fixture
def make_snapshot(store: "PassageStore", tmp_path: Path) -> MakeModel:
    """Build the snapshot of a store (the small world's) under some towers."""
    from realm.checkpoint.parts import tower_hash
    from realm.config import IndexConfig
    from realm.index.builder import EmbedderVersion, build_index

    def make(
        towers: "Towers",
        passages: "PassageStore | None" = None,
        *,
        name: str = "index",
        step: int = 0,
        **settings: object,
    ) -> "Snapshot":
        config = IndexConfig(**{"autocast": "none", "passage_wordpieces": 64, **settings})
        version = EmbedderVersion(model_hash=tower_hash(towers.passage), step=step)
        return build_index(
            towers.passage, passages or store, tmp_path / name, version=version, config=config
        )

    return make


@pytest.fixture
def make_packed(
    tokenizer: "WordpieceTokenizer", make_towers: MakeModel, make_reader: MakeModel, tmp_path: Path
) -> MakeModel:
    """Write a model as `realm pack` does: what ships, but tiny and untrained."""
    from realm.checkpoint.checkpoints import save_checkpoint
    from realm.checkpoint.parts import Model
    from realm.exchange.packing import pack_run

    def make(*, seed: int = 0, name: str = "packed", **told: object) -> Path:
        towers, reader = make_towers(share=False, seed=seed), make_reader(widths=5, seed=seed)
        settings = {
            "question_wordpieces": 64,
            "joint_wordpieces": 128,
            "defaults": {"split": {"max_wordpieces": 40}},
            **told,
        }
        whole = tmp_path / f"{name}-whole"
        model = Model(tokenizer=tokenizer, towers=towers, reader=reader)
        save_checkpoint(whole, model, settings=settings, inputs={})
        return pack_run(whole, tmp_path / name).folder

    return make
