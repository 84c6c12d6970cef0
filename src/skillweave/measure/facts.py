"""Facts that a language model may know, as ranked choices; the facts are those of installed packages (CLDR, ISO 3166, tz).

Six kinds: the country of a city; the language, currency and continent of a country; a number's name in German and in Spanish.
The right answer is drawn first, each of a kind's answers as often as any other, then a subject that has it, then the other
choices from the same answers: who ranks the choices without a look at the subject is right as often as chance says.
Left out are subjects with more than one answer, and answers that begin like a word of the prompt (Germany, German): to choose
those is spelling and not knowledge.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from .choice import Choice

CHOICES = 8
"""Choices of an item, or all the answers of its kind when there are fewer."""
CONTINENTS = ("Africa", "America", "Asia", "Europe")
"""First parts of the names of time zones; all other zones are at sea."""


def facts(n: int, seed: int) -> list[Choice]:
    """`n` facts, about as many of each kind."""
    return [_item(list(KINDS)[i % len(KINDS)], i // len(KINDS), seed) for i in range(n)]


def _item(kind: str, i: int, seed: int) -> Choice:
    pool = _pool(kind)
    answers = list(pool)
    draw = random.Random(f"facts/{seed}/{kind}/{i // len(answers)}")  # one order of all answers, then another
    answer = draw.sample(answers, len(answers))[i % len(answers)]
    draw = random.Random(f"facts/{seed}/{kind}/{i}/item")
    others = [other for other in answers if not (other.startswith(answer) or answer.startswith(other))]  # acht, achtzehn
    choices = [answer, *draw.sample(others, min(CHOICES - 1, len(others)))]
    draw.shuffle(choices)
    return Choice(KINDS[kind][0].format(draw.choice(pool[answer])), tuple(choices), choices.index(answer), kind)


@cache
def _pool(kind: str) -> dict[str, list[str]]:
    """The subjects of each answer of `kind`, in the order of the alphabet."""
    template, source = KINDS[kind]
    answers = defaultdict(set)
    for subject, answer in source():
        answers[subject].add(answer)
    pool = defaultdict(list)
    for subject in sorted(answers):
        if len(answers[subject]) == 1 and not _alike(template.format(subject), *answers[subject]):
            pool[min(answers[subject])].append(subject)
    return dict(sorted(pool.items()))


def _alike(prompt: str, answer: str) -> bool:
    """Whether a word of the answer begins like a word of the prompt."""
    starts = {word[:3].casefold() for word in prompt.split()}
    return any(word[:3].casefold() in starts for word in answer.split())


@cache
def _countries() -> dict[str, str]:
    import pycountry
    from babel import Locale

    english = Locale("en").territories
    return {country.alpha_2: english[country.alpha_2] for country in pycountry.countries}


def _zones() -> Iterator[tuple[str, str, str]]:
    """Continent, city and country of every time zone of a country."""
    from babel.core import get_global

    for zone, code in get_global("zone_territories").items():
        continent, _, city = zone.partition("/")
        if code in _countries() and continent in CONTINENTS and "/" not in city:
            yield continent, city.replace("_", " "), _countries()[code]


def _cities() -> Iterator[tuple[str, str]]:
    return ((city, country) for _, city, country in _zones())


def _continents() -> Iterator[tuple[str, str]]:
    return ((country, continent) for continent, _, country in _zones())


def _languages() -> Iterator[tuple[str, str]]:
    from babel import Locale
    from babel.languages import get_official_languages

    english = Locale("en").languages
    for code, country in _countries().items():
        for language in get_official_languages(code, de_facto=True):
            yield country, english.get(language.partition("_")[0], language)


def _currencies() -> Iterator[tuple[str, str]]:
    from babel import Locale
    from babel.numbers import get_territory_currencies

    english = Locale("en").currencies
    for code, country in _countries().items():
        for currency in get_territory_currencies(code):
            yield country, english[currency].split()[-1].casefold()  # "Danish Krone": the first word would give it away


def _numbers(language: str) -> Iterator[tuple[str, str]]:
    from num2words import num2words

    return ((num2words(n), num2words(n, lang=language)) for n in (*range(2, 21), *range(30, 100, 10)))


KINDS = {
    "city": ("{} is a city in", _cities),
    "language": ("The official language of {} is", _languages),
    "currency": ("The currency of {} is the", _currencies),
    "continent": ("{} is a country in", _continents),
    "German": ("The German word for the number {} is", lambda: _numbers("de")),
    "Spanish": ("The Spanish word for the number {} is", lambda: _numbers("es")),
}
"""Kind of fact: its prompt, and the (subject, answer) pairs."""
