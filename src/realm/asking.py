"""A folder of files + a question -> answers with file and line.

Passages and index are kept, ready for the next question (`realm.keeping`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from realm.answering import Answerer, answered_as_json
from realm.checkpoint.parts import Model
from realm.corpus.places import Places
from realm.corpus.reading import Place
from realm.corpus.store import PassageStore
from realm.device import AUTO
from realm.errors import ArtifactError
from realm.index.snapshot import Snapshot
from realm.keeping import (
    AskedFolder,
    kept_index,
    kept_passages,
    look_at,
    make_lexical,
    make_passages,
    remove_earlier,
)
from realm.records import Answer, AnsweredQuestion, Mention, Progress, Skipped


class FolderAnswerer:
    """Answers from somebody's own files, and says in which file and line the words stand."""

    def __init__(self, answerer: Answerer, places: Places, skipped: Skipped) -> None:
        self.answerer = answerer
        self.skipped = skipped
        """What could not be read, by reason; empty where the passages were kept from before."""
        self._places = places

    @classmethod
    def open(
        cls,
        docs: Path,
        *,
        model: Path | None = None,
        cache: Path | None = None,
        device: str = AUTO,
        reading: Progress | None = None,
        embedding: Progress | None = None,
    ) -> "FolderAnswerer":
        """Read a folder, or take what an earlier call has made of the same files.

        Args:
            docs: folder with .txt, .md and .jsonl files at any depth, or one such file.
            model: fine-tuned run, checkpoint or packed model; None: realm-mini, which ships.
            cache: keeps passages and index; None: $REALM_CACHE, or the user's cache folder.
            device: where the model runs: auto, cpu, cuda, cuda:NUMBER.
            reading: called with (articles read, 0).
            embedding: called with (passages embedded, passages).

        Raises:
            CorpusError: there is no text in `docs`.
            ConfigError: the model has no embedder or no reader, or none ships.
            ArtifactError: no model there, or the cache cannot be written.
        """
        asked = look_at(docs, model=model, cache=cache)
        while True:
            try:
                return cls._open(asked, device=device, reading=reading, embedding=embedding)
            except ArtifactError:
                now = look_at(docs, model=model, cache=cache)
                if now.passages_folder == asked.passages_folder:
                    raise
                asked = now  # whoever saw the change has removed what was kept of the files before

    @classmethod
    def _open(
        cls,
        asked: AskedFolder,
        *,
        device: str,
        reading: Progress | None,
        embedding: Progress | None,
    ) -> "FolderAnswerer":
        store = kept_passages(asked.passages_folder)
        skipped = Skipped() if store else asked.skipped
        store = store or make_passages(asked, reading)
        make_lexical(asked, store)

        def open_index(model: Model, store: PassageStore) -> Snapshot:
            return kept_index(asked, model, store, embedding)

        answerer = Answerer.load(
            asked.model,
            passages=store.folder,
            device=device,
            autocast="auto",
            kept_in=asked.room,
            open_index=open_index,
        )
        places = Places.open(store.folder, num_passages=len(store))
        remove_earlier(asked, store)
        return cls(answerer, places, skipped)

    def answer(self, questions: Sequence[str], **choices: Any) -> list[AnsweredQuestion]:  # noqa: ANN401
        """Return the answers to each question, best first; see `Answerer.answer`."""
        return self.answerer.answer(questions, **choices)

    def place(self, answer: Answer | Mention) -> Place:
        """Return the file, by its path in the folder, and the line of an answer's first word.

        Args:
            answer: one of this folder, or one of its `same_text`: where its words stand, too.
        """
        return self._places.of(answer.passage, answer.start)


def ask_folder(
    question: str,
    docs: Path,
    *,
    model: Path | None = None,
    cache: Path | None = None,
    num_answers: int = 5,
) -> list[tuple[Answer, Place]]:
    """Return the answers to a question from the files in a folder, best first, with their places.

    Args:
        question: in words.
        docs: see `FolderAnswerer.open`.
        model: see there.
        cache: see there.
        num_answers: distinct strings to return.

    Raises:
        RealmError: see there; AnsweringError for a question that cannot be answered.
    """
    answerer = FolderAnswerer.open(docs, model=model, cache=cache)
    (answered,) = answerer.answer([question], num_answers=num_answers)
    return [(answer, answerer.place(answer)) for answer in answered.answers]


def placed_as_json(answered: AnsweredQuestion, answerer: FolderAnswerer) -> dict[str, Any]:
    """Return what `realm ask --docs --json` prints: each answer also with `file` and `line`.

    So has each place of the same text.
    """
    told = answered_as_json(answered)
    for entry, answer in zip(told["answers"], answered.answers, strict=True):
        entries, mentions = [entry, *entry["same_text"]], [answer, *answer.same_text]
        for one, mention in zip(entries, mentions, strict=True):
            place = answerer.place(mention)
            one |= {"file": place.file, "line": place.line}
    return told
