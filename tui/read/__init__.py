"""What is on disk and on this machine, read without a lock and without Textual."""
