"""Requests to a running model server: timeouts, retries, concurrency, and errors in one line."""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import JsonObject
from lorarec.options import convert_options, document_options, option

#: Environment variable of the key that is sent to a model server.
API_KEY = "LORAREC_ENGINE_API_KEY"
#: Seconds before the first retry; each further one waits twice as long.
FIRST_WAIT = 0.5
#: Largest timeout in seconds, a day: sockets have a limit.
MAX_TIMEOUT = 86_400
SERVER = "Model server"

_T = TypeVar("_T")


@document_options
@dataclass(frozen=True)
class ServerConfig:
    """Options of requests to a running vLLM or SGLang server.

    The key of the server, if it has one, is read from the environment variable `LORAREC_ENGINE_API_KEY`.

    Raises:
        LorarecError: If the address is not http or https, or a number is out of range.

    Examples:
        >>> from lorarec import ServerConfig
        >>> ServerConfig("http://gpu-1:8000", engine_timeout=120).engine_concurrency
        8
    """

    engine_url: str | None = option(
        None, "Address of the server; None for port 8000 (vLLM) or 30000 (SGLang) of this machine.", SERVER
    )
    engine_model: str | None = option(None, "Name of the backbone on the server; None if it serves only one.", SERVER)
    engine_timeout: float = option(60.0, "Seconds to wait for an answer.", SERVER)
    engine_retries: int = option(3, "Number of further attempts after a connection error.", SERVER)
    engine_concurrency: int = option(8, "Maximum number of requests at the same time.", SERVER)

    def __post_init__(self) -> None:
        convert_options(self)
        refuse_out_of_range(self, ("engine_concurrency",), ("engine_retries",), ("engine_timeout",))
        if self.engine_timeout > MAX_TIMEOUT:
            raise LorarecError(
                f"option engine_timeout must be at most {MAX_TIMEOUT} seconds, got {self.engine_timeout}"
            )
        if self.engine_url is not None and not self.engine_url.startswith(("http://", "https://")):
            raise LorarecError(f"option engine_url must begin with http:// or https://, got {self.engine_url!r}")


class ModelServer:
    """A running model server.

    Args:
        kind: Name of the software, for messages.
        config: Options of the requests.
        default_url: Address if the options have none.

    Attributes:
        url: Address without a slash at the end.
    """

    def __init__(self, kind: str, config: ServerConfig, default_url: str) -> None:
        self.kind = kind
        self.url = (config.engine_url or default_url).rstrip("/").removesuffix("/v1")
        self._config = config
        self._key = os.environ.get(API_KEY)
        self._pool = ThreadPoolExecutor(config.engine_concurrency)

    def get(self, path: str) -> Any:
        """Return the JSON answer of a GET request.

        Raises:
            LorarecError: As for `post`.
        """
        return self._request(path, None)

    def post(self, path: str, body: JsonObject) -> Any:
        """Return the JSON answer of a POST request.

        Raises:
            LorarecError: The server cannot be reached, does not answer in time, or answers with an error or with
                something that is not JSON.
        """
        return self._request(path, json.dumps(body).encode())

    def map(self, function: Callable[..., _T], *arguments: Iterable[Any]) -> list[_T]:
        """Call a function that sends a request for each tuple of arguments, several at the same time."""
        return list(self._pool.map(function, *arguments))

    def read(self, path: str, reader: Callable[[], _T]) -> _T:
        """Call a function that reads an answer.

        Raises:
            LorarecError: The answer does not have the fields that the function reads.
        """
        try:
            return reader()
        except LorarecError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            detail = f"{type(error).__name__}: {error}"
            raise LorarecError(
                f"{self.url}{path} answered without the fields that {self.kind} documents ({detail}): check its version"
            ) from error

    def close(self) -> None:
        """End the threads that send requests."""
        self._pool.shutdown(cancel_futures=True)

    def _request(self, path: str, body: bytes | None) -> Any:
        request = Request(self.url + path, body, {"Content-Type": "application/json"})
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        text = self._send(request)
        try:
            return json.loads(text)
        except ValueError as error:
            raise LorarecError(
                f"{request.full_url} answered {text[:60]!r}, which is not JSON: make sure that it is a {self.kind} "
                "server"
            ) from error

    def _send(self, request: Request) -> bytes:
        """Send a request, again after connection errors, and return the body of the answer."""
        waits: Sequence[float | None] = [*(FIRST_WAIT * 2**i for i in range(self._config.engine_retries)), None]
        for wait in waits:
            try:
                with urlopen(request, timeout=self._config.engine_timeout) as answer:
                    return bytes(answer.read())
            except HTTPError as error:
                raise self._refusal(request, error) from error
            except (OSError, HTTPException) as error:
                reason = error.reason if isinstance(error, URLError) else error
                if isinstance(reason, TimeoutError):
                    raise LorarecError(
                        f"{request.full_url} did not answer within {self._config.engine_timeout:g} seconds: raise "
                        "engine_timeout, or lower engine_concurrency"
                    ) from error
                if wait is None:
                    raise LorarecError(
                        f"{self.kind} at {self.url} cannot be reached ({reason}): start it, or set engine_url"
                    ) from error
            time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _refusal(self, request: Request, error: HTTPError) -> LorarecError:
        """Return the error for an answer with a status that is not 200."""
        if error.code in (401, 403):
            return LorarecError(f"{request.full_url} answered {error.code}: set {API_KEY} to the key of the server")
        try:
            text = error.read().decode(errors="replace")
        except (OSError, HTTPException):
            text = ""
        cause = " ".join(_message(text).split())[:200] or error.reason
        fix = f"make sure that it is a {self.kind} server" if error.code == 404 else "see the log of the server"
        return LorarecError(f"{request.full_url} answered {error.code} ({cause}): {fix}")


def _message(text: str) -> str:
    """Return the message of the body of an error, which is in one of two places."""
    try:
        content = json.loads(text)
        return str(content.get("error", content)["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return text
