"""The Long-Short Modality Retriever of RecLoRA (arXiv 2408.03533): past behaviours that are similar to a target item.

It retrieves both histories: a long one of ids for the click-through model and a short one of texts for the language
model.
"""

from collections.abc import Iterator
from hashlib import sha256

import numpy as np
import torch
from torch.nn.functional import normalize

from lorarec.errors import LorarecError

PADDING = -1
#: Number of queries of one user that read the history together, and maximum number of floats in memory at once.
TILE, BUDGET = 16, 1 << 24


class Retriever:
    """Retrieve rows of a click log that are strictly before the time of a query; later rows are never read.

    Args:
        user: Numbers of the users, one per row of the log, in any order (n,).
        item: Rows of `embeddings` (n,).
        time: Timestamps (n,); rows of one user at the same time keep their order.
        embeddings: Item vectors of any length (items, size), compared by cosine.

    Raises:
        LorarecError: The arrays have different lengths, an item has no embedding, or an embedding is not finite.
    """

    def __init__(self, user: np.ndarray, item: np.ndarray, time: np.ndarray, embeddings: np.ndarray) -> None:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused
            embeddings = np.asarray(embeddings, np.float32)
        if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
            raise LorarecError("embeddings must be finite numbers of shape (items, size)")
        self._embeddings = normalize(torch.from_numpy(embeddings), dim=1)
        self._check(user, item, time)
        self._order = np.lexsort((time, user))
        self._item = torch.from_numpy(np.asarray(item, np.int64)[self._order])
        self._moments, moment = np.unique(time, return_inverse=True)
        self._keys = (np.asarray(user, np.int64) * (len(self._moments) + 1) + moment)[self._order]
        self._first = torch.from_numpy(_first_alike(np.asarray(user)[self._order], self._item.numpy(), embeddings))

    def similar(self, user: np.ndarray, item: np.ndarray, time: np.ndarray, k: int) -> np.ndarray:
        """Return the k earlier behaviours of each user whose items are most similar to the target item.

        The search is exact: every behaviour is compared. Of equally similar ones the later are taken. Besides the
        result, memory is bounded by 64 MiB of vectors or those of the longest single history, and a few times that for
        similarities.

        Args:
            user: Numbers of the users (q,); a user who is not in the log has no history.
            item: Target items, rows of the embeddings (q,).
            time: Timestamps (q,).
            k: Maximum number of behaviours.

        Returns:
            Row numbers of the log (q, k) in time order, padded on the right with -1.

        Raises:
            LorarecError: The arrays have different lengths, an item has no embedding, or k is less than 1.
        """
        self._check(user, item, time)
        begin, end = self._spans(user, time)
        positions = _last(begin, end, _positive(k))
        target = torch.from_numpy(np.asarray(item, np.int64))
        for queries in _tiles(begin, end, k, self._embeddings.shape[1]):
            places = self._nearest(target[queries], end[queries] - begin[queries], begin[queries[:, 0]], k)
            positions[queries] = begin[queries][..., None] + places.numpy()
        return self._rows(positions)

    def _nearest(self, target: torch.Tensor, length: np.ndarray, begin: np.ndarray, k: int) -> torch.Tensor:
        """Return positions (tiles, queries, k) in histories of more than k rows, which begin at `begin` (tiles,)."""
        place = torch.arange(int(length.max()))
        rows = (torch.from_numpy(begin)[:, None] + place).clamp(max=len(self._item) - 1)
        similarity = self._embeddings[target] @ self._embeddings[self._item[rows]].mT
        # The rounding of a product depends on its place in the matrix, so that equal vectors take the first one's.
        first = (self._first[rows] - torch.from_numpy(begin)[:, None]).clamp(max=len(place) - 1)
        similarity = similarity.gather(2, first[:, None].expand_as(similarity))
        # The bits of floats are in the order of their values once those of negative ones are inverted (adding zero
        # turns -0 into 0). The position in the lower bits decides between equal values, so that all keys differ.
        bits = (similarity + 0.0).view(torch.int32)
        keys = ((bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 32) | place
        keys.masked_fill_(place >= torch.from_numpy(length)[..., None], torch.iinfo(torch.int64).min)
        return (keys.topk(k, sorted=False).values & 0xFFFFFFFF).sort().values

    def _spans(self, user: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where each history begins and ends (exclusive) in the log sorted by user and time."""
        first = np.asarray(user, np.int64) * (len(self._moments) + 1)
        begin = np.searchsorted(self._keys, first)
        return begin, np.searchsorted(self._keys, first + np.searchsorted(self._moments, time))

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        """Return row numbers of the log as it was given."""
        return np.where(positions == PADDING, PADDING, np.append(self._order, PADDING)[positions])

    def _check(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> None:
        if not len(user) == len(item) == len(time):
            raise LorarecError(f"{len(user)} users, {len(item)} items and {len(time)} timestamps: give one each")
        known = len(self._embeddings)
        if len(item) and not 0 <= np.min(item) <= np.max(item) < known:
            unknown = next(i for i in item if not 0 <= i < known)
            raise LorarecError(f"item {unknown} has no embedding: there are {known}")


def _first_alike(user: np.ndarray, item: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Return for each row of a log that is sorted by user the first one of its user whose item has an equal vector.

    Args:
        user: Numbers of the users (n,).
        item: Rows of `embeddings` (n,).
        embeddings: Item vectors (items, size).
    """
    vectors = embeddings + 0.0  # adding zero turns -0 into 0
    different: dict[bytes, int] = {}
    numbers = [different.setdefault(sha256(vector.tobytes()).digest(), len(different)) for vector in vectors]
    pairs = np.asarray(user, np.int64) * len(vectors) + np.array(numbers, np.int64)[item]
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    return first[inverse]


def _positive(k: int) -> int:
    if k < 1:
        raise LorarecError(f"the number of behaviours must be at least 1, got {k}")
    return k


def _last(begin: np.ndarray, end: np.ndarray, k: int) -> np.ndarray:
    """Return the last k positions of each span (q, k), padded on the right with -1."""
    places = np.maximum(begin, end - k)[:, None] + np.arange(k)
    return np.where(places < end[:, None], places, PADDING)


def _tiles(begin: np.ndarray, end: np.ndarray, k: int, width: int) -> Iterator[np.ndarray]:
    """Yield batches (tiles, queries) of the queries whose history is longer than k.

    A tile contains queries of one user, which share the history's vectors. Tiles of a batch have the same number of
    queries and histories of similar length, so that there is little padding.
    """
    queries = np.flatnonzero(end - begin > k)
    queries = queries[np.lexsort((end[queries], begin[queries]))]
    users = np.flatnonzero(np.diff(begin[queries], prepend=-1))
    number = np.arange(len(queries)) - np.repeat(users, np.diff(users, append=len(queries)))
    first = np.flatnonzero(number % TILE == 0)
    count = np.diff(first, append=len(queries))
    last = queries[first + count - 1]
    length = end[last] - begin[last]
    order = np.lexsort((length, count))
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order):
            tile = order[stop]
            floats = (stop + 1 - start) * length[tile] * (width + count[tile])
            if count[tile] == count[order[start]] and floats <= BUDGET:
                continue
        batch = order[start:stop]
        yield queries[first[batch][:, None] + np.arange(count[batch[0]])]
        start = stop
