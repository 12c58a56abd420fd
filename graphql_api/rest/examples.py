"""What requests and answers look like, for the OpenAPI document."""

from typing import Any

SESSION_ID = "0199a1b2-3c4d-7e5f-8a6b-7c8d9e0f1a2b"
QUESTION_ID = "0199a1b2-3c4d-7e5f-8a6b-7c8d9e0f1a30"
REPLY_ID = "0199a1b2-3c4d-7e5f-8a6b-7c8d9e0f1a31"
DOCUMENT_ID = "0199a1b2-3c4d-7e5f-8a6b-7c8d9e0f1a40"
VISITOR = "6f1c2b1e-8a53-4f0e-9c55-3f1f2f0a7f11"
ASKED_AT, ANSWERED_AT = "2026-11-02T09:30:00.104Z", "2026-11-02T09:30:00.105Z"
CURSOR = "bQAAAAAAAAAD"

CITATION = {
    "marker": 1,
    "document_id": DOCUMENT_ID,
    "title": "Harbour rules",
    "source_url": None,
    "snippet": "The harbour closes at nine.",
    "score": 0.83,
}
ANSWER = {
    "response": "The harbour closes at nine. [1]",
    "session_id": "reader-42",
    "message_id": REPLY_ID,
    "user_message_id": QUESTION_ID,
    "status": "COMPLETE",
    "citations": [CITATION],
    "persisted": True,
}
UNSAVED = ANSWER | {
    "session_id": VISITOR,
    "message_id": None,
    "user_message_id": None,
    "persisted": False,
}
STREAM = f"""\
event: started
data: {{"session_id":"reader-42","user_message_id":"{QUESTION_ID}","message_id":"{REPLY_ID}"}}

event: delta
data: {{"offset":0,"text":"The harbour "}}

event: delta
data: {{"offset":12,"text":"closes at nine."}}

event: ended
data: {{"response":"The harbour closes at nine.","session_id":"reader-42",…}}

"""
HISTORY: dict[str, Any] = {
    "session_id": "reader-42",
    "messages": [
        {
            "id": QUESTION_ID,
            "role": "user",
            "content": "When does the harbour close?",
            "chapter": "Opening hours",
            "citations": [],
            "status": "COMPLETE",
            "created_at": ASKED_AT,
        },
        {
            "id": REPLY_ID,
            "role": "assistant",
            "content": ANSWER["response"],
            "chapter": "Opening hours",
            "citations": [CITATION],
            "status": "COMPLETE",
            "created_at": ANSWERED_AT,
        },
    ],
    "previous_cursor": None,
}
CLEARED = {"deleted": 2}
SESSION = {
    "id": SESSION_ID,
    "session_id": "reader-42",
    "title": "When does the harbour close?",
    "message_count": 2,
    "created_at": ASKED_AT,
    "updated_at": ASKED_AT,
}
SESSIONS = {"sessions": [SESSION], "next_cursor": None}
DOCUMENT = {
    "id": DOCUMENT_ID,
    "title": "Harbour rules",
    "source_url": None,
    "original_filename": "harbour.md",
    "mime_type": "text/markdown",
    "checksum": "4f0e1c2b6f1c2b1e8a534f0e9c553f1f2f0a7f114f0e1c2b6f1c2b1e8a534f0e",
    "byte_size": 2048,
    "visibility": "PRIVATE",
    "status": "READY",
    "error": None,
    "chunk_count": 3,
    "created_at": ASKED_AT,
    "updated_at": ANSWERED_AT,
}
DOCUMENTS = {"documents": [DOCUMENT], "next_cursor": None}
HEALTHY = {
    "status": "ok",
    "reason": None,
    "latency_ms": 1.7,
    "schema": {"current": "0002", "expected": "0002"},
    "pool": {"size": 5, "in_use": 0, "idle": 1, "overflow": 0, "max_overflow": 15},
}
DOWN = HEALTHY | {
    "status": "down",
    "reason": "ConnectionRefusedError",
    "latency_ms": None,
    "schema": {"current": None, "expected": "0002"},
}

ASKING: dict[str, Any] = {
    "first": {
        "summary": "All that it takes",
        "value": {"message": "When does the harbour close?"},
    },
    "chapter": {
        "summary": "About text selected in a chapter, in a conversation of the client's own naming",
        "value": {
            "message": "What does this mean?",
            "session_id": "reader-42",
            "chapter": "Opening hours",
            "selected_text": "The harbour closes at nine.",
        },
    },
}
NEW_SESSION: dict[str, Any] = {
    "named": {"summary": "Named", "value": {"session_id": "reader-42", "title": "The harbour"}},
    "empty": {"summary": "Left to the server", "value": {}},
}
TITLE: dict[str, Any] = {"title": {"summary": "A title", "value": {"title": "The harbour"}}}
TEXT_DOCUMENT = {"text": "# Harbour rules\n\nThe harbour closes at nine."}
WEB_DOCUMENT = {"url": "https://example.com/harbour-rules", "title": "Harbour rules"}
