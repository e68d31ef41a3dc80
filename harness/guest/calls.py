# SPDX-License-Identifier: GPL-2.0-only
"""The agent's calls, each a request that host and guest share. Pure.

A class says all of a call: its name on the wire, its arguments (JSON holds them; bytes are in
hexadecimal unless it says otherwise), the type of its answer, and whether it needs the CPUs alone,
as calls do in which CPUs of the guest must be in the same place at the same moment. The host makes
one by Session.call(), and a function in harness/guest/handlers/ that is marked with it answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import (
    Any,
    ClassVar,
    Dict,
    Generic,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypedDict,
    TypeVar,
    get_args,
    get_type_hints,
)

Json = Dict[str, Any]
Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)
FIRST = "00000000"  # the key of an array's first element


class Call(Generic[Answer_co]):
    """A request, whose answer is of the type in brackets."""

    name: ClassVar[str]
    alone: ClassVar[bool]

    def __init_subclass__(cls, name: str, alone: bool = False) -> None:
        assert name not in CALLS, f"two calls have the name {name}"
        cls.name, cls.alone = name, alone
        CALLS[name] = cls

    def to_json(self) -> Json:
        """Return it as the line by which the host makes it."""
        return {"call": self.name, "with": _plain(self)}


CALLS: Dict[str, Type[Call[Any]]] = {}  # by name; the classes below put themselves in


def _plain(value: Any) -> Any:
    """Return a request, or a part of one, as JSON knows it: a range, say, is a list."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in value]
    return value


def from_json(line: Json) -> Call[Any]:
    """Return the request that a line stands for. Raises KeyError, TypeError if it stands for none."""
    request: Call[Any] = _built(CALLS[line["call"]], line["with"])
    return request


def _built(kind: Any, fields: Json) -> Any:
    hints = _hints(kind)
    return kind(**{name: _typed(hints[name], value) for name, value in fields.items()})


@lru_cache(maxsize=None)
def _hints(kind: Any) -> Dict[str, Any]:
    return get_type_hints(kind)


def _typed(hint: Any, value: Any) -> Any:
    """Return a field's value, with the dataclasses that it holds, alone or in a sequence."""
    if is_dataclass(hint):
        return _built(hint, value)
    if isinstance(value, list) and is_dataclass(get_args(hint)[0]):
        return [_built(get_args(hint)[0], part) for part in value]
    return value


# -- facts and the kernel log ------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts(Call[Json], name="facts"):
    """Ask which kernel this is; see facts.py."""


@dataclass(frozen=True)
class Has(Call[Dict[str, bool]], name="has"):
    """Ask which names (of functions, types, enumerators) the kernel knows; see facts.py."""

    names: Sequence[str]


@dataclass(frozen=True)
class Options(Call[Dict[str, str]], name="options"):
    """Ask for options of the kernel's configuration; see facts.py."""

    names: Sequence[str]


@dataclass(frozen=True)
class Begin(Call[List[str]], name="begin"):
    """Mark the begin of a case in the kernel log; the answer is what came late of the one before."""

    case: str


@dataclass(frozen=True)
class Late(Call[List[str]], name="late"):
    """Wait a little, and ask for what the kernel log holds since the last case ended."""


class Aftermath(TypedDict):
    """How a case left the guest: the CPUs that are stuck, and the kernel log; None is unreadable."""

    stuck: List[int]
    kernel_log: Optional[List[str]]


@dataclass(frozen=True)
class End(Call[Aftermath], name="end"):
    """Unload everything, and ask how the case left the guest."""


