"""Generated conversations whose teacher's lists went through Remap and Adjust: rows for a supervised warm start."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rlpost.errors import UserError
from rlpost_verifiers.catalog.conversations import rows as conversations
from rlpost_verifiers.catalog.demonstrations import DemonstrationSettings, Embed, Remapper, demonstrate
from rlpost_verifiers.catalog.embedding import DEFAULT, Embedder
from rlpost_verifiers.catalog.verifier import CatalogVerifier

_log = logging.getLogger(__name__)


def rows(
    penalty: float = 1e-4,
    fitted: int = 5000,
    embedder: str = DEFAULT,
    catalog: str | None = None,
    items: int | None = 300,
    places: int = 10,
    asked: int | None = None,
    ending: str = "",
    columns: Mapping[str, str] | None = None,
    **arguments: Any,
) -> list[dict[str, Any]]:
    """The data source ``catalog_demonstrations``.

    The teacher's list of each conversation becomes scores over the catalog by position and by the similarity of item
    descriptions, and a scale and a bias per item are fitted to what the users of these rows wanted; see
    `rlpost_verifiers.catalog.remap`. The teacher's errors per item are what the adjustment can mend, those per user are
    not. The teacher is not asked to rate (Reflect), and the conversation's similarity to items is not used.

    Args:
        penalty: weight of the adjustment's distance from the identity.
        fitted: largest number of conversations it is fitted to.
        embedder: sentence-transformers model of the item descriptions; see `embedding.Embedder`.
        catalog: as in `rlpost_verifiers.catalog.conversations.rows`.
        items: as there.
        places: length of a demonstration.
        asked: length of the list that the teacher is asked for; None: ``places``. An item that the teacher wrongs is
            far down in its list, and the adjustment can raise only what the list holds.
        ending: text behind the last item, such as a line break: the last item's tokens are then those of the others.
        columns: as there.
        arguments: its other arguments.

    Raises:
        MissingPackageError: without the extra ``remap``.
        UserError: for a number out of range.
    """
    if asked is not None and asked < places:
        raise UserError(f"catalog_demonstrations: asked is {asked}; give places, {places}, or more")
    made = conversations(catalog=catalog, items=items, places=asked or places, columns=columns, **arguments)
    settings = DemonstrationSettings(size=places, conversation=0.0, penalty=penalty, fitted=fitted)
    remapper = _Named(CatalogVerifier(catalog, columns, items=items), Embedder(embedder), settings)
    by_id = {row["id"]: row for row in made}
    found = demonstrate(by_id, {name: row["completion"] for name, row in by_id.items()}, remapper)
    figures = ", ".join(
        f"{stage} {found.figures[f'{stage} ndcg@{places}']:.3f}"
        for stage in ("teacher", "remap", "adjust")
        if f"{stage} ndcg@{places}" in found.figures
    )
    _log.info("catalog_demonstrations: nDCG@%d of the lists on held-out conversations: %s", places, figures)
    return [{**row, "completion": row["completion"] + ending} for row in found.rows]


class _Named(Remapper):
    """Reads lists of which each line is an item's own name, as generated teachers write them: at a fiftieth of what it
    costs to read the lists of models.
    """

    def __init__(self, verifier: CatalogVerifier, embed: Embed, settings: DemonstrationSettings):
        super().__init__(verifier, embed, settings)
        store = verifier.catalog.store
        self._places = {store.name(place): place for place in reversed(range(len(store)))}

    def matches(self, answer: str) -> list[tuple[str, int | None]]:
        """See `Remapper.matches`."""
        return [(name, self._places[name]) for name in answer.split("\n")]
