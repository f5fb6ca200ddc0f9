"""The web page at `/`, which shows rankings in a browser; all its files are in this folder."""

from collections.abc import Callable
from importlib.resources import files

from fastapi import FastAPI, Response

SCRIPTS = (
    *("page", "api", "combobox", "comparison", "dom", "explanation", "inputs", "link", "mixture", "parts", "progress"),
    *("ranking", "weights"),
)
#: File of this folder and media type by path. They need no API key, so that the page can ask for it.
FILES = {
    "/": ("page.html", "text/html"),
    **{f"/{name}.css": (f"{name}.css", "text/css") for name in ("page", "results")},
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in SCRIPTS},
}
#: Only scripts of this folder run, no text becomes markup, no other host is contacted, and no page may frame this one.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Add the routes of the page's files to an application."""
    for path, (name, media_type) in FILES.items():
        endpoint = _endpoint((files(__package__) / name).read_bytes(), media_type)
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)


def _endpoint(content: bytes, media_type: str) -> Callable[[], Response]:
    def send_file() -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return send_file
