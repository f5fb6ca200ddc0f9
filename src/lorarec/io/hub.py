"""Repositories of the Hugging Face hub: ids in place of folders, downloads into the hub's cache, and uploads."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import huggingface_hub  # its names, and its module errors with them, are loaded on first use, which takes a while

from lorarec.errors import LorarecError
from lorarec.io.folder_kinds import FolderKind

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

RepoType = Literal["model", "dataset"]

#: Prefix by which a name is a hub id even where a folder has the same name.
HUB_PREFIX = "hub:"
_ID = re.compile(r"(?P<repo_id>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?")
#: Names of a repository's folder in the cache, such as models--OWNER--NAME.
_CACHED = re.compile(r"(?:models|datasets)--(?P<repo_id>.+)")


@dataclass(frozen=True)
class HubId:
    """The id of a repository on the hub, written `owner/name` or `owner/name@revision`.

    Attributes:
        repo_id: Owner and name with a slash between them.
        revision: Branch, tag or commit; None for the main branch.

    Examples:
        >>> from lorarec.io import HubId
        >>> HubId.parse("me/shop-adapter@v1")
        HubId(repo_id='me/shop-adapter', revision='v1')
        >>> HubId.parse("../shop") is None
        True
    """

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id}@{self.revision}"

    @property
    def name(self) -> str:
        """Name of the repository without its owner."""
        return self.repo_id.rpartition("/")[2]

    @classmethod
    def parse(cls, text: str | Path) -> Self | None:
        """Read a hub id, with or without the prefix `hub:`; return None if the text is none."""
        match = _ID.fullmatch(_as_text(text).removeprefix(HUB_PREFIX))
        return match and cls(match["repo_id"], match["revision"])

    @classmethod
    def of_folder(cls, folder: str | Path) -> Self | None:
        """Return the id and the commit of a folder of the hub's cache; None for any other folder.

        The cache stores the model OWNER/NAME in folders models--OWNER--NAME/snapshots/COMMIT.
        """
        *_, cached, snapshots, commit = ("", "", *_as_text(folder).rstrip("/").split("/"))
        match = _CACHED.fullmatch(cached)
        if match is None or snapshots != "snapshots":
            return None
        return cls(match["repo_id"].replace("--", "/", 1), commit)


def _as_text(path: str | Path) -> str:
    return path.as_posix() if isinstance(path, Path) else path


def source_name(source: str | Path) -> str:
    """Return the short name of a folder or hub id, for tables and plots: its last part, without a revision."""
    found = HubId.parse(source) or HubId.of_folder(source)
    return found.name if found else Path(source).name


def local_folder(source: str | Path, files: Sequence[str], what: str, repo_type: RepoType = "model") -> Path:
    """Return the folder that a path or hub id names; that of a hub id is downloaded into the hub's cache.

    A path that exists is that folder or file. Otherwise `owner/name` and `owner/name@revision` are hub ids, and so is a
    text with the prefix `hub:` in any case. Files that are cached already are not downloaded again. Without a
    connection the cached files are used. Private repositories are read with the token of HF_TOKEN or `hf auth login`.

    Args:
        source: Path of a folder, or hub id. A path that is neither is returned as it is.
        files: Patterns of the files to download.
        what: Word for the contents in error messages, such as "adapter".
        repo_type: Kind of the repository.

    Raises:
        LorarecError: If the repository or the revision does not exist or may not be read, or the hub cannot be reached
            and the files are not cached.
    """
    is_prefixed = _as_text(source).startswith(HUB_PREFIX)
    hub_id = HubId.parse(source)
    if not is_prefixed and (hub_id is None or Path(source).exists()):
        return Path(source)
    if hub_id is None:
        raise LorarecError(f"{what} {source} is no hub id: write hub:owner/name or hub:owner/name@revision")
    no_folder = "" if is_prefixed else "there is no such folder, and "
    with _download_errors(f"{what} {_as_text(source)}: {no_folder}", hub_id, repo_type):
        return Path(
            huggingface_hub.snapshot_download(
                hub_id.repo_id, repo_type=repo_type, revision=hub_id.revision, allow_patterns=list(files)
            )
        )


def require_model(name: str, what: str) -> None:
    """Check that a model is on the hub or in its cache, by one request.

    Transformers repeats its requests for each of several files, for more than a minute if the hub cannot be reached.

    Args:
        name: The repository, with or without an owner.
        what: Word for the model in error messages, such as "backbone".

    Raises:
        LorarecError: As for `local_folder`.
    """
    with _download_errors(f"{what} {name}: there is no such folder, and ", HubId(name), "model"):
        try:
            huggingface_hub.model_info(name)
        except (huggingface_hub.errors.HTTPError, OSError) as error:
            if not isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str):
                raise huggingface_hub.errors.LocalEntryNotFoundError(f"{name} is not cached") from error


@contextmanager
def _download_errors(prefix: str, hub_id: HubId, repo_type: RepoType) -> Iterator[None]:
    try:
        yield
    except (huggingface_hub.errors.HTTPError, OSError, ValueError) as error:
        # That files are not in the cache matters less than why they were not downloaded.
        cause = error.__cause__
        first = cause if isinstance(cause, huggingface_hub.errors.HfHubHTTPError) else error
        raise LorarecError(f"{prefix}{_why_not_downloaded(first, hub_id, repo_type)}") from error


def _why_not_downloaded(error: Exception, hub_id: HubId, repo_type: RepoType) -> str:
    if isinstance(error, huggingface_hub.errors.GatedRepoError):
        return f"the {repo_type} on the hub is gated: accept its terms there, and log in or set HF_TOKEN"
    if isinstance(error, huggingface_hub.errors.RepositoryNotFoundError):
        return (
            f"the hub has no {repo_type} of this name that you may read: check the name, and log in or set HF_TOKEN if "
            "it is private"
        )
    if isinstance(error, huggingface_hub.errors.RevisionNotFoundError):
        return f"the {repo_type} on the hub has no revision {hub_id.revision}: give a branch, tag or commit"
    if isinstance(error, huggingface_hub.errors.LocalEntryNotFoundError):
        return (
            "the hub cannot be reached and its cache does not have the files: download them with a connection first, "
            "or give a folder"
        )
    return f"it cannot be downloaded from the hub: {_one_line(error)}"


def push_files(
    files: Mapping[str, Path | bytes],
    kind: FolderKind,
    repo_id: str,
    *,
    repo_type: RepoType = "model",
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str,
) -> "CommitInfo":
    """Upload files in one commit to a repository, which is created if it does not exist.

    Files of the same kind of folder that are in the repository and not among those uploaded are deleted by the same
    commit, so that the repository holds one artefact and never parts of two. Other files are kept.

    Args:
        files: Path in the repository -> path of a file, or its contents.
        kind: Kind of the folder.
        repo_id: Hub id to write to; a name without an owner is that of the user.
        repo_type: Kind of the repository.
        private: Visibility of a new repository; None for the owner's default.
        token: Access token; if None, that of HF_TOKEN or `hf auth login`.
        revision: Branch to commit to, which is created if it does not exist; None for the main branch.
        commit_message: First line of the commit's message.

    Returns:
        The commit, with its address and its hash.

    Raises:
        LorarecError: If the user may not write to the repository, its visibility is another one, or the hub cannot be
            reached or refuses the files.
    """
    with _upload_errors(repo_id):
        api = huggingface_hub.HfApi(token=token)
        repo_id = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True).repo_id
        is_private = api.repo_info(repo_id, repo_type=repo_type).private
        if private is not None and is_private != private:
            raise LorarecError(
                f"{repo_id} exists on the hub and is {'private' if is_private else 'public'}: change its visibility "
                "there, or choose another repo_id"
            )
        if revision is not None:
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        present = api.list_repo_files(repo_id, repo_type=repo_type, revision=revision)
        stale = [name for name in present if kind.has_file(name) and name not in files]
        added = [huggingface_hub.CommitOperationAdd(name, content) for name, content in files.items()]
        deleted = [huggingface_hub.CommitOperationDelete(name, is_folder=False) for name in stale]
        with warnings.catch_warnings():
            # Personal adapters have tables of users and titles beside the weights; they are no dataset.
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
            return api.create_commit(
                repo_id, [*added, *deleted], commit_message=commit_message, repo_type=repo_type, revision=revision
            )


def full_repo_id(repo_id: str, token: str | None = None) -> str:
    """Return a hub id with its owner, who is the user if none is given.

    Raises:
        LorarecError: If there is no owner and the user is not logged in, or the hub cannot be reached.
    """
    if "/" in repo_id:
        return repo_id
    with _upload_errors(repo_id):
        return f"{huggingface_hub.HfApi(token=token).whoami()['name']}/{repo_id}"


def files_to_push(folder: Path, kind: FolderKind) -> dict[str, Path | bytes]:
    """Return the paths of the files of a folder that lorarec writes there, by their relative paths.

    Raises:
        LorarecError: If one is a symbolic link and the folder is not in the hub's cache, which consists of links.
    """
    files: dict[str, Path | bytes] = {}
    for name in kind.files(folder):
        if (folder / name).is_symlink() and HubId.of_folder(folder) is None:
            raise LorarecError(f"{folder / name} is a link, which is not pushed: put a copy of the file in its place")
        files[name] = folder / name
    return files


@contextmanager
def _upload_errors(repo_id: str) -> Iterator[None]:
    try:
        yield
    except LorarecError:
        raise
    except (huggingface_hub.errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, huggingface_hub.errors.HfHubHTTPError) and error.response.status_code in (401, 403):
            reason = "you may not write to it: log in by `hf auth login`, or set HF_TOKEN to a token with write access"
        else:
            reason = _one_line(error)
        raise LorarecError(f"{repo_id} cannot be pushed to the hub: {reason}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or repr(error)
