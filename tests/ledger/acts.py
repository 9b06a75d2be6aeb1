"""What people do in a small ledger: every kind of event of the custody line, and an act that is
still open."""

from __future__ import annotations

from pathlib import Path

from domain.custody import ActKind
from ledger.commit import Ledger
from tests.lines.custody import FIRST_PASSWORD, USAGES, Office, block_of, parts


def people_act(folder: Path, ledger: Ledger) -> None:
    """Into the ledger of `folder`, whose one writer is `ledger`."""
    office = Office(folder, shared=ledger)
    office.settle()
    office.log_in("ke", "a wrong password")
    office.generate()
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, "formal", version=1)
    office.both("ke", "kang", ActKind.KEY_RESTORE, "token", block=b"a backup")
    usage = USAGES[0]
    for of_token in (office.shelf.keys, office.shelf.parts):
        of_token.pop(f"formal:{usage}:v1")  # lost
    office.both(
        "ke", "kang", ActKind.KEY_IMPORT, "formal", version=1,
        parts=parts((usage,), "one"), second={"parts": parts((usage,), "two")},
    )  # fmt: skip
    office.propose("kang", ActKind.KEY_ACCEPT_TEMPORARY, "B7", block=block_of("B7"))
    office.both("sun", "su", ActKind.PEOPLE_ROLES, "ke", roles=("key_custodian", "operator"))
    office.both("sun", "su", ActKind.PEOPLE_PASSWORD, "ke", password=FIRST_PASSWORD)
    office.come("ke")
    office.both("sun", "su", ActKind.PEOPLE_CLOSE, "kang")
    office.propose("ke", ActKind.KEY_ROTATE, "formal", parts=parts(USAGES, "three"))
    office.close()
