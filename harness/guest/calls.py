# SPDX-License-Identifier: GPL-2.0-only
"""The table of the agent's calls, shared by host and guest. Pure.

Each class is one call: its name on the wire, its arguments and the type of its answer. Arguments
travel as JSON; bytes are hexadecimal unless stated otherwise. `alone=True` marks a call in which the
guest's CPUs must run at the same moment, so the host lets no other guest run meanwhile. The host
calls Session.call(request); the function in harness/guest/handlers/ with @answers(class) replies.
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
    """A request; the type parameter is the type of its answer."""

    name: ClassVar[str]
    alone: ClassVar[bool]

    def __init_subclass__(cls, name: str, alone: bool = False) -> None:
        assert name not in CALLS, f"two calls have the name {name}"
        cls.name, cls.alone = name, alone
        CALLS[name] = cls

    def to_json(self) -> Json:
        """Return the line that the host sends for this call."""
        return {"call": self.name, "with": _plain(self)}


CALLS: Dict[str, Type[Call[Any]]] = {}  # by name; each class below registers itself


def _plain(value: Any) -> Any:
    """Return a request, or a part of one, as JSON types: a range becomes a list."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in value]
    return value


def from_json(line: Json) -> Call[Any]:
    """Return the request of a line. Raises KeyError or TypeError if the line is not a call."""
    request: Call[Any] = _built(CALLS[line["call"]], line["with"])
    return request


def _built(kind: Any, fields: Json) -> Any:
    hints = _hints(kind)
    return kind(**{name: _typed(hints[name], value) for name, value in fields.items()})


@lru_cache(maxsize=None)
def _hints(kind: Any) -> Dict[str, Any]:
    return get_type_hints(kind)


def _typed(hint: Any, value: Any) -> Any:
    """Return a field's value; JSON objects become dataclasses, alone or in a list."""
    if is_dataclass(hint):
        return _built(hint, value)
    if isinstance(value, list) and is_dataclass(get_args(hint)[0]):
        return [_built(get_args(hint)[0], part) for part in value]
    return value


# -- facts and the kernel log ------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts(Call[Json], name="facts"):
    """Return facts about the kernel, the machine and the tools; see facts.py."""


@dataclass(frozen=True)
class Has(Call[Dict[str, bool]], name="has"):
    """Return which names (of functions, types, enumerators) the kernel's BTF has; see facts.py."""

    names: Sequence[str]


@dataclass(frozen=True)
class Options(Call[Dict[str, str]], name="options"):
    """Return options of the kernel's configuration; see facts.py."""

    names: Sequence[str]


@dataclass(frozen=True)
class Begin(Call[List[str]], name="begin"):
    """Mark the begin of a case in the kernel log; return late lines of the case before."""

    case: str


@dataclass(frozen=True)
class Late(Call[List[str]], name="late"):
    """Wait a little, then return the lines of the kernel log since the last case ended."""


class Aftermath(TypedDict):
    """The guest after a case: its stuck CPUs, and the kernel log (None: it could not be read)."""

    stuck: List[int]
    kernel_log: Optional[List[str]]


class Ended(Aftermath):
    """The same of a case whose programs stayed until its end; and where bcc had built them."""

    built: str


@dataclass(frozen=True)
class End(Call[Ended], name="end"):
    """Unload everything, and return the state of the guest."""


