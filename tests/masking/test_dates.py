"""Dates in English text: every common form, and numbers that are none."""

from collections.abc import Callable
from typing import Any

import pytest

from realm.masking.dates import find_dates

CASES = [
    # days
    ("She was born on 12 March 1990 in Bonn.", ["12 March 1990"]),
    ("It opened on March 12, 1990, to applause.", ["March 12, 1990"]),
    ("It opened on March 12 1990.", ["March 12 1990"]),
    ("The treaty of 4 July, 1776 held.", ["4 July, 1776"]),
    ("On the 4th of July they rest.", ["4th of July"]),
    ("On July 4th, 1776, they signed.", ["July 4th, 1776"]),
    ("They met on 3 May.", ["3 May"]),
    ("They met on May 3.", ["May 3"]),
    ("He left on Aug. 3, 1492 with three ships.", ["Aug. 3, 1492"]),
    ("The log says 5 Sept 1911.", ["5 Sept 1911"]),
    ("On Monday, 12 March 1990, it rained.", ["12 March 1990"]),
    ("The storm of 12–15 March 1990 passed.", ["12–15 March 1990"]),  # noqa: RUF001
    ("The fair (June 3-9, 2001) was wet.", ["June 3-9, 2001"]),
    ("Open 28 February – 3 March 1990 only.", ["28 February – 3 March 1990"]),  # noqa: RUF001
    ("From June 28 - July 2, 1988 they sailed.", ["June 28 - July 2, 1988"]),
    ("The night of 4/5 August 1944 was clear.", ["4/5 August 1944"]),
    ("Caesar died on 15 March 44 BC.", ["15 March 44 BC"]),
    ("Filed 1990-03-12 by hand.", ["1990-03-12"]),
    ("Filed 1990/03/12 by hand.", ["1990/03/12"]),
    ("Filed 12/03/1990 by hand.", ["12/03/1990"]),
    ("Filed 12.3.1990 by hand.", ["12.3.1990"]),
    # months
    ("In March 1990 it closed.", ["March 1990"]),
    ("In March of 1990 it closed.", ["March of 1990"]),
    ("In October, 1917 it began.", ["October, 1917"]),
    ("It ran March–May 1990 daily.", ["March–May 1990"]),  # noqa: RUF001
    ("It ran March 1990 – May 1991.", ["March 1990 – May 1991"]),  # noqa: RUF001
    ("The rains come in April and stay.", ["April"]),
    ("The lake freezes from November to March.", ["November", "March"]),
    ("In May the cherries ripen.", ["May"]),
    ("In April Smith resigned.", ["April"]),
    # seasons
    ("In the summer of 1969 they met.", ["summer of 1969"]),
    ("The winter 1812–13 was hard.", ["winter 1812–13"]),  # noqa: RUF001
    # years
    ("It was founded in 1852.", ["1852"]),
    ("The 1984 Summer Olympics came.", ["1984"]),
    ("The film (2004) did well.", ["2004"]),
    ("Both 1066 and 1215 matter.", ["1066", "1215"]),
    ("In 1990 people danced.", ["1990"]),
    ("The 1957 elections were close.", ["1957"]),
    ("A 1950s-style diner and a 1970 car.", ["1950s", "1970"]),
    ("In 987, Hugh was crowned.", ["987"]),
    ("King Otto (912–973) ruled.", ["912–973"]),  # noqa: RUF001
    ("Louis (r. 814–840) followed.", ["814–840"]),  # noqa: RUF001
    # ranges
    ("The war of 1914-1918 ended.", ["1914-1918"]),
    ("The war of 1914–18 ended.", ["1914–18"]),  # noqa: RUF001
    ("The 1999-2000 season began.", ["1999-2000"]),
    ("The 2004/05 season began.", ["2004/05"]),
    ("It lasted 1861 – 1865.", ["1861 – 1865"]),  # noqa: RUF001
    ("Mayor (2010–present) of the town.", ["2010"]),  # noqa: RUF001
    ("He walked 1999-95 out.", ["1999"]),
    # decades
    ("Jazz of the 1920s and 1930s.", ["1920s", "1930s"]),
    ("Jazz of the 1920s–1930s.", ["1920s–1930s"]),  # noqa: RUF001
    ("The 1990's were loud.", ["1990's"]),
    ("Music of the '90s returned.", ["'90s"]),
    ("It fell out of use in the 80s.", ["80s"]),
    ("It began in the mid-1970s.", ["1970s"]),
    ("Protest marked the sixties.", ["sixties"]),
    # centuries
    ("In the 19th century trade grew.", ["19th century"]),
    ("A 17th-century house burnt.", ["17th-century"]),
    ("The nineteenth century ended.", ["nineteenth century"]),
    ("The twenty-first century began.", ["twenty-first century"]),
    ("In the 5th and 6th centuries they moved.", ["5th and 6th centuries"]),
    ("In the fifth century BC they wrote.", ["fifth century BC"]),
    ("During the 2nd millennium BCE they came.", ["2nd millennium BCE"]),
    # eras
    ("Founded about 300 BC by Greeks.", ["300 BC"]),
    ("Caesar fell in 44 B.C. in Rome.", ["44 B.C."]),
    ("Built in 300–250 BC of stone.", ["300–250 BC"]),  # noqa: RUF001
    ("Built 29 BC – 19 BC of stone.", ["29 BC – 19 BC"]),  # noqa: RUF001
    ("Camps of 10,000 BC were found.", ["10,000 BC"]),
    ("In AD 79 the mountain burst.", ["AD 79"]),
    ("In 79 AD the mountain burst.", ["79 AD"]),
    ("By 800 CE it was empty.", ["800 CE"]),
    ("About 1300 books were copied.", []),
    ("In 1300 books were rare.", []),
    ("The 1300 books burnt.", []),
    # not dates
    ("It may rain, and they march on.", []),
    ("Theresa May said so.", []),
    ("March on, said the captain.", []),
    ("It cost $1990 then.", []),
    ("It has 1,990 seats.", []),
    ("It is 1500 m long.", []),
    ("A 1500-metre race was held.", []),
    ("About 1200 soldiers fell.", []),
    ("It holds about 1957 books.", []),
    ("Only 1990 people came.", []),
    ("The number 12345 and 0.1984 stay.", []),
    ("He lives at No. 1984 there.", []),
    ("She was in her 30s.", []),
    ("It began at 10:30 and ended 11:45.", []),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[text for text, _ in CASES])
