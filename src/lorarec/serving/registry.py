"""The adapters and user choosers of one folder: which there are, which are loaded, and how requests name them."""

import asyncio
import copy
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.lora import ADAPTER_CONFIG_FILE, check_weights, prompt_config, read_adapter, shared_prompt_config
from lorarec.personal import RECORD, UserRouter
from lorarec.prompts import PromptBuilder
from lorarec.serving.batcher import Batcher
from lorarec.serving.engine import LoadedAdapter, Mixture, MultiAdapterEngine, ScoringRequest
from lorarec.serving.errors import ApiError
from lorarec.serving.metrics import Metrics

Kind = Literal["adapter", "personal"]
ADAPTER: Kind = "adapter"
PERSONAL: Kind = "personal"
#: An adapter's weights may have this many bytes, or as many as the backbone's if these have more.
MIN_LIMIT = 1 << 26
#: Limit on the history of the request with which an adapter is tried.
TRIAL_HISTORY = 100
#: Limit on the characters of an error message that a client gets.
MAX_MESSAGE = 1000

logger = logging.getLogger(__name__)


class AdapterRegistry:
    """Loads and unloads adapters by name while requests are served.

    A name is one of those that listing the folder gives, so no request reaches a file elsewhere. What is loaded lives
    in memory: its folder may change or go. Requests that came before an adapter is unloaded are scored with it.

    Args:
        folder: holds PEFT folders, and folders that `choose_by_user` wrote.
        dataset: whose users choosers must know.

    Attributes:
        loaded: name -> adapter, as new requests find it.
    """

    def __init__(self, folder: Path, engine: MultiAdapterEngine, dataset: Dataset, metrics: Metrics) -> None:
        self.folder = folder
        self.loaded: dict[str, LoadedAdapter] = {}
        self._engine = engine
        self._dataset = dataset
        self._metrics = metrics
        self._changing = asyncio.Lock()
        # A tokenizer is for one thread at a time, and requests have theirs in use.
        self._tokenizer = copy.deepcopy(engine.backbone.tokenizer)

    def available(self) -> dict[str, Kind]:
        """Names below the adapters folder, in order, and what they are; none if it is gone.

        What cannot be looked at, such as a link to itself, and names that no request can hold are left out.
        """
        try:
            entries = sorted(os.listdir(self.folder))
        except OSError:
            return {}
        kinds = {name: self._kind(name) for name in entries if name.isprintable() and not name.startswith(".")}
        return {name: kind for name, kind in kinds.items() if kind}

    def _kind(self, name: str) -> Kind | None:
        marks: dict[str, Kind] = {ADAPTER_CONFIG_FILE: ADAPTER, RECORD: PERSONAL}
        # Unlike Path.is_file, os.path.isfile does not raise for a path that cannot be read.
        return next((kind for mark, kind in marks.items() if os.path.isfile(self.folder / name / mark)), None)

    def read(self, name: str) -> LoadedAdapter:
        """Read one of the folder's adapters or choosers into memory.

        Raises:
            LorarecError: the folder does not list the name, or what it holds is unusable.
        """
        if name not in (listed := self.available()):
            raise LorarecError(f"no adapter {name!r} in the adapters folder: it has {', '.join(listed) or 'none'}")
        if listed[name] == PERSONAL:
            chooser = UserRouter.load(self.folder / name, self._engine.backbone, self._dataset)
            return LoadedAdapter(name, chooser.adapters, chooser.prompt, chooser.fingerprint, chooser)
        limit = max(MIN_LIMIT, self._engine.backbone.model.get_memory_footprint())
        adapter = read_adapter(self.folder / name, limit=limit)
        # Copies: what safetensors reads is backed by the file, which may be cut short or rewritten later.
        tensors = {layer: (a.clone(), b.clone()) for layer, (a, b) in adapter.tensors.items()}
        return LoadedAdapter(name, (replace(adapter, tensors=tensors),), prompt_config(adapter), adapter.fingerprint)

    def open(self, names: Sequence[str] | None) -> None:
        """Load adapters before the service runs.

        Args:
            names: all that the folder lists if None; those that cannot be used are then left out with a warning.

        Raises:
            LorarecError: one that was named is missing, unusable, of another backbone, or cannot be mixed with the
                others.
        """
        rows: dict[LoadedAdapter, ScoringRequest] = {}
        for name in self.available() if names is None else names:
            try:
                new = self.read(name)
                rows[new] = self._trial(new)
            except (LorarecError, OSError) as error:
                if names is not None:
                    raise
                logger.warning("adapter %s is not loaded: %s", name, error)
        try:
            self._install([], rows)
        except LorarecError:
            if names is not None:
                raise
            rows = self._install_compatible(rows)
        self._publish({one.name: one for one in rows})

    def _install_compatible(self, rows: Mapping[LoadedAdapter, ScoringRequest]) -> dict[LoadedAdapter, ScoringRequest]:
        """Install adapters one by one, and leave out with a warning each that cannot be."""
        kept: dict[LoadedAdapter, ScoringRequest] = {}
        for one, row in rows.items():
            try:
                self._install(list(kept), {one: row})
            except LorarecError as error:
                logger.warning("adapter %s is not loaded: %s", one.name, error)
            else:
                kept[one] = row
        return kept

    def _trial(self, one: LoadedAdapter) -> ScoringRequest:
        """A request of two titles for an adapter, prompted as its record says.

        Raises:
            LorarecError: no prompt can be built with the settings of its record.
        """
        prompt = one.prompt
        builder = PromptBuilder(
            self._tokenizer, prompt.readout, prompt.template, prompt.max_tokens, prompt.max_title_tokens
        )
        titles = list(islice(self._dataset.titles.values(), 2))
        example = builder.example([titles[0]] * min(prompt.max_history, TRIAL_HISTORY), titles)
        return ScoringRequest(
            example, builder, Mixture({one: 1.0}, {one: one.chooser.weights(None)} if one.chooser else {})
        )

    def _install(self, loaded: Sequence[LoadedAdapter], new: Mapping[LoadedAdapter, ScoringRequest]) -> None:
        """Put more adapters into the model, and take them out again if their scores are NaN or infinite.

        Args:
            loaded: those that are in it.
            new: adapter -> what to try it with.

        Raises:
            LorarecError: they do not go together, or one's scores are NaN or infinite; those loaded stay.
        """
        self._engine.install([*loaded, *new])
        try:
            for one, row in new.items():
                if not np.isfinite(self._engine.score([row])[0]).all():
                    raise LorarecError(f"the scores of {one.name} are NaN or infinite: train it at a lower rate")
        except BaseException:
            self._engine.install(loaded)
            raise

    async def load(self, name: str, batcher: Batcher) -> LoadedAdapter:
        """Load an adapter, or a new version of one that is loaded, between two batches.

        Raises:
            Problem: 404 for a name that the folder does not list, 422 for an adapter that cannot be used; what was
                loaded under the name stays.
        """
        async with self._changing:
            if name not in await asyncio.to_thread(self.available):
                raise ApiError(404, self._missing(name), "name")
            try:
                new = await asyncio.to_thread(self.read, name)
                trial = await asyncio.to_thread(self._trial, new)
                # Old and new version together, until no request for the old one is left in the queue.
                before = list(self.loaded.values())
                await batcher.call(lambda: self._install(before, {new: trial}))
            except (LorarecError, OSError) as error:
                kept = "; the version in memory stays in use" if name in self.loaded else ""
                raise ApiError(422, f"adapter {name} cannot be loaded: {self._message(error)}{kept}", "name") from error
            replaced = name in self.loaded
            self._publish(self.loaded | {name: new})
            if replaced:
                await self._install_published(batcher)
        return new

    async def unload(self, name: str, batcher: Batcher) -> None:
        """Take an adapter out of the model once the requests for it are answered.

        Raises:
            Problem: 404, it is not loaded.
        """
        async with self._changing:
            self.find(name, "name")
            self._publish({other: one for other, one in self.loaded.items() if other != name})
            await self._install_published(batcher)

    async def _install_published(self, batcher: Batcher) -> None:
        published = list(self.loaded.values())
        await batcher.call(lambda: self._engine.install(published))

    def find(self, name: str, field: str = "adapter") -> LoadedAdapter:
        """The loaded adapter of a name.

        Raises:
            Problem: 404, naming those that are loaded.
        """
        if name not in self.loaded:
            raise ApiError(404, self._missing(name), field)
        return self.loaded[name]

    def mixture(self, wanted: str | Mapping[str, float] | None) -> dict[LoadedAdapter, float]:
        """Weights of a request: of the adapter or mixture it names, or of the only adapter there is.

        Raises:
            Problem: an adapter is not loaded, weights off the simplex, or a mixture of adapters that cannot share
                prompts.
        """
        if wanted is None:
            if len(self.loaded) != 1:
                names = ", ".join(self.loaded) or "none"
                raise ApiError(
                    422, f"name an adapter or a mixture ({names} loaded; {{}} is the backbone alone)", "adapter"
                )
            return dict.fromkeys(self.loaded.values(), 1.0)
        weights = {wanted: 1.0} if isinstance(wanted, str) else wanted
        mixture = {self.find(name): weight for name, weight in weights.items()}
        try:
            if mixture:
                check_weights(list(mixture.values()), len(mixture))
                shared_prompt_config({one.name: one.prompt for one in mixture})
        except LorarecError as error:
            raise ApiError(422, str(error), "adapter") from None
        return mixture

    def holds(self, mixture: Mapping[LoadedAdapter, float]) -> bool:
        """Whether these very versions are still the ones that new requests get."""
        return all(self.loaded.get(one.name) is one for one in mixture)

    def _message(self, error: Exception) -> str:
        """An error's message, with names of files but no paths to them."""
        message = str(error)[:MAX_MESSAGE].replace(f"{self.folder}{os.sep}", "")
        return re.sub(r"(?<![\w.])/(?:[^/\s]+/)*", "", message)

    def _publish(self, loaded: dict[str, LoadedAdapter]) -> None:
        self.loaded = loaded
        self._metrics.adapters.set(len(loaded))

    def _missing(self, name: str) -> str:
        there = ", ".join(self.available()) or "none"
        return f"adapter {name!r} is not there: loaded {', '.join(self.loaded) or 'none'}; in the folder {there}"
