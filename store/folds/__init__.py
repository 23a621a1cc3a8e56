"""The fold of each training row: assigned once, hashed."""
