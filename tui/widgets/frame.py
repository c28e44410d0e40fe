"""The frame of a panel."""

from textual.content import Content
from textual.widget import Widget


def head(panel: Widget, title: str | None, subtitle: str | None = None) -> None:
    """Set a panel's title and subtitle; markup in them is not parsed."""
    for name, words in (("border_title", title), ("border_subtitle", subtitle)):
        if words is not None and str(getattr(panel, name)) != words:
            setattr(panel, name, Content(words))
