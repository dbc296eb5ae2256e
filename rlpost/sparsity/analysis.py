"""The comparison of two checkpoints: from two paths to findings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rlpost.sparsity.compare import Compared, compare
from rlpost.sparsity.expected import Training, chance
from rlpost.sparsity.findings import Findings, findings
from rlpost.sparsity.maskfile import MaskFile
from rlpost.sparsity.matrices import inspect_matrices, sample
from rlpost.sparsity.pairs import pair


def sparsity(
    before: str | Path,
    after: str | Path,
    *,
    training: Training | None = None,
    atol: float = 1e-5,
    matrices: int | None = 4,
    mask_out: str | Path | None = None,
    pickles: bool = False,
    threads: int | None = None,
    on_tensor: Callable[[Compared], object] | None = None,
) -> Findings:
    """What changed between two checkpoints, next to what noise would have changed.

    Args:
        before: Hugging Face folder or safetensors file.
        after: Hugging Face folder or safetensors file, or a folder with a LoRA adapter of ``before``.
        training: learning rate, steps and optimizer of the training between the two, as far as known, for the null
            model.
        atol: tolerance: largest |Δ| that ``within_atol`` counts as no change.
        matrices: number of matrices inspected as a whole, rank included; None: all of at most 2²⁴ entries.
        mask_out: safetensors file to write a mask of the changed entries into.
        pickles: also read ``pytorch_model*.bin``.
        threads: counting threads; None: one per core.
        on_tensor: called with the counts of each tensor as soon as they are complete.

    Raises:
        DataError: if a checkpoint cannot be read, or they do not belong together.
    """
    both = pair(before, after, pickles)
    mask = MaskFile(mask_out, both) if mask_out is not None else None
    items: list[Compared] = []
    try:
        for item in compare(both, atol, threads, mask.put if mask else None):
            items.append(item)
            if on_tensor is not None:
                on_tensor(item)
        if mask is not None:
            mask.finish({"mask": "difference", "before": str(before), "after": str(after), "of": "bfloat16 casts"})
    finally:
        if mask is not None:
            mask.close()
    model = chance(items, training or Training(), atol)
    return findings(both, items, model, atol, inspect_matrices(both, sample(both, matrices), model))
