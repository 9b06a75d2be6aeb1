"""Inspection and sampling: the check of every chip after its keys were replaced.

May import domain and ledger, and `actors.chip_line`.
"""
