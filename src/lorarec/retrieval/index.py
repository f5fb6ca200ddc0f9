"""The index: all sources of candidates over one catalogue, made once, kept in a folder, asked for any history."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix

from lorarec.data import HISTORY, ITEM, Dataset, histories_of, title_vectors
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, file_fingerprint, new_folder, read_json, versions, write_json
from lorarec.recommenders import NextItemConfig
from lorarec.retrieval.cooccurrence_source import CooccurrenceSource
from lorarec.retrieval.next_item_source import NextItemSource, fit_next_item_source
from lorarec.retrieval.rank_fusion import fuse, take_turns
from lorarec.retrieval.source import CandidateSource, PopularSource, recent
from lorarec.retrieval.title_source import TitleSource

NEXT, TOGETHER, TITLE, NEW, POPULAR = "next", "together", "title", "new", "popular"
KNOWN = "known"
#: How many known items, in the order of their sources' rankings fused, and how many new ones a round gives.
SHARES = {KNOWN: 9, NEW: 1}
#: Items of the history that a proposal names at most.
REASONS = 2
RECORD, ARRAYS = "index.json", "index.safetensors"


@dataclass(frozen=True)
class Proposal:
    """One candidate.

    Attributes:
        source: what ranked it highest: `next` (follows the history, says a next-item model), `together` (chosen by
            users who chose the history), `title` (similar words), `new` (similar words, and nobody has chosen it yet),
            `popular`.
        because: items of the history that it rests on, strongest first.
    """

    item_id: str
    source: str
    because: list[str]


class Index:
    """Proposes items of a whole catalogue for a history, from all its sources.

    The rankings of known items are fused. New items have a source of their own and every tenth place, so that they
    surface however many known ones there are. Popularity fills up.

    Args:
        items: item ids of the catalogue.
        chosen: (users, items) ones where a user chose an item.
        words: (items, words) title vectors.
        learnt: vectors of a next-item model, or None.
        record: what it was made of.

    Attributes:
        sources: name -> source.
        learnt: the source `next`, or None.
    """

    def __init__(
        self,
        items: Sequence[str],
        chosen: csr_matrix,
        words: csr_matrix,
        learnt: NextItemSource | None,
        record: dict[str, Any],
    ) -> None:
        self.items = items
        self.row = {item: row for row, item in enumerate(items)}
        self.record = record
        self._chosen, self._words, self.learnt = chosen, words, learnt
        counts = np.bincount(chosen.indices, minlength=len(items))
        self.sources: dict[str, CandidateSource] = {
            **({NEXT: learnt} if learnt else {}),
            TOGETHER: CooccurrenceSource(chosen),
            TITLE: TitleSource(words, np.flatnonzero(counts)),
            NEW: TitleSource(words, np.flatnonzero(counts == 0)),
            POPULAR: PopularSource(counts),
        }

    @classmethod
    def build(
        cls,
        dataset: Dataset,
        options: NextItemConfig | None = None,
        histories: pl.DataFrame | None = None,
        progress: bool = False,
    ) -> Self:
        """Make the index of a dataset.

        Args:
            options: of the next-item model; without it there is none, and the index is made in seconds.
            histories: user_id and history (item ids): what is learned from, when that is not all of the dataset but
                the training part of its split.
            progress: show a bar.
        """
        items = dataset.items[ITEM]
        lists = (histories_of(dataset.interactions) if histories is None else histories)[HISTORY]
        lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = lists.explode().drop_nulls().cast(pl.Enum(items)).to_physical().to_numpy().astype(np.int64)
        ends = np.cumsum(lengths)
        chosen = csr_matrix(
            (np.ones(len(flat), np.float32), flat.astype(np.int32), np.append(0, ends)), (len(lengths), len(items))
        )
        chosen.sum_duplicates()
        chosen.data[:] = 1
        words = title_vectors(list(dataset.titles.values())).astype(np.float32)
        learnt = (
            fit_next_item_source(np.split(flat, ends[:-1]), len(items), options, progress)
            if options and options.epochs
            else None
        )
        record = {
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "options": asdict(options) if learnt and options else None,
            "counts": {"items": len(items), "users": len(lengths), "interactions": len(flat)},
            "versions": versions(),
        }
        return cls(items.to_list(), chosen, words, learnt, record)

    def propose(self, history: Sequence[str], pool: int = 100, blocked: np.ndarray | None = None) -> list[Proposal]:
        """Candidates for a history, each once, best first, with new ones at every tenth place.

        Args:
            history: item ids in time order, of any user; those that the catalogue does not know are passed over.
            pool: how many at most; fewer where fewer are left.
            blocked: what must not be proposed besides the history, see `blocked`.
        """
        rows, unwanted = self._query(history, blocked)
        rankings = {name: source.find(rows, pool, unwanted).tolist() for name, source in self.sources.items()}
        known = fuse({name: rows for name, rows in rankings.items() if name not in (NEW, POPULAR)})
        rounds = {KNOWN: list(known), NEW: rankings[NEW], POPULAR: rankings[POPULAR]}
        turns = take_turns(rounds, SHARES, pool, fallback=POPULAR)
        found = {row: known.get(row, name) for row, name in turns.items()}
        because = self._because(recent(rows), found)
        return [Proposal(self.items[row], source, because[row]) for row, source in found.items()]

    def rank(self, source: str, history: Sequence[str], count: int) -> list[str]:
        """What one source alone finds, best first."""
        rows, unwanted = self._query(history, None)
        return [self.items[row] for row in self.sources[source].find(rows, count, unwanted)]

    def blocked(self, allow: Collection[str] | None = None, deny: Collection[str] = ()) -> np.ndarray:
        """(items,) True for items that are not allowed or that are denied; ids of no item are passed over.

        Args:
            allow: the only items that may be proposed; None for all.
            deny: items that must not be proposed: unwanted, or out of stock.
        """
        blocked = np.full(len(self.items), allow is not None)
        blocked[[self.row[item] for item in allow or () if item in self.row]] = False
        blocked[[self.row[item] for item in deny if item in self.row]] = True
        return blocked

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write a folder with the arrays as safetensors and the record as JSON, whole or not at all.

        Raises:
            LorarecError: `out` exists already or cannot be written to.
        """
        arrays = {**_parts("chosen", self._chosen), **_parts("words", self._words)}
        del arrays["chosen.data"]  # ones
        if self.learnt:
            arrays |= {f"learnt.{name}": tensor.contiguous() for name, tensor in self.learnt.arrays().items()}
        with new_folder(out, overwrite, FolderKind.INDEX) as folder:
            save_file(arrays, folder / ARRAYS)
            write_json(folder / RECORD, {**self.record, "fingerprint": file_fingerprint(folder / ARRAYS)})

    @classmethod
    def load(cls, folder: str | Path, dataset: Dataset) -> Self:
        """Read a folder that `save` wrote.

        Raises:
            LorarecError: it is missing or damaged, or was made of another dataset.
        """
        folder = Path(folder)
        if not (folder / RECORD).is_file():
            raise LorarecError(f"{folder} is not an index: make one with `lorarec index`")
        record = read_json(folder / RECORD)
        if not isinstance(record, dict) or not {"dataset_fingerprint", "options", "fingerprint"} <= record.keys():
            raise LorarecError(f"{folder / RECORD} does not describe an index: make it again with `lorarec index`")
        if record["dataset_fingerprint"] != dataset.fingerprint:
            raise LorarecError(
                f"index {folder} was made of {record.get('dataset')} ({record['dataset_fingerprint']}), not of "
                f"{dataset.name} ({dataset.fingerprint}): make it again with `lorarec index`"
            )
        items = dataset.items[ITEM].to_list()
        try:
            if file_fingerprint(folder / ARRAYS) != record["fingerprint"]:
                raise LorarecError(f"{folder / ARRAYS} is not what {RECORD} says: make it again with `lorarec index`")
            arrays = load_file(folder / ARRAYS)
            chosen, words = (_matrix(name, arrays) for name in ("chosen", "words"))
            options = record["options"] and NextItemConfig(**record["options"])
            learnt = NextItemSource.read(_under("learnt.", arrays), len(items), options) if options else None
        except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise LorarecError(f"index {folder} is damaged ({error}): make it again with `lorarec index`") from error
        return cls(items, chosen, words, learnt, record)

    def _query(self, history: Sequence[str], blocked: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the history's known items, and what must not be proposed: those and what is blocked."""
        rows = np.array([self.row[item] for item in history if item in self.row], np.int64)
        unwanted = np.zeros(len(self.items), bool) if blocked is None else blocked.copy()
        unwanted[rows] = True
        return rows, unwanted

    def _because(self, history: np.ndarray, found: dict[int, str]) -> dict[int, list[str]]:
        """Row -> the items of the history with the strongest ties to it."""
        because: dict[int, list[str]] = {}
        for name, source in self.sources.items():
            rows = [row for row, giver in found.items() if giver == name]
            ties = source.ties(history, np.array(rows, np.int64))
            strongest = np.argsort(-ties, axis=1, kind="stable")[:, :REASONS]
            for row, places, strengths in zip(rows, strongest, ties, strict=True):
                because[row] = [self.items[history[place]] for place in places if strengths[place] > 0]
        return because


def _parts(name: str, matrix: csr_matrix) -> dict[str, torch.Tensor]:
    """The arrays of a sparse matrix."""
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    parts |= {"width": np.array([matrix.shape[1]])}
    return {f"{name}.{part}": torch.from_numpy(array) for part, array in parts.items()}


def _matrix(name: str, arrays: dict[str, torch.Tensor]) -> csr_matrix:
    """The sparse matrix of such arrays; without data, of ones."""
    parts = {part: array.numpy() for part, array in _under(f"{name}.", arrays).items()}
    data = parts.get("data", np.ones(len(parts["indices"]), np.float32))
    return csr_matrix((data, parts["indices"], parts["indptr"]), (len(parts["indptr"]) - 1, int(parts["width"][0])))


def _under(prefix: str, arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
