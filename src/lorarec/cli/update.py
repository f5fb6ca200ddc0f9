"""The verb `update`: new events go into a dataset and what was made of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import config_options
from lorarec.cli.options import (
    WITH_RESUME,
    AsJson,
    DatasetFolder,
    Overwrite,
    Resume,
    continued_by,
    load_backbone,
    refuse_given,
    require_fusion,
    require_index,
)
from lorarec.cli.output import print_values
from lorarec.cli.table_options import TableOptions
from lorarec.data import (
    Dataset,
    Split,
    append_raw_log,
    load_split,
    moment_text,
    read_table,
    refuse_unseen_without_items,
    split_new_interactions,
)
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, Progress, read_json, refuse_existing
from lorarec.recommenders import UPDATE_EPOCHS
from lorarec.training import AdapterUpdateConfig

if TYPE_CHECKING:
    from lorarec.backbone import Backbone
    from lorarec.ranking import Fusion

#: Options of the split that an update takes over from the split before it.
KEPT_SPLIT_OPTIONS = ("negatives", "seed", "max_history")


@dataclass(frozen=True)
class _Output:
    """A folder that the command writes.

    Attributes:
        folder: Path of the folder.
        kind: Kind of the folder.
        made_of: Function from the contents of its record to the fingerprint of the dataset that it was made of.
    """

    folder: Path
    kind: FolderKind
    made_of: Callable[[Any], Any]

    def refuse(self, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that exists, unless it is overwritten or may be finished already."""
        if not (resume and (self.folder / self.kind.marker).is_file()):
            refuse_existing(self.folder, overwrite, self.kind)

    def is_finished(self, resume: bool, dataset: Dataset) -> bool:
        """Return whether a resumed command has written the folder before."""
        record = self.folder / self.kind.marker
        if not (resume and record.is_file()):
            return False
        if self.made_of(read_json(record)) != dataset.fingerprint:
            raise LorarecError(f"{self.folder} was not made by this update: choose another folder")
        return True


@config_options
def update(
    *,
    context: typer.Context,
    dataset: DatasetFolder,
    events: Annotated[
        str, typer.Option(help="Table of the new interactions, in any format of `lorarec data import table`.")
    ],
    out: Annotated[Path, typer.Option(help="Dataset folder to write.")],
    items: Annotated[
        str | None, typer.Option(help="Table of items with titles; titles of new items are read from it.")
    ] = None,
    index: Annotated[Path | None, typer.Option(help="Index of the dataset to continue.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Adapter folder to train further on the new events.")] = None,
    fusion: Annotated[Path | None, typer.Option(help="Fusion to continue: its recommenders and adapters.")] = None,
    keep_untitled: Annotated[
        bool, typer.Option("--keep-untitled", help="Name new items without a title by their id instead of dropping.")
    ] = False,
    keep_unseen: Annotated[
        bool, typer.Option("--keep-unseen", help="Add titled items of --items that nobody interacted with.")
    ] = False,
    epochs: Annotated[
        int, typer.Option(min=0, help="Passes of next-item models over the histories that have changed.")
    ] = UPDATE_EPOCHS,
    table: TableOptions,
    config: AdapterUpdateConfig,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    backbone: BackboneConfig,
) -> None:
    """Append new events to a dataset, and continue what was made of it without starting over.

    The dataset after the update is written to --out; nothing is changed in place. An index, an adapter and a fusion
    are continued into folders beside them that have the name of --out: with --adapter adapters/monday and --out
    data/tuesday it is adapters/tuesday. Counts and text similarities are those of a new fit; next-item models and the
    adapter learn from what is new. The split that is stored with the new dataset tests on the last of the new events.

    Example: lorarec update data/monday --events tuesday.parquet --adapter adapters/monday --out data/tuesday
    """
    require_index(index)
    require_fusion(fusion)
    if adapter is not None and not (adapter / FolderKind.ADAPTER.marker).is_file():
        raise LorarecError(
            f"{adapter} is not an adapter folder that lorarec wrote: it has no {FolderKind.ADAPTER.marker}"
        )
    if adapter is None:
        refuse_given(context, [field.name for field in fields(AdapterUpdateConfig)], "without --adapter")
    if index is None and fusion is None:
        refuse_given(context, ("epochs",), "without --index and --fusion, which have next-item models")
    if adapter is None and fusion is None:
        loading = [field.name for field in fields(BackboneConfig) if field.name != "id"]
        refuse_given(context, ("backbone", *loading), "without --adapter and --fusion")
    refuse_unseen_without_items(keep_unseen, items)
    outputs = _outputs(out, index, adapter, fusion)
    for each in outputs.values():
        each.refuse(resume, overwrite)
    previous = Dataset.load(dataset)
    with Progress("Appending the events"):
        raw_log = read_table(events, items, columns=table.columns, options=table.format)
        grown = append_raw_log(previous, raw_log, table.format, keep_untitled=keep_untitled, keep_unseen=keep_unseen)
        unfinished = [name for name, each in outputs.items() if not each.is_finished(resume, grown)]
        split = _new_split(grown, previous) if "dataset" in unfinished else None
    model = _needed_backbone(adapter, fusion, backbone)
    # What cannot be continued is refused before anything is trained or written.
    present, names, old_index = None, [], None
    if index is not None and "index" in unfinished:
        from lorarec.retrieval import Index, check_index_update

        old_index = Index.load(index, previous)
        check_index_update(old_index, previous)
    if adapter is not None and "adapter" in unfinished:
        from lorarec.lora import read_adapter
        from lorarec.training import check_adapter_update

        check_adapter_update(read_adapter(adapter, model), previous, load_split(previous))
    if fusion is not None and "fusion" in unfinished:
        from lorarec.ranking import Fusion

        present = Fusion.load(fusion, previous, model)
        present.group.check_update(model)
        if adapter is not None:
            names = _names_in_fusion(present, fusion, adapter)
    with continued_by(WITH_RESUME):
        grown = Dataset.load(out) if split is None else grown.save(out, overwrite, split)
        if old_index is not None:
            from lorarec.retrieval import update_index

            made = update_index(old_index, grown, previous, epochs=epochs, progress=True)
            made.save(outputs["index"].folder, overwrite)
        if adapter is not None and "adapter" in unfinished:
            from lorarec.retrieval import Index
            from lorarec.training import update_adapter

            assert model is not None
            update_adapter(
                model,
                adapter,
                grown,
                previous,
                outputs["adapter"].folder,
                config,
                build_index=lambda data, split: Index.build(data, histories=split.train),
                resume=resume,
                overwrite=overwrite,
                progress=True,
            )
        if present is not None:
            from lorarec.ranking import update_fusion

            updated = dict.fromkeys(names, outputs["adapter"].folder) if names else {}
            update_fusion(present, grown, updated, backbone=model, epochs=epochs, progress=True).save(
                outputs["fusion"].folder, overwrite
            )
    _show(grown, outputs, as_json)