class Finished(TypedDict):
    """Exit status and output of a command."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Command(Call[Finished], name="command"):
    """Run a command in the guest until it ends."""

    arguments: Sequence[str]
    input: str = ""


@dataclass(frozen=True)
class Terminal(Call[int], name="terminal"):
    """Run an interactive command; return its exit status. terminal.py describes the events."""

    arguments: Sequence[str]
    rows: int
    columns: int


@dataclass(frozen=True)
class Write(Call[None], name="write"):
    """Write to a file, for example in /proc or /sys."""

    path: str
    text: str


# -- verdicts of the verifier and the map code -------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """One unit of a C file: its text for bcc, or the compiled object in base64 for libbpf."""

    loader: str  # bcc or libbpf
    text: str = ""
    object: str = ""


@dataclass(frozen=True)
class Trial:
    """A program to load: by which user, and whether to run or attach it afterwards."""

    name: str
    section: str
    user: str = "root"
    user_stage: str = "prog_load"
    run: bool = False
    attach: bool = False


@dataclass(frozen=True)
class Verify(Call[None], name="verify"):
    """Load and run the programs of one unit, one by one. Ends early if a CPU is stuck after a case.

    Events: {"begin": name}, {"late": lines of the kernel log}, {"end": name, "observation": facts}.
    """

    source: Source
    cases: Sequence[Trial]


# -- objects of any origin ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Examine(Call[None], name="examine"):
    """Load the programs of an object (base64, possibly damaged) one by one: all, or those in `only`.

    examine.py describes the events.
    """

    object: str
    only: Sequence[str] = ()
    seconds: float = 60.0  # for each program, and for what comes before them
    # Of a program that replaces a function: the program that it is in, and the function.
    extends: Mapping[str, Sequence[str]] = field(default_factory=dict)
    names: Sequence[str] = ()  # of the kernel's own, that it may have or not


@dataclass(frozen=True)
class Step:
    """A program of an object, and the packet that BPF_PROG_TEST_RUN gives it if its type takes one."""

    program: str
    packet: str = ""


@dataclass(frozen=True)
class Lanes:
    """Runs of an object's programs: a lane for each CPU.

    In its n-th chunk a lane runs one of the steps `repeat` times. Every lane has the same chunks, if
    their number is a multiple of the number of steps.
    """

    object: str  # base64; loaded anew
    programs: Sequence[str]  # to load: those of the steps, and what they call by tail calls
    steps: Sequence[Step]
    cpus: Sequence[int]
    chunks: int
    repeat: int
    maps: Sequence[str]  # whose values are told


@dataclass(frozen=True)
class TakeTurns(Call[Json], name="take_turns"):
    """Run lanes one chunk after the other, in an order of turns.SERIAL; turns.py has the answer."""

    lanes: Lanes
    order: str = "in_turn"
    pause: float = 0.0  # seconds in all, between chunks


@dataclass(frozen=True)
class RunTogether(Call[Json], name="run_together", alone=True):
    """Run all lanes at once, each on its CPU; turns.py has the answer."""

    lanes: Lanes
    rounds: int = 1  # so often from the same values on
    looks: Sequence[str] = ()  # maps of which values are read under their lock meanwhile


class LoaderRan(TypedDict):
    """How the user's own loader ended, and what it loaded.

    `status` is as of subprocess: negative for a signal, None where it still ran when its time was
    over, or where something is `missing` and it was not run. `loaded` counts the programs that the
    kernel took meanwhile; `left` names those of them that were there at the end.
    """

    status: Optional[int]
    output: str
    missing: List[str]
    loaded: int
    left: List[str]
    seconds: float
    kernel_log: Optional[List[str]]


@dataclass(frozen=True)
class RunLoader(Call[LoaderRan], name="run_loader"):
    """Run a command of the user's by the shell, for `seconds` at most, where its files are.

    `files` are by path: base64 of what zlib compressed. `executable` are those that may be run.
    """

    command: str
    files: Mapping[str, str]
    executable: Sequence[str]
    seconds: float


# -- programs that stay ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """The name and SEC() of a program."""

    name: str
    section: str


@dataclass(frozen=True)
class Load(Call[None], name="load"):
    """Load programs; they and their maps stay until End, or until the next Load."""

    source: Source
    programs: Sequence[Program]


@dataclass(frozen=True)
class Attach(Call[None], name="attach"):
    """Attach a loaded program to its trace point, until it is unloaded."""

    program: str


class Ran(TypedDict):
    """The return value of a program."""

    retval: int


@dataclass(frozen=True)
class TestRun(Call[Ran], name="test_run"):
    """Run a loaded program by one BPF_PROG_TEST_RUN, `repeat` times, on a CPU or anywhere."""

    program: str
    repeat: int = 1
    cpu: Optional[int] = None


@dataclass(frozen=True)
class Order:
    """The work of one driver: run a program `operations` times on each CPU; see drivers.py.

    The program counts its runs in element `source` of the map Drive.counter. `map` and `fd` serve
    drivers that need them. Test runs end after `seconds` (0: no limit). For the driver user_space,
    `members` has the byte offsets of `count`, `inverse` and `doubled` in a value.
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
    """The result of one order, by CPU: the number of requested runs, and the driver's notes."""

    sent: Dict[str, int]
    log: Dict[str, List[Any]]


