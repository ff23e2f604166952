"""Every error realm raises on purpose.

RealmError
├── ConfigError          a setting or a command is wrong; nothing has started
│   ├── NoEncoderError   blanks are to be filled, and no encoder is there
│   └── ReadOnlyError    documents are to change where they cannot
├── CorpusError          an article, passage or question cannot be read
│   ├── WithheldError    the system does not hand out a file of text
│   ├── MaskingError     spans or taggers that cannot be used
│   └── UnknownDocumentError  no document has this id
├── ArtifactError        a folder on disk is missing, unfinished, damaged or made from other inputs
│   ├── DamagedError     the bytes of a file are not those that were written
│   ├── OtherFormatError another release wrote it, in a format that this one does not read
│   ├── UnreadableError  a file is there, and the system does not hand it out
│   ├── LockedError      another process is writing it
│   └── StaleIndexError  the index is older than refresh.max_staleness_steps
├── AnsweringError       a question cannot be answered
│   └── QuestionTooLongError  it is longer than the model reads
├── DivergedError        a training step gave gradients that are not finite
└── RankError            another process of a run on several ranks died, or does not answer

Messages say what was found, what was expected and what to do. The command line prints them
without a traceback and exits with 2.
"""


class RealmError(Exception):
    """Base class: `except RealmError` catches what a caller can act on."""

    def __str__(self) -> str:
        r"""Return the message; half a surrogate pair in what was found is shown as `\ud800`."""
        return super().__str__().encode(errors="backslashreplace").decode()


class ConfigError(RealmError):
    """A setting or a command is wrong; nothing has started."""


class NoEncoderError(ConfigError):
    """Blanks are to be filled, and no encoder is there."""


class ReadOnlyError(ConfigError):
    """Documents are to change where they cannot: in a run's own passages."""


class CorpusError(RealmError):
    """An article, passage or question cannot be read."""


class WithheldError(CorpusError):
    """A file of text that the system does not hand out now: its permissions, its disk."""


class MaskingError(CorpusError):
    """Spans or taggers that cannot be used."""


class UnknownDocumentError(CorpusError):
    """No document has this id."""


class ArtifactError(RealmError):
    """A folder on disk is missing, unfinished, damaged or made from other inputs."""


class DamagedError(ArtifactError):
    """The bytes of a file are not those that were written, or the file is gone."""


class OtherFormatError(ArtifactError):
    """Another release wrote a folder, in a format that this one does not read."""


class UnreadableError(ArtifactError):
    """A file is there, and the system does not hand it out: no permission, or a broken disk."""


class LockedError(ArtifactError):
    """Another process, or another thread of this one, is writing a folder."""


class StaleIndexError(ArtifactError):
    """The index is older than the run allows."""

    def __init__(
        self,
        *,
        index_step: int,
        train_step: int,
        limit_steps: int,
        reason: str = "",
        remedy: str = "",
    ) -> None:
        self.index_step, self.train_step, self.limit_steps = index_step, train_step, limit_steps
        stale = train_step - index_step
        super().__init__(
            f"index was built at step {index_step:,} and training is at {train_step:,}: "
            f"{stale:,} step{'s' * (stale != 1)} stale, limit {limit_steps:,}. "
            f"{reason}{reason and '. '}{remedy}{remedy and '. '}"
            "To refresh more often (`--set refresh.every_steps=N`) or with a higher "
            "`refresh.max_staleness_steps`, train in another --out"
        )


class AnsweringError(RealmError):
    """A question cannot be answered."""


class QuestionTooLongError(AnsweringError):
    """A question is longer than the model reads."""


class DivergedError(RealmError):
    """A training step gave gradients that are not finite; nothing was updated with them."""

    def __init__(self, *, step: int, loss: float, norm: float, learning_rate: float) -> None:
        self.step, self.loss = step, loss
        super().__init__(
            f"step {step:,}: found gradients with a norm of {norm} (loss {loss:.4g}), expected a "
            "finite one; nothing was updated with them, and the checkpoints are whole. Train with "
            f"a lower optimizer.learning_rate (at this step it was {learning_rate:.2g}) in another "
            "--out"
        )


class RankError(RealmError):
    """Another process of a run on several ranks died, or does not answer."""
