"""Answers to the preflight requests of web pages of other origins."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from lorarec.serving.errors import ApiError


class CorsMiddleware(CORSMiddleware):
    """Starlette's middleware, whose refusals are problem details as all errors are."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a preflight request."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        reason = bytes(response.body).decode()
        return ApiError(400, f"the request of this web page is not allowed: {reason}", headers=kept).response
