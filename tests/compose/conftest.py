"""Shared by the methods whose strengths depend on the input: a base and three skills that each have one thing to say."""

import pytest

from skillweave.task import Example

SAYS = {"a": "ga", "b": "hb", "c": "cc"}


@pytest.fixture(scope="session")
def prompts():
    """Every word of three letters of the base."""
    return [x + y + z for x in "abcdefgh" for y in "abcdefgh" for z in "abcdefgh"]


@pytest.fixture(scope="session")
def taught(loud, prompts):
    """A base, and the skills `a`, `b` and `c` on it: each says the same to everyone, and their sum says none of it."""
    from skillweave.learn.sft import SFT

    base = loud(alphabet="abcdefgh")
    method = SFT(steps=60, batch=8, lr=1e-2, rank=2)
    fit = {k: method.fit(base, [Example(p, says) for p in prompts[::7]], 1)[0] for k, says in SAYS.items()}
    return base, fit


@pytest.fixture(scope="session")
def divided(prompts):
    """Examples of which skill `a` has those whose prompts begin with a, b, c or d, and `b` the others."""
    return [Example(prompt, SAYS["a" if prompt[0] in "abcd" else "b"]) for prompt in prompts[::3]]
