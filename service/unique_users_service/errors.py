"""What a question can be refused with."""

from __future__ import annotations


class AskError(Exception):
    """A question that can't be answered: an HTTP `status`, a `title` that is the same for each, and one sentence."""

    status = 400
    title = "The question can't be answered"

    def __init__(self, detail: str) -> None:
        """`detail`: one sentence for a person."""
        super().__init__(detail)
        self.detail = detail


class QuestionError(AskError):
    """A parameter is wrong; the same question will never be answered."""

    title = "A parameter is wrong"


class GoneError(AskError):
    """What the question needs was removed by retention."""

    status = 410
    title = "What this needs is no longer kept"


class UnavailableError(AskError):
    """There is nothing to answer from just now; later there may be."""

    status = 503
    title = "The data is not available"


class BusyError(AskError):
    """Too many questions at once."""

    status = 503
    title = "Too many questions at once"
