"""The last line of a screen: its most important keys, which can be clicked.

Not Textual's Footer, which makes a widget for each key anew whenever a screen comes in sight: 30 ms, twice a switch.
"""

from textual.binding import Binding
from textual.content import Content
from textual.widgets import Static


class Keys(Static):
    def on_mount(self) -> None:
        words = []
        for owner, name in ((self.screen, "screen"), (self.app, "app")):
            for binding in type(owner).BINDINGS:
                if isinstance(binding, Binding) and binding.show:
                    action = binding.action if "." in binding.action.split("(")[0] else f"{name}.{binding.action}"
                    key = binding.key_display or binding.key
                    words.append(f"[bold $footer-key-foreground]{key}[/] [@click={action}]{binding.description}[/]")
        self.update(Content.from_markup(" ".join(words)))
