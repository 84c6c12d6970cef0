"""Messy text to clean records: dates, numbers and countries in several languages, and invoices that mention all three.

Nothing is downloaded: the text comes from Babel (CLDR's date patterns), num2words and pycountry (ISO 3166, translated).
What belongs to which split is decided by a hash of the calendar date, the value or the name, so it is the same for every seed.
"""

import gettext
from datetime import date, timedelta
from functools import cache
from importlib import import_module
from types import ModuleType

from ..errors import MissingExtra
from ..task import Example, Task, share, split_of

LOCALES = ("en_US", "en_GB", "de", "fr", "es", "it", "pt_BR", "nl")
FORMS = ("medium", "long", "full")
FIRST_DAY, LAST_DAY = date(1990, 1, 1), date(2039, 12, 31)
NUMBER_LANGUAGES = ("en", "es", "fr")
LARGEST = 999
COUNTRY_LANGUAGES = ("en", "de", "fr")

SEEN_PHRASINGS = (
    "On {date} we billed a client in {country} {amount}.",
    "Invoice of {date}: {amount}, sent to {country}.",
    "Please bill our customer in {country} for {amount}, due on {date}.",
    "A buyer from {country} owes us {amount} since {date}.",
    "We received {amount} from {country} on {date}.",
    "{country}, {date}: total due {amount}.",
)
UNSEEN_PHRASINGS = (
    "Our partner in {country} was charged {amount} on {date}.",
    "The order shipped to {country} costs {amount}, payable by {date}.",
    "By {date}, the office in {country} should transfer {amount}.",
    "It was {date} when {amount} arrived from {country}.",
    "Payment reminder for {country}: {amount} outstanding as of {date}.",
    "Amount: {amount}. Place: {country}. Date: {date}.",
)
CURRENCIES = ("euros", "dollars", "pounds", "francs", "pesos", "kronor", "rupees", "dirhams")


class Date(Task):
    """Dates of 1990-2039 in Babel's medium, long and full forms of eight locales, to ISO 8601; split by calendar date."""

    name = "date"
    description = "dates written out in eight locales -> ISO 8601"
    template = "date: {input}\n"

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        random = self.generator(i, split)
        day, locale, form = random.choice(_days(split)), random.choice(LOCALES), random.choice(FORMS)
        return Example(self.prompt(date_text(day, locale, form)), day.isoformat(), {"locale": locale, "form": form})

    def content(self, example: Example) -> frozenset[str]:
        return frozenset({f"date {example.completion}"})


class Number(Task):
    """The numbers 1-999 in words of three languages, to digits; split by value."""

    name = "number"
    description = "numbers in words of three languages -> digits"
    template = "number: {input}\n"

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        random = self.generator(i, split)
        value, language = random.choice(_values(split)), random.choice(NUMBER_LANGUAGES)
        return Example(self.prompt(number_text(value, language)), str(value), {"language": language})

    def content(self, example: Example) -> frozenset[str]:
        return frozenset({f"amount {example.completion}"})


class Country(Task):
    """Country names in three languages, to ISO 3166 codes; each name once, in an order of the seed; split by the name."""

    name = "country"
    description = "country names in three languages -> ISO 3166 alpha-2 code"
    template = "country: {input}\n"

    def __init__(self, seed: int = 0):
        super().__init__(seed)
        self._order: dict[str, list[tuple[str, str, str]]] = {}

    def size(self, split: str) -> int:
        self.check_split(split)
        return len(_names(split))

    def example(self, i: int, split: str) -> Example:
        at = self.place(i, split)
        if split not in self._order:
            self._order[split] = self.generator(0, split).sample(_names(split), len(_names(split)))
        text, code, language = self._order[split][at]
        return Example(self.prompt(text), code, {"language": language})

    def content(self, example: Example) -> frozenset[str]:
        return frozenset({_key(example.prompt)})


