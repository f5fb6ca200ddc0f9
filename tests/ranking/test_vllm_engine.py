"""vLLM ranks as torch does: the same prompts, adapters and mixtures through both.

Needs vLLM: importable here, or in the environment whose Python LORAREC_VLLM_PYTHON names, which then runs this file.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import lorarec
from lorarec.backbone import Backbone, BackboneConfig, source_of
from lorarec.cli.options import open_engine
from lorarec.data import Dataset, leave_one_out
from lorarec.data.sample import load_sample
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, mix, read_adapter
from lorarec.lora.peft_folder import save_adapter
from lorarec.prompts import Example
from lorarec.ranking import Ranker, ServerConfig, VllmEngine
from lorarec.ranking.generation import TitleList
from tests.factories import random_adapter

HERE = importlib.util.find_spec("vllm") is not None
ELSEWHERE = os.environ.get("LORAREC_VLLM_PYTHON")
#: Environment variable that names the folder of a pretrained chat model. The transformers that vLLM pins cannot read
#: the GGUF file of SmolLM2, so the file is unpacked outside of its environment.
CHAT_MODEL = "LORAREC_CHAT_MODEL"
needs_vllm = pytest.mark.skipif(not HERE, reason="vLLM is not installed here (docs/howto/engines.md)")

PROMPTS = 104
#: Both engines compute in float32, in another order; scores are sums of up to some 20 log-probabilities.
TOLERANCE = {"verdict": 1e-3, "likelihood": 5e-3}
READOUTS = tuple(TOLERANCE)


@pytest.mark.skipif(HERE or not ELSEWHERE, reason="LORAREC_VLLM_PYTHON names no Python with vLLM, or vLLM is here")
def test_all_of_this_in_the_environment_of_vllm(request: pytest.FixtureRequest) -> None:
    paths = {"PYTHONPATH": str(Path(lorarec.__file__).parents[1])}
    with suppress(pytest.skip.Exception):  # the package of SmolLM2 is not installed
        paths[CHAT_MODEL] = source_of(str(request.getfixturevalue("smollm2")))
    command = [str(ELSEWHERE), "-m", "pytest", "--import-mode=importlib", "-q", __file__]
    done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.mark.skipif(HERE, reason="vLLM is installed here")
def test_without_vllm_one_line_names_the_installation() -> None:
    with (
        pytest.raises(LorarecError, match="engine vllm needs vLLM: install"),
        open_engine("vllm", BackboneConfig(), {}, ServerConfig()),
    ):
        pass


def test_options_of_torch_are_refused() -> None:
    with (
        pytest.raises(LorarecError, match="--quantization is for --engine torch"),
        open_engine("vllm", BackboneConfig(quantization="4bit"), {}, ServerConfig()),
    ):
        pass


def write_adapter(backbone: Backbone, folder: Path, seed: int, r: int = 8) -> Path:
    """A PEFT folder over all linear layers that changes the order of the candidates."""
    drawn = random_adapter(backbone, seed, r, std=1.0)
    tensors = {name: (a / a.shape[1] ** 0.5, b * 0.02) for name, (a, b) in drawn.tensors.items()}
    folder.mkdir()
    save_adapter(Adapter(tensors, drawn.scales), folder, backbone.id)
    return folder


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.from_pretrained()


@pytest.fixture(scope="module")
def folders(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters, and their mixture as `lorarec mix` exports it."""
    home = tmp_path_factory.mktemp("adapters")
    pair = [write_adapter(backbone, home / name, seed) for seed, name in enumerate(("one", "two"), start=1)]
    mix(backbone, pair, method="fixed", weights=[0.3, 0.7], combine="factors", out=home / "mixed")
    return {name: home / name for name in ("one", "two", "mixed")}


