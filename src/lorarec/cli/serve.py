"""`lorarec serve`: an HTTP service over a dataset and a folder of adapters."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from lorarec.cli.options import BackboneId, Device, Dtype, Quantization, TrustRemoteCode, load_backbone, require_index
from lorarec.errors import LorarecError


def serve(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder: the catalogue, and the first histories.")],
    adapters: Annotated[
        Path, typer.Option("--adapters", help="Folder of PEFT folders, and of what `personalize choose` wrote.")
    ],
    load: Annotated[
        list[str] | None,
        typer.Option("--load", help="Name of an adapter to load at first; repeat it. All if not given."),
    ] = None,
    combine: Annotated[
        Literal["factors", "deltas"],
        typer.Option(help="How requests' mixtures are formed; deltas also mixes adapters of unequal ranks."),
    ] = "factors",
    backbone: BackboneId = "embedded",
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
    trust_remote_code: TrustRemoteCode = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but localhost needs LORAREC_API_KEY.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free one.")] = 8000,
    db: Annotated[
        str | None,
        typer.Option(help="SQLite file or database URL of the histories; DATASET.db beside the dataset if not given."),
    ] = None,
    token_budget: Annotated[int, typer.Option(min=1, help="Padded tokens of requests that share a pass.")] = 8192,
    wait_ms: Annotated[float, typer.Option(min=0, help="How long a batch that is not full waits for more.")] = 2.0,
    queue: Annotated[
        int,
        typer.Option(min=1, help="Requests inside at once, and waiting for the database; beyond, 429."),
    ] = 256,
    index: Annotated[
        Path | None, typer.Option(help="Folder that `lorarec index` made; a light one is made at the start without it.")
    ] = None,
    pool: Annotated[int, typer.Option(min=1, max=1000, help="Candidates that a recommendation ranks.")] = 100,
    grace: Annotated[
        float,
        typer.Option(min=0, max=3600, help="Seconds that requests under way get to finish after SIGTERM."),
    ] = 20.0,
) -> None:
    """Rank and recommend over HTTP, for many adapters, mixtures and users in one batch.

    The histories live in a database, which is filled from the dataset at the first start and grows by POST /v1/events.
    Adapters are loaded and unloaded while it runs. What `lorarec personalize choose` wrote for this dataset is served
    by its folder's name like an adapter: each user under weights of their own, layer by layer. The page at / is for
    trying it out; the API is described at /openapi.json, counters are at /metrics.

    /livez tells whether the process is at work (restart it if not), /readyz and /healthz whether its database can be
    used as well (send it no requests if not). Replicas may share a database and start together. Stop it with Ctrl+C or
    SIGTERM: requests under way get --grace seconds to finish, and the process ends a few seconds later at most.

    An item's `score` orders the answer. It is `log_odds` (readout verdict) or `log_likelihood` (readout likelihood)
    plus `log_prior`: 0 where the request gives the candidates; in recommendations it falls with the place in the pool.

      lorarec serve data/shop --adapters adapters

      curl localhost:8000/v1/rank --json '{"user_id": "u42", "candidates": ["i1", "i2"],
          "adapter": {"general": 0.3, "shop": 0.7}}'

      LORAREC_API_KEY=... lorarec serve data/shop --adapters adapters --host 0.0.0.0 --db postgresql://user@db/lorarec
    """
    from lorarec.data import Dataset

    data = Dataset.load(dataset)
    require_index(index)
    if not adapters.is_dir():
        raise LorarecError(f"adapters folder {adapters} does not exist: give a folder of PEFT folders")
    try:
        from lorarec.serving import Service, ServiceConfig, listen, require_key
        from lorarec.serving import serve as run_service
    except ImportError as error:
        raise LorarecError(f"serving needs {error.name}: pip install 'lorarec[serve]'") from None
    from lorarec.retrieval import Index

    key = os.environ.get("LORAREC_API_KEY")
    require_key(host, key)
    made = None if index is None else Index.load(index, data)
    bound = listen(host, port)
    model = load_backbone(backbone, dtype, device, quantization, trust_remote_code)
    options = ServiceConfig(combine, load or None, token_budget, wait_ms / 1000, queue, pool)
    service = Service(model, data, adapters, _url(db or f"{dataset.resolve()}.db"), options, made)
    names = ", ".join(service.shelf.loaded) or "no adapter"
    typer.echo(
        f"{data.name} with {names} on http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}", err=True
    )
    run_service(service, bound, key, grace)


def _url(db: str) -> str:
    return db if "://" in db else f"sqlite:///{db}"
