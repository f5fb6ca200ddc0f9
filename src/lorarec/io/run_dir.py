"""Folders that one run fills over time and that the same run can resume after it was killed."""

import json
from collections.abc import Iterator
from pathlib import Path

from lorarec.errors import LorarecError
from lorarec.io.artefacts import JsonObject, created_folder, read_json, write_json
from lorarec.io.locks import TEMPORARY


class RunDir:
    """A folder that belongs to one run.

    The identity of a run is everything that decides the contents of its folder. It is recorded before anything else is
    written, so that a run that was killed finds its folder again and another run is refused.

    An entry of None is the same as a missing one, so that runs of an earlier version can be resumed after an option was
    added whose default is None.

    Args:
        path: Path of the folder.
        identity: Plain values that decide the contents of the folder.
        record: Name of the JSON file that records the identity.
        key: Key of the identity in the record; None if the record is the identity.
        kind: Name of this kind of run in error messages.
        remedy: What to do about the folder of another run, for error messages.
    """

    def __init__(
        self,
        path: str | Path,
        identity: JsonObject,
        *,
        record: str = "run.json",
        key: str | None = None,
        kind: str = "run",
        remedy: str = "choose another folder",
    ) -> None:
        self.path = Path(path)
        self.identity = identity
        self.record = record
        self.key = key
        self.kind = kind
        self.remedy = remedy

    def open(self, details: JsonObject | None = None) -> None:
        """Create the folder with its record, or continue in the folder of this very run.

        Args:
            details: Further entries of the record, if the identity has a key of its own.

        Raises:
            LorarecError: The folder belongs to another run or holds something else, or cannot be written to.
        """
        self.refuse_other_run()
        with created_folder(self.path):
            if not self._is_recorded():
                recorded = self.identity if self.key is None else {self.key: self.identity, **(details or {})}
                write_json(self.path / self.record, recorded)

    def refuse_other_run(self) -> None:
        """Refuse the folder if it does not belong to this run; one that does not exist or is empty may become its.

        Raises:
            LorarecError: The folder belongs to another run, or holds something else. The message names the first entry
                of the identity that differs.
        """
        if self._is_recorded():
            if difference := self.difference():
                raise LorarecError(f"{self.path} holds another {self.kind}: {difference}: {self.remedy}")
        elif self.path.exists() and (not self.path.is_dir() or any(map(self._is_foreign, self.path.iterdir()))):
            raise LorarecError(
                f"{self.path} exists already and is no {self.kind} folder (it has no {self.record}): "
                "choose another folder"
            )

    def difference(self) -> str | None:
        """Return the first entry of the identity that differs from the recorded one, in words; None if none does.

        Raises:
            LorarecError: The record is missing or does not hold an identity.
        """
        recorded = read_json(self.path / self.record)
        if self.key is not None and isinstance(recorded, dict):
            recorded = recorded.get(self.key)
        if not isinstance(recorded, dict):
            raise LorarecError(
                f"{self.path / self.record} does not say which {self.kind} {self.path} belongs to: "
                "choose another folder"
            )
        different = list(_differences(recorded, json.loads(json.dumps(self.identity))))
        if not different:
            return None
        name, before, now = different[0]
        others = ", ".join(other for other, _, _ in different[1:])
        return f"{name} was {before} and is now {now}" + (f" (also different: {others})" if others else "")

    def matches(self) -> bool:
        """Return whether the folder exists and belongs to this run."""
        try:
            return self._is_recorded() and self.difference() is None
        except LorarecError:  # the record is damaged
            return False

    def finished(self, pattern: str) -> list[Path]:
        """Return the paths of finished files and folders that match a pattern, in order."""
        return sorted(path for path in self.path.glob(pattern) if path.suffix != TEMPORARY)

    def _is_recorded(self) -> bool:
        return (self.path / self.record).is_file()

    def _is_foreign(self, path: Path) -> bool:
        """Return whether a path is not a record that a process is writing, or was writing when it was killed."""
        return not (path.name.startswith(f".{self.record}.") and path.suffix == TEMPORARY)


def _differences(before: JsonObject, now: JsonObject, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield name, recorded value and present value of each entry that differs; nested entries have dotted names."""
    for key in [*now, *(key for key in before if key not in now)]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}", old, new
