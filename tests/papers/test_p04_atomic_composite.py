"""Paper 4: texts that say what the tasks say, arms on the same composites, and the verdict on invented runs."""

import pytest

from skillweave.papers import p04_atomic_composite as paper
from skillweave.papers.fact_worlds import REWARDS, SAID, Short, blank, curve, documents, mixed, notes, short
from skillweave.papers.p04_atomic_composite import DOSE, EFFORTS, Effort, judge, setting
from skillweave.task import Example, check_task
from skillweave.tasks.facts import HELD_OUT, people
from skillweave.tasks.knowledge import Questions

TINY = Effort(1, 16, 180, read=3, first=2, second=2, composites=40, test=6)


def run(iid=0.9, new=0.5, tuned=0.5, reinforced=0.7, known=1.0, told=0.9):
    """One seed, with what the criterion looks at."""
    other = {"iid": 0.5, "zero-shot": 0.5, "known": known, "told": told}
    return {
        "atoms": other,
        "composites -> SFT": other | {"iid": iid, "zero-shot": new},
        "atoms -> SFT": other | {"zero-shot": tuned},
        "atoms -> RL": other | {"zero-shot": reinforced},
    }


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"new": 0.65}, "partly"),
        ({"reinforced": 0.55}, "partly"),
        ({"new": 0.65, "reinforced": 0.55}, "does not hold"),
        ({"known": 0.9}, "not tested"),
        ({"told": 0.5}, "not tested"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_the_verdict_is_that_of_the_means():
    assert judge([run(reinforced=r) for r in (0.4, 0.7, 0.9)]) == "holds"


def test_efforts_are_what_the_criterion_asks_for():
    assert EFFORTS["quick"].seeds == 1 and EFFORTS["paper"].seeds == 3
    assert "30 points" in paper.CRITERION and ">= 10" in paper.CRITERION


def test_short_texts_say_the_same():
    said = "as pet , Ada has cat . Ada has Bob as mentor . the city of Ada is Rome ."
    assert (
        short(f"{said} what is the job of the boss of Ada ?") == "pet Ada cat . mentor Ada Bob . city Ada Rome . job boss Ada ?"
    )
    long, brief = (kind(0, people(0), "both", 2) for kind in (Questions, Short))
    pairs = [(one.example(i, "test"), other.example(i, "test")) for i in range(50) for one, other in [(long, brief)]]
    assert all(long.final(one.completion) == brief.final(other.completion) for one, other in pairs)
    assert not any({"the", "of", "is", "what"} & set(f"{e.prompt} {e.completion}".split()) for _, e in pairs)
    check_task(brief, 20)


def test_documents_and_notes_are_made_of_facts():
    world = people(0)
    facts = {f"{relation} {one} {to}" for relation, pairs in world.facts.items() for one, to in pairs.items()}
    said = [part.strip() for d in documents(world, 1, 0) for part in d.completion.split(" .") if part.strip()]
    assert sorted(said) == sorted(facts)
    drawn = [part.split()[0] for note in notes(world, 30, 0) for part in note.completion.split(" .") if part.strip()]
    assert len(drawn) == 30 * SAID and set(drawn) == set(world.told), "notes say nothing of what is known"


def test_a_mixture_has_its_shares_and_uses_all_alike():
    one, two = ([Example(f"{name}{i}", "x") for i in range(10)] for name in "ab")
    found = [e.prompt for e in mixed([(one, 0.25), (two, 0.75)], 100, 0)]
    counts = [found.count(e.prompt) for e in (*one, *two)]
    assert len(found) == 100 and set(counts[:10]) <= {2, 3} and set(counts[10:]) <= {7, 8}
    assert found != [e.prompt for e in mixed([(one, 0.25), (two, 0.75)], 100, 1)]


def test_words_are_tokens_and_attention_begins_alike():
    base = blank(16, 1, 0, people(0).vocabulary())
    assert base.decode(base.encode("boss ?\n")) == "boss ? \n" and 3 not in base.encode(documents(people(0), 1, 0)[0].prompt)
    queries, keys = (next(one for slot, one in base.linears.items() if slot.endswith(name)) for name in ("q_proj", "k_proj"))
    assert (queries.matrix == keys.matrix).all()


def test_composites_hold_out_what_the_atoms_teach():
    here = setting(TINY, 0)
    seen = " ".join(e.prompt + e.completion for e in here.composites).split()
    atoms = " ".join(e.prompt for task in here.atoms.values() for e in task.take(100, "train")).split()
    assert not set(seen) & set(HELD_OUT) and set(HELD_OUT) <= set(atoms) and len(here.composites) > DOSE
    everybody = here.tasks["iid"].world.split
    assert {everybody[word] for word in [*seen, *atoms] if word in everybody} == {"train"}


def test_a_curve_has_its_points():
    for count in (2, 10, 33):
        found = curve([float(i) for i in range(count)])
        assert len(found) == REWARDS and found == sorted(found) and found[0] <= 1 and count - 3 <= found[-1] < count


def test_a_seed_gives_every_arm_and_repeats_itself():
    ticks = []
    found, again = (paper.seed(TINY, 0, lambda n, note: ticks.append(n)) for _ in range(2))
    assert list(found) == ["reader", "atoms", "composites", "composites -> SFT", "RL", "atoms -> SFT", "atoms -> RL"]
    assert sum(ticks) == 2 * TINY.ticks and repr(found) == repr(again)
    assert all(0 <= arm[level] <= 1 for arm in found.values() for level in ("iid", "composition", "zero-shot", "known", "told"))
    assert all(len(found[arm]["rewards"]) == REWARDS for arm in ("RL", "atoms -> RL"))
    assert judge([found]) == "not tested"
