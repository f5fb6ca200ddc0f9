"""Adapters and user routers that are loaded and unloaded by name while requests are served."""

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lorarec.data import Dataset, EvidenceModel
from lorarec.errors import LorarecError
from lorarec.serving.adapter_installer import AdapterInstaller
from lorarec.serving.adapter_names import AdapterNames
from lorarec.serving.adapter_sources import AdapterSources
from lorarec.serving.adapter_table import Announcement
from lorarec.serving.batcher import Batcher
from lorarec.serving.engine import (
    AdapterKind,
    LoadedAdapter,
    MultiAdapterEngine,
    ScoringRequest,
)
from lorarec.serving.errors import ApiError
from lorarec.serving.metrics import Metrics
from lorarec.serving.mixtures import check_mixture, weights_by_name

#: Maximum number of characters of an error message that is sent to a client.
MAX_MESSAGE = 1000

#: Function that announces an adapter by its name and its fingerprint, which is None if it is unloaded.
Announce = Callable[[str, str | None], Awaitable[None]]

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
        batcher: Queue in front of the model.
        dataset: Dataset whose users the user routers were trained on.
        metrics: Counters of the service.
        further: Paths or hub ids of further adapters by name.

    Attributes:
        loaded: Adapters by name, as new requests see them.
        names: Aliases of adapters, and the adapter of requests that name none.
        previous: Version of loaded adapters that the latest load with other files replaced, by name.
        unavailable: Why adapters that are announced are not loaded, by name.

    Raises:
        LorarecError: If the folder does not exist, or has an adapter with the name of a further one.
    """

    def __init__(
        self,
        folder: Path | None,
        engine: MultiAdapterEngine,
        batcher: Batcher,
        dataset: Dataset,
        metrics: Metrics,
        further: Mapping[str, str] | None = None,
    ) -> None:
        self._sources = AdapterSources(folder, engine.backbone, dataset, further or {})
        self.loaded: dict[str, LoadedAdapter] = {}
        self.names = AdapterNames()
        self.previous: dict[str, LoadedAdapter] = {}
        self.unavailable: dict[str, str] = {}
        self._engine = engine
        self._batcher = batcher
        self._installer = AdapterInstaller(engine, dataset)
        self._metrics = metrics
        # Models whose words the prompts of adapters have. They are fitted at the start, not while requests are served.
        self._evidence_models: set[EvidenceModel | None] = {None}
        self._lock = asyncio.Lock()

    @property
    def served(self) -> list[str]:
        """Names of the adapters that are loaded here or announced, which are the same in all replicas."""
        return [*self.loaded, *self.unavailable]

    def available(self) -> dict[str, AdapterKind]:
        """Return the names of adapters that can be loaded, sorted, and their kinds (see `AdapterSources`)."""
        return self._sources.available({name: adapter.kind for name, adapter in self.loaded.items()})

    def load_initial(self, names: Sequence[str] | None, announced: Iterable[Announcement] = ()) -> None:
        """Load adapters before the service starts, and apply announcements to them.

        Args:
            names: Names to load; None to load all that are available, except those that are not usable, for which a
                warning is logged.
            announced: Announcements, which take precedence over `names`. Adapters that are announced and not usable
                become unavailable.

        Raises:
            LorarecError: If a named adapter that is not announced is missing, not usable, of another backbone, or
                cannot be combined with the others.
        """
        versions = {each.name: each.fingerprint for each in announced}
        chosen = dict.fromkeys(self.available() if names is None else names)
        tests: dict[LoadedAdapter, ScoringRequest] = {}

        def refuse(name: str, error: LorarecError | OSError) -> None:
            if name in versions:
                self._set_unavailable(name, error)
            elif names is None:
                logger.warning("adapter %s is not loaded: %s", name, error)
            else:
                raise error

        for name, version in (dict.fromkeys(chosen) | versions).items():
            if name in versions and version is None:
                continue  # it was unloaded
            try:
                adapter = self._sources.read(name, version)
                tests[adapter] = self._installer.test_request(adapter)
            except (LorarecError, OSError) as error:
                refuse(name, error)
        try:
            self._installer.install([], tests)
        except LorarecError:
            tests = self._install_compatible(tests, refuse)
        self._evidence_models |= {adapter.prompt.evidence_model for adapter in tests}
        self._publish({adapter.name: adapter for adapter in tests})

    def _install_compatible(
        self, tests: Mapping[LoadedAdapter, ScoringRequest], refuse: Callable[[str, LorarecError], None]
    ) -> dict[LoadedAdapter, ScoringRequest]:
        """Install adapters one by one; those that cannot be installed are refused."""
        installed: dict[LoadedAdapter, ScoringRequest] = {}
        for adapter, request in tests.items():
            try:
                self._installer.install(list(installed), {adapter: request})
            except LorarecError as error:
                refuse(adapter.name, error)
            else:
                installed[adapter] = request
        return installed

    async def load(self, name: str, announce: Announce) -> LoadedAdapter:
        """Load an adapter, or a new version of a loaded one, between two batches.

        Args:
            name: Name of the adapter.
            announce: Function that announces the adapter before requests get it. If it raises an exception, the
                adapter is removed from the model again.

        Raises:
            ApiError: 404, if the folder does not list the name; 409, if it is an alias; 422, if the adapter is not
                usable. A version that was loaded before stays loaded.
        """
        async with self._lock:
            self.names.refuse_load(name)
            if name not in await asyncio.to_thread(self.available):
                raise ApiError(404, self._sources.fusion_refusal(name) or self._not_found(name), "name")
            try:
                new = await self._read(name)
                await self._replace(new, announce)
            except (LorarecError, OSError) as error:
                note = "; the version in memory stays in use" if name in self.loaded else ""
                message = f"adapter {name} cannot be loaded: {self._public_message(error)}{note}"
                raise ApiError(422, message, "name") from error
        return new

    async def roll_back(self, name: str, announce: Announce) -> LoadedAdapter:
        """Put back the version of an adapter that the latest load replaced, between two batches.

        The version that is replaced becomes the previous one, so that a second call undoes the first.

        Args:
            name: Name of the adapter.
            announce: As for `load`.

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
                await self._replace(put_back, announce)
            except LorarecError as error:
                message = f"adapter {name} cannot be rolled back: {self._public_message(error)}"
                raise ApiError(409, f"{message}; version {current.fingerprint} stays in use", "name") from error
        return put_back

    async def _read(self, name: str, version: str | None = None) -> LoadedAdapter:
        new = await asyncio.to_thread(self._sources.read, name, version)
        if new.prompt.evidence_model not in self._evidence_models:
            raise LorarecError(
                "its prompts have words of a next-item model, which is fitted when the service starts: start the "
                "service anew"
            )
        return new

    async def _replace(self, new: LoadedAdapter, announce: Announce | None = None) -> None:
        """Install an adapter, let new requests find it, and remove the version that it replaces, if there is one.

        Raises:
            LorarecError: If the adapter cannot be used; a version that was loaded before stays loaded.
        """
        for about, adapter in self.names.required.items():
            if new.name in (named := weights_by_name(adapter)):
                versions = {(new if name == new.name else self.get(name)): named[name] for name in named}
                try:
                    check_mixture(versions)
                except LorarecError as error:
                    raise LorarecError(f"{about} needs it, and {error}") from error
        test = await asyncio.to_thread(self._installer.test_request, new)
        # The old version stays installed until the queue holds no request for it.
        installed = list(self.loaded.values())
        await self._batcher.call(lambda: self._installer.install(installed, {new: test}))
        if announce:
            try:
                await announce(new.name, new.fingerprint)
            except BaseException:
                await self._install_published()
                raise
        old = self.loaded.get(new.name)
        if old is not None and old.fingerprint != new.fingerprint:
            self.previous[new.name] = old
        self._publish(self.loaded | {new.name: new})
        if old is not None:
            await self._install_published()

    async def unload(self, name: str, announce: Announce) -> None:
        """Remove an adapter from the model after the queued requests for it are scored.

        Args:
            name: Name of an adapter that is loaded, or that is announced and not available.
            announce: Function that announces it first. If it raises an exception, nothing is changed.

        Raises:
            ApiError: 404, if the adapter is not loaded; 409, if an experiment, an alias or the default names it.
        """
        async with self._lock:
            if name not in self.unavailable:
                self.get(name, "name")
            self.names.refuse_unload(name)
            await announce(name, None)
            self._set_available(name)
            await self._remove(name)

    async def _remove(self, name: str) -> None:
        if name in self.loaded:
            self._publish({other: adapter for other, adapter in self.loaded.items() if other != name})
            self.previous.pop(name, None)
            await self._install_published()

    def expect(self, announced: Iterable[Announcement]) -> None:
        """Record announced adapters as unavailable until they are loaded."""
        for each in announced:
            if each.fingerprint and each.name not in self.loaded and each.name not in self.unavailable:
                self._set_unavailable(each.name, "it is being loaded")

    async def apply(self, announcement: Announcement) -> None:
        """Load or unload an adapter as another replica has announced it.

        If the announced version cannot be loaded, the adapter becomes unavailable: no other version is served under its
        name.
        """
        name, version = announcement.name, announcement.fingerprint
        async with self._lock:
            loaded, previous = self.loaded.get(name), self.previous.get(name)
            if version is None:
                self._set_available(name)
                await self._remove(name)
            elif loaded is None or loaded.fingerprint != version:
                try:
                    if previous is None or previous.fingerprint != version:
                        previous = await self._read(name, version)
                    await self._replace(previous)
                except Exception as error:  # whatever is wrong with one adapter, the others are served
                    self._set_unavailable(name, error)
                    await self._remove(name)

    def _set_unavailable(self, name: str, reason: Exception | str) -> None:
        if isinstance(reason, Exception):
            reason = self._public_message(reason)
            if self.unavailable.get(name) != reason:
                logger.warning("adapter %s, which is announced, is not loaded: %s", name, reason)
        self.unavailable = self.unavailable | {name: reason}
        self._metrics.unavailable.labels(name).set(1)

    def _set_available(self, name: str) -> None:
        if name in self.unavailable:
            self.unavailable = {other: reason for other, reason in self.unavailable.items() if other != name}
            self._metrics.unavailable.remove(name)

    async def _install_published(self) -> None:
        published = list(self.loaded.values())
        await self._batcher.call(lambda: self._engine.install(published))

    def get(self, name: str, field: str = "adapter") -> LoadedAdapter:
        """Return a loaded adapter.

        Args:
            name: Name of the adapter.
            field: Field of the request that holds the name.

        Raises:
            ApiError: 404, if the adapter is not loaded; 503, if it is announced and not loaded in this replica.
        """
        if name in self.unavailable:
            raise ApiError(503, f"adapter {name!r} is not available here: {self.unavailable[name]}", field, 1)
        if name not in self.loaded:
            raise ApiError(404, self._not_found(name), field)
        return self.loaded[name]

    def weights(self, adapter: str | Mapping[str, float] | None) -> dict[LoadedAdapter, float]:
        """Return the weights of loaded adapters that a request asks for.

        Args:
            adapter: Name or alias of an adapter, or weights by name; None for the default or the only loaded adapter.

        Raises:
            ApiError: 404, if an adapter is not loaded; 503, if it is announced and not loaded in this replica; 422, if
                the adapters cannot be mixed with the weights, or none is named, there is no default, and several are
                loaded.
        """
        adapter = self.names.default if adapter is None else adapter
        if adapter is None:
            if len(self.served) != 1:
                names = ", ".join(self.served) or "none"
                raise ApiError(
                    422, f"name an adapter or a mixture ({names} loaded; {{}} is the backbone alone)", "adapter"
                )
            return {self.get(self.served[0]): 1.0}
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
        message = str(error)[:MAX_MESSAGE].replace(f"{self._sources.folder}{os.sep}", "")
        return re.sub(r"(?<![\w.])/(?:[^/\s]+/)*", "", message)

    def _publish(self, loaded: dict[str, LoadedAdapter]) -> None:
        self.loaded = loaded
        for name in loaded:
            self._set_available(name)
        self._metrics.adapters.set(len(loaded))

    def _not_found(self, name: str) -> str:
        loaded, available = ", ".join(self.loaded) or "none", ", ".join(self.available()) or "none"
        return f"adapter {name!r} does not exist: loaded {loaded}; in the folder {available}"
