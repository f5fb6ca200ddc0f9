"""An index after an update: counts and titles are those of a new index, and the next-item model goes on."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.io import read_json, write_json
from lorarec.recommenders import NextItemConfig
from lorarec.retrieval import Index, update_index

CONFIG = NextItemConfig(epochs=5, hidden_size=16, num_layers=1, batch_size=16, learning_rate=1e-2)


@pytest.fixture(scope="module")
def grown(shop: Dataset) -> Dataset:
    """The shop in which five users chose three more items each, among them a new one and one that had no users."""
    rows = [
        (f"u{user:02}", item, 100 + at) for user in range(5) for at, item in enumerate(("i40", "i50", f"i{user:02}"))
    ]
    log = pl.DataFrame([*rows, ("someone", "i50", 0)], schema=["user_id", "item_id", "timestamp"], orient="row")
    return shop.append(log, pl.DataFrame({"item_id": ["i50", "i51"], "title": ["lamp no50", "x"]}))


def saved(index: Index, folder: Path) -> dict[str, torch.Tensor]:
    index.save(folder)
    return load_file(folder / "index.safetensors")


@pytest.mark.parametrize("learned", [False, True])
def test_counts_and_titles_are_exactly_those_of_a_new_index(shop, grown, tmp_path, learned) -> None:
    config = CONFIG if learned else None
    Index.build(shop, config).save(tmp_path / "before")
    updated = update_index(Index.load(tmp_path / "before", shop), grown, shop, epochs=1)
    new = Index.build(grown, config)
    left, right = saved(updated, tmp_path / "updated"), saved(new, tmp_path / "new")
    assert left.keys() == right.keys()
    for name, tensor in right.items():
        if not name.startswith("learnt.model"):
            assert torch.equal(left[name], tensor), name
    assert updated.sources.keys() == new.sources.keys()
    history = ["i00", "i40", "i50"]
    for source in new.sources.keys() - {"next"}:
        assert updated.rank(source, history, 30) == new.rank(source, history, 30)
    loaded = Index.load(tmp_path / "updated", grown)
    assert loaded.propose(history, 20) == updated.propose(history, 20)
    assert loaded.record["updated_from"] == shop.fingerprint
    assert loaded.record["options"] == new.record["options"]


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_random_logs(seed: int) -> None:
    """Late, repeated and tied interactions, new users, new and unseen items, and titles that have changed since."""
    rng = np.random.default_rng(seed)
    items = [f"i{number:02}" for number in rng.permutation(40)[:25]]
    words = ["red", "green", "lamp", "chair", "desk", "old"]
    titles = pl.DataFrame({"item_id": items, "title": [" ".join(rng.choice(words, 2)) for _ in items]})
    rows = [(f"u{rng.integers(8)}", str(rng.choice(items[:20])), int(rng.integers(30))) for _ in range(60)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").with_columns(
        pl.col("timestamp") + 1_700_000_000
    )
    cut = int(rng.integers(5, 40))
    before = Dataset.from_polars(log[:cut], titles, keep_unseen=bool(seed % 2))
    grown = before.append(log[cut:], titles, keep_unseen=True)
    renamed = grown.items.with_columns(
        pl.when(pl.Series(rng.random(len(grown.items)) < 0.2))
        .then(pl.lit("blue lamp"))
        .otherwise("title")
        .alias("title")
    )
    after = Dataset.from_frames(grown.name, grown.interactions, renamed, info=grown.info)
    updated, new = update_index(Index.build(before), after, before), Index.build(after)
    assert updated.record["counts"] == new.record["counts"]
    for _ in range(4):
        history = [str(item) for item in rng.choice(items, rng.integers(0, 6))]
        for source in new.sources:
            assert updated.rank(source, history, 40) == new.rank(source, history, 40)
        assert updated.propose(history, 30) == new.propose(history, 30)


def test_known_items_keep_their_vectors_and_new_ones_get_one(shop, grown) -> None:
    index = Index.build(shop, CONFIG)
    same = update_index(index, grown, shop, epochs=0).next_item
    learned = update_index(index, grown, shop, epochs=2).next_item
    assert same is not None
    assert learned is not None
    before = {index.items[row]: number for number, row in enumerate(index.next_item.rows)}
    items = grown.items["item_id"].to_list()
    for number, row in enumerate(same.rows):
        if items[row] in before:
            old = index.next_item.model.items.all()[before[items[row]]]
            assert torch.equal(same.model.items.all()[number], old)
    assert {"i40", "i50"} <= {items[row] for row in same.rows}
    assert np.array_equal(same.rows, learned.rows)
    assert not torch.equal(same.model.items.all(), learned.model.items.all())


def test_a_text_encoder_embeds_all_titles_again(shop, grown, text_encoder, tmp_path) -> None:
    index = Index.build(shop, text_encoder=text_encoder)
    updated, new = update_index(index, grown, shop), Index.build(grown, text_encoder=text_encoder)
    assert torch.equal(saved(updated, tmp_path / "a")["titles.vectors"], saved(new, tmp_path / "b")["titles.vectors"])
    index.record["text_encoder"] = {**index.record["text_encoder"], "fingerprint": "0" * 16}
    with pytest.raises(LorarecError, match=r"is \w+ now, and the index was built with 0000000000000000"):
        update_index(index, grown, shop)


def test_an_index_of_something_else_is_refused(shop, grown, tmp_path) -> None:
    part = pl.DataFrame({"user_id": ["u00"], "history": [["i00", "i01"]]})
    for index in (Index.build(grown), Index.build(shop, histories=part)):
        with pytest.raises(LorarecError, match=r"not built by `lorarec index` of all interactions of shop \(\w+\)"):
            update_index(index, grown, shop)
    Index.build(shop, CONFIG).save(tmp_path / "index")
    record = read_json(tmp_path / "index" / "index.json")
    write_json(tmp_path / "index" / "index.json", {**record, "dataset_fingerprint": grown.fingerprint})
    with pytest.raises(LorarecError, match="was built of shop"):
        Index.load(tmp_path / "index", shop)
