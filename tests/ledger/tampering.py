"""What is put into a ledger behind its back."""

from __future__ import annotations

from ledger import schema

TABLES = {table: tuple(columns) for table, columns in schema.TYPES.items()}
ADDED_TO = sorted(set(TABLES) - {"epoch", "ledger_version"})
"""Tables into which a row can be put that is not there by right."""

_KEYS = {
    "event": {"id": "id + 1", "position": "position + 1"},
    "movement": {"id": "id + 1", "position": "position + 1"},
    "commit_link": {"number": "number + 1", "command_id": "'another'"},
    "head": {"number": "number + 1"},
    "refused_record": {"record_number": "record_number + 1"},
    "return_line": {"position": "position + 1", "order_id": "''", "body_id": "''"},
    "number_index": {"value": "value || 'x'"},
    "orders": {"order_id": "'another'", "identification_code": "'another'"},
    "login": {"session": "'another'", "token": "'another'"},
    "body": {"body_id": "'another'", "identification_code": "''", "order_id": "''"},
}


def put_in(table: str, newest: str) -> str:
    """SQL that puts a row in beside the one that `newest` (a condition) finds, with keys of its
    own."""
    columns = TABLES[table]
    keys = _KEYS.get(table, {columns[0]: "'another'"})
    values = ", ".join(keys.get(c, c) for c in columns)
    return f"insert into {table} select {values} from {table} where {newest}"
