"""UniSRec after updates of its dataset: later items, items that stay new, and what cannot be updated."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.functional import normalize

from lorarec.backbone import Backbone
from lorarec.data import Dataset, leave_one_out, split_new_interactions
from lorarec.errors import LorarecError
from lorarec.recommenders import NextItemModel, TrainingData, UniSRec, UniSRecConfig, divide_for_fusion
from lorarec.recommenders.sequential.trainer import sampled_softmax, train_next_item
from lorarec.recommenders.text_embeddings import LSA, text_embeddings
from lorarec.recommenders.transferable.pretraining import CosineSequenceEncoder, next_item_config
from lorarec.recommenders.transferable.text_items import TextItemEmbeddings
from tests.factories import circle_log

OPTIONS: dict[str, Any] = {
    **{"pretrain_epochs": 0, "epochs": 2, "hidden_size": 8, "num_layers": 1, "num_experts": 2, "max_history": 10},
    **{"text_encoder": LSA, "learning_rate": 1e-2, "batch_size": 32},
}
START = 1_700_000_000


def _append(dataset: Dataset, day: int, titles: Mapping[str, str]) -> Dataset:
    """Return the dataset with another day: a third of the users go on, and the first ones choose the new items."""
    begin = START + day * 10_000_000
    going_on = dataset.interactions.group_by("user_id", maintain_order=True).head(3)
    going_on = going_on.filter(pl.col("user_id").str.ends_with("1"))
    log = going_on.select("user_id", "item_id", (pl.int_range(pl.len()) * 10 + begin).alias("timestamp"))
    users = [f"u{number}" for number in range(len(titles))]
    extra = pl.DataFrame({"user_id": users, "item_id": list(titles), "timestamp": [begin] * len(titles)})
    items = pl.DataFrame({"item_id": list(titles), "title": list(titles.values())})
    return dataset.append(pl.concat([log, extra]), items, keep_unseen=True)


@pytest.fixture(scope="module")
def days() -> list[TrainingData]:
    """The circles, in which some items have no training interactions, and two days later; ids are not in order."""
    circles, _ = circle_log("circles")
    rows = circles.interactions.with_columns(pl.col("timestamp") * 1000 + START)
    monday = circles.from_frames("circles", rows, circles.items)
    tuesday = _append(monday, 1, {"i05": "lamp of tuesday", "z1": "puzzle no7 no12"})
    unseen = pl.DataFrame({"item_id": ["a9"], "title": ["novel no31 garden"]})
    log = tuesday.interactions.tail(1).with_columns(pl.col("timestamp") + 5)
    tuesday = tuesday.append(log.select("user_id", "item_id", "timestamp"), unseen, keep_unseen=True)
    wednesday = _append(tuesday, 2, {"b1": "lipstick no3"})
    first = TrainingData(monday, leave_one_out(monday, new_items=0.2, negatives=9))
    later = [TrainingData(each, split_new_interactions(each, negatives=9)) for each in (_merged(tuesday), wednesday)]
    return [first, *later]


def _merged(dataset: Dataset) -> Dataset:
    """Return a dataset whose two last updates count as one."""
    *_, first, last = dataset.info["updates"]
    return replace(dataset, info={**dataset.info, "updates": [{**last, "previous_until": first["previous_until"]}]})


def _fused(data: TrainingData, **options: Any) -> UniSRec:
    """Return a recommender as it is in a fusion."""
    less = replace(data, split=divide_for_fusion(data.split, hidden_items=0.3).split)
    return UniSRec(UniSRecConfig(**{**OPTIONS, **options})).fit(less).refit(data)


def _assert_equal_scores(found: UniSRec, expected: UniSRec, cases: pl.DataFrame) -> None:
    for one, two in zip(found.score(cases), expected.score(cases), strict=True):
        np.testing.assert_array_equal(one, two)


def _loaded(recommender: UniSRec, data: TrainingData) -> UniSRec:
    tensors = {name: tensor.clone() for name, tensor in recommender.tensors().items()}
    return UniSRec(recommender.config).restore(data, tensors)


def _embed_in_a_loop(model: NextItemModel, text: torch.Tensor) -> torch.Tensor:
    """Return the vector of a text (text_size,): the mean of whitened texts by the gate's weights, of length 1."""
    weights = {name.removeprefix("items.from_texts."): each for name, each in model.state_dict().items()}
    text = (text - weights["mean"]) / weights["std"]
    gate = torch.softmax(text @ weights["adaptor.gate"], 0)
    experts = zip(gate, weights["adaptor.shift"], weights["adaptor.whiten"], strict=True)
    return normalize(sum(share * ((text - shift) @ whiten) for share, shift, whiten in experts), dim=0)