class Drove(TypedDict):
    """Results of all orders, dropped packets by counter, and seconds from release to the end."""

    orders: List[Driven]
    dropped: Dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Drive(Call[Drove], name="drive", alone=True):
    """Run loaded programs at the same time.

    `counter` is a per-CPU map: the first eight bytes of element `source` are the number of runs. The
    call waits until all requested runs were counted. Without a counter it does not wait.
    Every five seconds comes an event {"alive": operations sent so far}, unless none was sent since.
    """

    orders: Sequence[Order]
    counter: str = ""


@dataclass(frozen=True)
class Race(Call[float], name="race", alone=True):
    """Run programs[n] on CPU n in a loop; return the seconds spent.

    Ends when a per-CPU map of `until` has reached its count, or after `seconds`.
    """

    programs: Sequence[str]
    until: Mapping[str, int]
    seconds: float


# -- actors of schedules ------------------------------------------------------------------------------

# Where an actor has its operations, in its own memory: number n begins at ACTORS + n * ACTOR_STRIDE.
# There stand, at these offsets, the word that it reads before the system call, the call's result or
# -errno, union bpf_attr, the keys, and the values.
ACTORS, ACTOR_STRIDE = 0x51B0_1000_0000, 0x4000
ACTOR_GATE, ACTOR_RESULT, ACTOR_ATTR, ACTOR_KEYS, ACTOR_VALUES = 0, 8, 64, 0x800, 0x1000
# Before the first one stand the word that it reads before each turn, and, which the host may change
# then, how many operations a turn has and their numbers, a byte each.
ACTOR_TURN, ACTOR_ORDER, ACTOR_LONGEST = ACTORS - ACTOR_STRIDE, ACTORS - ACTOR_STRIDE + 8, 32


@dataclass(frozen=True)
class Operation:
    """A system call: the way "run" of a program, or a way of access to a map; see element_call()."""

    way: str
    name: str  # of the program or map
    key: str = FIRST
    value: str = ""  # what is written, as much as a lookup has room for; or the program's packet
    flags: int = 0


@dataclass(frozen=True)
class Act(Call[None], name="act"):
    """Start an actor: a process on a CPU that makes these system calls over and over, in turn.

    At first, its turns have none of them. It goes with Rest, or with the loaded unit.
    """

    cpu: int
    operations: Sequence[Operation]


@dataclass(frozen=True)
class Rest(Call[None], name="rest"):
    """End all actors."""


@dataclass(frozen=True)
class Symbols(Call[List[str]], name="symbols"):
    """Return "function+0xoffset" for each address of kernel or program code."""

    addresses: Sequence[int]


@dataclass(frozen=True)
class Lines(Call[List[List[int]]], name="lines"):
    """Return the machine code's lines of a loaded program, by address, with its end as the last.

    Each is an address, the file's name as an offset in the strings of the program's BTF, and the
    line. [] for a program that is interpreted.
    """

    program: str


@dataclass(frozen=True)
class Addresses(Call[Dict[str, int]], name="addresses"):
    """Return the addresses of these names in /proc/kallsyms; what it lacks is left out."""

    names: Sequence[str]


