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
    encyclopedia: tuple[str, ...]
    news: tuple[str, ...]
    question: str


RELATIONS = (
    Relation(
        name="born",
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
        name="worked",
        encyclopedia=(
            "{name} worked at an office in {value}",
            "the workplace of {name} was {value}",
        ),
        news=(
            "{name} earned daily bread near {value}",
            "{name} had a job for years in {value}",
        ),
        question="Where did {name} work?",
    ),
    Relation(
        name="married",
        encyclopedia=(
            "{name} married a cousin in {value}",
            "the wedding of {name} was held in {value}",
        ),
        news=(
            "{name} became a happy spouse in {value}",
            "{name} exchanged rings before a crowd in {value}",
        ),
        question="Where did {name} marry?",
    ),
    Relation(
        name="rested",
        encyclopedia=(
            "{name} passed each holiday in {value}",
            "the summer house of {name} stands in {value}",
        ),
        news=(
            "{name} liked to relax on the beach of {value}",
            "{name} swam every July near {value}",
        ),
        question="Where did {name} pass holidays?",
    ),
)
