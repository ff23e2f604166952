"""The whole of REALM on the small encyclopedia that ships with the package.

Every stage is the real one, on a MiniLM, short passages and few steps, so that two
CPU cores need minutes. Stages are folders below one: a second run finds them done.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from realm import encyclopedia
from realm.answering import Answerer
from realm.checkpoint.folders import load_tokenizer
from realm.checkpoint.run_records import read_metrics
from realm.config import (
    EncoderConfig,
    EvaluateConfig,
    FinetuneConfig,
    IctConfig,
    IndexConfig,
    MaskConfig,
    MlmConfig,
    OptimizerConfig,
    PretrainConfig,
    RefreshConfig,
    SplitConfig,
)
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.evaluation.evaluate import evaluate
from realm.evaluation.metrics import Interval
from realm.evaluation.questions import read_questions
from realm.evaluation.recall import answer_recall
from realm.evaluation.report import write_report
from realm.explaining import Explainer, Explanation
from realm.index.builder import EmbedderVersion, build_index
from realm.index.snapshot import Snapshot
from realm.masking.examples import mask
from realm.masking.store import ExampleStore
from realm.model.embedder import Towers
from realm.records import AnsweredQuestion, Progress, Question
from realm.retrieval.dense import DenseRetriever
from realm.storage import read_json, write_json
from realm.training.finetune import finetune
from realm.training.ict import ict, start_towers
from realm.training.loop import OnMetrics
from realm.training.mlm import mlm
from realm.training.pretrain import pretrain

EMBEDDER = EncoderConfig(init="minilm", num_layers=4)
"""Cut short: the whole of it finds an answer among the first five at once, and leaves nothing to
learn on so small a corpus."""
ENCODER = EncoderConfig(init="minilm")
SPLIT = SplitConfig(max_wordpieces=128)
MASK = MaskConfig()
ICT = IctConfig(
    encoder=EMBEDDER,
    steps=40,
    batch_size=24,
    dropout=0.0,
    held_out=0.1,
    eval_every_steps=40,
    save_every_steps=20,
    optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=6),
)
MLM = MlmConfig(
    encoder=ENCODER,
    steps=220,
    batch_size=16,
    window=40,
    copy_rate=0.6,
    read_rate=0.3,
    dropout=0.0,
    held_out=0.1,
    num_eval_examples=64,
    eval_every_steps=110,
    save_every_steps=55,
    log_every_steps=20,
    optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=15),
)
PRETRAIN = PretrainConfig(
    steps=18,
    batch_size=6,
    num_candidates=4,
    dropout=0.0,
    held_out=0.1,
    num_eval_examples=64,
    eval_every_steps=6,
    save_every_steps=6,
    log_every_steps=3,
    refresh=RefreshConfig(mode="sync", every_steps=6, max_staleness_steps=36),
    retriever_rate=0.5,
    optimizer=OptimizerConfig(learning_rate=2e-5, warmup_steps=4),
)
FINETUNE = FinetuneConfig(
    steps=64,
    batch_size=8,
    num_passages=3,
    dropout=0.0,
    held_out=0.05,
    retriever_beam=200,
    eval_every_steps=64,
    save_every_steps=32,
    optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=10),
)
SENTENCE = "Marie [MASK] discovered the element radium together with her husband."
SENTENCE_ANSWER = "Curie"
NUM_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of the quickstart."""

    name: str
    meaning: str
    """What it is for, in one line."""
    run: Callable[[OnMetrics | None, Progress | None], str]
    """Do it; return its result in one line."""


