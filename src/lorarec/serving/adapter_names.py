"""Names of adapters in requests: aliases, and the default adapter."""

from collections.abc import Collection, Mapping

from lorarec.errors import LorarecError
from lorarec.serving.errors import ApiError
from lorarec.serving.mixtures import weights_by_name


class AdapterNames:
    """Find the adapters that the names in requests stand for.

    Attributes:
        aliases: Further names of adapters, and the names that they stand for.
        default: Name or alias of the adapter of requests that name none; None for the only loaded adapter.
        required: Adapters and mixtures of an experiment, by words for what needs them.
    """

    def __init__(self) -> None:
        self.aliases: Mapping[str, str] = {}
        self.default: str | None = None
        self.required: dict[str, str | Mapping[str, float]] = {}

    def set_default(self, name: str, loaded: Collection[str]) -> None:
        """Let an adapter, or an alias of one, answer requests that name none.

        Raises:
            LorarecError: If there is no loaded adapter with this name or alias.
        """
        if self.aliases.get(name, name) not in loaded:
            names = ", ".join([*loaded, *self.aliases]) or "none"
            raise LorarecError(
                f"option default_adapter names {name}, which is neither a loaded adapter nor an alias of one: choose "
                f"from {names}"
            )
        self.default = name

    def weights(self, adapter: str | Mapping[str, float]) -> dict[str, float]:
        """Return weights by the names of adapters, in place of aliases.

        Args:
            adapter: Name or alias of an adapter, or weights by name.

        Raises:
            ApiError: 422, if an adapter is named twice.
        """
        weights: dict[str, float] = {}
        for name, weight in weights_by_name(adapter).items():
            adapter_name = self.aliases.get(name, name)
            if adapter_name in weights:
                message = f"adapter {adapter_name!r} is named twice, once by an alias: name it once"
                raise ApiError(422, message, "adapter")
            weights[adapter_name] = weight
        return weights

    def refuse_load(self, name: str) -> None:
        """Refuse to load an adapter with the name of an alias.

        Raises:
            ApiError: 409, if it has one.
        """
        if name in self.aliases:
            raise ApiError(409, f"{name!r} is an alias of {self.aliases[name]!r}: load that", "name")

    def refuse_unload(self, name: str) -> None:
        """Refuse to unload an adapter that an experiment, an alias or the default names.

        Raises:
            ApiError: 409, if one does.
        """
        for about, adapter in self.required.items():
            if name in weights_by_name(adapter):
                message = f"adapter {name!r} is needed by {about} of the experiment: start the service without it"
                raise ApiError(409, message, "name")
        if aliases := [alias for alias, adapter in self.aliases.items() if adapter == name]:
            raise ApiError(
                409, f"adapter {name!r} has the alias {aliases[0]!r}: point it to another adapter, or delete it", "name"
            )
        if name == self.default:
            raise ApiError(
                409, f"adapter {name!r} answers requests without an adapter (option default_adapter)", "name"
            )
