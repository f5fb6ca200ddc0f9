"""Options of both clients of the service, and their decisions about retries."""

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
        if not base_url.startswith(("http://", "https://")):
            raise LorarecError(f"base_url must begin with http:// or https://, got {base_url!r}")
        if timeout <= 0:
            raise LorarecError(f"timeout must be positive, got {timeout}")
        if retries < 0:
            raise LorarecError(f"retries must not be negative, got {retries}")
        key = os.environ.get(API_KEY) if api_key is None else api_key
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self.base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._retries = retries
        self._options: dict[str, Any] = {"base_url": self.base_url, "timeout": timeout, "headers": headers}

    def _request(self, call: Call[Any], request_id: str) -> dict[str, Any]:
        """Return the arguments of the request of a call."""
        headers, content = {"X-Request-ID": request_id, **call.headers}, None
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            content = calls.encode_body(call.body)
        return {"method": call.method, "url": call.path, "params": call.query, "headers": headers, "content": content}

    def _wait(self, call: Call[Any], attempt: int, outcome: httpx2.Response | httpx2.TransportError) -> float | None:
        """Return the seconds to wait before the next attempt, or None if this one was the last."""
        if attempt > self._retries or not call.repeatable:
            return None
        if isinstance(outcome, httpx2.TransportError):
            return calls.wait_seconds(attempt) if calls.is_transient(outcome) else None
        if outcome.status_code not in calls.RETRYABLE:
            return None
        asked = calls.retry_after(outcome)
        return calls.wait_seconds(attempt, asked) if asked is None or asked <= calls.MAX_WAIT else None

    def _answer(self, call: Call[T], outcome: httpx2.Response | httpx2.TransportError, request_id: str) -> T:
        """Return the answer of the last attempt.

        Raises:
            ServiceError: There is none.
        """
        if isinstance(outcome, httpx2.TransportError):
            raise calls.no_answer(self.base_url, self._timeout, outcome, request_id) from outcome
        return call.read(outcome, request_id)
