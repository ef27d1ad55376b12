"""Web pages of the service: files of this package, with nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Response

__all__ = ["PAGES", "page_routes"]

#: Files by the paths that they are asked for.
PAGES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/plot.js": ("plot.js", "text/javascript"),
    "/docs": ("docs.html", "text/html"),
    "/docs.js": ("docs.js", "text/javascript"),
}


def page_routes() -> APIRouter:
    """The page for people, and the description of the interface."""
    router = APIRouter(include_in_schema=False)
    for path, (name, media_type) in PAGES.items():
        content = (files("eqcctpro.serving") / "page" / name).read_bytes()
        router.add_api_route(path, _page(content, media_type), methods=["GET"])
    return router


def _page(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return Response(content, media_type=media_type)

    return page
