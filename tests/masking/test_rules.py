"""The built-in tagger on whole sentences, marked as [names], <dates>, {quantities}."""

from collections.abc import Callable
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm.masking.rules import RuleTagger, tag_text
from realm.records import Passage, SalientSpan, Skipped

MARKS = {"NAME": "[]", "DATE": "<>", "QUANTITY": "{}"}
MARKED = [
    # people
    "[Marie Curie] moved to [Paris] in <1891>.",
    "[J. R. R. Tolkien] was born in [Bloemfontein].",
    "[George W. Bush] followed [Bill Clinton].",
    "[T.S. Eliot] and [J.K. Rowling] never met.",
    "The poet [Charles de Gaulle] was not; [Ludwig van Beethoven] wrote music.",
    "The portrait by [van Gogh] hangs beside one by [da Vinci].",
    "They say [Osama bin Laden] led [al-Qaeda].",
    "[Louis XIV] and [Elizabeth II] reigned longest, before [Conrad I].",
    "[Martin Luther King, Jr.] spoke in [Washington].",
    "Dr. [Smith] met Mrs. [Jones] and President [Kennedy].",
    "Former President [Barack Obama] met Prime Minister [Angela Merkel].",
    "The [U.S.] President [Woodrow Wilson] agreed with [French] Premier [Georges Clemenceau].",
    "He wrote to Queen [Victoria] and to Pope [Pius XII].",
    "The king and the President met the Prime Minister.",
    "[Mary O'Brien] married [Jean-Paul Sartre] in <May>.",
    "[Catherine the Great] ruled [Russia], [Joan of Arc] fought for [France].",
    "[Émile Zola] read [Ödön von Horváth] and [Bjørn Ångström].",
    "Later [Theresa May] resigned.",
    "Then [McDonald] and [MacArthur] left.",
    # places
    "The [University of California] lies in the [United States].",
    "[New York City] and [St. Louis] are far from [Rio de Janeiro].",
    "They crossed the [Gulf of Mexico] to [Puerto Rico].",
    "[Bosnia and Herzegovina] borders [Croatia].",
    "[France] and [Germany] signed the [Treaty of Versailles].",
    "The [Palace of Versailles] and [St. Peter's Basilica] are large.",
    "They settled on [Prince Edward Island] near [Queen Street].",
    "King [Harald] of [Norway] sailed to [Stratford-upon-Avon].",
    "The [London]-based firm left [Nagorno-Karabakh].",
    "She came from the [People's Republic of China] and the [Isle of Man].",
    "The [Mexican–American War] ended in <1848>.",  # noqa: RUF001
    "[King William's War] came before [World War I] and the [Second World War].",
    # organisations
    "[NASA] and the [European Space Agency] built it.",
    "[AT&T] sued [eBay] and [Johnson & Johnson].",
    "The [Council on Foreign Relations] met the [Food and Drug Administration].",
    "The [Department of Health and Human Services] hired him.",
    "He joined the [Writers' Guild of America] and [Apple Inc.] in <1999>.",
    "She read [The Guardian] and the [New York Times].",
    "The party [Die Linke] lost to the [Greens].",
    "The [US] and the [UK] left the [EU].",
    "The [Social Democratic Party of Germany] won {45 percent}.",
    "[Vote.org] and [Amazon.com] are sites.",
    # works and things
    'Their album "[The Dark Side of the Moon]" sold {45 million} copies.',
    'She wrote "[To Kill a Mockingbird]," which he read.',
    'He said "this is not the end" and left.',
    "The [Boeing 747] followed the [Apollo 11] mission.",
    "He used an [iPhone] and a [Mac].",
    "His [Ninth Symphony] and the [Nobel Prize] are known.",
    "The [Good Friday Agreement] followed.",
    "[Newton]'s laws and [Einstein]’s theory agree.",  # noqa: RUF001
    "Many [Italian] and [Anglo-Saxon] words are pro-[European].",
    # the start of a sentence
    "Dogs are animals that live with people.",
    "Photosynthesis happens in plants.",
    "[Warsaw] is far away.",
    "However, nobody knew. Although it rained, they came.",
    "In [Berlin], the [Reichstag] burned.",
    "Actor [Tom Hanks] played him.",
    "Black holes are dark, but the [Black Sea] is not.",
    "[Black Sea] ports froze.",
    "When [Rome] fell, many [Romans] fled.",
    "Surprisingly, industrialization was slow.",
    "He asked: Why is it so? Nobody answered.",
    "I think that I saw [Anna].",
    "Citizens of [France] and members of [Parliament] met the King of [Norway].",
    # more of the same, each for one rule
    "He reads the [Sunday Times] and met [April Smith] on Friday.",
    "The [London]-based [Bank of England] and [John Smith] of [Boston] agreed.",
    "They saw [Rio] de facto.",
    "The [School] of President [Wilson] burnt.",
    "[Sunday Times] readers and [de Gaulle] agree.",
    "[de Gaulle] agreed.",
    "[Detroit] (dᵻˈtrɔɪt) rhymes with aɪˌætrə and with ɪ.ə in [IPA].",  # noqa: RUF001
    "She ate at [Rio] de la van der.",
    'The planets "[Mars], [Venus], [Saturn], [Pluto]" move.',
    "They say entry is FREE in [Oslo].",
    "See 295 [U.S.] 495 for more, and [Boeing 747].",
    "He asked if I will go; in [Rome] I would stay.",
    "The [Fantastic Four] met the [Gang of Four] at [Holy See].",
    "[Malcolm] and [Malcolm X] are unlike XIV and B.",
    "[Jacques d'Arc] and [Ibn al-Haytham] wrote in mid-<March>.",
    "The [Democrat] [Jimmy Carter] beat the [Republican] [Gerald Ford].",
    "Sir [Arthur Conan Doyle] wrote.",
    "The [Ministry of Defence] and the [House of Lords] met in [St. John]'s rooms.",
    "Part II follows Part I.",
    "She sang [Smells Like Teen Spirit] and [Gone With The Wind].",
    # numbers and dates among names
    "On <12 March 1990> about {12,500} people saw [Pelé] in [Rio].",
    "[London] won {3–1} against [Leeds] in <2004–05>.",  # noqa: RUF001
    "The <1984> [Summer Olympics] cost {$546 million}.",
    "On Monday it rained in [Monaco].",
    "The company's TV ads ran on a PC at 8 PM.",
    "THE WHOLE SENTENCE IS WRITTEN IN CAPITALS HERE.",
]


