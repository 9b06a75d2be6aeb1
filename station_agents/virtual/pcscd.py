"""A private PC/SC service with virtual readers, which disturbs no other one on the machine.

    python -m station_agents.virtual.pcscd --dir DIR --readers N

prints one line of JSON when clients can connect: {"socket": path, "ports": [...], "readers":
["R00 00 00", ...]}, and ends pcscd on SIGTERM or SIGINT. Clients set PCSCLITE_CSOCK_NAME to the
socket before their first PC/SC call; reader i is fed by whoever connects to port i on loopback.
The same DIR given again has the same ports (DIR/ports.json), so that tray and clients find it.

pcscd works in a mount namespace of its own with DIR over /run/pcscd, and is handed its listening
socket as systemd would hand it (sd_listen_fds): who connects early is served when it is ready.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

DRIVER: Final = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
# pcscd serves 16 readers (PCSCLITE_MAX_READERS_CONTEXTS), and each entry of vpcd is two.
MOST_READERS: Final = 8
_SOCKET_PATH_MAX: Final = 107  # bytes, `sockaddr_un` of Linux

# $1 directory, $2 file descriptor of the listening socket. The death signal is set as the last
# step, since the change of user namespace may clear it.
_START: Final = """
set -e
[ -d /run/pcscd ] || mkdir -p /run/pcscd
mount --bind "$1" /run/pcscd
eval "exec 3<&$2"
export LISTEN_FDS=1 LISTEN_PID=$$
exec setpriv --pdeathsig KILL pcscd --foreground -c "$1/reader.conf"
"""

# In a process of its own: libpcsclite reads the name of the socket only once in a process.
_LIST_READERS: Final = """
import json
from smartcard import scard
hr, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
hr, readers = scard.SCardListReaders(context, []) if hr == 0 else (hr, [])
scard.SCardReleaseContext(context)
print(json.dumps(readers))
"""


class PcscdError(Exception):
    """The service cannot be started; the message says what mends it."""


def _check_parts() -> None:
    for program, package in (
        ("pcscd", "pcscd"),
        ("unshare", "util-linux"),
        ("setpriv", "util-linux"),
        ("mount", "mount"),
    ):
        if _find(program) is None:
            raise PcscdError(f"缺少 {program} ({program} is missing): apt-get install {package}")
    if not DRIVER.exists():
        raise PcscdError(f"缺少 {DRIVER} (is missing): apt-get install vsmartcard-vpcd")


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def choose_ports(count: int) -> list[int]:
    """`count` ports, each free and the one above it too (vpcd opens both).

    Below the range from which the kernel takes ports for outgoing connections: one of those
    could take a reader's port while pcscd is down.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = list(range(10_000, min(lowest, 65_534) - 1, 2))
    random.SystemRandom().shuffle(candidates)
    free = (port for port in candidates if _is_free(port) and _is_free(port + 1))
    ports = [port for port, _ in zip(free, range(count), strict=False)]
    if len(ports) < count:
        raise PcscdError("没有空闲端口 (no free ports below the ephemeral range)")
    return ports


