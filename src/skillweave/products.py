"""What a dense or a sparse change adds to a layer: S x, for rows of any number format, in fp32.

A sparse one is a matrix of compressed rows (CSR), so that a layer costs what its entries cost; for the gradient of x its
transpose is kept, too, as soon as one is asked for. A dense one costs what the layer itself costs.
"""

import warnings
from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .delta_full import Dense, Full, Sparse
from .kernels import lasting

Product = Callable[[Tensor], Tensor]
"""x (…, inside) -> S x (…, outside) in fp32."""


def product(change: Full, kind: torch.dtype) -> Product:
    """The product of `change` with what goes into its layer, on a base that computes in `kind`."""
    return DenseProduct(change, kind) if isinstance(change, Dense) else SparseProduct(change)


class DenseProduct:
    """S x with all of S; differentiable in S."""

    def __init__(self, change: Dense, kind: torch.dtype):
        self.values, self.scale = change.values.to(kind), change.scale

    def __call__(self, x: Float[Tensor, "*rows inside"]) -> Float[Tensor, "*rows outside"]:
        return F.linear(x, self.values).float() * self.scale


class SparseProduct:
    """S x over the entries of S; differentiable in x."""

    def __init__(self, change: Sparse):
        self.change = change

    def __call__(self, x: Float[Tensor, "*rows inside"]) -> Float[Tensor, "*rows outside"]:
        flat = x.reshape(-1, x.shape[-1]).float()
        return _Product.apply(flat, self).view(*x.shape[:-1], self.change.shape[0])

    @cached_property
    def rows(self) -> Tensor:
        return _compressed(self.change, turned=False)

    @cached_property
    def columns(self) -> Tensor:
        return _compressed(self.change, turned=True)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, change):
        ctx.change = change
        return (change.rows @ x.t()).t()

    @staticmethod
    def backward(ctx, up):
        return (ctx.change.columns @ up.t()).t(), None


def _compressed(change: Sparse, turned: bool) -> Tensor:
    """S, or its transpose, in compressed rows."""
    outside, inside = change.shape
    with lasting(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that CSR tensors are young
        place = change.index.long()
        at = torch.stack([place // inside, place % inside])
        values = change.values.float() * change.scale
        whole = torch.sparse_coo_tensor(
            at.flip(0) if turned else at, values, (inside, outside) if turned else (outside, inside)
        )
        return whole.coalesce().to_sparse_csr()
