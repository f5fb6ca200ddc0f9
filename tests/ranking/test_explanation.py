"""Explanations equal the scores of each shortened history by itself, and planted causes are found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.data.cooccurrence import dataset_cooccurrence
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, read_adapter
from lorarec.ranking import Explanation, Ranker, explain, fuse, recommend, shorter_histories
from lorarec.retrieval import Index
from lorarec.scoring import posterior
from tests.factories import circle_log, dataset_of

COLOURS = ["red", "green", "blue", "black", "white"]
THINGS = ["lamp", "chair", "table", "puzzle", "novel", "brush"]


@pytest.fixture
def shop() -> Dataset:
    """User `me` chose a red lamp, which others chose with the black puzzle x18, and items that nobody else chose."""
    mine = [("me", item) for item in ("x01", "x07", "x13", "x00", "x24")]
    others = [(f"u{k}", item) for k in range(6) for item in ("x00", "x18", f"x{19 + k % 2}")]
    rows = [(user, item, moment) for moment, (user, item) in enumerate([*mine, *others])]
    titles = {f"x{k:02}": f"{COLOURS[k % 5]} {THINGS[k // 5]}" for k in range(30)}
    return dataset_of(rows, titles, "shop")


@pytest.fixture
def evident(write_adapter: Callable[..., Path], tmp_path: Path) -> Callable[..., Adapter]:
    """Make a random adapter with a record of training with evidence."""

    def make(backbone: Backbone, **options: Any) -> Adapter:
        meta = {"readout": "verdict", "options": {"evidence": True, **options}}
        return read_adapter(write_adapter(backbone.model, tmp_path / "adapter", 1, meta))

    return make


def score_separately(
    ranker: Ranker, dataset: Dataset, history: list[str], found: Explanation, candidates: list[str]
) -> Any:
    """Score and probability for one history, in a pass of its own."""
    case = pl.DataFrame({"user_id": ["me"], "history": [history], "candidates": [candidates]})
    scores = ranker.score_cases(case, dataset.titles, dataset_cooccurrence(dataset))[0]
    scores = scores - np.log(np.arange(1, 1 + len(candidates)))  # the prior of recommendations: 1 / place
    place = candidates.index(found.item_id)
    return np.array([scores[place], posterior(scores)[place]])


@pytest.mark.parametrize(("max_history", "readout"), [(3, "verdict"), (10, "verdict"), (10, "likelihood")])
def test_influences_equal_scoring_every_shorter_history(
    shop: Dataset, tiny_backbone: Backbone, evident: Callable[..., Adapter], max_history: int, readout: str
) -> None:
    adapter = evident(tiny_backbone, max_history=max_history)
    history = shop.interactions.filter(user_id="me")["item_id"].to_list()
    with Ranker(tiny_backbone, adapter, readout) as ranker:
        found = explain(ranker, shop, "me")
        best, *rest = recommend(ranker, shop, "me", top_k=100)
        assert (found.item_id, found.candidates) == (best.item_id, 1 + len(rest))
        assert found.score == pytest.approx(best.score, abs=1e-5)
        assert found.probability == pytest.approx(best.probability, abs=1e-5)
        own = found.log_odds if readout == "verdict" else found.log_likelihood
        assert own is not None
        assert found.score == pytest.approx(own + found.log_prior, abs=1e-5)
        # In the order of the index, since prompts of `likelihood` list them.
        candidates = [proposal.item_id for proposal in Index.build(shop).propose(history, 100)]
        whole = score_separately(ranker, shop, history, found, candidates)
        assert [influence.item_id for influence in found.influences] == history[-max_history:]
        for influence in found.influences:
            without = [item for item in history if item != influence.item_id]
            expected = whole - score_separately(ranker, shop, without, found, candidates)
            np.testing.assert_allclose([influence.score, influence.probability], expected, atol=1e-5)
    assert max(abs(influence.score) for influence in found.influences) > 1e-3


def test_an_item_is_left_out_everywhere() -> None:
    history = ["a", "b", "a", "c"]
    assert shorter_histories(history, 3) == [history, ["a", "a", "c"], ["b", "c"], ["a", "b", "a"]]
    assert shorter_histories(["a", "a"], 5) == [["a", "a"], [], []]
    assert shorter_histories([], 5) == [[]]


def test_the_item_that_others_chose_with_the_candidate_is_found(
    shop: Dataset, tiny_backbone: Backbone, evident: Callable[..., Adapter]
) -> None:
    """The prompt depends on the history by evidence only, so one item is the whole cause."""
    adapter = evident(tiny_backbone, template="own.j2")
    assert adapter.folder is not None
    (adapter.folder / "own.j2").write_text("- {{ candidate }}{% if note %}: {{ note }}{% endif %}\n")
    with Ranker(tiny_backbone, adapter) as ranker:
        found = explain(ranker, shop, "me", "x18")
    effects = {influence.item_id: abs(influence.score) for influence in found.influences}
    assert effects.pop("x00") > 1e-2
    assert max(effects.values()) < 1e-5


def test_all_histories_share_one_pass(shop: Dataset, tiny_backbone: Backbone) -> None:
    passes = []
    tiny_backbone.model.model.layers[0].register_forward_pre_hook(lambda layer, given: passes.append(len(given[0])))
    with Ranker(tiny_backbone, token_budget=1) as ranker:
        explain(ranker, shop, "me", "x18")
    assert passes == [6]


def test_an_item_outside_the_pool_is_compared_with_it(shop: Dataset, tiny_backbone: Backbone) -> None:
    with Ranker(tiny_backbone) as ranker:
        found = explain(ranker, shop, "me", "x29", pool=2)
        assert (found.item_id, found.title, found.candidates) == ("x29", "white brush", 3)
        assert explain(ranker, shop, "me", "x18").candidates == 25
        assert found.reason is None


def chatty(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|end|>")
    messages = "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}"
    chat.chat_template = messages + "{% if add_generation_prompt %}[assistant]{% endif %}"
    return chat


def test_a_chat_model_gives_a_reason(shop: Dataset, tiny_backbone: Backbone, evident: Callable[..., Adapter]) -> None:
    chat = replace(tiny_backbone, tokenizer=chatty(tiny_backbone.tokenizer))
    calls: list[list[int]] = []

    def note(_: Any, given: Any) -> None:
        calls.append(given[0][0].tolist())

    with Ranker(chat, evident(chat)) as ranker:
        chat.model.get_input_embeddings().register_forward_pre_hook(note)
        found = explain(ranker, shop, "me", "x18")
        # The first pass scores; the second reads the question, each other one a token of the answer.
        question, steps = calls[1], [token for ids in calls[2:] for token in ids]
        logits = chat.model(torch.tensor([[*question, *steps]])).logits[0, len(question) - 1 :]
    greedy: list[int] = []
    for each in logits:  # what was generated before is penalized (Keskar et al., arXiv 1909.05858)
        before = list(set(greedy))
        row = each.clone()
        row[before] = torch.where(row[before] > 0, row[before] / 1.2, row[before] * 1.2)
        greedy.append(int(row.argmax()))
    assert greedy[:-1] == steps
    text = chat.tokenizer.decode(question)
    assert text.startswith("[user]A user chose, in this order:\n- green lamp")
    assert (
        "the word after its title says how often those who chose the same titles chose it too:\n"
        "- black puzzle: sometimes\n" in text
    )
    strongest = sorted((one for one in found.influences if one.score > 0), key=lambda one: -one.score)[:3]
    opening = f"black puzzle is recommended because, like {strongest[0].title}, it"
    assert text.endswith(f"[/][assistant]{opening}")
    assert found.reason == opening + chat.tokenizer.decode(greedy, skip_special_tokens=True).rstrip()
    named = {influence.title for influence in found.influences if f"- {influence.title}: counts for it\n" in text}
    assert named == {influence.title for influence in strongest}


@pytest.mark.parametrize(
    ("user", "item", "message"),
    [
        ("zoe", None, "user zoe is not in dataset shop: its users are like me"),
        ("me", "x99", "item x99 is not in dataset shop: its items are like x00"),
        ("me", "x24", "user me has chosen item x24 already: give one outside the history"),
    ],
)
def test_bad_input(shop: Dataset, tiny_backbone: Backbone, user: str, item: str | None, message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        explain(Ranker(tiny_backbone), shop, user, item)


def test_nothing_is_left(shop: Dataset, tiny_backbone: Backbone) -> None:
    everything = shop.interactions.filter(user_id="me")
    with pytest.raises(LorarecError, match="nothing of shop is left to recommend to user me"):
        explain(Ranker(tiny_backbone), shop.subset(everything, filter_note="mine"), "me")


def test_a_fusion_explains_by_its_parts_and_shorter_histories() -> None:
    dataset, split = circle_log("circles", new_items=0.2)
    fusion = fuse(dataset, recommenders=("item-knn", "tf-idf", "popularity"), split=split)
    user = dataset.interactions["user_id"][0]
    history = dataset.history(user)
    found, best = explain(fusion, dataset, user, pool=12), recommend(fusion, dataset, user, pool=12)[0]
    assert (found.item_id, found.candidates, found.reason) == (best.item_id, 12, None)
    assert found.score == pytest.approx(best.score)
    assert found.parts == pytest.approx(best.parts)
    assert found.log_odds is found.log_likelihood is found.log_prior is None
    candidates = [proposal.item_id for proposal in fusion.index().propose(history, 12)]
    place = candidates.index(found.item_id)

    def log_probability(items: list[str]) -> float:
        case = pl.DataFrame({"user_id": [user], "history": [items], "candidates": [candidates]})
        return float(fusion.score_with_parts(case, pool=True)[0].log_probabilities[place])

    assert [influence.item_id for influence in found.influences] == history[-fusion.max_history :]
    for influence in found.influences:
        without = [item for item in history if item != influence.item_id]
        assert influence.score == pytest.approx(log_probability(history) - log_probability(without))
    other = explain(fusion, dataset, user, next(item for item in dataset.titles if item not in history), pool=3)
    assert set(other.parts) == {"item-knn", "tf-idf", "popularity", "index", "new item"}
