"""A fitted model behind HTTP: a JSON API, a page, and what operators need."""
