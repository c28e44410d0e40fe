"""The terminal app. It reads an experiments folder and nothing else, so it may be opened and closed at any time."""
