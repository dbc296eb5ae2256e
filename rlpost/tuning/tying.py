"""Whether a model's output head and its input embeddings are one tensor."""

from __future__ import annotations

from typing import Any

from torch import nn


def tied_to_embeddings(model: Any) -> tuple[nn.Module | None, nn.Module | None]:
    """The output head and the embeddings of a model if they share one weight; twice None otherwise.

    What counts is the tensor and not ``tie_word_embeddings``: transformers 5 leaves a head that the files hold with
    other values untied whatever the configuration says.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    one, other = getattr(head, "weight", None), getattr(embeddings, "weight", None)
    return (head, embeddings) if one is not None and one is other else (None, None)
