"""A stand-in for the API of the Hugging Face hub, on a free port of this machine, with repositories in memory.

It answers the requests by which `huggingface_hub` creates repositories and branches, validates metadata, uploads files
(in the commit, or as large files beforehand), commits, and lists and downloads files.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

#: The user that each token belongs to.
TOKENS = {"hf_me": "me", "hf_you": "you"}
#: Files of these types are uploaded before the commit, as large files.
LARGE = (".safetensors", ".parquet")

_YAML_BLOCK = re.compile(r"^\s*---\n(.*?)\n---[ \t]*(?:\n|$)", re.DOTALL)
_MODEL_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_DATASET_ID = _MODEL_ID
_LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "other", "unknown"}
_TASKS = {"text-ranking", "text-generation", "other"}
_SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M"}


@dataclass
class Repository:
    """A repository: commits by hash, and the hash of the head of each branch."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        """Make a commit of all files on a branch and return its hash."""
        commit = hashlib.sha1(f"{branch} {len(self.commits)} {sorted(files)} {id(self)}".encode()).hexdigest()
        self.commits[commit], self.branches[branch] = files, commit
        self.messages.append(message)
        return commit

    def find(self, revision: str) -> str | None:
        """Return the hash of a branch or commit."""
        return self.branches.get(revision, revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, bytes]:
        """Contents of the files of the main branch by their paths."""
        return self.commits[self.branches["main"]]


class Hub:
    """Repositories by (type, id), uploaded large files by hash, and the requests that were made.

    Attributes:
        url: Address of the server.
        refuse_commits: Whether commits get the status 500.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refuse_commits = False

    def model(self, repo_id: str) -> Repository:
        """Return the repository of a model."""
        return self.repositories["model", repo_id]

    def dataset(self, repo_id: str) -> Repository:
        """Return the repository of a dataset."""
        return self.repositories["dataset", repo_id]


