"""The page at `/`, to try the service in: its files, and nothing from elsewhere."""

from collections.abc import Callable
from importlib.resources import files

from fastapi import FastAPI, Response

#: Path -> file of this folder and its type. They hold nothing secret, so that the page can ask for the key.
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in ("page", "combobox", "dom", "weights")},
}
#: No script but ours, no markup made from text by a script, no request to any other host, no frame around the page.
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
    """Serve the page's files."""
    for path, (name, kind) in FILES.items():
        send = _sender((files(__package__) / name).read_bytes(), kind)
        app.add_api_route(path, send, methods=["GET", "HEAD"], include_in_schema=False)


def _sender(content: bytes, kind: str) -> Callable[[], Response]:
    def send() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return send
