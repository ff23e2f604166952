"""What a training set gives away of a question, by hand."""

import pytest

from realm.evaluation.questions import questions_fingerprint
from realm.evaluation.train_overlap import SAME_QUESTION, SPLITS, TrainingSet, TrainOverlap
from realm.records import Question


def ask(text: str, *answers: str, patterns: tuple[str, ...] = ()) -> Question:
    return Question(id="q", question=text, answers=answers, answer_patterns=patterns)


TRAIN = [
    ask("Who discovered the element radium in 1898?", "Marie Curie", "Curie"),
    ask("What is the capital of France?", "Paris"),
    ask("Who won the super bowl in 2010?", "New Orleans Saints"),
    ask("How many moons has Mars?", "2"),
    ask("Which article is that?", "The"),
    ask("When is it?", patterns=(r"Sept?(ember)?",)),
    ask("Where is it?", "St. Louis, Missouri"),
]
OVERLAP = TrainOverlap({"train.jsonl": TRAIN})


@pytest.mark.parametrize(
    ("question", "split"),
    [
        # equal but for case, articles, punctuation: whatever the answer
        (ask("what is capital of france", "Paris"), "question"),
        (ask("What is the capital of France?", "Lyon"), "question"),
        # the same words in another order, the same answer
        (ask("In 1898 who discovered radium?", "Marie Curie"), "question"),
        (ask("who was radium's discoverer of 1898", "the Curie!"), "answer only"),
        # nearly the same words, another answer: another question
        (ask("Who won the super bowl in 2011?", "Green Bay Packers"), "none"),
        # an answer that was taught, for a question that was not
        (ask("Where did Picasso die?", "Lyon", "PARIS"), "answer only"),
        (ask("How many moons has Jupiter?", "2"), "answer only"),  # 2 words of 4
        (ask("How many hands has a clock?", "2."), "answer only"),
        (ask("Where did Picasso die?", "Mougins"), "none"),
        # an answer without words left is compared as it is written
        (ask("What stands first?", "The"), "answer only"),
        (ask("What stands first?", "A"), "none"),
        # patterns: equal, or fitting an answer that was taught from its start
        (ask("What month?", patterns=(r"Sept?(ember)?",)), "answer only"),
        (ask("What town?", patterns=(r"st\.? louis",)), "answer only"),
        (ask("What town?", patterns=(r"louis",)), "none"),
        (ask("What town?", patterns=("(",)), "none"),  # a bad regex shares nothing
    ],
)
def test_each_question_falls_in_one_split(question: Question, split: str) -> None:
    assert OVERLAP.split_of(question) == split
    assert split in SPLITS


def test_the_threshold_is_met_at_three_words_of_five() -> None:
    """Intersection over union of content words: a b c of a b c d e is just enough."""
    assert SAME_QUESTION == 0.6
    train = TrainOverlap({"t": [ask("alpha beta gamma delta", "x")]})
    assert train.split_of(ask("alpha beta gamma epsilon", "x")) == "question"
    assert train.split_of(ask("alpha beta zeta epsilon", "x")) == "answer only"
    assert train.split_of(ask("alpha beta gamma epsilon", "y")) == "none"


def test_several_files_are_one_training_set_and_each_is_named() -> None:
    overlap = TrainOverlap({"a.jsonl": TRAIN[:1], "b.jsonl": TRAIN[1:]})
    assert overlap.split_of(ask("Where is the Louvre?", "Paris")) == "answer only"
    assert overlap.split_of(ask("Who found polonium?", "Marie Curie")) == "answer only"
    assert overlap.sets == (
        TrainingSet(name="a.jsonl", fingerprint=questions_fingerprint(TRAIN[:1]), num_questions=1),
        TrainingSet(name="b.jsonl", fingerprint=questions_fingerprint(TRAIN[1:]), num_questions=6),
    )
