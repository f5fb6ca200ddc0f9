"""Clients of model servers score and generate as PyTorch does, and refuse servers whose scores would be others."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import merge, read_adapter
from lorarec.ranking import Ranker, ServerConfig, SglangClient, VllmClient
from lorarec.ranking.engine import FLOAT32_TOLERANCE, TOLERANCE
from lorarec.ranking.server_engine import ServerEngine
from tests.command_line import run
from tests.factories import make_backbone, write_peft_adapter
from tests.ranking.model_servers import SglangStandIn, StandIn, VllmStandIn

READOUTS = ("verdict", "likelihood")
HISTORIES = [["red lamp", "old chair"], ["blue novel"], ["small brush", "big game", "new guide"]]
CANDIDATES = [
    ["green lamp", "white table", "black puzzle"],
    ["red lamp", "lipstick"],
    ["novel", "chair", "lamp", "old"],
]
KINDS: dict[str, tuple[type[ServerEngine], type[StandIn]]] = {
    "vllm": (VllmClient, VllmStandIn),
    "sglang": (SglangClient, SglangStandIn),
}


@pytest.fixture(scope="module")
def folder(shared_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter."""
    return write_peft_adapter(shared_backbone.model, tmp_path_factory.mktemp("adapters") / "shop", 1)


@pytest.fixture(scope="module")
def models(shared_backbone: Backbone, folder: Path) -> dict[str, Any]:
    """The backbone and a copy of it with the adapter merged in, by the names that a server gives them."""
    adapted = copy.deepcopy(shared_backbone.model)
    merge(adapted, read_adapter(folder), reversible=False)
    return {"tiny": shared_backbone.model, "shop": adapted}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[type[ServerEngine], type[StandIn]]:
    """A client and its server."""
    return KINDS[request.param]


@pytest.fixture
def client(
    kind: tuple[type[ServerEngine], type[StandIn]], shared_backbone: Backbone, folder: Path, models: dict[str, Any]
) -> Iterator[tuple[ServerEngine, StandIn]]:
    with kind[1](models) as server, kind[0](shared_backbone, {"shop": folder}, ServerConfig(server.url)) as engine:
        yield engine, server


@pytest.mark.parametrize("readout", READOUTS)
def test_scores_are_those_of_pytorch(
    client: tuple[ServerEngine, StandIn], shared_backbone: Backbone, folder: Path, readout: str
) -> None:
    alike = {}
    for adapter in (None, folder):
        through = Ranker(shared_backbone, adapter, readout, engine=client[0]).score_titles(HISTORIES, CANDIDATES)
        with Ranker(shared_backbone, adapter, readout) as ranker:
            expected = ranker.score_titles(HISTORIES, CANDIDATES)
        for one, other in zip(through, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)
        alike[adapter] = through[0]
    assert not np.allclose(alike[None], alike[folder], atol=0.05)
    assert 1 < client[1].most_at_once <= ServerConfig().engine_concurrency or len(HISTORIES) == 1


