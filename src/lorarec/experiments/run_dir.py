"""The folder of an experiment, which belongs to one recipe's data."""

from pathlib import Path
from typing import Any

import yaml

from lorarec.errors import LorarecError
from lorarec.io import TEMPORARY, read_json, write_json, write_text

EXPERIMENT, COPY = "experiment.json", "recipe.yaml"


def init_run_dir(out: Path, identity: dict[str, Any], recipe: dict[str, Any], record: str = EXPERIMENT) -> None:
    """Make the folder this experiment's, or find that it is.

    Args:
        out: the folder; the record and a copy of the recipe are written into it.
        identity: what all that is finished rests on.
        recipe: plain values, as a recipe file holds them.
        record: name of the file that keeps the identity.

    Raises:
        LorarecError: the folder holds something else, or cannot be written to.
    """
    if (out / record).exists():
        before = read_json(out / record)
        changed = next((key for key in identity if before.get(key) != identity[key]), None)
        if changed is not None:
            raise LorarecError(
                f"{out} holds another experiment: {changed} was {before.get(changed)} and is now {identity[changed]}: "
                "choose another --out"
            )
    elif out.exists() and (not out.is_dir() or any(not _begun(path, record) for path in out.iterdir())):
        told = f"{out} exists already and is no experiment of this kind, without {record}"
        raise LorarecError(f"{told}: choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LorarecError(f"cannot write to {out}: {error.strerror}") from error
    write_json(out / record, identity)  # first: a run that is killed here has to find the folder its own again
    write_text(out / COPY, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))


def _begun(path: Path, record: str) -> bool:
    """Whether a file is a record that another run is writing, or was when it was killed."""
    return path.name.startswith(f".{record}.") and path.suffix == TEMPORARY
