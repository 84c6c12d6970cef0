"""Worlds of facts: nothing gives an answer away but the facts, and what is asked in one split stays there."""

import re
from itertools import product

import pytest

from skillweave.curriculum.levels import LEVELS
from skillweave.errors import BadData, BadOption, NotFound
from skillweave.task import check_task
from skillweave.tasks.facts import HELD_OUT, LINKS, SENTENCES, VALUES, countries, people
from skillweave.tasks.knowledge import OTHERS, Questions, known, real, told

SPLITS = ("train", "valid", "test")
FACT = re.compile(r"the (\w+) of (\w+) is (\w+) \.")
WORLDS = {"people": lambda: people(3), "countries": countries, "renamed": lambda: countries().renamed(2)}


def test_people_have_all_known_facts_and_no_fact_gives_another_away():
    world = people(1)
    assert len(world.split) == 300 and {*world.facts, *world.told} == {*LINKS, *VALUES} and len({*LINKS, *VALUES}) == 10
    links = [facts for relation, facts in world.facts.items() if relation in LINKS]
    assert len(links) == 3 and all(set(facts) == set(world.split) for facts in world.facts.values())
    for one, other in product(links, links):
        assert not any(other[to] == who for who, to in one.items())
    assert all(len({facts[who] for facts in links} | {who}) == 4 for who in world.split)


@pytest.mark.parametrize("name", list(WORLDS))
def test_known_facts_keep_to_the_split(name):
    world = WORLDS[name]()
    counted = 0
    for facts in world.facts.values():
        for one, to in facts.items():
            counted += to in world.split
            assert to not in world.split or world.split[one] == world.split[to]
    assert counted > 500 and min(list(world.split.values()).count(split) for split in SPLITS) >= 20


def test_questions_are_answered_by_the_facts_alone():
    """Read the prompt, look up what is not there, and come to the answer."""
    world = people(4)
    for task in (Questions(4, world), Questions(4, world, "told", (1, 3)), Questions(4, world, "known", (1, 2))):
        for example in task.take(100, "train"):
            said = FACT.findall(example.prompt)
            assert len({(relation, one) for relation, one, _ in said}) == len(said), "told twice"
            here = {(relation, one): to for relation, one, to in said}
            asked = re.search(r"what is (.*) \?\n$", example.prompt)[1]
            *relations, at = re.sub(r"\bthe\b|\bof\b", "", asked).split()
            steps = []
            for relation in reversed(relations):
                to = here[relation, at] if relation in world.told else world.facts[relation][at]
                steps.append(f"the {relation} of {at} is {to} .")
                at = to
            assert example.completion == " ".join([*steps, f"answer : {at}"])
            assert task.score(example, f"answer : {at}") == task.score(example, at) == 1
            assert task.score(example, f"answer : {at} .") == 0
            assert not any(relation in world.facts for relation, _, _ in said), "known facts are not told"


def test_what_is_needed_stands_among_others_like_it():
    example = Questions(0, None, "told", 1).example(0, "test")
    relation = example.tags["path"]
    same = [one for said, one, _ in FACT.findall(example.prompt) if said == relation]
    assert len(same) > 1 and len(same) <= OTHERS + 2
    alone = Questions(0, None, "told", 1, beside=0).example(0, "test")
    assert len([said for said, _, _ in FACT.findall(alone.prompt) if said == alone.tags["path"]]) == 1
    first = [FACT.findall(e.prompt)[0][1] == e.tags["entities"] for e in Questions(0, None, "told", 1).take(60, "train")]
    assert 5 < sum(first) < 40, "the needed fact must not always stand first, nor never"


@pytest.mark.parametrize("name", list(WORLDS))
def test_nobody_of_one_split_is_in_a_question_of_another(name):
    world = WORLDS[name]()
    for kind in ("known", "told", "both"):
        task = Questions(0, world, kind, (2, 3))
        for split in SPLITS:
            for example in task.take(40, split):
                words = set(f"{example.prompt} {example.completion}".split()) & set(world.split)
                assert words and {world.split[word] for word in words} == {split}


def test_levels_show_and_hold_out_what_they_say():
    made = {level: Questions(0, hops=(2, 3), level=level) for level in LEVELS}
    iid, new, unseen = (set(made[level].paths) for level in LEVELS)
    assert not iid & new and not (iid | new) & unseen and len(iid | new | unseen) == len(Questions(0).paths) == 300
    assert min(map(len, (iid, new, unseen))) >= 20
    relations = {relation for path in iid for relation in path}
    assert relations.isdisjoint(HELD_OUT) and {relation for path in new for relation in path} <= relations
    assert all(set(path) & set(HELD_OUT) for path in unseen)
    text = " ".join(e.prompt + e.completion for level in LEVELS[:2] for e in made[level].take(200, "train"))
    assert not set(text.split()) & set(HELD_OUT), "not beside what is needed either"
    atoms = {e.tags["path"] for task in (known(), told()) for e in task.take(300, "train")}
    assert set(HELD_OUT) < atoms and len(atoms) == 10, "by themselves they are known"


