"""Answers of the service about items and users, as its clients get them."""

from dataclasses import dataclass, field
from typing import Any


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
class ItemDetails(CatalogueItem):
    """An item of the catalogue with all that is known of it.

    Attributes:
        columns: Values of the further columns.
        withdrawn: Whether the item is not recommended any more.
    """

    columns: dict[str, Any]
    withdrawn: bool


@dataclass(frozen=True)
class AddedItems:
    """Number of items that were added.

    Attributes:
        added: Number of added items.
    """

    added: int


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
        experiment: Name of the experiment, or None.
        variant: Name of the variant of the experiment, or None.
        propensity: Probability of the variant, or None.
        shadow: Whether the answer was computed for comparison only.
        versions: `name` and `version` of each adapter that answered, or of the fusion.
        item_ids: Ids of the ranked items, best first; None for titles that have no id.
        scores: Score of each item.
        probabilities: Posterior probability of each item.
        candidates: Number of candidates.
    """

    request_id: str | None
    time: str
    experiment: str | None
    variant: str | None
    propensity: float | None
    shadow: bool
    versions: list[dict[str, str]]
    item_ids: list[str | None]
    scores: list[float]
    probabilities: list[float]
    candidates: int


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
