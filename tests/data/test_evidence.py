"""Options of the model whose words prompts have, and hints that have words of two sources."""

from typing import Any

import pytest

from lorarec.data import EvidenceModelConfig, JointEvidence
from lorarec.data.evidence import read_evidence_model
from lorarec.errors import LorarecError
from lorarec.prompts import PromptConfig
from lorarec.training import TrainingConfig


class Fixed:
    """Evidence that says the same in every call."""

    def __init__(self, hints: list[str]) -> None:
        self._hints = hints

    def hints(self, *_: Any) -> list[str]:
        return self._hints


@pytest.mark.parametrize(
    ("one", "other", "joined"),
    [
        ("often", "usually", "often, usually"),
        ("", "usually", "rarely, usually"),
        ("always", "", "always, rarely"),
        ("", "", ""),
        ("new, often", "usually", "new, often, usually"),
        ("new, often", "new, mostly", "new, often, mostly"),
        ("often", "new", "new, often, rarely"),
        ("new", "usually", "new, rarely, usually"),
        ("new", "", "new"),
        ("new", "new", "new"),
    ],
)
def test_hints_have_the_words_of_both_sources(one: str, other: str, joined: str) -> None:
    evidence = JointEvidence(Fixed([one]), Fixed([other]), EvidenceModelConfig())
    assert evidence.hints(["a"], ["b"]) == [joined]


SMALL = EvidenceModelConfig(epochs=2, dropout=0.0)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("sasrec", EvidenceModelConfig()),
        ({"epochs": 2, "dropout": 0}, SMALL),
        ("{epochs: 2, dropout: 0}", SMALL),
        ("{'epochs': 2, 'dropout': 0}", SMALL),
        ('{"epochs": 2, "dropout": 0}', SMALL),
        (SMALL, SMALL),
        (None, None),
    ],
)
def test_the_option_is_read_from_text_and_mappings(value: Any, read: EvidenceModelConfig | None) -> None:
    assert read_evidence_model(value) == read
    assert PromptConfig(evidence=True, evidence_model=value).evidence_model == read
    assert TrainingConfig(evidence_model=value).prompt.evidence_model == read
    assert hash(TrainingConfig(evidence_model=value)) == hash(TrainingConfig(evidence_model=read))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("bert4rec", r"option evidence_model must be sasrec or .* got 'bert4rec'"),
        ("{", r"option evidence_model must be sasrec or .* got '{'"),
        (3, r"option evidence_model must be sasrec or .* got 3"),
        (True, r"option evidence_model must be sasrec or .* got True"),
        ({"layers": 2}, r"option evidence_model: unknown option 'layers': choose from batch_size, dropout, epochs"),
        ({"epochs": "many"}, r"option evidence_model: option epochs must be int, got 'many'"),
        ({"epochs": 0}, r"option evidence_model: .*epochs must be at least 1, got 0"),
        ({"epochs": 10**6}, r"option evidence_model: option epochs must be at most 1000, got 1000000"),
        ({"dropout": 1}, r"option evidence_model: option dropout must be in \[0, 1\), got 1"),
    ],
)
def test_unusable_values_are_refused(value: Any, message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        PromptConfig(evidence=True, evidence_model=value)


def test_a_model_without_evidence_is_refused() -> None:
    with pytest.raises(LorarecError, match="evidence_model adds a word to evidence: use it with evidence=True"):
        TrainingConfig(evidence=False, evidence_model="sasrec")
