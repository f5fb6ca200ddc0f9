"""The retrieval index: candidates of a whole catalogue for any history, from several sources."""

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

from lorarec.backbone import SentenceEncoder
from lorarec.data import HISTORY, ITEM, Dataset, histories_of, title_vectors
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, file_fingerprint, new_folder, read_json, versions, write_json
from lorarec.recommenders import (
    NextItemConfig,
    NextItemModel,
    centre,
    encode_lists,
    encode_titles,
    interaction_matrix,
)
from lorarec.retrieval.cooccurrence_source import CooccurrenceSource
from lorarec.retrieval.nearest import cells
from lorarec.retrieval.next_item_source import NextItemSource, fit_next_item_source, new_next_item_source
from lorarec.retrieval.rank_fusion import fuse, interleave
from lorarec.retrieval.rules_source import RulesSource
from lorarec.retrieval.source import CandidateSource, PopularSource, latest_items
from lorarec.retrieval.sparse_tensors import sparse_matrix, sparse_tensors, with_prefix
from lorarec.retrieval.title_source import EmbeddingSource, TitleEmbeddings, TitleSource

NEXT, RULES, TOGETHER, TITLE, NEW, POPULAR = "next", "rules", "together", "title", "new", "popular"
KNOWN = "known"
#: Number of known items (by the fused rankings of their sources) and of new items in a round of the interleaving.
QUOTAS = {KNOWN: 9, NEW: 1}
#: Weights in the fused ranking that are not 1, of the sources that read the order of the history. They were chosen on
#: validation cases; an index without rules, as version 0.1.0 built it, has equal weights.
WEIGHTS = {NEXT: 2.0, RULES: 2.0}
#: Version of the code. It goes up when the same data and options give other proposals.
INDEX_VERSION = 2
#: Maximum number of history items that a proposal names as its reason.
MAX_REASONS = 2
RECORD, ARRAYS = "index.json", "index.safetensors"
#: Names that options of the next-item model had in version 0.1.0.
_FORMER_NAMES = {
    "sequence": "encoder",
    "width": "hidden_size",
    "depth": "num_layers",
    "longest": "max_history",
    "batch": "batch_size",
    "lr": "learning_rate",
}


@dataclass(frozen=True)
class Proposal:
    """A candidate that the index proposes.

    Attributes:
        item_id: Id of the item.
        source: Name of the source that ranked it highest: `next` (a next-item model), `together` (co-occurrence with
            the history), `rules` (often soon after items of the history), `title` (similar title), `new` (similar
            title, and no interactions yet) or `popular`.
        because: Ids of the history items that contribute most to its score, the most important first.
    """

    item_id: str
    source: str
    because: list[str]


