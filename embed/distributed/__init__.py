"""The same plan on Ray Data: rows are read and decoded by tasks, encoded by a pool of actors, published by the driver."""
