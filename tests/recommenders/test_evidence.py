"""Words of a next-item model: their definition, cross-fitting, and fitted models that are found again."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from lorarec.data import Cooccurrence, Dataset, JointEvidence, Split, leave_one_out, title_vectors
from lorarec.data.cooccurrence import LEVELS
from lorarec.prompts import PromptConfig
from lorarec.recommenders import TrainingData, make_evidence, make_training_evidence
from lorarec.recommenders.evidence import CrossFittedRanks, NextItemRanks
from lorarec.recommenders.sequential.config import SASRecConfig
from lorarec.recommenders.sequential.next_item_model import NextItemModel
from lorarec.recommenders.sequential.trainer import new_next_item
from tests.factories import noun_dataset

MODEL = {"epochs": 2, "hidden_size": 8, "batch_size": 8, "dropout": 0, "max_history": 4}
PROMPT = PromptConfig(evidence=True, evidence_model=MODEL)


@pytest.fixture(scope="module")
def nouns() -> tuple[Dataset, Split]:
    """60 items, of which some are new, and 36 users."""
    dataset = noun_dataset()
    return dataset, leave_one_out(dataset, new_items=0.1, negatives=9)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path) -> Iterator[Path]:
    """Every test fits its own models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORAREC_CACHE", str(tmp_path))
        yield tmp_path / "evidence"


def words_by_definition(
    model: NextItemModel, index: dict[str, int], titles: dict[str, str], history: list[str], candidates: list[str]
) -> list[str]:
    """Count the items that are expected at least as much as a candidate, one by one."""
    vectors = np.asarray(title_vectors(list(titles.values())).todense())
    known, rows = [item for item in history if item in index], {item: row for row, item in enumerate(titles)}
    with torch.no_grad():
        states = model(torch.tensor([[index[item] for item in known][-4:]]))
        logits = (model.items.all() @ states[0, -1]).tolist()
    free = [logits[row] for item, row in index.items() if item not in known]
    words = []
    for item in candidates:
        if is_new := item not in index:
            cosines = {other: float(vectors[rows[item]] @ vectors[rows[other]]) for other in index}
            nearest = sorted(cosines, key=lambda other: -cosines[other])[:5]
            total = sum(cosines[other] for other in nearest)
            score = sum(cosines[other] * logits[index[other]] for other in nearest) / total
        else:
            score = logits[index[item]]
        rank = sum(other >= score for other in free)
        word = next((word for share, word in LEVELS.items() if rank <= share * len(index)), "")
        words.append(f"new, {word}".removesuffix(", ") if is_new else word)
    return words


def _data(dataset: Dataset, known: list[str]) -> TrainingData:
    """Return data whose only training history has these items."""
    train = pl.DataFrame({"user_id": ["u"], "history": [known]})
    return TrainingData(dataset, Split(train, train.head(0), {}, {"fingerprint": "f"}))


def test_words_are_the_ranks_by_the_model(nouns: tuple[Dataset, Split]) -> None:
    titles = nouns[0].titles
    ids = list(titles)
    index = {item: row for row, item in enumerate([*ids[:40], *ids[45:]])}
    model = new_next_item(len(index), SASRecConfig(hidden_size=8, max_history=4)).eval()
    ranks = NextItemRanks(model, _data(nouns[0], list(index)))
    rng = np.random.default_rng(0)
    said = set()
    for length in (1, 3, 4, 9):
        history = [*rng.permutation(ids)[:length].tolist(), ids[41], ids[0]]
        candidates = [item for item in ids if item not in history]
        found = ranks.hints(history, candidates)
        assert found == words_by_definition(model, index, titles, history, candidates)
        assert found == ranks.hints(history, candidates, user="anyone", max_history=1)
        said |= set(found)
    assert {"frequently", "often", "sometimes", "new, sometimes", ""} <= said


def test_a_hidden_candidate_is_called_new(nouns: tuple[Dataset, Split]) -> None:
    titles = nouns[0].titles
    ids = list(titles)
    model = new_next_item(len(ids), SASRecConfig(hidden_size=8)).eval()
    ranks = NextItemRanks(model, _data(nouns[0], ids))
    plain, hidden = (ranks.hints(ids[:3], ids[3:6], hidden=mask) for mask in (None, [False, True, False]))
    assert hidden[1].startswith("new")
    assert [hidden[0], hidden[2]] == [plain[0], plain[2]]
    assert not any(each.startswith("new") for each in plain)


def test_without_a_known_history_there_are_no_words(nouns: tuple[Dataset, Split]) -> None:
    titles = nouns[0].titles
    ids = list(titles)
    model = new_next_item(5, SASRecConfig(hidden_size=8)).eval()
    ranks = NextItemRanks(model, _data(nouns[0], ids[:5]))
    for history in ([], ids[5:9], ["nowhere"]):
        assert ranks.hints(history, [ids[0], ids[9], "nowhere"]) == ["", "new", "new"]
    assert ranks.hints(ids[:2], ["nowhere"]) == ["new"]


def test_evidence_is_what_prompts_ask_for(nouns: tuple[Dataset, Split]) -> None:
    dataset, split = nouns
    assert make_evidence(PromptConfig(), dataset, split) is None
    assert make_training_evidence(PromptConfig(), dataset, split) is None
    for make in (make_evidence, make_training_evidence):
        plain = make(PromptConfig(evidence=True), dataset, split)
        assert isinstance(plain, Cooccurrence)
        assert plain.model is None
    both = make_evidence(PROMPT, dataset, split)
    assert isinstance(both, JointEvidence)
    assert both.model == PROMPT.evidence_model
    history = split.train["history"][0].to_list()
    others = [item for item in dataset.titles if item not in history]
    one = Cooccurrence(split.train, dataset.titles).hints(history[-2:], others, "u00")
    two = both.ranks.hints(history, others)
    for hint, *words in zip(both.hints(history, others, "u00", max_history=2), one, two, strict=True):
        assert hint.split(", ") == [
            *(["new"] if any(word.startswith("new") for word in words) else []),
            *(word.removeprefix("new").removeprefix(", ") or "rarely" for word in words),
        ] or hint in ("", "new")


