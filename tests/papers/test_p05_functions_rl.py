"""Paper 5: texts that nest none of the twelve functions, equal samples for every arm, and the verdict on invented runs."""

import pytest

from skillweave.base import TinyBase
from skillweave.papers import p05_functions_rl as paper
from skillweave.papers.p05_functions_rl import EFFORTS, EQUAL, MORE, SYNTAX, TOKENS, WORDS, Effort, chain, judge, texts
from skillweave.tasks.functions import small

TINY = Effort(1, width=16, pretraining=2, steps=5, batch=2, group=2, test=4)
NAMES = WORDS.names(short=True)


def run(first=0.05, known=0.95, rl=0.3, single=0.02, tuning=0.1):
    """One seed: what is right at the start, and on held-out functions at depth three by arm."""
    start = {"practised 1": known, "held-out 1": 1.0, "first": first}
    arms = {"RL, depth 2": rl, "RL, depth 1": single, "rejection, depth 2": tuning}
    return {"start": start} | {arm: {"held-out 3": x} for arm, x in arms.items()}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"rl": 0.201, "single": 0.049, "tuning": 0.1}, "holds"),
        ({"rl": 0.19, "tuning": 0.01}, "does not hold"),
        ({"single": 0.06}, "partly"),
        ({"tuning": 0.16}, "partly"),
        ({"single": 0.06, "tuning": 0.16}, "does not hold"),
        ({"known": 0.79}, "not tested"),
        ({"first": 0.009}, "not tested"),
        ({"first": 0.16}, "not tested"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_the_verdict_is_that_of_the_means():
    assert judge([run(rl=0.1), run(rl=0.2), run(rl=0.4)]) == "holds"


def test_the_criterion_is_that_of_the_card():
    assert paper.CRITERION == (
        "Holds if, on held-out functions at depth 3, RL-depth-2 >= 20 %, RL-depth-1 <= 5 %, rejection tuning <= half of RL at "
        "equal samples."
    )


def test_texts_nest_only_the_syntax_family():
    found = texts(600, (0.4, 0.3, 0.3), 0)
    other = {NAMES[name] for name in SYNTAX} | set(MORE)
    twelve = {NAMES[name] for name in EQUAL}
    assert not other & twelve and len(found) == 600
    lines = [text for text in found if not text.prompt]
    nested = [text for text in found if text not in lines and text.prompt.count("(") > 1]
    single = [text for text in found if text not in lines and text.prompt[0] in twelve]
    assert len(nested) > 90 and len(single) > 140 and len(lines) > 200
    for text in nested:
        names = [part[-1] for part in text.prompt.split("(")[:-1]]
        assert set(names) <= other and len(names) == len(text.completion.split("\n")) <= 3
    assert {line[0] for text in lines for line in text.completion.split("\n")} == twelve | other
    assert {text.prompt[0] for text in single} == twelve


def test_every_line_of_a_text_is_right():
    functions = {NAMES[name]: WORDS.table[name] for name in (*EQUAL, *SYNTAX)}
    more = len(MORE) // len(SYNTAX)
    functions |= {also: WORDS.table[name] for k, name in enumerate(SYNTAX) for also in MORE[k * more : (k + 1) * more]}
    lines = [line for text in texts(300, (0.4, 0.3, 0.3), 1) for line in text.completion.split("\n")]
    assert len(lines) > 400
    for line in lines:
        call, _, value = line.partition("=")
        assert functions[call[0]](call[2:-1]) == value, line


def test_halves_share_no_function_and_an_attempt_has_room():
    assert set(chain(0, 2, "seen").functions).isdisjoint(chain(0, 2, "unseen").functions)
    longest = max(len(e.completion) + 1 for e in small(0, EQUAL, 2, family=WORDS).take(100, "test"))
    assert 28 <= longest <= TOKENS and TinyBase(16, 0, paper.ALPHABET, window=128).encode(paper.ALPHABET).count(3) == 0


@pytest.mark.parametrize("effort", EFFORTS.values(), ids=EFFORTS)
def test_arms_draw_as_many_samples(effort):
    arms = effort.arms()
    rl, tuning = arms["RL, depth 2"][1], arms["rejection, depth 2"][1]
    assert rl == arms["RL, depth 1"][1] and rl.steps == tuning.steps and not rl.refills and not rl.probe
    assert rl.steps * rl.batch * rl.group == tuning.rounds * tuning.prompts * tuning.samples
    assert [depth for depth, _ in arms.values()] == [1, 2, (1, 2), 2, 2]


def test_a_seed_gives_every_arm_and_repeats_itself():
    ticks = []
    found = paper.seed(TINY, 0, lambda n, note: ticks.append(note))
    assert len(ticks) == TINY.ticks == 6 and list(found) == ["start", *TINY.arms()]
    for arm in found.values():
        shares = [arm[f"{half} {depth}"] for half in ("practised", "held-out") for depth in (1, 2, 3)]
        assert all(0 <= share <= 1 for share in shares) and len(shares) == 6
    assert found["RL, depth 2"]["samples"] == 20 and len(found["RL, depth 2"]["rewards"]) == 5
    assert judge([found]) == "not tested"
    assert repr(found) == repr(paper.seed(TINY, 0, lambda n, note: None))
    assert paper.texts(9, TINY.shares, 0) != paper.texts(9, TINY.shares, 1)
