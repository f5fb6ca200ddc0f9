"""The model card of an adapter: what its record says, in a header that the hub accepts."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from lorarec.errors import LorarecError
from lorarec.io.artefacts import write_json
from lorarec.lora import AdapterRecord, MixtureRecord, SourceRecord, read_adapter, save_adapter
from lorarec.lora.model_card import card_for_hub, model_card
from lorarec.prompts import PromptConfig
from tests.hub_server import Hub, metadata_errors

CONFIG = {"base_model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct", "r": 16, "lora_alpha": 32}
VALIDATION = {"step": 40, "ndcg@1": 0.25, "ndcg@10": 0.5, "ndcg@3": 0.375}
TRAINING = {
    "validation": VALIDATION,
    "validation_cases": 1500,
    "validation_protocols": [{"protocol": "leave-one-out", "negatives": 29}],
}
TRAINED = AdapterRecord(
    PromptConfig(template="verdict-v2"),
    backbone_id="Qwen/Qwen2.5-0.5B-Instruct",
    datasets=({"name": "beauty | *2018*", "fingerprint": "0123456789abcdef", "split": "fedcba9876543210"},),
    options={"learning_rate": 2e-4, "epochs": 2},
    details={"training": TRAINING},
)
MIXED = AdapterRecord(
    adapters=(SourceRecord("me/general@v1", "0", TRAINED.datasets), SourceRecord("adapters/shop", "1")),
    mix=MixtureRecord([0.25, 0.75], details={"method": "entropy"}),
)


def test_the_header_describes_a_trained_adapter(hub: Hub) -> None:
    card = ModelCard(model_card(CONFIG, TRAINED))
    card.validate()
    data = card.data
    assert (data.base_model, data.base_model_relation) == ("Qwen/Qwen2.5-0.5B-Instruct", "adapter")
    assert (data.library_name, data.pipeline_tag) == ("peft", "text-ranking")
    assert {"lorarec", "recommendation", "lora"} <= set(data.tags)
    results = {each.metric_name: each for each in data.eval_results}
    assert {name: each.metric_value for name, each in results.items()} == {
        "NDCG@1": 0.25,
        "NDCG@3": 0.375,
        "NDCG@10": 0.5,
    }
    assert {each.dataset_split for each in data.eval_results} == {"validation"}
    protocol = "The true next item ranked among 29 others drawn uniformly (leave-one-out split); 1,500 validation cases"
    assert {each.task_name for each in data.eval_results} == {protocol}
    assert f"{protocol}. The weights are those of the evaluation with the best NDCG@1 on these cases." in card.text


def test_the_text_lists_datasets_options_and_metrics() -> None:
    text = ModelCard(model_card(CONFIG, TRAINED)).text
    assert r"| beauty \| \*2018\* | 0123456789abcdef |" in text
    assert "| learning\\_rate | 0.0002 |" in text
    assert "| NDCG@1 | 0.2500 |" in text


@pytest.mark.parametrize("name", ["/models/mine", "embedded", "gpt2", "", None])
def test_a_base_model_without_a_hub_id_is_not_in_the_header(name: str | None) -> None:
    card = model_card({**CONFIG, "base_model_name_or_path": name}, TRAINED)
    assert metadata_errors(card, "model") == []
    assert "base_model" not in ModelCard(card).data.to_dict()


def test_a_cached_base_model_has_its_hub_id() -> None:
    cached = "/home/me/.cache/huggingface/hub/models--Qwen--Qwen3-0.6B/snapshots/abc"
    assert (
        ModelCard(model_card({**CONFIG, "base_model_name_or_path": cached}, TRAINED)).data.base_model
        == "Qwen/Qwen3-0.6B"
    )


def test_a_mixture_lists_its_parts_and_has_no_results() -> None:
    card = ModelCard(model_card(CONFIG, MIXED))
    assert card.data.eval_results is None
    assert "# Mixture of LoRA adapters for recommendation" in card.text
    assert "| general | 0.25 |\n| shop | 0.75 |" in card.text
    assert "| beauty" in card.text


@pytest.mark.parametrize(
    "record",
    [
        None,
        AdapterRecord(),
        AdapterRecord(details={"training": None}),
        AdapterRecord(details={"training": {"validation": None}}),
        AdapterRecord(details={"training": {"validation": {"ndcg@1": 0.5, "ndcg@x": 1, "hr@1": 1}}}),
        AdapterRecord(mix=MixtureRecord({"layer": [0.5, 0.5]}), adapters=MIXED.adapters),
        AdapterRecord(personal=MixtureRecord([1.0]), user="u1"),
    ],
)
def test_every_record_gives_a_card_that_the_hub_accepts(record: AdapterRecord | None) -> None:
    for card in (
        model_card(CONFIG, record),
        card_for_hub(model_card({}, record).encode(), "me/shop", "me/base").decode(),
    ):
        assert metadata_errors(card, "model") == []
        assert "u1" not in card


def test_a_pushed_card_has_the_names_of_the_repository_and_the_base_model() -> None:
    local = model_card({**CONFIG, "base_model_name_or_path": "/models/mine"}, TRAINED)
    card = ModelCard(card_for_hub(local.encode(), "me/shop-adapter", "me/base").decode())
    assert (card.data.base_model, card.data.model_name) == ("me/base", "shop-adapter")
    assert 'Backbone.from_pretrained("me/base")' in card.text
    assert 'Ranker(backbone, "me/shop-adapter")' in card.text
    assert 'AutoPeftModelForCausalLM.from_pretrained("me/shop-adapter")' in card.text


def test_every_adapter_folder_gets_a_card_and_what_its_owner_writes_is_pushed(
    hub: Hub, make_adapter: Any, tmp_path: Path
) -> None:
    adapter = read_adapter(make_adapter("qwen2", 0))
    (tmp_path / "out").mkdir()
    save_adapter(adapter, tmp_path / "out", "/models/mine", TRAINED)
    readme = tmp_path / "out" / "README.md"
    assert readme.read_text() == model_card({**CONFIG, "r": 3, "lora_alpha": 6, "base_model_name_or_path": ""}, TRAINED)
    readme.write_text(
        readme.read_text().replace("library_name: peft", "library_name: peft\nlicense: mit") + "\nMy words.\n"
    )
    read_adapter(tmp_path / "out").push_to_hub("me/shop", base_model="me/base")
    card = ModelCard(hub.model("me/shop").files["README.md"].decode())
    assert (card.data.license, card.data.base_model) == ("mit", "me/base")
    assert card.text.endswith("\nMy words.\n")


def test_an_adapter_made_elsewhere_is_pushed_with_a_card(hub: Hub, make_adapter: Any) -> None:
    folder = make_adapter("qwen2", 0)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "secrets.txt").write_text("not part of an adapter")
    write_json(folder / "trainer_state.json", {})
    read_adapter(folder).push_to_hub("me/shop", base_model="me/base")
    names = {"adapter_config.json", "adapter_model.safetensors", "README.md", ".gitattributes"}
    assert set(hub.model("me/shop").files) == names
    assert read_adapter("me/shop").config["base_model_name_or_path"] == "me/base"


@pytest.mark.parametrize("card", [b"---\n- a list\n---\n", b"---\na: b: c\n---\n", b"\xff\xfe"])
def test_an_unreadable_card_is_refused(hub: Hub, make_adapter: Any, card: bytes) -> None:
    folder = make_adapter("qwen2", 0)
    (folder / "README.md").write_bytes(card)
    with pytest.raises(LorarecError, match=r"README.md of the adapter is no model card: its header is not readable: "):
        read_adapter(folder).push_to_hub("me/shop", base_model="me/base")
    assert hub.repositories == {}


def test_links_are_not_pushed_except_those_of_the_cache(hub: Hub, make_adapter: Any, tmp_path: Path) -> None:
    folder = make_adapter("qwen2", 0)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's own card
    read_adapter(folder).push_to_hub("shop", base_model="me/base")
    read_adapter("me/shop").push_to_hub("again")  # from the cache, in which files are links
    assert 'Ranker(backbone, "me/shop")' in hub.model("me/shop").files["README.md"].decode()
    assert (
        hub.model("me/again").files["adapter_model.safetensors"] == (folder / "adapter_model.safetensors").read_bytes()
    )
    (tmp_path / "secret").write_text("secret")
    (folder / "weights.png").symlink_to(tmp_path / "secret")
    with pytest.raises(LorarecError, match=r"weights.png is a link, which is not pushed"):
        read_adapter(folder).push_to_hub("me/shop", base_model="me/base")


def test_the_revision_of_another_base_model_is_not_kept(hub: Hub, make_adapter: Any) -> None:
    folder = make_adapter("qwen2", 0)
    config = json.loads((folder / "adapter_config.json").read_text())
    write_json(folder / "adapter_config.json", config | {"base_model_name_or_path": "you/base", "revision": "v1"})
    adapter = read_adapter(folder)
    for base, expected in ((None, ("you/base", "v1")), ("me/base", ("me/base", None))):
        adapter.push_to_hub("me/shop", base_model=base)
        pushed = json.loads(hub.model("me/shop").files["adapter_config.json"])
        assert (pushed["base_model_name_or_path"], pushed["revision"]) == expected
