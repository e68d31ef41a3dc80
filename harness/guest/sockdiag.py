"""What the kernel tells of sockets by NETLINK_SOCK_DIAG: here, their local storages."""

from __future__ import annotations

import os
import socket
import struct
from typing import Iterator, List, Tuple

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLA_F_NESTED, _NLA_TYPE_MASK = 0x8000, 0x3FFF
_ALL_STATES = 0xFFFFFFFF

# Attributes of a request and of its answer, each nested in the one before.
_REQ_STORAGES, _REQ_MAP_FD = 2, 1
_STORAGES, _STORAGE, _MAP_VALUE = 20, 1, 3

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBBI48x")  # struct inet_diag_req_v2, for whatever socket
_MESSAGE = struct.Struct("=4B HH 64x")  # struct inet_diag_msg, up to the ports


def storages(map_fd: int, port: int) -> List[bytes]:
    """Return the elements that UDP sockets bound to a port have in a map.

    Raises OSError, with ENOENT where the kernel does not tell of UDP sockets.
    """
    inner = _attribute(_REQ_MAP_FD, struct.pack("=I", map_fd))
    request = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_UDP, 0, 0, _ALL_STATES)
    request += _attribute(_REQ_STORAGES | _NLA_F_NESTED, inner)
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(10)
        netlink.send(header + request)
        return [value for message in _dump(netlink) for value in _values(message, port)]


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data


def _dump(netlink: socket.socket) -> Iterator[bytes]:
    """Yield the bodies of the messages of a dump."""
    while True:
        data = netlink.recv(1 << 16)
        at = 0
        while at < len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + length]
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", body)[0]
                raise OSError(number, os.strerror(number))
            yield body
            at += (length + 3) // 4 * 4


def _values(message: bytes, port: int) -> Iterator[bytes]:
    ports = message[4:6]  # the local one, as it is in a packet
    if int.from_bytes(ports, "big") != port:
        return
    for kind, data in _attributes(message[_MESSAGE.size :]):
        if kind == _STORAGES:
            for inner, storage in _attributes(data):
                if inner == _STORAGE:
                    yield from (
                        value for which, value in _attributes(storage) if which == _MAP_VALUE
                    )


def _attributes(data: bytes) -> Iterator[Tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, data[at + 4 : at + length]
        at += (length + 3) // 4 * 4
