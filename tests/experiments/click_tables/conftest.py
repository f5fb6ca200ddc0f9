"""A recipe of RecLoRA's tables for a small click log on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorarec.data import Dataset


@pytest.fixture
def write_clicks(taste: Dataset, backbone_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe of the log; keys given replace those of a small one, None leaves a key out."""
    folder = tmp_path / "taste"
    taste.save(folder)

    def write(**keys: Any) -> Path:
        small = {
            "table": "clicks",
            "dataset": str(folder),
            "backbone": str(backbone_folder),
            "seeds": [1],
            "samples": 40,
            "options": {
                "num_meta_loras": 3,
                "r": 2,
                "lora_alpha": 4,
                "epochs": 1,
                "batch_size": 8,
                "learning_rate": "1e-2",
            },
            "rows": ["din", "reclora"],
            "analyses": [],
        }
        path = tmp_path / "clicks.yaml"
        chosen = {key: value for key, value in (small | keys).items() if value is not None}
        path.write_text(yaml.safe_dump(chosen, sort_keys=False))
        return path

    return write
