"""The verb `serve`: an HTTP service over a dataset and a folder of adapters."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import config_options
from lorarec.cli.options import IndexFolder, imports_of_large_libraries, load_backbone, require_fusion, require_index
from lorarec.cli.rankers import NewItemPrior, read_prior
from lorarec.cli.settings import use_settings
from lorarec.errors import LorarecError
from lorarec.serving import (
    KEY_VARIABLE,
    NETWORK,
    REQUESTS,
    HttpConfig,
    ServiceConfig,
    check_certificate,
    find_adapters,
    read_keys,
    require_key,
)

EXPERIMENTS = "Experiments"


@config_options
def serve(
    *,
    dataset: Annotated[
        Path, typer.Argument(help="Dataset folder or hub:OWNER/NAME: the catalogue, and the first histories.")
    ],
    options_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="YAML file of these options; variables such as LORAREC_SERVE_PORT and options here take precedence.",
            is_eager=True,
            callback=use_settings,
        ),
    ] = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            "--adapters",
            help="Folder of PEFT folders and of folders of `lorarec personal train-router`, or an adapter: a hub id, "
            "NAME=OWNER/NAME or NAME=FOLDER; may be repeated, or left out with --fusion.",
        ),
    ] = None,
    fusion: Annotated[
        Path | None,
        typer.Option("--fusion", help="Folder of `lorarec fuse`, which answers requests that name no adapter."),
    ] = None,
    new_item_prior: NewItemPrior = None,
    load: Annotated[
        list[str] | None,
        typer.Option("--load", help="Adapter to load at the start, by name; may be repeated; all if not given."),
    ] = None,
    variants: Annotated[
        Path | None,
        typer.Option(
            "--variants",
            help="YAML file of an experiment whose variants answer requests that name no adapter.",
            rich_help_panel=EXPERIMENTS,
        ),
    ] = None,
    answer_log: Annotated[
        Path | None,
        typer.Option(
            "--answer-log",
            help="Folder of Parquet files of the answers with their users, for `lorarec evaluate --log`.",
            rich_help_panel=EXPERIMENTS,
        ),
    ] = None,
    index: IndexFolder = None,
    db: Annotated[
        str | None,
        typer.Option(help="SQLite file or database URL of the histories; DATASET.db if not given."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; any but localhost needs LORAREC_API_KEY or --keys.", rich_help_panel=NETWORK
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.", rich_help_panel=NETWORK)
    ] = 8000,
    config: ServiceConfig,
    http: HttpConfig,
    grace: Annotated[
        float,
        typer.Option(min=0, max=3600, help="Seconds for unfinished requests after SIGTERM.", rich_help_panel=REQUESTS),
    ] = 20.0,
    log_requests: Annotated[
        bool,
        typer.Option(
            "--log-requests", help="Write a line of JSON for each request to standard output.", rich_help_panel=REQUESTS
        ),
    ] = False,
    backbone: BackboneConfig,
) -> None:
    """Rank and recommend over HTTP, for many adapters, mixtures and users in one batch.

    Histories are in a database, which is filled from the dataset at the first start and grows by POST /v1/events.
    Adapters are loaded and unloaded while the service runs. A folder of `lorarec personal train-router` is served like
    an adapter, with weights for each user. A fusion answers all requests that name no adapter. The page at / is for
    trying it out; the API is described at /openapi.json, metrics are at /metrics, and /livez and /readyz are for health
    checks. It stops at Ctrl+C or SIGTERM.

    Example: lorarec serve data/shop --adapters adapters

    Example: lorarec serve data/shop --adapters adapters --fusion fusions/shop

    Example: lorarec serve data/shop --adapters me/shop-adapter --adapters games=me/games-adapter@v2

    Example: LORAREC_API_KEY=... lorarec serve data/shop --adapters adapters --host 0.0.0.0 --db postgresql://user@db/shop

    Example: LORAREC_SERVE_DB=postgresql://user:password@db/shop lorarec serve --config serve.yaml
    """
    from lorarec.data import Dataset

    key = os.environ.get(KEY_VARIABLE)
    # Unusable files are refused before anything heavy is loaded.
    if http.keys is not None:
        read_keys(http.keys)
    check_certificate(http)
    data = Dataset.load(dataset)
    require_index(index)
    if not adapters and fusion is None:
        raise LorarecError("there is nothing to serve: give --adapters or --fusion")
    sources = find_adapters(adapters or [])
    if fusion is None and new_item_prior is not None:
        raise LorarecError("--new-item-prior is for a fusion: name its folder with --fusion")
    require_fusion(fusion)
    prior = read_prior(new_item_prior)
    require_key(host, key, http)
    try:
        with imports_of_large_libraries():
            from lorarec.serving import Experiment, listen, load_service
            from lorarec.serving import serve as run_service
    except ImportError as error:
        raise LorarecError(f"serving needs {error.name}: pip install 'lorarec[serve]'") from None

    experiment = None if variants is None else Experiment.load(variants)
    bound = listen(host, port)
    model = load_backbone(backbone)
    service = load_service(
        model,
        data,
        sources,
        db,
        config,
        index,
        load=load or None,
        fusion=fusion,
        new_item_prior=prior,
        experiment=experiment,
        answer_log=answer_log,
    )
    names = ", ".join(service.adapters.loaded) or "no adapter"
    if service.fusion is not None:
        names = f"the fusion of {', '.join(service.fusion.kinds)} and {names}"
    scheme, name = "http" if http.ssl_certfile is None else "https", f"[{host}]" if ":" in host else host
    typer.echo(f"{data.name} with {names} on {scheme}://{name}:{bound.getsockname()[1]}", err=True)
    run_service(service, bound, key, grace, log_requests, http)
