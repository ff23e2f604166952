"""One seed of the small world: its corpora, the warm starts, joint pre-training and its ablations.

Every stage is a folder below one, whole or absent, so that a run that was killed goes on where it
was, and one that is done is only read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from measure import Outcome, outcomes
from world import World, write

from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import Model, tower_hash
from realm.config import (
    IctConfig,
    IndexConfig,
    MaskConfig,
    MlmConfig,
    PretrainConfig,
    SplitConfig,
    load_config,
)
from realm.config.base import C
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import Snapshot, list_snapshots
from realm.masking.examples import mask
from realm.masking.pretagged import PretaggedTagger
from realm.masking.store import ExampleStore
from realm.model.embedder import Towers
from realm.storage import read_json, write_json
from realm.tokenizer import WordpieceTokenizer
from realm.training.ict import ict
from realm.training.loop import OnMetrics
from realm.training.mlm import mlm
from realm.training.pretrain import pretrain

SETTINGS = Path(__file__).with_name("settings.toml")
CORPORA = {
    "passages": ("encyclopedia", "encyclopedia-held-out", "news"),
    "warm-up": ("encyclopedia", "news"),
    "news": ("news",),
    "asked": ("news-held-out",),
}
"""Z; what the encoder warms up on; X; the sentences about entities held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way of joint pre-training."""

    name: str
    meaning: str
    overrides: tuple[str, ...] = ()
    """key=value of [pretrain]."""
    scheme: str = "salient"
    warm_up: tuple[str, ...] = ()
    """key=value of [mlm], for a reading warm-up of its own."""


REALM = Row(name="realm", meaning="REALM")
ROWS = (
    REALM,
    Row(
        name="short",
        meaning="REALM after a quarter of the reading warm-up",
        warm_up=("steps=100", "optimizer.warmup_steps=20"),
    ),
    Row(
        name="frozen",
        meaning="the retriever gets no gradient",
        overrides=("retriever_frozen_steps=1000000",),
    ),
    Row(name="own", meaning="own passage allowed", overrides=("exclude_own=false",)),
    Row(name="off", meaning="index never refreshed", overrides=('refresh.mode="off"',)),
    Row(name="stale", meaning="index 5 times staler", overrides=("refresh.every_steps=150",)),
    Row(name="span", meaning="random spans masked", scheme="span"),
    Row(name="token", meaning="random tokens masked", scheme="token"),
    Row(name="no-null", meaning="no null passage", overrides=("null_passage=false",)),
    Row(
        name="drawn",
        meaning="the encoder learns from 1 drawn candidate of 6",
        overrides=("gradient_candidates=1",),
    ),
    Row(
        name="short-drawn",
        meaning="the same after a quarter of the reading warm-up",
        warm_up=("steps=100", "optimizer.warmup_steps=20"),
        overrides=("gradient_candidates=1",),
    ),
    Row(
        name="short-drawn-2",
        meaning="after a quarter of it, from 2 drawn candidates of 6",
        warm_up=("steps=100", "optimizer.warmup_steps=20"),
        overrides=("gradient_candidates=2",),
    ),
)


@dataclass(frozen=True, kw_only=True)
class SmallWorld:
    """The stages of one seed, below one folder."""

    out: Path
    seed: int = 0
    num_passages: int = 2_000
    """Passages in Z, at least."""
    overrides: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Section of the settings -> key=value pairs that win over them."""
    settings: Path = SETTINGS

    def config(self, cls: type[C], section: str, overrides: Sequence[str] = ()) -> C:
        """Return one stage's settings."""
        own = [*self.overrides.get(section, ()), *overrides]
        if section in {"ict", "mlm", "pretrain"}:
            own.append(f"seed={self.seed}")
        return load_config(cls, section=section, file=self.settings, overrides=own)

    @cached_property
    def world(self) -> Path:
        """Folder with the articles, spans and questions.

        Raises:
            ArtifactError: it holds another world.
        """
        folder = self.out / "world"
        written = folder / "written.json"
        asked = {"num_passages": self.num_passages, "seed": self.seed}
        if not written.is_file():
            write(World(num_passages=self.num_passages, seed=self.seed), folder)
            write_json(written, asked)
        elif (found := read_json(written)) != asked:
            raise ArtifactError(
                f"{folder} holds the world of {found}, expected {asked}; name another folder"
            )
        return folder

    def corpus(self, name: str) -> PassageStore:
        """Return one of CORPORA as passages."""
        split(
            [self.world / f"{file}.jsonl" for file in CORPORA[name]],
            self.out / name,
            config=self.config(SplitConfig, "split"),
            tokenizer=WordpieceTokenizer.load(self.world / "vocab.txt"),
        )
        return PassageStore.open(self.out / name)

    @cached_property
    def passages(self) -> PassageStore:
        """The knowledge corpus Z."""
        return self.corpus("passages")

    def examples(self, name: str, scheme: str = "salient") -> ExampleStore:
        """Return the masked examples of one of CORPORA; the salient spans are the facts' values."""
        folder = self.out / f"{name}-{scheme}"
        mask(
            self.corpus(name),
            folder,
            config=self.config(MaskConfig, "mask", [f"scheme={scheme}", f"seed={self.seed}"]),
            tagger=PretaggedTagger(self.world / "spans.jsonl"),
        )
        return ExampleStore.open(folder)

    def ict(self, on_metrics: OnMetrics | None = None) -> Path:
        """Warm the embedder up; return its run."""
        config = self.config(IctConfig, "ict")
        ict(self.passages, self.out / "ict", config=config, on_metrics=on_metrics)
        return self.out / "ict"

    def mlm(self, row: Row = REALM, on_metrics: OnMetrics | None = None) -> Path:
        """Warm the encoder up, on nothing about entities held out; return its run."""
        run = self.out / (f"mlm-{row.name}" if row.warm_up else "mlm")
        mlm(
            self.corpus("warm-up"),
            run,
            config=self.config(MlmConfig, "mlm", row.warm_up),
            examples=self.examples("warm-up"),
            on_metrics=on_metrics,
        )
        return run

    def pretrain(self, row: Row, on_metrics: OnMetrics | None = None) -> Path:
        """Train retriever and encoder together from the warm starts; return the run."""
        pretrain(
            self.examples("news", row.scheme),
            self.passages,
            self.out / row.name,
            embedder=self.ict(),
            encoder=self.mlm(row),
            config=self.config(PretrainConfig, "pretrain", row.overrides),
            on_metrics=on_metrics,
        )
        return self.out / row.name

    def measure(
        self, name: str, *, retriever: Path, encoder: Path, rebuilt: bool = False
    ) -> list[Outcome]:
        """Return what came out for every masked sentence about entities held out.

        Args:
            name: under which the outcomes are kept.
            retriever: run with towers.
            encoder: run with an encoder.
            rebuilt: search an index that is built anew, where the run has one of its own.
        """
        file = self.out / "measured" / f"{name}.json"
        if file.is_file():
            return [Outcome(**line) for line in read_json(file)["outcomes"]]
        found = outcomes(
            self.examples("asked"),
            self.passages,
            self.index(retriever, rebuilt=rebuilt),
            _towers(retriever),
            load_model(find_checkpoint(encoder)).need_encoder(),
            self.config(PretrainConfig, "pretrain"),
        )
        file.parent.mkdir(exist_ok=True)
        write_json(file, {"outcomes": [asdict(outcome) for outcome in found]})
        return found

    def index(self, run: Path, *, rebuilt: bool = False) -> Snapshot:
        """Return the index that a run searched last; where it has none, or on demand, a new one."""
        if not rebuilt and (own := list_snapshots(run)):
            return Snapshot.open(own[-1][1])
        config = self.config(PretrainConfig, "pretrain")
        tower = _towers(run).eval().passage
        return build_index(
            tower,
            self.passages,
            self.out / "index" / run.name,
            version=EmbedderVersion(model_hash=tower_hash(tower)),
            config=IndexConfig(
                passage_wordpieces=config.passage_wordpieces, autocast=config.autocast
            ),
        )