class Pcscd:
    """A private pcscd with `readers` virtual readers in `directory` (made if absent).

        with Pcscd(directory, readers=4) as service:
            subprocess.Popen(..., env={**os.environ, **service.environment})

    `start` returns when clients can connect. Start it from a thread that lives as long as the
    service: pcscd is killed when that thread ends.
    """

    def __init__(self, directory: Path | str, readers: int = 4) -> None:
        if not 1 <= readers <= MOST_READERS:
            raise PcscdError(f"pcscd serves 1 to {MOST_READERS} virtual readers, not {readers}")
        self.directory = Path(directory).resolve()
        self.socket = self.directory / "pcscd.comm"
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_MAX:
            raise PcscdError(f"路径过长 (a shorter directory is needed): {self.directory}")
        self.readers = [f"R{number:02d} 00 00" for number in range(readers)]
        self.ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {"PCSCLITE_CSOCK_NAME": str(self.socket)}

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT of each reader, for the tray."""
        return [f"127.0.0.1:{port}" for port in self.ports]

    @property
    def process_id(self) -> int:
        """Of pcscd itself. PcscdError if it was not started."""
        if self._process is None:
            raise PcscdError("not started")
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def start(self, deadline_seconds: float = 20.0) -> None:
        """Start pcscd and wait until every reader is there. Raises PcscdError; nothing runs
        then."""
        end = time.monotonic() + deadline_seconds
        _check_parts()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._wait_for_predecessor(end)
        self._take_ports()
        self._write_configuration()
        try:
            self._spawn()
            self._wait_until_ready(end)
        except BaseException:
            self.stop()
            raise

    def _wait_for_predecessor(self, end: float) -> None:
        """A pcscd that was killed may not be quite gone, and holds the ports until it is."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(max(0.001, end - time.monotonic()))
            try:
                line.connect(str(self.socket))
                line.recv(1)  # b"" or a reset when it ends
            except TimeoutError:
                raise PcscdError(
                    f"该目录已有 pcscd 在运行 (another pcscd serves {self.directory}): end it first"
                ) from None
            except OSError:
                return

    def _take_ports(self) -> None:
        file = self.directory / "ports.json"
        kept: list[int] = json.loads(file.read_text()) if file.exists() else []
        wanted = len(self.readers)
        self.ports = kept[:wanted]
        while len(self.ports) < wanted:
            self.ports += [p for p in choose_ports(1) if p not in self.ports]
        for port in self.ports:
            if not (_is_free(port) and _is_free(port + 1)):
                raise PcscdError(
                    f"端口 {port} 被占用 (port {port} or the one above is taken): "
                    f"end what uses it, or remove {file}"
                )
        if len(self.ports) > len(kept):
            new = file.with_suffix(".new")
            new.write_text(json.dumps(self.ports))
            new.rename(file)

    def _write_configuration(self) -> None:
        """One entry a reader, each with a copy of the driver: the driver keeps its connections
        in one array by slot, which entries that load the same file would share."""
        entries = []
        for name, port in zip(self.readers, self.ports, strict=True):
            friendly = name.split()[0]
            driver = self.directory / f"{DRIVER.stem}-{friendly}.so"
            # Another process may have the old copy mapped: replaced, not written over.
            driver.unlink(missing_ok=True)
            shutil.copyfile(DRIVER, driver)
            entries.append(
                f'FRIENDLYNAME "{friendly}"\nDEVICENAME /dev/null:0x{port:04X}\n'
                f"LIBPATH {driver}\nCHANNELID 0x{port:04X}\n"
            )
        (self.directory / "reader.conf").write_text("\n".join(entries))

    def _spawn(self) -> None:
        self.socket.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening,
            (self.directory / "pcscd.log").open("wb") as output,
        ):
            listening.bind(str(self.socket))
            listening.listen(64)
            fd = listening.fileno()
            path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
            self._process = subprocess.Popen(
                ["unshare", "-Urm", "bash", "-c", _START, "bash", str(self.directory), str(fd)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(fd,),
                start_new_session=True,
                env={**os.environ, "PATH": path},
            )

    def _wait_until_ready(self, end: float) -> None:
        """A client's first call is answered when pcscd has opened its readers; if pcscd ends,
        the socket goes with it and the call fails at once."""
        try:
            done = subprocess.run(
                [sys.executable, "-c", _LIST_READERS],
                env={**os.environ, **self.environment},
                capture_output=True,
                timeout=max(0.1, end - time.monotonic()),
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise PcscdError(f"pcscd 未就绪 (not ready in time){self._log_tail()}") from None
        except subprocess.CalledProcessError as e:
            last = e.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise PcscdError(f"pyscard 无法使用 (cannot be used): {last}") from None
        missing = sorted(set(self.readers) - set(json.loads(done.stdout)))
        if missing:
            raise PcscdError(f"缺少读卡器 (readers are missing): {missing}{self._log_tail()}")

    def _log_tail(self) -> str:
        text = (self.directory / "pcscd.log").read_text(errors="replace").strip()
        return "; pcscd: " + " | ".join(text.splitlines()[-3:]) if text else ""

    def wait(self) -> int:
        """Wait until pcscd ends by itself; its exit code."""
        return self._process.wait() if self._process is not None else 0

    def kill(self) -> None:
        """SIGKILL to pcscd, as in an accident; `start` may be called again."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End pcscd; returns when it is gone."""
        self._end(signal.SIGTERM)
        self.socket.unlink(missing_ok=True)

    def _end(self, first: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        for number in (first, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
            try:
                process.wait(timeout=5)
                break
            except subprocess.TimeoutExpired:
                continue
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m station_agents.virtual.pcscd",
        description="私有 PC/SC 服务 (a private PC/SC service with virtual readers)",
    )
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--readers", required=True, type=int, metavar="N")
    arguments = parser.parse_args(argv)
    # Blocked signals are inherited: pcscd is started first. A SIGTERM before they are blocked
    # ends this process, and pcscd with it.
    try:
        service = Pcscd(arguments.dir, arguments.readers)
        service.start()
    except (PcscdError, OSError) as e:
        print(f"PC/SC 服务无法启动 (cannot be started): {e}", file=sys.stderr)
        return 1
    ended = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    ready = {"socket": str(service.socket), "ports": service.ports, "readers": service.readers}
    print(json.dumps(ready), flush=True)
    if not service.has_ended and signal.sigwait(ended) != signal.SIGCHLD:
        service.stop()
        return 0
    print(f"pcscd 意外结束 (ended by itself), exit code {service.wait()}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
