"""YAML files as plain values, such as recipes."""

from pathlib import Path
from typing import Any

import yaml

from lorarec.errors import LorarecError


def read_yaml(path: str | Path, kind: str) -> Any:
    """Read a YAML file as plain values.

    Args:
        path: Path of the file.
        kind: Word for the file in error messages, such as `recipe`.

    Raises:
        LorarecError: If the file cannot be read, is not YAML or has the same key twice in a mapping.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8-sig"), Loader=_Loader)
    except OSError as error:
        raise LorarecError(f"cannot read {kind} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LorarecError(f"{kind} {path} is not UTF-8 text: convert it") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise LorarecError(f"{kind} {path}{line} is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise LorarecError(f"{kind} {path} is not YAML: {' '.join(str(error).split())}") from error


class _Loader(yaml.SafeLoader):
    """Loader that refuses a key which a mapping has twice, of which PyYAML would take the last."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key in (each for each, _ in node.value if isinstance(each, yaml.ScalarNode)):
            if key.value in keys:
                problem = f"the key {key.value!r} is there twice: remove one of them"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            keys.add(key.value)
        return node
