"""Making of a service from folders, for the command line and Ray Serve."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.io import HubId
from lorarec.ranking import Fusion
from lorarec.retrieval import Index
from lorarec.serving.adapter_paths import AdapterPaths
from lorarec.serving.config import ServiceConfig
from lorarec.serving.database import as_url
from lorarec.serving.experiment import Experiment
from lorarec.serving.service import Service


def load_service(
    backbone: Backbone,
    dataset: Dataset,
    adapters: AdapterPaths,
    db: str | None = None,
    config: ServiceConfig | None = None,
    index: Path | None = None,
    load: Sequence[str] | None = None,
    fusion: Path | None = None,
    new_item_prior: float | Literal["auto"] | None = None,
    experiment: Experiment | None = None,
    answer_log: Path | None = None,
) -> Service:
    """Make a service from the folders of its index, adapters and fusion.

    Args:
        backbone: Language model.
        dataset: Catalogue, and the first histories.
        adapters: Where the adapters are.
        db: SQLite file or database URL of the histories; by default, a file beside the folder of the dataset.
        config: Options; the default ones if None.
        index: Folder of an index of the dataset; if None, that of the fusion or one without a next-item model is built.
        load: Names of the adapters to load at the start; None for all.
        fusion: Folder of the fusion that answers requests that name no adapter.
        new_item_prior: Prior of new items in place of that of the fusion.
        experiment: Variants that answer shares of the users, or None.
        answer_log: Folder of the log of answers, or None.

    Raises:
        LorarecError: If a folder, an adapter or the database is not usable.
    """
    url = database_url(db, dataset)
    catalogue = None if index is None else Index.load(index, dataset)
    fused = None if fusion is None else Fusion.load(fusion, dataset, backbone)
    if fused is not None and new_item_prior is not None:
        fused = fused.with_new_item_prior(new_item_prior)
    return Service(
        backbone,
        dataset,
        adapters.folder,
        url,
        config,
        catalogue,
        load=load,
        fusion=fused,
        further_adapters=adapters.further,
        experiment=experiment,
        answer_log=answer_log,
    )


def database_url(db: str | None, dataset: Dataset) -> str:
    """Return the URL of a database that an option names: a URL, an SQLite file, or None for DATASET.db.

    Raises:
        LorarecError: If `db` is None and the dataset has no folder.
    """
    if db is None:
        if dataset.folder is None:
            raise LorarecError("the dataset has no folder: name the database (option db)")
        hub_id = HubId.of_folder(dataset.folder)
        db = f"{Path(hub_id.name) if hub_id else dataset.folder.resolve()}.db"
    return as_url(db)
