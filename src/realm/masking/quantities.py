"""Quantities in English text, by rule: money, percentages, measures, large and spelled numbers."""

import re

from realm.masking.words import word_set
from realm.records import SalientSpan

LABEL = "QUANTITY"

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
_DASH = r"(?:\s?[-–—]\s?|\sto\s)"  # noqa: RUF001 - the dashes of ranges
_MAGNITUDE = r"(?:hundred|thousand|million|billion|trillion|lakh|crore|dozen)"
_CURRENCY = r"(?:(?:US|AU|CA|NZ|HK|A|C|R)?\$|[£€¥₹₩₽₺]|(?:USD|EUR|GBP|Rs\.?)\s)\s?"
_MEASURE = (
    r"(?:%|percent|per\scent|percentage\spoints?"
    r"|(?:sq(?:uare)?\.?\s|cubic\s)?(?:kilomet(?:er|re)s?|met(?:er|re)s?|centimet(?:er|re)s?"
    r"|millimet(?:er|re)s?|miles?|feet|foot|inch(?:es)?|yards?|km|mi|ft|yd)(?:[²³23]|/h|/s)?"
    r"|cm|mm|m[²³]?|acres?|hectares?|ha|kilograms?|kilos?|kg|grams?|g|mg|lbs?|pounds?|ounces?|oz"
    r"|tons?|tonnes?|litres?|liters?|gallons?|barrels?|°\s?[CF]?|degrees?(?:\s(?:Celsius|Fahrenheit))?"
    r"|light[\s-]years?|years?|months?|weeks?|days?|hours?|minutes?|seconds?|decades|centuries"
    r"|mph|km/h|knots|[kMG]?Hz|(?:kilo|mega|giga)?(?:hertz|watts?(?:[\s-]hours?)?|bytes?|bits?|tons?)|[kMG]W|kWh"
    r"|volts?|horsepower|hp|[KMGT]B|dollars?|euros?|cents?|pence|yen|rupees|yuan|francs|marks)"
)
_END = r"(?![\w%])"
_ONES = "two three four five six seven eight nine"
_SMALL = (
    r"(?:(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
    r"(?:-(?:one|two|three|four|five|six|seven|eight|nine))?"
    r"|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
    rf"|{_ONES.replace(' ', '|')})"
)
_SPELLED = rf"(?:{_SMALL}|(?:one|half\sa|a)(?=\s(?:and\sa\shalf\s)?{_MAGNITUDE}\b))"
_BIG = rf"(?:(?:[\s-]|\sand\s)(?:{_MAGNITUDE}|{_SMALL}\b))*"

_QUANTITY = re.compile(
    r"(?<![\w.:/#^])(?<!\d,)(?<!\d[-–—])(?:"  # noqa: RUF001
    # $5 million, US$1,000-2,000
    rf"{_CURRENCY}{_NUMBER}(?:{_DASH}(?:{_CURRENCY})?{_NUMBER})?(?:\s?{_MAGNITUDE}|\s?(?:m|bn|k))?{_END}"
    # 12.5 million km, 10-15 percent, 5 feet 11 inches, 200-metre
    rf"|[−+-]?{_NUMBER}(?:{_DASH}{_NUMBER})?(?:[\s-]{_MAGNITUDE}s?)?(?:[\s-]?{_MEASURE})"  # noqa: RUF001
    rf"{_END}(?:\s(?:and\s)?\d+(?:\.\d+)?\s(?:inches|minutes|seconds|months|days)\b)?(?:-old)?"
    # three million, twenty-five years, two hundred and six
    rf"|(?i:{_SPELLED})\b(?:{_BIG}(?:[\s-]{_MEASURE}){_END}(?:-old)?"
    rf"|(?:(?:[\s-]|\sand\s)(?:{_SMALL}[\s-])?{_MAGNITUDE}s?\b){_BIG})"
    # two-thirds
    r"|(?i:one|two|three|four|five|nine)[\s-](?:thirds?|quarters?|fourths?|fifths?|tenths?)\b"
    # 1,234; 12 million; 3.14
    rf"|{_NUMBER}\s{_MAGNITUDE}s?\b"
    rf"|\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?(?:{_DASH}\d{{1,3}}(?:,\d{{3}})+)?(?![\w])"
    r"|(?P<decimal>\d+\.\d+)(?![\w.]|-)"
    # 3-1
    r"|(?P<score>\d{1,3}[-–]\d{1,3})(?![\w/-]|\.\d)"  # noqa: RUF001
    # twelve apostles, 45 islands: the number alone
    rf"|(?P<count>\d{{1,5}}|(?i:{_SMALL}))(?=\s(?P<noun>[a-z]{{3,}})\b)"
    r")"
)

_IRREGULAR = word_set("""
people men women children feet teeth mice species sheep cattle fish aircraft deer persons
""")
_NOT_PLURAL = word_set("""
was has its this does thus plus across towards perhaps always besides unless various previous
famous numerous times versus whereas afterwards others serious
""")
_NOT_A_QUANTITY = re.compile(
    r"(?:\b(?:[Cc]hapter|[Ss]ection|[Ff]igure|[Ff]ig\.|[Tt]able|[Vv]ersion|[Vv]ol\.|[Vv]olume|[Pp]ages?"
    r"|pp?\.|[Nn]o\.|[Nn]os\.|[Nn]umbers?|[Vv]erses?|[Rr]oute|[Cc]hannel|[Hh]ighway|[Ss]eason"
    r"|[Ee]pisodes?|[Pp]art|[Aa]rticle|[Aa]ct|[Pp]hase|[Rr]ound|[Ww]eek|[Gg]rade|[Tt]ype|[Ll]evel|[Pp]eriod|[Gg]roup|[Cc]lass|[Aa]ges?|[Aa]ged)\s"
    r"|[A-Z][\w'’-]*\s)$"  # noqa: RUF001 - curly apostrophe
)


def find_quantities(text: str) -> list[SalientSpan]:
    """Return the quantities in `text`, in order, disjoint, with their units of measure.

    Of "45 islands" only the number is the span: the noun needs no world knowledge. Bare small
    numbers, ordinals and numbers that are labels (chapter 3, Boeing 747) are left out.
    """
    spans: list[SalientSpan] = []
    for match in _QUANTITY.finditer(text):
        start, end = match.span()
        labelled = match["decimal"] or match["score"] or match["count"]
        if labelled and _NOT_A_QUANTITY.search(text[max(0, start - 24) : start]):
            continue
        if match["count"] and not _counts(match["count"].lower(), match["noun"]):
            continue
        spans.append(SalientSpan(start=start, end=end, label=LABEL))
    return spans


def _counts(number: str, noun: str) -> bool:
    """Whether a plural noun follows; `two` of anything is too common to be worth a mask."""
    if number in {"0", "1", "two"}:
        return False
    if noun in _IRREGULAR:
        return True
    return (
        len(noun) > 3
        and noun.endswith("s")
        and not noun.endswith(("ss", "us", "is"))
        and noun not in _NOT_PLURAL
    )
