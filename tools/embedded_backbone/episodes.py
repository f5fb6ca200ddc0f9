"""Training tasks of the embedded backbone, made from item titles and histories of general domains.

Every batch is a pure function of (seed, step), so that a resumed build sees the same data. The difficulty of a task
grows with `progress` in [0, 1].

copy     a list of titles, then the same titles in another order; next-token loss on the repeat
history  a user's titles as running text; next-token loss
repeat   verdict or likelihood: the right candidate is a title of the list with a falling share of its words
related  verdict or likelihood: a few candidates are related (by words or meaning) to titles of the list; the target is
         how well each candidate fits the list, judged by the texts alone
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorarec.prompts import Example, PromptBuilder
from tools.embedded_backbone.relations import Relations

#: Temperature of the softmax that makes a distribution over candidates from similarities of texts.
TEMPERATURE = 0.03


@dataclass(frozen=True)
class Catalogue:
    """A general domain.

    Attributes:
        titles: Titles of all items.
        relations: Similarities of the titles.
        histories: Items of each user in time order, as indices into `titles`.
    """

    titles: list[str]
    relations: Relations
    histories: list[np.ndarray]


@dataclass(frozen=True)
class ChoiceBatch:
    """Prompts with candidates.

    Attributes:
        examples: Prompts with their candidates.
        targets: (candidates,) Probability that each candidate is the right one, for each prompt.
        builder: Prompt builder of the examples.
    """

    examples: list[Example]
    targets: list[np.ndarray]
    builder: PromptBuilder


@dataclass(frozen=True)
class TextBatch:
    """Running texts.

    Attributes:
        rows: Token ids of each text.
        starts: First position of each text at which a token is predicted.
    """

    rows: list[list[int]]
    starts: list[int]


def copy_batch(
    rng: np.random.Generator, catalogues: Sequence[Catalogue], builder: PromptBuilder, rows: int
) -> TextBatch:
    """Return lists of 4 to 9 titles, each followed by the same titles in another order."""
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
    """Return texts of up to 12 successive titles of a user, in time order."""
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
    """Return prompts whose right candidate is a title of the list; it has 100%, falling to 25%, of its words."""
    batch = ChoiceBatch([], [], builder)
    for _ in range(rows):
        catalogue = catalogues[int(rng.integers(len(catalogues)))]
        count, wrong = int(rng.integers(3, 10)), int(rng.integers(9, 16))
        items = rng.integers(len(catalogue.titles), size=count + wrong + 1)
        titles = [catalogue.titles[i] for i in items]
        keep = 1 - 0.75 * progress * rng.random()
        right = _noisy(rng, titles[rng.integers(count)], titles[-1], keep)
        _add(rng, batch, titles[:count], [right, *titles[count:-1]], np.eye(wrong + 1)[0])
    return batch


def related_batch(
    rng: np.random.Generator, catalogues: Sequence[Catalogue], builder: PromptBuilder, rows: int, progress: float
) -> ChoiceBatch:
    """Return prompts with one to three candidates that are neighbours of listed titles among random candidates.

    Half of the lists are pieces of histories. The other lists hold neighbours of one title and unrelated titles; the
    share of neighbours falls from most of the list to a few.
    """
    batch = ChoiceBatch([], [], builder)
    while len(batch.examples) < rows:
        catalogue = catalogues[int(rng.integers(len(catalogues)))]
        table = catalogue.relations.neighbours[rng.integers(len(catalogue.relations.neighbours))]
        count, wrong = int(rng.integers(4, 11)), int(rng.integers(9, 14))
        listed = _piece(rng, catalogue, count) if rng.random() < 0.5 else _gathered(rng, table, count, progress)
        near = np.setdiff1d(table[listed], [-1, *listed])
        if not len(near):
            continue
        related = rng.permutation(near)[: rng.integers(1, 4)]
        candidates = np.concatenate([related, rng.integers(len(catalogue.titles), size=wrong)])
        fit = catalogue.relations.similarity(candidates, listed) / TEMPERATURE
        target = np.exp(fit - fit.max())
        titles = catalogue.titles
        _add(rng, batch, [titles[i] for i in listed], [titles[i] for i in candidates], target / target.sum())
    return batch


def _piece(rng: np.random.Generator, catalogue: Catalogue, count: int) -> np.ndarray:
    """Return up to `count` successive items of a user."""
    history = catalogue.histories[rng.integers(len(catalogue.histories))]
    start = rng.integers(max(1, len(history) - count + 1))
    return history[start : start + count]


def _gathered(rng: np.random.Generator, table: np.ndarray, count: int, progress: float) -> np.ndarray:
    """Return `count` items in random order; some of them are an item and its neighbours."""
    anchor = rng.integers(len(table))
    near = rng.permutation(table[anchor][table[anchor] >= 0])
    related = int(rng.integers(1, max(2, round(count * (1 - 0.5 * progress)))))
    items = np.concatenate([[anchor], near[: related - 1]])
    return rng.permutation(np.concatenate([items, rng.integers(len(table), size=count - len(items))]))


def _add(
    rng: np.random.Generator, batch: ChoiceBatch, history: list[str], candidates: list[str], target: np.ndarray
) -> None:
    order = rng.permutation(len(candidates))
    batch.examples.append(batch.builder.example(history, [candidates[i] for i in order]))
    batch.targets.append(target[order])


def _noisy(rng: np.random.Generator, title: str, other: str, keep: float) -> str:
    """Replace words of a title by words of another title; a share of the words, at least one, remains."""
    words, spare = title.split(), other.split()
    keep_word = rng.random(len(words)) < keep
    keep_word[rng.integers(len(words))] = True
    return " ".join(
        word if stays else spare[rng.integers(len(spare))] for word, stays in zip(words, keep_word, strict=True)
    )


def _line(builder: PromptBuilder, title: str) -> list[int]:
    return [*builder.text("-"), *builder.title(title), *builder.text("\n")]
