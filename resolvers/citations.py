"""Citations as messages store them: those of a whole reply, and of one that broke off."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from db.messages import MessageRow
from rag.citations import Citation, used_markers


def stored_citation(citation: Citation) -> dict[str, Any]:
    """Give the agent's citation as messages store it: plain JSON."""
    return {**asdict(citation), "document_id": str(citation.document_id)}


def citations_of(row: MessageRow) -> list[dict[str, Any]]:
    """Give what a message cites, by marker.

    They are stored with a reply's end. Of one that is being written, or lost its server, they
    are read off its text and its searches.
    """
    if row.citations or not row.searches:
        return row.citations
    return cited(row.content, (search["citations"] for search in row.searches))


def cited(text: str, found: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Give those of the found passages whose markers stand in a text, by marker."""
    by_marker = {citation["marker"]: citation for passages in found for citation in passages}
    return [by_marker[marker] for marker in sorted(used_markers(text, by_marker.keys()))]