def _new_split(grown: Dataset, previous: Dataset) -> Split:
    """Return a split of what was appended, with the options of the split before the update, if one is stored."""
    folder = previous.folder and previous.folder / "split"
    stored = folder is not None and (folder / FolderKind.SPLIT.marker).is_file()
    known = load_split(previous).info["options"] if stored else {}
    return split_new_interactions(grown, **{name: known[name] for name in KEPT_SPLIT_OPTIONS if name in known})


def _names_in_fusion(present: "Fusion", folder: Path, adapter: Path) -> list[str]:
    """Return the names under which a fusion has an adapter, and warn if it has other adapters only."""
    from lorarec.lora import read_adapter
    from lorarec.ranking import TrainedAdapter, adapter_names

    names = adapter_names(present, read_adapter(adapter))
    others = [name for name, each in present.group.recommenders.items() if isinstance(each, TrainedAdapter)]
    if others and not names:
        Console(stderr=True).print(
            f"warning: fusion {folder} does not have adapter {adapter}: its own ({', '.join(others)}) will stay as "
            "they are; give one that it was fitted with, or fuse again with the updated adapter",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return names


def _outputs(out: Path, index: Path | None, adapter: Path | None, fusion: Path | None) -> dict[str, _Output]:
    """Return the folders to write by the name of the option that continues them.

    Raises:
        LorarecError: Two of them would be the same.
    """
    outputs = {"dataset": _Output(out, FolderKind.DATASET, lambda record: record.get("fingerprint"))}
    if index is not None:
        outputs["index"] = _Output(
            index.parent / out.name, FolderKind.INDEX, lambda record: record.get("dataset_fingerprint")
        )
    if adapter is not None:
        outputs["adapter"] = _Output(
            adapter.parent / out.name,
            FolderKind.ADAPTER,
            lambda record: next((each.get("fingerprint") for each in record.get("datasets") or ()), None),
        )
    if fusion is not None:
        outputs["fusion"] = _Output(
            fusion.parent / out.name, FolderKind.FUSION, lambda record: record.get("dataset", {}).get("fingerprint")
        )
    taken: dict[Path, str] = {}
    for name, each in outputs.items():
        if (other := taken.setdefault(each.folder.resolve(), name)) != name:
            raise LorarecError(
                f"the {other} and the {name} would both be written to {each.folder}: keep datasets, indexes, adapters "
                "and fusions in folders of their own, such as data/ and adapters/"
            )
    return outputs


def _needed_backbone(adapter: Path | None, fusion: Path | None, config: BackboneConfig) -> "Backbone | None":
    """Load the backbone if there is an adapter, or the fusion has one or embeds titles with it."""
    if adapter is None and fusion is None:
        return None
    from lorarec.ranking import has_adapters
    from lorarec.recommenders import new_recommender

    systems = read_json(fusion / FolderKind.FUSION.marker).get("recommenders", {}).values() if fusion else ()
    embeds = any(new_recommender(each["system"], each["options"]).embeds_with_backbone for each in systems)
    return load_backbone(config) if adapter or embeds or (fusion and has_adapters(fusion)) else None


def _show(dataset: Dataset, outputs: dict[str, _Output], as_json: bool) -> None:
    """Print what was added and the folders that were written."""
    record = dataset.info["updates"][-1]
    folders = {name: str(each.folder) for name, each in outputs.items()}
    values = {"counts": dataset.info["counts"], **record, **folders}
    if as_json:
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    print_values(dataset.name, {**values, "previous_until": moment_text(record["previous_until"])})
