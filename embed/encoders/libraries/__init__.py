"""One library of encoders per file: each says by which names it goes, finds weights with their preprocessing, loads."""
