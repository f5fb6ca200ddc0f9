"""Adapters and user routers that are loaded and unloaded by name while requests are served."""

import asyncio
import copy
import logging
import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from lorarec.data import Dataset, EvidenceModel
from lorarec.errors import LorarecError
from lorarec.io import FolderKind
from lorarec.lora import (
    ADAPTER_CONFIG_FILE,
    adapter_folder,
    prompt_config,
    read_adapter,
)
from lorarec.personal import PERSONAL_FILES, RECORD, UserRouter
from lorarec.prompts import PromptBuilder
from lorarec.serving.adapter_names import AdapterNames
from lorarec.serving.batcher import Batcher
from lorarec.serving.engine import (
    AdapterKind,
    LoadedAdapter,
    Mixture,
    MultiAdapterEngine,
    ScoringRequest,
    copy_to_memory,
)
from lorarec.serving.errors import ApiError
from lorarec.serving.metrics import Metrics
from lorarec.serving.mixtures import check_mixture, weights_by_name

_MARKERS: dict[str, AdapterKind] = {ADAPTER_CONFIG_FILE: "adapter", RECORD: "personal"}
#: Minimum of the limit on the bytes of an adapter's weights, which is otherwise the size of the backbone.
MIN_LIMIT = 1 << 26
#: Maximum length of the history in the request that tests a new adapter.
TEST_HISTORY = 100
#: Maximum number of characters of an error message that is sent to a client.
MAX_MESSAGE = 1000

logger = logging.getLogger(__name__)


