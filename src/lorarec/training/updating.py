"""Training of an adapter on what was appended to its dataset."""

from dataclasses import fields, replace
from pathlib import Path

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, load_split, mark_new_cases
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterLike, AdapterRecord, prompt_config, read_adapter
from lorarec.training.cases import IndexBuilder
from lorarec.training.config import AdapterUpdateConfig, TrainingConfig
from lorarec.training.run import train


def update_adapter(
    backbone: Backbone,
    adapter: AdapterLike,
    dataset: Dataset | tuple[Dataset, Split],
    previous: Dataset | tuple[Dataset, Split],
    out: str | Path,
    config: AdapterUpdateConfig | None = None,
    *,
    build_index: IndexBuilder | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Adapter:
    """Train an adapter further on what is new in its dataset, and write the result as a new adapter.

    The training cases are those whose target was not in the training part before the update; histories and evidence are
    those of the whole dataset. A proximal term keeps the weights near those of the adapter, so that it forgets less of
    what it learned before: the loss is that of its training plus proximal / 2 * ||theta - theta_last||^2 over all LoRA
    weights. A single adapter that goes on from its last state under such a term is the idea of PESO (arXiv
    2510.25093).

    Args:
        backbone: Backbone of the adapter.
        adapter: Adapter that `train` or this function made of the previous dataset.
        dataset: Dataset after the update; its split is the one that is stored with it.
        previous: Dataset before the update, with the split that the adapter was trained on.
        out: Path of the adapter folder to write.
        config: Options.
        build_index: Function that makes the index for hard negatives; see `train`.
        resume: Continue from the last checkpoint of an interrupted run, if there is one.
        overwrite: Replace an adapter at `out`.
        progress: Show a progress bar on standard error.

    Raises:
        LorarecError: If the adapter was not trained on the previous dataset and its split, is a mixture, or belongs to
            another backbone; if there are no new training cases; or as for `train`.

    Examples:
        >>> import polars as pl
        >>> from lorarec import AdapterUpdateConfig, Backbone, Dataset, TrainingConfig
        >>> from lorarec import split_new_interactions, train, update_adapter
        >>> shop, backbone = Dataset.load("data/shop"), Backbone.from_pretrained("embedded")
        >>> config = TrainingConfig(samples=8, batch_size=4, negatives=3, epochs=1, eval_users=0)
        >>> adapter = train(backbone, [shop], "adapters/before", config)
        >>> end = shop.interactions["timestamp"].max()
        >>> log = shop.interactions.with_columns(pl.col("timestamp") + end)
        >>> grown = shop.append(log)
        >>> pair = grown, split_new_interactions(grown)
        >>> config = AdapterUpdateConfig(samples=4)
        >>> update_adapter(backbone, adapter, pair, shop, "adapters/after", config).folder.name
        'after'
    """
    config = config or AdapterUpdateConfig()
    adapter = read_adapter(adapter, backbone)
    (after, split), (before, previous_split) = (
        (item, load_split(item)) if isinstance(item, Dataset) else item for item in (dataset, previous)
    )
    trained_config = recorded_config(adapter)
    check_adapter_update(adapter, before, previous_split)
    options = replace(
        trained_config,
        proximal=config.proximal,
        samples=config.samples,
        eval_steps=None,
        learning_rate=config.learning_rate or trained_config.learning_rate,
    )
    return train(
        backbone,
        [(after, mark_new_cases(split, previous_split))],
        out,
        options,
        start_from=adapter,
        build_index=build_index,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    )


def recorded_config(adapter: Adapter) -> TrainingConfig:
    """Return the options that an adapter was trained with; those that its record does not have are the defaults.

    Raises:
        LorarecError: If it has no record, or is a mixture, which was not trained itself.
    """
    record = adapter.record
    if record is None:
        raise LorarecError(f"adapter {adapter.source} has no record of its training: continue it with `lorarec train`")
    if record.mix is not None or record.personal is not None:
        raise LorarecError(f"adapter {adapter.source} is a mixture: update its parts, and mix again")
    known = {each.name for each in fields(TrainingConfig)}
    prompt = prompt_config(adapter)
    options = {name: value for name, value in record.options.items() if name in known}
    return TrainingConfig(**vars(prompt) | options)


def check_adapter_update(adapter: Adapter, dataset: Dataset, split: Split) -> None:
    """Check that an adapter can be trained further on what is appended to a dataset, before anything is written.

    Args:
        adapter: The adapter.
        dataset: The dataset before the update.
        split: The split of that dataset on which the adapter was trained.

    Raises:
        LorarecError: The adapter has no record, is a mixture, or was not trained on this dataset and split.
    """
    recorded_config(adapter)
    trained = (adapter.record or AdapterRecord()).datasets
    if not any(each.get("fingerprint") == dataset.fingerprint for each in trained):
        names = ", ".join(f"{each.get('name')} ({each.get('fingerprint')})" for each in trained) or "no dataset"
        raise LorarecError(
            f"adapter {adapter.source} was trained on {names}, not on {dataset.name} ({dataset.fingerprint}), "
            "which is the dataset before the update: give an adapter of that dataset"
        )
    if not any((each.get("fingerprint"), each.get("split")) == (dataset.fingerprint, split.cases) for each in trained):
        raise LorarecError(
            f"adapter {adapter.source} was trained on another split of {dataset.name} than {split.cases}, so its new "
            "training cases are not known: train it on the stored split"
        )
