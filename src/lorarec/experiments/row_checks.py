"""Checks of what the rows of an experiment need, before any of them is fitted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lorarec.backbone import Backbone, SentenceEncoder, require_sentence_transformers
from lorarec.data import EARLIEST_MOMENT, TIME
from lorarec.errors import LorarecError
from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.fusion_row import fused_systems
from lorarec.experiments.recipe import Recipe, name_rows, rows_that_need
from lorarec.experiments.workers import run_in_subprocess
from lorarec.recommenders import LSA
from lorarec.training import TrainingConfig, target_layers


def refuse_unusable_data(recipe: Recipe, data: ExperimentData) -> None:
    """Refuse rows that need validation cases or times, if the data have none.

    Raises:
        LorarecError: The message names the rows.
    """
    tuned = [name for name, row in recipe.rows.items() if row.tune]
    if data.split.valid.is_empty() and (rows := list(dict.fromkeys([*rows_that_need(recipe, "validation"), *tuned]))):
        raise LorarecError(
            f"{data.dataset.name}: the split has no validation cases, and {name_rows(rows)} them: use another split"
        )
    latest = int(data.dataset.interactions[TIME].to_numpy().max(initial=0))
    if latest < EARLIEST_MOMENT and (rows := rows_that_need(recipe, "times")):
        raise LorarecError(
            f"{data.dataset.name}: its timestamps are positions (up to {latest}), and {name_rows(rows)} times: leave "
            "them out, or import the data with times"
        )


def rows_with_models(recipe: Recipe) -> list[str]:
    """Return the names of the rows that read the backbone or a text encoder."""
    reading = {*rows_that_need(recipe, "backbone"), *(row for row, _ in _text_encoders(recipe, [*recipe.rows]))}
    return [name for name in recipe.rows if name in reading]


def _configs(recipe: Recipe, rows: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the name of the row and the options of every recommender that may be fitted, fused ones included."""
    for row in rows:
        for recommender in recipe.rows[row].recommenders():
            for each in fused_systems(recommender):
                yield row, each.config


def _text_encoders(recipe: Recipe, rows: Sequence[str]) -> set[tuple[str, str]]:
    """Return the rows that have a text encoder, with its path or hub id."""
    named = {(row, getattr(config, "text_encoder", None)) for row, config in _configs(recipe, rows)}
    return {(row, encoder) for row, encoder in named if encoder not in (None, LSA)}


def check_models(recipe: Recipe, rows: Sequence[str], threads: int) -> None:
    """Load the backbone and find the text encoders of rows, in a process of its own.

    Adapters must find the layers that they are put on.

    Args:
        recipe: Recipe.
        rows: Names of the rows that will be fitted.
        threads: Number of threads of torch.

    Raises:
        LorarecError: A model is missing or unusable, or has no layer of the name that a row wants to adapt. The message
            names the key.
    """
    with run_in_subprocess(threads):
        for row, encoder in sorted(_text_encoders(recipe, rows)):
            with _named(f"rows.{row}"):
                require_sentence_transformers()
                SentenceEncoder.from_pretrained(encoder)
        if not set(rows) & set(rows_that_need(recipe, "backbone")):
            return
        assert recipe.backbone is not None
        with _named("backbone"):
            backbone = Backbone.from_pretrained(recipe.backbone, dtype=recipe.dtype)
        targets = {
            (row, config.target_modules) for row, config in _configs(recipe, rows) if isinstance(config, TrainingConfig)
        }
        for row, target_modules in sorted(targets):
            with _named(f"rows.{row}"):
                target_layers(backbone.model, target_modules)


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Name a key of the recipe in errors of the block."""
    try:
        yield
    except LorarecError as error:
        raise LorarecError(f"key {key}: {error}") from error
