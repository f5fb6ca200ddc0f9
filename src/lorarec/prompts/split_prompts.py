"""Rows of a split as prompts."""

import polars as pl

from lorarec.data import CANDIDATES, HISTORY, TARGET, USER, Cooccurrence
from lorarec.prompts.builder import Example, PromptBuilder


def case_examples(
    cases: pl.DataFrame,
    titles: dict[str, str],
    builder: PromptBuilder,
    max_history: int,
    evidence: Cooccurrence | None = None,
) -> list[Example]:
    """One prompt for each row, with its candidates as branches.

    Args:
        cases: user_id, history and candidates (item ids).
        titles: item id -> title.
        max_history: the latest items of a history that are shown.
        evidence: what other users' histories say about the candidates; nothing is told without.

    Raises:
        LorarecError: a prompt exceeds the builder's limit with no history at all.
    """
    examples = []
    for user, history, candidates in cases.select(USER, HISTORY, CANDIDATES).iter_rows():
        shown = history[-max_history:]
        hints = evidence.hints(shown, candidates, user) if evidence else ()
        examples.append(
            builder.example([titles[item] for item in shown], [titles[item] for item in candidates], hints=hints)
        )
    return examples


def true_places(cases: pl.DataFrame) -> list[int]:
    """The index of each case's target among its candidates."""
    return [candidates.index(target) for target, candidates in cases.select(TARGET, CANDIDATES).iter_rows()]
