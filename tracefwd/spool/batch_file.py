"""One batch, one file: how it is named, framed, written and read back; the folder of a slot as a list of them.

    NUMBER+BORN_MS+ITEMS+TARGET+SIGNAL[+sent].batch      0x54 "FWB" version, header length, header crc, header, data

1. A file is written under another name and renamed when it is whole, so under ``.batch`` there is never half of one:
   whatever breaks one later (a disk, a power cut without ``sync``) breaks that file alone.
2. The name repeats what the ledger needs, so that even a file with nothing in it says how many lines were lost.
3. ``+sent`` stands in the name while a request with the batch may be under way, so that a crash does not forget it.
4. A header says which life wrote it: the seqs in it are that one's, wherever the file is now.
5. Header and data have a checksum each; what does not fit is ``DamagedError``, never a guess.

No bounds and no policy here (``store.py``), no event loop: everything blocks and may raise ``OSError``.
"""

import re
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import msgspec

from tracefwd.errors import TracefwdError
from tracefwd.model import Stored
from tracefwd.spool.disk import Disk

_MAGIC = b"TFWB\x01"
_FRAME = struct.Struct("<II")
_HEAD_BYTES = len(_MAGIC) + _FRAME.size
# Seqs of the thousands of small batches that may be gathered in one file; more is no header of ours.
_HEADER_BYTES_MAX = 2**20
# What is read to learn a file's header: nearly every header is under a hundred bytes.
_HEADER_BYTES_FIRST = 4_096
_NAME = re.compile(
    r"([0-9]{1,18})\+([0-9]{1,18})\+([0-9]{1,9})\+([A-Za-z0-9][A-Za-z0-9._-]{0,62})\+([a-z_]{1,32})(\+sent)?\.batch"
)
_SENT = "+sent"
_SUFFIX_OPEN = ".open"


class DamagedError(TracefwdError):
    """A file that is not what was written; the message says what does not fit."""


class _Header(msgspec.Struct, gc=False):
    """As it stands in the file; ``crc`` and ``size`` are the data's."""

    lane: str
    items: int
    born_ms: int
    encoding: str
    seqs: list[tuple[int, int]]
    maybe_sent: bool
    size: int
    crc: int
    writer: str = ""


class Named(NamedTuple):
    """What a file's name says."""

    name: str
    number: int
    born_ms: int
    items: int
    lane: str
    sent: bool