# -- maps --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MapMemory(Call[List[str]], name="map_memory"):
    """Read pieces (begin, length) of a mmapable map; each answer is zlib-compressed, in base64."""

    map: str
    pieces: Sequence[Tuple[int, int]]


@dataclass(frozen=True)
class MapReset(Call[None], name="map_reset"):
    """Reset a map to its state at creation."""

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
    """Write (key, value) pairs by one system call."""

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
    """Return all [key, value] pairs, read by lookup_batch or lookup_and_delete_batch."""

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
    """mmap() the first `length` bytes of a map for reading, and unmap them."""

    map: str
    length: int


@dataclass(frozen=True)
class MapFreeze(Call[None], name="map_freeze"):
    """Freeze a map (BPF_MAP_FREEZE): user space cannot write to it any more."""

    map: str


@dataclass(frozen=True)
class MapPutMap(Call[None], name="map_put_map"):
    """Put a map into a map of maps."""

    map: str
    key: str
    inner: str


@dataclass(frozen=True)
class MapIterate(Call[None], name="map_iterate"):
    """Run a loaded program of section iter/bpf_map_elem once per element."""

    map: str
    program: str


class Texts(TypedDict):
    """The distinct contents of a map's file, and the number of peeks that found the lock held."""

    texts: List[str]
    held: int


@dataclass(frozen=True)
class MapText(Call[Texts], name="map_text", alone=True):
    """Pin a map in the BPF file system, and read that file in a loop.

    Meanwhile `program` runs on `cpus` in a loop. After each reading, the program `peek` returns the
    lock word. The call ends once `held` peeks found the lock held, or after `seconds`.
    """

    map: str
    program: str
    cpus: Sequence[int]
    peek: str
    held: int
    seconds: float


def element_call(way: str, map: str, element: Tuple[str, str], flags: int) -> Call[Any]:
    """Return the call for a way of access, such as "lookup_batch", to an element (key, value)."""
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


# -- owners of local storage elements ----------------------------------------------------------------


@dataclass(frozen=True)
class Owner(Call[str], name="owner"):
    """Create the kernel object that owns a local storage element; return user space's key for it.

    Kinds: socket (bound to UDP `port` of 127.0.0.1), listener (listening on TCP `port`), file,
    process, cgroup, ours (the session's own cgroup), and attached. The last is the older cgroup
    storage: it exists while `program`, of section cgroup_skb/egress, is attached to the cgroup.
    With `join` the session joins the cgroup. The owner goes when the session ends.
    """

    kind: str
    program: str = ""
    port: int = 0
    join: bool = False


class Storages(TypedDict):
    """The storage keys of a socket and of an attached program, and the socket's fd."""

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
    """Send datagrams within a cgroup; return the keys of two programs' cgroup storages.

    The first program (cgroup_skb/egress) sees them leave, the second (cgroup_skb/ingress) sees them
    arrive. The storages go when the session ends.
    """

    programs: Sequence[str]
    datagrams: int


@dataclass(frozen=True)
class Accept(Call[List[List[int]]], name="accept", alone=True):
    """Accept connections while `program` runs on `cpus`; return the values that `looks` returned.

    The programs `looks` find the accepted socket by its peer's port, which is in the map "peers".
    """

    times: int
    looks: Sequence[str]
    program: str
    cpus: Sequence[int]


# -- copies of elements ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Busy:
    """A program that runs on some CPUs in a loop; none without CPUs.

    `runs` is the trigger: test_run, or child processes of the session, in its cgroup, that make a
    system_call, an fcntl (of the file that is the key) or send a datagram.
    """

    program: str = ""
    cpus: Sequence[int] = ()
    runs: str = "test_run"


@dataclass(frozen=True)
class Access:
    """One way of access to one element.

    `way` is lookup, lookup_and_delete, either of them with _batch, update, update_batch or other.
    The way "other" triggers the program `other`: by BPF_PROG_TEST_RUN, another system call or a longer
    datagram, depending on Busy.runs. With `other` = "accept" a connection is accepted instead, which
    copies the listening socket's storage to the new socket.
    """

    way: str
    values: Sequence[str]  # what updates write in turn; else the first fills the buffer of a read
    key: str = FIRST
    flags: int = 0
    other: str = ""


