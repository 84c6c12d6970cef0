"""Text that every installation has, the documentation of Python and its standard library, and a model's perplexity on it."""

import ast
import math
import random
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from ..base import Base
from ..files import sha256_json
from ..task import split_of
from .choice import log_probabilities

SHORTEST = 300
"""Characters of the shortest text that is taken."""
TWINS = 40
"""Characters: texts that begin with the same ones are never in two splits."""
WINDOW = 192
"""Tokens of a text that are read, from its beginning."""


@cache
def documentation() -> tuple[str, ...]:
    """Every docstring of the modules of the standard library, in the order of the alphabet; it depends on Python's version."""
    home = Path(ast.__file__).parent
    found = set()
    for name in sorted(sys.stdlib_module_names):
        file = home / f"{name}.py"
        file = file if file.is_file() else home / name / "__init__.py"
        if not name.startswith("_") and file.is_file():
            found |= {text for node in ast.walk(ast.parse(file.read_bytes())) if (text := _docstring(node))}
    return tuple(sorted(found))


def _docstring(node: ast.AST) -> str:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return (isinstance(node, kinds) and ast.get_docstring(node)) or ""


@cache
def paragraphs() -> tuple[str, ...]:
    """Prose of Python's language reference as `help()` has it, each paragraph on one line; empty where Python came without.

    It is read in milliseconds, and shares no text with the docstrings.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return ()
    parts = {" ".join(part.split()) for text in topics.values() for part in text.split("\n\n")}
    return tuple(sorted(p for p in parts if len(p) >= SHORTEST and p[0].isalpha()))


def sample(n: int, seed: int) -> list[str]:
    """`n` texts of at least `SHORTEST` characters."""
    return random.Random(f"text/{seed}").sample([text for text in documentation() if len(text) >= SHORTEST], n)


def documentation_of(split: str) -> list[str]:
    """The docstrings of one split (train, valid, test): a hash of their beginning decides, so that twins stay together."""
    return [text for text in documentation() if split_of(text[:TWINS]) == split]


def digest(texts: Sequence[str]) -> str:
    """What tells one sample from another: 12 hex digits."""
    return sha256_json(list(texts))[:12]


def perplexity(base: Base, texts: Sequence[str], batch: int = 16) -> float:
    """exp of the mean nats per token over the first `WINDOW` tokens of each text."""
    order = sorted(texts, key=lambda text: len(base.encode(text, start=True)[: WINDOW + 1]))
    found = [pair for at in range(0, len(order), batch) for pair in nats(base, order[at : at + batch], WINDOW)]
    total, count = (sum(part) for part in zip(*found, strict=True))
    return math.exp(min(total / count, 100.0))  # of a ruined model: large, but a number


@torch.inference_mode()
def nats(base: Base, texts: Sequence[str], most: int) -> list[tuple[float, int]]:
    """Of each text the nats of its first `most` tokens, and how many these are; all texts are one batch."""
    most = min(most, base.window - 1)
    rows = [base.encode(text, start=True)[: most + 1] for text in texts]
    width = max(map(len, rows)) - 1
    tokens = torch.tensor([row[:-1] + [base.pad] * (width + 1 - len(row)) for row in rows])
    own = torch.tensor([[j < len(row) - 1 for j in range(width)] for row in rows])
    labels = torch.tensor([token for row in rows for token in row[1:]])
    each = log_probabilities(base, base.hidden(tokens)[own], labels[:, None])[:, 0].double()
    counts = [len(row) - 1 for row in rows]
    return [(-part.sum().item(), count) for part, count in zip(each.split(counts), counts, strict=True)]
