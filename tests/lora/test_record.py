"""lorarec.json: unusable values are refused when the file is read."""

import json

import pytest

from lorarec.errors import LorarecError
from lorarec.lora import AdapterRecord, MixtureRecord, SourceRecord, read_adapter, write_record
from lorarec.lora.prompt_record import prompt_config
from lorarec.lora.provenance import part_weights, trained_on
from lorarec.prompts import PromptConfig


@pytest.fixture
def folder(make_adapter):
    return make_adapter("qwen2", 1)


WRONG = [
    *({"options": {"max_history": value}} for value in ("many", 0, -1, 2.5, True, [3], 10**7, float("nan"))),
    *({"options": {"max_tokens": value}} for value in ("1024", 0, {}, 1e3)),
    *({"options": {"max_title_tokens": value}} for value in (-1, False, "long")),
    *({"options": {"evidence": value}} for value in ("yes", 1, [])),
    *({"options": {"evidence_model": value}} for value in ("sasrec", 3, [], {"epochs": 10**9}, {"unknown": 1})),
    *({"options": {"template": value}} for value in (3, ["own.j2"], {"name": "own.j2"})),
    *({"options": value} for value in ([], "none", 3)),
    *({"readout": value} for value in ("guess", 3, ["verdict"], {})),
    *({"backbone": value} for value in ("embedded", ["embedded"], {"id": 3}, {"fingerprint": 12})),
    *({"datasets": value} for value in ("games", {"name": "games"}, ["games"], 3)),
    *({"start_from": value} for value in ("general", ["general"], {"datasets": ["games"]})),
    *({"adapters": value} for value in ("general", ["general"], [{"path": 3}], [{"datasets": 3}])),
    *({"mix": value} for value in (["general"], {"weights": "even"}, {"weights": [None]}, {"weights": {"q": 1}})),
    *({"mix": {"weights": value}} for value in ([float("nan")], [1e300], [True], {"q": ["1"]})),
    *({"personal": value} for value in (3, {"names": "general"}, {"names": [1]})),
    {"user": 42},
    *({"format_version": value} for value in (1, 3, "2")),
]


@pytest.mark.parametrize("record", WRONG, ids=json.dumps)
def test_fields_of_the_wrong_kind(record, folder) -> None:
    (folder / "lorarec.json").write_text(json.dumps(record))
    with pytest.raises(LorarecError, match=r"lorarec\.json: [a-z_.0-9]+ must be .*, got") as error:
        read_adapter(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("text", ["[]", "3", '"text"', "null", "{", "[" * 10**6, '{"a":' * 10**5, "\xff", "1" * 10**5])
def test_unusable_records_are_refused(text: str, folder) -> None:
    (folder / "lorarec.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(LorarecError, match=r"lorarec\.json"):
        read_adapter(folder)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"readout": None, "options": None, "datasets": None, "start_from": None, "adapters": None, "mix": None},
        {"options": {"max_history": None, "template": None}, "backbone": {}, "unknown": [1]},
        {"adapters": [{}, {"path": None, "datasets": None}], "mix": {"weights": None, "names": None}},
        {"adapters": [{"path": "a"}, {"path": "b"}], "mix": {"names": ["a", "a", "b"], "weights": [0.5, 0.5]}},
        {"mix": {"weights": {"unknown.layer": [1]}}, "user": None},
    ],
)
def test_missing_fields_are_unset(record, folder) -> None:
    (folder / "lorarec.json").write_text(json.dumps(record))
    adapter = read_adapter(folder)
    assert prompt_config(adapter).max_history == 10
    assert trained_on(adapter) == []
    assert part_weights(adapter, "one").keys() == adapter.tensors.keys()


RECORDS = [
    AdapterRecord(),
    AdapterRecord(
        prompt=PromptConfig("likelihood", "likelihood-v1", 900, 20, 5, True),
        backbone_id="embedded",
        backbone_fingerprint="0123456789abcdef",
        datasets=({"name": "games", "fingerprint": "a", "split": "b"},),
        start_from=SourceRecord("general", "c", ({"name": "office", "fingerprint": "d", "split": "e"},)),
        options={"r": 4, "learning_rate": 1e-3},
        details={"seed": 3, "training": {"steps": 2}},
    ),
    AdapterRecord(PromptConfig(evidence=True, evidence_model={"epochs": 2, "learning_rate": 1e-2, "seed": 7})),
    AdapterRecord(
        adapters=(SourceRecord("general", "c"), SourceRecord("shop", "d")),
        mix=MixtureRecord([0.5, 0.5], details={"method": "grid"}),
    ),
    AdapterRecord(personal=MixtureRecord({"layer": [0.5, 0.5]}, ["a", "b"], {"combine": "deltas"}), user="42"),
]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_read_as_it_was_written(record: AdapterRecord, folder) -> None:
    write_record(folder, record)
    assert read_adapter(folder).record == record
    written = json.loads((folder / "lorarec.json").read_text())["options"]
    assert ("evidence_model" in written) == (record.prompt.evidence_model is not None)
