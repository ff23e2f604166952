"""The words in which the small world's facts are told."""

from dataclasses import dataclass

ADJECTIVES = ("rainy", "golden", "quiet", "windy", "busy", "misty", "frozen", "sunny")
NOUNS = ("autumn", "harbour", "market", "morning", "valley", "festival", "journey", "evening")
ACTIVITIES = (
    "wrote long letters to a friend",
    "lost a pair of gloves",
    "told stories about a lantern",
    "repaired the roof of a barn",
    "counted ships on the water",
    "borrowed a ladder from a neighbour",
    "drew maps of the coast",
    "sold apples to travellers",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A kind of fact, and the words in which it is told; no wording stands in both styles."""

    name: str
    kind: str
    """What its values are: relations of one kind share them."""
    encyclopedia: tuple[str, ...]
    news: tuple[str, ...]
    question: str


RELATIONS = (
    Relation(
        name="born",
        kind="town",
        encyclopedia=(
            "{name} was born in the town of {value}",
            "the birthplace of {name} was {value}",
        ),
        news=(
            "{name} came into the world at home in {value}",
            "{name} first saw the light of day in {value}",
        ),
        question="Where was {name} born?",
    ),
    Relation(
        name="studied",
        kind="town",
        encyclopedia=(
            "{name} studied at the university of {value}",
            "the student years of {name} passed in {value}",
        ),
        news=(
            "{name} sat through dull lectures in {value}",
            "{name} took a degree at a college in {value}",
        ),
        question="Where did {name} study?",
    ),
    Relation(
        name="buried",
        kind="town",
        encyclopedia=(
            "{name} died and was buried in {value}",
            "the grave of {name} lies in {value}",
        ),
        news=(
            "{name} was laid to rest near {value}",
            "{name} spent the last days of life in {value}",
        ),
        question="Where was {name} buried?",
    ),
    Relation(
        name="played",
        kind="instrument",
        encyclopedia=(
            "{name} played the {value} in an orchestra",
            "the instrument of {name} was the {value}",
        ),
        news=(
            "{name} made music every night on a {value}",
            "{name} gave concerts with an old {value}",
        ),
        question="What did {name} play?",
    ),
    Relation(
        name="kept",
        kind="animal",
        encyclopedia=(
            "{name} kept a tame {value} as a pet",
            "the pet of {name} was a {value}",
        ),
        news=(
            "{name} walked through the streets behind a {value}",
            "{name} fed a hungry {value} by hand",
        ),
        question="What did {name} keep as a pet?",
    ),
    Relation(
        name="ate",
        kind="dish",
        encyclopedia=(
            "{name} liked to eat {value}",
            "the favourite dish of {name} was {value}",
        ),
        news=(
            "{name} ordered {value} for every dinner",
            "{name} never sat at table without {value}",
        ),
        question="What did {name} like to eat?",
    ),
)
