"""What tests look for in an HTML page."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects what a browser would load, the ids, and the figures' descriptions."""

    LOADS = ("src", "href", "xlink:href", "srcset", "data", "poster", "action")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.undescribed: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag != "a":  # a link loads nothing until it is followed
            self.loads += [given[name] for name in self.LOADS if name in given]
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "svg" and "aria-hidden" not in given and not given.get("aria-label"):
            self.undescribed.append(self.get_starttag_text() or "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)
