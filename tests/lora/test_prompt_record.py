"""Prompt options of adapters: a custom template is a file in the adapter's folder."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lorarec.errors import LorarecError
from lorarec.lora import read_adapter
from lorarec.lora.prompt_record import prompt_config, shared_prompt_config
from lorarec.lora.record import TEMPLATE_FILE, AdapterRecord, write_record
from lorarec.prompts import LATEST, PromptConfig, TemplateText

TEXT = "{{ history | join(', ') }} then {{ candidate }}"


@pytest.fixture
def folder(make_adapter) -> Path:
    return make_adapter("qwen2", 1)


def record_template(folder: Path, name: str) -> None:
    (folder / "lorarec.json").write_text(json.dumps({"options": {"template": name}}))


def template(folder: Path) -> str | TemplateText | None:
    return prompt_config(read_adapter(folder)).template


@pytest.mark.parametrize("name", ["own.j2", "/home/someone/words/own.j2", "words/own.j2", "../own.j2"])
def test_the_file_in_the_folder_is_read_whatever_path_was_recorded(name: str, folder: Path) -> None:
    (folder.parent / "own.j2").write_text("another {{ candidate }}")
    (folder / "own.j2").write_text(TEXT)
    record_template(folder, name)
    assert template(folder) == TemplateText("own.j2", TEXT)


@pytest.mark.parametrize("name", ["verdict", "click"])
def test_bundled_names_stay_names(name: str, folder: Path) -> None:
    (folder / name).write_text("{{ candidate }}")
    record_template(folder, name)
    assert template(folder) == f"{name}-v1"


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret", "..", ".", "/", "", "gone.j2", "a\0b", "x" * 5000, "words"]
)
def test_no_path_leads_out_of_the_folder(name: str, folder: Path) -> None:
    (folder.parent / "secret").write_text("SECRET {{ candidate }}")
    (folder / "words").mkdir()
    record_template(folder, name)
    with pytest.raises(LorarecError, match="not in its folder: copy it there") as error:
        template(folder)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "own.j2", "/dev/zero", "../elsewhere/secret"])
def test_no_link_leads_out_of_the_folder(target: str, folder: Path) -> None:
    (folder.parent / "secret").write_text("SECRET {{ candidate }}")
    (folder / "own.j2").symlink_to(target)
    record_template(folder, "own.j2")
    with pytest.raises(LorarecError, match="not in its folder"):
        template(folder)


def test_files_that_are_no_templates(folder: Path) -> None:
    record_template(folder, "own.j2")
    (folder / "own.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(LorarecError, match="not UTF-8"):
        template(folder)
    with (folder / "own.j2").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(LorarecError, match="more than the limit"):
        template(folder)
    (folder / "own.j2").unlink()
    os.mkfifo(folder / "own.j2")
    with pytest.raises(LorarecError, match="not in its folder"):
        template(folder)


@pytest.mark.parametrize("name", ["verdict-v1", "likelihood-v1", "click-v1"])
def test_names_of_versions_stay_names(name: str, folder: Path) -> None:
    (folder / "lorarec.json").write_text(json.dumps({"format_version": 2, "options": {"template": name}}))
    assert template(folder) == name


@pytest.mark.parametrize(("readout", "name"), [(None, "verdict-v1"), ("likelihood", "likelihood-v1")])
def test_records_of_version_0_1_without_a_template_are_prompted_as_then(readout, name, folder: Path) -> None:
    (folder / "lorarec.json").write_text(json.dumps({"readout": readout, "options": {"template": None}}))
    assert template(folder) == name


def test_a_template_is_written_where_it_is_read(folder: Path) -> None:
    record = AdapterRecord(PromptConfig(template=TemplateText("anything", TEXT), max_history=3))
    write_record(folder, record)
    written = json.loads((folder / "lorarec.json").read_text())
    assert (written["options"]["template"], written["options"]["max_history"]) == (TEMPLATE_FILE, 3)
    assert prompt_config(read_adapter(folder)) == record.prompt
    for name in (None, "click-v1"):
        write_record(folder, AdapterRecord(PromptConfig(template=name)))
        assert template(folder) == name
    assert (folder / TEMPLATE_FILE).read_text() == TEXT


def test_adapters_share_prompts_by_the_text_of_their_templates() -> None:
    one, same, other = (
        PromptConfig(template=TemplateText(name, text))
        for name, text in [("a", TEXT), ("b", TEXT), ("c", "{{ candidate }}")]
    )
    assert shared_prompt_config({"one": one, "same": same}) == one
    with pytest.raises(LorarecError, match=r"different values of template \(a, c\)"):
        shared_prompt_config({"one": one, "other": other})


def test_an_adapter_made_elsewhere_has_the_latest_template(folder: Path) -> None:
    (folder / "lorarec.json").unlink(missing_ok=True)
    assert template(folder) == prompt_config(None).template == LATEST["verdict"]


def test_versions_of_a_template_share_prompts_only_without_evidence() -> None:
    former = PromptConfig(template="verdict-v1")
    latest = PromptConfig(template="verdict-v2")
    assert shared_prompt_config({"old": former, "new": latest}) == former
    with pytest.raises(LorarecError, match=r"adapters old and new .* template \(verdict-v1, verdict-v2\)"):
        shared_prompt_config({"old": replace(former, evidence=True), "new": replace(latest, evidence=True)})


def test_lengths_in_which_adapters_differ_have_their_defaults() -> None:
    """Prompts of a mixture do not depend on the order of its adapters."""
    one = PromptConfig(max_history=3, max_tokens=512, max_title_tokens=8)
    other = PromptConfig(max_history=20, max_tokens=512, max_title_tokens=16)
    shared = PromptConfig(max_tokens=512)
    assert shared_prompt_config({"one": one, "other": other}) == shared
    assert shared_prompt_config({"other": other, "one": one}) == shared
    assert shared_prompt_config({"one": one}) == one