class BatchFolder:
    """The batches of one slot.  ``sync``: a batch survives a loss of power when ``write`` has returned.

    ``writer`` is the life that writes here.
    """

    def __init__(self, folder: Path, disk: Disk, *, sync: bool = False, writer: str = "") -> None:
        self.folder = folder
        self._disk = disk
        self._sync = sync
        self._writer = writer

    def create(self) -> None:
        self._disk.make_folder(self.folder)

    def names(self) -> list[Named]:
        """Whole files, oldest first; what has another name is not ours.  A folder that is not there is empty."""
        found = []
        for name in self._names():
            match = _NAME.fullmatch(name)
            if match is None:
                continue
            number, born_ms, items, target, signal, sent = match.groups()
            lane = f"{target}/{signal}"
            found.append(Named(name, int(number), int(born_ms), int(items), lane, bool(sent)))
        return sorted(found, key=lambda named: named.number)

    def clear_unfinished(self) -> None:
        """Files whose writer died: their batch was never taken for stored."""
        for name in self._names():
            if name.endswith(_SUFFIX_OPEN):
                self._disk.remove(self.folder / name)

    def write(self, stored: Stored, data: bytes) -> int:
        """Returns the file's size.  After an ``OSError`` there is no file (or one without its name)."""
        head = msgspec.msgpack.encode(
            _Header(
                stored.lane,
                stored.items,
                stored.born_ms,
                stored.encoding,
                stored.seqs,
                stored.maybe_sent,
                len(data),
                zlib.crc32(data),
                self._writer,
            )
        )
        content = b"".join([_MAGIC, _FRAME.pack(len(head), zlib.crc32(head)), head, data])
        stored.file = name_of(stored)
        path = self.folder / stored.file
        unfinished = path.with_name(path.name + _SUFFIX_OPEN)
        try:
            try:
                self._fill(unfinished, content)
            except FileNotFoundError:  # somebody has removed the folder
                self.create()
                self._fill(unfinished, content)
            self._disk.replace(unfinished, path)
        except OSError:
            self._discard(unfinished)
            raise
        if self._sync:
            try:
                self._disk.sync_folder(self.folder)
            except OSError:
                self._discard(path)  # else the next process would find what stays in memory here
                raise
        return len(content)

    def read_header(self, named: Named) -> Stored:
        """The file's description without its data.  Raises ``DamagedError``."""
        fd = self._disk.open_read(self.folder / named.name)
        try:
            size = self._disk.size_bytes(fd)
            start = self._read(fd, _HEADER_BYTES_FIRST)
            if len(start) >= _HEAD_BYTES:
                wanted = _HEAD_BYTES + _FRAME.unpack_from(start, len(_MAGIC))[0]
                if len(start) < wanted <= _HEAD_BYTES + _HEADER_BYTES_MAX:
                    start = self._read(fd, wanted)
        finally:
            self._disk.close(fd)
        header, begin = _parsed(start)
        stored = _stored(named, header, size)
        if _marked_name(stored, sent=named.sent) != named.name:
            raise DamagedError("its name and its header differ")
        if size != begin + header.size:
            raise DamagedError(f"{size} bytes instead of {begin + header.size}")
        return stored

    def mark(self, stored: Stored, *, sent: bool) -> None:
        """Whether it may have been sent, in its name."""
        name = _marked_name(stored, sent=sent)
        if name != stored.file:
            self._disk.replace(self.folder / stored.file, self.folder / name)
            stored.file = name

    def read(self, name: str) -> bytes:
        """The data, checked.  Raises ``DamagedError``; a file that is gone is one."""
        try:
            fd = self._disk.open_read(self.folder / name)
        except FileNotFoundError as missing:
            raise DamagedError("it is gone") from missing
        try:
            content = self._read(fd, self._disk.size_bytes(fd))
        finally:
            self._disk.close(fd)
        header, begin = _parsed(content)
        data = content[begin:]
        if len(data) != header.size:
            raise DamagedError(f"{len(data)} bytes of data instead of {header.size}")
        if zlib.crc32(data) != header.crc:
            raise DamagedError("the checksum of its data does not fit")
        return data

    def remove(self, name: str) -> None:
        """A file that is gone already is no error."""
        try:
            self._disk.remove(self.folder / name)
        except FileNotFoundError:
            return

    def probe(self) -> None:
        """Whether a file can be written and removed: raises ``OSError`` if not."""
        self.create()
        path = self.folder / f"probe{_SUFFIX_OPEN}"
        try:
            self._fill(path, bytes(_HEADER_BYTES_FIRST))
        except OSError:
            self._discard(path)  # whose own failure says less than the first
            raise
        self._disk.remove(path)

    def take_over(
        self, other: "BatchFolder", names: list[Named], number: int
    ) -> tuple[list[Named], int]:
        """Move another folder's files here, numbered from ``number`` on: those that came, and how many did not."""
        moved: list[Named] = []
        for named in names:
            target, _, signal = named.lane.partition("/")
            mark = _SENT if named.sent else ""
            name = _name(number, named.born_ms, named.items, target, signal + mark)
            try:
                self._disk.replace(other.folder / named.name, self.folder / name)
            except OSError:
                continue
            moved.append(named._replace(name=name, number=number))
            number += 1
        return moved, len(names) - len(moved)

    def _names(self) -> list[str]:
        try:
            return self._disk.names(self.folder)
        except FileNotFoundError:
            return []

    def _fill(self, path: Path, content: bytes) -> None:
        """A new file.  The kernel may take a part at a time."""
        fd = self._disk.create(path)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[self._disk.write(fd, rest) :]
            if self._sync:
                self._disk.sync(fd)
        finally:
            self._disk.close(fd)

    def _read(self, fd: int, size: int) -> bytes:
        """From the beginning; fewer bytes at the file's end."""
        content = b""
        while len(content) < size:
            piece = self._disk.read_at(fd, len(content), size - len(content))
            if not piece:
                break
            content += piece
        return content

    def _discard(self, path: Path) -> None:
        """As well as it goes: the disk has just failed; ``clear_unfinished`` gets unnamed ones at the next start."""
        try:
            self._disk.remove(path)
        except OSError:
            return


def name_of(stored: Stored) -> str:
    """Of a new file."""
    return _marked_name(stored, sent=False)


def _marked_name(stored: Stored, *, sent: bool) -> str:
    target, _, signal = stored.lane.partition("/")
    mark = _SENT if sent else ""
    return _name(stored.number, stored.born_ms, stored.items, target, signal + mark)


def _name(number: int, born_ms: int, items: int, target: str, signal: str) -> str:
    return f"{number:012d}+{born_ms}+{items}+{target}+{signal}.batch"


def _parsed(content: bytes) -> tuple[_Header, int]:
    """The header and where the data begins."""
    if not content.startswith(_MAGIC) or len(content) < _HEAD_BYTES:
        raise DamagedError("it does not begin as a batch does")
    length, crc = _FRAME.unpack_from(content, len(_MAGIC))
    head = content[_HEAD_BYTES : _HEAD_BYTES + length]
    if len(head) != length or zlib.crc32(head) != crc:
        raise DamagedError("the checksum of its header does not fit")
    try:
        return msgspec.msgpack.decode(head, type=_Header), _HEAD_BYTES + length
    except (msgspec.DecodeError, RecursionError) as problem:
        raise DamagedError("its header cannot be read") from problem


def _stored(named: Named, header: _Header, size: int) -> Stored:
    return Stored(
        number=named.number,
        lane=header.lane,
        items=header.items,
        born_ms=header.born_ms,
        encoding=header.encoding,
        seqs=header.seqs,
        maybe_sent=header.maybe_sent or named.sent,
        size_bytes=size,
        marked=named.sent,
        file=named.name,
        writer=header.writer,
    )
