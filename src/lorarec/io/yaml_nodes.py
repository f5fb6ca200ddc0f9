"""YAML files whose values are read as they are written, each with its line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lorarec.errors import LorarecError

#: Maximum number of bytes of a file that is read; files of options are a thousandth of it.
MAX_BYTES = 1 << 20
_TAG = "tag:yaml.org,2002:"
#: Types that YAML sees in values without a tag.
_TYPES = ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp", "value")


@dataclass(frozen=True)
class YamlNode:
    """A value of a YAML file.

    Text is not converted: `0123`, `yes` and `1e3` are what is written, so that a value means the same in a file as on
    the command line.

    Attributes:
        value: Text, None for null, or the nodes of a list or of a mapping.
        line: Number of its line, from 1.
    """

    value: "str | list[YamlNode] | dict[str, YamlNode] | None"
    line: int


def read_yaml_nodes(path: str | Path, kind: str) -> YamlNode:
    """Read a YAML file; error messages name the file and the line, and repeat nothing of its content.

    Args:
        path: Path of the file.
        kind: Words for the file in error messages, such as `keys file`.

    Raises:
        LorarecError: If the file cannot be read, is not YAML or has more than one document, aliases, tags or the same
            key twice in a mapping.
    """
    return parse_yaml_nodes(read_small_file(path, kind), f"{kind} {path}")


def read_small_file(path: str | Path, kind: str) -> bytes:
    """Return the content of a regular file of at most `MAX_BYTES` bytes.

    Raises:
        LorarecError: If the file does not exist, is no regular file, cannot be read or is larger.
    """
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            raise LorarecError(f"{kind} {path} is not a regular file: give the path of one")
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, LorarecError):
            raise
        raise LorarecError(f"cannot read {kind} {path}: {getattr(error, 'strerror', error)}") from error
    if len(content) > MAX_BYTES:
        raise LorarecError(f"{kind} {path} is larger than {MAX_BYTES} bytes: is it another file?")
    return content


def parse_yaml_nodes(content: bytes, where: str) -> YamlNode:
    """Parse the content of a YAML file.

    Args:
        content: Content of the file.
        where: Words for the file in error messages.

    Raises:
        LorarecError: As for `read_yaml_nodes`.
    """
    try:
        node = yaml.compose(content.decode("utf-8-sig"), Loader=_Loader)
    except UnicodeDecodeError:
        raise LorarecError(f"{where} is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # The parser's own words quote the file, which may hold keys.
        raise LorarecError(f"{where}, line {mark.line + 1 if mark else 1}: this is not YAML") from None
    except (yaml.YAMLError, RecursionError):
        raise LorarecError(f"{where} is not YAML") from None
    return YamlNode(None, 1) if node is None else _convert(node, where)


class _Loader(yaml.SafeLoader):
    """Loader that refuses aliases, by which a small file can stand for a large one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "alias", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)


def _convert(node: Any, where: str) -> YamlNode:
    line = node.start_mark.line + 1
    if node.tag.removeprefix(_TAG) not in _TYPES:
        raise LorarecError(f"{where}, line {line}: a value has a tag: write it without one")
    if isinstance(node, yaml.ScalarNode):
        return YamlNode(None if node.tag == f"{_TAG}null" else node.value, line)
    if isinstance(node, yaml.SequenceNode):
        return YamlNode([_convert(each, where) for each in node.value], line)
    members: dict[str, YamlNode] = {}
    for key, value in node.value:
        row = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise LorarecError(f"{where}, line {row}: a name is a list or a mapping: give a text")
        if key.value in members:
            raise LorarecError(f"{where}, line {row}: the mapping has the same name twice: remove one of them")
        converted = _convert(value, where)
        members[key.value] = YamlNode(converted.value, row)
    return YamlNode(members, line)