class Finished(TypedDict):
    """What came of a program."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Command(Call[Finished], name="command"):
    """Run a program in the guest until it ends."""

    arguments: Sequence[str]
    input: str = ""


@dataclass(frozen=True)
class Terminal(Call[int], name="terminal"):
    """Run an interactive program; see terminal.py for the events. The answer is its exit status."""

    arguments: Sequence[str]
    rows: int
    columns: int


@dataclass(frozen=True)
class Write(Call[None], name="write"):
    """Write to a file, of /proc or /sys say."""

    path: str
    text: str


# -- verdicts of the verifier and the map code -------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """One unit of a C file: bcc wants its text, libbpf the object, in base64."""

    loader: str  # bcc or libbpf
    text: str = ""
    object: str = ""


@dataclass(frozen=True)
class Trial:
    """A program to be loaded: as which user, and whether it is run or attached then."""

    name: str
    section: str
    user: str = "root"
    user_stage: str = "prog_load"
    run: bool = False
    attach: bool = False


@dataclass(frozen=True)
class Verify(Call[None], name="verify"):
    """Try each program of one unit. It ends early when a CPU is stuck after a case.

    Events: {"begin": name}, {"late": lines of the kernel log}, {"end": name, "observation": facts}.
    """

    source: Source
    cases: Sequence[Trial]


# -- objects of any origin ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Examine(Call[None], name="examine"):
    """Load each program of an object, in base64, which need not be sound, or only those named.

    See examine.py for the events.
    """

    object: str
    only: Sequence[str] = ()
    seconds: float = 60.0  # for each program, and for what comes before them
    # Of a program that replaces a function: the program that it is in, and the function.
    extends: Mapping[str, Sequence[str]] = field(default_factory=dict)
    names: Sequence[str] = ()  # of the kernel's own, that it may have or not


@dataclass(frozen=True)
class DriveObject(Call[Json], name="drive_object", alone=True):
    """Run one program of an object, in base64, on CPUs at once; see examine.py for the answer."""

    object: str
    program: str
    cpus: Sequence[int]
    seconds: float


# -- programs that stay ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """A program of the source, with its SEC()."""

    name: str
    section: str


@dataclass(frozen=True)
class Load(Call[None], name="load"):
    """Load programs, and keep them and their maps until the end."""

    source: Source
    programs: Sequence[Program]


@dataclass(frozen=True)
class Attach(Call[None], name="attach"):
    """Attach a loaded program to the trace point that it is for, as long as it is loaded."""

    program: str


class Ran(TypedDict):
    """What a program returned."""

    retval: int


@dataclass(frozen=True)
class TestRun(Call[Ran], name="test_run"):
    """Run a loaded program by BPF_PROG_TEST_RUN, once or often in one system call; on a CPU."""

    program: str
    repeat: int = 1
    cpu: Optional[int] = None


@dataclass(frozen=True)
class Order:
    """What one driver is to do: run a program on each of some CPUs, so many times; see drivers.py.

    Its runs are counted in the element `source` of a map. `map` and `fd` are for drivers that need
    them; after `seconds`, unless 0, test runs end early. Where user space writes, `members` says at
    which byte of a value `count`, `inverse` and `doubled` are.
    """

    driver: str
    program: str
    source: int
    cpus: Sequence[int]
    operations: int
    seconds: float = 0.0
    map: str = ""
    fd: int = -1
    members: Mapping[str, int] = field(default_factory=dict)


class Driven(TypedDict):
    """What came of one order, by CPU: how often a run was asked for, and what the driver noted."""

    sent: Dict[str, int]
    log: Dict[str, List[Any]]


class Drove(TypedDict):
    """What came of orders, where packets were lost, and the seconds from release to the end."""

    orders: List[Driven]
    dropped: Dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Drive(Call[Drove], name="drive", alone=True):
    """Run loaded programs at the same time.

    The first eight bytes of a value of the per-CPU map `counter`, that of the key `source`, tell how
    often a program ran; without one nobody waits for that.
    """

    orders: Sequence[Order]
    counter: str = ""


@dataclass(frozen=True)
class Race(Call[float], name="race", alone=True):
    """Run programs[n] on CPU n, over and over; the answer is for how many seconds.

    It ends when a per-CPU map has counted as much as `until` says, or after `seconds`.
    """

    programs: Sequence[str]
    until: Mapping[str, int]
    seconds: float


# -- maps --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MapMemory(Call[List[str]], name="map_memory"):
    """Read pieces, (begin, length) each, of a map's memory; they come compressed and in base64."""

    map: str
    pieces: Sequence[Tuple[int, int]]


@dataclass(frozen=True)
class MapReset(Call[None], name="map_reset"):
    """Bring a map back to its state at creation."""

    map: str


@dataclass(frozen=True)
class MapUpdate(Call[None], name="map_update"):
    """Write one element."""

    map: str
    key: str
    value: str
    flags: int = 0


