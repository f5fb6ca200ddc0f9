"""The service as an application of Ray Serve, with replicas on one or more machines.

Example: serve run lorarec.serving.ray_serve:build dataset=data/shop adapters=adapters num_replicas=2
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from ray import serve

from lorarec.backbone import Backbone, BackboneConfig
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.serving.adapter_paths import find_adapters
from lorarec.serving.app import create_app
from lorarec.serving.config import ServiceConfig
from lorarec.serving.experiment import Experiment
from lorarec.serving.http_config import HttpConfig
from lorarec.serving.keys import KEY_VARIABLE
from lorarec.serving.loading import load_service
from lorarec.serving.logs import configure_logging
from lorarec.serving.server import GRACE
from lorarec.serving.service import STOP_SECONDS, Service
from lorarec.serving.tracing import configure_tracing

#: Name of the deployment, by which a configuration file of Ray Serve changes its options.
DEPLOYMENT = "lorarec"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_backbone(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


class ServeArguments(BaseModel):
    """Arguments of `build`, with the names and meanings of the options of `lorarec serve`.

    Paths must exist on every machine that runs a replica. Those that exist where the application is built may be
    relative.

    Raises:
        ValidationError: If an argument is unknown, missing or of the wrong type.
        LorarecError: If an option is out of range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Annotated[str, Field(description="Dataset folder or hub:OWNER/NAME.")]
    adapters: Annotated[
        list[str],
        BeforeValidator(_as_list),
        Field(description="Folder of adapters, and adapters: hub ids, NAME=OWNER/NAME or NAME=FOLDER."),
    ] = []
    fusion: Annotated[str | None, Field(description="Folder of a fusion.")] = None
    new_item_prior: Annotated[
        float | Literal["auto"] | None, Field(description="Prior of new items in place of that of the fusion.")
    ] = None
    load: Annotated[
        list[str] | None, BeforeValidator(_as_list), Field(description="Adapters to load at the start; None for all.")
    ] = None
    index: Annotated[str | None, Field(description="Folder of a finished index.")] = None
    db: Annotated[
        str | None,
        Field(description="Database URL that all replicas share; an SQLite file serves those of one machine."),
    ] = None
    variants: Annotated[str | None, Field(description="YAML file of an experiment.")] = None
    keys: Annotated[str | None, Field(description="File of API keys, besides LORAREC_API_KEY.")] = None
    backbone: Annotated[
        BackboneConfig, BeforeValidator(_as_backbone), Field(description="Id of the backbone, or its options.")
    ] = BackboneConfig()
    config: Annotated[ServiceConfig, Field(description="Options of `Service`.")] = ServiceConfig()
    num_replicas: Annotated[
        int | Literal["auto"], Field(description="Number of replicas, or auto for Ray's autoscaling.")
    ] = 1

    def resolved(self) -> "ServeArguments":
        """Return the arguments with absolute paths, for processes with other working folders."""
        changed: dict[str, Any] = {
            name: _resolve(getattr(self, name)) for name in ("dataset", "fusion", "index", "variants", "keys")
        }
        if self.db is not None and "://" not in self.db:
            changed["db"] = str(Path(self.db).resolve())
        changed["adapters"] = [_resolve(text) for text in self.adapters]
        return self.model_copy(update=changed)

    def load_service(self) -> Service:
        """Load everything that a replica needs.

        Raises:
            LorarecError: If there is nothing to serve, or something is not usable.
        """
        if not self.adapters and self.fusion is None:
            raise LorarecError("there is nothing to serve: give adapters or a fusion")
        return load_service(
            Backbone.from_config(self.backbone),
            Dataset.load(self.dataset),
            find_adapters(self.adapters),
            self.db,
            self.config,
            None if self.index is None else Path(self.index),
            self.load,
            None if self.fusion is None else Path(self.fusion),
            self.new_item_prior,
            None if self.variants is None else Experiment.load(Path(self.variants)),
        )


def _resolve(text: str | None) -> str | None:
    """Return the absolute path of what exists here, after the name of an adapter; other texts stay."""
    if text is None:
        return None
    name, mark, path = text.rpartition("=")
    if Path(text).exists():
        return str(Path(text).resolve())
    return f"{name}{mark}{Path(path).resolve()}" if mark and Path(path).exists() else text


class Replica:
    """A replica of the service.

    Args:
        arguments: Arguments of the application.
    """

    def __init__(self, arguments: ServeArguments) -> None:
        configure_logging()
        configure_tracing()
        self._keys = arguments.keys
        self._service = arguments.load_service()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Create the ASGI application, which Ray Serve starts and stops."""
        return create_app(self._service, os.environ.get(KEY_VARIABLE), HttpConfig(keys=self._keys))

    def check_health(self) -> None:
        """Check that no thread hangs, like `/livez`; Ray Serve replaces a replica that fails.

        Raises:
            RuntimeError: If a thread hangs.
        """
        if not self._service.alive:
            raise RuntimeError("a thread of the service hangs")


#: Deployment of replicas, before the application chooses their number.
deployment: serve.Deployment = serve.deployment(name=DEPLOYMENT, graceful_shutdown_timeout_s=GRACE + STOP_SECONDS)(
    serve.ingress()(Replica)
)


def build(arguments: ServeArguments) -> serve.Application:
    """Build the application for `serve run`, `serve deploy` or `ray.serve.run`.

    A replica takes more requests at once than its queues hold, so that the service itself refuses those beyond.

    Args:
        arguments: Arguments of the application.
    """
    replicas = deployment.options(num_replicas=arguments.num_replicas, max_ongoing_requests=4 * arguments.config.queue)
    return replicas.bind(arguments.resolved())
