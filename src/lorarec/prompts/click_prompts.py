"""Events of a click log as prompts: who the user is, what it rated, and one title with genres: yes or no?"""

import re

import numpy as np

from lorarec.data import TITLE, ClickLog
from lorarec.prompts.builder import Example, PromptBuilder

#: Columns of users that identify and do not describe, such as user_id and zip_code: no text for a language model.
_IDS = re.compile(r"(^|_)(id|code)$")


def click_examples(log: ClickLog, events: np.ndarray, histories: np.ndarray, builder: PromptBuilder) -> list[Example]:
    """One prompt with one branch, the target's title, for each event.

    Args:
        events: (n,) events of the log.
        histories: (n, k) the events shown as history, in time order, -1 where there are no more.
        builder: with the bundled template `click` or one that reads the same.

    Raises:
        LorarecError: a prompt exceeds the builder's limit with no history at all.
    """
    titles = log.dataset.items[TITLE].to_list()
    told, kinds = profiles(log), genres(log)
    examples = []
    for event, history in zip(events, histories, strict=True):
        past = history[history >= 0]
        shown, target = [titles[item] for item in log.item[past]], log.item[event]
        stars = [_stars(rating) for rating in log.rating[past]]
        examples.append(builder.example(shown, [titles[target]], stars, told[log.user[event]], [kinds[target]]))
    return examples


def _stars(rating: float) -> str:
    return "1 star" if rating == 1 else f"{rating:g} stars"


def genres(log: ClickLog) -> list[str]:
    """The genres of each item, as "Drama, War"; nothing for those without."""
    items = log.dataset.items
    return items["genres"].fill_null("").to_list() if "genres" in items.columns else [""] * len(items)


def profiles(log: ClickLog) -> list[str]:
    """What is known of each user, as "gender F, age 25"; nothing for those without a profile."""
    table = log.profiles
    names = [name for name in table.columns if not _IDS.search(name)]
    return [
        ", ".join(f"{name} {value}" for name, value in row.items() if value not in (None, ""))
        for row in (table.select(names).iter_rows(named=True) if names else [{}] * len(table))
    ]
