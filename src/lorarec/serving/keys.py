"""API keys with roles, from the environment and from a file that is read again when it changes."""

import asyncio
import hashlib
import hmac
import logging
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from lorarec.errors import LorarecError
from lorarec.io import YamlNode, parse_yaml_nodes, read_small_file

Role = Literal["read", "events", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
#: Environment variable of a key with all rights, which is also the name of that key.
KEY_VARIABLE = "LORAREC_API_KEY"
#: Minimum number of characters of a key in a file; shorter ones can be guessed.
MIN_KEY = 16
#: Seconds between two looks at the file of the keys.
RELOAD_SECONDS = 1.0
_FIELDS = ("name", "key", "sha256", "roles")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ApiKey:
    """An API key, of which only the hash is kept.

    Attributes:
        name: Name of the key, which logs have.
        digest: SHA-256 hash of the key.
        roles: Roles of the key.
    """

    name: str
    digest: bytes = field(repr=False)
    roles: frozenset[Role]

    def has_role(self, role: Role) -> bool:
        """Return whether the key has a role; `admin` includes the others."""
        return role in self.roles or "admin" in self.roles


class ApiKeys:
    """The API keys of a service.

    Args:
        key: Key with all roles, as in `LORAREC_API_KEY`; None for none.
        path: Path of a file of further keys (see `parse_keys`); None for none.

    Raises:
        LorarecError: If the file cannot be used.
    """

    def __init__(self, key: str | None = None, path: str | Path | None = None) -> None:
        self._permanent = [] if key is None else [ApiKey(KEY_VARIABLE, _digest(key.encode()), frozenset(ROLES))]
        self._path = path
        self._content: bytes | None = None
        self._read: list[ApiKey] = []
        if path is not None:
            self._content = read_small_file(path, "keys file")
            self._read = self._parse(self._content)

    @property
    def required(self) -> bool:
        """Whether requests need a key."""
        return bool(self._permanent) or self._path is not None

    def find(self, sent: bytes) -> ApiKey | None:
        """Return the key that a client sent, or None; the time does not depend on which key it is like.

        White space around a key, such as the line break at the end of a file, is no part of it.
        """
        digest, found = _digest(sent), None
        for key in (*self._permanent, *self._read):
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found

    def reload(self) -> None:
        """Read the file again if its content has changed; a file that cannot be used changes nothing and is logged."""
        if self._path is None:
            return
        content: bytes | None = None
        try:
            content = read_small_file(self._path, "keys file")
            if content != self._content:
                self._read = self._parse(content)
        except LorarecError as error:
            if content != self._content:
                logger.warning("%s; the keys that were read before stay valid", error)
        self._content = content

    def _parse(self, content: bytes) -> list[ApiKey]:
        assert self._path is not None
        keys = parse_keys(content, self._path)
        with suppress(OSError):
            if os.name == "posix" and Path(self._path).stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
                logger.warning("keys file %s is open to all users of this machine: run chmod o= on it", self._path)
        return keys

    async def watch(self) -> None:
        """Read the file again whenever it changes, until this is cancelled."""
        while self._path is not None:
            await asyncio.sleep(RELOAD_SECONDS)
            await asyncio.to_thread(self.reload)


def read_keys(path: str | Path) -> list[ApiKey]:
    """Read a file of keys (see `parse_keys`).

    Raises:
        LorarecError: If the file cannot be used.
    """
    return parse_keys(read_small_file(path, "keys file"), path)


def parse_keys(content: bytes, path: str | Path) -> list[ApiKey]:
    """Parse a keys file: a YAML list of keys, each with a name, its `key` or the `sha256` of it, and its roles.

    Error messages name the row, and repeat nothing of the file but names of roles.

    Examples:
        >>> text = '''
        ... - {name: shop, key: correct-horse-battery-staple, roles: [read, events]}
        ... - {name: tracker, sha256: 8bb0cf6eb9b17d0f7d22b456f121257dc1254e1f01665370476383ea776df414, roles: events}
        ... '''
        >>> [(key.name, sorted(key.roles)) for key in parse_keys(text.encode(), "keys.yaml")]
        [('shop', ['events', 'read']), ('tracker', ['events'])]

    Args:
        content: Content of the file.
        path: Path of the file, for error messages.

    Raises:
        LorarecError: If the file is not such a list, or two of its keys or names are the same.
    """
    where = f"keys file {path}"
    rows = parse_yaml_nodes(content, where).value
    if not isinstance(rows, list) or not rows:
        raise LorarecError(f"{where}, line 1: give a list of keys, each with name, key or sha256, and roles")
    keys: list[ApiKey] = []
    for row in rows:
        key = _parse_row(row, f"{where}, line {row.line}")
        if any(key.name == other.name for other in keys):
            raise LorarecError(f"{where}, line {row.line}: two keys have the same name: give each its own")
        if any(key.digest == other.digest for other in keys):
            raise LorarecError(f"{where}, line {row.line}: the same key is listed twice: remove one of them")
        keys.append(key)
    return keys


def _parse_row(row: YamlNode, where: str) -> ApiKey:
    values = row.value
    if not isinstance(values, dict):
        raise LorarecError(f"{where}: a key is a mapping with name, key or sha256, and roles")
    if not set(values) <= set(_FIELDS):
        raise LorarecError(f"{where}: a key has another field than {', '.join(_FIELDS)}")
    texts = {name: _text(value, name, where) for name, value in values.items() if name != "roles"}
    if not re.fullmatch(_NAME, texts.get("name", "")):
        raise LorarecError(f"{where}: name must be up to 64 letters, digits and ._- that begin with a letter or digit")
    if ("key" in texts) == ("sha256" in texts):
        raise LorarecError(f"{where}: give either key or sha256")
    if "roles" not in values:
        raise LorarecError(f"{where}: roles is missing: give one or several of {', '.join(ROLES)}")
    return ApiKey(texts["name"], _key_digest(texts, where), _parse_roles(values["roles"], where))


def _text(node: YamlNode, name: str, where: str) -> str:
    if not isinstance(node.value, str):
        raise LorarecError(f"{where}: {name} must be a text")
    return node.value.strip()


def _key_digest(texts: dict[str, str], where: str) -> bytes:
    if "sha256" in texts:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", texts["sha256"]):
            raise LorarecError(f"{where}: sha256 must be 64 hexadecimal digits, as sha256sum prints them")
        return bytes.fromhex(texts["sha256"])
    key = texts["key"]
    if len(key) < MIN_KEY or not key.isprintable() or len(key) > 1024:
        raise LorarecError(f"{where}: key must be {MIN_KEY} to 1024 characters without line breaks: make a random one")
    return _digest(key.encode())


def _parse_roles(node: YamlNode, where: str) -> frozenset[Role]:
    given = node.value if isinstance(node.value, list) else [node]
    found = [role for each in given for role in ROLES if each.value == role]
    if not found or len(found) < len(given):
        raise LorarecError(f"{where}: roles must be one or several of {', '.join(ROLES)}")
    return frozenset(found)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key.strip()).digest()
