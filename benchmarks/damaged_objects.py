# SPDX-License-Identifier: GPL-2.0-only
"""Damage BPF objects and check them: each must get an answer, and the guest must survive.

    python benchmarks/damaged_objects.py OBJECT… [--count N] [--seconds N] [--seed N] [--kernel NAME]

An object is damaged by flipped bits, overwritten words, cut ends and pieces of itself or of another
one put elsewhere. Prints the answers by class, what was lost, and the time; exits with 1 when one
damaged object got no answer or cost a guest.
"""

from __future__ import annotations

import argparse
import base64
import collections
import random
import sys
import time
from pathlib import Path
from typing import Any, Counter, Dict, List, Optional, Sequence

from harness.check import lockset, refusal
from harness.errors import SetupError
from harness.guest import calls
from harness.machines import choose, loss, target
from harness.machines.session import AgentError, Session
from harness.provision import elf
from harness.provision.btf import Malformed
from harness.scenarios.versions import kernel_version

SECONDS = 10.0  # for one object
WAYS = (0, 0, 0, 1, 2, 2, 2, 3, 4, 4, 5)  # cut ends and left out bytes rarely get past ELF headers


def damage(objects: Sequence[bytes], random_: random.Random) -> bytes:
    """Return one of the objects, damaged in one to four ways."""
    data = bytearray(random_.choice(objects))
    for _ in range(random_.randint(1, 4)):
        if not data:
            break
        at = random_.randrange(len(data))
        way = random_.choice(WAYS)
        if way == 0:
            data[at] ^= 1 << random_.randrange(8)
        elif way == 1:
            for _ in range(random_.randint(2, 16)):
                data[random_.randrange(len(data))] = random_.randrange(256)
        elif way == 2:
            word = random_.choice((0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
            data[at : at + 4] = word.to_bytes(4, "little")
        elif way == 3:
            del data[at:]
        elif way == 4:
            other = random_.choice(objects)
            start = random_.randrange(len(other))
            piece = other[start : start + random_.randint(1, 64)]
            data[at : at + len(piece)] = piece
        else:
            length = random_.randint(1, 64)
            del data[at : at + length]
    return bytes(data)


def host(data: bytes) -> str:
    """Read an object as the host does; return the class of the answer."""
    try:
        found = elf.read(data)
    except Malformed:
        return "host: a sentence"
    lockset.analyse(found, found.programs)
    return "host: read"


def guest(session: Session, data: bytes, facts: Dict[str, Any]) -> List[str]:
    """Load an object in the guest; return the classes of its answers, of which one is the last."""
    events: List[Dict[str, Any]] = []
    encoded = base64.b64encode(data).decode()
    session.call(calls.Examine(encoded, seconds=SECONDS), events.append, limit=60)
    release = kernel_version(facts["release"], facts["version"])
    asked: Dict[str, Any] = {}
    answers = []
    for event in events:
        asked = event.get("object", asked)
        if "damaged" in event:
            answers.append(refusal.broken(event).name)
        elif "end" in event:
            seen = event["seen"]
            loads = seen["stage"] is None
            why = None if loads else refusal.explain(seen, asked, release, None, {})
            answers.append(why.name if why else "loads")
    if "unfinished" in events[-1]:
        answers.append("time")
    wanted = {program["name"] for program in asked.get("programs", ())}
    ended = {event["end"] for event in events if "end" in event}
    if wanted - ended and not {"damaged", "unfinished"} & set(events[-1]):
        raise AssertionError(f"no answer for {wanted - ended}")
    return answers or ["no program"]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("objects", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kernel", default=target.DEFAULT_KERNEL)
    options = parser.parse_args()
    objects = [path.read_bytes() for path in options.objects]
    random_ = random.Random(options.seed)
    answers: Counter[str] = collections.Counter()
    guests = choose.open_target(target.Settings("qemu", options.kernel), print)
    started, done, lost, unanswered = time.monotonic(), 0, 0, 0
    slowest = 0.0
    again: Optional[bytes] = None  # one at which the guest was lost without the kernel's doing
    data, is_second = b"", False
    try:
        while done < options.count and time.monotonic() - started < options.seconds:
            try:
                with guests.session() as session:
                    facts = session.call(calls.Facts())
                    while done < options.count and time.monotonic() - started < options.seconds:
                        is_second, data = again is not None, again or damage(objects, random_)
                        again = None
                        done += 1
                        begun = time.monotonic()
                        try:
                            answers[host(data)] += 1
                            answers.update(guest(session, data, facts))
                        except (AssertionError, AgentError, RecursionError) as error:
                            unanswered += 1
                            print(f"no answer for object {done}: {error}", file=sys.stderr)
                            if isinstance(error, AgentError):
                                break
                        slowest = max(slowest, time.monotonic() - begun)
                        if done % 500 == 0:
                            print(f"{done} after {time.monotonic() - started:.0f} s", flush=True)
            except loss.GuestLost as error:
                if data and not error.crashed and not is_second:
                    done, again = done - 1, data
                    continue
                lost += 1
                answers["crash"] += 1
                Path(f"damaged-{options.seed}-{done}.o").write_bytes(data)
                print(f"guest lost at object {done}, kept: {error}", file=sys.stderr)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 4
    finally:
        guests.close()
    seconds = time.monotonic() - started
    for name, count in answers.most_common():
        print(f"{count:>8}  {name}")
    print(
        f"{done} damaged objects in {seconds:.0f} s on {options.kernel}, the slowest {slowest:.1f} s;"
        f" {unanswered} without an answer, {lost} guests lost"
    )
    return int(unanswered + lost > 0)


if __name__ == "__main__":
    sys.exit(main())
