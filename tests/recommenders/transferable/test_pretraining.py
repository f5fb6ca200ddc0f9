"""Recommenders that are pre-trained on general domains: scores of new items, and cached weights."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from lorarec.data.columns import HISTORY, TARGET
from lorarec.errors import LorarecError
from lorarec.experiments import RECOMMENDERS
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import true_places
from lorarec.recommenders import TrainingData, divide_for_fusion
from lorarec.recommenders.transferable.text_items import Adaptor
from lorarec.recommenders.transferable.vqrec import nearest, quantise

_SHARED = {
    "pretrain_epochs": 10,
    "pretrain_learning_rate": 1e-2,
    "hidden_size": 16,
    "num_layers": 1,
    "max_history": 10,
    "batch_size": 32,
    "learning_rate": 1e-2,
}
QUICK: dict[str, dict[str, Any]] = {
    "unisrec": {**_SHARED, "dropout": 0, "num_experts": 2},
    "vq-rec": {**_SHARED, "dropout": 0, "num_digits": 8, "num_codes": 16},
    "recformer": {**_SHARED, "dropout": 0, "pretrain_epochs": 6},
}
CHANCE = float(np.sum(1 / np.log2(np.arange(1, 11) + 1)) / 20)  # NDCG@10 of a random order of 20


def _scores(system: str, data: TrainingData, cases: pl.DataFrame, **options: Any) -> list[np.ndarray]:
    return RECOMMENDERS[system].from_options({**QUICK[system], **options}).fit(data).score(cases)


def _ndcg(system: str, data: TrainingData, setting: str, **options: Any) -> float:
    cases = data.split.test[setting]
    ranks = target_ranks(_scores(system, data, cases, **options), np.array(true_places(cases)))
    return float(ndcg(ranks, 10).mean())


def _written(folder: Path) -> dict[Path, int]:
    """Return the time of writing of each artefact in a folder."""
    return {path.parent: path.stat().st_mtime_ns for path in folder.glob("*/model.safetensors")}


@pytest.mark.parametrize("system", QUICK)
@pytest.mark.parametrize("setting", ["warm", "new-item"])
def test_only_general_domains_train_the_words(system: str, setting: str, with_new_items: TrainingData) -> None:
    assert _ndcg(system, with_new_items, setting, epochs=0) > 1.7 * CHANCE


@pytest.mark.parametrize("ids", [False, True])
def test_new_items_are_known_by_their_titles(ids: bool, with_new_items: TrainingData) -> None:
    new = set(with_new_items.split.test["new-item"][TARGET].to_list())
    assert not new & set(with_new_items.train_items)
    assert _ndcg("unisrec", with_new_items, "new-item", epochs=3, use_item_ids=ids) > 1.7 * CHANCE


def test_ids_and_a_free_transformer_learn_from_the_target(with_new_items: TrainingData) -> None:
    cases = with_new_items.split.test["warm"].head(3)
    found = [
        _scores("unisrec", with_new_items, cases, epochs=1, **options)
        for options in ({}, {"use_item_ids": True}, {"freeze_encoder": False})
    ]
    for other in found[1:]:
        assert any(not np.allclose(one, two) for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize("system", QUICK)
def test_a_history_of_new_items_is_read(system: str, with_new_items: TrainingData) -> None:
    cases = with_new_items.split.test["new-item"].head(2)
    new = cases[TARGET].to_list()
    cases_with_new = cases.with_columns(pl.Series(HISTORY, [[new[0]], ["gone"]]))
    known, unknown = _scores(system, with_new_items, cases_with_new, epochs=0)
    assert known.std() > 0
    assert unknown.std() == 0


@pytest.mark.parametrize("system", QUICK)
def test_pre_training_is_cached_and_reproducible(system: str, circles: TrainingData, tmp_path) -> None:
    cached = replace(circles, cache_dir=tmp_path)
    cases = circles.split.test["warm"].head(4)
    options = {"pretrain_epochs": 1, "epochs": 1}
    first = _scores(system, cached, cases, **options)
    (folder,) = tmp_path.glob(f"{system}-*")
    written = _written(tmp_path)
    for data in (cached, replace(circles, cache_dir=None)):
        for one, two in zip(first, _scores(system, data, cases, **options), strict=True):
            np.testing.assert_array_equal(one, two)
    _scores(system, replace(cached, seed=7), cases, **{**options, "learning_rate": 3e-3})
    assert _written(tmp_path) == written
    _scores(system, cached, cases, **{**options, "temperature": 0.1})
    assert len(list(tmp_path.glob(f"{system}-*"))) == 2
    # Titles are encoded once.
    assert {path for path in _written(tmp_path) if path.name.startswith("texts")} <= written.keys()
    (folder / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(LorarecError, match=r"cannot be read .*: remove"):
        _scores(system, cached, cases, **options)


@pytest.mark.parametrize("system", ["unisrec", "vq-rec"])
def test_a_fusion_trains_again_for_known_items_only(system: str, with_new_items: TrainingData) -> None:
    less = replace(with_new_items, split=divide_for_fusion(with_new_items.split, hidden_items=0.3).split)
    new = RECOMMENDERS[system].from_options({**QUICK[system], "epochs": 1})
    fitted, again = copy.copy(new).fit(less), copy.copy(new).fit(with_new_items)
    used, cases = fitted.refit(with_new_items), with_new_items.split.test["new-item"]
    loaded = copy.copy(new).restore(replace(with_new_items, backbone=None, general=()), used.tensors())
    scored = (each.score(cases) for each in (used, loaded, fitted, again))
    for candidates, *scores in zip(cases["candidates"].to_list(), *scored, strict=True):
        for item, found, after_loading, of_new, of_known in zip(candidates, *scores, strict=True):
            assert found == after_loading == (of_known if item in with_new_items.train_items else of_new)


def test_a_fusion_uses_the_weights_that_were_trained_without_the_hidden_items(with_new_items: TrainingData) -> None:
    system = "recformer"
    less = replace(with_new_items, split=divide_for_fusion(with_new_items.split, hidden_items=0.3).split)
    fitted = RECOMMENDERS[system].from_options({**QUICK[system], "epochs": 1}).fit(less)
    used, cases = fitted.refit(with_new_items), with_new_items.split.test["new-item"]
    assert len(less.train_items) < len(with_new_items.train_items)
    for found, expected in zip(used.score(cases), fitted.score(cases), strict=True):
        np.testing.assert_array_equal(found, expected)
    other = _scores(system, with_new_items, cases, epochs=1)  # another training has another scale
    assert not np.allclose(np.concatenate(other), np.concatenate(fitted.score(cases)))


@pytest.mark.parametrize("system", ["unisrec", "vq-rec"])
def test_a_saved_model_needs_no_embeddings(system: str, with_new_items: TrainingData) -> None:
    new = RECOMMENDERS[system].from_options({**QUICK[system], "epochs": 1})
    less = replace(with_new_items, split=divide_for_fusion(with_new_items.split, hidden_items=0.3).split)
    fitted = new.fit(less)
    alone = replace(with_new_items, backbone=None, general=())
    loaded = RECOMMENDERS[system].from_options({**QUICK[system], "epochs": 1}).restore(alone, fitted.tensors())
    for setting in ("warm", "new-item"):
        cases = with_new_items.split.test[setting]
        for found, expected in zip(loaded.score(cases), fitted.score(cases), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert loaded.about == fitted.about


def test_vqrec_cannot_be_updated(circles: TrainingData) -> None:
    options = {**QUICK["vq-rec"], "pretrain_epochs": 0, "epochs": 0}
    fitted = RECOMMENDERS["vq-rec"].from_options(options).fit(replace(circles, general=()))
    with pytest.raises(LorarecError, match="VQRec cannot be updated: fit it again"):
        fitted.update(circles, circles, epochs=1)


@pytest.mark.parametrize("system", QUICK)
def test_missing_values_are_named(system: str, circles: TrainingData) -> None:
    with pytest.raises(LorarecError, match="circles: this recommender needs backbone"):
        RECOMMENDERS[system]().fit(replace(circles, backbone=None))
    with pytest.raises(LorarecError, match=r"circles: pre-training needs general domains: .* or pretrain_epochs=0"):
        RECOMMENDERS[system]().fit(replace(circles, general=()))


@pytest.mark.parametrize("system", QUICK)
def test_without_pretraining_the_target_is_enough(system: str, circles: TrainingData) -> None:
    alone = replace(circles, general=(), cache_dir=None)
    as_domain = replace(alone, general=[(circles.dataset, circles.split)])
    cases = circles.split.test["warm"]
    found = _scores(system, alone, cases, pretrain_epochs=0, epochs=2)
    for scores, expected in zip(found, _scores(system, as_domain, cases, pretrain_epochs=0, epochs=2), strict=True):
        np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("system", ["unisrec", "vq-rec"])
def test_only_a_pretrained_transformer_is_frozen(system: str, circles: TrainingData) -> None:
    cases = circles.split.test["warm"]
    frozen, trained = (
        np.concatenate(_scores(system, circles, cases, pretrain_epochs=0, epochs=2, freeze_encoder=freeze))
        for freeze in (True, False)
    )
    np.testing.assert_array_equal(frozen, trained)


@pytest.mark.parametrize(
    ("system", "options", "message"),
    [
        ("unisrec", {"num_experts": 0}, "option num_experts must be at least 1, got 0"),
        ("unisrec", {"temperature": 0}, "option temperature must be positive, got 0"),
        ("unisrec", {"drop_ratio": -1}, r"option drop_ratio must be in \[0, 1\), got -1"),
        ("unisrec", {"dropout": 1}, r"option dropout must be in \[0, 1\), got 1"),
        ("recformer", {"hidden_size": 5}, "option hidden_size must be a multiple of 2"),
        ("recformer", {"mask_ratio": 2}, "option mask_ratio must be at most 1, got 2"),
        ("recformer", {"max_tokens": 1}, "option max_tokens must be at least 2, got 1"),
        ("vq-rec", {"hidden_size": 0}, "option hidden_size must be at least 1, got 0"),
        ("vq-rec", {"swap_ratio": 2}, "option swap_ratio must be at most 1, got 2"),
        ("vq-rec", {"num_digits": 99}, "option num_digits must be at most 32, the size of a text embedding, got 99"),
    ],
)
def test_options_out_of_range_are_named(system: str, options: dict, message: str, circles: TrainingData) -> None:
    with pytest.raises(LorarecError, match=message):
        RECOMMENDERS[system].from_options(options).fit(replace(circles, cache_dir=None))


def test_experts_whiten_and_a_gate_mixes_them() -> None:
    torch.manual_seed(0)
    adaptor = Adaptor(6, 4, 3, dropout=0.5).eval()
    for weight in adaptor.parameters():
        torch.nn.init.normal_(weight)
    texts = torch.randn(5, 6)
    weights = adaptor.weights(texts)
    assert weights.shape == (5, 3)
    assert torch.allclose(weights.sum(1), torch.ones(5))
    experts = [(texts - shift) @ whiten for shift, whiten in zip(adaptor.shift, adaptor.whiten, strict=True)]
    expected = sum(weights[:, [expert]] * found for expert, found in enumerate(experts))
    assert torch.allclose(adaptor(texts), expected, atol=1e-5)
    assert not torch.equal(adaptor.train().weights(texts), weights)


def test_codes_are_stable_and_nearest() -> None:
    texts = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32))
    centroids = quantise(texts, 4, 8, seed=3)
    assert centroids.shape == (4, 8, 3)
    assert torch.equal(centroids, quantise(texts, 4, 8, seed=3))
    codes = nearest(texts, centroids)
    assert codes.shape == (50, 4)
    for digit, part in enumerate(torch.nn.functional.pad(texts, (0, 2)).split(3, 1)):
        distances = ((part[:, None] - centroids[digit]) ** 2).sum(2)
        assert torch.allclose(distances.gather(1, codes[:, [digit]])[:, 0], distances.min(1).values, atol=1e-5)
