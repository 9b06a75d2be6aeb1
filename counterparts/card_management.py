"""Card management (卡管系统) as a process: hands in the factory return, takes centre returns, and
cancels or holds orders when its clerks say so.

    python -m counterparts.card_management --home-dir DIR --door HOST:PORT --listen HOST:PORT \
        [--inbox INBOX]

DIR is the `sent` of a delivery. The receipt of the factory return is kept as
DIR/receipt-factory-return.json; centre returns lie in DIR/received. With the centre's INBOX, the
correction of refused records follows as a file. Commands that a clerk lays into DIR/desk (`*.json`,
as DIR/stops.json) are handed in, their receipts kept as DIR/receipt-<name>.json. Ends on SIGTERM or
Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Event

import grpc
import structlog

from counterparts import files
from counterparts.received import Serving, serve
from counterparts.return_file import CORRECTION, drop
from counterparts.submission import (
    Tampering,
    persist,
    submit_delivery_note,
    submit_factory_return,
    submit_orders_command,
)
from stubs.common_pb2 import Receipt

__all__ = ["Serving", "Tampering", "hand_in", "serve", "submit_delivery_note",
           "submit_factory_return"]  # fmt: skip

_log = structlog.get_logger("counterparts.card_management")
RECEIPT = "receipt-factory-return.json"
DESK_SECONDS = 0.2


def hand_in(directory: Path, door: str, stop: Event) -> Receipt | None:
    """Submit the factory return of a finished delivery until it is answered, and keep the
    receipt. An accepted one kept before is enough. None if stopped before, or kept."""
    kept = directory / RECEIPT
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8"))["accepted"]:
        return None
    made = json.loads((directory / ".complete").read_text(encoding="utf-8"))
    file_id, batch_id = made["file_id"], made["batch_id"]

    def pausing(code: grpc.StatusCode, seconds: float) -> None:
        _log.info("centre_away", file_id=file_id, status=code.name, pause_seconds=seconds)

    receipt = persist(
        lambda: submit_factory_return(door, directory / "factory_return.jsonl", file_id, batch_id),
        stop,
        pausing,
    )
    if receipt is not None:
        files.write_whole(kept, files.to_json(files.receipt_row(receipt)) + "\n")
        _log.info(
            "factory_return_answered",
            file_id=file_id,
            code=receipt.code,
            records=receipt.records,
            taken=receipt.taken,
            refused=len(receipt.refused),
            repeated=receipt.repeated,
        )
    return receipt


def hand_in_correction(directory: Path, inbox: Path) -> None:
    """Drop the correction that belongs to a factory return, once: unless it lies in the inbox, or
    was answered."""
    made = json.loads((directory / ".complete").read_text(encoding="utf-8"))
    name = f"{made['file_id']}-{CORRECTION}"
    if not made["corrects"] or (inbox / name).exists() or (inbox / "done" / name).exists():
        return
    drop(inbox, name, (directory / CORRECTION).read_bytes())
    _log.info("correction_dropped", file=name, records=made["corrects"])


def hand_in_commands(directory: Path, door: str, stop: Event) -> None:
    """Hand in what lies on the desk and was not answered yet; the same again is harmless."""
    for file in sorted((directory / "desk").glob("*.json")):
        kept = directory / f"receipt-{file.name}"
        if kept.exists():
            continue
        rows = []
        for command in json.loads(file.read_text(encoding="utf-8")):
            receipt = persist(partial(submit_orders_command, door, command), stop)
            if receipt is None:
                return
            rows.append({**command, "receipt": files.receipt_row(receipt)})
            _log.info(
                "orders_answered",
                act=command["act"],
                code=receipt.code,
                taken=receipt.taken,
                refused=len(receipt.refused),
            )
        files.write_whole(kept, files.to_json(rows) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m counterparts.card_management",
        description="卡管系统 card management (stand-in)",
    )
    parser.add_argument("--home-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--door", required=True, metavar="HOST:PORT", help="the centre's door")
    parser.add_argument(
        "--also", type=Path, metavar="DIR", help="another delivery whose return is handed in"
    )
    parser.add_argument("--listen", required=True, metavar="HOST:PORT", help="port 0: a free one")
    parser.add_argument("--inbox", type=Path, metavar="INBOX", help="for files to the centre")
    options = parser.parse_args(arguments)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with serve(options.listen, options.home_dir) as serving:
        _log.info("listening", address=serving.address)
        for directory in filter(None, (options.home_dir, options.also)):
            hand_in(directory, options.door, stop)
        if options.inbox and not stop.is_set():
            hand_in_correction(options.home_dir, options.inbox)
        while not stop.wait(DESK_SECONDS):
            hand_in_commands(options.home_dir, options.door, stop)


if __name__ == "__main__":
    main()
