"""Training tasks for the embedded backbone, made from item text and histories of general domains.

Every batch is a pure function of (seed, step), so that a resumed build sees the same data. Each task says how hard
it is by `progress` in [0, 1].

copy     a list of titles, then the same titles in another order; next-token loss on the repeat
history  a user's titles as running text; next-token loss
repeat   verdict or likelihood: the right candidate is a title of the list with a falling share of its tokens kept
related  verdict or likelihood: the right candidate is related (by words or meaning) to one or more titles of the list
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorarec.prompts import Example, PromptBuilder


@dataclass(frozen=True)
class Catalogue:
    """One general domain as the tasks need it.

    Attributes:
        titles: every item's title.
        neighbours: tables (titles, n) of related titles, -1 where there is none.
        histories: users' items as indices into `titles`, in time order.
    """

    titles: list[str]
    neighbours: tuple[np.ndarray, ...]
    histories: list[np.ndarray]


@dataclass(frozen=True)
class ChoiceBatch:
    """Prompts with candidates and the index of the right one (rows,)."""

    examples: list[Example]
    answers: np.ndarray
    builder: PromptBuilder


@dataclass(frozen=True)
class TextBatch:
    """Token ids with, for each row, the position from which tokens are predicted."""

    rows: list[list[int]]
    starts: list[int]


def copy_batch(
    rng: np.random.Generator, catalogues: Sequence[Catalogue], builder: PromptBuilder, rows: int
) -> TextBatch:
    """Lists of 4 to 9 titles and their shuffled repeat."""
    texts, starts = [], []
    for _ in range(rows):
        catalogue = catalogues[int(rng.integers(len(catalogues)))]
        chosen = rng.integers(len(catalogue.titles), size=rng.integers(4, 10))
        listed = [_line(builder, catalogue.titles[i]) for i in chosen]
        repeat = [listed[i] for i in rng.permutation(len(listed))]
        texts.append([token for line in listed + repeat for token in line])
        starts.append(sum(map(len, listed)))
    return TextBatch(texts, starts)


def history_batch(
    rng: np.random.Generator, catalogues: Sequence[Catalogue], builder: PromptBuilder, rows: int
) -> TextBatch:
    """Up to 12 successive titles of a user, in time order."""
    texts = []
    for _ in range(rows):
        catalogue = catalogues[int(rng.integers(len(catalogues)))]
        history = catalogue.histories[rng.integers(len(catalogue.histories))]
        start = rng.integers(max(1, len(history) - 11))
        lines = [_line(builder, catalogue.titles[i]) for i in history[start : start + 12]]
        texts.append([token for line in lines for token in line])
    return TextBatch(texts, [1] * rows)


def repeat_batch(
    rng: np.random.Generator, catalogues: Sequence[Catalogue], builder: PromptBuilder, rows: int, progress: float
) -> ChoiceBatch:
    """The right candidate repeats a title of the list with 100% falling to 25% of its words kept."""
    examples: list[Example] = []
    answers: list[int] = []
    for _ in range(rows):
        catalogue = catalogues[int(rng.integers(len(catalogues)))]
        count, wrong = rng.integers(3, 10), rng.integers(9, 16)
        items = rng.integers(len(catalogue.titles), size=count + wrong + 1)
        titles = [catalogue.titles[i] for i in items]
        keep = 1 - 0.75 * progress * rng.random()
        right = _noisy(rng, titles[rng.integers(count)], titles[-1], keep)
        _add(rng, builder, titles[:count], right, titles[count:-1], examples, answers)
    return ChoiceBatch(examples, np.array(answers), builder)


def related_batch(
    rng: np.random.Generator, catalogues: Sequence[Catalogue], builder: PromptBuilder, rows: int, progress: float
) -> ChoiceBatch:
    """The right candidate is a neighbour of an anchor; the list holds other neighbours of it and unrelated titles.

    The share of related titles in the list falls from most of them to a few.
    """
    examples: list[Example] = []
    answers: list[int] = []
    while len(examples) < rows:
        catalogue = catalogues[int(rng.integers(len(catalogues)))]
        anchor = rng.integers(len(catalogue.titles))
        table = catalogue.neighbours[rng.integers(len(catalogue.neighbours))]
        near = table[anchor][table[anchor] >= 0]
        if len(near) < 3:
            continue
        near = rng.permutation(near)
        count, wrong = int(rng.integers(4, 11)), int(rng.integers(9, 16))
        related = int(rng.integers(1, max(2, round(count * (1 - 0.5 * progress)))))
        items = [int(anchor), *near[1:related]]
        others = [int(i) for i in rng.integers(len(catalogue.titles), size=count + wrong) if i not in near]
        history = rng.permutation([*items, *others[: max(0, count - len(items))]])
        wrongs = [catalogue.titles[i] for i in others[-wrong:]]
        right = catalogue.titles[near[0]]
        _add(rng, builder, [catalogue.titles[i] for i in history], right, wrongs, examples, answers)
    return ChoiceBatch(examples, np.array(answers), builder)


def _add(
    rng: np.random.Generator,
    builder: PromptBuilder,
    history: list[str],
    right: str,
    wrong: list[str],
    examples: list[Example],
    answers: list[int],
) -> None:
    place = int(rng.integers(len(wrong) + 1))
    examples.append(builder.example(history, [*wrong[:place], right, *wrong[place:]]))
    answers.append(place)


def _noisy(rng: np.random.Generator, title: str, other: str, keep: float) -> str:
    """Keep a share of the words of `title`, at least one; the gaps take words of `other`."""
    words, spare = title.split(), other.split()
    kept = rng.random(len(words)) < keep
    kept[rng.integers(len(words))] = True
    return " ".join(word if stays else spare[rng.integers(len(spare))] for word, stays in zip(words, kept, strict=True))


def _line(builder: PromptBuilder, title: str) -> list[int]:
    title_ids = builder.tokens(f" {title}", builder.max_title_tokens)
    return [*builder.tokens("-"), *title_ids, *builder.tokens("\n")]
