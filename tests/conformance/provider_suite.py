"""What every key provider must do, whatever stands behind it: `check_key_provider(make)`.

The suite plays factory and chip with cryptography of its own. It never sees a formal master,
as nobody does: the formal keys that come out of WRITE KEY must answer as the chip would.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from tests.conformance import provider_keys, provider_records, provider_states
from tests.conformance.provider_specimen import Specimen

Make = Callable[[], AbstractContextManager[Specimen]]


def check_key_provider(make: Make) -> None:
    """Run every check over one specimen; each uses batches and cartons of its own."""
    with make() as specimen:
        for check in CHECKS:
            check(specimen)


CHECKS: tuple[Callable[[Specimen], None], ...] = (
    provider_keys.check_import_accepts_once,
    provider_keys.check_import_refuses_other_keys,
    provider_keys.check_import_refuses_wrong_check_value,
    provider_keys.check_authenticates_every_chip,
    provider_keys.check_key_change_opens_on_the_chip,
    provider_keys.check_formal_keys_do_not_depend_on_the_batch,
    provider_keys.check_refuses_alone,
    provider_keys.check_quota,
    provider_records.check_sealed_records,
    provider_records.check_compare,
    provider_records.check_compare_fits_names,
    provider_records.check_compare_of_no_record,
    provider_records.check_index,
    provider_records.check_sign,
    provider_states.check_usages,
    provider_states.check_no_temporary_key_after_formal_ones,
    provider_states.check_operations,
    provider_states.check_versions,
    provider_states.check_without_active_set,
)
