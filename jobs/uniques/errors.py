"""The errors a job ends with, each one line for a person, and the exit status of each."""

from __future__ import annotations

EXIT_FAILED = 1  # starting again may help: a broker is away, a query died
EXIT_USAGE = 2  # starting again will not help: a flag, a checkpoint, a file is wrong


class JobError(Exception):
    """The job can't start or go on; the message is one line for a person."""

    status = EXIT_FAILED


class UsageError(JobError):
    """A setting is wrong; starting again with the same settings will not help."""

    status = EXIT_USAGE
