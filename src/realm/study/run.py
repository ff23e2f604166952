"""Runs the rows of a study: each stage is a folder, made once and shared by all rows that need it.

out/
    passages/ sentences/        Z; Z and the other text, of which X is made
    examples/ examples-ROW/     masked sentences of X (other-...: without Z's own)
    seed-N/ict, mlm             the warm starts
    seed-N/pretrain-ROW         joint pre-training
    seed-N/zero-shot-ROW.json   rank of the first passage with an answer, question by question;
                                ROW-step-N: of older checkpoints that were kept
    seed-N/finetune-ROW         Open-QA
    seed-N/report-ROW.json      exact match, question by question
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from realm.checkpoint.checkpoints import list_checkpoints
from realm.checkpoint.folders import load_tokenizer
from realm.config import (
    EvaluateConfig,
    FinetuneConfig,
    IctConfig,
    IndexConfig,
    MaskConfig,
    MlmConfig,
    PretrainConfig,
    SplitConfig,
)
from realm.corpus.articles import check_input
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.errors import ConfigError, CorpusError
from realm.evaluation.questions import read_questions
from realm.masking.examples import mask
from realm.masking.store import ExampleStore
from realm.records import Progress, Question
from realm.study.measures import RECALL_AT, measure_exact_match, measure_zero_shot
from realm.study.settings import START, StudySettings
from realm.study.text import choose_articles
from realm.training.finetune import finetune
from realm.training.ict import ict
from realm.training.loop import OnMetrics
from realm.training.mlm import mlm
from realm.training.pretrain import pretrain
from realm.workers import check_processes


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyInputs:
    """Text and questions of a study."""

    passages: tuple[Path, ...]
    """Articles of the knowledge corpus Z; their sentences are part of X."""
    train: Path
    """Questions to fine-tune on."""
    dev: Path
    """Questions to measure on."""
    also: Path | None = None
    """Articles whose sentences are the rest of X."""
    tokenizer: str = "minilm"
    """The encoder's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a run is followed."""

    tell: Callable[[str], None] = lambda _: None
    """Called with a line before and after each stage."""
    on_metrics: Callable[[str], OnMetrics | None] = lambda _: None
    """Stage -> what is called at its logged steps."""
    progress: Progress | None = None


