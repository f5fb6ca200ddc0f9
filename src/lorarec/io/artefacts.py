"""Artefacts on disk: atomic writing of files and folders, fingerprints of contents, versions of packages."""

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lorarec.errors import LorarecError
from lorarec.io.disk import disk_errors, exchange, set_permissions, sync, sync_folder
from lorarec.io.folder_kinds import FolderKind
from lorarec.io.locks import ASIDE, only_writer, remove_leftovers, temporary_sibling

#: A JSON object, such as the contents of a record file.
JsonObject = dict[str, Any]
#: Packages whose versions are recorded because results depend on them.
PACKAGES = ("lorarec", "torch", "transformers", "peft", "accelerate")


def refuse_existing(out: str | Path, overwrite: bool = False, kind: FolderKind | None = None) -> None:
    """Refuse an output folder that `new_folder` would refuse, before long work is done.

    Args:
        out: Path of the folder to write.
        overwrite: Whether a folder of this kind that lorarec wrote may be replaced.
        kind: Kind of the folder; required to replace one.

    Raises:
        LorarecError: `out` is a file, or a folder that is not empty and must not be overwritten, is of another kind or
            contains files that lorarec does not write; or no folder can be made at `out`.
    """
    out = Path(out)
    _refuse_unwritable(out)
    remove_leftovers(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise LorarecError(f"{out} exists already: choose another folder or pass overwrite=True")
    if kind is None:
        raise LorarecError(f"{out} is not written by lorarec, so it is not overwritten: choose another folder")
    if not out.is_dir() or not kind.marker_file(out).is_file():
        reason = f"no {kind.name} folder written by lorarec (it has no {kind.marker})"
        raise LorarecError(f"{out} is {reason}, so it is not overwritten: choose another folder, or remove it yourself")
    if (foreign := kind.foreign_file(out)) is not None:
        raise LorarecError(
            f"{out} contains {foreign}, which lorarec did not write, so it is not overwritten: move that file away, or "
            "choose another folder"
        )


def _refuse_unwritable(out: Path) -> None:
    """Refuse a path whose nearest existing parent is a file, or a folder that may not be written to."""
    target = Path(os.path.realpath(out)) if out.is_symlink() else out
    parent = next((each for each in target.parents if each.exists()), target)
    if parent.is_file():
        raise LorarecError(f"cannot write to {out}: {parent} is a file: choose another folder")
    if parent.is_dir() and not os.access(parent, os.W_OK):
        raise LorarecError(f"cannot write to {out}: {parent} is read-only for this user: choose another folder")


@contextmanager
def new_folder(out: str | Path, overwrite: bool = False, kind: FolderKind | None = None) -> Iterator[Path]:
    """Yield a temporary sibling of `out` that becomes `out` when the block ends without an error.

    An existing folder stays until the new one is complete and on the disk; then both are exchanged in one step. In
    Markdown and JSON files the path of the temporary folder is replaced by `out`. Leftovers of killed runs beside `out`
    are removed.

    Args:
        out: The folder to make. Its parents are created; if it is a symbolic link, its target is made.
        overwrite: Replace an existing folder of this kind; without it an existing, non-empty `out` is an error, even
            one that appears while the block runs.
        kind: The kind of the folder; required to overwrite one.

    Raises:
        LorarecError: `out` exists and must not be replaced (see `refuse_existing`), or the disk cannot be written to.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from lorarec.io import new_folder, write_text
        >>> with TemporaryDirectory() as home:
        ...     with new_folder(f"{home}/report") as folder:
        ...         write_text(folder / "report.md", "Done.")
        ...     Path(f"{home}/report/report.md").read_text()
        'Done.'
    """
    out = Path(out)
    refuse_existing(out, overwrite, kind)
    target = Path(os.path.realpath(out))
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = temporary_sibling(target, is_folder=True)
    try:
        with disk_errors(out, temporary):
            yield temporary
            _rename_in_texts(temporary, out)
            replace_folder(temporary, out, kind if overwrite else None)
    finally:
        _remove_tree(temporary)
        os.close(lock)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that becomes `path` when the block ends without an error.

    If several processes write the same path, each has its own temporary file and the last one to finish wins. Leftovers
    of killed runs are removed.

    Raises:
        LorarecError: The disk cannot be written to.
    """
    path = Path(path)
    temporary = lock = None
    try:
        with disk_errors(path):
            remove_leftovers(path)
            temporary, lock = temporary_sibling(path, is_folder=False)
        with disk_errors(path, temporary):
            yield temporary
            set_permissions([temporary])
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def replace_folder(made: Path, out: Path, kind: FolderKind | None = None) -> None:
    """Flush a complete folder to the disk, rename it to `out`, and remove the previous `out`.

    Its files have the permissions that the user's umask gives, so that another account can serve what this one has
    trained.

    The rename fails if `out` is not empty, so a folder that appears at the last moment is not lost either. A previous
    folder that may be overwritten is exchanged with the new one in one step. On disks that cannot do so it is moved
    aside first, and the next run restores it if the process is killed in between.

    Args:
        made: The complete folder, on the same disk as `out`.
        out: The path that it gets.
        kind: The kind of the previous folder, if it may be overwritten.

    Raises:
        LorarecError: `out` exists and must not be overwritten.
        OSError: The disk cannot be written to.
    """
    target = Path(os.path.realpath(out))
    # safetensors makes files that only their owner may read.
    set_permissions(path for path in (made, *made.rglob("*")) if not path.is_symlink())
    sync_folder(made)
    if sys.platform == "win32" and target.is_dir() and not any(target.iterdir()):
        target.rmdir()  # Windows does not rename a folder to the name of another, even of an empty one
    try:
        made.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        if kind is None:
            message = f"{out} was created by another process meanwhile: choose another folder or pass overwrite=True"
            raise LorarecError(message) from None
        refuse_existing(out, True, kind)
        _exchange_folders(made, target)
    sync(target.parent)


def _exchange_folders(made: Path, target: Path) -> None:
    former, lock = temporary_sibling(target, is_folder=True)
    os.close(lock)
    try:
        if exchange(made, target):
            made.rename(former)
            return
    finally:
        _remove_tree(former)
    former = former.with_suffix(ASIDE)
    with only_writer(target):  # so that no other process restores it meanwhile
        target.rename(former)
        try:
            made.rename(target)
        except BaseException:
            if not target.exists():
                former.rename(target)
            raise
    _remove_tree(former)


def _remove_tree(folder: Path) -> None:
    """Remove a folder, or what is left of it after Ctrl+C or SIGTERM has interrupted the removal."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def created_folder(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; if the block fails, those that were made and are still empty are removed again.

    Raises:
        LorarecError: The disk cannot be written to.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # a folder that is not empty stays, and its parents with it
            for each in made:
                each.rmdir()
        raise


def remove_folder(folder: Path) -> None:
    """Remove a folder by renaming it first, so that a kill never leaves part of it under its name."""
    remove_leftovers(folder)
    aside, lock = temporary_sibling(folder, is_folder=True)
    aside.rmdir()  # only its name is needed, and Windows does not rename a folder to a name that is taken
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    else:
        _remove_tree(aside)
    finally:
        os.close(lock)


def _rename_in_texts(temporary: Path, out: Path) -> None:
    old, new = str(temporary), str(out)
    pairs = {written(old): written(new) for written in (str, _in_json, _in_markdown)}
    for path in temporary.rglob("*"):
        if path.suffix not in (".json", ".md"):
            continue
        before = text = path.read_text(encoding="utf-8")
        for old, new in pairs.items():
            text = text.replace(old, new)
        if text != before:
            path.write_text(text, encoding="utf-8")


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _in_markdown(text: str) -> str:
    return re.sub(r"([|*_])", r"\\\1", text)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text through a temporary sibling, so that a reader never sees half of it.

    Raises:
        LorarecError: The disk cannot be written to, or the text contains bytes of a terminal that are not UTF-8.
    """
    with new_file(path) as temporary:
        try:
            temporary.write_text(text, encoding="utf-8")
        except UnicodeEncodeError as error:
            around = ascii(text[max(error.start - 20, 0) : error.end])
            raise LorarecError(
                f"cannot write {path}: {around} is not UTF-8 text: give names, paths and other options in UTF-8"
            ) from None


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        LorarecError: The file is missing, is not JSON, or is nested too deep.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LorarecError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise LorarecError(f"{path} is not readable JSON ({error}): restore it, or make its folder again") from error
    except RecursionError:
        raise LorarecError(f"{path} is not readable JSON: it is nested too deep") from None


def file_fingerprint(*paths: str | Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 over the contents of the files in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages in `PACKAGES`."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # lorarec run from a source tree
            continue
    return installed
