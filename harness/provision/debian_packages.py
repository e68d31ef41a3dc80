# SPDX-License-Identifier: GPL-2.0-only
"""Fetches packages from a Debian mirror, with checked signatures, apart from the machine's apt.

apt writes only to a private directory. Only the mirror's address and proxies come from the
machine's configuration.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from harness import paths
from harness.errors import SetupError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHITECTURE = "amd64"


@dataclass(frozen=True)
class Mirror:
    """The addresses of the main archive and of the security archive."""

    main: str
    security: str

    def of(self, suite: str) -> str:
        """Return the address that serves `suite`."""
        return self.security if suite.endswith("-security") else self.main


@dataclass(frozen=True)
class Package:
    """One version of a binary package.

    `depends` has bare names, of alternatives only the first. `sha256` is that of the signed index.
    """

    name: str
    version: str
    depends: tuple[str, ...]
    sha256: str = ""


def mirror() -> Mirror:
    """Return the mirror in SPINLOCK_MIRROR, else that of the machine's apt.

    Raises SetupError if neither names one.
    """
    chosen = os.environ.get("SPINLOCK_MIRROR", "")
    uris = chosen.split() or _machine_uris()
    found = choose_mirror(uris)
    if found is None:
        raise SetupError(
            "No Debian mirror is known: set SPINLOCK_MIRROR to its address, which ends in /debian "
            "(put a second address after a space if /debian-security is elsewhere)."
        )
    return found


def choose_mirror(uris: Sequence[str]) -> Mirror | None:
    """Pick the main and security archives among `uris` by Debian's naming."""
    clean = [uri.rstrip("/") for uri in uris]
    main = next((uri for uri in clean if uri.endswith("/debian")), None)
    if main is None:
        return None
    security = next((uri for uri in clean if uri.endswith("/debian-security")), main + "-security")
    return Mirror(main, security)


def sources(suites: Sequence[str]) -> str:
    """Return sources.list text for `suites`, tied to Debian's archive keyring.

    Raises SetupError when there is no keyring or no mirror.
    """
    if not KEYRING.exists():
        raise SetupError(
            f"{KEYRING} is missing, so downloads cannot be verified: "
            "install the package debian-archive-keyring."
        )
    where = mirror()
    return "".join(
        f"deb [arch={ARCHITECTURE} signed-by={KEYRING}] {where.of(suite)} {suite} main\n"
        for suite in suites
    )


def reach() -> str:
    """Return apt configuration with this machine's proxies, but never with weaker verification."""
    dump = _run(["apt-config", "dump"])
    lines = [line for line in dump.splitlines() if line.startswith("Acquire::")]
    lines += [
        'Acquire::Languages "none";',
        'Acquire::AllowInsecureRepositories "0";',
        'Acquire::AllowWeakRepositories "0";',
        'Acquire::AllowDowngradeToInsecureRepositories "0";',
        'APT::Get::AllowUnauthenticated "0";',
    ]
    return "\n".join(lines) + "\n"


class Unreachable(SetupError):
    """The mirror cannot be reached. This is no error of its contents."""