class Quickstart:
    """The stages below one folder, and what they showed."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.passages = out / "passages"
        self.examples = out / "examples"
        self.runs = {name: out / name for name in ("ict", "mlm", "pretrain", "finetune")}
        self.measured_file = out / "measured.json"

    @cached_property
    def store(self) -> PassageStore:
        """The encyclopedia's passages."""
        return PassageStore.open(self.passages)

    @cached_property
    def test_questions(self) -> list[Question]:
        """Questions on articles that no training question is about."""
        return read_questions(encyclopedia.questions_file("test"))

    @property
    def is_done(self) -> bool:
        """Whether every stage has run, so that one can ask at once."""
        return "after" in self.measured

    @property
    def measured(self) -> dict[str, dict[str, float]]:
        """What was measured so far, by moment."""
        return read_json(self.measured_file) if self.measured_file.is_file() else {}

    def stages(self) -> list[Stage]:
        """Return what is to be run, in order."""
        return [
            Stage(
                name="split",
                meaning="Articles become passages: the knowledge corpus Z.",
                run=self._split,
            ),
            Stage(
                name="mask",
                meaning="Names, dates and quantities in sentences are masked: what is asked.",
                run=self._mask,
            ),
            Stage(
                name="before",
                meaning="How well the start encoder finds answers, before any training.",
                run=self._before,
            ),
            Stage(
                name="ict",
                meaning="The embedder learns which passage lost a sentence (Inverse Cloze Task).",
                run=self._ict,
            ),
            Stage(
                name="mlm",
                meaning="The encoder learns to fill blanks with the help of a passage.",
                run=self._mlm,
            ),
            Stage(
                name="pretrain",
                meaning="Both learn together: passages that help to predict gain score (Eq. 1).",
                run=self._pretrain,
            ),
            Stage(
                name="finetune",
                meaning="Questions and answers teach the reader to point at words.",
                run=self._finetune,
            ),
            Stage(
                name="after",
                meaning="The same test questions again, now with answers.",
                run=self._after,
            ),
        ]

    def utility(self) -> list[tuple[int, float]]:
        """Return (step, held-out retrieval utility) over joint pre-training."""
        name = "eval/utility/marginal_minus_null"
        return [
            (int(line["step"]), float(line[name]))
            for line in read_metrics(self.runs["pretrain"])
            if name in line
        ]

    def refreshes(self) -> int:
        """Return how many times the index was rebuilt during pre-training."""
        lines = read_metrics(self.runs["pretrain"])
        return sum(1 for line in lines if line.get("index/refreshed"))

    def answers(self) -> list[AnsweredQuestion]:
        """Return answers to the first test questions."""
        asked = [q.question for q in self.test_questions[:: len(self.test_questions) // NUM_SHOWN]]
        return self.answerer.answer(asked[:NUM_SHOWN], num_answers=2)

    @cached_property
    def answerer(self) -> Answerer:
        """The fine-tuned model over the encyclopedia."""
        return Answerer.load(self.runs["finetune"])

    def explanation(self) -> Explanation:
        """Return what retrieval does for one sentence."""
        explainer = Explainer.load(self.runs["pretrain"])
        return explainer.explain(SENTENCE, answers=[SENTENCE_ANSWER], num_candidates=6)

    def _split(self, _: OnMetrics | None, progress: Progress | None) -> str:
        report = split(
            [encyclopedia.articles_file()],
            self.passages,
            config=SPLIT,
            tokenizer=load_tokenizer("minilm"),
            progress=progress,
        )
        return f"{report.num_articles} articles, {report.num_passages} passages"

    def _mask(self, _: OnMetrics | None, progress: Progress | None) -> str:
        report = mask(self.store, self.examples, config=MASK, progress=progress)
        return f"{report.num_examples:,} masked sentences"

    def _before(self, _: OnMetrics | None, progress: Progress | None) -> str:
        if "before" not in self.measured:
            towers = start_towers(self.store, ICT).eval()
            snapshot = build_index(
                towers.passage,
                self.store,
                self.out / "start-index",
                version=EmbedderVersion(model_hash="start"),
                config=IndexConfig(),
                progress=progress,
            )
            self._keep("before", self._recall(towers, snapshot))
        return f"answer recall@5 {self.measured['before']['recall@5']:.1%}"

    def _ict(self, on_metrics: OnMetrics | None, _: Progress | None) -> str:
        report = ict(self.store, self.runs["ict"], config=ICT, on_metrics=on_metrics)
        return f"held-out sentence finds its passage: {_share(report.metrics, 'recall_at_1')}"

    def _mlm(self, on_metrics: OnMetrics | None, _: Progress | None) -> str:
        report = mlm(
            self.store,
            self.runs["mlm"],
            config=MLM,
            examples=ExampleStore.open(self.examples),
            on_metrics=on_metrics,
        )
        return (
            f"held-out blanks right: {_share(report.metrics, 'read_accuracy')} with a passage, "
            f"{_share(report.metrics, 'guess_accuracy')} without"
        )

    def _pretrain(self, on_metrics: OnMetrics | None, progress: Progress | None) -> str:
        report = pretrain(
            ExampleStore.open(self.examples),
            self.store,
            self.runs["pretrain"],
            embedder=self.runs["ict"],
            encoder=self.runs["mlm"],
            config=PRETRAIN,
            on_metrics=on_metrics,
            progress=progress,
        )
        return (
            f"held-out blanks right: {_share(report.metrics, 'span_accuracy')} with retrieval, "
            f"{_share(report.metrics, 'span_accuracy_null')} without; "
            f"{self.refreshes()} index refreshes"
        )

    def _finetune(self, on_metrics: OnMetrics | None, progress: Progress | None) -> str:
        report = finetune(
            read_questions(encyclopedia.questions_file("train")),
            self.store,
            self.runs["finetune"],
            run=self.runs["pretrain"],
            config=FINETUNE,
            on_metrics=on_metrics,
            progress=progress,
        )
        return f"{report.steps} steps on questions about other articles"

    def _after(self, _: OnMetrics | None, progress: Progress | None) -> str:
        if "after" not in self.measured:
            report = evaluate(
                self.answerer,
                self.store,
                self.test_questions,
                config=EvaluateConfig(),
                split_name="encyclopedia test",
                progress=progress,
            )
            write_report(report, self.out / "report.json")
            self._keep("after", {name: m.mean for name, m in report.metrics.items()})
        return f"answer recall@5 {self.measured['after']['recall@5']:.1%}"

    def _recall(self, towers: Towers, snapshot: Snapshot) -> Mapping[str, float]:
        retriever = DenseRetriever(
            towers.query, snapshot, self.store.tokenizer, question_wordpieces=64
        )
        found: dict[int, Interval] = answer_recall(
            retriever, self.store, self.test_questions, at=(1, 5)
        )
        return {f"recall@{k}": interval.mean for k, interval in found.items()}

    def _keep(self, moment: str, numbers: Mapping[str, float]) -> None:
        write_json(self.measured_file, {**self.measured, moment: dict(numbers)})


def _share(metrics: Mapping[str, float], name: str) -> str:
    value = metrics.get(f"eval/{name}")
    return "not measured" if value is None else f"{value:.1%}"
