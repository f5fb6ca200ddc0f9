"""The verb `fuse`, and the verbs that read a fusion."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lorarec.backbone import Backbone, BackboneConfig
from lorarec.cli.options import load_backbone
from lorarec.data import Dataset, load_split
from lorarec.errors import LorarecError
from lorarec.evaluation import evaluate
from lorarec.ranking import DEFAULT_RECOMMENDERS, Fusion
from tests.command_line import run
from tests.factories import dataset_of, numbered_titles

CHEAP = ("--recommender", "item-knn", "--recommender", "tf-idf", "--recommender", "popularity")


def _json(*words: object) -> Any:
    return json.loads(run(*words, "--json").stdout)


@pytest.fixture
def fusion(shop: Path, backbone_folder: Path, tmp_path: Path) -> Path:
    """A fusion without adapters."""
    run("fuse", shop, *CHEAP, "--pool", "20", "--backbone", backbone_folder, "--out", tmp_path / "fused")
    return tmp_path / "fused"


def test_what_was_fitted_is_printed(shop: Path, backbone_folder: Path, tmp_path: Path) -> None:
    words = ("fuse", shop, *CHEAP, "--pool", "30", "--cases", "15", "--seed", "3", "--backbone", backbone_folder)
    found = _json(*words, "--new-item-prior", "0.2", "--set", "item-knn.max_history=3", "--out", tmp_path / "one")
    record = json.loads((tmp_path / "one" / "fusion.json").read_text())
    assert found["folder"] == str(tmp_path / "one")
    assert {name: found[name] for name in record["fit"]} == record["fit"]
    assert found["cases"] <= 15
    assert record["recommenders"]["item-knn"]["options"] == {"max_history": 3}
    assert (record["options"]["new_item_prior"], record["seed"]) == (0.2, 3)
    assert list(found["weights"]) == ["item-knn", "tf-idf", "popularity"]
    assert list(found["pool_weights"]) == ["item-knn", "tf-idf", "popularity", "index"]
    assert found["weights"]["tf-idf"]["score, new item"] == record["candidates"]["weights"]["tf-idf, new item"]
    printed = run(*words, "--out", tmp_path / "two").stdout
    for text in ("log loss", "popularity", "Weights of the fusion for whole catalogues", str(tmp_path / "two")):
        assert text in printed


def test_the_help_names_the_recommenders_that_are_fused_by_default() -> None:
    page = " ".join(run("fuse", "--help", env={"COLUMNS": "200"}).stdout.replace("│", "").split())
    *most, last = DEFAULT_RECOMMENDERS
    assert f"{', '.join(most)} and {last} if not given" in page


def test_adapters_and_next_item_models(
    shop: Path, backbone_folder: Path, tiny_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_backbone.model, tmp_path / "plug-in", 1)
    words = ("--adapter", adapter, "--adapter", f"other={adapter}", "--backbone", backbone_folder, "--pool", "20")
    options = ("--recommender", "sasrec", "--set", "sasrec.epochs=1", "--set", "sasrec.hidden_size=8")
    found = _json("fuse", shop, *words, *options, "--out", tmp_path / "fused")
    assert list(found["weights"]) == ["plug-in", "other", "sasrec"]
    user = (shop, "--user", "u03", "--backbone", backbone_folder, "--fusion", tmp_path / "fused")
    items = _json("recommend", *user, "--pool", "8", "--top", "8")
    assert list(items[0]["parts"]) == ["plug-in", "other", "sasrec", "index", "new item"]
    with pytest.raises(LorarecError, match="belongs to another backbone"):
        run("recommend", shop, "--user", "u03", "--fusion", tmp_path / "fused")


def test_unisrec_needs_no_model_of_texts_but_may_have_one(shop: Path, text_encoder: str, tmp_path: Path) -> None:
    for out, encoder, words in (
        ("words", "lsa", ()),
        ("model", text_encoder, ("--set", f"unisrec.text_encoder={text_encoder}")),
    ):
        chosen = ("--recommender", "unisrec", "--recommender", "tf-idf", "--set", "unisrec.epochs=1", *words)
        found = _json("fuse", shop, *chosen, "--pool", "0", "--out", tmp_path / out)
        assert list(found["weights"]) == ["unisrec", "tf-idf"]
        options = json.loads((tmp_path / out / "fusion.json").read_text("utf-8"))["recommenders"]["unisrec"]["options"]
        assert (options["text_encoder"], options["pretrain_epochs"]) == (encoder, 0)
        assert _json("rank", shop, "--user", "u03", "--item", "i30", "--item", "i31", "--fusion", tmp_path / out)


def test_recommendations_are_those_of_the_library(shop: Path, fusion: Path) -> None:
    data = Dataset.load(shop)
    loaded = Fusion.load(fusion, data)
    pool = [each.item_id for each in loaded.index().propose(data.history("u03"), 15)]
    case = pl.DataFrame({"user_id": ["u03"], "history": [data.history("u03")], "candidates": [pool]})
    (scores,) = loaded.score_with_parts(case, pool=True)
    items = _json("recommend", shop, "--user", "u03", "--fusion", fusion, "--pool", "15", "--top", "15")
    assert {item["item_id"]: item["score"] for item in items} == dict(
        zip(pool, scores.log_probabilities.tolist(), strict=True)
    )
    assert [item["score"] for item in items] == sorted((item["score"] for item in items), reverse=True)
    for item in items:
        assert item["probability"] == pytest.approx(math.exp(item["score"]))
        assert item["parts"] == scores.parts_of(pool.index(item["item_id"]))
        assert item["log_odds"] is item["log_likelihood"] is item["log_prior"] is None
    (often,) = loaded.with_new_item_prior(0.9).score_with_parts(case, pool=True)
    words = ("recommend", shop, "--user", "u03", "--fusion", fusion, "--pool", "15", "--new-item-prior", "0.9")
    assert _json(*words)[0]["score"] == often.log_probabilities.max()


def test_all_users(shop: Path, fusion: Path, tmp_path: Path) -> None:
    words = ("recommend", shop, "--all", "--fusion", fusion, "--pool", "15", "--top", "3", "--part-size", "8")
    assert _json(*words, "--out", tmp_path / "scores")["users"] == 20
    rows = pl.read_parquet(tmp_path / "scores" / "part-*.parquet")
    assert rows.columns == ["user_id", "item_ids", "scores", "probabilities", "parts"]
    items = _json("recommend", shop, "--user", "u03", "--fusion", fusion, "--pool", "15", "--top", "3")
    row = rows.row(by_predicate=pl.col("user_id") == "u03", named=True)
    assert row["item_ids"] == [item["item_id"] for item in items]
    assert row["scores"] == pytest.approx([item["score"] for item in items], abs=1e-5)
    for name, values in row["parts"].items():
        assert values == pytest.approx([item["parts"][name] for item in items], abs=1e-5)
    assert _json(*words, "--out", tmp_path / "scores")["parts_before"] == 3
    with pytest.raises(LorarecError, match=r"--new-item-prior was auto and is now 0\.5"):
        run(*words, "--new-item-prior", "0.5", "--out", tmp_path / "scores")


def test_given_items(shop: Path, fusion: Path) -> None:
    ids = ["i30", "i40", "i41"]
    words = [word for item in ids for word in ("--item", item)]
    found = _json("rank", shop, "--user", "u03", *words, "--fusion", fusion)
    data = Dataset.load(shop)
    case = pl.DataFrame({"user_id": ["u03"], "history": [data.history("u03")], "candidates": [ids]})
    (scores,) = Fusion.load(fusion, data).score(case)
    assert {row["item_id"]: row["score"] for row in found} == dict(zip(ids, scores.tolist(), strict=True))
    assert [row["probability"] for row in found] == pytest.approx([math.exp(row["score"]) for row in found])


def test_an_explanation_has_the_parts_of_the_score(shop: Path, fusion: Path) -> None:
    words = ("explain", shop, "--user", "u03", "--fusion", fusion, "--pool", "15")
    found, printed = _json(*words), run(*words)
    best = _json("recommend", shop, "--user", "u03", "--fusion", fusion, "--pool", "15")[0]
    assert (found["item_id"], found["score"], found["parts"]) == (best["item_id"], best["score"], best["parts"])
    assert len(found["influences"]) == 4
    for name, part in found["parts"].items():
        assert name in printed.stdout
        assert f"{part:+.3f}" in printed.stdout
    assert "chat model" not in printed.stderr


def test_a_row_of_an_evaluation(shop: Path, fusion: Path, backbone_folder: Path) -> None:
    words = ("evaluate", shop, "--fusion", fusion, "--backbone", backbone_folder, "--limit", "5", "--setting", "warm")
    rows = _json(*words, "--fusion", f"mine={fusion}", "--new-item-prior", "0.01")["settings"]["warm"]["rows"]
    assert {"fused", "mine"} < rows.keys()
    assert "prior of new items 0.01 (fixed)" in rows["fused"]["about"]


def test_the_whole_catalogue_without_adapters_is_scored_exactly(
    shop: Path, fusion: Path, backbone_folder: Path
) -> None:
    words = ("evaluate", shop, "--fusion", fusion, "--backbone", backbone_folder, "--candidates", "all", "--pool", "5")
    found = _json(*words, "--setting", "warm", "--limit", "6")["settings"]["warm"]
    dataset = Dataset.load(shop)
    loaded = Fusion.load(fusion, dataset)
    expected = evaluate(dataset, {"fused": loaded}, settings=["warm"], candidates="all", limit=6).settings["warm"]
    row, same = found["rows"]["fused"], expected.rows["fused"]
    assert row["recall@100"]["mean"] == same.metrics["recall@100"].mean == 1  # of 50 items
    assert row["ndcg@10"]["mean"] == same.metrics["ndcg@10"].mean
    assert f"prior of new items {loaded.new_item_share:.3g} (fixed)" in row["about"]
    with pytest.raises(LorarecError, match="the row name index is taken: use another with --fusion NAME="):
        run("evaluate", shop, "--fusion", f"index={fusion}", *words[4:])


def test_the_whole_catalogue_with_adapters_is_the_pool_of_the_own_index(
    shop: Path, backbone_folder: Path, tiny_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = write_adapter(tiny_backbone.model, tmp_path / "plug-in", 1)
    backbone = ("--backbone", backbone_folder)
    run("fuse", shop, *backbone, "--adapter", adapter, *CHEAP, "--pool", "20", "--out", tmp_path / "fused")
    words = ("evaluate", shop, *backbone, "--fusion", tmp_path / "fused", "--candidates", "all", "--pool", "7")
    found = _json(*words, "--setting", "warm")["settings"]["warm"]["rows"]
    assert "fused" not in found
    about = found["index+fused"]["about"]
    assert about.startswith("the 7 items that an index proposes from together, rules, title, new, popular, re-ranked;")
    loaded = Fusion.load(tmp_path / "fused", Dataset.load(shop), tiny_backbone)
    cases = load_split(Dataset.load(shop)).test["warm"]
    pools = [loaded.index().propose(history, 7) for history in cases["history"].to_list()]
    proposed = [target in {each.item_id for each in pool} for target, pool in zip(cases["target"], pools, strict=True)]
    assert found["index+fused"]["recall@100"]["mean"] == pytest.approx(sum(proposed) / len(proposed))


def test_the_backbone_is_loaded_only_where_it_is_read(
    shop: Path, backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(config: BackboneConfig) -> Backbone:
        loaded.append(config.id)
        return load_backbone(config)

    monkeypatch.setattr("lorarec.cli.fuse.load_backbone", load)
    words = ("fuse", shop, "--backbone", backbone_folder, "--pool", "0")
    run(*words, *CHEAP, "--out", tmp_path / "cheap")
    assert loaded == []
    run(*words, "--recommender", "popularity", "--recommender", "text-similarity", "--out", tmp_path / "texts")
    assert loaded == [str(backbone_folder)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adapter", "nowhere"], "adapter nowhere does not exist"),
        (["--adapter", "a=x", "--adapter", "a=y"], "two adapters are called a: tell them apart with --adapter NAME"),
        (["--recommender", "psychic"], "no recommender 'psychic': choose from bpr-mf"),
        (["--recommender", "bpr-mf"], "bpr-mf: BPRMF cannot be saved in a fusion: choose from ease, gru4rec"),
        ([*CHEAP, "--set", "sasrec"], "--set sasrec must be NAME.OPTION=VALUE"),
        (["--recommender", "tf-idf", "--recommender", "tf-idf"], "--recommender tf-idf is given more than once: leave"),
        ([*CHEAP, "--set", "sasrec.epochs=1"], "--set sasrec: there is no such recommender: it has item-knn, tf-idf"),
        ([*CHEAP, "--set", "tf-idf.colour=1"], "--set tf-idf: unknown option 'colour': choose from max_history"),
        ([*CHEAP, "--set", "tf-idf.max_history=x"], "--set tf-idf: option max_history must be int, got 'x'"),
        ([*CHEAP, "--set", "tf-idf.max_history=["], r"--set tf-idf.max_history=\[: \[ cannot be read as a value"),
        ([*CHEAP, "--new-item-prior", "often"], "option --new-item-prior must be auto or float, got 'often'"),
        ([*CHEAP, "--hidden-items", "1"], "option --hidden-items must be at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_options(shop: Path, backbone_folder: Path, tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(LorarecError, match=message) as caught:
        run("fuse", shop, *words, "--backbone", backbone_folder, "--out", tmp_path / "new")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_folders_that_cannot_be_used(shop: Path, fusion: Path, tmp_path: Path) -> None:
    rows = [(f"u{k // 4:02}", f"i{k * 3 % 20:02}", k) for k in range(80)]
    other = dataset_of(rows, numbered_titles(20), "other").save(tmp_path / "other").folder
    user = ("--user", "u03", "--fusion", fusion)
    with pytest.raises(LorarecError, match=r"was fitted to shop .* not to other"):
        run("recommend", other, *user)
    with pytest.raises(LorarecError, match="give either --adapter or --fusion"):
        run("recommend", shop, *user, "--adapter", tmp_path)
    with pytest.raises(LorarecError, match="--engine vllm is for adapters"):
        run("recommend", shop, *user, "--engine", "vllm")
    with pytest.raises(LorarecError, match="shop is not a fusion: make one with"):
        run("recommend", shop, "--user", "u03", "--fusion", shop)
    with pytest.raises(LorarecError, match="--new-item-prior is for a fusion"):
        run("rank", shop, "--user", "u03", "--item", "i30", "--new-item-prior", "0.1")
    with pytest.raises(LorarecError, match=r"option --new-item-prior must be auto or between 0 and 1, got 7\.0"):
        run("explain", shop, *user, "--new-item-prior", "7")
    with pytest.raises(LorarecError, match="fused exists already"):
        run("fuse", shop, *CHEAP, "--out", fusion)
    (fusion / "fusion.safetensors").write_bytes(b"")
    with pytest.raises(LorarecError, match=r"fusion\.safetensors does not match fusion\.json"):
        run("recommend", shop, "--all", "--fusion", fusion, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_fusion_without_a_pool_does_not_recommend(shop: Path, backbone_folder: Path, tmp_path: Path) -> None:
    run("fuse", shop, *CHEAP, "--pool", "0", "--backbone", backbone_folder, "--out", tmp_path / "fused")
    assert _json("rank", shop, "--user", "u03", "--item", "i30", "--item", "i31", "--fusion", tmp_path / "fused")
    words = ("recommend", shop, "--fusion", tmp_path / "fused")
    for more in (("--user", "u03"), ("--all", "--out", tmp_path / "new")):
        with pytest.raises(LorarecError, match="was not fitted to candidates of an index"):
            run(*words, *more)
    assert not (tmp_path / "new").exists()
