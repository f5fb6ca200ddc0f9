"""Adapters whose prompts have words of a next-item model: their training cases, records, mixtures and rows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, EvidenceModelConfig, Split
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, MixingPrompts, mix, prompt_config, read_adapter
from lorarec.prompts import case_examples
from lorarec.ranking import Ranker, TrainedAdapter, adapter_scorers
from lorarec.recommenders import TrainingData, make_evidence, make_training_evidence
from lorarec.training import TrainingConfig, train
from lorarec.training.cases import TrainingCases
from lorarec.training.validation import Validation
from tests.factories import hot_backbone, hot_log

MODEL = EvidenceModelConfig(epochs=1, hidden_size=8, batch_size=8, max_history=4)
CONFIG = TrainingConfig(
    batch_size=16, negatives=4, r=4, epochs=1, learning_rate=1e-2, eval_users=8, max_history=2, evidence_model=MODEL
)


@pytest.fixture(scope="module")
def shared() -> Backbone:
    """A backbone for all tests here: training does not change it."""
    return hot_backbone()


@pytest.fixture(scope="module")
def trained(shared: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """An adapter trained with words of a next-item model."""
    return train(shared, [hot_log()], tmp_path_factory.mktemp("trained") / "adapter", CONFIG)


def test_cases_have_the_words_of_the_whole_history(shop: tuple[Dataset, Split]) -> None:
    dataset, split = shop
    ids = {title: item for item, title in dataset.titles.items()}
    evidence = make_training_evidence(CONFIG, dataset, split)
    assert evidence is not None
    cases = TrainingCases([shop], replace(CONFIG, new_items=0))
    starts = {tuple(history): user for user, history in split.train.select("user_id", "history").iter_rows()}
    longer = 0
    for index in range(len(cases)):
        case = cases.case(0, index)
        shown, target = [ids[title] for title in case.history], ids[case.candidates[case.target]]
        candidates = [ids[title] for title in case.candidates]
        words = []
        for history, user in starts.items():
            for end in (place for place, item in enumerate(history) if item == target):
                if list(history[max(0, end - 2) : end]) == shown:
                    words.append(evidence.hints(history[:end], candidates, user, max_history=2))
                    longer += end > 2
        assert case.hints in words
    assert longer > 0


def test_other_candidates_are_drawn_as_without_a_model(shop: tuple[Dataset, Split]) -> None:
    both, plain = (TrainingCases([shop], replace(CONFIG, evidence_model=model)) for model in (MODEL, None))
    for index in range(len(both)):
        one, other = both.case(0, index), plain.case(0, index)
        assert (one.history, one.candidates, one.target) == (other.history, other.candidates, other.target)
        assert [hint.startswith("new") for hint in other.hints] <= [hint.startswith("new") for hint in one.hints]


def test_the_record_has_the_options_of_the_model(trained: Adapter) -> None:
    assert trained.folder is not None
    written = json.loads((trained.folder / "lorarec.json").read_text())
    assert written["options"]["evidence_model"] == vars(MODEL)
    assert prompt_config(read_adapter(trained.folder)) == replace(CONFIG, template="verdict-v2").prompt


def test_all_prompts_of_a_case_are_the_same(
    shared: Backbone, trained: Adapter, shop: tuple[Dataset, Split], tmp_path: Path
) -> None:
    """In validation, mixing, evaluation and fusion, and those that a `Ranker` builds with the evidence."""
    dataset, split = shop
    prompt = prompt_config(trained)
    evidence = make_evidence(prompt, dataset, split)
    with Ranker(shared, trained) as ranker:
        expected = ranker.examples(split.valid, dataset.titles, evidence)
        scores = ranker.score_examples(expected)
        plain = case_examples(split.valid, dataset.titles, ranker.builder, 2, make_evidence(without_model(), *shop))
    assert [each.branches for each in expected] != [each.branches for each in plain]
    prompts = MixingPrompts(shared, [trained, trained])
    assert prompts.examples(dataset, split, split.valid) == expected
    validation = Validation([shop], shared.prompt_builder(prompt), replace(CONFIG, eval_users=10**6))
    assert sorted(map(str, validation.examples)) == sorted(map(str, expected))
    row = adapter_scorers(shared, dataset, split, {"row": trained})["row"]
    fused = TrainedAdapter(shared, trained).fit(TrainingData(dataset, split))
    for scorer in (row, fused):
        for found, own in zip(scorer.score(split.valid), scores, strict=True):
            np.testing.assert_allclose(found, own, atol=1e-5)
    assert "of their ranks by SASRec" in row.about
    mixed = mix(shared, [trained, trained], tmp_path / "mixed", method="fixed", weights=[0.5, 0.5])
    assert prompt_config(mixed).evidence_model == MODEL


def without_model() -> TrainingConfig:
    """Return the options of an adapter that reads co-occurrence alone."""
    return replace(CONFIG, evidence_model=None)


def test_other_evidence_is_refused(shared: Backbone, trained: Adapter, shop: tuple[Dataset, Split]) -> None:
    dataset, split = shop
    assert trained.record is not None
    for model in (replace(MODEL, seed=7), None):
        config = replace(trained.record.prompt, evidence_model=model)
        other = replace(trained, folder=None, record=replace(trained.record, prompt=config))
        with pytest.raises(LorarecError, match=r"different values of evidence_model \(EvidenceModelConfig.* cannot sh"):
            MixingPrompts(shared, [trained, other])
        with Ranker(shared, trained) as ranker, pytest.raises(LorarecError, match=r"trained with evidence_model=Evi"):
            ranker.score_cases(split.valid, dataset.titles, make_evidence(config, dataset, split))
    plain = replace(trained, record=replace(trained.record, prompt=config))
    with Ranker(shared, plain) as ranker, pytest.raises(LorarecError, match=r"trained with evidence_model=None, but"):
        ranker.score_cases(split.valid, dataset.titles, make_evidence(CONFIG, dataset, split))


def test_rows_of_one_evaluation_have_their_own_evidence(
    shared: Backbone, trained: Adapter, shop: tuple[Dataset, Split]
) -> None:
    assert trained.record is not None
    prompt = replace(trained.record.prompt, evidence_model=None)
    plain = replace(trained, record=replace(trained.record, prompt=prompt))
    scorers = adapter_scorers(shared, *shop, {"both": trained, "plain": plain, "again": trained})
    assert scorers["both"].evidence is scorers["again"].evidence
    assert [scorers[name].evidence.model for name in ("both", "plain")] == [MODEL, None]
    assert scorers["zero-shot"].evidence is None
    both, first, again = (scorers[name].score(shop[1].valid) for name in ("both", "plain", "again"))
    assert all(map(np.array_equal, both, again))
    assert not any(map(np.array_equal, both, first))
