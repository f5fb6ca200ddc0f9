"""Hub ids in place of folders: what is a folder and what an id, downloads, the cache, and uploads in one commit."""

from pathlib import Path

import huggingface_hub
import pytest

from lorarec.errors import LorarecError
from lorarec.io import FolderKind, HubId, local_folder, push_files, require_model, source_name
from tests.hub_server import Hub, Repository

CARD = b"---\ntags:\n- lorarec\n---\n"
FILES = {"lorarec.json": b"{}", "adapter_model.safetensors": b"weights", "README.md": CARD}


def push(files: dict[str, Path | bytes], repo_id: str = "me/shop", **options) -> huggingface_hub.CommitInfo:
    return push_files(files, FolderKind.ADAPTER, repo_id, **{"commit_message": "Upload", **options})


def read(source: str | Path, *patterns: str) -> Path:
    return local_folder(source, patterns or ("*",), "adapter")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("me/shop", HubId("me/shop")),
        ("me/shop@v1.0", HubId("me/shop", "v1.0")),
        ("hub:me/shop@refs/pr/1", HubId("me/shop", "refs/pr/1")),
        (Path("hub:me/shop"), HubId("me/shop")),
        *((text, None) for text in ("shop", "./me/shop", "../shop", "/me/shop", "a/b/c", "me/", "me/shop@", "~/shop")),
    ],
)
def test_ids_and_paths(text: str | Path, expected: HubId | None) -> None:
    assert HubId.parse(text) == expected


def test_names_of_sources() -> None:
    cached = Path("/cache/models--me--shop/snapshots/abc")
    sources = ["adapters/general", "/data/adapters/general", "me/general@v1", "hub:me/general"]
    assert [source_name(each) for each in sources] == ["general"] * 4
    assert source_name(cached) == "shop"
    assert HubId.of_folder(cached) == HubId("me/shop", "abc")
    assert HubId.of_folder("adapters/snapshots/abc") is None


