"""A recipe of Figures 4 and 5 for a small log on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def write_weights(dataset_folder: Path, backbone_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe of the log; keys given replace those of a small one, None leaves a key out."""

    def write(**keys: Any) -> Path:
        small = {
            "table": "weights",
            "dataset": str(dataset_folder),
            "general": [str(dataset_folder)],
            "options": {"samples": 4, "epochs": 1, "batch_size": 2, "negatives": 2, "r": 2, "eval_users": 0},
            "settings": ["warm", "new-item"],
            "users": 3,
            "backbone": str(backbone_folder),
            "prompts": [2, 4],
            "seeds": [5, 6],
        }
        path = tmp_path / "weights.yaml"
        chosen = {key: value for key, value in (small | keys).items() if value is not None}
        path.write_text(yaml.safe_dump(chosen, sort_keys=False))
        return path

    return write
