"""One run of pytest: its cases, its targets once needed, its results."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Dict, Generator, List, Optional, Sequence, Set, Tuple

import pytest

from harness.errors import SetupError, UsageError
from harness.judging.judge import Kind
from harness.machines.loss import GuestLost
from harness.machines.target import Settings
from harness.provision import build
from harness.provision.catalogue import is_path
from harness.pytest_plugin import cases, resume, run_options
from harness.pytest_plugin.eta import Countdown
from harness.pytest_plugin.outcome import NOT_RUN, RESULT, Judged
from harness.pytest_plugin.targets import Targets
from harness.reports import export, page, terminal
from harness.results import matrix, stored
from harness.results.stored import Result, ResultLog
from harness.running.driven import Case
from harness.scenarios import scenario
from harness.scenarios.programs import Programs
from harness.scenarios.scenario import Scenario


class Run:
    """One pytest run: its scenarios, its targets once needed, its results."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.results: List[Result] = []
        self.directory = Path("results")  # of this run
        self._done: Set[str] = set(getattr(config, "workerinput", {}).get("spinlock_done", ()))
        self._before = resume.Before()
        self._log: Optional[ResultLog] = None
        self.kernels = run_options.kernels(config.option.kernel)
        # bcc needs headers, which come with Debian's kernels only.
        own = any(is_path(name) for name in self.kernels if name)
        self.loader: Optional[str] = config.option.loader or ("libbpf" if own else None)
        option = config.option
        settings = Settings(option.target, None, option.cpus, append=option.append)
        self.targets = Targets(settings, self.kernels, self._progress)
        self.failed_setup: Optional[SetupError] = None
        self._said: Set[str] = set()  # what has gone wrong with a kernel, for all of its cases
        self._countdown = Countdown(self.kernels)
        self._started = time.monotonic()
        self._together: Dict[Tuple[Optional[str], str, Path], List[Scenario]] = {}
        self.programs = Programs(config.option.programs)  # read when the session starts

    def begin(self) -> None:
        """Make the place for results, or read what is to be resumed. Raises UsageError, SetupError."""
        option = self.config.option
        if option.resume:
            self.directory = Path(option.results or matrix.LATEST)
            self._before = resume.Before(*resume.read(self.directory))
        else:
            self.directory = stored.new_directory(option.results)
            resume.write_options(self.directory, self._options())

    def _options(self) -> Dict[str, Any]:
        """Return what decides which cases are run, and how, under the names people know."""
        option = self.config.option
        return {
            "--kernel": [name for name in self.kernels if name],
            "--loader": option.loader,
            "--cpus": option.cpus,
            "--target": option.target,
            "--append": option.append,
            "--programs": str(option.programs),
            "--shard": option.shard,
            "-k": option.keyword,
            "cases": sorted(option.scenario),
            "tests": sorted(os.path.relpath(name, _root(self.config)) for name in self.config.args),
        }

    def _keep_what_holds(self) -> None:
        """Say what is not as it was when a resumed run began; what it had of that runs again."""
        programs, root = self.programs.directory.absolute(), _root(self.config)
        options = self._options()
        for said in self._before.keep_what_holds(options, self.targets.opened, programs, root):
            self._progress(said)
        resume.write_options(self.directory, options)
        self.results = list(self._before.results)
        self._done = self._before.done()
        self._progress(f"{len(self.results)} results from before are kept.")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell one of xdist's workers what need not run again."""
        node.workerinput["spinlock_done"] = sorted(self._done)

    # -- collection ---------------------------------------------------------------------------------

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give each test that asks for a scenario or a guest its kernels and loaders."""
        option = self.loader
        if "kernel" in metafunc.fixturenames:
            ids = [name or "running" for name in self.kernels]
            metafunc.parametrize("kernel", self.kernels, ids=ids)
        if "scenario" in metafunc.fixturenames:
            pairs = [
                pytest.param(case, loader, id=f"{case.name}-{loader}")
                for case in self.programs.in_order()
                for loader in run_options.loaders(option, case.loaders)
            ]
            metafunc.parametrize("scenario,loader", pairs)
        elif "guest" in metafunc.fixturenames:
            able = getattr(metafunc.module, "LOADERS", scenario.LOADERS)
            metafunc.parametrize("loader", run_options.loaders(option, able))

    def pytest_sessionstart(self) -> None:
        """Read the C files, and with xdist make here what its workers need, where errors show."""
        try:
            self.programs = Programs.read(self.config.option.programs, build.PROGRAMS)
            option = self.config.option
            worker = hasattr(self.config, "workerinput")
            if not (only_unit_tests(self.config) or option.collectonly or worker):
                if _has_workers(self.config) or option.resume:
                    self._open()
                if option.resume:
                    self._keep_what_holds()
        except (SetupError, UsageError) as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(tryfirst=True)  # before xdist's, which reads the marks
    def pytest_collection_modifyitems(self, items: List[pytest.Item]) -> None:
        """Keep the cases asked for by --scenario; keep what shares a request on one worker."""
        for item in items:
            if cases.needs_guest(item):
                item.extra_keyword_matches.add(
                    cases.name(item)
                )  # what people know it by fits -k, too
        if self.config.option.scenario:
            self._keep_named(items, self.config.option.scenario)
        self._keep(items, [i for i in items if not cases.needs_guest(i) or cases.has_loader(i)])
        # Kernel by kernel: what a kernel needs is prepared when its turn comes.
        items.sort(key=lambda item: cases.turn(item, self.kernels))
        if self.config.option.shard is not None:
            self._keep(items, cases.in_shard(items, self.config.option.shard))
        if self._done:
            self._keep(
                items, [i for i in items if not cases.needs_guest(i) or not self._has_result(i)]
            )
        if not self.config.pluginmanager.hasplugin("xdist"):
            return  # a plain installation has no workers, nor the mark that tells them apart
        for item in items:
            if cases.needs_guest(item):
                item.add_marker(pytest.mark.xdist_group(cases.group(item, self.kernels)))

    def _keep_named(self, items: List[pytest.Item], names: Sequence[str]) -> None:
        """Keep the cases of these names. Raises UsageError for one that there is not."""
        named = [(cases.name(item), item) for item in items if cases.needs_guest(item)]
        known = sorted({name for name, _ in named})
        for name in names:
            if name not in known:
                items.clear()  # collection is finished all the same, which opens what they need
                raise pytest.UsageError(self.programs.unknown(name, known))
        for name, item in named:
            if name in names and not cases.has_loader(item):
                items.clear()
                raise pytest.UsageError(
                    f"The scenario '{name}' cannot be expressed through {self.loader}:"
                    f" LOADERS in {item.path.name} says why."
                )
        self._keep(items, [item for name, item in named if name in names])

    def _keep(self, items: List[pytest.Item], kept: Sequence[pytest.Item]) -> None:
        chosen = set(kept)
        self.config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = kept

    def _has_result(self, item: pytest.Item) -> bool:
        return (
            resume.key(cases.name(item), cases.kernel(item) or "", cases.loader(item)) in self._done
        )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Say at once, before any test runs, when there is no kernel to run them on."""
        items = [item for item in session.items if cases.needs_guest(item)]
        self._countdown.expect(item.nodeid for item in items)
        for item in items:
            case = cases.scenario(item)
            if case is not None:
                key = cases.kernel(item), cases.loader(item), case.file
                self._together.setdefault(key, []).append(case)
        if items and not self.config.option.collectonly and not _has_workers(self.config):
            try:
                self._open()
            except (SetupError, UsageError) as error:
                raise pytest.UsageError(str(error)) from None

    # -- the target ---------------------------------------------------------------------------------

    def _open(self) -> None:
        """Make sure that there is a kernel to run on. Raises SetupError, UsageError.

        Others are fetched while that one is tested; workers wait for those that they need. All are
        wanted at once where results from before must be compared with them.
        """
        try:
            self.targets.open_first()
        except SetupError as error:
            self.failed_setup = error
            raise
        if not hasattr(self.config, "workerinput"):
            fetching = self.targets.open_others()
            if self.config.option.resume:
                fetching.join()

    def together(self, kernel: Optional[str], loader: str, file: Path) -> List[Scenario]:
        """Return the selected scenarios that share a session."""
        return self._together.get((kernel, loader, file), [])

    def _progress(self, message: str) -> None:
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"spinlock: {message}")
        else:
            print(f"spinlock: {message}", file=sys.stderr)

    # -- running ------------------------------------------------------------------------------------

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Generator[None, Any, None]:
        """Let reports carry results, also between xdist's processes; show verdicts, not tracebacks."""
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, (Judged, *NOT_RUN)):  # to render a traceback takes a quarter second
            plain = pytest.fail.Exception(terminal.unable(error), pytrace=False)
            call.excinfo = pytest.ExceptionInfo.from_exception(
                plain.with_traceback(error.__traceback__)
            )
        outcome = yield
        test_report = outcome.get_result()
        if call.when == "call" and RESULT in item.stash:
            result = item.stash[RESULT]
            test_report.spinlock = result.to_json()
            item.user_properties += [("verdict", result.verdict.value), ("kernel", result.kernel)]
            test_report.user_properties = item.user_properties
        elif call.when != "teardown" and cases.needs_guest(item):
            if isinstance(error, NOT_RUN):
                test_report.spinlock = self._not_run(item, error).to_json()
            if isinstance(error, SetupError):
                sentence = f"{cases.kernel(item)}: {error}"
                if sentence in self._said:  # a result of each case, but words for the first only
                    path, line, _ = item.location
                    test_report.outcome = "skipped"
                    test_report.longrepr = (path, (line or 0) + 1, str(error))
                    test_report.not_run = True
                self._said.add(sentence)

    def _not_run(self, item: pytest.Item, error: BaseException) -> Result:
        """Return the result of a case that ended before there was anything to judge."""
        crashed = isinstance(error, GuestLost) and error.crashed
        return Result(
            name=cases.name(item),
            loader=cases.loader(item),
            kernel="",
            verdict=Kind.CRASH if crashed else Kind.ERROR,
            reason=str(error),
            column=cases.kernel(item) or "",
            evidence=tuple(getattr(error, "console", "").splitlines()),
            rule=cases.rule(item),
            repeat=self.repeat(item),
        )

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Store a result the moment it is known; runs in the process that talks to the user."""
        data = getattr(report, "spinlock", None)
        if data is not None and not hasattr(self.config, "workerinput"):
            result = Result.from_json(data)
            self.results.append(result)
            spent, kept = time.monotonic() - self._started, len(self._before.results)
            ended = self._countdown.ended(result.column, self.results, kept, spent)
            for said in filter(None, (ended, self._before.differs(result))):
                self._progress(said)
            try:
                if self._log is None:
                    self._log = ResultLog(self.directory / "results.jsonl")
                self._log.add(result)
            except SetupError as error:
                self.failed_setup = error
                pytest.exit(f"spinlock: {error}", returncode=4)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """Learn from a worker what is to come; each collects the same."""
        del node
        self._countdown.expect(ids)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, Any, None]:
        """Say in a sentence when junit.xml could not be written."""
        outcome = yield
        try:
            outcome.get_result()
        except OSError as error:
            if hasattr(
                self.config, "workerinput"
            ):  # the run that this worker is of has been killed
                outcome.force_result(None)
                return
            message = f"spinlock: Cannot write below {self.directory}: {error.strerror}."
            self.failed_setup = SetupError(message)
            outcome.force_exception(pytest.exit.Exception(message, returncode=4))

    def pytest_report_header(self) -> str:
        """Name what is tested."""
        option = self.config.option
        loader = self.loader or "bcc, else libbpf"
        kernels = ", ".join(name or "default" for name in self.kernels)
        return f"spinlock: kernel {kernels}, loader {loader}, {option.cpus} CPUs"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table of verdicts."""
        if self.results:
            # A log file has no edge at which lines must be cut.
            width = terminalreporter._tw.fullwidth if sys.stdout.isatty() else terminal.LOG_WIDTH
            terminalreporter.section("verdicts")
            terminalreporter.write_line(
                terminal.table(self.results, width, terminalreporter._tw.hasmarkup)
            )
            terminalreporter.write_line("")
            terminalreporter.write_line(terminal.summary(self.results))
            if self._log is not None:
                terminalreporter.write_line(f"results: {self._log.path}")
                self._write_page(terminalreporter)

    def _write_page(self, terminalreporter: Any) -> None:
        """Put the page of these results beside them, and what continuous integration reads."""
        path, pivot = self.directory / "report.html", matrix.Matrix(self.results)
        try:
            path.write_text(page.html(pivot), encoding="utf-8")
            (self.directory / "junit.xml").write_text(export.junit(pivot), encoding="utf-8")
        except OSError as error:
            terminalreporter.write_line(f"spinlock: no page: {path}: {error.strerror}")
        else:
            terminalreporter.write_line(f"page:    {path}")

    def pytest_unconfigure(self) -> None:
        """Let go of the target and the results."""
        self.targets.close()
        if self._log is not None:
            self._log.close()

    # -- results ------------------------------------------------------------------------------------

    def sources(self, file: Path) -> Dict[str, str]:
        """Return which file a result is of, for its facts."""
        return resume.sources(file, self.programs.directory.absolute(), _root(self.config))

    def case(self, item: pytest.Item) -> Case:
        """Return what a run-time test is, for its result."""
        return Case(
            name=cases.name(item),
            loader=cases.loader(item),
            rule=self.programs.rule(cases.rule(item)),
            where=cases.where(item),
            description=cases.description(item),
            sources=self.sources(item.path),
            repeat=self.repeat(item),
        )

    def repeat(self, item: pytest.Item) -> str:
        """Return the command that runs just this case again."""
        option = self.config.option
        words = ["spinlock run", cases.name(item), f"--loader {cases.loader(item)}"]
        if cases.kernel(item):
            words.append(f"--kernel {shlex.quote(str(cases.kernel(item)))}")
        if option.cpus != 4:
            words.append(f"--cpus {option.cpus}")
        if option.target:
            words.append(f"--target {option.target}")
        if option.programs != build.PROGRAMS:
            words.append(f"--programs {shlex.quote(str(option.programs))}")
        if option.append:
            words.append(f"--append={shlex.quote(option.append)}")
        return " ".join(words)


def _root(config: pytest.Config) -> Path:
    return Path(config.rootpath).absolute()


def only_unit_tests(config: pytest.Config) -> bool:
    return all("tests/unit" in argument for argument in config.args)


def _has_workers(config: pytest.Config) -> bool:
    return bool(getattr(config.option, "numprocesses", None)) and not hasattr(config, "workerinput")
