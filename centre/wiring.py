"""Which real part stands behind each role. Tests that need another part give another `Wiring`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from actors.accounts import Settings
from actors.ceremonies import Ceremonies
from actors.custody import Custody
from actors.floor_acts import FloorActs
from actors.hsm.leases import LeaseTerms
from actors.hsm.masters import Masters
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.replacement import KeyReplacement
from actors.hsm.sdf_masters import SdfMasters
from actors.hsm.token import KeyToken, TokenConfig
from actors.hsm.wrapped_masters import WrappedMasters
from actors.inventory import Inventory
from actors.keeping import Keeping
from actors.lots import LotPlan
from actors.passwords import Passwords
from actors.qa.inspection import Inspection
from actors.qa.sample_reading import SampleReading
from actors.shell import handle
from actors.shell_line import MakeLine, RayLine
from actors.sorting import Sorting
from centre.config import Config
from centre.running import write_whole
from domain.card.profile import load_profile
from domain.custody import TRANSPORT_FILE
from domain.lines import KeyCustodian, KeyProvider, LedgerDoor
from domain.places import Line
from domain.provider import Provider
from ledger.chip_records import LedgerChipRecords
from ledger.key_use import key_dependents
from ledger.people import known_keys
from ledger.queries import Queries
from scheduler.clocks import CHINA

SEED_BYTES = 32


def now() -> str:
    """The time of a commit: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def token_config(config: Config) -> TokenConfig:
    return TokenConfig(str(config.module), config.conf, config.token, config.pin_file)


def make_masters(config: Config, token: KeyToken) -> Masters:
    """Where the masters of the configured profile live: 3DES in the token; SM4 sealed under its
    wrapping key, or in an SDF device."""
    if load_profile(config.profile).suite == "3des":
        return Pkcs11Masters(token)
    if config.sdf_library is None:
        return WrappedMasters(token)
    return SdfMasters(token, config.sdf_library, config.sdf_kek)


def make_provider(config: Config) -> Provider:
    """The key provider as configured. Quotas and standings of chips are asked from the ledger."""
    return Pkcs11Provider(
        token_config(config),
        load_profile(config.profile),
        LedgerChipRecords(config.ledger),
        partial(make_masters, config),
        software=config.software_assisted,
    )


def make_inventory(
    ledger: LedgerDoor, queries: Queries, keys: KeyCustodian, epoch: int
) -> Inventory:
    keeping = Keeping(ledger, queries, keys.destroy_data_keys, lambda: datetime.now(CHINA).date())
    return Inventory(ledger, queries, keeping)


def make_sorting(
    aql: str, ledger: LedgerDoor, queries: Queries, provider: KeyProvider, epoch: int
) -> Sorting:
    lots = LotPlan(lambda _lot_id: secrets.token_bytes(SEED_BYTES), aql) if aql else None
    return Sorting(ledger, queries, f"{Line.SORTING}:{epoch}", lots)


def make_custody(
    config: Config, ledger: LedgerDoor, queries: Queries, keys: KeyCustodian, epoch: int
) -> Custody:
    def deliver(name: str, content: bytes) -> None:
        write_whole(config.home / "exchange" / name, content, private=name != TRANSPORT_FILE)

    ceremonies = Ceremonies(
        keys,
        load_profile(config.profile),
        partial(known_keys, queries),
        partial(key_dependents, queries),
        deliver,
    )
    settings = Settings(
        now=lambda: datetime.now(UTC),
        idle=timedelta(minutes=config.idle_minutes),
        proof=lambda: config.owner_file.read_text(encoding="ascii"),
        new_token=secrets.token_urlsafe,
        passwords=Passwords(),
    )
    floor = FloorActs(queries, lambda line: RayLine(handle(line)))
    return Custody(ledger, queries, keys, ceremonies, floor, f"{Line.CUSTODY}:{epoch}", settings)


def make_replacement(
    profile_id: str,
    lease_minutes: float,
    ledger: LedgerDoor,
    queries: Queries,
    provider: KeyProvider,
    epoch: int,
) -> KeyReplacement:
    profile, prefix = load_profile(profile_id), f"{Line.KEY_REPLACEMENT}:{epoch}"
    leases = LeaseTerms(lambda: datetime.now(UTC), timedelta(minutes=lease_minutes))
    return KeyReplacement(ledger, provider, queries, profile, prefix, secrets.token_bytes, leases)


def make_reading_line(
    profile_id: str,
    line: type[Inspection] | type[SampleReading],
    ledger: LedgerDoor,
    queries: Queries,
    provider: KeyProvider,
    epoch: int,
) -> Inspection | SampleReading:
    prefix = f"{line.line}:{epoch}"
    return line(ledger, provider, queries, load_profile(profile_id), prefix, secrets.token_bytes)


@dataclass(frozen=True)
class Wiring:
    """How each actor makes what it is the shell of. Everything here travels to the actors."""

    provider: Callable[[], Provider]
    lines: Mapping[Line, MakeLine] = field(default_factory=dict)


def production(config: Config) -> Wiring:
    """The wiring of a centre as configured."""
    reading = partial(make_reading_line, config.profile)
    return Wiring(
        provider=partial(make_provider, config),
        lines={
            Line.INVENTORY: make_inventory,
            Line.KEY_REPLACEMENT: partial(make_replacement, config.profile, config.lease_minutes),
            Line.INSPECTION: partial(reading, Inspection),
            Line.SAMPLING: partial(reading, SampleReading),
            Line.SORTING: partial(make_sorting, config.sampling_aql),
            Line.CUSTODY: partial(make_custody, config),
        },
    )
