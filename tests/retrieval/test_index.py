"""The index: no items of the history, blocked items or duplicates; new items; and saving and loading."""

import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.io.artefacts import read_json, write_json
from lorarec.recommenders import NextItemConfig
from lorarec.retrieval import Index, nearest

CONFIG = NextItemConfig(epochs=15, hidden_size=16, num_layers=1, batch_size=16, learning_rate=1e-2)
ITEMS = [f"i{k:02}" for k in range(44)]
IDS = st.lists(st.sampled_from([*ITEMS, "stranger"]))


@pytest.fixture(scope="session")
def index(shop: Dataset) -> Index:
    return Index.build(shop, CONFIG)


@pytest.fixture(scope="session")
def light(shop: Dataset) -> Index:
    return Index.build(shop)


@settings(max_examples=60)
@given(history=IDS, allow=st.none() | IDS, deny=IDS, pool=st.integers(1, 60), learned=st.booleans())
def test_proposals(
    index: Index, light: Index, history: list[str], allow: list[str] | None, deny: list[str], pool: int, learned: bool
) -> None:
    tested = index if learned else light
    proposals = tested.propose(history, pool, tested.blocked(allow, deny))
    found = [proposal.item_id for proposal in proposals]
    free = set(ITEMS if allow is None else allow) & set(ITEMS) - set(deny) - set(history)
    assert len(set(found)) == len(found) == min(pool, len(free))
    assert set(found) <= free
    for proposal in proposals:
        assert proposal.source in tested.sources
        assert len(set(proposal.because)) == len(proposal.because) <= 2
        assert set(proposal.because) <= set(history)
        assert bool(proposal.because) == (proposal.source != "popular") or proposal.source == "next"


def test_every_source_has_its_say_and_new_items_surface(index: Index) -> None:
    proposals = index.propose(["i00", "i01", "i02"], pool=20)
    assert {"next", "together", "new"} <= {proposal.source for proposal in proposals}
    new = [proposal for proposal in proposals if proposal.source == "new"]
    assert {proposal.item_id for proposal in new} == {"i40", "i41"}
    assert all(proposal.because for proposal in new)


@pytest.mark.parametrize("source", ["next", "together", "rules", "title"])
def test_lamps_call_for_lamps(index: Index, source: str) -> None:
    found = index.rank(source, ["i03", "i07", "i11"], 8)
    assert len(found) == 8
    assert sum(item < "i20" for item in found) >= 7


def test_a_history_that_grows_changes_the_answer(index: Index) -> None:
    assert index.rank("next", ["i03", "i07"], 5) != index.rank("next", ["i03", "i07", "i25", "i31", "i29"], 5)


def test_without_a_known_history_popularity_remains(index: Index) -> None:
    for history in ([], ["stranger"]):
        assert {proposal.source for proposal in index.propose(history, 5)} == {"popular"}


def test_only_the_histories_given_are_learned_from(shop: Dataset) -> None:
    train = pl.DataFrame({"user_id": ["a", "b"], "history": [["i00", "i01"], ["i00", "i02", "i02"]]})
    found = Index.build(shop, NextItemConfig(epochs=1, hidden_size=8), train)
    assert found.record["counts"] == {"items": 44, "users": 2, "interactions": 5}
    assert found.rank("together", ["i00"], 10) == ["i01", "i02"]
    assert found.rank("rules", ["i00"], 10) == ["i02", "i01"]
    assert found.rank("rules", ["i01"], 10) == []
    assert set(found.rank("next", ["i00"], 10)) == {"i01", "i02"}
    assert "i30" in found.rank("new", ["i31"], 44)


@pytest.mark.parametrize("options", [None, CONFIG])
def test_round_trip(shop: Dataset, tmp_path: Path, options: NextItemConfig | None) -> None:
    made = Index.build(shop, options)
    made.save(tmp_path / "index")
    assert {path.name for path in (tmp_path / "index").iterdir()} == {"index.json", "index.safetensors"}
    loaded = Index.load(tmp_path / "index", shop)
    for history in (["i00", "i25"], ["i42"], []):
        assert loaded.propose(history, 30) == made.propose(history, 30)


