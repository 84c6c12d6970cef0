"""The verb `compose` with a recipe: skills learn several tasks together, each task with those that it declares (paper 32).

Saved as `house`, the task `date` is `house-date`: one adapter, the exact mean of what it declares, used like any other skill.
What the skills have become is kept as `house-expert-general`, …: a new task declares those that it needs. Skills of the
library stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .declarations import Recipe, is_file, read
from .errors import BadOption, LibraryError, NotFound
from .files import sha256_json
from .library import Library
from .methods import method_of
from .progress import progress, say
from .result import Estimate, Table
from .saving import facts_of, save_composition, save_skill
from .skill import Skill, check_name
from .task import Example, Task
from .tasks import load_data, load_task
from .tasks.primitives import Mixture
from .unfinished import forget
from .verbs import base_of, check, training, weights_of

if TYPE_CHECKING:
    from .base import Base
    from .compose.declared import Declared
    from .delta import LowRank
    from .learn.loop import Log


@dataclass(frozen=True)
class Joint:
    """Tasks that learned together, each with the mean of the skills that it declares."""

    rows: tuple[Mapping[str, Any], ...]
    """For each task: task, skills, examples, share of the steps, exact (on its validation split), saved."""
    experts: tuple[str, ...]
    """What the skills, as they have become, were saved as; nothing if they were not."""
    seconds: float

    @property
    def next(self) -> str:
        return f'skillweave run {self.rows[0]["saved"]} "…"' if self.experts else ""

    def table(self) -> Table:
        columns = ("task", "mean of", "examples", "share of the steps", "exact match (valid)", "saved as")
        rows = tuple(
            (r["task"], ", ".join(r["skills"]), r["examples"], f"{r['share']:.2f}", str(r["exact"]), r["saved"] or "–")
            for r in self.rows
        )
        kept = f"skills saved as {', '.join(self.experts)}" if self.experts else "not saved (--save NAME)"
        return Table(columns, rows, note=f"declared, {self.seconds:.0f} s; {kept}")


@dataclass(frozen=True)
class _Work:
    """All that decides what is learned."""

    plan: Recipe
    fitter: "Declared"
    model: "Base"
    members: Mapping[str, Skill]
    sources: Mapping[str, Task]
    examples: Mapping[str, list[Example]]
    seed: int

    @property
    def key(self) -> str:
        """Digest of it: what was saved under another one is not gone on with."""
        about = [[m.digest for m in self.members.values()], self.plan.tasks, self.plan.new, self.model.digest]
        data = [(self.sources[task].digest(), len(some)) for task, some in self.examples.items()]
        return sha256_json([*about, vars(self.fitter), data, self.seed])

    def begin(self) -> dict[str, "LowRank"]:
        """The weights that the skills begin with."""
        from .delta import LowRank

        draws = {name: self.seed + 1000 * k for k, name in enumerate(self.plan.new)}
        rank, scale = self.fitter.rank, self.fitter.scale
        return {
            name: weights_of(self.members[name])
            if name in self.members
            else LowRank.fresh(self.model, rank, scale, draws[name])
            for name in self.plan.skills
        }

    def facts(self, source: Task, rows: list[Example], log: "Log", exact: Estimate) -> dict[str, Any]:
        return facts_of(self.model, "declared", self.fitter, source, rows, self.seed, log, exact)

    def save(self, shelf: Library, save: str, learned: Mapping[str, "LowRank"], log: "Log", exact: Mapping, replace: bool):
        """Each skill as it has become, then each task with those as its parents."""
        from .compose.declared import average
        from .composition import Composition
        from .measure.stats import wilson

        names = self.plan.names(save)
        for name, weights in learned.items():
            own = [self.sources[task] for task in self.plan.of(name)]
            words = "+".join(source.name for source in own)
            source = own[0] if len(own) == 1 else Mixture(own, name=words)
            rows = [example for task in self.plan.of(name) for example in self.examples[task]]
            facts = self.facts(source, rows, log, wilson(0.0, 0))
            if name in self.members:
                facts["parents"] = [{"name": name, "digest": self.members[name].digest}]
            about = f"`{name}` as a part of {save}: what it goes into the mean of {words} with"
            made = Composition.of(weights, self.model)
            save_skill(shelf, names.skills[name], made, self.model, source, rows, facts, about, replace)
        kept = {names.skills[name]: weights for name, weights in learned.items()}
        for task, source in self.sources.items():
            parts = [names.skills[name] for name in self.plan.tasks[task]]
            rows, woven = self.examples[task], average(self.model, parts)
            members, facts = [shelf.get(part) for part in parts], self.facts(source, rows, log, exact[task])
            save_composition(shelf, names.tasks[task], woven, members, kept, self.model, source, rows, facts, replace=replace)


def declare(
    recipe: Path,
    *,
    library: Path | str,
    save: str | None = None,
    seed: int = 0,
    shots: int | None = None,
    options: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> Joint:
    """Let the skills of `recipe` learn its tasks together. `options` go before those of the file; `shots` bounds each task."""
    plan = read(recipe)
    fitter: Declared = method_of("compose", "declared", {**plan.options, **(options or {})})
    if fitter.steps < 1:
        raise BadOption("no steps were given, so nothing would learn.", "write steps = 200 in the recipe, or give --steps")
    if shots is not None and shots < 1:
        raise BadOption(f"shots is {shots}, but has to be at least 1.", "leave it out to use all that the steps can read")
    if plan.new and fitter.rank < 1:
        raise BadOption(f"rank is {fitter.rank}, but a new skill needs at least 1.")
    names = plan.names(save) if save is not None else None
    from .compose.declared import average, check_sets, shares
    from .learn.loop import Run

    check_sets(plan.tasks, dict.fromkeys([*plan.skills, *plan.new]))
    sources = {task: load_data(Path(task), seed) if is_file(task) else load_task(task, seed) for task in plan.tasks}
    examples = {task: training(source, shots or fitter.steps * fitter.batch) for task, source in sources.items()}
    shelf = Library(Path(library), create=set(plan.skills) <= set(plan.new))
    if taken := [name for name in (names.all if names else ()) if name in shelf and not replace]:
        raise LibraryError(f"`{taken[0]}` is already in {library}.", "choose another name, or --replace it")
    members = _members(plan, shelf)
    model = base_of(list(members.values()), None if members else plan.base)
    work = _Work(plan, fitter, model, members, sources, examples, seed)
    experts, state = work.begin(), shelf.path / ".work" / f"{work.key[:32]}.safetensors"
    say(f"{', '.join(plan.tasks)} learn together with {', '.join(experts)} on {work.model.name}")
    with progress(fitter.steps, "compose declared") as tick:
        learned, log = fitter.joint(work.model, experts, plan.tasks, work.examples, seed, Run(state, work.key, tick))
    exact = {task: check(average(work.model, names).use(work.model, learned), work.sources[task])
             for task, names in plan.tasks.items()}  # fmt: skip
    if save is not None:
        work.save(shelf, save, learned, log, exact, replace)
        forget(state)
    part = shares({task: len(some) for task, some in work.examples.items()}, fitter.temperature)
    rows = tuple(
        {"task": task, "skills": skills, "examples": len(work.examples[task]), "share": part[task], "exact": exact[task],
         "saved": names.tasks[task] if names else None} for task, skills in plan.tasks.items()
    )  # fmt: skip
    return Joint(rows, tuple(names.skills.values()) if names else (), log.seconds)


def _members(plan: Recipe, shelf: Library) -> dict[str, Skill]:
    """The skills of the library among those that are declared. Raises NotFound, BadName, BadOption."""
    for name in plan.new:
        if check_name(name) in shelf:
            raise BadOption(f"`{name}` is said to be new, but it is in {shelf.path}.", "give the new one another name")
    old = [name for name in plan.skills if name not in plan.new]
    if missing := [name for name in old if name not in shelf]:
        hint = f'to let it begin at nothing, write new = ["{missing[0]}"]'
        raise NotFound("skill", missing[0], [*shelf.names(), *plan.new], str(shelf.path), hint)
    return {name: shelf.get(name) for name in old}
