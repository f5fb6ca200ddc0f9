"""What orders candidates, a backbone with an adapter or a fusion: options that verbs share, and loading."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from lorarec.backbone import BackboneConfig
from lorarec.cli.options import load_backbone, open_engine, require_adapters, require_fusion
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.ranking import ServerConfig
from lorarec.recommenders import FusionConfig

if TYPE_CHECKING:
    from lorarec.ranking import Fusion, Ranker

Prior = float | Literal["auto"]
FusionFolder = Annotated[
    Path | None, typer.Option("--fusion", help="Folder of `lorarec fuse`, in place of the backbone and the adapter.")
]
NewItemPrior = Annotated[
    str | None,
    typer.Option(
        "--new-item-prior",
        help="Probability, for a fusion, that the target item is a new one, or auto; that of the fusion if not given.",
    ),
]


def check_ranker(
    adapter: Path | None, fusion: Path | None, new_item_prior: str | None, engine: str = "torch"
) -> Prior | None:
    """Check the options of what orders candidates, and return the prior of new items; None for that of the fusion.

    Raises:
        LorarecError: If a folder is missing, the prior is out of range, or options do not go together.
    """
    require_adapters([adapter])
    if fusion is None:
        if new_item_prior is not None:
            raise LorarecError("--new-item-prior is for a fusion: name its folder with --fusion")
        return None
    if adapter is not None:
        raise LorarecError("give either --adapter or --fusion: a fusion has adapters of its own")
    if engine != "torch":
        raise LorarecError(f"--engine {engine} is for adapters: use --fusion with --engine torch")
    require_fusion(fusion)
    return read_prior(new_item_prior)


def read_prior(new_item_prior: str | None) -> Prior | None:
    """Read a prior of new items, a number or `auto`; return None if there is none.

    Raises:
        LorarecError: If the prior is something else or out of range.
    """
    return None if new_item_prior is None else FusionConfig(new_item_prior=cast(float, new_item_prior)).new_item_prior


def load_fusion(folder: Path, dataset: Dataset, backbone: BackboneConfig, prior: Prior | None = None) -> "Fusion":
    """Load a fusion, and its backbone if it has adapters.

    Args:
        prior: Prior of new items in place of that of the fusion.

    Raises:
        LorarecError: If the fusion is damaged, or belongs to other data or another backbone.
    """
    from lorarec.ranking import Fusion, has_adapters

    fusion = Fusion.load(folder, dataset, load_backbone(backbone) if has_adapters(folder) else None)
    return fusion if prior is None else fusion.with_new_item_prior(prior)


@contextmanager
def open_ranker(
    dataset: Dataset,
    backbone: BackboneConfig,
    adapter: Path | None,
    fusion: Path | None,
    prior: Prior | None,
    engine: str = "torch",
    server: ServerConfig | None = None,
) -> "Iterator[Ranker | Fusion]":
    """Load a fusion if there is one, otherwise a backbone with an adapter, which a server knows by its folder's name.

    Raises:
        LorarecError: If a folder or the backbone is unusable.
    """
    if fusion is not None:
        yield load_fusion(fusion, dataset, backbone, prior)
        return
    from lorarec.ranking import Ranker

    named = {} if adapter is None else {adapter.resolve().name: adapter}
    with (
        open_engine(engine, backbone, named, server or ServerConfig()) as (model, started),
        Ranker(model, adapter, engine=started) as ranker,
    ):
        yield ranker
