"""The two jobs: their flags, and the pipelines."""