class Index:
    """Retrieve candidates of a whole catalogue for any history.

    The rankings of known items are fused. New items (without interactions) have a source and every tenth place of their
    own, so that some are retrieved however many known items there are. Popularity is the fallback.

    Args:
        items: Item ids of the catalogue.
        chosen: Binary matrix (users, items) of the items that each user chose.
        titles: Sparse TF-IDF vectors of the titles (items, words), or their centred embeddings.
        next_item: Source of items by a next-item model, or None.
        rules: Source of items by sequential rules, or None.
        record: Description of the index for index.json.

    Attributes:
        sources: Sources by name.
        next_item: Source of items by a next-item model, or None.

    Examples:
        >>> from lorarec import Dataset, Index
        >>> shop = Dataset.load("data/shop")
        >>> index = Index.build(shop)
        >>> proposals = index.propose(shop.interactions["item_id"][:3].to_list(), pool=20)
        >>> len(proposals)
        20
    """

    def __init__(
        self,
        items: Sequence[str],
        chosen: csr_matrix,
        titles: csr_matrix | TitleEmbeddings,
        next_item: NextItemSource | None,
        rules: RulesSource | None,
        record: dict[str, Any],
    ) -> None:
        self.items = items
        self.row = {item: row for row, item in enumerate(items)}
        self.record = record
        self._chosen, self._titles, self.next_item, self._rules = chosen, titles, next_item, rules
        counts = np.bincount(chosen.indices, minlength=len(items))
        self.sources: dict[str, CandidateSource] = {
            **({NEXT: next_item} if next_item else {}),
            TOGETHER: CooccurrenceSource(chosen),
            **({RULES: rules} if rules else {}),
            **{name: _title_source(name, titles, rows) for name, rows in _rows_of_title_sources(counts).items()},
            POPULAR: PopularSource(counts),
        }

    @classmethod
    def build(
        cls,
        dataset: Dataset,
        config: NextItemConfig | None = None,
        histories: pl.DataFrame | None = None,
        *,
        model: NextItemModel | None = None,
        rules: bool = True,
        text_encoder: str | Path | None = None,
        cache_dir: Path | None = None,
        seed: int = 42,
        progress: bool = False,
    ) -> Self:
        """Build the index of a dataset.

        Args:
            dataset: Dataset with the catalogue.
            config: Options of the next-item model. Without it there is none, and the index is built in seconds.
            histories: Columns `user_id` and `history` (item ids) to learn from, such as the training part of a split;
                all interactions of the dataset if None.
            model: Next-item model that was trained on these histories, with the items numbered in the order of the
                catalogue; `config` then has the options it was trained with, without which the index cannot be saved.
            rules: Whether sequential rules are a source. Indexes of version 0.1.0 have none.
            text_encoder: Sentence-transformers folder or hub id that embeds the titles; None for TF-IDF. The index
                contains the embeddings, so the encoder is not needed again.
            cache_dir: Folder in which the embeddings are stored and found again, such as `TrainingData.cache_dir`.
            seed: Seed of the next-item model.
            progress: Whether to show a progress bar.

        Raises:
            LorarecError: The text encoder is missing or unusable, or sentence-transformers is not installed.
        """
        items = dataset.items[ITEM]
        lists = (histories_of(dataset.interactions) if histories is None else histories)[HISTORY]
        rows, lengths = encode_lists(lists, items)
        chosen = interaction_matrix(rows, lengths, len(items))
        texts, encoder = list(dataset.titles.values()), None
        titles: csr_matrix | TitleEmbeddings
        if text_encoder is None:
            titles = title_vectors(texts).astype(np.float32)
        else:
            encoder = SentenceEncoder.from_pretrained(text_encoder)
            titles = _embedded(centre(encode_titles(texts, text_encoder, cache_dir, progress)), chosen, seed)
        next_item = None
        if model is not None:
            next_item = new_next_item_source(model, np.unique(rows), len(items), seed)
        elif config is not None and config.epochs:
            sequences = np.split(rows, np.cumsum(lengths)[:-1])
            next_item = fit_next_item_source(sequences, len(items), config, seed, progress)
        record = {
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "options": {**asdict(config), "seed": seed} if next_item and config else None,
            "text_encoder": {"id": encoder.id, "fingerprint": encoder.fingerprint} if encoder else None,
            "counts": {"items": len(items), "users": len(lengths), "interactions": len(rows)},
            "versions": versions(),
        }
        counted = RulesSource.count(rows, lengths, len(items)) if rules else None
        return cls(items.to_list(), chosen, titles, next_item, counted, record)

    def refuse_embedded_titles(self) -> None:
        """Refuse further items and other titles if the index cannot embed them.

        Raises:
            LorarecError: The titles are embedded by a text encoder, which the index does not have.
        """
        if isinstance(self._titles, TitleEmbeddings):
            raise LorarecError(
                "the index has titles that a text encoder embedded, so it takes no further items or other titles: "
                "build it again with `lorarec index` of a dataset with them"
            )

    def with_catalogue(self, dataset: Dataset) -> Self:
        """Return the index of a dataset with the same interactions and further items or other titles.

        It equals an index that is built of this dataset. The next-item model stays as it is, since the further items
        have no interactions.

        Args:
            dataset: Dataset that has all items of this index.

        Raises:
            LorarecError: The titles are embedded by a text encoder, which the index does not have; or the dataset lacks
                an item of the index.

        Examples:
            >>> import polars as pl
            >>> from lorarec import Dataset, Index
            >>> shop = Dataset.load("data/shop")
            >>> lamp = shop.items.head(1).with_columns(pl.lit("new-lamp").alias("item_id"))
            >>> larger = Dataset.from_frames("shop", shop.interactions, pl.concat([shop.items, lamp]))
            >>> "new-lamp" in Index.build(shop).with_catalogue(larger).row
            True
        """
        self.refuse_embedded_titles()
        items = dataset.items[ITEM].to_list()
        row = {item: place for place, item in enumerate(items)}
        missing = [item for item in self.items if item not in row]
        if missing:
            raise LorarecError(
                f"{dataset.name} lacks {len(missing)} items of the index, the first is {missing[0]!r}: build the index "
                "again with `lorarec index`, or keep the items and deny them"
            )
        place = np.array([row[item] for item in self.items], np.int64)
        shape = (self._chosen.shape[0], len(items))
        chosen = csr_matrix((self._chosen.data, place[self._chosen.indices], self._chosen.indptr), shape)
        titles = title_vectors(list(dataset.titles.values())).astype(np.float32)
        source = self.next_item
        next_item = source and NextItemSource(source.model, place[source.rows], len(items), source.centres)
        rules = self._rules and self._rules.renumbered(place, len(items))
        record = {
            **self.record,
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "counts": {**self.record.get("counts", {}), "items": len(items)},
        }
        return type(self)(items, chosen, titles, next_item, rules, record)

    def propose(self, history: Sequence[str], pool: int = 100, blocked: np.ndarray | None = None) -> list[Proposal]:
        """Return different candidates for a history, the best first, with a new item at every tenth place.

        Args:
            history: Item ids in time order, of any user; unknown ids are ignored.
            pool: Maximum number of candidates.
            blocked: Mask of the items that must not be proposed besides those of the history, see `blocked`.

        Raises:
            LorarecError: `pool` is below 1.
        """
        if pool < 1:
            raise LorarecError(f"a pool must have at least one item, got {pool}")
        rows, excluded = self._query(history, blocked)
        rankings = {name: source.find(rows, pool, excluded).tolist() for name, source in self.sources.items()}
        weights = WEIGHTS if RULES in rankings else {}
        known = fuse({name: rows for name, rows in rankings.items() if name not in (NEW, POPULAR)}, weights)
        rounds = {KNOWN: list(known), NEW: rankings[NEW], POPULAR: rankings[POPULAR]}
        turns = interleave(rounds, QUOTAS, pool, fallback=POPULAR)
        source_of = {row: known.get(row, name) for row, name in turns.items()}
        because = self._because(rows, source_of)
        return [Proposal(self.items[row], source, because[row]) for row, source in source_of.items()]

    def rank(self, source: str, history: Sequence[str], count: int) -> list[str]:
        """Return the item ids that one source finds for a history, the best first."""
        rows, excluded = self._query(history, None)
        return [self.items[row] for row in self.sources[source].find(rows, count, excluded)]

    def blocked(self, allow: Collection[str] | None = None, deny: Collection[str] = ()) -> np.ndarray:
        """Return a mask (items,) of the items that must not be proposed; unknown ids are ignored.

        Args:
            allow: Ids of the only items that may be proposed; all may if None.
            deny: Ids of items that must not be proposed, for example because they are out of stock.
        """
        blocked = np.full(len(self.items), allow is not None)
        blocked[[self.row[item] for item in allow or () if item in self.row]] = False
        blocked[[self.row[item] for item in deny if item in self.row]] = True
        return blocked

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write the index to a folder, completely or not at all: tensors as safetensors and a record as JSON.

        Args:
            out: Path of the new folder.
            overwrite: Whether to replace an index at `out`.

        Raises:
            LorarecError: `out` exists already or cannot be written, or the index has a next-item model without its
                options.
        """
        if self.next_item and not self.record["options"]:
            raise LorarecError("the options of the index's next-item model are not known: build it with its config")
        arrays = sparse_tensors("chosen", self._chosen)
        del arrays["chosen.data"]  # all ones
        if isinstance(self._titles, TitleEmbeddings):
            arrays["titles.vectors"] = torch.from_numpy(self._titles.vectors)
            arrays |= {f"titles.centres.{name}": torch.from_numpy(of) for name, of in self._titles.centres.items()}
        else:
            arrays |= sparse_tensors("words", self._titles)
        if self._rules:
            arrays |= sparse_tensors(RULES, self._rules.rules)
        if self.next_item:
            arrays |= {f"learnt.{name}": tensor.contiguous() for name, tensor in self.next_item.arrays().items()}
        with new_folder(out, overwrite, FolderKind.INDEX) as folder:
            save_file(arrays, folder / ARRAYS)
            write_json(folder / RECORD, {**self.record, "fingerprint": file_fingerprint(folder / ARRAYS)})

    @classmethod
    def load(cls, folder: str | Path, dataset: Dataset) -> Self:
        """Load an index that `save` wrote.

        Args:
            folder: Path of the index.
            dataset: Dataset that the index was built of.

        Raises:
            LorarecError: The folder is missing or damaged, or the index was built of another dataset.
        """
        folder = Path(folder)
        if not (folder / RECORD).is_file():
            raise LorarecError(f"{folder} is not an index: build one with `lorarec index`")
        record = read_json(folder / RECORD)
        if not isinstance(record, dict) or not {"dataset_fingerprint", "options", "fingerprint"} <= record.keys():
            raise LorarecError(f"{folder / RECORD} does not describe an index: build it again with `lorarec index`")
        if record["dataset_fingerprint"] != dataset.fingerprint:
            raise LorarecError(
                f"index {folder} was built of {record.get('dataset')} ({record['dataset_fingerprint']}), not of "
                f"{dataset.name} ({dataset.fingerprint}): build it again with `lorarec index`"
            )
        items = dataset.items[ITEM].to_list()
        try:
            if file_fingerprint(folder / ARRAYS) != record["fingerprint"]:
                raise LorarecError(f"{folder / ARRAYS} does not match {RECORD}: build it again with `lorarec index`")
            arrays = load_file(folder / ARRAYS)
            chosen, next_item = sparse_matrix("chosen", arrays), None
            titles: csr_matrix | TitleEmbeddings
            if record.get("text_encoder"):  # version 0.1.0 did not record it
                centres = with_prefix("titles.centres.", arrays)
                vectors = arrays["titles.vectors"].numpy()
                titles = TitleEmbeddings(vectors, {name: array.numpy() for name, array in centres.items()})
            else:
                titles = sparse_matrix("words", arrays)
            # Indexes of version 0.1.0 have no rules.
            rules = RulesSource(sparse_matrix(RULES, arrays)) if f"{RULES}.indptr" in arrays else None
            if record["options"]:
                config = next_item_config(record["options"])
                next_item = NextItemSource.from_arrays(with_prefix("learnt.", arrays), len(items), config)
        except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise LorarecError(f"index {folder} is damaged ({error}): build it again with `lorarec index`") from error
        return cls(items, chosen, titles, next_item, rules, record)

    def _query(self, history: Sequence[str], blocked: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the history's known items, and a mask of these and the blocked items."""
        rows = np.array([self.row[item] for item in history if item in self.row], np.int64)
        excluded = np.zeros(len(self.items), bool) if blocked is None else blocked.copy()
        excluded[rows] = True
        return rows, excluded

    def _because(self, history: np.ndarray, source_of: dict[int, str]) -> dict[int, list[str]]:
        """Return for each row the ids of the history items that contribute most to it."""
        because: dict[int, list[str]] = {}
        for name, source in self.sources.items():
            rows = [row for row, source_name in source_of.items() if source_name == name]
            latest = latest_items(history, source.max_history)
            similarities = source.similarities(latest, np.array(rows, np.int64))
            strongest = np.argsort(-similarities, axis=1, kind="stable")[:, :MAX_REASONS]
            for row, places, of_row in zip(rows, strongest, similarities, strict=True):
                because[row] = [self.items[latest[place]] for place in places if of_row[place] > 0]
        return because


def _rows_of_title_sources(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the rows that the sources of similar titles search, from the number of users of each item."""
    return {TITLE: np.flatnonzero(counts), NEW: np.flatnonzero(counts == 0)}


def _title_source(name: str, titles: csr_matrix | TitleEmbeddings, rows: np.ndarray) -> CandidateSource:
    if isinstance(titles, TitleEmbeddings):
        return EmbeddingSource(titles.vectors, rows, titles.centres.get(name))
    return TitleSource(titles, rows)


def _embedded(vectors: np.ndarray, chosen: csr_matrix, seed: int) -> TitleEmbeddings:
    """Return centred embeddings with the centres of the cells of those sources that search many items."""
    rows = _rows_of_title_sources(np.bincount(chosen.indices, minlength=len(vectors)))
    centres = {name: cells(vectors[of_source], seed) for name, of_source in rows.items()}
    return TitleEmbeddings(vectors, {name: found for name, found in centres.items() if found is not None})


def next_item_config(options: dict[str, Any]) -> NextItemConfig:
    """Return the options of the next-item model that index.json holds, also with the names of version 0.1.0."""
    named = {_FORMER_NAMES.get(name, name): value for name, value in options.items() if name != "seed"}
    return NextItemConfig(**named)