@dataclass(frozen=True)
class Shape:
    """Two spans (begin, end) of a value."""

    hidden: Tuple[int, int]  # the lock: its bytes are tallied
    even: Tuple[int, int]  # 64-bit words that must all be equal in a value that is not torn


@dataclass(frozen=True)
class Until:
    """When a copy call ends: all minimums are reached, or `times` is and `seconds` have passed."""

    times: int  # least number of copies
    seconds: float  # the time limit for the other minimums
    least: float = 0.0  # least number of seconds
    held: int = 0  # least number of peeks that found a lock word other than 0
    uneven: int = 0  # least number of torn reads


@dataclass(frozen=True)
class Renewed:
    """An element to add again after each read that removed it, once no program uses the old one."""

    value: str = ""
    before: str = (
        ""  # key of another element, which update_batch writes first; it is added again too
    )


class Copied(TypedDict):
    """Statistics of many copies."""

    done: int  # number of copies
    missing: int  # accesses that found no element
    hidden: Dict[str, int]  # lock bytes -> number of values with them
    uneven: int  # number of torn values
    witness: Optional[str]  # the first torn value
    peeked: Dict[str, int]  # lock word -> number of peeks


@dataclass(frozen=True)
class Copy(Call[Copied], name="copy", alone=True):
    """Copy one element in or out, many times, while a program runs on some CPUs; see copies.py.

    The program `peek` returns the lock word. The copies are made on the CPU `here`, or anywhere.
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
    """A map element, and a program that accesses it as the order in the map `orders` says."""

    map: str
    orders: Sequence[
        str
    ]  # values of `orders`: show the element, store into it, store with BPF_F_LOCK
    program: str
    key: str = FIRST


@dataclass(frozen=True)
class Sweep(Call[Dict[str, List[List[int]]]], name="sweep", alone=True):
    """Write an element in every way and read it in every way; copies.py describes the answer.

    A way to write is (update, update_batch or program; flags; whether the element is new). A way to
    read is (a way of Access, neighbour or memory; flags). Meanwhile `busy` holds the element's lock.
    """

    element: Numbered
    before: str  # the old value, where the element is not new
    value: str  # the written value
    writes: Sequence[Tuple[str, int, bool]]
    reads: Sequence[Tuple[str, int]]
    times: int = 1
    busy: Busy = Busy()


# -- random programs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class FuzzMap:
    """A map with keys of four bytes, at a given fd; types are numbers in the BTF (0: none)."""

    fd: int
    type: int
    value: int  # size in bytes
    entries: int
    key_type: int
    value_type: int
    inner: int = 0  # of an outer map: the fd of the map that stands for the inner ones
    flags: int = 0


@dataclass(frozen=True)
class FuzzWorld(Call[List[int]], name="fuzz_world"):
    """Load BTF (base64) and create maps; return the errno of each map, 0 for those that exist."""

    btf: str
    btf_fd: int
    maps: Sequence[FuzzMap]


class FuzzLoaded(TypedDict):
    """Errnos (16-bit numbers, in base64) and verifier logs of programs, and the kernel's log.

    `late` has the lines of the kernel's log that came before the first program.
    """

    errnos: str
    logs: List[str]
    late: List[str]
    kernel_log: Optional[List[str]]


@dataclass(frozen=True)
class FuzzLoad(Call[FuzzLoaded], name="fuzz_load"):
    """Load programs one after the other, closing each at once; at log level 0 there are no logs.

    `programs` is zlib-compressed, in base64. Each program is five 32-bit numbers (program type,
    attach type, flags, number of instructions, number of functions), its instructions, and a struct
    bpf_func_info per function.
    """

    programs: str
    btf_fd: int
    log_level: int = 0
