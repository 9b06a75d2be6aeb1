"""Files that the centre writes."""

from __future__ import annotations

import os
from pathlib import Path

from centre.running import write_whole


def test_keys_that_leave_are_for_this_account_alone(tmp_path: Path) -> None:
    """Whatever the umask, nobody else can read a backup or an export (`private`)."""
    before = os.umask(0)
    try:
        write_whole(tmp_path / "backup", b"x", private=True)
    finally:
        os.umask(before)
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
