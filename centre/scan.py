"""Scanning what lies in a package before it closes. A hand scanner types the number on a card's
face and a line end; the numbers stand on no command line, on no screen and in no log."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
import grpc

from centre.find import as_written
from stubs.common_pb2 import Receipt
from stubs.operator_pb2 import (
    ClosePackageRequest,
    CountStockRequest,
    OpenPackage,
    OpenPackagesRequest,
)
from stubs.operator_pb2_grpc import OperatorStub

ANSWER_SECONDS = 60.0


def scan_package(door: str, package_id: str, counted: int | None) -> Receipt:
    """Scan a package and close it by what was scanned; one that is closed is only compared.
    `counted`: its cards without a number, asked for if it has some and None is given. Raises
    grpc.RpcError, click.UsageError."""
    with grpc.insecure_channel(door) as channel:
        centre = OperatorStub(channel)
        found = centre.ListOpenPackages(
            OpenPackagesRequest(package_id=package_id), timeout=ANSWER_SECONDS, wait_for_ready=True
        )
        request = ClosePackageRequest(package_id=package_id)
        for package in found.packages:
            _head(package)
            if package.count > package.without_number:
                request.social_card_numbers.extend(_scans(package.count - package.without_number))
            if package.without_number or counted:
                request.counted_without_number = _count() if counted is None else counted
        if not found.packages:
            click.echo("不在待封包中，仅核对 not open: what is scanned is only compared", err=True)
            request.social_card_numbers.extend(_scans(0))
            request.counted_without_number = counted or 0
        return centre.ClosePackage(request, timeout=ANSWER_SECONDS)


def count_stock(door: str, request: CountStockRequest) -> Receipt:
    """Scan what lies at a place and compare; what should lie there is told by nobody before the
    scan has ended. Raises grpc.RpcError."""
    request.social_card_numbers.extend(_scans(0))
    with grpc.insecure_channel(door) as channel:
        centre = OperatorStub(channel)
        return centre.CountStock(request, timeout=ANSWER_SECONDS, wait_for_ready=True)


def _head(package: OpenPackage) -> None:
    holders = "，持有临时卡 holders of a temporary card" if package.has_temporary else ""
    click.echo(
        f"包 package {package.package_id}，去向 to {package.destination}，"
        f"{package.count} 张 cards{holders}",
        err=True,
    )


def _scans(expected: int) -> Iterator[str]:
    """The scanned numbers, until an empty line; the running count is shown."""
    terminal = sys.stdin.isatty()
    click.echo("逐张扫描，空行结束 scan card by card, an empty line ends", err=True)
    done = 0
    while True:
        if terminal:
            words = f"{done}/{expected or '?'} 张 scanned"
            text = click.prompt(words, default="", hide_input=True, show_default=False, err=True)
        else:
            text = sys.stdin.readline(1_000)
        number = as_written(text)
        if not number:
            break
        done += 1
        yield number
    click.echo(f"已扫 {done}/{expected or '?'} 张 scanned", err=True)


def _count() -> int:
    if not sys.stdin.isatty():
        raise click.UsageError("cards without a number lie in this package: --counted N is needed")
    words = "无号卡（临时卡）张数 cards without a number"
    return int(click.prompt(words, type=click.IntRange(0, 10_000), err=True))
