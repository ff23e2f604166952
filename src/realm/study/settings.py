"""What a study is told: settings of every stage, and rows that each change something."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field

from realm.config import (
    Config,
    EvaluateConfig,
    FinetuneConfig,
    IctConfig,
    IndexConfig,
    MaskConfig,
    MlmConfig,
    PretrainConfig,
    SplitConfig,
    check,
    parse_override,
    read_toml,
)
from realm.config.base import MAX_SEED
from realm.device import AUTO, choose_device
from realm.errors import ConfigError
from realm.storage import is_plain_name

C = TypeVar("C", bound=Config)
STAGES: Mapping[str, type[Config]] = {
    "split": SplitConfig,
    "mask": MaskConfig,
    "ict": IctConfig,
    "mlm": MlmConfig,
    "pretrain": PretrainConfig,
    "index": IndexConfig,
    "finetune": FinetuneConfig,
    "evaluate": EvaluateConfig,
}
TRAINED = ("ict", "mlm", "pretrain", "finetune")
LAID_OVER = {
    "seed": "say with which seeds a row is run, seeds = [0, 1] in its table, or --seeds",
    "device": "say where all stages compute with --device",
}
"""Settings of these that a study decides itself, and how it is told."""
START = "start"
"""Stands for the warm-started embedder where files are named after a row."""
Part = Literal["trained", "start"]
_OF_PATTERNS = set("*?[")
"""What finding a row's files by a pattern would not take for itself."""


class StudyConfig(Config):
    """What is compared, and with which text."""

    compare: tuple[tuple[str, str], ...] = ()
    """Pairs of rows whose difference the table gives, with its interval."""
    also_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the articles of `--also` that go into X, chosen by a hash of their ids."""
    also_titles: Literal["any", "shared"] = "any"
    """shared: of those only articles whose title Z has, too: they tell the same facts."""
    pretrain_text: Literal["all", "also"] = "all"
    """What is masked in joint pre-training: all of X, or only the text that is not Z's own."""
    ict_text: Literal["passages", "sentences"] = "passages"
    """What the embedder's warm start reads: the passages Z, or all that X is made of."""
    recall_at: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 5, 20), min_length=1)
    """Values of k in the zero-shot answer recall@k; the table shows recall@5, whatever they are."""
    bootstrap_samples: int = Field(default=2_000, ge=100)
    """Resamplings of questions and seeds behind each 95 % interval."""


