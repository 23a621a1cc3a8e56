"""The vector cache: what makes a vector, the key of a row, the shards, the matrix."""