@pytest.fixture(scope="module")
def engine(backbone: Backbone, folders: dict[str, Path]) -> Iterator[VllmEngine]:
    with VllmEngine(backbone, [read_adapter(folder) for folder in folders.values()]) as engine:
        yield engine


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_sample()


@pytest.fixture(scope="module")
def examples(backbone: Backbone, sample: Dataset) -> dict[str, list[Example]]:
    """Prompts of the bundled sample's test cases by readout."""
    cases = leave_one_out(sample, seed=0).test["warm"].head(PROMPTS)
    return {readout: Ranker(backbone, readout=readout).examples(cases, sample.titles) for readout in READOUTS}


@needs_vllm
@pytest.mark.parametrize("readout", READOUTS)
def test_same_order_as_torch(
    backbone: Backbone, folders: dict[str, Path], engine: VllmEngine, examples: dict, readout: str
) -> None:
    chosen_examples, found = examples[readout], {}
    for name, adapter in (("alone", None), ("mixed", folders["mixed"])):
        with Ranker(backbone, adapter, readout) as ranker:
            expected = ranker.score_examples(chosen_examples)
        through = Ranker(backbone, adapter, readout, engine=engine).score_examples(chosen_examples)
        found[name] = [scores.argmax() for scores in through]
        for one, other in zip(through, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=TOLERANCE[readout])
        assert np.mean(found[name] == np.array([scores.argmax() for scores in expected])) >= 0.99
    assert np.mean(np.array(found["alone"]) == found["mixed"]) < 0.9  # the adapter matters


@needs_vllm
@pytest.mark.parametrize("readout", READOUTS)
def test_adapters_share_a_batch_without_mixing_their_caches(
    backbone: Backbone, folders: dict[str, Path], engine: VllmEngine, examples: dict, readout: str
) -> None:
    """The same prompt is scored twice under two adapters and none; the second time much of it is in the cache."""
    adapters = [read_adapter(folders["one"]), read_adapter(folders["two"]), None] * 2
    example = examples[readout][0]
    builder = Ranker(backbone, readout=readout).builder
    found = engine.score([example] * len(adapters), builder, adapters)
    for adapter, scores in zip(adapters, found, strict=True):
        with Ranker(backbone, adapter, readout) as ranker:
            np.testing.assert_allclose(scores, ranker.score_examples([example])[0], atol=TOLERANCE[readout])
    assert not np.allclose(found[0], found[1], atol=0.05)


@needs_vllm
def test_candidates_that_begin_alike_or_are_alike(backbone: Backbone, engine: VllmEngine) -> None:
    """A common beginning of branches may come from the cache, but its log-probabilities are still returned."""
    ranker = Ranker(backbone, readout="likelihood", engine=engine)
    titles = ["the lord of the rings the fellowship of the ring extended edition " * 3 + end for end in "abba"]
    example = ranker.builder.example(["star wars"], titles)
    with Ranker(backbone, readout="likelihood") as torch_ranker:
        expected = torch_ranker.score_examples([example])[0]
    np.testing.assert_allclose(ranker.score_examples([example])[0], expected, atol=TOLERANCE["likelihood"])


