"""The update of a fusion after interactions were appended to its dataset."""

from collections.abc import Mapping
from dataclasses import replace

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterLike, same_tensors
from lorarec.ranking.fusion import Fusion
from lorarec.ranking.scorers import TrainedAdapter
from lorarec.recommenders import UPDATE_EPOCHS, ScorerGroup


def update_fusion(
    fusion: Fusion,
    dataset: Dataset,
    adapters: Mapping[str, AdapterLike] | None = None,
    *,
    split: Split | None = None,
    backbone: Backbone | None = None,
    epochs: int = UPDATE_EPOCHS,
    progress: bool = False,
) -> Fusion:
    """Return a fusion whose recommenders have learned from what was appended to its dataset.

    Recommenders that count or compare texts are fitted again, which gives exactly what a new fit gives. Next-item
    models are trained further (see `lorarec.recommenders.Recommender.update`); UniSRec scores new items as before. The
    weights of the last stage stay as they are.

    Args:
        fusion: Fusion of the dataset before the update.
        dataset: Dataset after the update.
        adapters: Updated adapters by the names that they have in the fusion; all others stay as they are.
        split: Split to learn from; by default the one that is stored with the dataset.
        backbone: Backbone that embeds titles for recommenders that compare texts with it.
        epochs: Number of passes of next-item models over the histories that have changed.
        progress: Whether to show progress bars.

    Raises:
        LorarecError: A recommender cannot be updated, or the fusion has no adapter of a name; nothing was trained.

    Examples:
        >>> import polars as pl
        >>> from lorarec import Dataset, fuse, split_new_interactions, update_fusion
        >>> shop = Dataset.load("data/shop")
        >>> fusion = fuse(shop, recommenders=["item-knn", "tf-idf", "popularity"])
        >>> end = shop.interactions["timestamp"].max()
        >>> grown = shop.append(shop.interactions.with_columns(pl.col("timestamp") + end))
        >>> update_fusion(fusion, grown, split=split_new_interactions(grown)).names
        ['item-knn', 'tf-idf', 'popularity']
    """
    split = load_split(dataset) if split is None else split
    before = fusion.group.data
    data = replace(
        before,
        dataset=dataset,
        split=replace(split, test={}),
        backbone=before.backbone if backbone is None else backbone,
        progress=progress,
    )
    replaced: dict[str, TrainedAdapter] = {}
    for name, adapter in (adapters or {}).items():
        present = fusion.group.recommenders.get(name)
        if not isinstance(present, TrainedAdapter):
            names = [each for each, of_name in fusion.group.recommenders.items() if isinstance(of_name, TrainedAdapter)]
            raise LorarecError(f"the fusion has no adapter {name!r}: it has {', '.join(names) or 'none'}")
        replaced[name] = TrainedAdapter(present.backbone, adapter)
    recommenders = dict(fusion.group.update(data, epochs).recommenders)
    recommenders |= {name: each.fit(data) for name, each in replaced.items()}
    group = ScorerGroup(recommenders, data)
    if not fusion.config.hold_out_validation:
        group = group.learn_validation_targets()
    record = {**fusion.record, "split": split.fingerprint, "updated_from": before.dataset.fingerprint}
    return Fusion(group, fusion.model, fusion.pool_model, fusion.config, record)


def adapter_names(fusion: Fusion, adapter: Adapter) -> list[str]:
    """Return the names under which a fusion has an adapter with the same weights."""
    present = fusion.group.recommenders.items()
    return [name for name, each in present if isinstance(each, TrainedAdapter) and same_tensors(each.adapter, adapter)]
