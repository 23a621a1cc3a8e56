"""Vectors by row, as Parquet, NumPy or FAISS."""
