"""Counting as `DataFrame -> DataFrame` functions: pyspark only, no I/O."""
