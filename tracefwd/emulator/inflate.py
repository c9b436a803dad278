"""Request bodies as they were before compression, never more of them than allowed.

Our own rather than the HTTP library's, because broken compression is a case to answer (400) and not to log.  Pure.
"""

import zlib

# "deflate" means zlib's wrapping, and some senders leave it away.
_ZLIB, _RAW, _GZIP = 15, -15, 31


def inflated(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """Gzip (of several members, too) and deflate; any other encoding is left as it is, as the proxy does.

    ``zlib.error`` for broken or incomplete data, ``OverflowError`` above ``bytes_max``.
    """
    if encoding in {"gzip", "x-gzip"}:
        return _members(body, _GZIP, bytes_max)
    if encoding in {"deflate", "x-deflate"}:
        is_wrapped = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
        return _members(body, _ZLIB if is_wrapped else _RAW, bytes_max)
    return body


def _members(body: bytes, wbits: int, bytes_max: int) -> bytes:
    whole = b""
    while True:
        member = zlib.decompressobj(wbits=wbits)
        # One byte over tells too much from just enough; a limit of 0 would mean none.
        whole += member.decompress(body, bytes_max - len(whole) + 1)
        if len(whole) > bytes_max:
            raise OverflowError
        if not member.eof:
            raise zlib.error("incomplete data")
        body = member.unused_data
        if wbits != _GZIP or not body:
            return whole