@needs_vllm
@pytest.mark.parametrize("constrained", [False, True])
def test_lists_are_those_of_greedy_torch(
    backbone: Backbone,
    folders: dict[str, Path],
    engine: VllmEngine,
    examples: dict,
    constrained: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Token by token: what a model without training writes freely is seldom the title of a candidate."""
    written: list[TitleList] = []

    class Recorded(TitleList):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            written.append(self)

    monkeypatch.setattr("lorarec.ranking.generation.TitleList", Recorded)
    monkeypatch.setattr("lorarec.ranking.engine.TitleList", Recorded)
    chosen_examples = examples["likelihood"][:16]
    with Ranker(backbone, folders["one"], "likelihood") as ranker:
        expected = ranker.generate(chosen_examples, 3, constrained)
    found = Ranker(backbone, folders["one"], "likelihood", engine=engine).generate(chosen_examples, 3, constrained)
    assert [len(listed) for listed in found] == [3] * len(chosen_examples)
    assert np.mean([one == other for one, other in zip(found, expected, strict=True)]) >= 0.9
    first, second = written[: len(chosen_examples)], written[len(chosen_examples) :]
    assert np.mean([one.ids == other.ids for one, other in zip(first, second, strict=True)]) >= 0.9
    if constrained:
        assert all(None not in listed for listed in found)


@needs_vllm
@pytest.mark.skipif(CHAT_MODEL not in os.environ, reason=f"{CHAT_MODEL} names no folder of a chat model")
def test_a_pretrained_chat_model_with_two_adapters(tmp_path: Path) -> None:
    """With its chat template: the same prompt under each adapter and none, in one batch."""
    backbone = Backbone.from_pretrained(os.environ[CHAT_MODEL], device="cpu", check=False)
    folders = [write_adapter(backbone, tmp_path / name, seed) for seed, name in enumerate(("one", "two"), start=1)]
    adapters = [*map(read_adapter, folders), None]
    history, titles = ["Toy Story (1995)", "Finding Nemo (2003)"], ["Saw (2004)", "Shrek (2001)", "Heat (1995)"]
    with VllmEngine(backbone, folders) as engine:
        for readout in READOUTS:
            builder = Ranker(backbone, readout=readout).builder
            assert builder.template.chat is not None
            example = builder.example(history, titles)
            found = engine.score([example] * len(adapters), builder, adapters)
            for adapter, scores in zip(adapters, found, strict=True):
                with Ranker(backbone, adapter, readout) as ranker:
                    np.testing.assert_allclose(scores, ranker.score_examples([example])[0], atol=TOLERANCE[readout])
            assert not np.allclose(found[0], found[1], atol=0.05)
            assert not np.allclose(found[0], found[2], atol=0.05)


@needs_vllm
def test_errors_of_vllm_are_reported_in_one_line(
    backbone: Backbone, folders: dict[str, Path], engine: VllmEngine, examples: dict, tmp_path: Path
) -> None:
    example = examples["verdict"][0]
    builder = Ranker(backbone).builder
    strange = write_adapter(backbone, tmp_path / "strange", 3)
    weights = load_file(strange / "adapter_model.safetensors")
    renamed = {name.replace("q_proj", "strange_proj"): weight for name, weight in weights.items()}
    save_file(renamed, strange / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LorarecError, match=r"cannot use adapter .*strange.*strange_proj"):
        engine.score([example], builder, [read_adapter(strange)])
    wide = write_adapter(backbone, tmp_path / "wide", 4, r=24)
    with pytest.raises(LorarecError, match="cannot use adapter"):
        engine.score([example], builder, [read_adapter(wide)])
    with pytest.raises(LorarecError, match="save this one first"):
        engine.score([example], builder, [replace(read_adapter(folders["one"]), folder=None)])
    with pytest.raises(LorarecError, match="vLLM was started for"):
        engine.score([Example([5] * 2000, [[6]])], builder, [None])
    assert len(engine.score([example], builder, [None])[0]) == len(example.branches)  # it lives on


@needs_vllm
def test_the_verbs_print_what_torch_prints(sample: Dataset, folders: dict[str, Path], tmp_path: Path) -> None:
    sample.save(tmp_path / "shop")
    leave_one_out(sample, seed=0).save(tmp_path / "shop" / "split")
    user = sample.interactions["user_id"][0]
    words = ["recommend", str(tmp_path / "shop"), "--user", user, "--adapter", str(folders["mixed"]), "--json"]
    found = {}
    for engine in ("torch", "vllm"):
        command = [sys.executable, "-m", "lorarec", *words, "--engine", engine]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[engine] = json.loads(done.stdout)
    assert [item["item_id"] for item in found["vllm"]] == [item["item_id"] for item in found["torch"]]
