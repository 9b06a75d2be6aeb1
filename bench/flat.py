"""Whether a card costs the same in a ledger of years: whole batches through all lines, in a new
ledger and in one with history, in turn; and what the screens and lines ask all the time."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from bench import history, whole_batch
from bench.masters import home_with_keys
from bench.one_process import Lines
from bench.template import Template, make_template
from bench.whole_centre import processor_seconds
from centre.wiring import now
from counterparts.factory import Delivery, make_delivery
from ledger import heads, metrics, progress, schema
from ledger.digests import digest_of
from ledger.key_use import key_dependents
from ledger.queries import Queries
from proof.postgres import PostgresServer, running
from scheduler.calendar import Calendar
from scheduler.clocks import open_clocks

TEMPLATE_CARDS = 1_000
SERVER = ("shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=30min")
"""As a server of a centre would be set, on a machine like this one."""


@dataclass(frozen=True)
class Flat:
    """One database. Processor milliseconds of a card (lines and database together) and cards a
    second by the clock, medians over the rounds, without history and with `cards` of it; bytes of
    disk a card of history; milliseconds of what is asked all the time, by name."""

    database: str
    cards: int
    ms: tuple[float, float]
    per_second: tuple[float, float]
    bytes_per_card: float
    asked: Mapping[str, tuple[float, float]]

    @property
    def ratio(self) -> float:
        return self.ms[1] / self.ms[0]


class Place:
    """Where ledgers of one database are made."""

    name: str

    def new(self, name: str) -> str:
        """An empty one; its URL."""
        raise NotImplementedError

    def size(self, name: str) -> int:
        """Bytes on the disk."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """It is not needed any more."""
        raise NotImplementedError

    def seconds(self) -> float:
        """Processor seconds of the database so far, outside this process."""
        return 0.0


class Files(Place):
    name = "SQLite"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def new(self, name: str) -> str:
        self.remove(name)
        return f"sqlite:{self._directory / name}.db"

    def remove(self, name: str) -> None:
        for left in self._directory.glob(f"{name}.db*"):
            left.unlink()

    def size(self, name: str) -> int:
        return (self._directory / f"{name}.db").stat().st_size


class Server(Place):
    name = "PostgreSQL"

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def new(self, name: str) -> str:
        self._server.drop(name)
        return self._server.create(name)

    def remove(self, name: str) -> None:
        self._server.drop(name)

    def size(self, name: str) -> int:
        return int(self._server.run(f"select pg_database_size('{name}')"))

    def seconds(self) -> float:
        return sum(processor_seconds({}, self._server.pid).values())


@contextmanager
def places(directory: Path, short: Path) -> Iterator[Sequence[Place]]:
    """Both databases: files in `directory`, and a server in `short`, whose path is one (a socket
    is in it) that other accounts can enter."""
    short.chmod(0o755)
    with running(short / "pg", SERVER) as server:
        yield Files(directory), Server(server)


def signer() -> tuple[history.Sign, ec.EllipticCurvePublicKey]:
    """A head key of its own, and its public half."""
    key = ec.generate_private_key(ec.SECP256R1())

    def sign(digests: Sequence[bytes]) -> list[bytes]:
        pairs = (
            decode_dss_signature(key.sign(d, ec.ECDSA(Prehashed(hashes.SHA256())))) for d in digests
        )
        return [r.to_bytes(32, "big") + s.to_bytes(32, "big") for r, s in pairs]

    return sign, key.public_key()


def template_of(kept: Path, place: Path, cards: int = TEMPLATE_CARDS) -> Template:
    """The template, made once for each schema and size, and kept in the directory `kept`."""
    path = kept / f"template-{digest_of(schema.TABLES)[:12]}-{cards}"
    if not path.exists():
        made = make_template(place, cards)
        kept.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(made))
    return pickle.loads(path.read_bytes())  # type: ignore[no-any-return]  # made by us, above


def load(place: Place, name: str, template: Template, batches: int) -> str:
    """A ledger with so many batches; its URL."""
    url = place.new(name)
    history.load(url, template, batches, datetime.now(UTC) - timedelta(days=1), signer()[0])
    return url


def measure(
    place: Path, database: Place, url: str, history_cards: int, name: str, rounds: int, cards: int
) -> Flat:
    """`rounds` of batches of `cards`, after one that warms up, in a new ledger and in the one at
    `url` (`name` in `database`, with `history_cards`), which is written to."""
    size = database.size(name)
    config = home_with_keys(place / "home")
    pem = config.transport_public_key.read_bytes()
    sides = [Lines(replace(config, ledger=ledger)) for ledger in (database.new("nothing"), url)]
    spent: list[list[float]] = [[], []]
    clock: list[list[float]] = [[], []]
    try:
        for nth in range(rounds + 1):
            seed = 900_000 + nth
            delivery = make_delivery(seed, cards, place / f"delivery-{seed}", pem)
            for at in (0, 1) if nth % 2 else (1, 0):
                sides[1 - at].provider.close()  # one session with the token at a time
                done = _round(sides[at], delivery, database, keys=at == (0 if nth % 2 else 1))
                if nth:
                    spent[at].append(done[0])
                    clock[at].append(done[1])
        ms, per_second = [median(s) for s in spent], [median(c) for c in clock]
        asked = _asked(sides)
    finally:
        for side in sides:
            side.close()
    return Flat(
        database.name,
        history_cards,
        (ms[0], ms[1]),
        (per_second[0], per_second[1]),
        size / max(history_cards, 1),
        asked,
    )


def _round(lines: Lines, delivery: Delivery, database: Place, *, keys: bool) -> tuple[float, float]:
    before = database.seconds()
    done = asyncio.run(whole_batch.run(lines, delivery, keys=keys))
    seconds = done.seconds + database.seconds() - before
    return 1_000 * seconds / done.cards, done.cards / done.clock


def _asked(sides: Sequence[Lines]) -> dict[str, tuple[float, float]]:
    """What screens, scrapes and idle lines ask; milliseconds without and with history."""
    found = [
        {name: _milliseconds(lambda: ask(side.queries)) for name, ask in POLLS.items()}  # noqa: B023
        for side in sides
    ]
    return {name: (found[0][name], found[1][name]) for name in POLLS}


def _milliseconds(ask: Callable[[], object]) -> float:
    ask()
    started = time.perf_counter()
    times = 0
    while times < 3 or time.perf_counter() - started < 0.1:
        ask()
        times += 1
    return 1_000 * (time.perf_counter() - started) / times


POLLS: Mapping[str, Callable[[Queries], object]] = {
    "bodies by line (watch)": lambda q: progress.progress_of_lines(q, now()),
    "open outbox (watch)": progress.open_outbox,
    "open batches (watch)": progress.open_batches,
    "unscanned packages (watch)": progress.unscanned_packages,
    "clocks": lambda q: open_clocks(q, datetime.now(UTC), Calendar()),
    "unsigned heads (every minute)": heads.unsigned_heads,
    "oldest unsigned commit (scrape)": metrics.oldest_unsigned,
    "cards advised since (key replacement)": lambda q: q.advised_since(100),
    "bodies under a key (custody)": lambda q: key_dependents(q, ["formal:STK:v1"]),
}
