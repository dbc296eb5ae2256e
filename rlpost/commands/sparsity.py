"""``rlpost sparsity``, ``rlpost overlap`` and ``rlpost mask``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlpost.errors import DataError, UserError

Add = Callable[..., argparse.ArgumentParser]


def add_sparsity(add: Add) -> None:
    """Declare the commands; ``add`` is the function of that name in `rlpost.cli.parser`."""
    command = add(
        "sparsity", _sparsity, "what changed between two checkpoints, beside what noise changes", config=False
    )
    command.add_argument("before", help="Hugging Face folder or safetensors file")
    command.add_argument("after", help="the same, or a LoRA adapter's folder")
    command.add_argument("--tolerance", type=float, default=1e-5, help="largest |Δ| that counts as unchanged (1e-5)")
    command.add_argument(
        "--by", action="append", choices=["module", "layer", "tensor"], help="tables to print (module)"
    )
    command.add_argument("--matrices", default="4", metavar="N", help="how many to find the rank of, or all (4)")
    command.add_argument("--mask-out", metavar="FILE", help="write a mask of the changed entries")
    command.add_argument("--html", metavar="FILE", help="write everything with pictures as one page")
    command.add_argument("--plots", metavar="DIR", help="write the pictures by themselves, SVG and PNG")
    _reading(command)
    null = command.add_argument_group("null model", "how the weights were trained; without it, fitted to the pair")
    null.add_argument("--lr", type=float, help="peak learning rate")
    null.add_argument("--steps", type=int, help="optimizer updates")
    null.add_argument("--optimizer", choices=["adamw", "sgd"], default="adamw")
    null.add_argument("--betas", type=float, nargs=2, default=(0.9, 0.999), metavar=("B1", "B2"))
    null.add_argument("--weight-decay", type=float, default=0.0)
    null.add_argument("--snr", type=float, default=0.0, help="mean over standard deviation of gradients (0)")
    null.add_argument("--gradient", type=float, help="standard deviation of gradients, for sgd")
    null.add_argument("--schedule", choices=["constant", "linear", "cosine"], default="constant")
    null.add_argument("--warmup", type=int, default=0, help="updates of linear warmup")
    null.add_argument("--masters", choices=["float32", "bfloat16"], default="float32")
    command = add("overlap", _overlap, "entries that several runs from one start changed in common", config=False)
    command.add_argument("runs", nargs="+", metavar="AFTER", help="checkpoints, two or more")
    command.add_argument("--base", required=True, metavar="BEFORE", help="what they started from")
    command.add_argument("--plots", metavar="DIR", help="write the matrix as a picture")
    _reading(command)
    _add_mask(add)


def _reading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--pickle", action="store_true", help="read pytorch_model*.bin too, as tensors only")
    command.add_argument("--threads", type=int, help="(one for each core)")


def _add_mask(add: Add) -> None:
    command = add("mask", _mask, "masks: combine, thin out, compare", config=False)
    command.add_argument("verb", choices=["show", "union", "intersection", "complement", "thin", "random"])
    command.add_argument("files", nargs="+", metavar="MASK", help="one, or for union and intersection two")
    command.add_argument("--output", metavar="FILE", help="mask to write")
    command.add_argument("--density", type=float, help="share of each tensor that thin leaves")
    command.add_argument("--seed", type=int, default=0, help="of thin and random (as many entries per tensor)")


def _sparsity(arguments: argparse.Namespace) -> None:
    from rlpost.sparsity.analysis import sparsity
    from rlpost.sparsity.compare import Compared
    from rlpost.sparsity.counting import CHANGED
    from rlpost.sparsity.expected import Training

    if not 0 <= arguments.tolerance < math.inf:
        raise UserError(f"sparsity: --tolerance is {arguments.tolerance:g}; use 0 or more")
    _check_threads(arguments)
    _check_places(arguments)
    by = arguments.by or ["module"]

    def show(item: Compared) -> None:
        if "tensor" in by and not arguments.json:
            share = 1 - int(item.counts.tally[CHANGED]) / max(item.size, 1)
            print(f"{item.name}  {'×'.join(map(str, item.shape))}  unchanged {share:.6f}", flush=True)

    names = [field.name for field in dataclasses.fields(Training) if field.name != "seed"]
    settings = {name: getattr(arguments, name) for name in names}
    found = sparsity(
        arguments.before,
        arguments.after,
        training=Training(**{**settings, "betas": tuple(arguments.betas)}),
        atol=arguments.tolerance,
        matrices=_count(arguments.matrices),
        mask_out=arguments.mask_out,
        pickles=arguments.pickle,
        threads=arguments.threads,
        on_tensor=show,
    )
    written: list[Path] = []
    if arguments.html or arguments.plots:
        from rlpost.sparsity.plots import pictures, write_page

        if arguments.plots:
            written += pictures(found, Path(arguments.plots))
        if arguments.html:
            written.append(write_page(found, Path(arguments.html)))
    if arguments.json:
        print(json.dumps({**found.document(), "files": [str(file) for file in written]}, ensure_ascii=False))
        return
    from rlpost.sparsity.render import render, wide_console

    console = wide_console()
    for item in render(found, by):
        console.print(item, highlight=False, markup=False, soft_wrap=isinstance(item, str))
    for file in [*written, *([arguments.mask_out] if arguments.mask_out else [])]:
        print(file)


def _check_threads(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None and arguments.threads < 1:
        raise UserError(f"--threads is {arguments.threads}; use 1 or more")


def _check_places(arguments: argparse.Namespace) -> None:
    """Check the output paths before the work, not after it."""
    if arguments.plots and Path(arguments.plots).exists() and not Path(arguments.plots).is_dir():
        raise UserError(f"--plots: {arguments.plots} is a file; name a folder")
    page = getattr(arguments, "html", None)
    if page and Path(page).is_dir():
        raise UserError(f"--html: {page} is a folder; name a file")


def _count(text: str) -> int | None:
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"sparsity: --matrices is {text!r}; use a number, 0 for none, or all")
    return int(text)


def _overlap(arguments: argparse.Namespace) -> None:
    from rlpost.sparsity.overlap import overlaps

    _check_threads(arguments)
    _check_places(arguments)
    found, left_out = overlaps(arguments.base, arguments.runs, arguments.pickle, arguments.threads)
    written: list[Path] = []
    if arguments.plots:
        from rlpost.sparsity.plots import overlap_matrix

        written = overlap_matrix(found, Path(arguments.plots))
    if arguments.json:
        pairs = [
            {**dataclasses.asdict(one), "chance": {kind: one.chance(kind) for kind in one.expected}} for one in found
        ]
        print(
            json.dumps({"base": arguments.base, "pairs": pairs, "left_out": left_out, "files": list(map(str, written))})
        )
        return
    from rlpost.sparsity.render import render_overlap, wide_console

    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    wide_console().print(render_overlap(found), highlight=False)
    for file in written:
        print(file)


def _mask(arguments: argparse.Namespace) -> None:
    from safetensors import SafetensorError

    from rlpost.tuning import masks

    if arguments.seed < 0:
        raise UserError(f"mask {arguments.verb}: --seed is {arguments.seed}; use 0 or more")
    wanted = 2 if arguments.verb in ("union", "intersection") else 1
    if arguments.verb == "show":
        wanted = min(len(arguments.files), 2)
    if len(arguments.files) != wanted:
        raise UserError(f"mask {arguments.verb}: {len(arguments.files)} masks; give {wanted}")
    given = [masks.load(file) for file in arguments.files]
    if arguments.verb == "show":
        _show(given, arguments)
        return
    if not arguments.output:
        raise UserError(f"mask {arguments.verb}: no --output; name the file to write")
    made = _made(arguments, given)
    try:
        masks.save(made, arguments.output)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{arguments.output}: cannot be written ({error}); give another place") from None
    summary = {"file": arguments.output, "entries": made.count, "density": made.density, "unshared": _unshared(given)}
    if arguments.json:
        print(json.dumps(summary))
        return
    _say_unshared(arguments.files, given)
    print(f"{made.count:,} entries, density {made.density:.4f}: {arguments.output}")


def _unshared(given: list[Any]) -> list[list[str]]:
    """For each of two masks the tensors that the other one does not name; none for one mask."""
    if len(given) != 2:
        return []
    names = [set(one.tensors) for one in given]
    return [sorted(names[0] - names[1]), sorted(names[1] - names[0])]


def _say_unshared(files: list[str], given: list[Any]) -> None:
    for file, names in zip(files, _unshared(given), strict=False):
        if names:
            print(f"{file}: {len(names)} tensors are in this mask only, e.g. {names[0]}")


def _made(arguments: argparse.Namespace, given: list[Any]) -> Any:
    from rlpost.tuning import masks

    match arguments.verb:
        case "union":
            return masks.union(*given)
        case "intersection":
            return masks.intersection(*given)
        case "complement":
            return masks.complement(given[0])
    if arguments.verb == "thin":
        if arguments.density is None:
            raise UserError("mask thin: no --density; give the share of each tensor to keep")
        try:
            return masks.thin(given[0], arguments.density, arguments.seed)
        except ValueError as error:
            raise UserError(f"mask thin: {error}") from None
    shapes = {name: bits.shape for name, bits in given[0].tensors.items() if bits.count}
    shares = {name: bits.count / bits.size for name, bits in given[0].tensors.items() if bits.count}
    made = {"mask": "random", "seed": arguments.seed, "like": str(arguments.files[0])}
    return masks.Mask(masks.random(shapes, shares, arguments.seed), given[0].base, made)


def _show(given: list[Any], arguments: argparse.Namespace) -> None:
    from rlpost.tuning import masks

    document: dict[str, Any] = {
        "masks": [
            {
                "entries": one.count,
                "density": one.density,
                "tensors": len(one.tensors),
                "base": one.base,
                "made": one.made,
            }
            for one in given
        ]
    }
    if len(given) == 2:
        document["agreement"] = dataclasses.asdict(masks.agreement(*given))
        document["unshared"] = _unshared(given)
    if arguments.json:
        print(json.dumps(document))
        return
    for file, one in zip(arguments.files, given, strict=True):
        print(
            f"{file}: {one.count:,} entries of {len(one.tensors)} tensors, density {one.density:.4f}; "
            f"{json.dumps(dict(one.made))}"
        )
    _say_unshared(arguments.files, given)
    if len(given) == 2:
        both = masks.agreement(*given)
        print(
            f"in both: {both.both:,} ({both.first:.4f} and {both.second:.4f} of each), "
            f"by chance {both.chance:,.0f} ± {both.error:,.0f}"
        )
