"""The update of an index after interactions were appended to its dataset."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from lorarec.backbone import SentenceEncoder
from lorarec.data import HISTORY, ITEM, Dataset, histories_of
from lorarec.errors import LorarecError
from lorarec.recommenders import UPDATE_EPOCHS, NextItemModel, continue_next_item, encode_lists, interaction_matrix
from lorarec.retrieval.cooccurrence_source import CooccurrenceSource
from lorarec.retrieval.index import TOGETHER, Index, next_item_config


def update_index(
    index: Index,
    dataset: Dataset,
    previous: Dataset,
    *,
    epochs: int = UPDATE_EPOCHS,
    cache_dir: Path | None = None,
    progress: bool = False,
) -> Index:
    """Return the index of a dataset to which interactions were appended.

    What is counted or computed from titles is that of a new index, with sequential rules. A next-item model is trained
    further on the histories that have changed, with the options and the seed of its training; items without
    interactions before the update get a vector.

    Args:
        index: Index of the dataset before the update.
        dataset: Dataset after the update.
        previous: Dataset before the update.
        epochs: Number of passes of the next-item model over the histories that have changed.
        cache_dir: Folder in which embeddings of titles are stored and found again.
        progress: Whether to show a progress bar.

    Raises:
        LorarecError: The index was built of another dataset or of a part of it, or its text encoder has changed or is
            missing.

    Examples:
        >>> import polars as pl
        >>> from lorarec import Dataset, Index, update_index
        >>> shop = Dataset.load("data/shop")
        >>> end = shop.interactions["timestamp"].max()
        >>> grown = shop.append(shop.interactions.with_columns(pl.col("timestamp") + end))
        >>> update_index(Index.build(shop), grown, shop).record["updated_from"] == shop.fingerprint
        True
    """
    check_index_update(index, previous)
    encoder, options = index.record.get("text_encoder"), index.record["options"] or {}
    seed = options.get("seed", 42)
    updated = Index.build(
        dataset,
        model=None if index.next_item is None else _continued_model(index, dataset, previous, epochs, progress),
        text_encoder=encoder["id"] if encoder else None,
        cache_dir=cache_dir,
        seed=seed,
        progress=progress,
    )
    updated.record |= {"options": index.record["options"], "updated_from": previous.fingerprint}
    return updated


def check_index_update(index: Index, previous: Dataset) -> None:
    """Check that an index can be updated, before anything is written.

    Args:
        index: Index of the dataset before the update.
        previous: Dataset before the update.

    Raises:
        LorarecError: As for `update_index`.
    """
    _refuse_other_histories(index, previous)
    encoder = index.record.get("text_encoder")
    if encoder and (found := SentenceEncoder.from_pretrained(encoder["id"]).fingerprint) != encoder["fingerprint"]:
        raise LorarecError(
            f"the text encoder {encoder['id']} is {found} now, and the index was built with {encoder['fingerprint']}: "
            "build it again with `lorarec index`"
        )


def _continued_model(index: Index, dataset: Dataset, previous: Dataset, epochs: int, progress: bool) -> NextItemModel:
    """Train a copy of the next-item model of an index further; its items are those with interactions, in order."""
    assert index.next_item is not None
    options = index.record["options"]
    known = {index.items[row]: number for number, row in enumerate(index.next_item.rows)}
    before, after = (dict(histories_of(each.interactions).iter_rows()) for each in (previous, dataset))
    chosen = dataset.interactions[ITEM].unique().sort().to_list()
    place = {item: number for number, item in enumerate(chosen)}
    changed = [history for user, history in after.items() if before.get(user) != history]
    return continue_next_item(
        index.next_item.model,
        np.array([known.get(item, -1) for item in chosen], np.int64),
        [np.array([place[item] for item in history], np.int64) for history in changed],
        replace(next_item_config(options), epochs=epochs),
        options.get("seed", 42),
        progress=progress,
    )


def _refuse_other_histories(index: Index, dataset: Dataset) -> None:
    """Refuse an index that was not built of all interactions of a dataset, or whose options are not known.

    Raises:
        LorarecError: It is one.
    """
    source = index.sources[TOGETHER]
    assert isinstance(source, CooccurrenceSource)
    rows, lengths = encode_lists(histories_of(dataset.interactions)[HISTORY], dataset.items[ITEM])
    chosen = interaction_matrix(rows, lengths, len(dataset.items))
    if (
        index.record["dataset_fingerprint"] != dataset.fingerprint
        or source.items_of.shape != chosen.shape
        or (source.items_of != chosen).nnz
        or (index.next_item and not index.record["options"])
    ):
        raise LorarecError(
            f"the index was not built by `lorarec index` of all interactions of {dataset.name} "
            f"({dataset.fingerprint}): build it again"
        )