@pytest.mark.parametrize("encoder", [LSA, "folder", None])
def test_later_items_are_embedded_from_their_titles(
    days: list[TrainingData], encoder: str | None, text_encoder: str, shared_backbone: Backbone
) -> None:
    encoder = text_encoder if encoder == "folder" else encoder
    monday, tuesday, _ = (replace(day, backbone=shared_backbone) for day in days)
    fused = _fused(monday, text_encoder=encoder)
    updated = fused.update(tuesday, monday, epochs=1)
    corpus = list(monday.dataset.titles.values())
    later = [item for item in tuesday.dataset.titles if item not in monday.dataset.titles]
    assert later == ["a9", "i05", "z1"]
    for item in later:
        title = tuesday.dataset.titles[item]
        (text,) = text_embeddings(monday, [title], encoder, corpus)
        for model, fitted in ((updated.model_of_new_items, fused.model_of_new_items), (updated.model, updated.model)):
            found = model.items.all()[tuesday.item_rows[item]]
            torch.testing.assert_close(found, _embed_in_a_loop(fitted, text), rtol=0, atol=1e-5)


def test_new_items_are_scored_as_before_and_known_items_by_the_trained_model(days: list[TrainingData]) -> None:
    monday, tuesday, _ = days
    fused = _fused(monday)
    updated = fused.update(tuesday, monday, epochs=2)
    cases = monday.split.test["new-item"]
    before, after = (each.scorer_of_new_items.score(cases) for each in (fused, updated))
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
    items = list(tuesday.dataset.titles)
    case = pl.DataFrame({"user_id": ["u1"], "history": [["i3", "i05", "a9"]], "candidates": [items]})
    (found,), (trained,), (kept,) = (
        each.score(case) for each in (updated, updated.scorer, updated.scorer_of_new_items)
    )
    is_known = np.array([item in tuesday.train_index for item in items])
    np.testing.assert_array_equal(found, np.where(is_known, trained, kept))
    assert {"i05", "z1"} <= tuesday.train_index.keys()
    assert "a9" not in tuesday.train_index
    new_before = monday.dataset.titles.keys() - monday.train_index.keys()
    assert new_before & tuesday.train_index.keys()
    assert not np.allclose(trained, kept)


def test_training_goes_on_from_the_weights_with_the_histories_that_have_changed(days: list[TrainingData]) -> None:
    monday, tuesday, _ = days
    fused = _fused(monday)
    config = fused.config
    by_hand = TextItemEmbeddings(
        text_embeddings(monday, [tuesday.dataset.titles[item] for item in tuesday.item_index], LSA), 8, 2, 0.2
    )
    by_hand.load_state_dict(fused.model.items.from_texts.state_dict())
    model = NextItemModel(by_hand, CosineSequenceEncoder(config))
    model.sequence.load_state_dict(fused.model.sequence.state_dict())
    steps, loss = next_item_config(config, 1, config.learning_rate), sampled_softmax(len(tuesday.train_items), 512)
    train_next_item(model, tuesday.changed_histories(monday), steps, loss, tuesday.seed)
    trained = fused.update(tuesday, monday, epochs=1).model
    for name, tensor in by_hand.state_dict().items():
        torch.testing.assert_close(trained.items.from_texts.state_dict()[name], tensor, rtol=0, atol=1e-5)
    for name, tensor in model.sequence.state_dict().items():
        torch.testing.assert_close(trained.sequence.state_dict()[name], tensor, rtol=0, atol=1e-5)
    same = fused.update(tuesday, monday, epochs=0).model
    for item, row in monday.item_rows.items():
        found, expected = same.items.all()[tuesday.item_rows[item]], fused.model.items.all()[row]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_updates_and_saving_in_turn(days: list[TrainingData]) -> None:
    monday, tuesday, wednesday = days
    fused = _fused(monday)
    scores = fused.score(monday.split.valid)
    once = _loaded(fused, monday).update(tuesday, monday, epochs=1)
    for one, two in zip(scores, fused.score(monday.split.valid), strict=True):
        np.testing.assert_array_equal(one, two)
    loaded = _loaded(once, tuesday)
    _assert_equal_scores(loaded, once, tuesday.split.valid)
    assert loaded.about == once.about == _loaded(fused, monday).about
    twice = loaded.update(wednesday, tuesday, epochs=1)
    _assert_equal_scores(_loaded(twice, wednesday), twice, wednesday.split.valid)
    kept, rows = fused.model_of_new_items, wednesday.item_rows
    for item, row in monday.item_rows.items():
        assert torch.equal(twice.model_of_new_items.items.all()[rows[item]], kept.items.all()[row])
    corpus = list(monday.dataset.titles.values())  # of the first fit
    (text,) = text_embeddings(monday, [wednesday.dataset.titles["b1"]], LSA, corpus)
    found = twice.model_of_new_items.items.all()[rows["b1"]]
    torch.testing.assert_close(found, _embed_in_a_loop(kept, text), rtol=0, atol=1e-5)


