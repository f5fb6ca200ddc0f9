"""Cases of a split and events of a click log as prompts."""

import re
from collections.abc import Mapping

import numpy as np
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, TARGET, TITLE, USER, ClickLog, Evidence
from lorarec.prompts.builder import Example, PromptBuilder

#: Columns of users that identify instead of describe, such as user_id and zip_code, and are left out of profiles.
_IDS = re.compile(r"(^|_)(id|code)$")


def case_examples(
    cases: pl.DataFrame,
    titles: Mapping[str, str],
    builder: PromptBuilder,
    max_history: int,
    evidence: Evidence | None = None,
) -> list[Example]:
    """Build a prompt for each case of a split, with the candidates as branches.

    Args:
        cases: The columns user_id, history and candidates (item ids).
        titles: The title of each item by its id.
        builder: The builder of the prompts.
        max_history: Number of latest items of the history in a prompt.
        evidence: Evidence from which candidates get hints; without it there are none.

    Raises:
        LorarecError: A prompt exceeds the builder's limit even without a history.
    """
    examples = []
    for user, history, candidates in cases.select(USER, HISTORY, CANDIDATES).iter_rows():
        latest = history[-max_history:]
        hints = evidence.hints(history, candidates, user, max_history=max_history) if evidence else ()
        examples.append(
            builder.example([titles[item] for item in latest], [titles[item] for item in candidates], hints=hints)
        )
    return examples


def true_places(cases: pl.DataFrame) -> list[int]:
    """Return the index of each case's target among its candidates."""
    return [candidates.index(target) for target, candidates in cases.select(TARGET, CANDIDATES).iter_rows()]


def click_examples(log: ClickLog, events: np.ndarray, histories: np.ndarray, builder: PromptBuilder) -> list[Example]:
    """Build a prompt with one branch, the title of the target, for each event of a click log.

    Args:
        log: The click log.
        events: Indices (n,) of the events.
        histories: Indices (n, k) of the events in the history, in time order, padded with -1 at the end.
        builder: A builder with the bundled template `click` or one with the same variables.

    Raises:
        LorarecError: A prompt exceeds the builder's limit even without a history.
    """
    titles = log.dataset.items[TITLE].to_list()
    user_profiles, item_genres = profiles(log), genres(log)
    examples = []
    for event, history in zip(events, histories, strict=True):
        past = history[history >= 0]
        past_titles, target = [titles[item] for item in log.item[past]], log.item[event]
        stars = [_stars(rating) for rating in log.rating[past]]
        profile = user_profiles[log.user[event]]
        examples.append(builder.example(past_titles, [titles[target]], stars, profile, [item_genres[target]]))
    return examples


def genres(log: ClickLog) -> list[str]:
    """Return the genres of each item as text ("Drama, War"), which is empty where they are unknown."""
    items = log.dataset.items
    return items["genres"].fill_null("").to_list() if "genres" in items.columns else [""] * len(items)


def profiles(log: ClickLog) -> list[str]:
    """Return the profile of each user as text ("gender F, age 25"), which is empty where nothing is known."""
    table = log.profiles
    names = [name for name in table.columns if not _IDS.search(name)]
    return [
        ", ".join(f"{name} {value}" for name, value in row.items() if value not in (None, ""))
        for row in (table.select(names).iter_rows(named=True) if names else [{}] * len(table))
    ]


def _stars(rating: float) -> str:
    return "1 star" if rating == 1 else f"{rating:g} stars"