class RowConfig(Config):
    """One row: which parts are trained jointly, and what is different about that."""

    label: str
    """What the table calls it."""
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field(default=(0,), min_length=1)
    """Seeds that it is run with, unless the command names others."""
    retriever: Part = "trained"
    """trained: the embedder after joint pre-training; start: after its warm start."""
    encoder: Part = "trained"
    """trained: the encoder after joint pre-training; start: after its warm start."""
    pretrained_as: str | None = None
    """Row whose joint pre-training this one takes its parts from (None: its own)."""
    mask: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Settings of [mask] that are different."""
    pretrain: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Settings of [pretrain] that are different."""
    paper_exact_match: float | None = None
    """The paper's figure on the development set of Natural Questions, in percent."""
    paper_recall_at_5: float | None = None
    """The same for zero-shot recall@5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """A study's file, checked."""

    study: StudyConfig
    rows: Mapping[str, RowConfig]
    tables: Mapping[str, dict[str, Any]]
    """Raw table of each stage; rows and seeds are laid over them."""
    device: str = AUTO
    """Where every stage computes."""

    @classmethod
    def load(
        cls, file: Path, *, overrides: Sequence[str] = (), device: str = AUTO
    ) -> "StudySettings":
        """Read a study.

        Args:
            file: TOML with [study], a table for each stage, and [rows.NAME].
            overrides: SECTION.KEY=VALUE pairs, which win over the file's tables of stages.
            device: where every stage computes: auto, cpu, cuda, cuda:NUMBER.

        Raises:
            ConfigError: an unknown table, row or key, or an impossible value, in any row; or no
                such device.
        """
        found = read_toml(file)
        known = {"study", "rows", *STAGES}
        if unknown := sorted(found.keys() - known):
            raise ConfigError(f"{file}: found tables {unknown}, expected some of {sorted(known)}")
        tables = {name: _table(file, found, name) for name in ("study", *STAGES)}
        for override in overrides:
            _lay_over(tables, override)
        rows = {
            name: check(RowConfig, _table(file, _table(file, found, "rows"), name), section=name)
            for name in _table(file, found, "rows")
        }
        study = check(StudyConfig, tables.pop("study"), section="study")
        choose_device(device)
        settings = cls(study=study, rows=rows, tables=tables, device=device)
        settings.check_all(file)
        return settings

    def check_all(self, file: Path) -> None:
        """Refuse what would stop a study half-way.

        Raises:
            ConfigError: see `load`.
        """
        if not self.rows:
            raise ConfigError(f"{file} has no row, expected at least one table [rows.NAME]")
        for name in self.rows:
            if name.startswith(".") or not is_plain_name(name) or set(name) & _OF_PATTERNS:
                raise ConfigError(
                    f"{file}: found a row named {name[:80]!a}, expected the name of a folder, such "
                    "as no-retrieval: letters, digits, dashes"
                )
        named = [name for pair in self.study.compare for name in pair]
        named += [row.pretrained_as for row in self.rows.values() if row.pretrained_as]
        self.check_rows(named)
        for stage in TRAINED:
            _check_laid_over(f"{file}: [{stage}]", self.tables[stage])
        for name, row in self.rows.items():
            _check_laid_over(f"pretrain of row {name}", row.pretrain)
            self._check_source(name, row)
            for stage, cls in STAGES.items():
                self.stage(stage, cls, row=name)

    def _check_source(self, name: str, row: RowConfig) -> None:
        """Refuse a row whose parts would not be those of the row that it names."""
        if row.pretrained_as and (row.mask or row.pretrain):
            raise ConfigError(
                f"row {name} takes its parts from row {row.pretrained_as}, and has its own "
                "mask or pretrain, which would not be used; leave one of them out"
            )
        source = self.source(name)
        if (further := self.source(source)) != source:
            raise ConfigError(
                f"row {name} takes its parts from row {source}, which has those of row {further}; "
                f"expected pretrained_as to name a row with a pre-training of its own: {further}"
            )
        if row.retriever == "trained" and source == START:
            raise ConfigError(
                f"found a row named {START!r} with a trained retriever, by which the warm start's "
                "own measurements are kept; give it another name"
            )

    def check_rows(self, names: Sequence[str]) -> None:
        """Refuse names of rows that the study does not have.

        Raises:
            ConfigError: there is such a name.
        """
        if unknown := sorted(set(names) - self.rows.keys()):
            raise ConfigError(f"found rows {unknown}, the study has {sorted(self.rows)}")

    def source(self, row: str) -> str:
        """Return the row whose joint pre-training a row uses."""
        return self.rows[row].pretrained_as or row

    def stage(self, name: str, cls: type[C], *, row: str | None = None, seed: int = 0) -> C:
        """Return one stage's settings in one row.

        Args:
            name: of the stage.
            cls: its settings.
            row: what is different in this row is laid over the stage's table.
            seed: of a training stage; the others keep theirs.

        Raises:
            ConfigError: an unknown key or an impossible value.
        """
        table = dict(self.tables[name])
        if row is not None and name in {"mask", "pretrain"}:
            table = _merged(table, getattr(self.rows[row], name))
        if name in TRAINED:
            table |= {"seed": seed, "device": self.device}
        return check(cls, table, section=f"{name} of row {row}" if row else name)


def _check_laid_over(where: str, table: Mapping[str, Any]) -> None:
    """Refuse settings of a trained stage that the study's own would silently win over."""
    if found := sorted(LAID_OVER.keys() & table.keys()):
        told = "; ".join(f"{name}: {LAID_OVER[name]}" for name in found)
        raise ConfigError(f"{where} has {', '.join(found)}, which would not be used; {told}")


def _table(file: Path, found: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = found.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: found {name} = {table!r}, expected a table [{name}]")
    return cast("dict[str, Any]", table)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the leaves of `over` in place of its own."""
    merged = dict(base)
    for name, value in over.items():
        own = merged.get(name)
        both = isinstance(own, dict) and isinstance(value, dict)
        merged[name] = _merged(cast("Any", own), cast("Any", value)) if both else value
    return merged


def _lay_over(tables: dict[str, dict[str, Any]], override: str) -> None:
    keys, value = parse_override(override)
    if keys[0] not in tables or len(keys) < 2:
        raise ConfigError(
            f"--set {override!r}: expected SECTION.KEY=VALUE with a section of {sorted(tables)}, "
            "e.g. --set pretrain.steps=100"
        )
    for key in reversed(keys[1:]):
        value = {key: value}
    tables[keys[0]] = _merged(tables[keys[0]], cast("dict[str, Any]", value))
