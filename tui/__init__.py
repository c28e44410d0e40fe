"""The terminal app. It only reads an experiments folder, so it can be opened and closed at any time."""
