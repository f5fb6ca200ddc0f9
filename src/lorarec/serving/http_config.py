"""Options of the HTTP server."""

from dataclasses import dataclass

from lorarec.options import convert_options, document_options, option

ACCESS, NETWORK = "Access", "Network"


@document_options
@dataclass(frozen=True)
class HttpConfig:
    """Options of the HTTP server of a `Service`.

    Raises:
        LorarecError: If a value is of the wrong type or cannot be used.
    """

    keys: str | None = option(None, "YAML file of API keys with roles, which is read again when it changes.", ACCESS)

    def __post_init__(self) -> None:
        convert_options(self)
