"""What is kept beside a checkpoint."""
