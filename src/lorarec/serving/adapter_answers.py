"""Answers of the service about adapters, as its clients get them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AdapterInfo:
    """A loaded adapter.

    Attributes:
        name: Name of the adapter.
        kind: `adapter`, or `personal` for a folder of `lorarec personal train-router`.
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
        new_item_prior: Probability that the target item is a new one, or `auto`.
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
        aliases: Adapter that each alias stands for.
        default: Name or alias of the adapter of requests that name none, or None.
        total: Number of adapters that are loaded or can be loaded.
        next: Cursor of the next page, or None.
        unavailable: Why adapters that a replica has loaded by a request are not loaded in this one, by name.
    """

    loaded: list[AdapterInfo]
    available: list[str]
    kinds: dict[str, str]
    fusion: FusionInfo | None
    aliases: dict[str, str]
    default: str | None
    total: int
    next: str | None
    unavailable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Alias:
    """A further name of an adapter.

    Attributes:
        alias: The further name.
        adapter: Name of the adapter that it stands for.
    """

    alias: str
    adapter: str
