"""What holds in the database at every moment, whatever broke: asked of Postgres itself.

assert await broken_in(database) == {}
assert await broken_in(database, at_rest=True) == {}  # once nothing runs any more
"""

from typing import Any

from sqlalchemy import text

from db.engine import Database

ALWAYS = {
    "a question has exactly one reply": """
        SELECT q.user_id, q.id FROM chat_messages q
        LEFT JOIN chat_messages r ON r.user_id = q.user_id AND r.reply_to = q.id
        WHERE q.role = 'USER' GROUP BY q.user_id, q.id HAVING count(r.id) <> 1""",
    "a reply stands right after its question, in its session": """
        SELECT r.user_id, r.id FROM chat_messages r
        LEFT JOIN chat_messages q ON q.user_id = r.user_id AND q.id = r.reply_to
        WHERE r.role = 'ASSISTANT' AND (q.session_id, q.position + 1)
            IS DISTINCT FROM (r.session_id, r.position)""",
    "a session counts its messages": """
        SELECT s.user_id, s.id FROM chat_sessions s LEFT JOIN chat_messages m
            ON m.user_id = s.user_id AND m.session_id = s.id
        GROUP BY s.user_id, s.id HAVING count(m.id) <> s.message_count""",
    "no message has the id of another": """
        SELECT id FROM chat_messages GROUP BY id HAVING count(*) > 1""",
    "a message that was taken is in the audit log, once": """
        SELECT q.user_id, q.id FROM chat_messages q LEFT JOIN audit_logs a
            ON a.user_id = q.user_id AND a.entity_id = q.id AND a.action = 'send'
        WHERE q.role = 'USER' GROUP BY q.user_id, q.id HAVING count(a.id) <> 1""",
    "what is under way has a run, what has ended has none": """
        SELECT user_id, id FROM chat_messages
        WHERE (status = 'STREAMING') <> (run_id IS NOT NULL)
            OR (status = 'STREAMING') <> (lease_until IS NOT NULL)
            OR role = 'ASSISTANT' AND (status = 'STREAMING') <> (completed_at IS NULL)""",
    "the length of a text is noted": """
        SELECT user_id, id FROM chat_messages
        WHERE content_length <> char_length(content)
            + char_length(regexp_replace(content, '[^\\U00010000-\\U0010FFFF]', '', 'g'))""",
}
WHERE_NOTHING_IS_DELETED = {
    "positions have no gaps": """
        SELECT s.user_id, s.id FROM chat_sessions s LEFT JOIN chat_messages m
            ON m.user_id = s.user_id AND m.session_id = s.id
        GROUP BY s.user_id, s.id
        HAVING (count(m.id), coalesce(min(m.position), 1), coalesce(max(m.position), 0))
            <> (s.last_position, 1, s.last_position)""",
    "a message in the audit log is there": """
        SELECT a.user_id, a.entity_id FROM audit_logs a LEFT JOIN chat_messages q
            ON q.user_id = a.user_id AND q.id = a.entity_id
        WHERE a.action = 'send' AND q.id IS NULL""",
    "a session that a message made has that message": """
        SELECT s.user_id, s.id FROM chat_sessions s WHERE s.message_count = 0 AND NOT EXISTS
            (SELECT FROM audit_logs a WHERE a.user_id = s.user_id AND a.entity_id = s.id)""",
}
AT_REST = {
    "nothing is under way without an end": """
        SELECT user_id, id FROM chat_messages WHERE status = 'STREAMING'""",
}
WHILE_LEASES_LAST = {
    "nothing is under way past its lease": """
        SELECT user_id, id FROM chat_messages
        WHERE status = 'STREAMING' AND lease_until <= clock_timestamp()""",
}


async def broken_in(database: Database, *, at_rest: bool = False) -> dict[str, list[Any]]:
    """Give what does not hold, with the rows that say so. Nothing may have been deleted.

    `at_rest` asks for the end of every reply; else they need only have a lease.
    """
    asked = ALWAYS | WHERE_NOTHING_IS_DELETED | (AT_REST if at_rest else WHILE_LEASES_LAST)
    found = {what: await database.rows(text(query), {}) for what, query in asked.items()}
    return {what: [tuple(row) for row in rows] for what, rows in found.items() if rows}
