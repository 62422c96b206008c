"""Answers questions about unique users over HTTP and on the command line, from what the jobs keep. No Spark, no JVM."""
