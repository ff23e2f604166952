"""Claims with labels -> accuracy, precision and recall of each label, confusion table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from realm.config import EvaluateConfig
from realm.errors import AnsweringError, CorpusError, RealmError
from realm.evaluation.claim_report import ClaimEvidence, ClaimRecord, ClaimReport, LabelNumbers
from realm.evaluation.json_lines import read_objects, whole
from realm.evaluation.metrics import wilson_interval
from realm.evaluation.report import Metric
from realm.readable import counted
from realm.records import Claim, ClassifiedClaim, Progress, Skipped
from realm.storage import fingerprint_of

_EXAMPLE = '{"claim": "Jane Austen wrote Emma.", "label": "true"}'


@runtime_checkable
class Classifies(Protocol):
    """A `ClaimClassifier`."""

    @property
    def model_name(self) -> str:
        """Name of the model, for the report."""
        ...

    @property
    def model_fingerprint(self) -> str:
        """Hash of the parameters."""
        ...

    @property
    def corpus_fingerprint(self) -> str:
        """Hash of the passages that are searched."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it knows."""
        ...

    def classify(
        self, claims: Sequence[str], *, num_passages: int | None = None
    ) -> list[ClassifiedClaim]:
        """Return one result a claim, in order."""
        ...


def read_claims(path: Path) -> list[Claim]:
    """Return the claims of a JSON-lines file, in file order.

    Keys of a line: `claim` (FEVER) or `question`; `label`, a string; optional `id` (default or
    null: `line-N`). Other keys are ignored, blank lines too.

    Args:
        path: a file named *.jsonl, or *.jsonl.gz, .bz2 or .zst.

    Raises:
        CorpusError: the file is missing, damaged or empty, or a line is no claim with a label.
    """
    return [
        _parse(line, f"{path}:{number}", default_id=f"line-{number}")
        for number, line in read_objects(path, noun="claim", example=_EXAMPLE)
    ]


def evaluate_claims(
    classifier: Classifies,
    claims: Sequence[Claim],
    *,
    config: EvaluateConfig,
    split_name: str,
    retriever_name: str = "realm",
    progress: Progress | None = None,
) -> ClaimReport:
    """Return how well a classifier tells the labels of claims.

    A claim on which it raises a RealmError counts as wrong, and among the report's failures.

    Args:
        classifier: classifies in batches of `config.batch_size`.
        claims: the whole split; `config.limit` draws from it.
        config: the settings; those about answers are not used.
        split_name: name of the split, for the report.
        retriever_name: name of what retrieves, for the report.
        progress: called with (classified, asked) after each batch.

    Raises:
        CorpusError: there are no claims, or a label that the classifier does not know.
        AnsweringError: no claim could be classified.
    """
    _check(classifier, claims)
    asked = _sample(claims, config)
    failures = Skipped()
    records: list[ClaimRecord] = []
    for start in range(0, len(asked), config.batch_size):
        batch = asked[start : start + config.batch_size]
        replies = _ask(classifier, batch, config.num_passages)
        for claim, reply in zip(batch, replies, strict=True):
            if isinstance(reply, RealmError):
                failures.add(type(reply).__name__, f"{claim.id}: {reply}")
            records.append(_judge(claim, reply))
        if progress is not None:
            progress(len(records), len(asked))
    if failures.total == len(records):
        raise AnsweringError(
            f"none of {counted(len(records), 'claim')} could be classified; the first: "
            f"{records[0].claim[:80]!r}, {records[0].error}"
        )
    num_right = sum(one.prediction == one.label for one in records)
    confusion = _confusion(records, classifier.labels)
    having = Counter(one.label for one in records)
    return ClaimReport(
        model=classifier.model_name,
        model_fingerprint=classifier.model_fingerprint,
        retriever=retriever_name,
        corpus_fingerprint=classifier.corpus_fingerprint,
        split=split_name,
        split_fingerprint=fingerprint_of([[one.claim, one.label] for one in claims]),
        num_split_claims=len(claims),
        settings={name: getattr(config, name) for name in ("num_passages", "seed", "limit")},
        accuracy=Metric.of(wilson_interval(num_right, len(records)), num_questions=len(records)),
        majority=max(having.values()) / len(records),
        labels={name: _numbers(name, confusion, having[name]) for name in classifier.labels},
        confusion=confusion,
        records=tuple(records),
        failures=failures.counts,
    )