def test_dates_of_every_common_form_are_found_and_nothing_else(
    text: str, expected: list[str]
) -> None:
    assert [text[span.start : span.end] for span in find_dates(text)] == expected


def test_a_date_is_labelled_as_one() -> None:
    assert find_dates("in 1990")[0].label == "DATE"


def test_f1_on_two_hundred_sentences_is_at_least_95(
    read_bracketed: Callable[[str], list[Any]],
) -> None:
    """Exact spans; the sentences were written before the rules were made to fit any of them."""
    sentences = read_bracketed("dates.txt")
    assert len(sentences) >= 200
    counts = [s.found([(d.start, d.end) for d in find_dates(s.text)]) for s in sentences]
    right, found, wanted = (sum(column) for column in zip(*counts, strict=True))
    assert 200 * right / (found + wanted) >= 95


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It met from 1 to 22 July 1944.", ["1 to 22 July 1944"]),
        ("Between March and May it rains.", ["March", "May"]),
        ("A tower of the XIX century stands.", ["XIX century"]),
        ("The 20th Century was long.", ["20th Century"]),
        ("She joined 20th Century Fox.", []),
        ("Loved in the thirties and forties.", ["thirties", "forties"]),
        ("Claudius (r. 41–54) built it.", ["41–54"]),  # noqa: RUF001
        ("He wrote c. 771–785, in haste.", ["771–785"]),  # noqa: RUF001
        ("Born February 6 , 1986 in Ohio .", ["February 6 , 1986"]),
        ("Held from 6 -- 14 July .", ["6 -- 14 July"]),
        ("A crowd of 2000 cheered.", []),
        ("A law of 1789 limits it.", ["1789"]),
        ("Flight 1549 landed in Room 1408.", []),
        ("Call 1800 555 0199 now.", []),
    ],
)
def test_dates_that_the_two_hundred_sentences_brought_up(text: str, expected: list[str]) -> None:
    assert [text[span.start : span.end] for span in find_dates(text)] == expected
