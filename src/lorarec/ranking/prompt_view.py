"""The exact prompt with which an item is scored for a user."""

from dataclasses import dataclass

import polars as pl
from transformers import PreTrainedTokenizerBase

from lorarec.data import CANDIDATES, HISTORY, USER, Dataset
from lorarec.lora import Adapter, prompt_config
from lorarec.prompts import PromptBuilder, ShownToken, case_examples, show_text, show_tokens
from lorarec.ranking.explanation import compared_items
from lorarec.ranking.recommendation import whole_evidence
from lorarec.retrieval import Index


@dataclass(frozen=True)
class UserPrompt:
    """A prompt followed by the branch of one candidate.

    Attributes:
        readout: how scores are read: `verdict` or `likelihood`.
        template: a file or the name of a bundled template.
        chat: whether the prompt is in the tokenizer's chat template.
        text: the text in parts, each with whether it consists of control tokens.
        tokens: all tokens; the last `branch_tokens` of them are the branch.
        answers: the tokens for yes and no, whose log-odds `verdict` reads next; empty for `likelihood`.
    """

    user_id: str
    item_id: str
    title: str
    readout: str
    template: str
    chat: bool
    text: list[tuple[str, bool]]
    tokens: list[ShownToken]
    branch_tokens: int
    answers: list[ShownToken]


def user_prompt(
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter | None,
    dataset: Dataset,
    user: str,
    item: str | None = None,
    pool: int = 100,
    index: Index | None = None,
) -> UserPrompt:
    """Build the prompt that `recommend` and `explain` score an item with.

    Args:
        tokenizer: the tokenizer of the backbone.
        adapter: the adapter whose prompt settings are used; if None, the defaults.
        item: an item id outside the user's history; if None, the first item that the index proposes.
        pool, index: as for `explain`.

    Raises:
        LorarecError: an unknown user or item, an item of the user's own history, nothing left to recommend, or a
            template, chat template or tokenizer that cannot be used.
    """
    config = prompt_config(adapter)
    builder = PromptBuilder(tokenizer, config.readout, config.template, config.max_tokens, config.max_title_tokens)
    history, candidates = compared_items(dataset, user, item, pool, index)
    case = pl.DataFrame({USER: [user], HISTORY: [history], CANDIDATES: [candidates]})
    evidence = whole_evidence(dataset) if config.evidence else None
    example = case_examples(case, dataset.titles, builder, config.max_history, evidence)[0]
    chosen = candidates[0] if item is None else item
    branch = example.branches[candidates.index(chosen)]
    ids = [*example.prompt, *branch]
    return UserPrompt(
        user_id=user,
        item_id=chosen,
        title=dataset.titles[chosen],
        readout=builder.readout,
        template=builder.template.name,
        chat=builder.template.chat is not None,
        text=show_text(builder, ids),
        tokens=show_tokens(builder, ids),
        branch_tokens=len(branch),
        answers=show_tokens(builder, builder.yes_no) if builder.readout == "verdict" else [],
    )
