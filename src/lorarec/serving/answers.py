"""Answers of the service, as its clients get them; the fields are those of `lorarec.serving.response_schemas`."""

from dataclasses import dataclass, field
from typing import Any

from lorarec.serving.adapter_answers import AdapterDetails as AdapterDetails
from lorarec.serving.adapter_answers import AdapterInfo as AdapterInfo
from lorarec.serving.adapter_answers import Adapters as Adapters
from lorarec.serving.adapter_answers import Alias as Alias
from lorarec.serving.adapter_answers import FusionInfo as FusionInfo
from lorarec.serving.adapter_answers import LayerWeights as LayerWeights
from lorarec.serving.catalogue_answers import AddedItems as AddedItems
from lorarec.serving.catalogue_answers import CatalogueItem as CatalogueItem
from lorarec.serving.catalogue_answers import CatalogueItems as CatalogueItems
from lorarec.serving.catalogue_answers import DeletedUser as DeletedUser
from lorarec.serving.catalogue_answers import ItemDetails as ItemDetails
from lorarec.serving.catalogue_answers import ItemsPage as ItemsPage
from lorarec.serving.catalogue_answers import LoggedAnswer as LoggedAnswer
from lorarec.serving.catalogue_answers import StoredInteraction as StoredInteraction
from lorarec.serving.catalogue_answers import StoredUser as StoredUser
from lorarec.serving.catalogue_answers import Users as Users


@dataclass(frozen=True)
class RankedItem:
    """An item with its score.

    Attributes:
        item_id: Id of the item; None if the request gave its title.
        title: Title of the item.
        score: Score that orders the items.
        log_odds: Log-odds of yes against no (readout `verdict`), or None.
        log_likelihood: Log-probability of the title (readout `likelihood`), or None.
        log_prior: Logarithm of the prior up to a constant; None with a fusion.
        probability: Posterior probability among the candidates.
        candidate: Index of the item among the candidates, from 0.
        parts: What each recommender of a fusion adds to the score, by name.
        boost: Sum of the boosts of the request for this item.
    """

    item_id: str | None
    title: str
    score: float
    log_odds: float | None
    log_likelihood: float | None
    log_prior: float | None
    probability: float
    candidate: int
    parts: dict[str, float] = field(default_factory=dict)
    boost: float = 0.0


@dataclass(frozen=True)
class UserWeights:
    """Weights of the adapters that a personal adapter mixes for a user.

    Attributes:
        routed: Whether the weights are the user's own; otherwise they are the mean over users.
        parts: Names of the mixed adapters.
        layers: Weight of each adapter of `parts`, by name of the adapted layer.
    """

    routed: bool
    parts: list[str]
    layers: dict[str, list[float]]


@dataclass(frozen=True)
class Ranking:
    """Ranked items.

    Attributes:
        ranking: Items, best first.
        fusion: Whether a fusion answered.
        mixture: Weight of each adapter that the items were scored with.
        personal: Weights inside each personal adapter of the mixture.
        tokens: Number of tokens that the language model read.
        versions: Version of each adapter that answered by name, or of the fusion under the name `fusion`.
        variant: Name of the variant of the experiment that answered, or None.
    """

    ranking: list[RankedItem]
    fusion: bool
    mixture: dict[str, float]
    personal: dict[str, UserWeights]
    tokens: int
    versions: dict[str, str] = field(default_factory=dict)
    variant: str | None = None


@dataclass(frozen=True)
class BatchedAnswer:
    """Answer to a request of a batch.

    Attributes:
        status: HTTP status of the request.
        body: JSON of the answer, or of what is wrong with the request.
        retry_after: Seconds after which the service asks to try again, or None.
    """

    status: int
    body: dict[str, Any]
    retry_after: int | None


@dataclass(frozen=True)
class BatchAnswers:
    """Answers to the requests of a batch.

    Attributes:
        responses: Answers in the order of the requests.
    """

    responses: list[BatchedAnswer]


@dataclass(frozen=True)
class ItemInfluence:
    """Effect of an item of the history on the explained candidate.

    Attributes:
        item_id: Id of the item; None if the request gave its title.
        title: Title of the item.
        score: Decrease of the candidate's score if the item is left out.
        probability: Decrease of the candidate's probability if the item is left out.
    """

    item_id: str | None
    title: str
    score: float
    probability: float


@dataclass(frozen=True)
class ScoreExplanation:
    """Effects of the items of a history on the score of a candidate.

    Attributes:
        candidate: The explained candidate.
        history: Items of the history in the prompt, oldest first.
        evidence: Words in the prompts of each adapter about the candidate and the history, by name of the adapter.
        fusion: Whether a fusion answered.
        mixture: Weight of each adapter that the items were scored with.
        personal: Weights inside each personal adapter of the mixture.
        versions: As for `Ranking`.
        variant: As for `Ranking`.
    """

    candidate: RankedItem
    history: list[ItemInfluence]
    evidence: dict[str, str]
    fusion: bool
    mixture: dict[str, float]
    personal: dict[str, UserWeights]
    versions: dict[str, str] = field(default_factory=dict)
    variant: str | None = None


@dataclass(frozen=True)
class RerankDocument:
    """A document of a request for a reranking.

    Attributes:
        text: Title of the document.
    """

    text: str


@dataclass(frozen=True)
class RerankResult:
    """A ranked document.

    Attributes:
        index: Index of the document in the request, from 0.
        relevance_score: Posterior probability among all documents of the request.
        document: The document, if the request asked for it.
    """

    index: int
    relevance_score: float
    document: RerankDocument | None = None


@dataclass(frozen=True)
class RerankUsage:
    """Size of a request.

    Attributes:
        prompt_tokens: Number of tokens that the language model read.
        total_tokens: The same number.
    """

    prompt_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Reranking:
    """Ranked documents.

    Attributes:
        id: Id of the request.
        model: Name of the adapter that answered, or `fusion`.
        results: Documents, best first.
        usage: Size of the request.
        versions: As for `Ranking`.
        variant: As for `Ranking`.
    """

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage
    versions: dict[str, str] = field(default_factory=dict)
    variant: str | None = None


@dataclass(frozen=True)
class StoredEvents:
    """Numbers of events that were stored or already known.

    Attributes:
        stored: Number of new events.
        known: Number of events whose `event_id` was stored before.
    """

    stored: int
    known: int


@dataclass(frozen=True)
class Health:
    """Whether the service can answer every request.

    Attributes:
        status: `ok`, `degraded` or `stuck`.
        database: `ok`, `unreachable` or `unusable`.
        adapters: Number of loaded adapters.
        fusion: Whether a fusion answers requests that name no adapter.
        unavailable: Number of adapters that are announced and not loaded in the replica that answered.
    """

    status: str
    database: str
    adapters: int
    fusion: bool
    unavailable: int = 0
