"""Descriptions of responses in the OpenAPI description: errors by their status, health and metrics."""

from typing import Any

from lorarec.serving.response_schemas import HealthResponse, LivenessResponse, ProblemDetails

#: Descriptions of responses by status, as FastAPI takes them.
Responses = dict[int | str, dict[str, Any]]

_DESCRIPTIONS: dict[int, str] = {
    400: "The body is not JSON, has a name twice in one object, or is too deep or long to be read.",
    401: "The API key is missing or wrong.",
    403: "The API key lacks the role of the call, or there is no key and a web page of another origin asks.",
    404: "The user, item or adapter does not exist.",
    408: "The body did not arrive in time.",
    409: "The request contradicts what is stored or loaded.",
    413: "The body is too large.",
    415: "The body has another media type than JSON, or is compressed.",
    421: "The service has no API key and refuses requests for other hosts.",
    422: "A field is invalid.",
    429: "Too many requests are waiting; Retry-After gives the seconds after which to try again.",
    503: "The database cannot be reached, or this replica has not loaded the adapter.",
}
#: Statuses of the middleware, which any path but the public ones can respond with.
_MIDDLEWARE_STATUSES = (400, 401, 403, 408, 413, 421)
METRICS: Responses = {
    200: {
        "description": "Metrics in the text format of Prometheus.",
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": 'lorarec_requests_total{method="POST",path="/v1/rank",status="200"} 17.0',
            }
        },
    }
}


def _problems(*statuses: int) -> Responses:
    return {status: {"model": ProblemDetails, "description": _DESCRIPTIONS[status]} for status in statuses}


def error_responses(*statuses: int) -> Responses:
    """Return the descriptions of errors of a call that needs a key, besides those of the middleware."""
    return _problems(*_MIDDLEWARE_STATUSES, *statuses)


NOT_ALIVE: Responses = {
    503: {"model": LivenessResponse, "description": "A thread hangs, or the model fails."},
    **_problems(421),
}
NOT_READY: Responses = {
    503: {
        "model": HealthResponse,
        "description": "The database cannot be used, an announced adapter is being loaded, a thread hangs, or the "
        "model fails.",
    },
    **_problems(421),
}
#: Errors of requests with a body for the model.
RANKING_ERRORS = error_responses(404, 415, 422, 429, 503)