class AdapterRegistry:
    """Load and unload adapters by name while requests are served.

    A name must be in the listing of the folder or among the further ones, so requests cannot reach files elsewhere.
    Adapters are copied into memory: their folders may change or disappear. Loading an adapter of the hub downloads the
    commit that its revision has at that time. Requests that arrived before an adapter is unloaded are still scored
    with it. The version that a load replaces is kept in memory, one for each loaded adapter, so that it can be put back
    whatever its folder holds by then.

    Args:
        folder: Folder of PEFT folders and of folders of `train_user_router`; None for no adapters.
        engine: Model that scores with the adapters.
        dataset: Dataset whose users the user routers were trained on.
        metrics: Counters of the service.
        further: Paths or hub ids of further adapters by name.

    Attributes:
        folder: Folder of PEFT folders and of folders of `train_user_router`; None for no adapters.
        further: Paths or hub ids of further adapters by name.
        loaded: Adapters by name, as new requests see them.
        names: Aliases of adapters, and the adapter of requests that name none.
        previous: Version of loaded adapters that the latest load with other files replaced, by name.

    Raises:
        LorarecError: If the folder has an adapter with the name of a further one.
    """

    def __init__(
        self,
        folder: Path | None,
        engine: MultiAdapterEngine,
        dataset: Dataset,
        metrics: Metrics,
        further: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.further = dict(further or {})
        for path in self._entries():
            if path.name in self.further:
                raise LorarecError(f"{self.further[path.name]} and {path} have the same name: give one of them another")
        self.loaded: dict[str, LoadedAdapter] = {}
        self.names = AdapterNames()
        self.previous: dict[str, LoadedAdapter] = {}
        self._engine = engine
        self._dataset = dataset
        self._metrics = metrics
        # Models whose words the prompts of adapters have. They are fitted at the start, not while requests are served.
        self._evidence_models: set[EvidenceModel | None] = {None}
        self._lock = asyncio.Lock()
        # Tokenizers are not thread-safe, and requests use the backbone's in another thread.
        self._tokenizer = copy.deepcopy(engine.backbone.tokenizer)

    def available(self) -> dict[str, AdapterKind]:
        """Return the further names and those in the adapters folder, sorted, and their kinds.

        Entries that cannot be read, such as a link to itself, and names that no request can hold are left out.
        """
        kinds = {path.name: _kind(path) for path in self._entries()}
        kinds |= {name: self._kind_of_further(name) for name in self.further}
        return {name: kind for name, kind in sorted(kinds.items()) if kind}

    def _kind_of_further(self, name: str) -> AdapterKind:
        """Return the kind of a further adapter; for one of the hub it is known once it is loaded."""
        if name in self.loaded:
            return self.loaded[name].kind
        return _kind(Path(self.further[name])) or "adapter"

    def _entries(self) -> list[Path]:
        if self.folder is None:
            return []
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return []
        return [self.folder / name for name in names if name.isprintable() and not name.startswith(".")]

    def read(self, name: str) -> LoadedAdapter:
        """Read an adapter or a user router into memory.

        Raises:
            LorarecError: If there is no such name, its files are not usable, or they cannot be downloaded.
        """
        available = self.available()
        if name not in available:
            names = ", ".join(available) or "none"
            raise LorarecError(
                self._fusion_refusal(name) or f"no adapter {name!r} in the adapters folder: it has {names}"
            )
        folder = Path(self.folder or "", name)
        if name in self.further:
            folder = adapter_folder(self.further[name], PERSONAL_FILES)
        if _kind(folder) == "personal":
            router = UserRouter.load(folder, self._engine.backbone, self._dataset)
            return LoadedAdapter(name, router.adapters, router.prompt, router.fingerprint, router)
        limit = max(MIN_LIMIT, self._engine.backbone.model.get_memory_footprint())
        adapter = read_adapter(folder, limit=limit)
        return LoadedAdapter(name, (copy_to_memory(adapter),), prompt_config(adapter), adapter.fingerprint)

    def load_initial(self, names: Sequence[str] | None) -> None:
        """Load adapters before the service starts.

        Args:
            names: Names to load; None to load all that are available, except those that are not usable, for which a
                warning is logged.

        Raises:
            LorarecError: If a named adapter is missing, not usable, of another backbone, or cannot be combined with
                the others.
        """
        tests: dict[LoadedAdapter, ScoringRequest] = {}
        for name in self.available() if names is None else names:
            try:
                adapter = self.read(name)
                tests[adapter] = self._test_request(adapter)
            except (LorarecError, OSError) as error:
                if names is not None:
                    raise
                logger.warning("adapter %s is not loaded: %s", name, error)
        try:
            self._install([], tests)
        except LorarecError:
            if names is not None:
                raise
            tests = self._install_compatible(tests)
        self._evidence_models |= {adapter.prompt.evidence_model for adapter in tests}
        self._publish({adapter.name: adapter for adapter in tests})

    def _install_compatible(self, tests: Mapping[LoadedAdapter, ScoringRequest]) -> dict[LoadedAdapter, ScoringRequest]:
        """Install adapters one by one; those that cannot be installed are left out with a warning."""
        installed: dict[LoadedAdapter, ScoringRequest] = {}
        for adapter, request in tests.items():
            try:
                self._install(list(installed), {adapter: request})
            except LorarecError as error:
                logger.warning("adapter %s is not loaded: %s", adapter.name, error)
            else:
                installed[adapter] = request
        return installed

    def _test_request(self, adapter: LoadedAdapter) -> ScoringRequest:
        """Build a request with two candidates for an adapter, prompted as its record says.

        Raises:
            LorarecError: If no prompt can be built with the recorded options.
        """
        prompt = adapter.prompt
        builder = PromptBuilder(
            self._tokenizer, prompt.readout, prompt.template, prompt.max_tokens, prompt.max_title_tokens
        )
        titles = list(islice(self._dataset.titles.values(), 2))
        example = builder.example([titles[0]] * min(prompt.max_history, TEST_HISTORY), titles)
        router = adapter.user_router
        mixture = Mixture({adapter: 1.0}, {adapter: router.weights(None)} if router else {})
        return ScoringRequest(example, builder, mixture)

    def _install(self, installed: Sequence[LoadedAdapter], tests: Mapping[LoadedAdapter, ScoringRequest]) -> None:
        """Install further adapters in the model and score a request with each; on failure they are removed again.

        Args:
            installed: Adapters that the model has already.
            tests: Request to score with each new adapter.

        Raises:
            LorarecError: If the adapters cannot be combined, or the scores of one are NaN or infinite.
        """
        self._engine.install([*installed, *tests])
        try:
            for adapter, request in tests.items():
                if not np.isfinite(self._engine.score([request])[0]).all():
                    raise LorarecError(
                        f"the scores of {adapter.name} are NaN or infinite: train it with a lower learning_rate"
                    )
        except BaseException:
            self._engine.install(installed)
            raise

    async def load(self, name: str, batcher: Batcher) -> LoadedAdapter:
        """Load an adapter, or a new version of a loaded one, between two batches.

        Raises:
            ApiError: 404, if the folder does not list the name; 409, if it is an alias; 422, if the adapter is not
                usable. A version that was loaded before stays loaded.
        """
        async with self._lock:
            self.names.refuse_load(name)
            if name not in await asyncio.to_thread(self.available):
                raise ApiError(404, self._fusion_refusal(name) or self._not_found(name), "name")
            try:
                new = await asyncio.to_thread(self.read, name)
                if new.prompt.evidence_model not in self._evidence_models:
                    raise LorarecError(
                        "its prompts have words of a next-item model, which is fitted when the service starts: start "
                        "the service anew"
                    )
                await self._replace(new, batcher)
            except (LorarecError, OSError) as error:
                note = "; the version in memory stays in use" if name in self.loaded else ""
                message = f"adapter {name} cannot be loaded: {self._public_message(error)}{note}"
                raise ApiError(422, message, "name") from error
        return new

    async def roll_back(self, name: str, batcher: Batcher) -> LoadedAdapter:
        """Put back the version of an adapter that the latest load replaced, between two batches.

        The version that is replaced becomes the previous one, so that a second call undoes the first.

        Raises:
            ApiError: 404, if the adapter is not loaded; 409, if no version of it has been replaced, or the previous one
                cannot be combined with the adapters that are loaded now.
        """
        async with self._lock:
            current = self.get(name, "name")
            if name not in self.previous:
                raise ApiError(
                    409,
                    f"adapter {name!r} has no previous version: none was replaced since it was loaded; load it anew "
                    "from a folder with the wanted version",
                    "name",
                )
            put_back = self.previous[name]
            try:
                await self._replace(put_back, batcher)
            except LorarecError as error:
                message = f"adapter {name} cannot be rolled back: {self._public_message(error)}"
                raise ApiError(409, f"{message}; version {current.fingerprint} stays in use", "name") from error
        return put_back

    async def _replace(self, new: LoadedAdapter, batcher: Batcher) -> None:
        """Install an adapter, let new requests find it, and remove the version that it replaces, if there is one.

        Raises:
            LorarecError: If the adapter cannot be used; a version that was loaded before stays loaded.
        """
        for about, adapter in self.names.required.items():
            if new.name in (named := weights_by_name(adapter)):
                versions = {(new if name == new.name else self.loaded[name]): named[name] for name in named}
                try:
                    check_mixture(versions)
                except LorarecError as error:
                    raise LorarecError(f"{about} needs it, and {error}") from error
        test = await asyncio.to_thread(self._test_request, new)
        # The old version stays installed until the queue holds no request for it.
        installed = list(self.loaded.values())
        await batcher.call(lambda: self._install(installed, {new: test}))
        old = self.loaded.get(new.name)
        if old is not None and old.fingerprint != new.fingerprint:
            self.previous[new.name] = old
        self._publish(self.loaded | {new.name: new})
        if old is not None:
            await self._install_published(batcher)

    async def unload(self, name: str, batcher: Batcher) -> None:
        """Remove an adapter from the model after the queued requests for it are scored.

        Raises:
            ApiError: 404, if the adapter is not loaded; 409, if an experiment, an alias or the default names it.
        """
        async with self._lock:
            self.get(name, "name")
            self.names.refuse_unload(name)
            self._publish({other: adapter for other, adapter in self.loaded.items() if other != name})
            self.previous.pop(name, None)
            await self._install_published(batcher)

    async def _install_published(self, batcher: Batcher) -> None:
        published = list(self.loaded.values())
        await batcher.call(lambda: self._engine.install(published))

    def get(self, name: str, field: str = "adapter") -> LoadedAdapter:
        """Return a loaded adapter.

        Args:
            name: Name of the adapter.
            field: Field of the request that holds the name.

        Raises:
            ApiError: 404, if the adapter is not loaded.
        """
        if name not in self.loaded:
            raise ApiError(404, self._not_found(name), field)
        return self.loaded[name]

    def weights(self, adapter: str | Mapping[str, float] | None) -> dict[LoadedAdapter, float]:
        """Return the weights of loaded adapters that a request asks for.

        Args:
            adapter: Name or alias of an adapter, or weights by name; None for the default or the only loaded adapter.

        Raises:
            ApiError: 404, if an adapter is not loaded; 422, if the adapters cannot be mixed with the weights, or none
                is named, there is no default, and several are loaded.
        """
        adapter = self.names.default if adapter is None else adapter
        if adapter is None:
            if len(self.loaded) != 1:
                names = ", ".join(self.loaded) or "none"
                raise ApiError(
                    422, f"name an adapter or a mixture ({names} loaded; {{}} is the backbone alone)", "adapter"
                )
            return dict.fromkeys(self.loaded.values(), 1.0)
        weights = {self.get(name): weight for name, weight in self.names.weights(adapter).items()}
        try:
            check_mixture(weights)
        except LorarecError as error:
            raise ApiError(422, str(error), "adapter") from None
        return weights

    def require(self, adapter: str | Mapping[str, float], about: str) -> None:
        """Keep an adapter or a mixture in use: refuse to unload it, and to load versions that do not fit each other.

        Args:
            adapter: Name of an adapter, or weights by name.
            about: Words for what needs it.

        Raises:
            ApiError: As for `weights`.
        """
        self.weights(adapter)
        self.names.required[about] = adapter

    def are_current(self, adapters: Mapping[LoadedAdapter, float]) -> bool:
        """Return whether these versions of the adapters are the loaded ones."""
        return all(self.loaded.get(adapter.name) is adapter for adapter in adapters)

    def _public_message(self, error: Exception) -> str:
        """Return the message of an error with the names of files, but without the paths to them."""
        message = str(error)[:MAX_MESSAGE].replace(f"{self.folder}{os.sep}", "")
        return re.sub(r"(?<![\w.])/(?:[^/\s]+/)*", "", message)

    def _publish(self, loaded: dict[str, LoadedAdapter]) -> None:
        self.loaded = loaded
        self._metrics.adapters.set(len(loaded))

    def _fusion_refusal(self, name: str) -> str | None:
        """Return why a name of the folder cannot be loaded if it is a fusion; otherwise None."""
        if any(path.name == name and (path / FolderKind.FUSION.marker).exists() for path in self._entries()):
            return f"{name!r} is a fusion, not an adapter: start the service with option fusion"
        return None

    def _not_found(self, name: str) -> str:
        loaded, available = ", ".join(self.loaded) or "none", ", ".join(self.available()) or "none"
        return f"adapter {name!r} does not exist: loaded {loaded}; in the folder {available}"


def _kind(folder: Path) -> AdapterKind | None:
    for marker, kind in _MARKERS.items():
        # Unlike Path.is_file, os.path.isfile does not raise for a path that cannot be read.
        if os.path.isfile(folder / marker):
            return kind
    return None