def metadata_errors(content: str, repo_type: str) -> list[str]:
    """Check the YAML header of a card as the hub's specification of model and dataset cards describes it."""
    match = _YAML_BLOCK.match(content)
    if match is None:
        return ["there is no YAML header"]
    data = yaml.safe_load(match[1])
    if not isinstance(data, dict):
        return ["the YAML header is no mapping"]
    errors = [] if data.get("license", "unknown") in _LICENSES else [f"license {data['license']!r}"]
    if data.get("license") == "other" and not data.get("license_name"):
        errors.append("license other needs license_name")
    tags = data.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        errors.append("tags must be texts")
    if repo_type == "dataset":
        errors += [f"task {task!r}" for task in data.get("task_categories", []) if task not in _TASKS]
        errors += [f"size {size!r}" for size in data.get("size_categories", []) if size not in _SIZES]
        return errors + [
            f"config {config!r}" for config in data.get("configs", []) if not {"config_name", "data_files"} <= {*config}
        ]
    base = data.get("base_model", [])
    for name in base if isinstance(base, list) else [base]:
        if not _MODEL_ID.fullmatch(name):
            errors.append(f"base_model {name!r} is no model id")
    errors += [
        f"dataset {name!r} is no dataset id" for name in data.get("datasets", []) if not _DATASET_ID.fullmatch(name)
    ]
    if data.get("pipeline_tag", "other") not in _TASKS:
        errors.append(f"pipeline_tag {data['pipeline_tag']!r}")
    for model in data.get("model-index", []):
        if not isinstance(model.get("name"), str):
            errors.append("model-index needs names")
        for result in model["results"]:
            if result["task"].get("type") not in _TASKS or not {"type", "name"} <= {*result["dataset"]}:
                errors.append("a result needs a task type, and type and name of its dataset")
            for metric in result["metrics"]:
                if not isinstance(metric.get("type"), str) or not isinstance(metric.get("value"), int | float):
                    errors.append(f"metric {metric!r}")
    return errors


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""

    def _answer(self, status: int, body: Any = None, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    @property
    def _user(self) -> str | None:
        return TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _handle(self) -> None:
        body, path = self._read(), urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                return answer(
                    self, body, **{name: unquote(value) for name, value in match.groupdict(default="").items()}
                )
        self._refuse(404, "NoSuchRoute")

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _readable(self, kind: str, repo_id: str) -> Repository | None:
        """Return a repository that the user may read; otherwise refuse the request."""
        repository = self.hub.repositories.get((kind.rstrip("s/") or "model", repo_id))
        if repository is None or (repository.private and self._user != repo_id.split("/")[0]):
            self._refuse(404 if self._user else 401, "RepoNotFound")
            return None
        return repository

    def _writable(self, kind: str, repo_id: str) -> Repository | None:
        repository = self._readable(kind, repo_id)
        if repository is not None and self._user != repo_id.split("/")[0]:
            self._refuse(403, "Forbidden")
            return None
        return repository

    def validate(self, body: bytes) -> None:
        """Answer a request to validate metadata."""
        asked = json.loads(body)
        errors = [{"message": message} for message in metadata_errors(asked["content"], asked["repoType"])]
        self._answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def create(self, body: bytes) -> None:
        """Create a repository."""
        asked = json.loads(body)
        owner = asked.get("organization") or self._user
        if self._user is None:
            return self._refuse(401, "Unauthorized")
        if owner != self._user:
            return self._refuse(403, "Forbidden")
        kind, repo_id = asked.get("type", "model"), f"{owner}/{asked['name']}"
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        if (kind, repo_id) in self.hub.repositories:
            return self._answer(409, {"url": url, "error": "exists"})
        made = self.hub.repositories[kind, repo_id] = Repository(private=asked.get("visibility") == "private")
        made.commit("main", {".gitattributes": b""}, "initial commit")
        self._answer(200, {"url": url})

    def whoami(self, body: bytes) -> None:
        """Answer the user's name."""
        self._answer(200, {"name": self._user, "type": "user"}) if self._user else self._refuse(401, "Unauthorized")

    def info(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        """Describe a revision."""
        repository = self._readable(kind, repo_id)
        if repository is None:
            return
        commit = repository.find(revision or "main")
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        files = [{"rfilename": name} for name in sorted(repository.commits[commit])]
        self._answer(200, {"id": repo_id, "sha": commit, "private": repository.private, "siblings": files, "tags": []})

    def tree(self, body: bytes, kind: str, repo_id: str, revision: str, path: str) -> None:
        """List all files of a revision, or those of a folder."""
        repository = self._readable(kind, repo_id)
        if repository is None:
            return
        commit = repository.find(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        folder = f"{path}/" if path else ""
        entries = [
            _entry(name, content)
            for name, content in sorted(repository.commits[commit].items())
            if name.startswith(folder)
        ]
        if path and not entries:
            return self._refuse(404, "EntryNotFound")
        self._answer(200, entries)

    def branch(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        """Create a branch."""
        repository = self._writable(kind, repo_id)
        if repository is None:
            return
        if revision in repository.branches:
            return self._refuse(409, "Conflict")
        repository.branches[revision] = repository.branches["main"]
        self._answer(200)

    def preupload(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        """Say which files are uploaded before the commit."""
        if self._writable(kind, repo_id) is None:
            return
        modes = [
            {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular"}
            for each in json.loads(body)["files"]
        ]
        self._answer(200, {"files": [{**each, "shouldIgnore": False} for each in modes]})

    def batch(self, body: bytes, kind: str, repo_id: str) -> None:
        """Say where large files are uploaded."""
        if self._writable(kind, repo_id) is None:
            return
        objects: list[dict[str, Any]] = []
        for each in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/upload/{each['oid']}"}}
            objects.append({**each, **({} if each["oid"] in self.hub.large else {"actions": upload})})
        self._answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> None:
        """Take a large file."""
        if hashlib.sha256(body).hexdigest() != oid:
            return self._refuse(400, "WrongHash")
        self.hub.large[oid] = body
        self._answer(200)

    def commit(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        """Commit files that are in the request or were uploaded before."""
        repository = self._writable(kind, repo_id)
        if repository is None:
            return
        if self.hub.refuse_commits:
            return self._refuse(500, "InternalError")
        head = repository.branches.get(revision)
        if head is None:
            return self._refuse(404, "RevisionNotFound")
        files, message = dict(repository.commits[head]), ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            else:
                del files[value["path"]]
        commit = repository.commit(revision, files, message)
        prefix = "datasets/" if kind == "datasets" else ""
        self._answer(200, {"commitUrl": f"{self.hub.url}/{prefix}{repo_id}/commit/{commit}", "commitOid": commit})

    def resolve(self, body: bytes, kind: str, repo_id: str, revision: str, path: str) -> None:
        """Send a file, or its size and hash."""
        repository = self._readable(kind, repo_id)
        if repository is None:
            return
        if repository.gated and self._user != repo_id.split("/")[0]:
            return self._refuse(403, "GatedRepo")
        commit = repository.find(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        if path not in repository.commits[commit]:
            return self._refuse(404, "EntryNotFound")
        content = repository.commits[commit][path]
        self._answer(200, content, ETag=f'"{_etag(path, content)}"', X_Repo_Commit=commit)


def _etag(name: str, content: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _etag(name, content)}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": entry["oid"], "size": len(content), "pointerSize": 130}
    return entry


_REPO = r"(?P<repo_id>[\w.-]+/[\w.-]+)"
_API = r"/api/(?P<kind>models|datasets)/" + _REPO
_FILES = r"/(?P<kind>datasets/)?" + _REPO
_ROUTES = [
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", "/api/repos/create", _Handler.create),
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", _API + "/branch/(?P<revision>[^/]+)", _Handler.branch),
    ("POST", _API + "/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    ("POST", _API + "/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("GET", _API + "/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", _Handler.tree),
    ("GET", _API + "(?:/revision/(?P<revision>[^/]+))?", _Handler.info),
    ("POST", _FILES + r"\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/upload/(?P<oid>[0-9a-f]+)", _Handler.upload),
    ("GET HEAD", _FILES + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run the stand-in until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": hub})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