def unmark(marked: str) -> str:
    return "".join(c for c in marked if c not in "[]<>{}")


def mark(text: str, spans: list[SalientSpan]) -> str:
    for span in reversed(spans):
        left, right = MARKS[span.label]
        text = f"{text[: span.start]}{left}{text[span.start : span.end]}{right}{text[span.end :]}"
    return text


@pytest.mark.parametrize("marked", MARKED)
def test_names_dates_and_quantities_are_tagged(marked: str) -> None:
    text = unmark(marked)
    assert mark(text, tag_text(text)) == marked


def names(text: str, *, title: str = "", sentence_starts: tuple[int, ...] = (0,)) -> list[str]:
    spans = tag_text(text, title=title, sentence_starts=sentence_starts)
    return [text[span.start : span.end] for span in spans]


def test_a_common_word_at_a_start_counts_if_the_passage_writes_it_with_a_capital_elsewhere() -> (
    None
):
    first, second = "Apple makes telephones.", "Most people know Apple today."
    assert names(first) == []
    text = f"{first} {second}"
    assert names(text, sentence_starts=(0, len(first) + 1)) == ["Apple", "Apple"]


def test_a_common_word_at_a_start_counts_if_the_title_writes_it_with_a_capital_inside() -> None:
    text = "Fantasy is its first word."
    assert names(text, title="Final Fantasy VIII") == ["Fantasy"]
    assert names(text, title="Fantasy") == []


def test_a_pair_at_a_start_counts_if_the_title_has_it() -> None:
    text = "Final Fantasy is a game."
    assert names(text, title="Final Fantasy VIII") == ["Final Fantasy"]


def test_a_common_noun_that_the_passage_also_writes_in_lower_case_is_no_name() -> None:
    assert names("They joined the Company because the company paid.") == []
    assert names("They joined the Company because he paid.") == ["Company"]


def test_names_do_not_go_across_sentences_or_lines() -> None:
    text = "He saw Rome\nParis came later."
    assert names(text) == ["Rome", "Paris"]
    text = "They went to New York Yankees won."
    assert names(text, sentence_starts=(0, text.index("Yankees"))) == ["New York", "Yankees"]


def test_the_tagger_yields_one_list_for_each_passage(
    make_passage: Callable[..., Passage],
) -> None:
    passages = [make_passage("He saw Rome."), make_passage("Nothing here."), make_passage()]
    skipped = Skipped()
    tagged = list(RuleTagger().tag(passages, skipped))
    assert [[span.label for span in spans] for spans in tagged] == [["NAME"], [], []]
    assert skipped.total == 0


def test_the_fingerprint_of_the_rules_is_stable() -> None:
    assert RuleTagger().fingerprint == RuleTagger().fingerprint
    assert RuleTagger().name == "rules"


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("aB .,'’-–\"&1980éÉ世\ńX"), max_size=60))  # noqa: RUF001
def test_spans_are_sorted_disjoint_and_inside_any_text(text: str) -> None:
    spans = tag_text(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(left.end <= right.start for left, right in pairwise(spans))


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_unicode_text_can_be_tagged(text: str) -> None:
    assert all(text[span.start : span.end].strip() for span in tag_text(text))


@pytest.mark.parametrize(
    "pattern",
    ["Food and ", "Ab of ", "A", "1,", '"A ', "May - ", "three hundred ", "A-b", "one and ", "12-"],
)
def test_a_long_strange_text_is_tagged_without_exploding(pattern: str) -> None:
    started = process_time()
    tag_text(pattern * 2_000)
    assert process_time() - started < 30  # quadratic: minutes
