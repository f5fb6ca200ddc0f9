"""What the clients of model servers have in common: the names of adapters there, and requests for parts of examples."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterLike, read_adapter
from lorarec.prompts import Example, PromptBuilder
from lorarec.ranking.engine import Engine, for_each_adapter
from lorarec.ranking.generation import TitleList
from lorarec.ranking.model_server import ModelServer, ServerConfig

#: Number of candidates in a request.
REQUEST_SIZE = 64
#: Sampling parameters that are given with every request, because the server has defaults from the model's own.
GREEDY = {"temperature": 0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


class ServerEngine(Engine):
    """An engine that is a client of a running model server.

    Args:
        backbone: The backbone that the server runs. Its tokenizer makes the prompts; its weights are used for the check
            of the scores alone.
        adapters: The adapters that will be used, or paths of their folders, by their names on the server.
        config: Options of the requests.

    Raises:
        LorarecError: The server cannot be reached, or does not serve the backbone or an adapter.
    """

    kind: ClassVar[str]
    default_url: ClassVar[str]
    #: How the server is told to load an adapter.
    adapter_hint: ClassVar[str]

    def __init__(
        self,
        backbone: Backbone,
        adapters: Mapping[str, AdapterLike] | None = None,
        config: ServerConfig | None = None,
    ) -> None:
        self._server = ModelServer(self.kind, config or ServerConfig(), self.default_url)
        self.name = f"{self.kind} at {self._server.url}"
        cards = self._server.get("/v1/models")
        self._model, self.max_tokens, served = self._server.read("/v1/models", lambda: self._served(cards, config))
        read = {name: read_adapter(adapter, backbone) for name, adapter in (adapters or {}).items()}
        for name in read:
            if name not in served:
                raise LorarecError(
                    f"{self.name} serves no adapter {name!r}, only {', '.join(sorted(served)) or 'the backbone'}: "
                    f"{self.adapter_hint}"
                )
        self._names = {adapter.fingerprint: name for name, adapter in read.items()}
        super().__init__(backbone, list(read.values()))

    def _served(self, cards: Any, config: ServerConfig | None) -> tuple[str, int, set[str]]:
        """Return the name of the backbone, the maximum number of tokens and the names of the adapters."""
        backbones = {card["id"]: card for card in cards["data"] if not card.get("parent")}
        wanted = None if config is None else config.engine_model
        if wanted is None and len(backbones) == 1:
            wanted = next(iter(backbones))
        if wanted is None or wanted not in backbones:
            raise LorarecError(
                f"{self.name} serves {', '.join(sorted(backbones)) or 'no backbone'}: name one of them as engine_model"
                + ("" if wanted is None else f", got {wanted!r}")
            )
        limit = backbones[wanted].get("max_model_len")
        adapters = {card["id"] for card in cards["data"] if card.get("parent")}
        return wanted, 1 << 31 if limit is None else int(limit), adapters

    def _score(
        self, examples: Sequence[Example], builder: PromptBuilder, adapters: Sequence[Adapter | None]
    ) -> list[np.ndarray]:
        names = for_each_adapter(adapters, self._name)
        scores = [np.empty(len(example.branches), np.float32) for example in examples]
        parts = [
            (i, slice(start, start + REQUEST_SIZE))
            for i, example in enumerate(examples)
            for start in range(0, len(example.branches), REQUEST_SIZE)
        ]
        read = self._verdicts if builder.readout == "verdict" else self._likelihoods

        def score_part(i: int, part: slice) -> list[float]:
            return read(examples[i].prompt, examples[i].branches[part], names[i], builder)

        # Those without an adapter go first, since vLLM 0.32 on CPUs applies to them an adapter of the same batch.
        for without_adapter in (True, False):
            chosen = [(i, part) for i, part in parts if (names[i] is None) == without_adapter]
            found = self._server.map(score_part, [i for i, _ in chosen], [part for _, part in chosen])
            for (i, part), of_part in zip(chosen, found, strict=True):
                scores[i][part] = of_part
        for of_example in scores:
            if not np.isfinite(of_example).all():
                raise LorarecError(f"{self.name} gives scores that are not finite: see the log of the server")
        return scores

    def _extend(self, lists: Sequence[TitleList], adapters: Sequence[Adapter | None]) -> list[Sequence[int]]:
        names = for_each_adapter(adapters, self._name)
        tokens: list[Sequence[int]] = [()] * len(lists)
        for without_adapter in (True, False):
            chosen = [i for i, name in enumerate(names) if (name is None) == without_adapter]
            for i, new in zip(chosen, self._server.map(lambda i: self._next(lists[i], names[i]), chosen), strict=True):
                tokens[i] = new
        return tokens

    @abstractmethod
    def _verdicts(
        self, prompt: list[int], branches: list[list[int]], adapter: str | None, builder: PromptBuilder
    ) -> list[float]:
        """Request the log-odds of yes against no after each branch."""

    @abstractmethod
    def _likelihoods(
        self, prompt: list[int], branches: list[list[int]], adapter: str | None, builder: PromptBuilder
    ) -> list[float]:
        """Request the log-probability of each branch after the prompt."""

    @abstractmethod
    def _next(self, titles: TitleList, adapter: str | None) -> list[int]:
        """Request the tokens by which a list grows; see `_extend`."""

    def _name(self, adapter: Adapter | None) -> str | None:
        """Return the name of an adapter on the server, None for the backbone alone."""
        if adapter is None:
            return None
        name = self._names.get(adapter.fingerprint)
        if name is None:
            raise LorarecError(
                f"adapter {adapter.folder} has no name on {self.name}: give {type(self).__name__} all adapters by "
                "their names there"
            )
        return name

    def close(self) -> None:
        """End the threads that send requests; the server runs on."""
        self._server.close()