def test_a_fit_alone_keeps_its_scores_of_new_items(days: list[TrainingData]) -> None:
    monday, tuesday, _ = days
    fitted = UniSRec(UniSRecConfig(**OPTIONS)).fit(monday)
    updated = fitted.update(tuesday, monday, epochs=1)
    cases = monday.split.test["new-item"]
    for one, two in zip(updated.scorer_of_new_items.score(cases), fitted.score(cases), strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_was_saved_without_the_weights_of_texts_scores_and_is_not_updated(days: list[TrainingData]) -> None:
    monday, tuesday, _ = days
    fused = _fused(monday)
    earlier = {name: each for name, each in fused.tensors().items() if "from_texts" not in name and "first" not in name}
    loaded = UniSRec(fused.config).restore(monday, earlier)
    _assert_equal_scores(loaded, fused, monday.split.valid)
    assert loaded.tensors().keys() == earlier.keys()
    message = "UniSRec cannot be updated, since it was saved by an earlier version.*run `lorarec fuse` again"
    with pytest.raises(LorarecError, match=message):
        loaded.check_update(monday)
    with pytest.raises(LorarecError, match=message):
        loaded.update(tuesday, monday, epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_item_ids": True}, "it has ids, which later items lack"),
        ({"pretrain_epochs": 1}, "its words are those of the domains of pre-training as well"),
    ],
)
def test_options_that_cannot_be_updated_are_named(
    days: list[TrainingData], options: dict[str, Any], message: str
) -> None:
    general = [circle_log("other words", words=("chair", "brush", "game", "guide"))]
    monday, tuesday = (replace(day, general=general if "pretrain_epochs" in options else ()) for day in days[:2])
    fused = _fused(monday, **options)
    _assert_equal_scores(_loaded(fused, monday), fused, monday.split.valid)
    for refused in (lambda: fused.check_update(monday), lambda: fused.update(tuesday, monday, epochs=1)):
        with pytest.raises(LorarecError, match=f"UniSRec cannot be updated, since {message}"):
            refused()


def test_other_embeddings_of_titles_are_refused(days: list[TrainingData], text_encoder: str) -> None:
    monday, tuesday, _ = days
    fused = _fused(monday)
    retitled = tuesday.dataset.items.with_columns(
        pl.when(pl.col("item_id") == "i3").then(pl.lit("puzzle no7")).otherwise("title").alias("title")
    )
    other = replace(tuesday, dataset=replace(tuesday.dataset, items=retitled))
    message = "other embeddings here than at its fit .*: fit it again"
    with pytest.raises(LorarecError, match=message):
        fused.update(other, monday, epochs=1)
    with pytest.raises(LorarecError, match=r"item 'a9' of circles is missing in circles.*: append to the dataset"):
        fused.update(monday, tuesday, epochs=1)
    fused.check_update(monday)
    swapped = copy.copy(fused)
    swapped.config = replace(fused.config, text_encoder=text_encoder)
    with pytest.raises(LorarecError, match=message):
        swapped.check_update(monday)
    domains = _fused(replace(monday, general=[circle_log("other words", words=("chair", "brush", "game", "guide"))]))
    with pytest.raises(LorarecError, match=message):
        domains.check_update(monday)
