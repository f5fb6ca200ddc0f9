"""Answers of the service, as its clients get them; the fields are those of `lorarec.serving.response_schemas`."""

from dataclasses import dataclass, field
from typing import Any


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
class CatalogueItem:
    """An item of the catalogue.

    Attributes:
        item_id: Id of the item.
        title: Title of the item.
    """

    item_id: str
    title: str


@dataclass(frozen=True)
class CatalogueItems:
    """Items of the catalogue.

    Attributes:
        items: Items, in the order of the call.
    """

    items: list[CatalogueItem]


@dataclass(frozen=True)
class ItemsPage(CatalogueItems):
    """A page of the items of the catalogue.

    Attributes:
        total: Number of items of the whole list.
        next: Cursor of the next page, or None.
    """

    total: int
    next: str | None


@dataclass(frozen=True)
class Users:
    """A page of the users of the dataset.

    Attributes:
        users: User ids, best match first.
        total: Number of users of the whole list.
        next: Cursor of the next page, or None.
    """

    users: list[str]
    total: int
    next: str | None


@dataclass(frozen=True)
class StoredInteraction:
    """An interaction of a user as the service stores it.

    Attributes:
        item_id: Id of the item.
        timestamp: Time in the unit of the dataset.
        event_id: Id that the client gave the event, or None.
    """

    item_id: str
    timestamp: int
    event_id: str | None


@dataclass(frozen=True)
class LoggedAnswer:
    """An answer to a user as the answer log of the service holds it.

    Attributes:
        request_id: Id of the request.
        time: Time at which the request arrived (ISO 8601).
        variant: Name of the variant of the experiment, or None.
        item_ids: Ids of the ranked items, best first; None for titles that have no id.
        scores: Score of each item.
    """

    request_id: str | None
    time: str
    variant: str | None
    item_ids: list[str | None]
    scores: list[float]


@dataclass(frozen=True)
class StoredUser:
    """All that the service stores of a user.

    Attributes:
        user_id: Id of the user.
        events: Interactions, oldest first.
        answers: Answers in the answer log, oldest first.
    """

    user_id: str
    events: list[StoredInteraction]
    answers: list[LoggedAnswer] = field(default_factory=list)


@dataclass(frozen=True)
class DeletedUser:
    """What was deleted of a user.

    Attributes:
        deleted: Number of deleted interactions.
        answers: Number of answers that were deleted from the answer log.
    """

    deleted: int
    answers: int = 0


@dataclass(frozen=True)
class AdapterInfo:
    """A loaded adapter.

    Attributes:
        name: Name of the adapter.
        kind: `adapter`, or `personal` for a folder of `lorarec personal choose`.
        fingerprint: Hash of the adapter's files when it was loaded.
        rank: Largest rank of the adapter's layers.
        readout: `verdict` or `likelihood`.
        in_folder: Whether the adapters folder still lists the adapter.
        previous: Fingerprint of the version that a rollback puts back, or None.
    """

    name: str
    kind: str
    fingerprint: str
    rank: int
    readout: str
    in_folder: bool
    previous: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class LayerWeights:
    """Weights of the adapters that were mixed in one layer.

    Attributes:
        layer: Name of the adapted layer.
        weights: Weight of each mixed adapter.
    """

    layer: str
    weights: dict[str, float]


@dataclass(frozen=True)
class AdapterDetails(AdapterInfo):
    """A loaded adapter and the weights of the adapters it was mixed from.

    Attributes:
        user_id: Id of the user that the adapter was exported for, or None.
        layers: Weights by adapted layer.
    """

    user_id: str | None
    layers: list[LayerWeights]


@dataclass(frozen=True)
class FusionInfo:
    """The fusion, which answers requests that name no adapter.

    Attributes:
        recommenders: Kind of each fused recommender by its name.
        new_item_prior: Probability that the right item is a new one, or `auto`.
    """

    recommenders: dict[str, str]
    new_item_prior: float | str


@dataclass(frozen=True)
class Adapters:
    """Loaded adapters, adapters that can be loaded, and the fusion.

    Attributes:
        loaded: Adapters in memory.
        available: Names of adapters that can be loaded.
        kinds: Kind of each adapter that can be loaded.
        fusion: The fusion, or None.
        total: Number of adapters that are loaded or can be loaded.
        next: Cursor of the next page, or None.
        unavailable: Why adapters that a replica has loaded by a request are not loaded in this one, by name.
    """

    loaded: list[AdapterInfo]
    available: list[str]
    kinds: dict[str, str]
    fusion: FusionInfo | None
    total: int
    next: str | None
    unavailable: dict[str, str] = field(default_factory=dict)


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
