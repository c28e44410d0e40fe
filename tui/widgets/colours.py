"""The sixteen colours of a terminal on a light background, each with a contrast of at least 4.5:1 on all panels."""

from rich.terminal_theme import TerminalTheme

_NORMAL = [
    (0, 0, 0),
    (150, 20, 20),
    (0, 88, 24),
    (112, 74, 0),
    (0, 60, 150),
    (110, 30, 130),
    (0, 84, 110),
    (60, 60, 60),
]
_BRIGHT = [(84, 84, 84), *_NORMAL[1:7], (20, 20, 20)]
LIGHT = TerminalTheme((255, 255, 255), (31, 31, 31), _NORMAL, _BRIGHT)
