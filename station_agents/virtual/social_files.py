"""Files of the social application: which is meant, who may read and update it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from domain.card.apdu import SW
from domain.card.profile import File, FileKind, Profile
from station_agents.virtual.command import Command, StatusError, as_long_as
from station_agents.virtual.social_memory import (
    BinaryWritten,
    RecordWritten,
    SocialChange,
    SocialMemory,
)
from station_agents.virtual.social_security import Security

ENVIRONMENT_FID: Final = 0x3F00  # the master file (ISO/IEC 7816-4, 7.4.1)
_EF: Final = 0xEF00  # file identifier of an EF: EF and its short identifier
_WITH_MAC: Final = 0x04  # in CLA
_BY_SHORT_IDENTIFIER: Final = 0x80  # in P1 of the binary commands
_LONGEST_ANSWER: Final = 256


class Files:
    """The commands for files; each raises StatusError."""

    def __init__(
        self,
        profile: Profile,
        memory: SocialMemory,
        security: Security,
        change: Callable[[SocialChange], None],
    ) -> None:
        self._memory = memory
        self._security = security
        self._change = change
        self._files = {(file.df, file.sfi): file for file in profile.files}
        self._dfs = {df.fid: aid for aid, df in profile.dfs.items()}
        self.forget()

    def forget(self) -> None:
        """No file is selected."""
        self._current: File | None = None

    def select(self, command: Command) -> bytes:
        """SELECT by file identifier: the environment, one of its DFs, or a file of the DF that is
        selected."""
        if command.p1 or command.p2:
            raise StatusError(SW.WRONG_P1P2)
        if len(command.data) != 2:
            raise StatusError(SW.WRONG_LENGTH)
        fid = int.from_bytes(command.data, "big")
        if fid == ENVIRONMENT_FID:
            self._security.enter_environment()
            self.forget()
        elif fid in self._dfs:
            self._security.enter_df(self._dfs[fid])
            self.forget()
        else:
            file = self._files.get((self._security.df, fid & 0xFF)) if fid & 0xFF00 == _EF else None
            if file is None:
                raise StatusError(SW.FILE_NOT_FOUND)
            self._current = file
        return b""

    def read_record(self, command: Command) -> bytes:
        if command.data or command.le is None:
            raise StatusError(SW.WRONG_LENGTH)
        file = self._for_records(command)
        self._security.require(file.read)
        value = self._memory.records.get(file.number, {}).get(command.p1)
        if value is None:
            raise StatusError(SW.RECORD_NOT_FOUND)
        return as_long_as(command.le, bytes((command.p1, len(value))) + value)

    def update_record(self, command: Command) -> bytes:
        """Data: tag ‖ length ‖ value, the tag as in P1. A record that is not there is appended."""
        file = self._for_records(command)
        record = self._updated(file, command)
        if len(record) < 2 or record[0] != command.p1 or record[1] != len(record) - 2:
            raise StatusError(SW.WRONG_DATA)
        if len(record) - 2 > file.size:
            raise StatusError(SW.NO_ROOM_IN_FILE)
        self._change(RecordWritten(file.number, command.p1, record[2:]))
        return b""

    def read_binary(self, command: Command) -> bytes:
        if command.data or command.le is None:
            raise StatusError(SW.WRONG_LENGTH)
        file, offset = self._for_bytes(command)
        self._security.require(file.read)
        if offset >= file.size:
            raise StatusError(SW.WRONG_OFFSET)
        there = min(file.size - offset, _LONGEST_ANSWER)
        wanted = command.le or there
        if wanted > there:
            return as_long_as(command.le, bytes(there))
        data = self._memory.binaries.get(file.number, b"")
        return data[offset : offset + wanted].ljust(wanted, b"\x00")

    def update_binary(self, command: Command) -> bytes:
        file, offset = self._for_bytes(command)
        data = self._updated(file, command)
        if not data:
            raise StatusError(SW.WRONG_LENGTH)
        if offset + len(data) > file.size:
            raise StatusError(SW.WRONG_OFFSET if offset >= file.size else SW.NO_ROOM_IN_FILE)
        self._change(BinaryWritten(file.number, offset, data))
        return b""

    def _updated(self, file: File, command: Command) -> bytes:
        """What an update brings, once it is allowed."""
        with_mac = command.cla == _WITH_MAC
        if file.mac and not with_mac:
            raise StatusError(SW.SECURE_MESSAGING_OBJECT_MISSING)
        if with_mac and not file.mac:
            raise StatusError(SW.SECURE_MESSAGING_UNSUPPORTED)
        self._security.require(file.update)
        if not file.mac:
            return command.data
        return self._security.checked(command, self._security.key_of(file.update))

    def _for_records(self, command: Command) -> File:
        """P2: short identifier of the file, or 0 for the selected one, and 100 (by tag)."""
        if command.p2 & 0x07 != 0x04:
            raise StatusError(SW.WRONG_P1P2)
        return self._file(command.p2 >> 3, FileKind.RECORDS)

    def _for_bytes(self, command: Command) -> tuple[File, int]:
        """Short identifier in P1 and offset in P2, or the offset in both, of the selected file."""
        if command.p1 & _BY_SHORT_IDENTIFIER:
            return self._file(command.p1 & 0x1F, FileKind.BINARY), command.p2
        return self._file(0, FileKind.BINARY), command.p1 << 8 | command.p2

    def _file(self, sfi: int, kind: FileKind) -> File:
        """The file `sfi` of the selected DF, which is the selected file from now on."""
        file = self._files.get((self._security.df, sfi)) if sfi else self._current
        if file is None:
            raise StatusError(SW.FILE_NOT_FOUND if sfi else SW.NO_FILE_SELECTED)
        if file.kind is not kind:
            raise StatusError(SW.FILE_OF_ANOTHER_KIND)
        self._current = file
        return file
