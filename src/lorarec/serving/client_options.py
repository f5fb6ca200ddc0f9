"""Options of both clients of the service, and their decisions about retries."""

import math
import os
from typing import Any, TypeVar

import httpx2

from lorarec.errors import LorarecError
from lorarec.serving import client_calls as calls
from lorarec.serving.client_calls import Call

#: Environment variable of the API key, which the service reads as well.
API_KEY = "LORAREC_API_KEY"

T = TypeVar("T")


class ClientOptions:
    """Options that both clients share, and their decisions about retries."""

    def __init__(self, base_url: str, api_key: str | None, timeout: float, retries: int) -> None:
        _check_url(base_url)
        if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise LorarecError(f"timeout must be a positive number of seconds, got {timeout!r}")
        if not isinstance(retries, int) or retries < 0:
            raise LorarecError(f"retries must be an integer that is not negative, got {retries!r}")
        key = os.environ.get(API_KEY) if api_key is None else api_key
        headers = {"Accept": b"application/json"} | _authorization(key)
        self.base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._retries = retries
        self._options: dict[str, Any] = {"base_url": self.base_url, "timeout": timeout, "headers": headers}

    def _request(self, call: Call[Any], request_id: str) -> dict[str, Any]:
        """Return the arguments of the request of a call."""
        calls.check_query(call.query)
        headers, content = {"X-Request-ID": request_id, **call.headers}, None
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            content = calls.encode_body(call.body)
        return {"method": call.method, "url": call.path, "params": call.query, "headers": headers, "content": content}

    def _wait(self, call: Call[Any], attempt: int, outcome: httpx2.Response | httpx2.RequestError) -> float | None:
        """Return the seconds to wait before the next attempt, or None if this one was the last."""
        if attempt > self._retries or not call.repeatable:
            return None
        if isinstance(outcome, httpx2.RequestError):
            return calls.wait_seconds(attempt) if calls.is_transient(outcome) else None
        if outcome.status_code not in calls.RETRYABLE:
            return None
        asked = calls.retry_after(outcome)
        return calls.wait_seconds(attempt, asked) if asked is None or asked <= calls.MAX_WAIT else None

    def _answer(self, call: Call[T], outcome: httpx2.Response | httpx2.RequestError, request_id: str) -> T:
        """Return the answer of the last attempt.

        Raises:
            ServiceError: There is none.
        """
        if isinstance(outcome, httpx2.RequestError):
            raise calls.no_answer(self.base_url, self._timeout, outcome, request_id) from outcome
        return call.read(outcome, request_id)


def _check_url(base_url: str) -> None:
    """Refuse an address that no request can be sent to.

    Raises:
        LorarecError: It does not begin with http:// or https://, or has no host or a port that is no number.
    """
    if not base_url.startswith(("http://", "https://")):
        raise LorarecError(f"base_url must begin with http:// or https://, got {base_url!r}")
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise LorarecError(f"base_url {base_url!r} is not valid: {error}") from None
    if not url.host or url.query or url.fragment:
        raise LorarecError(f"base_url must be an address such as http://localhost:8000, got {base_url!r}")


def _authorization(key: str | None) -> dict[str, bytes]:
    """Return the header of an API key, without the white space around it, which the service leaves out as well.

    Raises:
        LorarecError: The key has characters that no header can have. The message does not repeat it.
    """
    key = (key or "").strip()
    if not key.isprintable():
        raise LorarecError("api_key has a line break or another control character inside: give the key alone")
    return {"Authorization": f"Bearer {key}".encode()} if key else {}