def test_a_folder_wins_over_the_hub_except_with_the_prefix(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push({"lorarec.json": b"of the hub"})
    (tmp_path / "me" / "shop").mkdir(parents=True)
    (tmp_path / "me" / "shop" / "lorarec.json").write_text("of the folder")
    monkeypatch.chdir(tmp_path)
    hub.requests.clear()
    assert (read("me/shop") / "lorarec.json").read_text() == "of the folder"
    assert hub.requests == []
    assert (read("hub:me/shop") / "lorarec.json").read_text() == "of the hub"


def test_only_what_is_needed_is_downloaded_and_only_once(hub: Hub) -> None:
    push({**FILES, "tensorboard/events.out.tfevents.1": b"log"})
    folder = read("me/shop", "*.json", "*.safetensors")
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_model.safetensors", "lorarec.json"]
    hub.requests.clear()
    assert read("me/shop", "*.json", "*.safetensors") == folder
    assert hub.requests == ["GET /api/models/me/shop/revision/main"]


def test_revisions(hub: Hub) -> None:
    first = push({"lorarec.json": b"1"})
    second = push({"lorarec.json": b"2"})
    branch = push({"lorarec.json": b"3"}, revision="trial")
    contents = {
        revision: (read(f"me/shop@{revision}") / "lorarec.json").read_bytes() for revision in (first.oid, "trial")
    }
    assert contents == {first.oid: b"1", "trial": b"3"}
    assert (read("me/shop") / "lorarec.json").read_bytes() == b"2"
    assert HubId.of_folder(read("me/shop")) == HubId("me/shop", second.oid)
    assert hub.model("me/shop").branches == {"main": second.oid, "trial": branch.oid}


def test_cached_files_are_used_without_a_connection(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    push(FILES)
    folder = read("me/shop")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert read("me/shop") == folder
    with pytest.raises(LorarecError, match="adapter me/other: there is no such folder, and the hub cannot be reached"):
        read("me/other")


def _private(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.model("me/shop").private = True
    monkeypatch.setenv("HF_TOKEN", "hf_you")


def _gated(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.model("me/shop").gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_you")


def test_private_repositories_are_read_with_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    push(FILES, private=True)
    assert hub.model("me/shop").private
    assert (read("me/shop") / "lorarec.json").is_file()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(LorarecError, match="that you may read"):
        read("me/shop@other")


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("me/none", None, "adapter me/none: there is no such folder, and the hub has no model of this name"),
        ("hub:me/none", None, "adapter hub:me/none: the hub has no model of this name that you may read"),
        ("hub:shop", None, "adapter hub:shop is no hub id: write hub:owner/name"),
        ("me/shop@v9", None, "has no revision v9: give a branch, tag or commit"),
        ("me/shop", _private, "the hub has no model of this name that you may read: check the name, and log in"),
        ("me/shop", _gated, "is gated: accept its terms there"),
        ("me/shop--2", None, "it cannot be downloaded from the hub: Cannot have --"),
    ],
)
def test_refused_downloads(hub: Hub, monkeypatch: pytest.MonkeyPatch, source: str, change, message: str) -> None:
    push(FILES)
    if change:
        change(hub, monkeypatch)
    with pytest.raises(LorarecError) as refusal:
        read(source)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_push_is_one_commit_that_removes_what_an_earlier_one_left(hub: Hub) -> None:
    info = push({**FILES, "template.j2": b"text"}, commit_message="First")
    assert isinstance(info, huggingface_hub.CommitInfo)
    assert (info.repo_url.repo_id, info.commit_message) == ("me/shop", "First")
    repository = hub.model("me/shop")
    repository.commit("main", {**repository.files, "notes.txt": b"mine"}, "Notes of my own")
    push(FILES, "shop", commit_message="Second")
    assert repository.messages == ["initial commit", "First", "Notes of my own", "Second"]
    assert repository.files == {**FILES, "notes.txt": b"mine", ".gitattributes": b""}


def test_a_push_that_fails_leaves_the_repository_as_it_was(hub: Hub) -> None:
    push({"lorarec.json": b"before"})
    before = dict(hub.model("me/shop").files)
    hub.refuse_commits = True
    with pytest.raises(LorarecError, match=r"me/shop cannot be pushed to the hub: .*500") as refusal:
        push(FILES)
    assert "\n" not in str(refusal.value)
    assert hub.model("me/shop").files == before


@pytest.mark.parametrize(
    ("repo_id", "options", "message"),
    [
        ("you/shop", {}, "you/shop cannot be pushed to the hub: you may not write to it: log in"),
        ("me/shop", {"token": "hf_unknown"}, "you may not write to it"),
        ("me/shop", {"private": True}, "me/shop exists on the hub and is public"),
        ("me/a b", {}, "me/a b cannot be pushed to the hub: Repo id must"),
    ],
)
def test_refused_uploads(hub: Hub, repo_id: str, options: dict, message: str) -> None:
    hub.repositories["model", "you/shop"] = Repository()
    push({"lorarec.json": b"before"})
    with pytest.raises(LorarecError) as refusal:
        push(FILES, repo_id, **options)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_wrong_metadata_is_refused_before_anything_is_uploaded(hub: Hub) -> None:
    with pytest.raises(LorarecError, match=r"Invalid metadata in README.md. - license 'unheard of'"):
        push({**FILES, "README.md": b"---\nlicense: unheard of\n---\n"})
    assert hub.large == {}
    assert hub.model("me/shop").messages == ["initial commit"]


def test_a_model_is_looked_for_by_one_request(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    push({"config.json": b"{}"}, "me/tiny")
    hub.requests.clear()
    require_model("me/tiny", "backbone")
    assert len(hub.requests) == 1
    with pytest.raises(LorarecError, match=r"^backbone me/none: there is no such folder, and the hub has no model of"):
        require_model("me/none", "backbone")
    with pytest.raises(LorarecError, match=r"^backbone a b: there is no such folder, and it cannot be downloaded"):
        require_model("a b", "backbone")
    huggingface_hub.hf_hub_download("me/tiny", "config.json")
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", "http://127.0.0.1:9")  # nothing answers
    require_model("me/tiny", "backbone")
    with pytest.raises(LorarecError, match=r"backbone me/other: .*the hub cannot be reached and its cache does not"):
        require_model("me/other", "backbone")
