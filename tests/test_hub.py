"""Round trips through the hub: what is trained and pushed is loaded by its id, by lorarec, PEFT and the service."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM

from lorarec.backbone import Backbone, embedded_folder
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, inject, mix, prompt_config, read_adapter, same_tensors
from lorarec.lora.bank import AdapterBank
from lorarec.lora.provenance import part_weights
from lorarec.prompts import PromptConfig
from lorarec.ranking import Ranker
from lorarec.training import TrainingConfig, train
from tests import factories
from tests.command_line import run
from tests.hub_server import Hub

HISTORY, CANDIDATES = ["hot lamp", "red chair"], ["new plate", "cold table", "hot chair"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny backbone, a dataset and two adapters (see `factories.write_models`)."""
    return factories.write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def pushed(hub: Hub, models: Path) -> Hub:
    """A hub with all of them as repositories of the user `me`."""
    factories.push_models(models)
    return hub


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def lorarec_logits(backbone: Backbone, adapter: Adapter, ids: torch.Tensor) -> torch.Tensor:
    with inject(backbone.model, AdapterBank.stack([adapter]), "deltas") as mixed:
        mixed.set_weights(torch.ones(1))
        return logits(backbone.model, ids)


def test_lorarec_and_peft_load_what_was_pushed(pushed: Hub, models: Path) -> None:
    local, loaded = read_adapter(models / "specific"), read_adapter("me/specific")
    assert same_tensors(local, loaded)
    assert not loaded.is_zero
    backbone = Backbone.from_pretrained("me/tiny")
    assert backbone.fingerprint == Backbone.from_pretrained(models / "tiny").fingerprint
    with Ranker(backbone, "me/specific") as ranker, Ranker(Backbone.from_pretrained(models / "tiny"), local) as other:
        assert ranker.rank(HISTORY, CANDIDATES) == other.rank(HISTORY, CANDIDATES)
    ids = torch.randint(len(backbone.tokenizer), (2, 9), generator=torch.Generator().manual_seed(0))
    expected = lorarec_logits(backbone, loaded, ids)
    peft = AutoPeftModelForCausalLM.from_pretrained("me/specific").eval()
    torch.testing.assert_close(logits(peft, ids), expected, atol=1e-5, rtol=0)
    assert (expected - logits(backbone.model, ids)).abs().max() > 1e-3


