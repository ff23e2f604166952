"""Dates in English text, by rule: days, months, years, ranges, decades, centuries, eras.

The paper (section 3.4) used "a regular expression to identify dates" and did not publish it.
"""

import re

from realm.records import SalientSpan

LABEL = "DATE"

_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?)"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?![\d:%°]|[.,]\d)"
_DASH = r"(?:\s?(?:--|[-–—/])\s?)"  # noqa: RUF001 - the dashes of ranges
_ERA = r"(?:B\.\s?C\.\s?E\.|B\.\s?C\.|A\.\s?D\.|C\.\s?E\.|(?:BCE|BC|AD|CE)\b)"
_PLAIN_YEAR = r"(?:1\d{3}|20\d\d)(?![\d%]|[.,]\d)"
_ERA_YEAR = rf"(?:(?:AD|A\.\s?D\.)\s\d{{1,4}}(?!\d)|\d{{1,4}}\s?{_ERA})"
_YEAR = rf"(?:{_ERA_YEAR}|{_PLAIN_YEAR})"
_DAYS = rf"{_DAY}(?:(?:{_DASH}|\sto\s){_DAY})?"
_UNITS = "first second third fourth fifth sixth seventh eighth ninth"
_ORDINAL = (
    r"(?:\d{1,2}(?:st|nd|rd|th)|(?:[Tt]wenty-)?(?:"
    + "|".join(f"[{word[0].upper()}{word[0]}]{word[1:]}" for word in _UNITS.split())
    + r")|[Tt]enth|[Ee]leventh|[Tt]welfth|[Tt]hirteenth|[Ff]ourteenth|[Ff]ifteenth|[Ss]ixteenth"
    r"|[Ss]eventeenth|[Ee]ighteenth|[Nn]ineteenth|[Tt]wentieth"
    r"|(?=[XVI])X{0,2}(?:IX|IV|V?I{0,3}))"
)
_DECADE = r"(?:[12]\d\d0['’]?s|['’]\d0s|(?<=the )\d0s)"  # noqa: RUF001 - curly apostrophe
_TENS = r"(?:[Tt]wen|[Tt]hir|[Ff]or|[Ff]if|[Ss]ix|[Ss]even|[Ee]igh|[Nn]ine)ties"

_DATE = re.compile(
    r"(?<![\w$€£¥#.,:+])(?<!\d[-–—/])(?=[\d'’A-Za-z])(?:"  # noqa: RUF001
    # 1990-03-12, 12/03/1990, 12.3.1990
    r"(?:\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
    r"|\d{4}/(?:0[1-9]|1[0-2])/(?:0[1-9]|[12]\d|3[01])"
    r"|\d{1,2}/\d{1,2}/(?:\d{4}|\d\d)|\d{1,2}\.\d{1,2}\.\d{4})(?![\d/-])"
    # 12 March 1990, 12th of March, 28 February - 3 March 1990
    rf"|{_DAYS}(?:\sof)?\s{_MONTH}(?:(?:\s?,\s|\s){_YEAR})?"
    rf"(?:{_DASH}{_DAY}\s{_MONTH}(?:(?:\s?,\s|\s){_YEAR})?)?(?!\w)"
    # March 12, 1990, March 12-15, February 28 - March 3, 1990
    rf"|{_MONTH}\s{_DAYS}(?:{_DASH}{_MONTH}\s{_DAY})?(?:(?:\s?,\s?|\s){_YEAR})?(?!\w)"
    # March 1990, March of 1990, March-May 1990
    rf"|{_MONTH}(?:(?:,|\sof)?\s{_YEAR})?(?:{_DASH}{_MONTH})?(?:,|\sof)?\s{_YEAR}(?!\w)"
    # summer of 1969, winter 1812-13
    rf"|(?:[Ss]pring|[Ss]ummer|[Aa]utumn|[Ff]all|[Ww]inter)(?:\sof)?\s{_PLAIN_YEAR}"
    rf"(?:{_DASH}\d\d(?!\d))?(?!\w)"
    # 19th century, fifth and fourth centuries BC, 2nd millennium BCE
    rf"|{_ORDINAL}(?:(?:{_DASH}|\s(?:and|or|to|through)\s(?:the\s)?){_ORDINAL})?"
    rf"[\s-](?:century|centuries|millennium|millennia|Century\b(?!\s[A-Z]))\b(?:\s{_ERA})?"
    # 1990s, '90s, 1920s-1930s, the sixties
    rf"|{_DECADE}(?:{_DASH}(?:{_DECADE}|\d0s))?(?!\w)|(?:(?<=the\s)|(?<=ties\sand\s)){_TENS}\b"
    # 300-250 BC, 10,000 BC, AD 79
    rf"|(?:(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,5}})(?:\s?{_ERA})?{_DASH})?"
    rf"(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,5}})\s?{_ERA}(?!\w)"
    rf"|(?:AD|A\.\s?D\.|CE)\s\d{{1,4}}(?:{_DASH}\d{{1,4}})?(?![\w%]|[.,]\d)"
    # reigns and lives in brackets, 982-1040; in 987 the king
    rf"|(?<=\()\d{{3}}{_DASH}\d{{3,4}}(?=\))|(?<=\sc\.\s)\d{{3}}{_DASH}\d{{3,4}}(?![\w%/-]|[.,]\d)"
    rf"|(?<=\(r\.\s)\d{{1,4}}{_DASH}\d{{1,4}}(?=\))"
    r"|(?<=[Ii]n\s)[1-9]\d\d(?=[,.;)](?!\d)|\s(?:the|he|she|when|by|and|after|with|a|an|his|her)\b)"
    rf"|(?P<first>1\d{{3}}|20\d\d){_DASH}(?P<last>1\d{{3}}|20\d\d|\d\d)(?![\w%/-]|[.,]\d)"
    # a bare year; a month on its own
    rf"|(?P<year>{_PLAIN_YEAR})(?!\w)|(?P<month>{_MONTH})(?!\w)"
    r")"
)