def _check(classifier: Classifies, claims: Sequence[Claim]) -> None:
    if not claims:
        raise CorpusError("found no claim to evaluate on, expected at least one")
    for one in claims:
        if one.label not in classifier.labels:
            raise CorpusError(
                f"claim {one.id}: found label {one.label!r}, expected one that the run was trained "
                f"with: {', '.join(map(repr, classifier.labels))}"
            )


def _sample(claims: Sequence[Claim], config: EvaluateConfig) -> list[Claim]:
    """Return all claims, or `config.limit` drawn at random, in file order."""
    if config.limit is None or config.limit >= len(claims):
        return list(claims)
    drawn = np.random.default_rng(config.seed).choice(len(claims), config.limit, replace=False)
    return [claims[number] for number in sorted(drawn.tolist())]


def _ask(
    classifier: Classifies, batch: Sequence[Claim], num_passages: int
) -> list[ClassifiedClaim | RealmError]:
    """Classify a batch; where it fails, each claim alone, so that one cannot spoil the rest."""
    try:
        return list(classifier.classify([c.claim for c in batch], num_passages=num_passages))
    except RealmError as error:
        if len(batch) == 1:
            return [error]
        return [reply for one in batch for reply in _ask(classifier, [one], num_passages)]


def _judge(claim: Claim, reply: ClassifiedClaim | RealmError) -> ClaimRecord:
    is_error = isinstance(reply, RealmError)
    probabilities = {} if is_error else {one.label: one.probability for one in reply.labels}
    prediction = "" if is_error else reply.label
    return ClaimRecord(
        id=claim.id,
        claim=claim.claim,
        label=claim.label,
        prediction=prediction,
        probability=probabilities.get(prediction, 0.0),
        p_label=probabilities.get(claim.label, 0.0),
        error=f"{type(reply).__name__}: {reply}" if is_error else None,
        evidence=None if is_error else ClaimEvidence.of(reply.labels[0]),
    )


def _confusion(records: Sequence[ClaimRecord], labels: Sequence[str]) -> dict[str, dict[str, int]]:
    counted = Counter((one.label, one.prediction) for one in records)
    return {label: {said: counted[label, said] for said in labels} for label in labels}


def _numbers(
    label: str, confusion: Mapping[str, Mapping[str, int]], num_claims: int
) -> LabelNumbers:
    right = confusion[label][label]
    num_said = sum(row[label] for row in confusion.values())
    return LabelNumbers(
        precision=right / num_said if num_said else None,
        recall=right / num_claims if num_claims else None,
        f1=2 * right / (num_said + num_claims) if num_said + num_claims else None,
        num_claims=num_claims,
    )


def _parse(line: Mapping[str, Any], place: str, *, default_id: str) -> Claim:
    text = line.get("claim", line.get("question"))
    if not isinstance(text, str) or not text.strip():
        raise CorpusError(
            f"{place}: found {_told(text)} claim among keys {sorted(line)}, expected a text that "
            f"is not empty, like {_EXAMPLE}"
        )
    label = line.get("label")
    if not isinstance(label, str) or not label.strip():
        raise CorpusError(
            f"{place}: found {_told(label)} label among keys {sorted(line)}, expected a string "
            f"that is not empty, like {_EXAMPLE}"
        )
    given = line.get("id")
    return Claim(
        id=default_id if given is None else whole(str(given), place),
        claim=whole(text.strip(), place),
        label=whole(label.strip(), place),
    )


def _told(value: object) -> str:
    return "no" if value is None else f"{value!r} as"