def test_mixtures_of_hub_ids_name_the_commits_of_their_parts(pushed: Hub, models: Path, tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(models / "tiny")
    parts = ["me/general", "me/specific@main"]
    mixed = mix(backbone, parts, tmp_path / "mixed", method="fixed", weights=[0.25, 0.75])
    commits = {name: pushed.model(f"me/{name}").branches["main"] for name in ("general", "specific")}
    sources = [f"me/{name}@{commit}" for name, commit in commits.items()]
    assert mixed.record is not None
    assert [part.path for part in mixed.record.adapters] == sources
    assert json.loads((tmp_path / "mixed" / "mix_trace.json").read_text())["adapters"] == sources
    assert next(iter(part_weights(mixed, "mixed").values())) == {"general": 0.25, "specific": 0.75}


def test_commands_take_hub_ids(pushed: Hub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backbone = ["--backbone", "me/tiny"]
    rank = ["rank", "--user", "u001", "--item", "i001", "--item", "i002", "--json", *backbone]
    by_id = run(*rank, "hub:me/shop", "--adapter", "me/specific").stdout
    assert json.loads(by_id) == json.loads(run(*rank, models / "shop", "--adapter", models / "specific").stdout)
    evaluated = run("evaluate", "hub:me/shop", "--adapter", "me/general", "--limit", 3, "--json", *backbone).stdout
    assert "general" in json.loads(evaluated)["settings"]["warm"]["rows"]
    run("mix", "me/general", "me/specific", "--method", "fixed", "--weights", "0.5,0.5", "--out", "mixed", *backbone)
    run(
        "recommend",
        "hub:me/shop",
        "--user",
        "u001",
        "--adapter",
        "me/general",
        "--out",
        "lists",
        "--pool",
        10,
        *backbone,
    )
    with pytest.raises(LorarecError, match="the hub's cache, which is not changed"):
        run("data", "split", "hub:me/shop", "--seed", 1)
    with pytest.raises(LorarecError, match="adapter me/none: there is no such folder, and the hub has no model"):
        run(*rank, "hub:me/shop", "--adapter", "me/none")


def test_adapters_of_the_embedded_backbone_load_in_peft_here_and_after_a_push(
    hub: Hub, tmp_path: Path, write_adapter: Callable[..., Path]
) -> None:
    backbone = Backbone.from_pretrained("embedded")
    settings = {"r": 2, "target_modules": ["q_proj", "v_proj"]}
    parts = [write_adapter(backbone.model, tmp_path / f"part{seed}", seed, {}, **settings) for seed in (0, 1)]
    mixed = mix(backbone, parts, tmp_path / "mixed", method="fixed", weights=[0.5, 0.5])
    ids = torch.randint(len(backbone.tokenizer), (1, 9), generator=torch.Generator().manual_seed(0))
    expected = lorarec_logits(backbone, mixed, ids)
    here = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "mixed"), dtype=torch.float32).eval()
    torch.testing.assert_close(logits(here, ids), expected, atol=1e-4, rtol=0)
    with pytest.raises(LorarecError, match=r"is not on the hub: push it by Backbone.push_to_hub"):
        mixed.push_to_hub("me/mixed")
    assert ("model", "me/mixed") not in hub.repositories
    backbone.push_to_hub("me/embedded")
    mixed.push_to_hub("me/mixed", base_model="me/embedded")
    there = AutoPeftModelForCausalLM.from_pretrained("me/mixed", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(there, ids), expected, atol=1e-4, rtol=0)
    again = Backbone.from_pretrained("me/embedded")
    assert read_adapter("me/mixed", again).record == mixed.record
    assert again.fingerprint == backbone.fingerprint
    assert again.tokenizer("Toy STORY").input_ids == backbone.tokenizer("Toy STORY").input_ids
    card = ModelCard(hub.model("me/embedded").files["README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "transformers")
    assert str(embedded_folder()).encode() not in b"".join(hub.model("me/mixed").files.values())


def test_a_backbone_of_the_hub_is_not_pushed_again(hub: Hub, shared_backbone: Backbone) -> None:
    with pytest.raises(LorarecError, match="tiny-qwen2 is not a folder here"):
        shared_backbone.push_to_hub("me/tiny")


def test_an_adapter_in_memory_is_not_pushed(hub: Hub, shared_backbone: Backbone) -> None:
    with pytest.raises(LorarecError, match="an adapter in memory cannot be pushed: save it first"):
        factories.random_adapter(shared_backbone, 0).push_to_hub("me/shop", base_model="me/tiny")


def test_a_custom_template_is_found_through_the_cache(hub: Hub, models: Path, tmp_path: Path) -> None:
    template = tmp_path / "mine.j2"
    bundled = Path(embedded_folder().parents[1] / "prompts" / "templates" / "verdict-v2.j2").read_text()
    template.write_text(bundled + "{# mine #}")
    backbone = Backbone.from_pretrained(models / "tiny")
    config = TrainingConfig(
        **{**factories.QUICK, "epochs": 1, "samples": 8, "eval_users": 0, "template": str(template)}
    )
    adapter = train(backbone, [Dataset.load(models / "shop")], tmp_path / "adapter", config)
    adapter.push_to_hub("me/templated", base_model="me/tiny")
    prompt = prompt_config(read_adapter("me/templated"))
    assert prompt == prompt_config(adapter)
    assert prompt != PromptConfig(template="verdict-v2")


def test_adapters_trained_on_a_dataset_of_the_hub_name_it(pushed: Hub, models: Path, tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained("me/tiny")
    config = TrainingConfig(**{**factories.QUICK, "epochs": 1, "samples": 8, "eval_users": 0})
    adapter = train(backbone, [Dataset.load("hub:me/shop")], tmp_path / "adapter", config)
    adapter.push_to_hub("me/adapter")  # its base model is on the hub already
    card = ModelCard(pushed.model("me/adapter").files["README.md"].decode())
    assert (card.data.base_model, card.data.datasets) == ("me/tiny", ["me/shop"])
    assert (
        pushed.model("me/adapter").files["adapter_config.json"]
        == (tmp_path / "adapter" / "adapter_config.json").read_bytes()
    )
