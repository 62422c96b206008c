"""What runs a job: session, signals, log lines, listeners, metrics, exit status."""
