"""What is drawn: pure functions from what was read to lines of text, without Textual."""
