"""What the doctor says of people and of what they answer for: accounts, acts that wait for one of
them, whether the token holds the keys that their acts made, and where its PIN stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from actors.hsm import labels
from actors.hsm.key_places import KeyPlaces
from actors.hsm.token import KeyToken
from centre.config import Config
from centre.findings import Finding, State
from centre.wiring import make_masters, token_config
from domain.card.profile import load_profile
from domain.custody import DESTROYED, ROLE_WORDS, ActState, Role
from domain.provider import KeyEntry, KnownKey
from ledger.people import acts, known_keys, last_terminals, people
from ledger.queries import Queries

PIN_WORDS = "加密机口令 token PIN"


def standing(config: Config) -> Finding:
    """Whoever is needed for an act of two is there twice."""
    queries = Queries(config.ledger)
    try:
        active = [p for p in people(queries) if p.state == "active"]
        waiting = acts(queries, ActState.PROPOSED, ActState.CONFIRMED)
    finally:
        queries.close()
    holders = Counter(role for p in active for role in p.roles)
    note = ", ".join(f"{ROLE_WORDS[r]} {r} {n}" for r, n in sorted(holders.items())) or "0"
    if waiting:
        note += f"; 待办事项 open acts: {', '.join(a.act_id for a in waiting)}"
    too_few = [r for r in (Role.SUPERVISOR, Role.KEY_CUSTODIAN) if holders[r] < 2]
    mend = f"centre people add NAME --role {too_few[0]}" if too_few else ""
    if waiting and not mend:
        mend = "centre act list"
    return Finding(
        "people", "人员 people", State.NOTICE if mend else State.OK, note, mend,
        configured=not too_few,
    )  # fmt: skip


def apart(config: Config) -> Finding:
    """Components are split between custodians only as far as their OS accounts are: whoever reads
    the PIN file opens the sealed components of open acts, and whoever shares an account with a
    custodian uses their session."""
    queries = Queries(config.ledger)
    try:
        terminals = last_terminals(queries, Role.KEY_CUSTODIAN)
    finally:
        queries.close()
    accounts = {n: t.split(" ")[1] for n, t in terminals.items() if t.startswith("uid ")}
    used = Counter([str(config.home.stat().st_uid), *accounts.values()])
    shared = sorted(name for name, uid in accounts.items() if used[uid] > 1)
    note = f"各有系统账户 have OS accounts of their own: {len(accounts)}/{len(terminals)}"
    if shared:
        note = (
            f"与中心或他人同一系统账户 share an OS account with the centre or each other:"
            f" {', '.join(shared)}; 分量拆分不防该账户 it can bring both components together"
        )
    return Finding(
        "custodians", "保管员账户 custodians", State.NOTICE if shared else State.OK, note,
        f"sudo adduser NAME; su - NAME; centre login NAME --home {config.home}" if shared else "",
        configured=not shared,
    )  # fmt: skip


def keys(config: Config) -> Finding:
    """Whether the token holds what the ledger says: nobody was at it past the centre."""
    queries = Queries(config.ledger)
    try:
        known = known_keys(queries)
        under_way = acts(queries, ActState.CONFIRMED)
    finally:
        queries.close()
    with KeyToken(token_config(config)) as token:
        masters = make_masters(config, token)
        entries = KeyPlaces(token, masters, load_profile(config.profile)).inventory()
        masters.forget()
    found = differences(entries, known)
    words = "密钥与台账 keys and ledger"
    if under_way:  # an act that is being done: token and ledger agree again when it is
        found = {what: which for what, which in found.items() if what == ANOTHER}
    if not found:
        return Finding("keys", words, State.OK, f"{len(known)}", configured=True)
    note = "; ".join(f"{what}: {', '.join(which)}" for what, which in found.items())
    return Finding("keys", words, State.MEND, note, _KEYS_MEND, configured=False)


ANOTHER = "另一密钥 another"
_KEYS_MEND = (
    "another: stop, call both custodians; lost: centre key restore, or centre key import SET"
    " --version N; unknown: centre key destroy SET"
)


def differences(entries: Sequence[KeyEntry], known: Mapping[str, KnownKey]) -> dict[str, list[str]]:
    """Labels by what is amiss with them. Own keys and data keys are no matter of acts."""
    there = {e.label: KnownKey(e.state, e.check_value) for e in entries}
    wanted = {k: v for k, v in known.items() if v.state != DESTROYED and k not in labels.OWN}
    both = there.keys() & wanted.keys()
    acted = (labels.Kind.FORMAL, labels.Kind.TEMPORARY, labels.Kind.BANK, labels.Kind.KEK)
    found = {
        ANOTHER: [k for k in both if there[k].check_value != wanted[k].check_value],
        "状态不同 another state": [k for k in both if there[k].state != wanted[k].state],
        "丢失 lost": list(wanted.keys() - there.keys()),
        "台账不知 unknown": [
            k for k in there.keys() - wanted.keys() if labels.kind_of(k) in acted
        ],
    }  # fmt: skip
    return {what: sorted(which) for what, which in found.items() if which}


def pin(config: Config) -> Finding:
    """For unattended start the token's PIN stands in a file: whoever reads it opens the token."""
    file = config.pin_file
    if not file.exists():
        mend = f"centre init --home {config.home}"
        return Finding("pin", PIN_WORDS, State.MEND, f"{file}", mend, present=False)
    mode = file.stat().st_mode & 0o777
    note = f"明文存于文件，用于无人值守启动 in clear, for unattended start: {file} {mode:04o}"
    open_to_others = bool(mode & 0o177)
    return Finding(
        "pin", PIN_WORDS, State.MEND if open_to_others else State.OK, note,
        f"chmod 600 {file}" if open_to_others else "", present=True, configured=not open_to_others,
    )  # fmt: skip
