"""The real passages and questions that benchmarks read, and where they come from.

Paragraphs of SQuAD-open (20,958, cut into 21,875 passages), where `../shared/data` stands beside
the checkout; otherwise, and with --quick, the small encyclopedia that ships in the package. The
passages are cut once and kept in runs/bench/, which git ignores.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT

from realm.checkpoint.folders import load_tokenizer
from realm.config import SplitConfig
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.encyclopedia import articles_file, questions_file
from realm.evaluation.questions import read_questions

PASSAGES = "corpora/squad_open_passages.jsonl.gz"
QUESTIONS = "qa/squad_open.dev.jsonl.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Passages, and questions about them."""

    name: str
    store: PassageStore
    questions: list[str]


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where data is looked for and where what is made of it is kept."""
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of real data"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "bench", help="folder for what is made of it"
    )


def open_corpus(told: argparse.Namespace) -> Corpus:
    """Return the corpus, cut into passages where that was not done before."""
    articles, questions, name = told.data / PASSAGES, told.data / QUESTIONS, "SQuAD-open"
    if told.quick or not (articles.is_file() and questions.is_file()):
        articles, questions = articles_file(), questions_file("test")
        name = "the encyclopedia in the package"
    folder: Path = told.work / articles.name.partition(".")[0]
    split(
        [articles],
        folder,
        config=SplitConfig(),
        tokenizer=load_tokenizer("minilm"),
        num_processes=1 if told.quick else len(os.sched_getaffinity(0)),
    )
    return Corpus(
        name=name,
        store=PassageStore.open(folder),
        questions=[question.question for question in read_questions(questions)],
    )
