"""The model with all loaded adapters, which scores requests with different mixtures in one pass."""

import copy
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from lorarec.backbone import Backbone
from lorarec.data import Evidence
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterBank, Combine, MixedModel, check_backbone, inject
from lorarec.personal import UserRouter
from lorarec.prompts import Example, PromptBuilder, PromptConfig
from lorarec.scoring import (
    TREE,
    CachedPrompt,
    plan_for,
    score,
    score_and_cache,
    score_batch,
    score_cached,
    scores_to_numpy,
    tokens_per_pass,
)
from lorarec.serving.prompt_cache import PromptCache

AdapterKind = Literal["adapter", "personal"]
#: Maximum number of instances of the model by default.
MAX_INSTANCES = 8


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """One version of an adapter or of a user router in memory; loading it again gives another object.

    Attributes:
        name: Name of its folder.
        parts: The adapters that are mixed, independent of the files they were read from; one for a plain adapter.
        prompt: How it must be prompted.
        fingerprint: Hash of its files when it was loaded.
        user_router: Router that weights the parts for each user; None for a plain adapter.
        evidence: Evidence from which the words in its prompts come; None for that of all interactions of the dataset.
    """

    name: str
    parts: tuple[Adapter, ...]
    prompt: PromptConfig
    fingerprint: str
    user_router: UserRouter | None = None
    evidence: Evidence | None = None

    @property
    def kind(self) -> AdapterKind:
        """`personal` for a user router, `adapter` otherwise."""
        return "personal" if self.user_router else "adapter"


@dataclass(frozen=True)
class Mixture:
    """Weights of the adapters that score a request.

    Attributes:
        weights: Weight of each adapter; empty for the backbone without adapters.
        part_weights: Weights (layers, K) of the parts of each personal adapter for the user of the request.
    """

    weights: Mapping[LoadedAdapter, float] = field(default_factory=dict)
    part_weights: Mapping[LoadedAdapter, torch.Tensor] = field(default_factory=dict)

    @property
    def key(self) -> Hashable:
        """Value that is equal for mixtures of the same loaded adapters with the same weights."""
        parts = {adapter: each.detach().cpu().numpy().tobytes() for adapter, each in self.part_weights.items()}
        return frozenset(self.weights.items()), frozenset(parts.items())


@dataclass(frozen=True)
class ScoringRequest:
    """A prompt to score and the mixture to score it with: one row of a batch.

    Attributes:
        example: The prompt and its candidates as tokens.
        builder: The builder of the prompt, which knows the readout.
        mixture: Weights of the adapters.
        cached: Whether the prompt is taken from the cache of prompts, and kept in it, if there is one.
    """

    example: Example
    builder: PromptBuilder
    mixture: Mixture = field(default_factory=Mixture)
    cached: bool = True


@dataclass(frozen=True)
class _Row:
    """A request with the key of its prompt in the cache, and the prompt; None if it is not kept, or not found."""

    request: ScoringRequest
    key: Hashable | None = None
    prompt: CachedPrompt | None = None


