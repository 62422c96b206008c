"""Texts and names as SQL writes them."""

from __future__ import annotations


def quote_text(text: str) -> str:
    """A text as a literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def quote_name(part: str) -> str:
    """A part of a name, in backticks."""
    return f"`{part.replace('`', '``')}`"
