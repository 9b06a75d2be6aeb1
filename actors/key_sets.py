"""Which keys a ceremony makes together: a set has one version, and a label for each usage.

`formal`: one master for each usage of the card profile. `kek`: what backups and exports are sealed
under. `bank:<code>:kmc`, `bank:<code>:transport`: the keys of a bank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from actors.hsm import labels
from actors.hsm.suites import SUITES
from domain.card.profile import Profile
from domain.codes import Code
from domain.custody import Denied

FORMAL, KEK = "formal", "kek"
_BANK = re.compile(r"bank:\d{3}:(kmc|transport)", re.ASCII)


@dataclass(frozen=True)
class KeySet:
    subject: str
    usages: tuple[str, ...]
    suite: str

    def labels(self, version: int) -> dict[str, str]:
        """The label of each usage."""
        return {usage: self._label(usage, version) for usage in self.usages}

    def versions(self, states: Mapping[str, str]) -> dict[int, str]:
        """The state of each version of which there is a key among `states` (by label)."""
        meanings = {label: labels.meaning(label) for label in states}
        return {
            m.version: states[label] for label, m in meanings.items() if m.family == self.subject
        }

    def _label(self, usage: str, version: int) -> str:
        if self.subject == FORMAL:
            return labels.formal(usage, version)
        return f"{self.subject}:v{version}"


def key_set(subject: str, profile: Profile, suite: str = "") -> KeySet:
    """The set of this name. `suite`: of a bank's keys, 3des unless said. Raises Denied."""
    if subject == FORMAL:
        return KeySet(FORMAL, tuple(slot.usage for slot in profile.keys), profile.suite)
    if subject == KEK:
        return KeySet(KEK, (KEK,), "aes")
    bank = _BANK.fullmatch(subject)
    if bank is None:
        raise Denied(Code.KEY_UNKNOWN, "formal, kek, bank:CODE:kmc, bank:CODE:transport")
    if (suite or "3des") not in SUITES:
        raise Denied(Code.BAD_FORMAT, "suite")
    return KeySet(subject, (bank[1],), suite or "3des")
