"""CMA-ES (Hansen, 1604.00772): a search without gradients that learns the shape of what it searches.

    candidates x = m + σ N(0, C);   the better half, weighted, moves m;   two paths of its moves set σ and C

Rates and the update of m, σ and C are the defaults of that text (positive weights).
"""

import math

import numpy as np


class Evolution:
    """A population around `start`: `ask` for candidates, `tell` their scores, the lower the better."""

    def __init__(self, start: np.ndarray, spread: float, population: int, seed: int):
        n, self.population = len(start), population
        self.mean, self.spread, self.draw = start.astype(float), spread, np.random.default_rng(seed)
        raw = math.log((population + 1) / 2) - np.log(np.arange(1, population // 2 + 1))
        self.weights = raw / raw.sum()
        mass = 1 / np.square(self.weights).sum()  # how many candidates the weighted half counts for
        self.mass = mass
        self.slow = (4 + mass / n) / (n + 4 + 2 * mass / n)
        self.step = (mass + 2) / (n + mass + 5)
        self.one = 2 / ((n + 1.3) ** 2 + mass)
        self.many = min(1 - self.one, 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass))
        self.damp = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (n + 1)) - 1) + self.step
        self.usual = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))  # length of a normal draw
        self.shape, self.path, self.step_path, self.told = np.eye(n), np.zeros(n), np.zeros(n), 0

    def ask(self) -> np.ndarray:
        """The next candidates, (population, number)."""
        scales, axes = self._axes()
        normal = self.draw.standard_normal((self.population, len(self.mean)))
        return self.mean + self.spread * (normal * scales) @ axes.T

    def tell(self, candidates: np.ndarray, scores: np.ndarray) -> None:
        """What the candidates of the last `ask` are worth."""
        self.told += 1
        scales, axes = self._axes()
        best = (candidates[np.argsort(scores, kind="stable")[: len(self.weights)]] - self.mean) / self.spread
        move = self.weights @ best
        self.mean = self.mean + self.spread * move
        whitened = axes @ ((axes.T @ move) / scales)
        self.step_path = (1 - self.step) * self.step_path + math.sqrt(self.step * (2 - self.step) * self.mass) * whitened
        length = float(np.linalg.norm(self.step_path))
        settled = math.sqrt(1 - (1 - self.step) ** (2 * self.told))
        calm = length / settled < (1.4 + 2 / (len(self.mean) + 1)) * self.usual
        self.path = (1 - self.slow) * self.path + calm * math.sqrt(self.slow * (2 - self.slow) * self.mass) * move
        lost = self.one * (not calm) * self.slow * (2 - self.slow)
        self.shape = (
            (1 - self.one - self.many + lost) * self.shape
            + self.one * np.outer(self.path, self.path)
            + self.many * (best.T * self.weights) @ best
        )
        self.spread *= math.exp(min(1.0, self.step / self.damp * (length / self.usual - 1)))

    def _axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviations and directions of the population's ellipsoid."""
        squares, axes = np.linalg.eigh((self.shape + self.shape.T) / 2)
        return np.sqrt(np.maximum(squares, 1e-20)), axes
