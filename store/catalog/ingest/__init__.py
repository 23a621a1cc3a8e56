"""CSV or Parquet -> validated rows."""
