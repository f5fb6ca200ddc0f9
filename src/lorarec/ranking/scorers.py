"""Scorers of a backbone and its adapters: rows of an evaluation."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Self, TypeVar

import numpy as np
import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Evidence, EvidenceModel, Split, may_know_test_items
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterLike, prompt_config, read_adapter, trained_on
from lorarec.prompts import PromptConfig
from lorarec.ranking.engine import Engine
from lorarec.ranking.ranker import Ranker
from lorarec.recommenders import RecommenderConfig, ScorerRecommender, TrainingData, make_evidence

Config = TypeVar("Config")

ZERO_SHOT = "zero-shot"
CONSTRAINED = "constrained"
GENERATIONS = ("free", CONSTRAINED)


class AdapterScorer:
    """Score candidates with a backbone and one adapter.

    The adapter is merged into the backbone only while it scores, so that many scorers share one backbone.

    Args:
        backbone: Backbone of the adapter.
        titles: Title of each item by its id.
        adapter: Adapter of the backbone; None for the backbone alone.
        evidence: Words about candidates, for adapters that read them; see `Ranker.examples`.
        prompt: Prompt settings; None for those that the adapter was trained with. The evidence in prompts is always
            that of the adapter's training.
        readout: Readout in place of that of the prompt settings.
        engine: Engine with this backbone and adapter; None for PyTorch.
        progress: Show a bar while scoring.

    Attributes:
        about: Description for reports, with the number of history items that did not fit into the prompts of the last
            call.
        dropped: Number of history items that did not fit, over all calls.

    Raises:
        LorarecError: `prompt` asks for evidence, which the model was not trained to read.
    """

    def __init__(
        self,
        backbone: Backbone,
        titles: dict[str, str],
        adapter: Adapter | None = None,
        evidence: Evidence | None = None,
        *,
        prompt: PromptConfig | None = None,
        readout: str | None = None,
        engine: Engine | None = None,
        progress: bool = False,
    ) -> None:
        if prompt is not None and prompt.evidence and not prompt_config(adapter).evidence:
            model = "the backbone alone" if adapter is None else f"adapter {_source(adapter)}"
            raise LorarecError(f"{model} was not trained to read evidence: set evidence=False, got {prompt.evidence}")
        self.backbone = backbone
        self.titles = titles
        self.adapter = adapter
        self.evidence = evidence
        self.prompt = prompt
        self.readout = readout
        self.engine = engine
        self.progress = progress
        self.about = ""
        self.dropped = 0

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Return the scores of the candidates of every case."""
        with self._open_ranker() as ranker:
            scores = self._score(ranker, cases)
            self.dropped += ranker.builder.dropped
            self.about = self._describe(ranker)
        return scores

    def _open_ranker(self) -> Ranker:
        prompt = self.prompt
        if prompt is None:
            return Ranker(self.backbone, self.adapter, self.readout, engine=self.engine)
        prompt = prompt.with_readout(self.readout)
        return Ranker(
            self.backbone,
            self.adapter,
            prompt.readout,
            prompt.template,
            prompt.max_tokens,
            prompt.max_title_tokens,
            prompt.max_history,
            engine=self.engine,
        )

    def _score(self, ranker: Ranker, cases: pl.DataFrame) -> list[np.ndarray]:
        return ranker.score_cases(cases, self.titles, self.evidence, self.progress)

    def _describe(self, ranker: Ranker) -> str:
        parts = [
            f"backbone {self.backbone.id} ({self.backbone.fingerprint})",
            "no adapter" if self.adapter is None else f"adapter {_source(self.adapter)}",
            f"readout {ranker.readout}" + (f" through {ranker.engine.name}" if ranker.engine else ""),
        ]
        if ranker.evidence:
            words = "" if ranker.prompt.evidence_model is None else ", and of their ranks by SASRec"
            parts.append(f"evidence of how often others chose the candidates with the history{words}")
        dropped = f"; {ranker.builder.dropped:,} history items dropped, oldest first, to fit prompts"
        return ", ".join(parts) + (dropped if ranker.builder.dropped else "")


