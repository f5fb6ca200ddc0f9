"""The exact prompt that the model reads when it scores an item for a user."""

from dataclasses import dataclass

import polars as pl
from transformers import PreTrainedTokenizerBase

from lorarec.data import CANDIDATES, HISTORY, USER, Dataset
from lorarec.lora import Adapter, prompt_config
from lorarec.prompts import PromptBuilder, PromptToken, case_examples, show_text, show_tokens
from lorarec.ranking.explanation import compared_items
from lorarec.recommenders import make_evidence
from lorarec.retrieval import Index


@dataclass(frozen=True)
class UserPrompt:
    """A prompt followed by the branch of one candidate.

    Attributes:
        user_id: The user's id.
        item_id: The candidate's id.
        title: The candidate's title.
        readout: The readout of scores, `verdict` or `likelihood`.
        template: The name of the template.
        chat: Whether the prompt is in the tokenizer's chat template.
        text: The parts of the text, each with whether it consists of control tokens.
        tokens: All tokens; the last `branch_tokens` of them are the branch.
        branch_tokens: The number of tokens of the branch.
        answers: The tokens for yes and no, whose log-odds `verdict` reads next; empty for `likelihood`.
    """

    user_id: str
    item_id: str
    title: str
    readout: str
    template: str
    chat: bool
    text: list[tuple[str, bool]]
    tokens: list[PromptToken]
    branch_tokens: int
    answers: list[PromptToken]


def user_prompt(
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter | None,
    dataset: Dataset,
    user: str,
    item: str | None = None,
    pool: int = 100,
    index: Index | None = None,
) -> UserPrompt:
    """Build the prompt with which `recommend` and `explain` score an item.

    Args:
        tokenizer: The tokenizer of the backbone.
        adapter: The adapter whose prompt settings are used; if None, the defaults.
        dataset: The dataset.
        user: A user id of the dataset.
        item: An item id that is not in the user's history; if None, the first item that the index proposes.
        pool, index: As for `explain`.

    Raises:
        LorarecError: The user or the item is unknown, the item is in the user's history, nothing is left to recommend,
            or the template, chat template or tokenizer cannot be used.
    """
    config = prompt_config(adapter)
    builder = PromptBuilder(tokenizer, config.readout, config.template, config.max_tokens, config.max_title_tokens)
    history, candidates = compared_items(dataset, user, item, pool, index)
    case = pl.DataFrame({USER: [user], HISTORY: [history], CANDIDATES: [candidates]})
    evidence = make_evidence(config, dataset)
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
