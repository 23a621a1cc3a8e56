"""Image bytes by content, and which row each belongs to."""
