"""The durable truth over ODBC: schema, commit, queries, heads, verification, reconciliation.

`commit` is the only door through which anything changes; everybody else reads. Imports `domain`.
"""