def _towers(run: Path) -> Towers:
    model: Model = load_model(find_checkpoint(run))
    return model.need_towers()


Tell = Callable[[str], None]


def compare(
    small: SmallWorld, rows: Sequence[Row] = ROWS, tell: Tell = lambda _: None
) -> dict[str, list[Outcome]]:
    """Run what is missing of one seed; return the outcomes of everything that is compared.

    Args:
        small: the seed's stages.
        rows: ways of joint pre-training, REALM among them.
        tell: called with a sentence before each stage.
    """
    tell("warm starts")
    start, reading = small.ict(), small.mlm()
    found: dict[str, list[Outcome]] = {}
    for row in rows:
        tell(row.meaning)
        run = small.pretrain(row)
        found[row.name] = small.measure(row.name, retriever=run, encoder=run)
        if small.index(run).step < small.config(PretrainConfig, "pretrain").steps:
            found[f"{row.name}, index built anew"] = small.measure(
                f"{row.name}-rebuilt", retriever=run, encoder=run, rebuilt=True
            )
        if row.warm_up:
            found[f"{row.name}, warm encoder"] = small.measure(
                f"{row.name}-warm", retriever=run, encoder=small.mlm(row)
            )
    joint = small.out / REALM.name
    found["ict"] = small.measure("ict", retriever=start, encoder=reading)
    found["ict, joint encoder"] = small.measure("ict-joint", retriever=start, encoder=joint)
    found["joint retriever, warm encoder"] = small.measure(
        "joint-warm", retriever=joint, encoder=reading
    )
    return found
