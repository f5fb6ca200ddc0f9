"""The group `lorarec data`: import, describe, split."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from lorarec.cli.data_import import import_app
from lorarec.cli.messages import Verb
from lorarec.cli.options import AsJson, DatasetFolder, Overwrite
from lorarec.cli.output import print_values
from lorarec.data import Dataset, SplitOptions, draw_split, parse_moment, plot_lengths
from lorarec.data import describe as describe_dataset
from lorarec.errors import LorarecError
from lorarec.io import HubId, refuse_other_suffix


class _Group(TyperGroup):
    """A group with its commands in the order in which they are called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return ["import", "describe", "split"]


data_app = typer.Typer(
    cls=_Group, no_args_is_help=True, help="Import an interaction log, describe a dataset, split it."
)
data_app.add_typer(import_app, name="import")


@data_app.command("describe", cls=Verb)
def describe(
    dataset: DatasetFolder,
    plot: Annotated[Path | None, typer.Option(help="PNG file of a histogram of history lengths to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Describe a dataset: counts, density, history lengths, title coverage, time span.

    Example: lorarec data describe data/movies --plot movies.png
    """
    if plot is not None:
        refuse_other_suffix(plot)
    loaded = Dataset.load(dataset)
    values = describe_dataset(loaded)
    if plot:
        plot_lengths(loaded, plot)
    print_values(loaded.name, values, values if as_json else None)


@data_app.command("split", cls=Verb)
def split(
    dataset: DatasetFolder,
    protocol: Annotated[
        Literal["leave-one-out", "global-time"],
        typer.Option(help="Test on the last items of each user, or on all interactions after one point in time."),
    ] = "leave-one-out",
    new_items: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.99,
            help="Fraction of the items that are left out of training (leave-one-out); 0.1 if not given.",
        ),
    ] = None,
    valid_from: Annotated[
        str | None,
        typer.Option(
            help="Time of the first validation interaction, such as 2024-05-01 (global-time, with --test-from)."
        ),
    ] = None,
    test_from: Annotated[
        str | None, typer.Option(help="Time of the first test interaction; the last tenth is tested if not given.")
    ] = None,
    negatives: Annotated[
        int, typer.Option(min=1, help="Number of negatives, items that the user never chose, in each candidate set.")
    ] = 29,
    seed: Annotated[int, typer.Option(help="Seed of the new items and of the candidates.")] = 42,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Split a dataset into training, validation and test, and store the candidate sets in DATASET/split.

    A dataset without a stored split gets the default one from the first command that needs it.

    Example: lorarec data split data/movies --new-items 0.2 --seed 7

    Example: lorarec data split data/shop --protocol global-time --valid-from 2024-05-01 --test-from 2024-05-08
    """
    if (valid_from is None) != (test_from is None):
        raise LorarecError("options valid_from and test_from go together: give both")
    if test_from is not None and protocol != "global-time":
        raise LorarecError(f"option test_from is for protocol global-time, not {protocol}")
    if new_items is not None and protocol != "leave-one-out":
        raise LorarecError(f"option new_items is for protocol leave-one-out, not {protocol}")
    loaded = Dataset.load(dataset)
    if HubId.of_folder(loaded.folder or dataset):
        raise LorarecError(f"{dataset} is in the hub's cache, which is not changed: save the dataset to a folder first")
    if (dataset / "split").exists() and not overwrite:
        raise LorarecError(f"{dataset / 'split'} exists already: pass --overwrite to replace it")
    options: SplitOptions = {"protocol": protocol, "negatives": negatives, "seed": seed}
    if new_items is not None:
        options["new_items"] = new_items
    if valid_from is not None and test_from is not None:
        options["cuts"] = parse_moment(valid_from, "valid_from"), parse_moment(test_from, "test_from")
    drawn = draw_split(loaded, **options)
    drawn.save(dataset / "split", overwrite)
    values = {**drawn.info["counts"], "folder": str(dataset / "split")}
    print_values(f"{loaded.name}: {protocol}", values, drawn.info if as_json else None)