def test_many_candidates_are_requested_in_parts(
    client: tuple[ServerEngine, StandIn], shared_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorarec.ranking.server_engine.REQUEST_SIZE", 2)
    through = Ranker(shared_backbone, engine=client[0]).score_titles(HISTORIES[2:], CANDIDATES[2:])[0]
    expected = Ranker(shared_backbone).score_titles(HISTORIES[2:], CANDIDATES[2:])[0]
    np.testing.assert_allclose(through, expected, atol=1e-3)


@pytest.mark.parametrize("constrained", [False, True])
def test_lists_are_those_of_pytorch(
    client: tuple[ServerEngine, StandIn], shared_backbone: Backbone, folder: Path, constrained: bool
) -> None:
    found, expected = [], []
    for adapter in (None, folder):
        through = Ranker(shared_backbone, adapter, "likelihood", engine=client[0])
        examples = [through.builder.example(*pair) for pair in zip(HISTORIES[:2], CANDIDATES[:2], strict=True)]
        found.append(through.generate(examples, 2, constrained))
        with Ranker(shared_backbone, adapter, "likelihood") as ranker:
            expected.append(ranker.generate(examples, 2, constrained))
    assert found == expected


def test_a_title_ends_where_a_server_leaves_out_the_token_that_ended_it(
    shared_backbone: Backbone, models: dict[str, Any]
) -> None:
    lists = []
    for trims in (False, True):
        with (
            SglangStandIn(models, trims_stop=trims) as server,
            SglangClient(shared_backbone, config=ServerConfig(server.url)) as engine,
        ):
            ranker = Ranker(shared_backbone, readout="likelihood", engine=engine)
            example = ranker.builder.example(HISTORIES[0], CANDIDATES[0])
            # Every token ends a title, so that each is one token long.
            example.branches[:] = [[token] for token in range(0, shared_backbone.model.config.vocab_size)]
            lists.append(ranker.generate([example], 2))
    assert lists[0] == lists[1]
    assert None not in lists[0][0]


def test_sglang_scores_the_backbone_alone_by_its_scoring_endpoint(shared_backbone: Backbone, folder: Path) -> None:
    adapted = copy.deepcopy(shared_backbone.model)
    merge(adapted, read_adapter(folder), reversible=False)
    with (
        SglangStandIn({"tiny": shared_backbone.model, "shop": adapted}) as server,
        SglangClient(shared_backbone, {"shop": folder}, ServerConfig(server.url)) as engine,
    ):
        Ranker(shared_backbone, engine=engine).rank(HISTORIES[0], CANDIDATES[0])
        assert {path for path, _, _ in server.requests} == {"/v1/models", "/server_info", "/v1/score"}
        Ranker(shared_backbone, folder, engine=engine).rank(HISTORIES[0], CANDIDATES[0])
        assert {body["lora_path"] for path, body, _ in server.requests if path == "/generate"} == {"shop"}


def rank(
    kind: tuple[type[ServerEngine], type[StandIn]], server: StandIn, backbone: Backbone, folder: Path, **config: Any
) -> None:
    """Rank with an adapter through a server, by both readouts."""
    with kind[0](backbone, {"shop": folder}, ServerConfig(server.url, **config)) as engine:
        for readout in READOUTS:
            Ranker(backbone, folder, readout, engine=engine).rank(HISTORIES[0], CANDIDATES[0])


def test_a_server_without_the_adapter_is_refused(
    kind: tuple[type[ServerEngine], type[StandIn]], shared_backbone: Backbone, folder: Path
) -> None:
    with (
        kind[1]({"tiny": shared_backbone.model}) as server,
        pytest.raises(LorarecError, match=rf"{server.url} serves no adapter 'shop', only the backbone: start it"),
    ):
        rank(kind, server, shared_backbone, folder)


def test_a_server_that_ignores_the_adapter_is_refused(
    kind: tuple[type[ServerEngine], type[StandIn]], shared_backbone: Backbone, folder: Path
) -> None:
    with (
        kind[1]({"tiny": shared_backbone.model, "shop": shared_backbone.model}) as server,
        pytest.raises(LorarecError, match=r"ignores adapter .*shop: .* those of tiny-qwen2 alone") as caught,
    ):
        rank(kind, server, shared_backbone, folder)
    assert "\n" not in str(caught.value)


def test_a_server_with_another_adapter_under_the_name_is_refused(
    kind: tuple[type[ServerEngine], type[StandIn]],
    shared_backbone: Backbone,
    folder: Path,
    models: dict[str, Any],
    tmp_path: Path,
) -> None:
    other = write_peft_adapter(shared_backbone.model, tmp_path / "other", 2)
    with kind[1](models) as server:
        with (
            kind[0](shared_backbone, {"shop": other}, ServerConfig(server.url)) as engine,
            pytest.raises(LorarecError, match=r"does not score as PyTorch does: with adapter .*other"),
        ):
            Ranker(shared_backbone, other, engine=engine).rank(HISTORIES[0], CANDIDATES[0])
        with (
            kind[0](shared_backbone, {"shop": folder}, ServerConfig(server.url)) as engine,
            pytest.raises(LorarecError, match=r"adapter .*other has no name on .* give \w+Client all adapters"),
        ):
            Ranker(shared_backbone, other, engine=engine).rank(HISTORIES[0], CANDIDATES[0])


def test_a_server_of_another_model_is_refused(
    kind: tuple[type[ServerEngine], type[StandIn]], shared_backbone: Backbone, folder: Path, models: dict[str, Any]
) -> None:
    other = make_backbone("qwen2", shared_backbone.tokenizer, seed=5).model
    with kind[1](models | {"tiny": other}) as server:
        with pytest.raises(LorarecError, match=r"does not score as PyTorch does: with tiny-qwen2 alone .*differ by"):
            rank(kind, server, shared_backbone, folder)
        with pytest.raises(LorarecError, match=r"serves tiny: name one of them as engine_model, got 'large'"):
            rank(kind, server, shared_backbone, folder, engine_model="large")


def test_a_server_in_half_precision_is_accepted(
    kind: tuple[type[ServerEngine], type[StandIn]], shared_backbone: Backbone, folder: Path, models: dict[str, Any]
) -> None:
    halved = {name: copy.deepcopy(model).to(torch.bfloat16) for name, model in models.items()}
    with kind[1](halved) as server, kind[0](shared_backbone, {"shop": folder}, ServerConfig(server.url)) as engine:
        through = Ranker(shared_backbone, folder, engine=engine).score_titles(HISTORIES, CANDIDATES)
    with Ranker(shared_backbone, folder) as ranker:
        expected = ranker.score_titles(HISTORIES, CANDIDATES)
    differences = np.concatenate(through) - np.concatenate(expected)
    assert FLOAT32_TOLERANCE < np.abs(differences).max() < TOLERANCE


def test_a_prompt_that_is_too_long_is_refused(client: tuple[ServerEngine, StandIn], shared_backbone: Backbone) -> None:
    ranker = Ranker(shared_backbone, engine=client[0])
    example = ranker.builder.example(HISTORIES[0], CANDIDATES[0])
    long = type(example)(example.prompt * 40, example.branches)
    with pytest.raises(LorarecError, match=r"was started for 512: start it with a larger"):
        ranker.score_examples([long])


@pytest.mark.parametrize("setting", [{"enable_mis": True}, {"multi_item_scoring_delimiter": 151655}])
def test_sglang_with_a_delimiter_between_items_is_refused(
    shared_backbone: Backbone, models: dict[str, Any], setting: dict[str, Any]
) -> None:
    with (
        SglangStandIn(models, settings=setting) as server,
        pytest.raises(LorarecError, match=rf"runs with {next(iter(setting))}=.* not exact: start it without"),
    ):
        SglangClient(shared_backbone, config=ServerConfig(server.url))


SCORING = ("/v1/completions", "/generate", "/v1/score")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((500, {"error": {"message": "out of\nmemory"}}), r"answered 500 \(out of memory\): see the log of the server"),
        ((500, b"<html>"), r"answered 500 \(<html>\)"),
        ((401, {"error": "Unauthorized"}), r"answered 401: set LORAREC_ENGINE_API_KEY to the key of the server"),
        ((404, {"detail": "Not Found"}), r"answered 404 .*: make sure that it is a \w+ server"),
        (b"<html>hello", r"answered b'<html>hello', which is not JSON"),
        ({"choices": [], "scores": []}, r"answered without the fields that \w+ documents"),
        ([], r"answered without the fields that \w+ documents"),
    ],
)
def test_errors_of_servers_are_one_line_with_the_address(
    kind: tuple[type[ServerEngine], type[StandIn]],
    shared_backbone: Backbone,
    folder: Path,
    models: dict[str, Any],
    answer: Any,
    message: str,
) -> None:
    with (
        kind[1](models, dict.fromkeys(SCORING, lambda _: answer)) as server,
        pytest.raises(LorarecError, match=message) as caught,
    ):
        rank(kind, server, shared_backbone, folder)
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_vllm_that_does_not_know_the_wanted_tokens_is_refused(
    shared_backbone: Backbone, folder: Path, models: dict[str, Any]
) -> None:
    choices = [{"index": i, "logprobs": {"top_logprobs": [{"token_id:1": -0.5}]}} for i in range(3)]
    with (
        VllmStandIn(models, {"/v1/completions": lambda _: {"choices": choices}}) as server,
        pytest.raises(LorarecError, match=r"without the fields that vLLM documents \(KeyError: 'token_id:"),
    ):
        rank(KINDS["vllm"], server, shared_backbone, folder)