class Invoice(Task):
    """A sentence with a country, a date and an amount in words, to the record `CI | 2021-05-03 | 205`.

    The sentence, the country and the amount are in English, the date is as in any locale. Country names, dates and amounts are
    all from the train splits of the tasks `country`, `date` and `number`: the skills may know them. Which of the three invoice
    splits they serve is decided by a hash of the country code, the calendar date and the value, so the splits share none of
    them. Train has exactly 24 examples, of 24 countries, in six phrasings; every second example of valid and test is in one of
    six other phrasings (tag `phrasing`: seen or unseen).
    """

    name = "invoice"
    description = "one sentence with a country, a date and an amount -> CODE | DATE | AMOUNT"
    template = "invoice: {input}\n"
    parts = ("country", "date", "amount")
    sizes = {"train": 24, "valid": 400, "test": 1000}

    def size(self, split: str) -> int:
        self.check_split(split)
        return self.sizes[split]

    def example(self, i: int, split: str) -> Example:
        i = self.place(i, split)
        random = self.generator(i, split)
        code, names = self._country(i, split)
        day, value = random.choice(_invoice_days(split)), random.choice(_invoice_values(split))
        locale, form = random.choice(LOCALES), random.choice(FORMS)
        kind, phrasing = self._phrasing(i, split)
        amount = f"{number_text(value, 'en')} {random.choice(CURRENCIES)}"
        text = phrasing.format(country=random.choice(names), date=date_text(day, locale, form), amount=amount)
        tags = {"phrasing": kind, "locale": locale, "form": form}
        return Example(self.prompt(text), f"{code} | {day.isoformat()} | {value}", tags)

    def score(self, example: Example, completion: str) -> float:
        """1 if the whole record is right, whatever its white space, else 0."""
        return float(completion.split() == example.completion.split())

    def fields(self, example: Example, completion: str) -> dict[str, float]:
        """1 or 0 for each of country, date and amount; a part that is missing is wrong."""
        truth, answer = _record(example.completion), _record(completion)
        return {part: float(answer[at : at + 1] == [truth[at]]) for at, part in enumerate(self.parts)}

    def content(self, example: Example) -> frozenset[str]:
        return frozenset(f"{part} {value}" for part, value in zip(self.parts, _record(example.completion), strict=True))

    def _country(self, i: int, split: str) -> tuple[str, tuple[str, ...]]:
        countries = _invoice_countries(split)
        rounds, at = divmod(i, len(countries))
        order = self.generator(rounds, f"{split} countries").sample(range(len(countries)), len(countries))
        return countries[order[at]]

    def _phrasing(self, i: int, split: str) -> tuple[str, str]:
        if split == "train":
            return "seen", SEEN_PHRASINGS[i % len(SEEN_PHRASINGS)]
        kind, phrasings = ("unseen", UNSEEN_PHRASINGS) if i % 2 else ("seen", SEEN_PHRASINGS)
        return kind, phrasings[i // 2 % len(phrasings)]


def date_text(day: date, locale: str, form: str) -> str:
    """`day` as Babel writes it: date_text(date(2021, 5, 3), "de", "long") is "3. Mai 2021"."""
    return " ".join(package("babel.dates", "dates").format_date(day, form, locale=locale).split())


def number_text(value: int, language: str) -> str:
    """`value` in words: number_text(205, "en") is "two hundred and five"."""
    return " ".join(package("num2words", "numbers in words").num2words(value, lang=language).split())


@cache
def country_names() -> tuple[tuple[str, str, str], ...]:
    """Every (name, alpha-2 code, first language that has it), sorted by name; the common name where there is one.

    Left out are names that mean two countries, and names of more than three words or turned around ("Korea, Republic of").
    """
    pycountry = package("pycountry", "country names")
    found: dict[str, tuple[str, str, str]] = {}
    doubtful = set()
    for language in COUNTRY_LANGUAGES:
        domain = gettext.translation("iso3166-1", pycountry.LOCALES_DIR, languages=[language], fallback=language == "en")
        for country in pycountry.countries:
            text = " ".join(domain.gettext(getattr(country, "common_name", country.name)).split())
            if len(text.split()) > 3 or set(text) & set(",()"):
                continue
            if found.setdefault(_key(text), (text, country.alpha_2, language))[1] != country.alpha_2:
                doubtful.add(_key(text))
    return tuple(found[key] for key in sorted(found) if key not in doubtful)


@cache
def _names(split: str) -> tuple[tuple[str, str, str], ...]:
    return tuple(row for row in country_names() if split_of(f"country {_key(row[0])}") == split)


@cache
def _days(split: str) -> tuple[date, ...]:
    days = (FIRST_DAY + timedelta(k) for k in range((LAST_DAY - FIRST_DAY).days + 1))
    return tuple(day for day in days if split_of(f"date {day.isoformat()}") == split)


@cache
def _values(split: str) -> tuple[int, ...]:
    return tuple(value for value in range(1, LARGEST + 1) if split_of(f"number {value}") == split)


@cache
def _invoice_countries(split: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(code, names) of the countries of an invoice split; none is shared between splits."""
    names: dict[str, list[str]] = {}
    for text, code, language in _names("train"):
        if language == "en":
            names.setdefault(code, []).append(text)
    order = sorted(names, key=lambda code: share(f"invoice country {code}"))
    start, end = {"train": (0, 24), "valid": (24, 60), "test": (60, None)}[split]
    return tuple((code, tuple(names[code])) for code in order[start:end])


@cache
def _invoice_days(split: str) -> tuple[date, ...]:
    return tuple(day for day in _days("train") if _invoice_split(f"date {day.isoformat()}") == split)


@cache
def _invoice_values(split: str) -> tuple[int, ...]:
    return tuple(value for value in _values("train") if value > 1 and _invoice_split(f"number {value}") == split)


def _invoice_split(key: str) -> str:
    return split_of(f"invoice {key}", valid=0.2, test=0.7)


def _record(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("|")]


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


@cache
def package(name: str, what: str, extra: str = "") -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(what, extra or name.partition(".")[0]) from error