def without_targets(split: Split, user: str, history: Sequence[str]) -> Split:
    """Return the split with another training history of a user, also in the validation case."""
    changed = [
        each.with_columns(
            pl.when(pl.col("user_id") == user).then(pl.lit(list(history))).otherwise("history").alias("history")
        )
        for each in (split.train, split.valid)
    ]
    return replace(split, train=changed[0], valid=changed[1])


def test_the_words_of_a_user_do_not_depend_on_the_users_choices(nouns: tuple[Dataset, Split]) -> None:
    dataset, split = nouns
    user, items = "u03", list(dataset.titles)
    evidence = make_training_evidence(PROMPT, dataset, split)
    history = split.train.filter(user_id=user)["history"][0].to_list()
    other = make_training_evidence(PROMPT, dataset, without_targets(split, user, items[::9]))
    assert isinstance(evidence, JointEvidence)
    assert isinstance(other, JointEvidence)
    for source, changed in ((evidence, other), (evidence.ranks, other.ranks)):
        assert source.hints(history, items, user) == changed.hints(history, items, user)
    users = [each for each in split.train["user_id"] if each != user]
    before, after = ([made.ranks.hints(history, items, each) for each in users] for made in (evidence, other))
    assert before != after  # the other half learned from the choices


def test_a_half_has_not_seen_the_other(nouns: tuple[Dataset, Split]) -> None:
    dataset, split = nouns
    evidence = make_training_evidence(PROMPT, dataset, split)
    assert isinstance(evidence, JointEvidence)
    assert isinstance(evidence.ranks, CrossFittedRanks)
    for user, half in evidence.ranks._half_of.items():
        users = [each for each, other in evidence.ranks._half_of.items() if other != half]
        assert user not in users
        seen = set(split.train.filter(pl.col("user_id").is_in(users))["history"].explode())
        hints = evidence.ranks.hints(["lamp-0"], list(dataset.titles), user)
        new = [item for item, hint in zip(dataset.titles, hints, strict=True) if hint.startswith("new")]
        assert set(new) == dataset.titles.keys() - seen
    assert abs(sum(evidence.ranks._half_of.values()) - len(split.train) / 2) < 1
    again = make_training_evidence(replace(PROMPT, evidence_model={**MODEL, "seed": 7}), dataset, split)
    assert isinstance(again, JointEvidence)
    assert isinstance(again.ranks, CrossFittedRanks)
    assert again.ranks._half_of != evidence.ranks._half_of


def test_a_fitted_model_is_found_again(
    nouns: tuple[Dataset, Split], own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, split = nouns
    items, state = list(dataset.titles), torch.random.get_rng_state()
    first = make_evidence(PROMPT, dataset, split)
    assert "fitting sasrec to 36 users of nouns" in caplog.text
    assert torch.equal(torch.random.get_rng_state(), state)
    (folder,) = [path for path in own_cache.iterdir() if path.is_dir()]
    caplog.clear()
    second = make_evidence(PROMPT, dataset, split)
    assert not caplog.text
    assert first is not None
    assert second is not None
    said = first.hints(items[:3], items[3:])
    assert said == second.hints(items[:3], items[3:])
    own_cache.rename(own_cache.with_name("away"))
    third = make_evidence(PROMPT, dataset, split)
    assert third is not None
    assert said == third.hints(items[:3], items[3:])
    assert (own_cache / folder.name).is_dir()
    changed = replace(split, train=split.train.head(30))
    make_evidence(PROMPT, dataset, changed)
    make_evidence(replace(PROMPT, evidence_model={**MODEL, "seed": 7}), dataset, split)
    assert len([path for path in own_cache.iterdir() if path.is_dir()]) == 3


def test_without_validation_cases_or_users_of_a_half(nouns: tuple[Dataset, Split]) -> None:
    dataset, split = nouns
    nobody = replace(split, valid=split.valid.clear())
    assert make_evidence(PROMPT, dataset, nobody) is not None
    alone = replace(split, train=split.train.head(1), valid=split.valid.clear())
    evidence = make_training_evidence(PROMPT, dataset, alone)
    assert isinstance(evidence, JointEvidence)
    items = list(dataset.titles)
    assert evidence.ranks.hints(items[:3], items[3:6], "u00") == ["new"] * 3


def test_words_with_other_titles_equal_their_definition(nouns: tuple[Dataset, Split]) -> None:
    titles = nouns[0].titles
    ids = list(titles)
    index = {item: row for row, item in enumerate(ids[:40])}
    model = new_next_item(len(index), SASRecConfig(hidden_size=8, max_history=4)).eval()
    ranks = NextItemRanks(model, _data(nouns[0], list(index)))
    larger = {**titles, ids[42]: titles[ids[3]], "further": titles[ids[5]]}
    history, candidates = ids[:3], [*ids[3:], "further"]
    found = ranks.with_titles(larger).hints(history, candidates)
    assert found == words_by_definition(model, index, larger, history, candidates)
    assert ranks.hints(history, ids[3:]) == words_by_definition(model, index, titles, history, ids[3:])
