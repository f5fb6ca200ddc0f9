"""Options of the service."""

from dataclasses import dataclass

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.lora import Combine
from lorarec.options import convert_options, document_options, option

REQUESTS = "Requests and batches"
MAX_POOL = 1000


@document_options
@dataclass(frozen=True)
class ServiceConfig:
    """Options of `Service`.

    Raises:
        LorarecError: If a value is of the wrong type or out of range.
    """

    combine: Combine = option("factors", "Sum of A and B (factors, rank r) or of the products B A (deltas).")
    default_adapter: str | None = option(
        None, "Name or alias of the adapter of requests that name none; if not given, the only loaded one."
    )
    pool: int = option(
        100,
        "Number of candidates that the index proposes for a recommendation; requests for more items are refused.",
    )
    token_budget: int | None = option(
        None,
        "Tokens per forward pass, padding included; 2048 on a CPU and 8192 elsewhere if not given.",
        REQUESTS,
    )
    instances: int | None = option(
        None,
        "Number of passes at once; one for each core of a CPU, up to 8, and one elsewhere if not given.",
        REQUESTS,
    )
    prompt_cache: int = option(
        256,
        "Memory in MiB for prompts that the model has read, so that a user's next ranking reads its candidates only; "
        "0 to keep none.",
        REQUESTS,
    )
    wait_ms: float = option(2.0, "Milliseconds that a batch waits for more requests.", REQUESTS)
    queue: int = option(256, "Maximum number of requests at once; others get 429.", REQUESTS)
    max_wait: float = option(
        10.0, "Maximum number of seconds that a request is expected to wait for the model; others get 429.", REQUESTS
    )

    def __post_init__(self) -> None:
        convert_options(self)
        refuse_out_of_range(
            self, ("pool", "token_budget", "instances", "queue"), ("prompt_cache", "wait_ms", "max_wait"), ()
        )
        if self.pool > MAX_POOL:
            raise LorarecError(f"option pool must be at most {MAX_POOL}, got {self.pool}")
