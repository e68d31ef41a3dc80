"""What is read from a dump of sockets, on messages made by hand; no kernel is asked."""

import struct

from harness.guest import sockdiag


def attribute(kind, data):
    return (struct.pack("=HH", 4 + len(data), kind) + data).ljust((7 + len(data)) // 4 * 4, b"\0")


def message(port, *storages):
    begin = struct.pack("=4B", 2, 7, 0, 0) + port.to_bytes(2, "big") + bytes(66)
    values = b"".join(
        attribute(1, attribute(2, bytes(4)) + attribute(3, storage)) for storage in storages
    )
    return begin + attribute(8, b"\0") + attribute(20 | 0x8000, values)


def test_storages_of_the_port_are_read():
    assert list(sockdiag._values(message(23313, b"twelve bytes", b"odd"), 23313)) == [
        b"twelve bytes",
        b"odd",
    ]


def test_other_sockets_are_passed_over():
    assert not list(sockdiag._values(message(53, b"twelve bytes"), 23313))


def test_a_socket_without_storages_has_none():
    assert not list(sockdiag._values(message(23313), 23313))
