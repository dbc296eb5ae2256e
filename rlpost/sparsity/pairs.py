"""Which tensor of one checkpoint is compared with which of the other, and how much of them is not compared."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlpost.errors import DataError
from rlpost.sparsity.checkpoint import Checkpoint, open_checkpoint
from rlpost.sparsity.stored import Stored

LEAST = 0.5
"""Share of the smaller checkpoint that must have a partner: below it, two files of one model are hardly meant."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two checkpoints and the tensors they have in common.

    Attributes:
        before: checkpoint from before training.
        after: checkpoint from after training, under the names of ``before`` where they differ by a prefix.
        names: names of the tensors that are compared, in the order of ``before``.
        only_before: names that AFTER lacks.
        only_after: names that BEFORE lacks.
        left_out: tensors and files excluded from the comparison, name to reason.
        renamed: prefix before to prefix after, and the number of tensors that were matched by them.
        uncompared: entries of each checkpoint that are not compared; a head that is the embeddings is not counted.
    """

    before: Checkpoint
    after: Checkpoint
    names: tuple[str, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    left_out: dict[str, str]
    renamed: tuple[tuple[str, str, int], ...] = ()
    uncompared: tuple[int, int] = (0, 0)


def pair(before: str | Path, after: str | Path, pickles: bool = False) -> Pair:
    """Open two checkpoints for comparison.

    Args:
        before: Hugging Face folder or safetensors file.
        after: Hugging Face folder or safetensors file, or a folder with a LoRA adapter of ``before``.
        pickles: also read ``pytorch_model*.bin``, with `torch.load` restricted to weights.

    Raises:
        DataError: if one cannot be read, both are the same, most of them has no partner, or a tensor's shapes differ.
    """
    if same(before, after):
        raise DataError(f"{before} and {after} are the same; give two checkpoints")
    first = open_checkpoint(before, pickles=pickles)
    return match(first, open_checkpoint(after, first, pickles))


def same(one: str | Path, two: str | Path) -> bool:
    """Whether two paths lead to the same file or folder."""
    try:
        return os.path.samefile(one, two)
    except OSError:  # opening them raises the error with a reason
        return False


def match(first: Checkpoint, second: Checkpoint) -> Pair:
    """Pair two open checkpoints by the tensors they have in common; raises as `pair` does.

    Names that differ by a prefix only (``model.`` and ``model.language_model.``) are matched. A head that is tied in
    one checkpoint and has values of its own in the other is compared with the embeddings it was tied to.
    """
    second, renamed = _renamed(first, second)
    heads = {name: one for name, one in first.tied.items() if name in second.tensors}
    first = replace(first, tensors={**first.tensors, **heads})
    heads = {name: one for name, one in second.tied.items() if name in first.tensors and name not in second.tensors}
    second = replace(second, tensors={**second.tensors, **heads})
    names = tuple(name for name in first.tensors if name in second.tensors)
    for name in names:
        one, two = first.tensors[name].shape, second.tensors[name].shape
        if one != two:
            raise DataError(f"{name!r} is {one} in {first.path} and {two} in {second.path}; compare two of a kind")
    left_out = {n: why for n, why in {**first.left_out, **second.left_out}.items() if n not in names}
    ours, theirs = ([n for n in a.tensors if n not in b.tensors] for a, b in ((first, second), (second, first)))
    lost = tuple(one.lost + sum(one.tensors[n].size for n in odd) for one, odd in ((first, ours), (second, theirs)))
    _check_share(first, second, sum(first.tensors[name].size for name in names), (lost[0], lost[1]), ours, theirs)
    return Pair(
        first, second, names,
        tuple(n for n in ours if n not in left_out), tuple(n for n in theirs if n not in left_out), left_out,
        renamed, (lost[0], lost[1]),
    )  # fmt: skip


def _check_share(
    first: Checkpoint,
    second: Checkpoint,
    compared: int,
    lost: tuple[int, int],
    ours: Sequence[str],
    theirs: Sequence[str],
) -> None:
    """Refuse a comparison of less than `LEAST` of the smaller checkpoint."""
    smaller = min(compared + lost[0], compared + lost[1])
    if compared and compared >= LEAST * smaller:
        return
    some = [(odd or [*one.tensors, *one.left_out, "nothing"])[0] for odd, one in ((ours, first), (theirs, second))]
    what = f"share {compared:,} of {smaller:,} entries" if compared else "share no tensor"
    reason = next(iter({**first.left_out, **second.left_out}.items()), None)
    left = f"; {reason[0]} is left out: {reason[1]}" if reason else ""
    raise DataError(
        f"{first.path} and {second.path} {what} (e.g. {some[0]!r}, {some[1]!r}){left}; compare two of a kind"
    )


def _renamed(first: Checkpoint, second: Checkpoint) -> tuple[Checkpoint, tuple[tuple[str, str, int], ...]]:
    """The second checkpoint under the first one's names, where a prefix makes the difference."""
    names: dict[str, Stored] = dict(second.tensors)
    found: list[tuple[str, str, int]] = []
    while True:
        ours = {n: one for n, one in first.tensors.items() if n not in names}
        theirs = {n: one for n, one in names.items() if n not in first.tensors}
        prefixes = _prefixes(ours, theirs)
        if prefixes is None:
            return (replace(second, tensors=names) if found else second), tuple(found)
        mine, other = prefixes
        moved = 0
        for name, one in ours.items():
            if (
                name.startswith(mine)
                and (old := other + name[len(mine) :]) in theirs
                and theirs[old].shape == one.shape
            ):
                names[name] = names.pop(old)
                moved += 1
        found.append((mine, other, moved))


def _prefixes(ours: Mapping[str, Stored], theirs: Mapping[str, Stored]) -> tuple[str, str] | None:
    """The two prefixes by which most unmatched names become equal; None if there are none."""
    endings: dict[str, list[str]] = {}
    for name in theirs:
        endings.setdefault(_ending(name), []).append(name)
    votes: Counter[tuple[str, str]] = Counter()
    for name, one in ours.items():
        for other in endings.get(_ending(name), ()):
            if theirs[other].shape == one.shape:
                votes.update(_heads(name, other))
    return votes.most_common(1)[0][0] if votes else None


def _ending(name: str) -> str:
    return ".".join(name.split(".")[-2:])


def _heads(name: str, other: str) -> list[tuple[str, str]]:
    """What is left of two names before the part they share, unless it tells layers apart."""
    mine, theirs = name.split("."), other.split(".")
    while mine and theirs and mine[-1] == theirs[-1]:
        mine.pop()
        theirs.pop()
    if any(part.isdigit() for part in (*mine, *theirs)):
        return []
    return [("".join(f"{part}." for part in mine), "".join(f"{part}." for part in theirs))]