class MultiAdapterEngine:
    """Score requests with different adapters and mixtures in one pass of the backbone.

    A CPU computes several passes at once, each with its share of the cores, faster than one after the other: threads
    that share one pass wait for each other after every layer. So the engine has instances of the model, which share its
    weights and have their own mixed layers. Passes of different instances may run in different threads at once;
    `install` and `close` must run alone.

    Args:
        backbone: The language model, which is changed in place while adapters are installed.
        combine: Rule by which all adapters are mixed (see `AdapterBank.to_adapter`).
        permanent: Adapters that are always installed.
        instances: Number of instances of the model; None for one for each thread of PyTorch on a CPU, up to
            `MAX_INSTANCES`, and one on other devices.
        prompt_cache: Cache of the prompts that the model has read, which all instances use; None for none.

    Attributes:
        backbone: The language model.
        combine: Rule by which all adapters are mixed.
        instances: Number of instances of the model.

    Raises:
        LorarecError: As for `install`.
    """

    def __init__(
        self,
        backbone: Backbone,
        combine: Combine,
        permanent: Sequence[LoadedAdapter] = (),
        instances: int | None = None,
        prompt_cache: PromptCache | None = None,
    ) -> None:
        self.backbone = backbone
        self.combine = combine
        reusable = plan_for(backbone.model).kind == TREE
        self._prompt_cache = prompt_cache if prompt_cache and prompt_cache.enabled and reusable else None
        # The scores of a longer request are computed in chunks.
        self._longest = tokens_per_pass(backbone.model)
        self._threads = torch.get_num_threads() if backbone.model.device.type == "cpu" else None
        self.instances = instances or min(self._threads or 1, MAX_INSTANCES)
        self._models = [backbone.model, *(_share_weights(backbone.model) for _ in range(self.instances - 1))]
        self._passes = 0
        self._passes_lock = threading.Lock()
        self._permanent = permanent
        self._installed: tuple[LoadedAdapter, ...] = ()
        self._stacked: list[Adapter] = []
        self._part_indices: dict[LoadedAdapter, list[int]] = {}
        self._mixed = [MixedModel(model, {}) for model in self._models]
        self.install([])

    def install(self, adapters: Sequence[LoadedAdapter]) -> None:
        """Replace the adapters in the model, except the permanent ones.

        Raises:
            LorarecError: If an adapter belongs to another backbone, or the adapters cannot be combined by the rule; the
                adapters that were installed before stay installed.
        """
        previous = self._installed
        self._remove()
        try:
            everything = [*self._permanent, *adapters]
            for adapter in everything:
                self._check(adapter)
            self._inject(everything)
        except BaseException:
            self._remove()
            self._inject(previous)
            raise

    def _remove(self) -> None:
        if self._prompt_cache:
            self._prompt_cache.clear()
        for mixed in self._mixed:
            mixed.remove()

    def _check(self, adapter: LoadedAdapter) -> None:
        for part in adapter.parts:
            check_backbone(part, self.backbone)
        if adapter.user_router and adapter.user_router.combine != self.combine:
            trained = adapter.user_router.combine
            raise LorarecError(
                f"{adapter.name} was trained with combine={trained}, but this service mixes by {self.combine}: serve "
                f"it with combine={trained}"
            )

    def _inject(self, adapters: Sequence[LoadedAdapter]) -> None:
        self._stacked = []
        self._part_indices = {
            adapter: [_index_in(self._stacked, part) for part in adapter.parts] for adapter in adapters
        }
        if adapters:
            bank = AdapterBank.stack(self._stacked)
            for number, model in enumerate(self._models):
                self._mixed[number] = inject(model, bank, self.combine)
        self._installed = tuple(adapters)

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoringRequest], instance: int = 0) -> list[np.ndarray]:
        """Score the candidates of each request; requests with the same readout share a pass.

        Prompts that are in the cache are not read again; their requests have a pass of their own.

        Args:
            requests: Requests.
            instance: Number of the instance of the model, which scores for no other thread meanwhile.

        Returns:
            A float32 array (candidates,) for each request: log-odds or log-probabilities, by the request's readout.
        """
        scores = [np.empty(0, np.float32)] * len(requests)
        rows = [self._row(request) for request in requests]
        passes: dict[Hashable, list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            builder = row.request.builder
            passes[builder.readout, builder.yes_no, row.key is None, row.prompt is None].append(index)
        with self._share_of_threads():
            for indices in passes.values():
                results = self._score_pass([rows[index] for index in indices], instance)
                for index, result in zip(indices, results, strict=True):
                    scores[index] = result
        return scores

    def _row(self, request: ScoringRequest) -> _Row:
        """Look up the prompt of a request in the cache.

        The prompts of the readout `likelihood` list the candidates, so they are hardly ever asked for again.
        """
        is_verdict = request.builder.readout == "verdict"
        if not (self._prompt_cache and request.cached and is_verdict and request.example.length <= self._longest):
            return _Row(request)
        key = tuple(request.example.prompt), request.mixture.key
        return _Row(request, key, self._prompt_cache.get(key))

    def scorers(self) -> list[Callable[[Sequence[ScoringRequest]], list[np.ndarray]]]:
        """Return a function for each instance that scores requests with it, as `score` does."""
        return [partial(self.score, instance=instance) for instance in range(self.instances)]

    @contextmanager
    def _share_of_threads(self) -> Iterator[None]:
        """Let this thread compute with its share of the threads of PyTorch within the block."""
        with self._passes_lock:
            self._passes += 1
            passes = self._passes
        if self._threads is not None:
            torch.set_num_threads(max(1, self._threads // passes))
        try:
            yield
        finally:
            with self._passes_lock:
                self._passes -= 1
            if self._threads is not None:
                torch.set_num_threads(self._threads)

    def _score_pass(self, rows: Sequence[_Row], instance: int) -> list[np.ndarray]:
        """Score requests with one readout, either all or none of which have a key, or a prompt, in the cache."""
        mixed = self._mixed[instance]
        mixed.set_weights(self._layer_weights(mixed, [row.request.mixture for row in rows]))
        model, builder = self._models[instance], rows[0].request.builder
        examples = [row.request.example for row in rows]
        if cached := [row.prompt for row in rows if row.prompt is not None]:
            scores = score_cached(model, examples, cached, builder)
        elif self._prompt_cache and rows[0].key is not None:
            scores, prompts = score_and_cache(model, examples, builder)
            for row, prompt in zip(rows, prompts, strict=True):
                self._prompt_cache.add(row.key, prompt)
        elif len(rows) == 1:  # `score` splits a very long request into chunks
            return score(model, examples, builder)
        else:
            scores = score_batch(model, examples, builder)
        return scores_to_numpy(scores)

    def _layer_weights(self, mixed: MixedModel, mixtures: Sequence[Mixture]) -> dict[str, torch.Tensor]:
        """Return the weights (mixtures, K) of the stacked adapters by layer name."""
        layers = {name: index for index, name in enumerate(mixed.layers)}
        weights = torch.zeros(len(layers), len(mixtures), len(self._stacked))
        for row, mixture in enumerate(mixtures):
            for adapter, weight in mixture.weights.items():
                router = adapter.user_router
                adapted = [layers[name] for name in router.layers] if router else list(layers.values())
                parts = mixture.part_weights[adapter] if router else torch.ones(len(layers), 1)
                for index, column in zip(self._part_indices[adapter], parts.unbind(1), strict=True):
                    weights[adapted, row, index] += weight * column
        return dict(zip(layers, weights.to(self.backbone.model.device), strict=True))

    def close(self) -> None:
        """Restore the backbone's own layers."""
        self._remove()
        self._inject(())


def copy_to_memory(adapter: Adapter) -> Adapter:
    """Return an adapter whose tensors do not depend on its file, which safetensors maps and others may rewrite."""
    return replace(adapter, tensors={layer: (a.clone(), b.clone()) for layer, (a, b) in adapter.tensors.items()})


def _share_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model that has the same tensors of parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _index_in(stacked: list[Adapter], adapter: Adapter) -> int:
    """Return the index of an adapter in a list, to which it is appended if no equal adapter is in it."""
    for index, other in enumerate(stacked):
        if _are_equal(adapter, other):
            return index
    stacked.append(adapter)
    return len(stacked) - 1


def _are_equal(adapter: Adapter, other: Adapter) -> bool:
    """Return whether two adapters have the same effect; their scales are compared as float32 would hold them."""
    if adapter.tensors.keys() != other.tensors.keys():
        return False
    return all(
        math.isclose(adapter.scales[layer], other.scales[layer], rel_tol=1e-6)
        and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(pair, other.tensors[layer], strict=True))
        for layer, pair in adapter.tensors.items()
    )
