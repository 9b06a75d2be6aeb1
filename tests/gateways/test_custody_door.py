"""The door of people with accounts: nothing without a session, and no more than was asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

from grpc.aio import Metadata

from domain.codes import Code
from domain.custody import LARGEST_BLOCK
from gateways.custody import LONGEST_TEXT, TOKEN
from stubs import custody_pb2 as pb
from stubs.custody_pb2_grpc import CustodyStub
from tests.gateways.surroundings import open_hall
from tests.lines.custody import PROOF, password_of


def test_every_call_needs_a_session(tmp_path: Path) -> None:
    """Without a token, or with one that nobody has, every call but two is refused with words in
    Chinese first and a next step; with one it is answered, and no hash of a password goes out."""

    async def run() -> None:
        async with open_hall(tmp_path) as (_, channel):
            stub = CustodyStub(channel)
            calls = {
                "LogOut": pb.Nothing(), "WhoAmI": pb.Nothing(), "ListPeople": pb.Nothing(),
                "ListKeys": pb.Nothing(), "ListActs": pb.ActsRequest(),
                "ChangePassword": pb.PasswordChange(old="x", new="y"),
                "NextKeys": pb.Proposal(kind="key.generate", subject="formal"),
                "Propose": pb.Proposal(kind="key.backup", subject="token"),
                "Confirm": pb.Confirmation(act_id="A000001"),
                "Withdraw": pb.ActId(act_id="A000001"),
            }  # fmt: skip
            assert {*calls, "Found", "LogIn"} == {
                m.name for m in pb.DESCRIPTOR.services_by_name["Custody"].methods
            }
            for metadata in (None, Metadata((TOKEN, "no token of ours"))):
                for name, request in calls.items():
                    reply = await getattr(stub, name)(request, metadata=metadata, timeout=10)
                    assert reply.receipt.code == Code.NOT_LOGGED_IN, name
                    assert reply.receipt.reason.startswith("未登录")
                    assert "centre login" in reply.receipt.next_step
            founding = pb.Founding(name="sun", password=password_of("sun"), proof=PROOF)
            assert (await stub.Found(founding, timeout=10)).receipt.accepted
            login = pb.LoginRequest(name="sun", password=password_of("sun"), terminal="tty1")
            token = (await stub.LogIn(login, timeout=10)).session_token
            mine = Metadata((TOKEN, token))
            early = await stub.ListPeople(pb.Nothing(), metadata=mine, timeout=10)
            assert early.receipt.code == Code.PASSWORD_TO_CHANGE
            change = pb.PasswordChange(old=password_of("sun"), new="a password of sun's own")
            assert (await stub.ChangePassword(change, metadata=mine, timeout=10)).receipt.accepted
            people = await stub.ListPeople(pb.Nothing(), metadata=mine, timeout=10)
            assert [(p.name, list(p.roles)) for p in people.people] == [("sun", ["supervisor"])]
            assert "argon2" not in str(people)
            assert (await stub.LogOut(pb.Nothing(), metadata=mine, timeout=10)).receipt.accepted
            after = await stub.WhoAmI(pb.Nothing(), metadata=mine, timeout=10)
            assert after.receipt.code == Code.SESSION_ENDED

    asyncio.run(run())


def test_what_is_too_long_goes_no_further(tmp_path: Path) -> None:
    """Texts, blocks and numbers of parts have limits, whoever asks; the field is named, and what
    it held is not."""

    async def run() -> None:
        async with open_hall(tmp_path) as (_, channel):
            stub = CustodyStub(channel)
            long = "x" * (LONGEST_TEXT + 1)
            for request, code, field in (
                (pb.Proposal(kind="key.restore", password=long), Code.BAD_FORMAT, "password"),
                (pb.Proposal(block=bytes(LARGEST_BLOCK + 1)), Code.FILE_TOO_LARGE, "block"),
                (pb.Proposal(parts=[pb.Part(usage="MK")] * 40), Code.FILE_TOO_LARGE, "parts"),
            ):
                reply = await stub.Propose(request, timeout=10)
                assert reply.receipt.code == code
                assert field in reply.receipt.reason
                assert long not in reply.receipt.reason

    asyncio.run(run())
