"""A PC/SC client in a process of its own (libpcsclite reads its socket's name once a process).

One JSON list [method, arguments...] a line in, one JSON value a line out; methods of `Client`.
"""

import json
import os
import sys
import threading
import time
from typing import Any

from smartcard import scard

ANY = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1


class Client:
    def __init__(self) -> None:
        self.context = 0
        self.handles: dict[str, tuple[int, int]] = {}

    def establish(self) -> int:
        """A new context, as after the service was restarted."""
        self.handles.clear()
        code, self.context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
        return int(code)

    def wait(self, reader: str, present: bool, seconds: float) -> bool:
        """Wait for events of pcscd until a card is there, or gone."""
        end = time.monotonic() + seconds
        seen = scard.SCARD_STATE_UNAWARE
        wanted = scard.SCARD_STATE_PRESENT if present else scard.SCARD_STATE_EMPTY
        while (left := end - time.monotonic()) > 0:
            code, states = scard.SCardGetStatusChange(
                self.context, int(left * 1000), [(reader, seen)]
            )
            if code != 0:
                return False
            seen = states[0][1]
            if seen & wanted and not seen & scard.SCARD_STATE_MUTE:
                return True
            seen &= ~scard.SCARD_STATE_CHANGED
        return False

    def connect(self, reader: str) -> int:
        code, handle, protocol = scard.SCardConnect(
            self.context, reader, scard.SCARD_SHARE_SHARED, ANY
        )
        if code == 0:
            self.handles[reader] = handle, protocol
        return int(code)

    def reconnect(self, reader: str, unpower: bool) -> int:
        how = scard.SCARD_UNPOWER_CARD if unpower else scard.SCARD_RESET_CARD
        handle, _ = self.handles[reader]
        code, protocol = scard.SCardReconnect(handle, scard.SCARD_SHARE_SHARED, ANY, how)
        self.handles[reader] = handle, protocol
        return int(code)

    def disconnect(self, reader: str) -> int:
        handle, _ = self.handles.pop(reader)
        return int(scard.SCardDisconnect(handle, scard.SCARD_LEAVE_CARD))

    def atr(self, reader: str) -> str:
        return bytes(scard.SCardStatus(self.handles[reader][0])[4]).hex().upper()

    def transmit(self, reader: str, apdu: str) -> tuple[int, str]:
        handle, protocol = self.handles[reader]
        pci = scard.SCARD_PCI_T0 if protocol == scard.SCARD_PROTOCOL_T0 else scard.SCARD_PCI_T1
        code, answer = scard.SCardTransmit(handle, pci, list(bytes.fromhex(apdu)))
        return int(code), bytes(answer).hex().upper()

    def measure(self, readers: list[str], apdu: str, count: int) -> tuple[float, bool]:
        """APDU/s with one thread a reader, and whether all were answered with 9000."""
        right: list[bool] = []

        def run(reader: str) -> None:
            right.append(all(self.transmit(reader, apdu)[1].endswith("9000") for _ in range(count)))

        threads = [threading.Thread(target=run, args=(reader,)) for reader in readers]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count * len(readers) / (time.monotonic() - start), all(right)

    def measure_ejects(self, reader: str, control: str, count: int) -> float:
        """Seconds a card, for eject and power cycle."""
        from station_agents.virtual.control import TrayControl

        start = time.monotonic()
        with TrayControl(control) as tray:  # type: ignore[arg-type]
            for _ in range(count):
                tray.ask("eject", reader=0, stack="good")
                if self.reconnect(reader, True) != 0:
                    raise RuntimeError("a card did not come")
        return (time.monotonic() - start) / count


def main() -> None:
    client = Client()
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        answer: Any = getattr(client, method)(*arguments)
        print(json.dumps(answer), flush=True)
    os._exit(0)  # the destructors of libpcsclite would ask a service that may be gone


if __name__ == "__main__":
    main()