@dataclass(frozen=True)
class MapUpdateEach(Call[None], name="map_update_each"):
    """Write the same value to many elements, one by one."""

    map: str
    keys: Sequence[str]
    value: str
    flags: int = 0


@dataclass(frozen=True)
class MapUpdateBatch(Call[None], name="map_update_batch"):
    """Write elements, (key, value) each, by one system call."""

    map: str
    elements: Sequence[Tuple[str, str]]
    flags: int = 0


@dataclass(frozen=True)
class MapLookup(Call[str], name="map_lookup"):
    """Read one element into a buffer filled with the byte `fill`."""

    map: str
    key: str
    flags: int = 0
    fill: int = 0


@dataclass(frozen=True)
class MapLookupAndDelete(Call[str], name="map_lookup_and_delete"):
    """Read and remove one element."""

    map: str
    key: str
    flags: int = 0
    fill: int = 0


@dataclass(frozen=True)
class MapReadBatch(Call[List[Tuple[str, str]]], name="map_read_batch"):
    """Read all elements, [key, value] each, by lookup_batch or lookup_and_delete_batch."""

    map: str
    way: str
    flags: int = 0
    fill: int = 0


@dataclass(frozen=True)
class MapDelete(Call[None], name="map_delete"):
    """Remove one element."""

    map: str
    key: str
    flags: int = 0


@dataclass(frozen=True)
class MapDeleteBatch(Call[None], name="map_delete_batch"):
    """Remove elements by one system call."""

    map: str
    keys: Sequence[str]
    flags: int = 0


@dataclass(frozen=True)
class MapMmap(Call[None], name="map_mmap"):
    """Map the begin of a map's memory for reading, and unmap it."""

    map: str
    length: int


@dataclass(frozen=True)
class MapFreeze(Call[None], name="map_freeze"):
    """Let user space write to a map no more."""

    map: str


@dataclass(frozen=True)
class MapPutMap(Call[None], name="map_put_map"):
    """Put a map into a map of maps."""

    map: str
    key: str
    inner: str


@dataclass(frozen=True)
class MapIterate(Call[None], name="map_iterate"):
    """Run a loaded program of section iter/bpf_map_elem once for every element."""

    map: str
    program: str


class Texts(TypedDict):
    """What a map's file read as, and how many looks found the lock held."""

    texts: List[str]
    held: int


@dataclass(frozen=True)
class MapText(Call[Texts], name="map_text", alone=True):
    """Pin a map in the BPF file system, and read that file over and over.

    Meanwhile `program` runs on some CPUs, over and over, until so many looks found the lock held, or
    for so long: after each reading, the program `peek` returns the lock word.
    """

    map: str
    program: str
    cpus: Sequence[int]
    peek: str
    held: int
    seconds: float


def element_call(way: str, map: str, element: Tuple[str, str], flags: int) -> Call[Any]:
    """Return the call that is one way of access, as in "lookup_batch", to an element (key, value)."""
    key, value = element
    access: Dict[str, Call[Any]] = {
        "lookup": MapLookup(map, key, flags),
        "lookup_and_delete": MapLookupAndDelete(map, key, flags),
        "lookup_batch": MapReadBatch(map, "lookup_batch", flags),
        "lookup_and_delete_batch": MapReadBatch(map, "lookup_and_delete_batch", flags),
        "update": MapUpdate(map, key, value, flags),
        "update_batch": MapUpdateBatch(map, [element], flags),
        "delete": MapDelete(map, key, flags),
        "delete_batch": MapDeleteBatch(map, [key], flags),
    }
    return access[way]


# -- what owns elements of local storages ------------------------------------------------------------


@dataclass(frozen=True)
class Owner(Call[str], name="owner"):
    """Make an owner of an element of a local storage; the answer is the key for user space.

    The kinds are socket, listener, file, process and cgroup, and ours for the cgroup that this
    process is in; and attached, for the older cgroup storage, which exists while `program` (of
    section cgroup_skb/egress) is attached to the cgroup. It goes when the session ends. A socket
    is bound to a UDP port of 127.0.0.1, a listener to a TCP port; a cgroup is joined by this
    process if told so.
    """

    kind: str
    program: str = ""
    port: int = 0
    join: bool = False


class Storages(TypedDict):
    """The keys of a socket's storage and of that of an attached program, and the socket's fd."""

    socket: str
    attached: str
    fd: int


