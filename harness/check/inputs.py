# SPDX-License-Identifier: GPL-2.0-only
"""What programs are given when they are run: packets of the usual kinds, or the user's own. Pure."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Dict

from harness.errors import UsageError

_MACS = bytes.fromhex("020000000002" "020000000001")
_CLIENT, _SERVER = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])  # RFC 5737
_CLIENT6 = bytes.fromhex("20010db8" + "00" * 11 + "01")  # RFC 3849
_SERVER6 = bytes.fromhex("20010db8" + "00" * 11 + "02")
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_ICMP, _TCP, _UDP = 1, 6, 17
_SYN, _ACK, _PUSH = 2, 16, 24
LEAST, MOST = 14, 9000  # bytes of a packet: the kernel wants an Ethernet header


def _sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ethernet(kind: int, rest: bytes) -> bytes:
    return (_MACS + struct.pack("!H", kind) + rest).ljust(64, b"\0")


def _ipv4(protocol: int, rest: bytes) -> bytes:
    def header(checksum: int) -> bytes:
        fixed = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(rest), 1, 0, 64, protocol, checksum)
        return fixed + _CLIENT + _SERVER

    return _ethernet(_IPV4, header(_sum(header(0))) + rest)


def _ipv6(protocol: int, rest: bytes) -> bytes:
    fixed = struct.pack("!IHBB", 6 << 28, len(rest), protocol, 64)
    return _ethernet(_IPV6, fixed + _CLIENT6 + _SERVER6 + rest)


def _tcp(flags: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, 80, 1, 1, 5 << 4, flags, 8192, 0, 0) + payload


def _udp(port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload


def packets() -> Dict[str, str]:
    """Return packets by name, in hexadecimal; those are first that most programs take."""
    made = {
        "TCP data": _ipv4(_TCP, _tcp(_PUSH, bytes(range(64)))),
        "UDP": _ipv4(_UDP, _udp(53, bytes(32))),
        "TCP SYN": _ipv4(_TCP, _tcp(_SYN)),
        "TCP ACK": _ipv4(_TCP, _tcp(_ACK)),
        "ICMP": _ipv4(_ICMP, struct.pack("!BBHHH", 8, 0, 0xF7FE, 0, 1) + bytes(32)),
        "IPv6 TCP": _ipv6(_TCP, _tcp(_PUSH, bytes(32))),
        "IPv6 UDP": _ipv6(_UDP, _udp(53, bytes(32))),
        "ARP": _ethernet(_ARP, bytes.fromhex("0001080006040001") + bytes(20)),
        "zeros": bytes(64),
    }
    return {name: data.hex() for name, data in made.items()}


def given(word: str) -> str:
    """Return the packet of --packet, in hexadecimal: of a file, or written out. Raises UsageError."""
    path = Path(word)
    try:
        data = path.read_bytes() if path.is_file() else bytes.fromhex(word)
    except OSError as error:
        raise UsageError(f"Cannot read {word} ({error.strerror}).") from None
    except ValueError:
        raise UsageError(
            f"--packet {word}: it is no file, and not the bytes of a packet in hexadecimal."
        ) from None
    if not LEAST <= len(data) <= MOST:
        raise UsageError(
            f"--packet {word}: {len(data)} bytes; {LEAST} (an Ethernet header) to {MOST} are taken."
        )
    return data.hex()
