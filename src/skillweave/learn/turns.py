"""Conversations to learn from, and frozen executors: what is said between or after what the model writes, and is never learned.

    planner → plan → executor → answer → verifier       one turn; the plan is learned (paper 9, 2508.20096)
    turn 1 → reply → turn 2 → …                         each turn is learned by what it earned itself (paper 22, 2512.17102)

Each turn is a completion of its own: it has been drawn behind all that was said before it, and only its own tokens are labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..composition import Active
from ..errors import BadOption
from ..task import Example
from .sampling import Sample

Executor = Callable[[Sequence[Example], Sequence[str]], Sequence[str]]
"""(examples, what was written for each) -> what a frozen executor makes of each: that is judged in its place."""
Talk = tuple[Sample, ...]
"""The turns of one conversation that the model wrote."""


@dataclass(frozen=True)
class Frozen:
    """Another model, or one with skills, as executor: it answers greedily and does not learn."""

    use: Active
    template: str = "{prompt}{plan}\n"
    """What it is asked: `{prompt}` stands for that of the example, `{plan}` for what was written."""
    tokens: int = 32
    """Most tokens of an answer."""

    def __call__(self, examples: Sequence[Example], plans: Sequence[str]) -> list[str]:
        filled = [self.template.replace("{plan}", plan) for plan in plans]
        asked = [text.replace("{prompt}", example.prompt) for text, example in zip(filled, examples, strict=True)]
        return self.use.generate(asked, self.tokens)


def each(function: Callable[[Example, str], str]) -> Executor:
    """An executor that does `function` to one after the other; where it fails, the answer is empty."""

    def run(example: Example, said: str) -> str:
        try:
            return function(example, said)
        except Exception:
            return ""

    return lambda examples, texts: [run(*pair) for pair in zip(examples, texts, strict=True)]


@dataclass(frozen=True)
class Turns:
    """How a conversation goes on, and what each of its turns earned."""

    reply: Callable[[Example, tuple[str, ...]], str | None]
    """(an example, what the model said so far, a text a turn) -> what stands before its next turn; None: it is over."""
    reward: Callable[[Example, Sequence[Talk]], Sequence[Sequence[float]]] | None = None
    """(an example, all conversations about it) -> what each turn of each earned; None: all of them what the last one scores."""
    most: int = 4
    """Turns of a conversation at most."""

    def __post_init__(self) -> None:
        if self.most < 1:
            raise BadOption(f"most is {self.most}, but a conversation has at least 1 turn.")

    def converse(
        self,
        talks: "Sequence[Conversation]",
        write: Callable[[int, Sequence[str], Sequence[float]], Sequence[Sample]],
        fault: Callable[[Exception, int], None],
    ) -> None:
        """Let each of `talks` have its further turns: `write(turn, texts, temperatures)`. One whose reply fails is over."""
        for turn in range(1, self.most):
            talks = [talk for talk in talks if self._replied(talk, fault)]
            if not talks:
                return
            written = write(turn, [talk.asked[-1] for talk in talks], [talk.temperature for talk in talks])
            for talk, one in zip(talks, written, strict=True):
                talk.said.append(one)

    def _replied(self, talk: "Conversation", fault: Callable[[Exception, int], None]) -> bool:
        try:
            reply = self.reply(talk.example, tuple(one.text for one in talk.said))
        except Exception as error:
            fault(error, 1)
            return False
        if reply is not None:
            talk.asked.append(talk.asked[-1] + talk.said[-1].text + reply)
        return reply is not None


@dataclass
class Conversation:
    """One that goes on."""

    example: Example
    temperature: float
    asked: list[str]
    """All that stands before each turn."""
    said: list[Sample]
    """The turns."""