class Archive:
    """The packages of some suites, with a private apt state in `directory`."""

    def __init__(self, directory: Path, suites: Sequence[str]) -> None:
        self.directory = directory
        self.suites = tuple(suites)
        self.lock = Path(f"{directory}.lock")  # held by the process that uses the archive
        self._config = directory / "apt.conf"

    def refresh(self) -> None:
        """Fetch the suites' indexes. Raises SetupError if a mirror or a signature fails."""
        for part in ("state/lists/partial", "cache/archives/partial", "etc"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        (self.directory / "status").touch()
        (self.directory / "sources.list").write_text(sources(self.suites))
        self._config.write_text(reach() + self._private())
        self._apt("apt-get", "update", "--error-on=any")

    def names(self, prefix: str) -> list[str]:
        """Return the names of all packages that start with `prefix`."""
        return self._apt("apt-cache", "pkgnames", prefix).split()

    def packages(self, names: Sequence[str]) -> list[Package]:
        """Return each package's newest version. Raises SetupError if a package does not exist."""
        if not names:
            return []
        text = self._apt("apt-cache", "show", "--no-all-versions", *names)
        return [parse_package(record) for record in text.strip().split("\n\n")]

    def download(self, packages: Sequence[Package], into: Path) -> list[Path]:
        """Download `packages`, verified against the signed index, and return the files.

        An interrupted download in `into` is resumed. Raises SetupError.
        """
        into.mkdir(parents=True, exist_ok=True)
        wanted = [f"{package.name}={package.version}" for package in packages]
        self._apt("apt-get", "download", "--quiet", *wanted, cwd=into)
        files = [
            path
            for package in packages
            for path in into.glob(f"{package.name}_{_in_file_name(package.version)}_*.deb")
        ]
        if len(files) != len(packages):
            raise SetupError(f"apt-get download left {len(files)} files for {', '.join(wanted)}.")
        for package, file in zip(packages, files):
            check(package, file)
        return files

    def download_unlisted(self, name: str, version: str, into: Path) -> Path:
        """Download a package of the source "linux" that is in the pool but not in the index.

        It is not verified here, so the caller must do that. Raises SetupError.
        """
        file = f"{name}_{version.split(':')[-1]}_{ARCHITECTURE}.deb"
        address = f"{mirror().of(self.suites[0])}/pool/main/l/linux/{file}"
        self._apt("/usr/lib/apt/apt-helper", "download-file", address, str(into / file))
        return into / file

    def _private(self) -> str:
        # The main and parts files of the machine are left out: their hooks clean the machine's
        # own caches. apt would drop privileges to a user who cannot enter the cache directory.
        return (
            f'Dir::State "{self.directory}/state";\n'
            f'Dir::State::status "{self.directory}/status";\n'
            f'Dir::Cache "{self.directory}/cache";\n'
            f'Dir::Etc "{self.directory}/etc";\n'
            f'Dir::Etc::sourcelist "{self.directory}/sources.list";\n'
            'Dir::Etc::sourceparts "/dev/null";\n'
            'Dir::Etc::main "/dev/null";\n'
            'Dir::Etc::parts "/dev/null";\n'
            f'APT::Architecture "{ARCHITECTURE}";\n'
            f'APT::Architectures {{ "{ARCHITECTURE}"; }};\n'
            'APT::Sandbox::User "";\n'
        )

    def _apt(self, *command: str, cwd: Path | None = None) -> str:
        return _run(list(command), cwd=cwd, env={**os.environ, "APT_CONFIG": str(self._config)})


def parse_package(text: str) -> Package:
    """Read one record of `apt-cache show`."""
    fields = dict(
        line.split(": ", 1) for line in text.splitlines() if re.match(r"[A-Z][\w-]*: ", line)
    )
    depends = [
        re.split(r"[ :(|]", item.strip(), maxsplit=1)[0]
        for key in ("Pre-Depends", "Depends")
        for item in fields.get(key, "").split(",")
        if item.strip()
    ]
    return Package(
        fields["Package"], fields["Version"], tuple(depends), fields.get("SHA256", "").strip()
    )


def newest(packages: Sequence[Package]) -> Package:
    """Return the package with the highest version in dpkg's order. `packages` is not empty."""
    return max(packages, key=functools.cmp_to_key(_compare))


def check(package: Package, deb: Path) -> None:
    """Compare a file with the signed index. apt does not do so for a file of the right size.

    Raises SetupError, and removes the file, if its checksum is wrong.
    """
    if hashlib.sha256(deb.read_bytes()).hexdigest() != package.sha256:
        deb.unlink()
        raise SetupError(
            f"{deb.name} in the cache is not what Debian has signed and was thrown away: try again."
        )


def unpack(deb: Path, into: Path) -> None:
    """Extract the files of a package. Raises SetupError."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        _run(["dpkg-deb", "--extract", str(deb), str(into)])
    except SetupError:
        deb.unlink(missing_ok=True)
        raise


def _in_file_name(version: str) -> str:
    """Return a glob of a version as apt writes it in file names."""
    return version.replace(":", "%3a").replace("[", "[[]")


_UNREACHABLE = "The Debian mirror cannot be reached"
_NO_NETWORK = re.compile(
    r"Temporary failure resolving '.*?'|Could not resolve '.*?'|Could not connect to \S+|Cannot initiate the"
    r" connection to \S+|Unable to connect to \S+|Network is unreachable|Connection timed out"
    r"|Connection failed|Connection refused|No route to host"
)


def explain(command: Sequence[str], errors: str) -> str:
    """Return one sentence with the reason why apt or dpkg failed, and the remedy."""
    lines = [line[3:].strip() for line in errors.splitlines() if line.startswith("E:")]
    detail = " ".join(lines or errors.strip().splitlines()[-1:])
    if re.search(r"No space left|not enough free space", errors):
        return f"The disk is full: free some space or set SPINLOCK_CACHE ({detail})."
    if re.search(r"Hash Sum mismatch|unexpected size|Hashes of|not signed|NO_PUBKEY", errors):
        return (
            "What the mirror sent is not what Debian has signed, so it was not used: try again, or"
            f" another mirror by SPINLOCK_MIRROR ({detail})."
        )
    if re.search(r"is not valid yet|is expired|Not live until", errors):
        return (
            "The mirror's index is not of today: set this machine's clock right, or choose another"
            f" mirror by SPINLOCK_MIRROR ({detail})."
        )
    if re.search(
        r"could not be parsed|file is corrupted|no Package: header|MergeList|Unable to parse",
        errors,
    ):
        return (
            f"The package index is damaged: remove {paths.cache('apt')}, and it is fetched anew"
            f" ({(lines or [detail])[-1].rstrip('.')})."
        )
    if Path(command[0]).name == "dpkg-deb":
        return (
            f"The package {Path(command[-2]).name} is damaged and was thrown away: try again"
            f" ({detail})."
        )
    unreachable = _NO_NETWORK.search(errors)
    if unreachable:
        return f"{_UNREACHABLE} ({unreachable.group()}): check the network and SPINLOCK_MIRROR."
    words = " ".join([Path(command[0]).name, *command[1:2]])
    return f"{words} failed: check the network and SPINLOCK_MIRROR ({detail})."


def failure(command: Sequence[str], errors: str) -> SetupError:
    """Return the error of a failed apt or dpkg: Unreachable if only the network is at fault."""
    sentence = explain(command, errors)
    return (Unreachable if sentence.startswith(_UNREACHABLE) else SetupError)(sentence)


def _compare(left: Package, right: Package) -> int:
    if left.version == right.version:
        return 0
    command = ["dpkg", "--compare-versions", left.version, "gt", right.version]
    return 1 if subprocess.run(command, check=False).returncode == 0 else -1


def _machine_uris() -> list[str]:
    try:
        return _run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split()
    except SetupError:
        return []


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**(env or os.environ), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except (FileNotFoundError, PermissionError) as error:  # the latter for an unreadable PATH
        raise SetupError(f"{command[0]} is missing: install the packages apt and dpkg.") from error
    if done.returncode != 0:
        raise failure(command, done.stderr)
    return done.stdout
