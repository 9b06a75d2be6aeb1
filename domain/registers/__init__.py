"""Registers that change by decree, not by code: banks, and county-level divisions of Hunan.

Data in TOML files, loaded once; branches follow from the two. Imports nothing of ours.
"""

from domain.registers.branches import branch_name, is_branch
from domain.registers.loading import Bank, Division, load_banks, load_divisions

__all__ = ["Bank", "Division", "branch_name", "is_branch", "load_banks", "load_divisions"]