@dataclass(frozen=True)
class Channel(Call[Storages], name="channel"):
    """Attach a program of section cgroup_skb/egress to a cgroup with one socket in it.

    Both go when the session ends.
    """

    program: str


@dataclass(frozen=True)
class Passage(Call[List[str]], name="passage"):
    """Send datagrams within a cgroup; the answer is the keys of the programs' storages there.

    The first program, of section cgroup_skb/egress, sees them leave, and the second, of
    cgroup_skb/ingress, arrive. The storages go when the session ends.
    """

    programs: Sequence[str]
    datagrams: int


@dataclass(frozen=True)
class Accept(Call[List[List[int]]], name="accept", alone=True):
    """Accept connections while `program` runs on some CPUs; the answer is what `looks` returned.

    These programs know the accepted socket by the port at its other end, in the map "peers".
    """

    times: int
    looks: Sequence[str]
    program: str
    cpus: Sequence[int]


# -- copies of elements ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Busy:
    """A program that runs on some CPUs, over and over; none without CPUs.

    What runs it there is `runs`: test_run; or system_call, fcntl (of the file that is the key) or
    datagram, by processes that are children of the session's, in the same cgroup.
    """

    program: str = ""
    cpus: Sequence[int] = ()
    runs: str = "test_run"


@dataclass(frozen=True)
class Access:
    """One way of access to one element.

    It is lookup, lookup_and_delete, either with _batch, update or update_batch. The way "other" runs
    the program `other`, by BPF_PROG_TEST_RUN, or by another system call or a longer datagram from
    here; "accept" is none, but copies a listening socket's storage to a new one's.
    """

    way: str
    values: Sequence[str]  # what updates write in turn; else the first fills the buffer of a read
    key: str = FIRST
    flags: int = 0
    other: str = ""


@dataclass(frozen=True)
class Shape:
    """Where in a value what is: (begin, end) of each."""

    hidden: Tuple[int, int]  # of the lock: these bytes are tallied
    even: Tuple[int, int]  # of the 64-bit words of which is told whether they are equal


@dataclass(frozen=True)
class Until:
    """When it was enough."""

    times: int  # at least,
    seconds: float  # but no longer than this once it was done so often; and until:
    least: float = 0.0  # so many seconds are over,
    held: int = 0  # so many peeks found the lock word other than 0,
    uneven: int = 0  # so many reads found words that differ


@dataclass(frozen=True)
class Renewed:
    """What is put back after each read, when nobody uses what that took away."""

    value: str = ""
    before: str = ""  # the key of an element that update_batch writes first, and is put back too


class Copied(TypedDict):
    """What copies were like."""

    done: int  # copies
    missing: int  # times there was no element
    hidden: Dict[str, int]  # lock bytes -> times
    uneven: int  # times words differed
    witness: Optional[str]  # the first such value
    peeked: Dict[str, int]  # lock word -> times


@dataclass(frozen=True)
class Copy(Call[Copied], name="copy", alone=True):
    """Copy one element in or out, many times, while a program runs on some CPUs; see copies.py.

    The program `peek` returns the lock word. It is done on the CPU `here`, or anywhere.
    """

    map: str
    access: Access
    shape: Shape
    until: Until
    busy: Busy = Busy()
    renewed: Renewed = Renewed()
    peek: str = ""
    here: Optional[int] = None


@dataclass(frozen=True)
class Numbered:
    """An element of a map that `program` serves: what it is to do stands in the map `orders`."""

    map: str
    orders: Sequence[str]  # to show it, to store in it, and to do so with BPF_F_LOCK
    program: str
    key: str = FIRST


@dataclass(frozen=True)
class Sweep(Call[Dict[str, List[List[int]]]], name="sweep", alone=True):
    """Write an element by every way and read it by every way; see copies.py for the answer.

    A way to write is (update, update_batch or program; flags; whether the element is new), a way to
    read (as Access has it, neighbour or memory; flags). The program `busy` holds the element's lock
    meanwhile.
    """

    element: Numbered
    before: str  # what the element holds when it is written to, unless it is new,
    value: str  # and what is written
    writes: Sequence[Tuple[str, int, bool]]
    reads: Sequence[Tuple[str, int]]
    times: int = 1
    busy: Busy = Busy()