class AdapterRecommender(ScorerRecommender[Config]):
    """A recommender that scores with an adapter; `refit` and `update` make the evidence of prompts and train nothing.

    Attributes:
        backbone: Backbone of the adapter.
        adapter: Adapter that scores.
    """

    scores_new_items = True
    scores_catalogue = False
    scorer: AdapterScorer
    backbone: Backbone
    adapter: Adapter

    def make_scorer(self, data: TrainingData) -> Self:
        """Make the scorer, with the evidence of the training part if the adapter reads it."""
        evidence = make_evidence(prompt_config(self.adapter), data.dataset, data.split, data.progress)
        titles = data.dataset.titles
        self.scorer = AdapterScorer(self.backbone, titles, self.adapter, evidence, progress=data.progress)
        return self

    def refit(self, data: TrainingData) -> Self:
        """Return a copy with the evidence of other data; see `Recommender.refit`."""
        return copy.copy(self).make_scorer(data)

    def check_update(self, data: TrainingData) -> None:
        """Accept every adapter, since its update changes no weights; see `Recommender.check_update`."""

    def update(self, data: TrainingData, previous: TrainingData, epochs: int) -> Self:
        """Return a copy with the evidence of the data after an update; see `Recommender.update`."""
        return self.refit(data)


class TrainedAdapter(AdapterRecommender[RecommenderConfig]):
    """A trained adapter as a recommender.

    Args:
        backbone: Backbone of the adapter.
        adapter: Adapter, or path of its folder.

    Raises:
        LorarecError: The adapter is unusable or belongs to another backbone.
    """

    config_class = RecommenderConfig
    uses_seed = False

    def __init__(self, backbone: Backbone, adapter: AdapterLike) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = read_adapter(adapter, backbone)

    def fit(self, data: TrainingData) -> Self:
        """Make the scorer; the weights stay as they are."""
        return self.make_scorer(data)


class GenerationScorer(AdapterScorer):
    """Rank candidates by a list of titles that the model generates, the protocol of the papers.

    The list is decoded greedily. The rank of a candidate is the place at which the list names it exactly; a candidate
    that the list does not name has no rank. A generated title that is no candidate wastes its place.

    Args:
        backbone: Backbone of the adapter.
        titles: Title of each item by its id.
        adapter: Adapter of the backbone; None for the backbone alone.
        evidence: Words about candidates, for adapters that read them; see `Ranker.examples`.
        count: Number of titles that are generated.
        constrained: Whether only candidates that are not in the list yet can be generated.
        prompt: Prompt settings; None for those that the adapter was trained with.
        engine: Engine with this backbone and adapter; None for PyTorch.
        progress: Show a bar while generating.

    Attributes:
        returns_ranks: True, since `score` returns ranks of the candidates: 1 is the best, infinite means no rank.
        about: Description for reports, with the share of places that were wasted in the last call.
    """

    returns_ranks = True

    def __init__(
        self,
        backbone: Backbone,
        titles: dict[str, str],
        adapter: Adapter | None = None,
        evidence: Evidence | None = None,
        *,
        count: int = 5,
        constrained: bool = False,
        prompt: PromptConfig | None = None,
        engine: Engine | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            titles,
            adapter,
            evidence,
            prompt=prompt,
            readout="likelihood",
            engine=engine,
            progress=progress,
        )
        self.count = count
        self.constrained = constrained
        self._wasted = 0.0

    def _score(self, ranker: Ranker, cases: pl.DataFrame) -> list[np.ndarray]:
        """Return the ranks of the candidates of every case."""
        ranks, wasted = [], 0
        examples = ranker.examples(cases, self.titles, self.evidence)
        lists = ranker.generate(examples, self.count, self.constrained, self.progress)
        for example, generated in zip(examples, lists, strict=True):
            of_case = np.full(len(example.branches), np.inf)
            for rank, candidate in enumerate(generated, start=1):
                if candidate is not None:
                    of_case[candidate] = rank
            ranks.append(of_case)
            wasted += generated.count(None)
        self._wasted = wasted / max(1, self.count * cases.height)
        return ranks

    def _describe(self, ranker: Ranker) -> str:
        kind = "constrained to the candidates" if self.constrained else "free"
        return f"greedy list of {self.count} titles, {kind}, exact match; {self._wasted:.1%} of the places wasted"


