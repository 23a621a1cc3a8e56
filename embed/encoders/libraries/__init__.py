"""One library of encoders per file: each declares its names, finds weights with their preprocessing, and loads them."""
