"""The last line of a screen: its most important keys, clickable.

Textual's Footer creates a widget per key each time a screen is shown: 30 ms, twice per switch.
"""

from textual.binding import Binding
from textual.content import Content
from textual.widgets import Static

SHORT = 6  # letters of another screen's name if the line is full
CUT = 4


class Keys(Static):
    _reworded: tuple[tuple[str, str], ...] = ()

    def reword(self, **words: str) -> None:
        """Call keys of the screen by other words than their usual ones, as `p="Resume"`."""
        if (reworded := tuple(words.items())) != self._reworded:
            self._reworded = reworded
            self._write()

    def on_mount(self) -> None:
        self._write()

    def on_resize(self) -> None:
        self._write()

    def _write(self) -> None:
        """Write all names; if they do not fit, shorten the screens' names, then leave out the app's other names."""
        width = self.app.size.width
        for words in (self._words(short, bare) for short, bare in ((False, False), (True, False), (True, True))):
            line = Content.from_markup(" ".join(words))
            if len(line) <= width:
                break
        self.update(line, layout=False)

    def _words(self, short: bool, bare: bool) -> list[str]:
        words = []
        for owner, name in ((self.screen, "screen"), (self.app, "app")):
            for binding in type(owner).BINDINGS:
                if isinstance(binding, Binding) and binding.show:
                    action = binding.action if "." in binding.action.split("(")[0] else f"{name}.{binding.action}"
                    key, said = binding.key_display or binding.key, binding.description
                    said = said if owner is self.app else dict(self._reworded).get(key, said)
                    if owner is self.app and short and key.isdigit() and len(said) > SHORT:
                        said = said[:CUT]
                    elif owner is self.app and bare and not key.isdigit():
                        said = ""
                    key = f"[@click={action}]{key}[/]" if not said else key
                    said = f" [@click={action}]{said}[/]" if said else ""
                    words.append(f"[bold $text]{key}[/]{said}")
        return words
