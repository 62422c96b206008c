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


class NewSchemaError(JobError):
    """A query met the id of a schema, `schema_id`, that it was not told; its batch is to be done again."""

    def __init__(self, schema_id: int) -> None:
        """The message is for a query that nobody starts again."""
        super().__init__(f"the query failed: it met schema id {schema_id}, which was not asked for")
        self.schema_id = schema_id
