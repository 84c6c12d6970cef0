"""What every run that learns from its own completions remembers and tells, whatever it makes of them."""

from collections.abc import Callable, Sequence
from typing import Any

from ..composition import Active
from .journal import Journal, Row
from .loop import Log, Run
from .rollout import Prompts, Rollout, Writer

Watch = Callable[[int, Active], Row]
"""(steps done, the model as it is) -> what the journal says beside: a held-out score now and then, say."""


def unwatched(steps: int, use: Active) -> Row:
    """Nothing."""
    return {}


class Attempts:
    """Who writes, what is asked, and the rows of the journal: what a `loop.Memory` of such a run has in any case."""

    def __init__(self, writer: Writer, prompts: Prompts, run: Run, watch: Watch = unwatched):
        self.writer, self.prompts, self.journal, self.watch = writer, prompts, Journal(run.journal), watch

    def counts(self) -> Row:
        """What has been spent so far."""
        tokens = self.writer.read + self.writer.drawn
        return {"num_tokens": tokens, "samples": self.writer.samples, "rewards/failed": self.writer.judge.failed}

    def saved(self) -> dict[str, Any]:
        """All of it as a JSON value."""
        return {"writer": self.writer.saved(), "prompts": self.prompts.saved(), "rows": self.journal.rows}

    def restore(self, saved: dict[str, Any]) -> None:
        """Be as it was when `saved` was taken."""
        self.writer.restore(saved["writer"])
        self.prompts.restore(saved["prompts"])
        self.journal.restore(saved["rows"])

    def told(self, log: Log) -> Log:
        """`log` with what only this run knows."""
        log.samples, log.drawn, log.rows = self.writer.samples, self.writer.drawn, self.journal.rows
        return log


def completions(rollouts: Sequence[Rollout]) -> Row:
    """What TRL says of completions, under its names; entropy (nats a token) is estimated from the tokens that were drawn."""
    samples = [one for rollout in rollouts for one in rollout.samples]
    lengths = [len(one.tokens) for one in samples]
    return {
        "completions/mean_length": sum(lengths) / len(lengths),
        "completions/min_length": min(lengths),
        "completions/max_length": max(lengths),
        "completions/clipped_ratio": sum(not one.ended for one in samples) / len(samples),
        "entropy": -sum(sum(one.logprobs) for one in samples) / max(1, sum(lengths)),
    }