def adapter_scorers(
    backbone: Backbone,
    dataset: Dataset,
    split: Split,
    adapters: Mapping[str, AdapterLike],
    *,
    readout: str | None = None,
    generation: str | None = None,
    engine: Engine | None = None,
    progress: bool = False,
) -> dict[str, AdapterScorer]:
    """Return a scorer of the backbone alone, called `zero-shot`, and one for each adapter.

    Args:
        backbone: Backbone of the adapters.
        dataset: Dataset that the titles come from.
        split: Split whose training part the evidence is made of, if adapters read it.
        adapters: Adapter, or path of its folder, by name of the row.
        readout: Readout of all scorers; by default each adapter's own. The backbone alone is prompted as the first
            adapter was in training.
        generation: `free` or `constrained`, to generate lists of titles in place of scoring (see `GenerationScorer`).
        engine: Engine with this backbone and these adapters; None for PyTorch.
        progress: Show a bar while a scorer scores, and while a model for evidence is fitted.

    Raises:
        LorarecError: An adapter is unusable, belongs to another backbone, or is called `zero-shot`; `generation` is
            unknown, or is given with the readout `verdict`.

    Examples:
        >>> from lorarec import Backbone, Dataset, adapter_scorers, load_split
        >>> shop = Dataset.load("data/shop")
        >>> backbone = Backbone.from_pretrained("embedded")
        >>> list(adapter_scorers(backbone, shop, load_split(shop), {"shop": "adapters/shop"}))
        ['zero-shot', 'shop']
    """
    if generation not in (None, *GENERATIONS):
        raise LorarecError(f"unknown generation {generation!r}: choose one of {', '.join(GENERATIONS)}")
    if generation is not None and readout == "verdict":
        raise LorarecError("generation writes titles after a list of candidates: leave out readout=verdict")
    if ZERO_SHOT in adapters:
        raise LorarecError(f"the row name {ZERO_SHOT} is taken by the backbone alone: choose another")
    read = {name: read_adapter(adapter, backbone) for name, adapter in adapters.items()}
    first = next(iter(read.values()), None)
    # The backbone alone was not trained to read evidence.
    zero_shot = replace(prompt_config(first), evidence=False, evidence_model=None)
    rows: dict[str, tuple[Adapter | None, Evidence | None, PromptConfig | None]] = {ZERO_SHOT: (None, None, zero_shot)}
    made: dict[tuple[bool, EvidenceModel | None], Evidence | None] = {}  # rows with the same evidence share it
    for name, adapter in read.items():
        config = prompt_config(adapter)
        kind = config.evidence, config.evidence_model
        if kind not in made:
            made[kind] = make_evidence(config, dataset, split, progress)
        rows[name] = adapter, made[kind], None
    scorers: dict[str, AdapterScorer] = {}
    for name, (row_adapter, evidence, prompt) in rows.items():
        model = (backbone, dataset.titles, row_adapter, evidence)
        if generation is None:
            scorers[name] = AdapterScorer(*model, prompt=prompt, readout=readout, engine=engine, progress=progress)
        else:
            constrained = generation == CONSTRAINED
            scorers[name] = GenerationScorer(
                *model, constrained=constrained, prompt=prompt, engine=engine, progress=progress
            )
    return scorers


def split_warning(adapter: Adapter, dataset: Dataset, split: Split) -> str | None:
    """Return a warning if an adapter was trained on another split of this dataset and may know test items.

    The same holds for an earlier state of the dataset, before interactions were appended to it.
    """
    for trained in trained_on(adapter):
        if may_know_test_items(dataset, split, str(trained.get("fingerprint"))):
            return (
                f"adapter {_source(adapter)} was trained on {dataset.name} before an update and may have seen test "
                "items of this split: its metrics are not comparable, unless the test part begins after that by time"
            )
        if trained.get("fingerprint") == dataset.fingerprint and trained.get("split") != split.cases:
            return (
                f"adapter {_source(adapter)} was trained on another split of {dataset.name} ({trained.get('split')}, "
                f"not {split.cases}) and may have seen test items: its metrics are not comparable"
            )
    return None


def _source(adapter: Adapter) -> str:
    """Return where an adapter was read from, for messages and reports."""
    return "in memory" if adapter.folder is None else f"{adapter.source} ({adapter.fingerprint})"
