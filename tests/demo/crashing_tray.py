"""The tray process, dying before, at or after a chip writes a key.

`python -m tests.demo.crashing_tray CRASH_DIR …` and the arguments of the tray. States:
`tray.write.before` (nothing on file), `tray.write.after` (on file, the answer not sent).
"""

from __future__ import annotations

import sys
from pathlib import Path

from station_agents.virtual import tray
from station_agents.virtual.card import VirtualCard
from tests.demo.crash import CrashPoints

_WRITE_KEY = 0xD4


def main() -> int:
    crash = CrashPoints(Path(sys.argv[1]))
    process = VirtualCard.process

    def crashing(self: VirtualCard, apdu: bytes) -> bytes:
        writes = len(apdu) > 1 and apdu[1] == _WRITE_KEY
        if writes:
            crash("tray.write.before")
        answer = process(self, apdu)
        if writes:
            crash("tray.write.after")
        return answer

    VirtualCard.process = crashing  # type: ignore[method-assign]
    return tray.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
