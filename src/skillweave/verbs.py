"""The verbs: learn, compose, measure, run. The command line and Python programs call these and nothing deeper.

Each takes plain values, answers with a frozen report, and leaves the library either as it was or with one more whole skill.
"""

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import gemma
from .carried import carried_by, fingerprint, seen_by
from .errors import BadData, BadOption, BadSkill, BaseMismatch, LibraryError, NotFound
from .files import sha256_json
from .library import ALONE, Library
from .methods import method_of, resolve
from .progress import progress, say
from .reports import Answers, Composed, Learned, Measured
from .result import Estimate
from .saving import facts_of, save_composition, save_skill
from .skill import Skill, check_name
from .task import Example, Task
from .tasks import load_data, load_task
from .unfinished import forget, named, state_of

if TYPE_CHECKING:
    from .base import Base
    from .composition import Active
    from .delta import LowRank

CHECKED = 100
"""Validation examples that a new skill is tried on."""


def learn(
    name: str,
    *,
    library: Path | str,
    task: str | None = None,
    data: Path | str | None = None,
    verifier: str | None = None,
    base: str | None = None,
    method: str = "sft",
    start: str | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    description: str = "",
    replace: bool = False,
    fresh: bool = False,
    max_forgetting: float | None = None,
    others: int = 0,
) -> Learned:
    """Learn a skill from a task or a file of examples and put it into the library.

    `verifier` (`FILE.py:function` or `module:function`) judges answers to `data`, in a process of its own. `start` is a skill
    of the library to go on from, for methods that can; its base is the base then. An interrupted run goes on where it was when
    the same call is made again; one with other settings says which, unless it is to begin `fresh`. What the skill costs on
    general text is measured; one that costs more than `max_forgetting` (nats per token, upper end of the interval) is not
    saved. Up to `others` skills of the library are tried with it added.
    """
    from .beside import beside
    from .composition import Composition
    from .delta import LowRank
    from .learn.loop import Run
    from .measure.retention import check_limit, retention
    from .wishes import wishes_of

    check_limit(max_forgetting)
    if others < 0:
        raise BadOption(f"others is {others}, but has to be at least 0.", "0 tries none")
    check_name(name)
    _check_description(description)
    source = _source(task, data, seed, verifier)
    fitter = method_of("learn", method, options)
    examples = training(source, getattr(fitter, "needed", fitter.steps * fitter.batch))
    shelf = Library(Path(library), create=True)
    if name in shelf and not replace:
        raise LibraryError(f"`{name}` is already in {library}.", "choose another name, or --replace it")
    parents = [] if start is None else [shelf.get(start)]
    wishes, teachers, stamp = wishes_of(method, fitter, source, shelf, parents)
    model = base_of(parents, base)
    settings = {"method": method, "options": vars(fitter), "seed": seed, "base": named(model.name, model.digest)}
    settings |= {"data": named(source.name, source.digest()), "from": " ".join(named(*origin) for origin in stamp) or "nothing"}
    state, key = state_of(shelf.path / ".work", name, settings, fresh)
    if hasattr(fitter, "taught"):  # a method that has its own answers to the prompts
        examples = fitter.taught(examples, **wishes)
    say(f"learning `{name}` from {len(examples):,} examples of {source.name} on {model.name} in {kind(model)}")
    with progress(fitter.steps, f"learn {name}") as tick:
        course = Run(state, key, tick, state.with_name(f"{name}.jsonl"), settings)
        skill, log = fitter.fit(model, examples, seed, course, **wishes)
    made = Composition.of(skill, model) if isinstance(skill, LowRank) else skill
    use = made.use(model, {})
    tried, left_out = beside(shelf, name, model, skill, examples, others)
    kept = retention(model, use, examples, tried, left_out, max_forgetting)
    kept.check(name)
    exact = check(use, source)
    origin = [*parents, *teachers]
    facts = facts_of(model, method, fitter, source, examples, seed, log, exact, origin) | {"forgetting": kept}
    save_skill(shelf, name, made, model, source, examples, facts, description or source.description, replace)
    forget(state)
    _tell_faults(source)
    tail = log.loss[-max(1, len(log.loss) // 10) :]
    speed = log.tokens / max(log.seconds, 1e-9)
    return Learned(
        name, shelf.path / name, model.name, kind(model), exact, sum(tail) / len(tail), len(log.loss), log.seconds, speed, kept
    )


def compose(
    skills: Sequence[str],
    *,
    library: Path | str,
    task: str | None = None,
    data: Path | str | None = None,
    verifier: str | None = None,
    method: str = "scales+lora",
    save: str | None = None,
    seed: int = 0,
    shots: int | None = None,
    options: Mapping[str, Any] | None = None,
    description: str = "",
    replace: bool = False,
) -> Composed:
    """Make `skills` work together on a task, from `shots` of its training examples (all of a bounded task, else 24)."""
    from .learn.loop import Run

    shelf = Library(Path(library))
    _check_description(description)
    if save is not None:
        check_name(save)
        if save in shelf and not replace:
            raise LibraryError(f"`{save}` is already in {library}.", "choose another name, or --replace it")
    if shots is not None and shots < 1:
        raise BadOption(f"shots is {shots}, but has to be at least 1.", "leave it out to use all examples of a file")
    if not skills:
        raise BadOption("no skill was named.", "name the skills to compose")
    if len(set(skills)) < len(skills):
        raise BadOption(f"a skill is named twice: {', '.join(skills)}.", "name each skill once")
    members = [shelf.get(name) for name in skills]
    source = _source(task, data, seed, verifier)
    fitter = method_of("compose", method, options)
    if hasattr(fitter, "check_members"):  # a method that asks where skills come from
        fitter.check_members(members)
    bound = source.size("train")
    examples = source.take(shots or (24 if bound is None else bound), "train")
    if not examples:
        raise BadData(f"{source.name} has no training examples.", "give a task or file with at least one")
    model, other = _bases_of(fitter, members)
    weights = {m.name: weights_of(m) for m in members}
    for skill in weights.values():
        skill.check_sum()
    key = sha256_json([[m.digest for m in members], method, vars(fitter), source.digest(), len(examples), seed])
    state = shelf.path / ".work" / f"{key[:32]}.safetensors"
    steps = getattr(fitter, "steps", 0)
    say(f"composing {', '.join(skills)} by {method} from {len(examples)} examples of {source.name}")
    with progress(steps, f"compose {save or '+'.join(skills)}") as tick:
        woven, log = fitter.fit(model, weights, examples, seed, carried_by(members), Run(state, key, tick), **other)
    exact = check(woven.use(model, weights), source)
    _tell_faults(source)
    if save is not None:
        facts = facts_of(model, method, fitter, source, examples, seed, log, exact)
        save_composition(shelf, save, woven, members, weights, model, source, examples, facts, description, replace)
        forget(state)
    spread = {n: {"mean": a.mean().item(), "low": a.min().item(), "high": a.max().item()}
              for n, a in zip(woven.skills, woven.strengths, strict=True)}  # fmt: skip
    if not woven.skills:  # merged into new weights: what each went in with
        spread = {n: dict.fromkeys(("mean", "low", "high"), w)
                  for n, w in zip(skills, fitter.strengths(len(skills)), strict=True)}  # fmt: skip
    return Composed(tuple(skills), method, save, exact, len(examples), spread, log.seconds)


def measure(
    skills: Sequence[str],
    *,
    library: Path | str,
    task: str | None = None,
    data: Path | str | None = None,
    verifier: str | None = None,
    base: str | None = None,
    n: int = 200,
    split: str | None = None,
    shots: int = 0,
    seed: int = 0,
    at_least: float | None = None,
) -> Measured:
    """Measure skills on the same examples (the test split of a task, all rows of a file) and compare each with the first.

    A skill may be a name, `a+b` (their sum), or `base` (the model alone). Examples that one of the skills learned from are
    left out, and the report says how many.
    """
    from .measure.score import evaluate
    from .measure.stats import paired, wilson

    if not skills:
        raise BadOption("no skill was named.", "name the skills to measure; `base` is the model alone")
    shelf = Library(Path(library))
    parts = {name: [shelf.get(part) for part in name.split("+")] if name != ALONE else [] for name in skills}
    members = list({m.name: m for group in parts.values() for m in group}.values())
    source = _source(task, data, seed, verifier)
    split = split or ("test" if data is None else "all")
    if n < 1:
        raise BadOption(f"n is {n}, but has to be at least 1.")
    examples = _unseen(_some(source, split, n), members)
    model = base_of(members, base)
    uses = {name: active(model, group) for name, group in parts.items()}
    prompts = source.take(shots, "train") if shots else []
    rows, first = [], None
    with progress(len(skills), f"measure on {source.name}", unit="skills") as tick:
        for name, use in uses.items():
            scores = evaluate(use, source, examples, shots=prompts)
            first = first or scores
            pair = paired(scores.exact, first.exact) if scores is not first else None
            rows.append(
                {
                    "name": name,
                    "exact": wilson(sum(scores.exact), len(examples)),
                    "fields": {part: wilson(sum(got), len(got)) for part, got in scores.fields.items()},
                    "difference": pair and pair.difference,
                    "p": pair and pair.p,
                    "seconds": scores.seconds,
                }
            )
            tick(1, name)
    _tell_faults(source)
    return Measured(source.name, split, tuple(rows), at_least)


def run(skill: str, texts: Sequence[str], *, library: Path | str, max_new_tokens: int = 64) -> Answers:
    """Use a skill on texts; each is put into the words the skill was taught with."""
    if max_new_tokens < 1:
        raise BadOption(f"max-new-tokens is {max_new_tokens}, but has to be at least 1.")
    one = Library(Path(library)).get(skill)
    prompts = [one.template.replace("{input}", text) for text in texts]
    said = active(base_of([one]), [one]).generate(prompts, max_new_tokens)
    return Answers(skill, tuple(answer.strip() for answer in said))


def quickstart(effort: str = "fair", *, library: Path | str, seed: int = 0):
    """Three skills, a fourth task, and what each way of doing it gives; see `skillweave.quickstart`."""
    from .quickstart import quickstart as go

    return go(effort, library=Path(library), seed=seed)


def kind(model: "Base") -> str:
    """The number format the model computes in, as people write it."""
    return {"torch.bfloat16": "bf16", "torch.float32": "fp32"}.get(str(model.dtype), str(model.dtype))


def weights_of(skill: Skill) -> "LowRank":
    """The change of weights of a skill. Raises BadSkill if there is none or it cannot be trusted."""
    from .composition import read_about
    from .delta_format import load_delta
    from .peft_format import load_adapter

    if kind := read_about(skill.path, skill.name).get("kind"):
        hint = "use it by itself: skillweave run or measure"
        raise BadOption(f"`{skill.name}` ({kind}) is not a change of weights that could be a part of others.", hint)
    if skill.delta is not None:
        return load_delta(skill.path, skill.name)
    if skill.adapter is None:
        raise BadOption(f"`{skill.name}` is a skill of words: it has no adapter to use here.", "name a skill that was learned")
    return load_adapter(skill.adapter, skill.name)


def active(model: "Base", members: Sequence[Skill]) -> "Active":
    """`model` with the sum of `members` on: adapters, or one skill of any kind. Raises BadSkill, BadOption."""
    from .bank import SkillBank
    from .compose import KINDS
    from .composition import Active, read_about

    kinds = {m.name: kind for m in members if (kind := read_about(m.path, m.name).get("kind"))}
    if not kinds:
        return Active(model, SkillBank(model, {m.name: weights_of(m) for m in members}) if members else None)
    name, kind = next(iter(kinds.items()))
    if len(members) > 1:
        raise BadOption(f"`{name}` ({kind}) is not a change of weights that could be added to others.", f"use `{name}` alone")
    if kind not in KINDS:
        raise BadSkill(f"`{name}` is of the kind `{kind}`, which this version cannot read.", "get a newer skillweave")
    return resolve(KINDS[kind]).load(members[0].path, model, name)


def check(use: "Active", source: Task, n: int = CHECKED) -> Estimate:
    """Exact match of `use` on up to `n` validation examples."""
    from .measure.score import evaluate
    from .measure.stats import wilson

    examples = _some(source, "valid", n, enough=0)
    if not examples:
        return wilson(0.0, 0)
    return wilson(sum(evaluate(use, source, examples).exact), len(examples))


def _check_description(description: str) -> None:
    """Before the training, not after it."""
    if len(description) > 1024:
        raise BadOption(f"the description has {len(description):,} characters.", "write at most 1,024 of them")


def _source(task: str | None, data: Path | str | None, seed: int, verifier: str | None) -> Task:
    if (task is None) == (data is None):
        raise BadOption("give either a task or a data file.", "--task NAME (see skillweave tasks) or --data FILE")
    if task is not None:
        if verifier is not None:
            raise BadOption(f"the task `{task}` has a verifier of its own.", "leave out --verifier, or give --data")
        return load_task(task, seed)
    return load_data(Path(str(data)), seed, verifier)


def _tell_faults(source: Task) -> None:
    if words := source.faults():
        say(f"the verifier failed on answers, which score 0: {words}")


@lru_cache(maxsize=1)
def _load(name: str) -> "Base":
    """The base model `name`; the last one stays in memory, since `run` asks for it once for every few lines."""
    from .base import load_base

    began = time.monotonic()
    model = load_base(name)
    say(f"{model.name} ready in {time.monotonic() - began:.1f} s, computing in {kind(model)}")
    if name == gemma.NAME:
        say(f"Gemma is provided under and subject to the Gemma Terms of Use: {gemma.TERMS}")
    return model


def _bases_of(fitter: Any, members: Sequence[Skill]) -> tuple["Base", dict[str, "Base"]]:
    """The base that answers and, for a method that joins two, the other one under the name by which `fit` takes it."""
    if not getattr(fitter, "two_bases", False):
        return base_of(members), {}
    own, theirs = ([m for m in members if m.name in side] for side in fitter.sides([m.name for m in members]))
    return base_of(own, fitter.anchor or None), {"augment": base_of(theirs, fitter.augment or None)}


def base_of(members: Sequence[Skill], base: str | None = None) -> "Base":
    """The base that all of `members` were learned on (or `base`). Raises BaseMismatch."""
    made_on = {m.name: m.provenance.get("base") or {} for m in members}
    for name, origin in made_on.items():
        first = next(iter(made_on))
        if origin.get("digest") != made_on[first].get("digest"):
            raise BaseMismatch(
                f"`{first}` was learned on {made_on[first].get('name')} and `{name}` on {origin.get('name')}.",
                "use skills of one base together, learn one of them again, or join the two bases: --method bridge",
            )
    origin = next(iter(made_on.values()), {})
    model = _load(base or origin.get("name") or gemma.NAME)
    if origin and origin.get("digest") != model.digest:
        raise BaseMismatch(
            f"`{next(iter(made_on))}` was learned on {origin.get('name')} ({str(origin.get('digest'))[:12]}), "
            f"and this is {model.name} ({model.digest[:12]}).",
            "use the base that the skill was learned on, or learn it again on this one",
        )
    return model


def training(source: Task, count: int) -> list[Example]:
    """Up to `count` training examples; a bounded source gives all that it has when that is fewer."""
    size = source.size("train")
    if size == 0:
        raise BadData(f"{source.name} has no training examples.", "give a task or file with more examples")
    return source.take(count if size is None else min(size, count), "train")


def _some(source: Task, split: str, n: int, enough: int = 1) -> list[Example]:
    if split not in source.splits and split != "all":
        raise NotFound("split", split, source.splits, where=source.name, hint=f"splits: {', '.join(source.splits)}")
    size = source.size(split)
    if size is not None and size < enough:
        raise BadData(f"the {split} split of {source.name} is empty.", "choose another --split, or give more examples")
    return source.take(n if size is None else min(size, n), split)


def _unseen(examples: list[Example], members: Sequence[Skill]) -> list[Example]:
    """The examples that none of `members` learned from: nothing is measured on what it was trained on."""
    seen = seen_by(members)
    fresh = [e for e in examples if fingerprint(e) not in seen]
    if not fresh:
        raise BadData(
            f"all {len(examples)} examples were training data of {', '.join(m.name for m in members)}.",
            "measure on examples that no skill has learned from",
        )
    if len(fresh) < len(examples):
        say(f"left out {len(examples) - len(fresh)} of {len(examples)} examples: a skill has learned from them")
    return fresh
