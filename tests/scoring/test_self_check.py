"""Every backbone's scores are measured against one candidate at a time before they are used."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from lorarec.errors import LorarecError
from lorarec.scoring import TREE, check_scoring, plan, require_exact
from lorarec.scoring.self_check import cache_folder

from .architectures import build

VOCABULARY = 200


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAREC_CACHE", str(tmp_path))
    return tmp_path / "scoring"


@pytest.fixture
def misjudged(monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    """A model whose local attention uses places in the sequence, and whose plan is wrongly `tree`."""
    model = build("gpt_neo", VOCABULARY)
    wrong = dataclasses.replace(plan.plan_for(model), kind=TREE)
    monkeypatch.setitem(plan._plans, model, wrong)
    return model


def test_the_prompt_is_longer_than_the_smallest_window() -> None:
    found = check_scoring(build("gemma3_text (long window)", VOCABULARY))
    assert found.windows == (256,)
    assert found.prompt_tokens > 256
    assert found.exact


def test_the_prompt_stays_within_the_positions() -> None:
    found = check_scoring(build("phi3 (longrope, long)", VOCABULARY))
    assert found.max_positions == 32
    assert found.prompt_tokens + 7 == 32
    assert found.exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_of_half_precision_is_no_fault(dtype: torch.dtype) -> None:
    assert check_scoring(build("qwen2", VOCABULARY).to(dtype)).exact


def test_a_model_that_is_scored_wrongly_is_refused_by_name(misjudged: PreTrainedModel, cache: Path) -> None:
    assert check_scoring(misjudged).difference > 0.1
    for _ in range(2):  # a failed check is not stored as passed
        with pytest.raises(LorarecError, match=r"GPTNeoForCausalLM \(gpt_neo\) cannot be scored exactly: by plan tree"):
            require_exact(misjudged, "0123")
    assert not cache.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(value: float, cache: Path) -> None:
    model = build("llama", VOCABULARY)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(value)
    with pytest.raises(LorarecError, match="cannot be scored exactly"):
        require_exact(model, "0123")


def test_logits_that_overflow_are_refused(cache: Path) -> None:
    """Finite weights in float16 whose largest logit is infinite: so is the tolerance, and nothing may hide in it."""
    model = build("llama", VOCABULARY).half()
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        weight.copy_(weight.float() * (6e4 / weight.float().abs().max()))
    assert weight.isfinite().all()
    assert not check_scoring(model).exact
    with pytest.raises(LorarecError, match="cannot be scored exactly"):
        require_exact(model, "0123")


def test_a_failing_pass_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    model = build("llama", VOCABULARY)
    monkeypatch.setattr(model.model.layers[0], "forward", lambda *_, **__: [][1])
    with pytest.raises(LorarecError, match=r"LlamaForCausalLM \(llama\) cannot be scored: IndexError: .+"):
        require_exact(model, "0123")


def test_it_is_measured_once_for_the_same_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama", VOCABULARY)
    first = require_exact(model, "0123")
    calls = []
    model.model.register_forward_hook(lambda *given: calls.append(given))
    again = require_exact(model, "0123")
    assert (again.difference, calls) == (first.difference, [])
    require_exact(model, "other weights")
    assert calls
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": 1}', "\x00"])
def test_a_broken_cache_is_measured_anew(content: str, cache: Path) -> None:
    model = build("llama", VOCABULARY)
    require_exact(model, "0123")
    (file,) = cache.iterdir()
    file.write_text(content)
    assert require_exact(model, "0123").exact
    assert json.loads(file.read_text())["plan"] == TREE


def test_a_cache_that_cannot_be_written_to_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORAREC_CACHE", str(tmp_path / "file"))
    assert require_exact(build("llama", VOCABULARY), "0123").exact


def test_another_configuration_of_the_same_weights_is_measured_anew(cache: Path) -> None:
    model = build("mistral", VOCABULARY)
    require_exact(model, "0123")
    other = build("mistral", VOCABULARY)
    other.config.sliding_window = 24
    require_exact(other, "0123")
    assert len(list(cache.iterdir())) == 2


def test_a_user_without_a_home_has_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LORAREC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_folder().name.startswith("lorarec-")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/lorarec")
