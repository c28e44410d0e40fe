"""The search engine: all that is free of posts and symptoms."""
