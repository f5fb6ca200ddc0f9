"""JSON schemas of fields about versions of adapters and variants of an experiment."""

from typing import Annotated

from pydantic import Field

AdapterVersions = Annotated[
    dict[str, str],
    Field(
        description="Version of each adapter that answered, by name: its `fingerprint` in `/v1/adapters`, the hash of "
        "its files when it was loaded. If the fusion answers, that of the fusion under the name `fusion`."
    ),
]
VariantName = Annotated[
    str | None,
    Field(
        description="Name of the variant of the experiment that answered; null if the request names an adapter, or the "
        "service has no experiment."
    ),
]
PreviousVersion = Annotated[
    str | None,
    Field(
        description="Fingerprint of the version that a rollback puts back; null if no load has replaced a version with "
        "other files."
    ),
]
