# SPDX-License-Identifier: GPL-2.0-only
"""Who waits for whom, read from a memory that the tests make."""

import pytest

from harness.machines import queues
from harness.machines.queues import Node, in_words, lock_words, nodes_in_use, tail, words_of

CPUS, OFFSETS, ARRAY = 4, 0xFFFFFFFF82000000, 0x2C0
LOCK = 0xFFFF888004BB3008
SYMBOLS = {queues.OFFSETS: OFFSETS, "rqnodes": ARRAY}


def base(cpu):
    return 0xFFFF88800F000000 + cpu * 0x80000


def memory(nodes, size, lock=0):
    """Return a function that reads the nodes {(cpu, number): (successor, locked)}."""
    words = {OFFSETS + 8 * cpu: base(cpu) for cpu in range(CPUS)}
    words[LOCK] = 0xDEAD << 32 | lock
    for cpu in range(CPUS):
        for word in range(16):
            words[base(cpu) + ARRAY + 8 * word] = 0
        count = sum(place[0] == cpu for place in nodes)
        words[base(cpu) + ARRAY + 8] = count << 32
    for (cpu, number), (after, locked) in nodes.items():
        at = base(cpu) + ARRAY + number * size
        words[at] = base(after[0]) + ARRAY + after[1] * size if after else 0
        words[at + 8] |= locked
    return lambda address, length: [
        words[address + 8 * n] for n in range(length) if address in words
    ]


# What CPUs of 6.18.15 did: an interrupt of CPU 1 queued behind one of CPU 2, behind CPU 1's own task.
CIRCLE = {(1, 0): ((2, 0), 1), (2, 0): ((1, 1), 0), (1, 1): (None, 0)}


@pytest.mark.parametrize("size", queues.SIZES)
def test_nodes_are_read_from_each_cpu(size):
    found = nodes_in_use(SYMBOLS, "rqnodes", CPUS, memory(CIRCLE, size))
    assert found == {
        (1, 0): Node((2, 0)),
        (2, 0): Node((1, 1)),
        (1, 1): Node(None),
    }


def test_without_symbols_or_queues_nothing_is_said():
    assert nodes_in_use({}, "rqnodes", CPUS, memory({}, 32)) == {}
    assert nodes_in_use(SYMBOLS, "qnodes", CPUS, memory({}, 32)) == {}
    assert nodes_in_use(SYMBOLS, "rqnodes", CPUS, memory({}, 32)) == {} and in_words({}) == ""


def test_a_circle_of_a_task_and_interrupts_is_named():
    words = in_words(nodes_in_use(SYMBOLS, "rqnodes", CPUS, memory(CIRCLE, 32)))
    assert words == (
        "CPU 1's node 0 is the first, and waits for the owner;"
        " CPU 1's node 1 waits behind CPU 2's node 0; CPU 2's node 0 waits behind CPU 1's node 0;"
        " so none of CPU 1's node 0, CPU 1's node 1, CPU 2's node 0 goes on"
    )


def test_a_queue_in_order_is_no_circle():
    nodes = {(3, 0): ((1, 0), 1), (1, 0): ((2, 0), 0), (2, 0): (None, 0), (0, 0): (None, 0)}
    words = in_words(nodes_in_use(SYMBOLS, "rqnodes", CPUS, memory(nodes, 32)))
    assert "CPU 1's node 0 waits behind CPU 3's node 0" in words and "none of" not in words
    assert "CPU 0's node 0 is the first, and waits for the owner" in words


def test_the_lock_is_found_by_the_registers_that_point_to_it():
    word = (1 + 1) << 18 | 1 << 16 | 0x101
    read = memory(CIRCLE, 32, lock=word)
    nodes = nodes_in_use(SYMBOLS, "rqnodes", CPUS, read)
    dumps = [f"RAX=0000000000000001 RBX={LOCK:016x} RCX=ffff888004bb3ff0", f"RDI={LOCK:016x}"]
    assert lock_words(dumps, nodes, read) == {LOCK: word}
    words = queues.word_in_words(LOCK, word)
    assert words.endswith("is held, one pending, its tail is CPU 1's node 1")
    other = memory(CIRCLE, 32, lock=(2 + 1) << 18)  # a number that names a node with a successor
    assert lock_words(dumps, nodes, other) == {}


def test_a_lock_word_without_a_queue_has_no_tail():
    assert tail(1) is None and tail((3 + 1) << 18 | 2 << 16) == (3, 2)


def test_the_monitor_s_output_becomes_words():
    text = "ffff88800f0002c0: 0x0000000000000000 0x0000000100000001\r\n"
    assert words_of(text) == [0, 0x100000001]
    assert words_of("Cannot access memory\r\n") == []
