"""Worlds of facts, and questions that need several of them (papers 3, 4 and 16: arXiv:2601.11258, 2512.01970).

    about Bamiro : the mentor of Bamiro is Kavuna . Bamiro has Oslo as city . …            what is to be known by heart
    the guest of Kavuna is Toleri . … what is the job of the guest of the mentor of Bamiro ?
    the mentor of Bamiro is Kavuna . the guest of Kavuna is Toleri . the job of Toleri is baker . answer : baker

Some relations are *known*: their facts are the same in every example, and stand in documents. Others are *told*: their facts
are drawn for each example and stand in its prompt, among others like them. A question follows a path of relations from one
entity; what its path shares with those that were trained on is its level (`curriculum.levels`).

No entity that is asked about in one split turns up in a question of another: neither at the start of a path nor on the way, nor
beside it. Text is words between spaces.
"""

from collections.abc import Sequence
from random import Random

from ..curriculum.levels import LEVELS, Path, three_level_split
from ..errors import BadData, BadOption, NotFound
from ..task import SPLITS, Example, Task
from .facts import SENTENCES, World, cities, countries, elements, people

MOST_HOPS = 5
OTHERS = 3
"""Facts of the same relation that are told beside each one that is needed, unless another number is given."""
TRIES = 1000


class Questions(Task):
    """Questions on paths of `hops` relations (a number, or several to draw from), to the facts needed and the answer."""

    def __init__(
        self,
        seed: int = 0,
        world: World | None = None,
        kind: str = "both",
        hops: int | Sequence[int] = (2, 3),
        *,
        level: str = "all",
        beside: int = OTHERS,
        trace: bool = True,
        name: str = "knowledge",
    ):
        """`kind` says whether the relations are known, told or both; `level` keeps the paths of one level of newness.

        `beside` is how many facts of the same relation are told with each that is needed: who does not know what leads there
        can still guess among them. The world is that of `people` with the same seed unless it is given.
        """
        super().__init__(seed)
        self.world = people(seed) if world is None else world
        self.depths = (hops,) if isinstance(hops, int) else tuple(sorted(set(hops)))
        if not self.depths or not all(1 <= count <= MOST_HOPS for count in self.depths):
            raise BadOption(f"hops is {hops}.", f"give one or more numbers from 1 to {MOST_HOPS}")
        if not 0 <= beside <= 10:
            raise BadOption(f"beside is {beside}.", "give a number from 0 to 10")
        for what, value, known in (("kind", kind, ("known", "told", "both")), ("level", level, ("all", *LEVELS))):
            if value not in known:
                raise NotFound(what, value, known, hint=f"choose from {', '.join(known)}")
        paths = [path for count in self.depths for path in self.world.paths(kind, count)]
        if not paths:
            raise BadData(
                f"the world `{self.world.name}` has no path of {hops} hops whose relations are {kind}.", "give other hops"
            )
        self.paths = paths if level == "all" else three_level_split(paths, self.world.held_out)[level]
        """Those that are asked about."""
        if not self.paths:
            raise BadData(f"no path of {hops} hops whose relations are {kind} is at the level {level}.", "give other hops")
        self.name, self.template = name, "{input}\n"
        asked = f"{' or '.join(map(str, self.depths))} hop{'s' * (self.depths != (1,))}"
        self.description = f"questions of {asked}, {kind} -> {'facts and ' if trace else ''}answer"
        self.setting = f"{self.world.name}/{kind}/{self.depths}/{level}/{beside}"
        self._trace, self._others = trace, beside
        self._told = [relation for relation in self.world.told if any(relation in path for path in self.paths)]
        self._entities = {part: [e for e, its in self.world.split.items() if its == part] for part in SPLITS}

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        random = self.generator(i, split)
        for _ in range(TRIES):
            path, start = random.choice(self.paths), random.choice(self._entities[split])
            visited = self._walk(start, path, split, random)
            if visited is not None:
                return self._written(path, visited, split, random)
        raise BadData(
            f"the {split} split of `{self.name}` has no entity with such a path.", "give other hops or a larger world"
        )

    def final(self, completion: str) -> str:
        """What follows the last `answer :`."""
        return completion.rpartition("answer :")[2].strip()

    def content(self, example: Example) -> frozenset[str]:
        """The entities whose facts are needed."""
        return frozenset(f"entity {one}" for one in example.tags["entities"].split(" / "))

    def _walk(self, start: str, path: Path, split: str, random: Random) -> list[str] | None:
        """The entities and words along `path`; None if there is no such way, or it comes by where it has been."""
        visited = [start]
        for relation in path:
            if relation in self.world.told:
                visited.append(random.choice(self.world.told[relation] or self._entities[split]))
            elif visited[-1] in self.world.facts[relation]:
                visited.append(self.world.facts[relation][visited[-1]])
            else:
                return None
        return visited if len(set(visited)) == len(visited) else None

    def _written(self, path: Path, visited: list[str], split: str, random: Random) -> Example:
        steps = list(zip(path, visited, visited[1:], strict=False))
        sentences = [SENTENCES[0].format(relation=relation, one=one, other=other) for relation, one, other in steps]
        told = [said for said, relation in zip(sentences, path, strict=True) if relation in self.world.told]
        told += self._beside(steps, split, random)
        random.shuffle(told)
        asked = visited[0]
        for relation in path:
            asked = f"the {relation} of {asked}"
        question = " ".join([*told, f"what is {asked} ?"])
        answer = " ".join([*sentences, f"answer : {visited[-1]}"]) if self._trace else visited[-1]
        tags = {"path": " ".join(path), "hops": str(len(path)), "entities": " / ".join(visited[:-1])}
        return Example(self.prompt(question), answer, tags)

    def _beside(self, steps: Sequence[tuple[str, str, str]], split: str, random: Random) -> list[str]:
        """Facts that are told and not needed: of the same relations and others, about people of the same split."""
        found = {(relation, one): "" for relation, one, _ in steps}
        for relation, one, _ in [step for step in steps if step[0] in self.world.told]:
            about = [(relation, other) for other in random.sample(self._entities[split], self._others)]
            about += [(random.choice(self._told), one)]
            for more, other in about:
                if (more, other) not in found:
                    to = random.choice(self.world.told[more] or [e for e in self._entities[split] if e != other])
                    found[more, other] = SENTENCES[0].format(relation=more, one=other, other=to)
        return [said for said in found.values() if said]


def known(seed: int = 0) -> Questions:
    """One known fact."""
    return Questions(seed, None, "known", 1, name="known-facts")


def told(seed: int = 0) -> Questions:
    """One told fact."""
    return Questions(seed, None, "told", 1, name="told-facts")


def real(seed: int = 0) -> Questions:
    """Facts about countries, known and told."""
    return Questions(seed, countries(), name="country-facts")


def places(seed: int = 0) -> Questions:
    """Facts about cities and countries, known and told."""
    return Questions(seed, cities(), name="city-facts")


def chemistry(seed: int = 0) -> Questions:
    """Facts about chemical elements, known and told."""
    return Questions(seed, elements(), name="element-facts")
