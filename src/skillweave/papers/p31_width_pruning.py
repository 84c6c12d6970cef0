"""Paper 31 (arXiv:2512.22671): do facts die before the ability to follow what stands in the prompt, when MLPs get narrower?

Gemma 3 270M without 10 to 60 % of the neurons of every MLP, nothing trained. A seed is a draw of all items, and of the neurons
that the random control cuts. The paper's score (ppm) is measured in all suites at each share, its rivals in perplexity, and the
random control, at the share that decides, in facts and rules too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..base import load_base
from ..compose.prune import width_prune
from ..measure.abilities import FACTS, RULES, SUITES, Profile, ability_profile, control_profiles, lost
from ..measure.stats import student, wilson

CRITERION = (
    "Holds for the dichotomy if at 20 % facts lose >= 2x the relative share that in-context tasks lose, and PPM beats VOW/PON "
    "in perplexity. Do not require improvement; report it with degenerate-output controls."
)
LIMITS = (
    "One model of 270 M parameters, a base model (not tuned to instructions) whose weights were quantised to 4 to 8 bits and "
    "expanded; own suites in the place of MMLU and IFEval; the text is documentation that the model may have read. Seeds draw "
    "items, not models: their intervals say nothing about another model."
)
SHARE = 0.2
"""The share that decides."""
RIVALS = ("vow", "pon", "random")


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    seeds: int
    """Draws of items."""
    shares: tuple[float, ...]
    """Shares of neurons that are cut, SHARE among them."""
    random: tuple[str, ...]
    """Suites that the random control answers at SHARE; the other rivals, and other shares, are read for perplexity only."""

    @property
    def ticks(self) -> int:
        return 1 + len(self.shares) * (1 + len(RIVALS))


EFFORTS = {
    "quick": Effort(1, (SHARE,), ("text",)),
    "paper": Effort(3, (0.1, SHARE, 0.4, 0.6), ("facts", "rules", "text")),
}


def arm(score: str, share: float) -> str:
    """The name of an arm: `ppm 20 %`."""
    return f"{score} {share:.0%}".replace("%", " %")


def suites(effort: Effort, score: str, share: float) -> tuple[str, ...]:
    """What is measured of an arm."""
    if score == "ppm":
        return tuple(SUITES)
    return effort.random if score == "random" and share == SHARE else ("text",)


def seed(effort: Effort, seed: int, tick) -> dict[str, Profile]:
    """One draw of items: every arm on the same ones."""
    base = load_base()
    full = ability_profile(base, seed)
    tick(1, "full")
    found = {"full": full}
    for share in effort.shares:
        for score in ("ppm", *RIVALS):
            profile = ability_profile(width_prune(base, share, score, seed), seed, suites(effort, score, share))
            found[arm(score, share)] = profile | _losses(full, profile)
            tick(1, arm(score, share))
    return found | {f"control: {name}": shares for name, shares in control_profiles(seed).items()}


def _losses(full: Profile, now: Profile) -> Profile:
    """What is lost of each ranked suite, above what is reached blindly."""
    both = [suite for suite in ("facts", "rules") if suite in now]
    return {f"{suite} lost": lost(full[suite], now[suite], full[f"{suite} blind"]) for suite in both}


def judge(runs: Sequence[Mapping[str, Profile]]) -> str:
    """The criterion over the means of the seeds.

    Not tested: the full base is not above chance (its Wilson interval) in one of the two suites. The dichotomy also asks that
    facts are lost at all: with several seeds, by more than their interval.
    """
    if not all(_above_chance(runs, suite, n) for suite, n in (("facts", FACTS), ("rules", RULES))):
        return "not tested"
    facts, rules = (student([run[arm("ppm", SHARE)][f"{suite} lost"] for run in runs]) for suite in ("facts", "rules"))
    dichotomy = facts.low > 0 and facts.value >= 2 * rules.value
    text = {score: student([run[arm(score, SHARE)]["perplexity"] for run in runs]).value for score in ("ppm", "vow", "pon")}
    better = text["ppm"] < min(text["vow"], text["pon"])
    return "holds" if dichotomy and better else "partly" if dichotomy or better else "does not hold"


def _above_chance(runs: Sequence[Mapping[str, Profile]], suite: str, n: int) -> bool:
    right = sum(run["full"][suite] * n for run in runs)
    return wilson(right, n * len(runs)).low > max(run["full"][f"{suite} blind"] for run in runs)