class StudyRun:
    """The stages of a study below one folder; what is finished is not done again."""

    def __init__(
        self,
        settings: StudySettings,
        inputs: StudyInputs,
        out: Path,
        *,
        watch: Watch | None = None,
        num_processes: int = 1,
    ) -> None:
        """Prepare.

        Args:
            settings: of the study.
            inputs: text and questions.
            out: folder of all stages.
            watch: how it is followed.
            num_processes: that split and mask text; the output is the same.

        Raises:
            ConfigError: `num_processes` is less than 1.
        """
        check_processes(num_processes)
        self.settings = settings
        self.inputs = inputs
        self.out = out
        self.watch = watch or Watch()
        self.num_processes = num_processes

    def run(
        self,
        rows: Sequence[str] = (),
        seeds: Sequence[int] | None = None,
        *,
        zero_shot_only: bool = False,
    ) -> None:
        """Run rows (none named: all), all of them with one seed before the next.

        Args:
            rows: names of rows.
            seeds: instead of each row's own.
            zero_shot_only: leave out fine-tuning; a later run does it.

        Raises:
            ConfigError: no such row, or settings that do not fit the text.
            CorpusError: text or questions cannot be read, or two questions have one id.
            ArtifactError: a folder was made from something else.
        """
        self.settings.check_rows(rows)
        self._check_inputs(zero_shot_only=zero_shot_only)
        chosen = list(rows) or list(self.settings.rows)
        own = {name: self.settings.rows[name].seeds if seeds is None else seeds for name in chosen}
        for seed in sorted({number for numbers in own.values() for number in numbers}):
            for name in chosen:
                if seed in own[name]:
                    self.run_row(name, seed, zero_shot_only=zero_shot_only)

    def _check_inputs(self, *, zero_shot_only: bool) -> None:
        """Refuse what would stop the study half-way; raises what `run` raises."""
        for articles in (*self.inputs.passages, self.inputs.also):
            if articles is not None:
                check_input(articles)
        if self.settings.study.pretrain_text == "also":
            self._need_also()
        check_ids(self.dev, self.inputs.dev)
        if not zero_shot_only:
            read_questions(self.inputs.train)

    def run_row(self, row: str, seed: int, *, zero_shot_only: bool = False) -> None:
        """Run one row with one seed; raises what `run` raises."""
        told = f"row {row} ({self.settings.rows[row].label}), seed {seed}"
        self.watch.tell(told)
        self._zero_shot(row, seed)
        if not zero_shot_only:
            self._exact_match(row, seed)

    def folder(self, seed: int, name: str) -> Path:
        """Return where a stage of one seed lies."""
        return self.out / f"seed-{seed}" / name

    def retriever_name(self, row: str) -> str:
        """Return the row whose embedder this row retrieves with, or `start`."""
        is_trained = self.settings.rows[row].retriever == "trained"
        return self.settings.source(row) if is_trained else START

    @cached_property
    def store(self) -> PassageStore:
        """The passages Z."""
        return self._split("passages", self.inputs.passages)

    @cached_property
    def sentences(self) -> PassageStore:
        """The passages whose sentences are X: Z's, and those of the other text."""
        if self.inputs.also is None:
            return self.store
        return self._split("sentences", [*self.inputs.passages, self._also()])

    @cached_property
    def pretrain_sentences(self) -> PassageStore:
        """Those whose sentences are masked in joint pre-training."""
        if self.settings.study.pretrain_text == "all":
            return self.sentences
        return self._split("other-sentences", [self._also()])

    @cached_property
    def dev(self) -> list[Question]:
        """The questions that all rows are measured on."""
        return read_questions(self.inputs.dev)

    def examples(self, row: str) -> ExampleStore:
        """Return the masked sentences of one row's joint pre-training."""
        own = row if self.settings.rows[row].mask else None
        return self._mask(self.pretrain_sentences, own)

    def _mask(self, text: PassageStore, row: str | None) -> ExampleStore:
        """Return masked sentences of a text, as a row or (None) the whole study has them."""
        name = "examples" if text is self.sentences else "other-examples"
        out = self.out / (f"{name}-{row}" if row else name)
        config = self.settings.stage("mask", MaskConfig, row=row)
        mask(
            text,
            out,
            config=config,
            num_processes=self.num_processes,
            progress=self.watch.progress,
        )
        return ExampleStore.open(out)

    def _need_also(self) -> Path:
        if self.inputs.also is None:
            raise ConfigError(
                'study.pretrain_text = "also" masks text that is not Z\'s own, and found none; '
                "give it with --also"
            )
        return self.inputs.also

    def _also(self) -> Path:
        """Return the articles of the other text that are read."""
        source = self._need_also()
        study = self.settings.study
        rows = range(len(self.store)) if study.also_titles == "shared" else None
        return choose_articles(
            source,
            self.out / "also",
            share=study.also_share,
            titles=None if rows is None else {self.store[row].title for row in rows},
            drop_titles=self.settings.stage("split", SplitConfig).drop_titles,
        )

    def _split(self, name: str, articles: Sequence[Path]) -> PassageStore:
        split(
            articles,
            self.out / name,
            config=self.settings.stage("split", SplitConfig),
            tokenizer=load_tokenizer(self.inputs.tokenizer),
            num_processes=self.num_processes,
            progress=self.watch.progress,
        )
        return PassageStore.open(self.out / name)

    def _ict(self, seed: int) -> Path:
        out = self.folder(seed, "ict")
        text = self.sentences if self.settings.study.ict_text == "sentences" else self.store
        config = self.settings.stage("ict", IctConfig, seed=seed)
        ict(text, out, config=config, on_metrics=self.watch.on_metrics("ict"))
        return out

    def _mlm(self, seed: int) -> Path:
        out = self.folder(seed, "mlm")
        mlm(
            self.sentences,
            out,
            config=self.settings.stage("mlm", MlmConfig, seed=seed),
            examples=self._mask(self.sentences, None),
            on_metrics=self.watch.on_metrics("mlm"),
        )
        return out

    def _pretrain(self, row: str, seed: int) -> Path:
        source = self.settings.source(row)
        out = self.folder(seed, f"pretrain-{source}")
        pretrain(
            self.examples(source),
            self.store,
            out,
            embedder=self._ict(seed),
            encoder=self._mlm(seed),
            config=self.settings.stage("pretrain", PretrainConfig, row=source, seed=seed),
            on_metrics=self.watch.on_metrics(f"pretrain {source}"),
            progress=self.watch.progress,
            tell=self.watch.tell,
        )
        return out

    def _retriever(self, row: str, seed: int) -> Path:
        is_trained = self.settings.rows[row].retriever == "trained"
        return self._pretrain(row, seed) if is_trained else self._ict(seed)

    def _encoder(self, row: str, seed: int) -> Path:
        is_trained = self.settings.rows[row].encoder == "trained"
        return self._pretrain(row, seed) if is_trained else self._mlm(seed)

    def _zero_shot(self, row: str, seed: int) -> None:
        """Measure the retriever as pre-training left it, before any question was seen.

        Older checkpoints that the run has kept are measured, too: how recall grew.
        """
        *older, last = list_checkpoints(self._retriever(row, seed))
        name = f"zero-shot-{self.retriever_name(row)}"
        files = {checkpoint: f"{name}-{checkpoint.name}.json" for checkpoint in older}
        for checkpoint, file in {**files, last: f"{name}.json"}.items():
            told = measure_zero_shot(
                checkpoint,
                self.store,
                self.dev,
                self.folder(seed, file),
                depth=max(RECALL_AT, *self.settings.study.recall_at),
                index=self.settings.stage("index", IndexConfig),
                device=self.settings.device,
                progress=self.watch.progress,
            )
            self.watch.tell(told)

    def _exact_match(self, row: str, seed: int) -> None:
        """Fine-tune, and answer."""
        retriever, encoder = self._retriever(row, seed), self._encoder(row, seed)
        out = self.folder(seed, f"finetune-{row}")
        finetune(
            read_questions(self.inputs.train),
            self.store,
            out,
            run=retriever,
            encoder=None if encoder == retriever else encoder,
            config=self.settings.stage("finetune", FinetuneConfig, seed=seed),
            on_metrics=self.watch.on_metrics(f"finetune {row}"),
            progress=self.watch.progress,
        )
        told = measure_exact_match(
            out,
            self.dev,
            self.folder(seed, f"report-{row}.json"),
            config=self.settings.stage("evaluate", EvaluateConfig),
            split_name=self.inputs.dev.name,
            device=self.settings.device,
            progress=self.watch.progress,
        )
        self.watch.tell(told)


def check_ids(questions: Sequence[Question], file: Path) -> None:
    """Refuse questions that share an id, by which a study keeps what it measures.

    Raises:
        CorpusError: two of them do.
    """
    counted = Counter(question.id for question in questions)
    if shared := [name for name, count in counted.items() if count > 1]:
        raise CorpusError(
            f"{file}: found {counted[shared[0]]:,} questions with the id {shared[0][:80]!r}, "
            "expected a different one for each; mend the ids or leave them out"
        )
