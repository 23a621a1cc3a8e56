"""Neural-network heads, their layers, losses and training loop."""