def test_scores_that_are_not_finite_are_refused(
    kind: tuple[type[ServerEngine], type[StandIn]], shared_backbone: Backbone, models: dict[str, Any]
) -> None:
    broken = copy.deepcopy(shared_backbone.model)
    broken.lm_head.weight.data[:] = float("nan")
    with (
        kind[1]({"tiny": broken}) as server,
        kind[0](shared_backbone, config=ServerConfig(server.url)) as engine,
        pytest.raises(LorarecError, match="scores that are not finite"),
    ):
        Ranker(shared_backbone, readout="likelihood", engine=engine).rank(HISTORIES[0], CANDIDATES[0])


def test_a_server_that_does_not_answer_in_time(
    kind: tuple[type[ServerEngine], type[StandIn]], shared_backbone: Backbone, folder: Path, models: dict[str, Any]
) -> None:
    with (
        kind[1](models, {"/v1/models": lambda _: time.sleep(0.5)}) as server,
        pytest.raises(LorarecError, match=r"/v1/models did not answer within 0.05 seconds: raise engine_timeout"),
    ):
        rank(kind, server, shared_backbone, folder, engine_timeout=0.05)


def test_connection_errors_are_tried_again(
    kind: tuple[type[ServerEngine], type[StandIn]],
    shared_backbone: Backbone,
    folder: Path,
    models: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("lorarec.ranking.model_server.time.sleep", waits.append)
    with kind[1](models) as server:
        url = server.url
    with pytest.raises(LorarecError, match=rf"{url} cannot be reached .*: start it, or set engine_url") as caught:
        kind[0](shared_backbone, {"shop": folder}, ServerConfig(url))
    assert waits == [0.5, 1.0, 2.0]
    assert "\n" not in str(caught.value)


def test_the_key_of_the_environment_is_sent(
    kind: tuple[type[ServerEngine], type[StandIn]],
    shared_backbone: Backbone,
    folder: Path,
    models: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORAREC_ENGINE_API_KEY", "secret")
    with kind[1](models) as server:
        rank(kind, server, shared_backbone, folder)
    assert {headers["Authorization"] for _, _, headers in server.requests} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine_url": "gpu-1:8000"}, "option engine_url must begin with http:// or https://, got 'gpu-1:8000'"),
        ({"engine_timeout": 0}, "option engine_timeout must be positive"),
        ({"engine_timeout": 1e12}, "option engine_timeout must be at most 86400 seconds"),
        ({"engine_concurrency": 0}, "option engine_concurrency must be at least 1"),
        ({"engine_retries": -1}, "option engine_retries must not be negative"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        ServerConfig(**options)


def test_the_command_line_ranks_through_a_server(
    kind: tuple[type[ServerEngine], type[StandIn]],
    dataset: Any,
    backbone_folder: Path,
    write_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    backbone = Backbone.from_pretrained(backbone_folder)
    adapter = write_adapter(backbone.model, tmp_path / "shop", 1)
    adapted = copy.deepcopy(backbone.model)
    merge(adapted, read_adapter(adapter), reversible=False)
    shop = dataset.save(tmp_path / "data").folder
    words = ["rank", shop, "--user", "u00", "--item", "lamp-1", "--item", "chair-2", "--json"]
    words += ["--backbone", backbone_folder, "--adapter", adapter]
    engine = "vllm-server" if kind[0] is VllmClient else "sglang-server"
    with kind[1]({str(backbone_folder): backbone.model, "shop": adapted}) as server:
        found = json.loads(run(*words, "--engine", engine, "--engine-url", f"{server.url}/v1").stdout)
    expected = json.loads(run(*words).stdout)
    assert [row["item_id"] for row in found] == [row["item_id"] for row in expected]
    np.testing.assert_allclose([row["score"] for row in found], [row["score"] for row in expected], atol=1e-3)
    with pytest.raises(LorarecError, match="option --engine-url is for --engine vllm-server and sglang-server"):
        run(*words, "--engine-url", server.url)
