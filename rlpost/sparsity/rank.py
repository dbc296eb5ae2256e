r"""The numerical rank of an update, and how far its spread over rows and columns differs from chance.

The rank of Δ is the number of singular values above :math:`\tau = \max(m, n)\,\varepsilon\,\sigma_{\max}` with the ε
of float32, as in `torch.linalg.matrix_rank` and as "RL Finetunes Small Subnetworks" (arXiv 2505.11711) reports it. It
is computed without a singular value decomposition: the eigenvalues of :math:`G = \Delta\Delta^\top` are the squares of
the singular values, and by Sylvester's law of inertia the number of them above τ² is the number of positive values in D
of the factorisation :math:`G - \tau^2 I = L D L^\top`. Float64 is precise enough for the square: τ²/σ² is above 10⁻¹⁴
for every matrix with a side of at least two, and the rounding error of float64 is near 10⁻¹⁶.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import get_lapack_funcs
from torch import Tensor

_EPSILON = float(np.finfo(np.float32).eps)
_ROUNDS = 200
_SETTLED = 1e-9


def rank(delta: Tensor) -> int:
    """Numerical rank of a matrix ``[m, n]`` at the precision of float32.

    Raises:
        ValueError: if ``delta`` is no matrix, or has entries that are not finite.
    """
    if delta.dim() != 2:
        raise ValueError(f"the rank of a tensor with {delta.dim()} dimensions; use a matrix")
    largest = float(delta.abs().max()) if delta.numel() else 0.0
    if not np.isfinite(largest):
        raise ValueError("the rank of a matrix that is not finite")
    if not largest:
        return 0
    gram = _gram(delta, largest)
    limit = max(delta.shape) * _EPSILON
    gram.diagonal().sub_(limit**2 * _largest_eigenvalue(gram))
    return _positive(gram)


def _gram(delta: Tensor, scale: float) -> Tensor:
    """ΔΔᵀ/scale² or ΔᵀΔ/scale², whichever is smaller."""
    scaled = delta.double() / scale
    return scaled @ scaled.T if delta.shape[0] <= delta.shape[1] else scaled.T @ scaled


def _largest_eigenvalue(gram: Tensor) -> float:
    """Largest eigenvalue by Lanczos' method with full reorthogonalisation, until it no longer changes."""
    size = len(gram)
    basis = torch.zeros(min(_ROUNDS, size) + 1, size, dtype=gram.dtype)
    start = torch.randn(size, dtype=gram.dtype, generator=torch.Generator().manual_seed(0))
    basis[0] = start / start.norm()
    diagonal: list[float] = []
    beside: list[float] = []
    found = 0.0
    for step in range(len(basis) - 1):
        vector = gram @ basis[step]
        diagonal.append(float(vector @ basis[step]))
        for _ in range(2):
            vector -= basis[: step + 1].T @ (basis[: step + 1] @ vector)
        length = float(vector.norm())
        last, found = found, _top(diagonal, beside)
        if length <= _SETTLED * found or abs(found - last) <= _SETTLED * found:
            break
        beside.append(length)
        basis[step + 1] = vector / length
    return found


def _top(diagonal: list[float], beside: list[float]) -> float:
    matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    return float(np.linalg.eigvalsh(matrix)[-1])


def _positive(matrix: Tensor) -> int:
    """Positive eigenvalues of a symmetric matrix, which is overwritten: those of D in its LDLᵀ factorisation."""
    # LAPACK reads columns; the matrix is symmetric, so its transposed view is the same matrix and needs no copy
    held = matrix.numpy().T
    factorise, ask = get_lapack_funcs(("sytrf", "sytrf_lwork"), (held,))
    work, _ = ask(len(held), lower=1)
    factors, pivots, info = factorise(held, lower=1, lwork=int(work), overwrite_a=1)
    if info < 0:
        raise ValueError(f"LAPACK's dsytrf: argument {-info}")
    count, at = 0, 0
    while at < len(factors):
        if pivots[at] > 0:
            count += int(factors[at, at] > 0)
            at += 1
        else:  # a two by two block has one eigenvalue of each sign
            count += 1
            at += 2
    return count


@dataclass(frozen=True, slots=True)
class UpdateStructure:
    """Structure of an update to one matrix.

    Attributes:
        changed: number of entries that are not zero.
        rank: numerical rank.
        rows: dispersion by row: variance of a row's number of changed entries, relative to independent entries (1 by
            chance); None where nothing or everything has changed.
        columns: dispersion by column, in the same way; None where nothing or everything has changed.
        still_rows: share of rows without a change.
        still_columns: share of columns without a change.
    """

    changed: int
    rank: int
    rows: float | None
    columns: float | None
    still_rows: float
    still_columns: float


def update_structure(delta: Tensor) -> UpdateStructure:
    """Compute the structure of an update ``[m, n]``."""
    changed = delta != 0
    by_row, by_column = changed.sum(1).double(), changed.sum(0).double()
    density = float(changed.double().mean())
    return UpdateStructure(
        int(changed.sum()),
        rank(delta),
        _dispersion(by_row, density, delta.shape[1]),
        _dispersion(by_column, density, delta.shape[0]),
        float((by_row == 0).double().mean()),
        float((by_column == 0).double().mean()),
    )


def shuffled(delta: Tensor, seed: int) -> Tensor:
    """The same entries in random places: a random sparse update of the same density."""
    order = torch.randperm(delta.numel(), generator=torch.Generator().manual_seed(seed))
    return delta.reshape(-1)[order].reshape(delta.shape)


def _dispersion(counts: Tensor, density: float, entries: int) -> float | None:
    """Variance of ``counts`` over the binomial n p (1 − p); None where nothing or everything has changed."""
    if not 0 < density < 1:
        return None
    return float(((counts - density * entries) ** 2).mean()) / (entries * density * (1 - density))
