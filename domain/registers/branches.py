"""County branches (县级行): one of each bank in each county-level division.

Code: bank code, `-`, division code, as in `102-430102`.
"""

from __future__ import annotations

from domain.registers.loading import load_banks, load_divisions


def is_branch(code: str) -> bool:
    """Whether `code` names a county branch of a registered bank in a registered division."""
    bank, dash, division = code.partition("-")
    return bool(dash) and bank in load_banks() and division in load_divisions()


def branch_name(code: str) -> str:
    """As on a packing list: 工商银行长沙市芙蓉区支行. KeyError if `is_branch` is false."""
    bank, _, division = code.partition("-")
    return f"{load_banks()[bank].name}{load_divisions()[division].place_name}支行"