_UNIT_AFTER = re.compile(
    r"[-\s](?:%|percent|per\scent|km|kilomet|met(?:er|re)|m\b|cm|mm|miles?\b|f(?:ee|oo)t|inch|acres?"
    r"|hectares?|ha\b|sq|square|kg|g\b|grams?|kilograms?|lbs?\b|pounds?|tons?\b|tonnes?|lit(?:er|re)"
    r"|gallons?|°|degrees?|hours?|minutes?|seconds?|days?|weeks?|months?|years?|hp\b|horsepower"
    r"|[kMGT]?W\b|[kMG]?Hz|[KMGT]B\b|watts?|volts?|dollars?|euros?|pounds|yen|rupees|million|billion"
    r"|men\b|women\b|people\b|children\b|inhabitants|residents|persons|soldiers|troops|students"
    r"|copies|times|points|votes|species|[ap]\.?m\b|\d{3}[\s-]\d{4}\b)"
)
_PLURAL_AFTER = re.compile(r"\s(?!(?:was|is|has|as|its|this|does|us|vs|plus|thus)\b)[a-z]{3,}s\b")
_DATE_BEFORE = re.compile(
    r"(?:\b(?:[Ii]n|[Ss]ince|[Uu]ntil|[Tt]ill|[Bb]y|[Ff]rom|[Dd]uring|[Bb]efore|[Aa]fter|[Yy]ear"
    r"|[Cc]irca|[Ee]arly|[Ll]ate|[Mm]id|[Bb]etween)\s|\()$"
)
_COUNT_BEFORE = re.compile(
    r"\b(?:about|around|some|over|nearly|almost|approximately|roughly|than|least|most|exactly|only"
    r"|up\sto|are|were|had|has|have|with|contains?|by|total)\s$"
)
_NUMBER_BEFORE = re.compile(
    r"\b(?:[Nn]o\.|[Nn]umber(?:\sis)?|[Pp]ages?|[Pp]p?\.|[Mm]odel|[Rr]oute|Highway|Interstate"
    r"|[Ff]light(?:\snumber\sis)?|[Rr]oom|[Ss]uite|[Pp]latform|[Cc]hannel|[Aa]steroid|Psalm|Op\.|BWV"
    r"|(?:total|number|crowd|audience|population|army|force|fleet|garrison|group|capacity|average"
    r"|maximum|minimum)\sof)\s$"
)
_MONTH_BEFORE = re.compile(
    r"\b(?:of|[Ff]rom|to|[Ee]arly|[Ll]ate|[Mm]id|[Ll]ast|[Nn]ext|this|[Ee]very|[Ee]ach|[Bb]efore"
    r"|[Aa]fter|[Bb]etween|and|the|through)[\s-]$"
)
_IN_BEFORE = re.compile(r"\b(?:[Ii]n|[Dd]uring|[Ss]ince|[Uu]ntil|[Tt]ill|[Bb]y)\s$")
_NAME_AFTER = re.compile(r"['’]?\s?[A-Z]|-")  # noqa: RUF001 - curly apostrophe


def find_dates(text: str) -> list[SalientSpan]:
    """Return the dates in `text`, in order, disjoint; articles and `early`, `late` left out.

    Bare years are 1000 to 2099, unless the words around make them a number of something.
    """
    spans: list[SalientSpan] = []
    for match in _DATE.finditer(text):
        start, end = match.span()
        if match["year"] and not _is_year(text, start, end):
            continue
        if match["month"] and not _is_month(text, start, end):
            continue
        if match["first"] and not _is_range(match["first"], match["last"]):
            end = start + 4
        spans.append(SalientSpan(start=start, end=end, label=LABEL))
    return spans


def _is_year(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - 20) : start]
    if _NUMBER_BEFORE.search(before):
        return False
    if _UNIT_AFTER.match(text, end):
        return bool(_DATE_BEFORE.search(before)) and not text.startswith("-", end)
    if not _PLURAL_AFTER.match(text, end):
        return True
    if 1700 <= int(text[start:end]) < 2030:
        return not _COUNT_BEFORE.search(before)
    return False


def _is_month(text: str, start: int, end: int) -> bool:
    """A month on its own: "in March", not "May" (a name, or may) nor "March" of a "March on"."""
    before = text[max(0, start - 16) : start]
    if _IN_BEFORE.search(before):
        return not text.startswith(("'", "’", "-"), end)  # noqa: RUF001
    return bool(_MONTH_BEFORE.search(before)) and not _NAME_AFTER.match(text, end)


def _is_range(first: str, last: str) -> bool:
    return int(first[: 4 - len(last)] + last) > int(first) or (len(last) == 2 and last == "00")