def test_a_model_is_saved_with_its_options_alone(shop: Dataset, tmp_path: Path) -> None:
    model = Index.build(shop, CONFIG).next_item.model
    made = Index.build(shop, CONFIG, model=model)
    made.save(tmp_path / "index")
    assert Index.load(tmp_path / "index", shop).propose(["i00", "i25"], 30) == made.propose(["i00", "i25"], 30)
    with pytest.raises(LorarecError, match="the options of the index's next-item model are not known"):
        Index.build(shop, model=model).save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_round_trip_of_an_inverted_file(shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(nearest, "EXACT_UP_TO", 10)
    made = Index.build(shop, CONFIG)
    made.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index", shop)
    assert loaded.rank("next", ["i00"], 20) == made.rank("next", ["i00"], 20)


def test_an_index_of_an_earlier_version_has_no_rules(shop: Dataset, tmp_path: Path) -> None:
    made = Index.build(shop, rules=False)
    made.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index", shop)
    assert list(loaded.sources) == ["together", "title", "new", "popular"]
    assert loaded.propose(["i00", "i25"], 30) == made.propose(["i00", "i25"], 30)
    assert "rules" not in loaded.with_catalogue(shop).sources


def test_reasons_are_the_items_with_the_strongest_rules(shop: Dataset) -> None:
    """A lamp that only an item far back in the history leads to is explained by that item."""
    histories = [["i00", "i01"], *([f"i{k:02}", f"i{k + 1:02}"] for k in range(20, 38))]
    index = Index.build(shop, histories=pl.DataFrame({"user_id": [*map(str, range(19))], "history": histories}))
    index.sources = {name: index.sources[name] for name in ("rules", "new", "popular")}
    proposals = {each.item_id: each for each in index.propose(["i00", *(f"i{k:02}" for k in range(20, 32, 1))], 44)}
    assert (proposals["i01"].source, proposals["i01"].because) == ("rules", ["i00"])
    assert (proposals["i32"].source, proposals["i32"].because) == ("rules", ["i31"])


def test_another_dataset_is_refused(shop: Dataset, light: Index, tmp_path: Path) -> None:
    light.save(tmp_path / "index")
    other = Dataset.from_frames("attic", shop.interactions.head(50), shop.items)
    with pytest.raises(LorarecError, match=r"index .* was built of shop .*, not of attic .*lorarec index") as refused:
        Index.load(tmp_path / "index", other)
    assert len(str(refused.value).splitlines()) == 1


def test_damaged_folders_are_refused(shop: Dataset, light: Index, tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match="nowhere is not an index: build one with `lorarec index`"):
        Index.load(tmp_path / "nowhere", shop)
    light.save(tmp_path / "index")
    for name in ("cut", "bare", "strange"):
        shutil.copytree(tmp_path / "index", tmp_path / name)
    arrays = tmp_path / "cut" / "index.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-8])
    with pytest.raises(LorarecError, match=r"index.safetensors does not match index.json"):
        Index.load(tmp_path / "cut", shop)
    (tmp_path / "bare" / "index.safetensors").unlink()
    with pytest.raises(LorarecError, match=r"bare is damaged"):
        Index.load(tmp_path / "bare", shop)
    record = read_json(tmp_path / "strange" / "index.json")
    write_json(tmp_path / "strange" / "index.json", {**record, "options": {"epochs": 1, "colour": "red"}})
    with pytest.raises(LorarecError, match=r"strange is damaged"):
        Index.load(tmp_path / "strange", shop)


def test_blocked_is_a_mask(light: Index) -> None:
    assert not light.blocked().any()
    assert np.flatnonzero(light.blocked(deny=["i03", "stranger"])).tolist() == [3]
    assert np.flatnonzero(~light.blocked(allow=["i03", "i05"], deny=["i03"])).tolist() == [5]


class TestWithATextEncoder:
    """The sources of similar titles compare embeddings in place of words."""

    HISTORIES = (["i00", "i25"], ["i42", "i03", "i03"], [f"i{k:02}" for k in range(15)])

    @pytest.fixture(scope="class")
    def embedded(self, shop: Dataset, text_encoder: str) -> Index:
        return Index.build(shop, CONFIG, text_encoder=text_encoder)

    def test_rankings_equal_a_loop_over_own_embeddings(self, embedded: Index, shop: Dataset, text_encoder: str) -> None:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(text_encoder, device="cpu")
        vectors = model.encode(list(shop.titles.values()), normalize_embeddings=True)
        vectors -= vectors.mean(0)
        vector = dict(zip(shop.titles, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))
        for history in self.HISTORIES:
            latest = list(dict.fromkeys(history[::-1]))[:10]
            score = {item: sum(float(vector[item] @ vector[past]) for past in latest) for item in shop.titles}
            for source, candidates in (("title", ITEMS[:40]), ("new", ITEMS[40:])):
                allowed = [item for item in candidates if item not in history and score[item] > 0]
                found = embedded.rank(source, history, 7)
                assert len(found) == min(7, len(allowed))
                best = sorted((score[item] for item in allowed), reverse=True)[: len(found)]
                np.testing.assert_allclose([score[item] for item in found], best, atol=1e-5)

    def test_other_sources_stay_as_they_are(self, embedded: Index, index: Index) -> None:
        assert list(embedded.sources) == list(index.sources)
        for source in ("next", "together", "rules", "popular"):
            assert embedded.rank(source, ["i03", "i07"], 9) == index.rank(source, ["i03", "i07"], 9)

    @settings(max_examples=30)
    @given(history=IDS, deny=IDS, pool=st.integers(1, 60))
    def test_proposals(self, embedded: Index, history: list[str], deny: list[str], pool: int) -> None:
        proposals = embedded.propose(history, pool, embedded.blocked(deny=deny))
        found = [proposal.item_id for proposal in proposals]
        free = set(ITEMS) - set(deny) - set(history)
        assert len(set(found)) == len(found) == min(pool, len(free))
        assert set(found) <= free
        for proposal in proposals:
            assert bool(proposal.because) or proposal.source in ("next", "popular")

    @pytest.mark.parametrize("exact", [True, False])
    def test_a_saved_index_needs_no_encoder(
        self, shop: Dataset, text_encoder: str, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not exact:
            pytest.importorskip("faiss")
            monkeypatch.setattr(nearest, "EXACT_UP_TO", 3)
        encoder = tmp_path / "encoder"
        shutil.copytree(text_encoder, encoder)
        made = Index.build(shop, text_encoder=encoder)
        made.save(tmp_path / "index")
        shutil.rmtree(encoder)
        monkeypatch.setitem(sys.modules, "sentence_transformers", None)
        loaded = Index.load(tmp_path / "index", shop)
        assert {path.name for path in (tmp_path / "index").iterdir()} == {"index.json", "index.safetensors"}
        assert loaded.record["text_encoder"]["id"] == str(encoder)
        assert len(loaded.record["text_encoder"]["fingerprint"]) == 16
        for history in self.HISTORIES:
            assert loaded.propose(history, 30) == made.propose(history, 30)
            assert loaded.rank("new", history, 4) == made.rank("new", history, 4)

    def test_an_unusable_encoder_is_named(self, shop: Dataset, tmp_path: Path) -> None:
        with pytest.raises(LorarecError, match=r"text_encoder .*gone is not a folder"):
            Index.build(shop, text_encoder=tmp_path / "gone")


@pytest.mark.parametrize("options", [None, NextItemConfig(epochs=1, hidden_size=8)])
def test_an_index_with_further_items_equals_one_that_is_built_with_them(
    shop: Dataset, options: NextItemConfig | None
) -> None:
    further = pl.DataFrame({"item_id": ["i05b", "a", "z"], "title": ["lamp no50 green", "game green", "green"]})
    items = pl.concat([shop.items.filter(item_id="i07").with_columns(title=pl.lit("game no3")), further])
    items = pl.concat([shop.items.filter(pl.col("item_id") != "i07"), items])
    larger = Dataset.from_frames("shop", shop.interactions, items)
    extended, built = Index.build(shop, options).with_catalogue(larger), Index.build(larger, options)
    assert extended.items == built.items
    assert extended.record == built.record
    for history in (["i01", "i02"], ["a"], ["i05b", "i25"], ["i07"], [], ["z", "i30", "i31"]):
        assert extended.propose(history, 40) == built.propose(history, 40)
    found = {each.item_id for each in extended.propose(["i01"], 40)}
    assert "i05b" in found


def test_a_catalogue_that_lacks_items_of_the_index_is_refused(shop: Dataset, light: Index) -> None:
    fewer = shop.subset(shop.interactions.filter(pl.col("item_id") != "i03"), filter_note="one item less")
    with pytest.raises(LorarecError, match=r"lacks \d+ items of the index, the first is '\w+': build the index again"):
        light.with_catalogue(fewer)


def test_an_empty_pool_is_refused(light: Index) -> None:
    with pytest.raises(LorarecError, match="a pool must have at least one item, got 0"):
        light.propose(["i01"], pool=0)