def test_documents_hold_all_known_facts_and_nothing_else():
    world = people(2)
    documents = world.documents(copies=3)
    assert len(documents) == 900 and documents == world.documents(copies=3) != world.documents(copies=3, seed=1)
    groups = {"relation": r"(?P<r>\w+)", "one": r"(?P<a>\w+)", "other": r"(?P<b>\w+)"}
    pattern = {sentence: re.compile(sentence.replace(".", r"\.").format(**groups)) for sentence in SENTENCES}
    seen, forms = [], set()
    for document in documents:
        for said in document.completion.split(" ."):
            found = [(form, match) for form, rule in pattern.items() if (match := rule.fullmatch(f"{said.strip()} ."))]
            forms |= {form for form, _ in found}
            seen += [(match["r"], match["a"], match["b"]) for _, match in found]
    facts = {(relation, one, to) for relation, pairs in world.facts.items() for one, to in pairs.items()}
    assert set(seen) == facts and len(seen) == 3 * len(facts) and forms == set(SENTENCES)


@pytest.mark.parametrize("name", list(WORLDS))
def test_every_word_is_in_the_vocabulary(name):
    world = WORLDS[name]()
    texts = [e.prompt + " " + e.completion for e in world.documents()]
    texts += [
        e.prompt + " " + e.completion for k in ("known", "told", "both") for e in Questions(0, world, k, 2).take(100, "test")
    ]
    words = {word for text in texts for word in text.replace("\n", " \n ").split(" ") if word}
    assert words <= set(world.vocabulary()) and len(words) > 200


def test_renaming_keeps_the_graph():
    world, other = people(0), people(0).renamed(1)
    assert not {*world.split} & {*other.split} and other.renamed(1).split != other.split
    assert [world.paths(kind, 2) for kind in ("known", "both")] == [other.paths(kind, 2) for kind in ("known", "both")]
    new = dict(zip(world.split, other.split, strict=True))
    for relation in ("mentor", "rival", "doctor"):
        assert {new[one]: new[to] for one, to in world.facts[relation].items()} == other.facts[relation]
    assert list(world.split.values()) == list(other.split.values()) and other.held_out == world.held_out
    cities = dict(zip(world.facts["city"].values(), other.facts["city"].values(), strict=True))
    assert len(set(cities.values())) == len(cities) == 16


def test_countries_are_as_iso_has_them():
    world = countries(100)
    assert world.facts["code"]["France"] == "FRA" and world.facts["number"]["Japan"] == "392"
    assert world.facts["country"]["Bayern"] == "Germany" and world.facts["kind"]["Bayern"] == "Land"
    assert world.split["Bayern"] == world.split["Germany"] and "Eastern" not in world.split
    assert ("country", "country") not in world.paths("known", 2) and ("country", "code") in world.paths("known", 2)


def test_every_kind_keeps_the_contract():
    made = [known(), told(), real(), Questions(2, trace=False), Questions(1, people(7, 180)), Questions(0, hops=5)]
    made += [Questions(0, countries().renamed(1), "known", 2)] + [Questions(0, level=level) for level in LEVELS]
    for task in made:
        check_task(task, n=20)
    assert len(made) == 10


@pytest.mark.parametrize(
    ("kind", "sentence", "make"),
    [
        (BadOption, "count is 20.*at least 60", lambda: people(0, 20)),
        (BadOption, "hops is 0.*from 1 to 5", lambda: Questions(0, hops=0)),
        (NotFound, "no kind `knwon`. Did you mean `known`", lambda: Questions(0, None, "knwon")),
        (NotFound, "no level `idd`. Did you mean `iid`", lambda: Questions(0, level="idd")),
        (BadData, "no path of 1 hops whose relations are both", lambda: Questions(0, hops=1)),
        (BadData, "no path of 3 hops whose relations are known", lambda: Questions(0, countries(), "known", 3)),
        (BadOption, "beside is -1", lambda: Questions(0, beside=-1)),
        (NotFound, "split", lambda: known().example(0, "dev")),
    ],
)
def test_mistakes_are_answered_in_a_sentence(kind, sentence, make):
    with pytest.raises(kind, match=sentence):
        make()
