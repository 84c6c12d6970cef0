"""Templates: ways of asking the same question, each with its own idea of a well-formed answer (paper 39, 2602.03190).

A template is drawn for a prompt and holds for all completions of it: within a group nothing but the completions differs, or a
reward would measure how hard the template is. What stands in the prompt (`prefill`) is no merit of the completion, and earns
nothing.

    reward = score of the answer + share · format,   format in [0, 1]
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Format = Callable[[str], float]
"""A completion -> how well-formed it is, in [0, 1]."""


def _one(text: str) -> float:
    return 1.0


def _same(text: str) -> str:
    return text


@dataclass(frozen=True)
class Template:
    """One way of asking."""

    name: str
    text: str = "{prompt}"
    """What is asked; `{prompt}` stands for the prompt of the example."""
    prefill: str = ""
    """How the answer begins: written for the model, behind `text`."""
    format: Format = _one
    """Its format reward; free-form answers are all well-formed."""
    answer: Callable[[str], str] = _same
    """A completion -> the part of it that the task's verifier judges."""
    share: float = 1.0
    """Weight of the format reward beside a right answer's 1, unitless."""

    def prompt(self, asked: str) -> str:
        """The prompt `asked` in this template."""
        return self.text.replace("{prompt}", asked) + self.prefill


PLAIN = Template("plain")
"""The prompt as it is."""


def tags(names: Sequence[str], given: Sequence[str] = ()) -> Format:
    """Equal shares for the opening and the closing tag of each of `names` that stands there exactly once.

    Tags in `given` (`<think>`) were written for the model and are not counted.
    """
    wanted = [tag for name in names for tag in (f"<{name}>", f"</{name}>") if tag not in given]
    return lambda text: sum(text.count(tag) == 1 for tag in wanted) / len(wanted)


def phrase(words: str) -> Format:
    """1 where the completion has `words` in it."""
    return lambda text: float(words in text)


def after(mark: str) -> Callable[[str], str]:
    """What stands behind the last `mark`; everything where there is none."""
    return lambda text: text.rpartition(mark)[2]


def inside(name: str) -> Callable[[str], str]:
    """What stands between the last `<name>` and the `</name>` behind it; nothing where there is no such tag."""
    return lambda text: text.rpartition(f"<{name}>")[2].partition(f"</{name}>")[0] if f"<{name}>" in text else ""
