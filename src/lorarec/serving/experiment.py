"""Experiments: named variants with shares of the users, and the assignment of users to them."""

import hashlib
import math
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from lorarec.errors import LorarecError
from lorarec.io import read_yaml
from lorarec.serving.schemas import Number, Text, Weight

#: Difference from 1 that the sum of shares may have, so that thirds can be written as 0.333333.
SHARE_TOLERANCE = 1e-5
#: Number of bits of a hash that become a number in [0, 1), as many as a float64 can hold.
BITS = 53

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Up to 64 letters, digits, `.`, `_` and `-`, of which the first is a letter or a digit.",
    ),
]
Share = Annotated[Number, Field(ge=0, le=1, allow_inf_nan=False)]


class Variant(BaseModel):
    """What answers the requests of a share of the users.

    Attributes:
        name: Name of the variant.
        share: Share of the users.
        adapter: Name of an adapter, or weights of adapters by name; empty for the backbone alone. None with `fusion`.
        fusion: Whether the fusion answers.
    """

    name: Name
    share: Share
    adapter: Text | dict[Text, Weight] | None = None
    fusion: StrictBool = False

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _require_one_answer(self) -> Self:
        if (self.adapter is None) != self.fusion:
            raise ValueError("give either adapter (a name, or weights by name) or fusion: true")
        return self


class Experiment(BaseModel):
    """Variants that answer the requests that name no adapter.

    A user is assigned by a hash of the experiment's name and the user's id, so that a user always gets the same
    variant, whichever process or replica answers.

    Attributes:
        name: Name of the experiment; another name assigns all users anew.
        variants: Variants, whose shares sum to 1. The first one is the control.
        shadow: Variants that score a share of the requests as well, for comparison only; their shares are shares of the
            requests, and need not sum to 1.

    Examples:
        >>> from lorarec.serving.experiment import Experiment
        >>> variants = [{"name": "a", "share": 0.5, "adapter": "shop"}, {"name": "b", "share": 0.5, "fusion": True}]
        >>> experiment = Experiment(name="homepage", variants=variants)
        >>> [experiment.assign(user).name for user in ("u1", "u2", "u3", "u4")]
        ['a', 'a', 'b', 'b']
    """

    name: Name
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    shadow: tuple[Variant, ...] = ()

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        names = [variant.name for variant in (*self.variants, *self.shadow)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two variants are called {twice[0]!r}: give each a name of its own")
        total = math.fsum(variant.share for variant in self.variants)
        if abs(total - 1) > SHARE_TOLERANCE:
            shares = ", ".join(f"{variant.name} {variant.share:g}" for variant in self.variants)
            raise ValueError(f"the shares of the variants sum to {total:g} ({shares}): they must sum to 1")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML file.

        Raises:
            LorarecError: The file is missing or is not YAML, or a key or a value is not valid; the message names it.
        """
        values = read_yaml(path, "experiment")
        if not isinstance(values, dict):
            raise LorarecError(f"experiment {path} must have the keys name and variants")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            # Of the alternatives of a field, the one that was followed furthest is the one that is meant.
            first = max(error.errors(), key=lambda each: len(each["loc"]))
            where = ".".join(str(part) for part in first["loc"] if not re.search(r"[(\[]", str(part)))
            what = first["msg"].removeprefix("Value error, ")
            given = f", got {first['input']!r:.60}" if first["type"] not in ("value_error", "missing") else ""
            raise LorarecError(f"experiment {path}: {f'key {where}: ' if where else ''}{what}{given}") from error

    @property
    def control(self) -> Variant:
        """The first variant, which answers requests that cannot be assigned."""
        return self.variants[0]

    def assign(self, unit: str) -> Variant:
        """Return the variant of a user, or of another unit such as a session, by its id."""
        position, end = hashed_position(self.name, unit), 0.0
        for variant in self.variants:
            end += variant.share
            if position < end:
                return variant
        # The shares may sum to a little less than 1.
        return next(variant for variant in reversed(self.variants) if variant.share)

    def shadows(self, request_id: str) -> list[Variant]:
        """Return the shadow variants that score a request, which are drawn by a hash of its id."""
        drawn = {each.name: hashed_position(f"{self.name}/{each.name}", request_id) for each in self.shadow}
        return [each for each in self.shadow if drawn[each.name] < each.share]


def hashed_position(name: str, unit: str) -> float:
    """Return a number in [0, 1) that is uniform over units: the first 53 bits of a SHA-256 hash.

    The hash is that of the UTF-8 text of the name, the character NUL, which neither can hold, and the unit.
    """
    digest = hashlib.sha256(f"{name}\0{unit}".encode()).digest()
    return float((int.from_bytes(digest[:8], "big") >> (64 - BITS)) / (1 << BITS))
