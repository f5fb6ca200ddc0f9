"""The folder of an experiment, which belongs to the data of one recipe."""

from pathlib import Path

import yaml

from lorarec.io import JsonObject, RunDir, write_text

EXPERIMENT, RECIPE_COPY = "experiment.json", "recipe.yaml"


def open_experiment_dir(out: Path, identity: JsonObject, recipe: JsonObject, record: str = EXPERIMENT) -> RunDir:
    """Create the folder of an experiment, or continue in it, and write a copy of the recipe.

    Args:
        identity: Plain values that decide all results.
        recipe: Plain values, as a recipe file holds them.
        record: Name of the file that records the identity.

    Raises:
        LorarecError: The folder belongs to another experiment or holds something else, or cannot be written to.
    """
    run_dir = RunDir(out, identity, record=record, kind="experiment")
    run_dir.open()
    write_text(out / RECIPE_COPY, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    return run_dir
