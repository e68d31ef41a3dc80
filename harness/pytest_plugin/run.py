# SPDX-License-Identifier: GPL-2.0-only
"""One run of pytest: its cases, its targets, which are opened on demand, and its results."""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Dict, Generator, List, Optional, Sequence, Set, Tuple

import pytest

from harness.errors import SetupError, UsageError
from harness.judging import judge
from harness.judging.verdict import Kind, Verdict
from harness.machines.loss import GuestLost
from harness.machines.target import Settings
from harness.progress import to_stderr
from harness.provision import build
from harness.provision.catalogue import is_path
from harness.pytest_plugin import cases, resume, run_options
from harness.pytest_plugin.eta import Countdown
from harness.pytest_plugin.outcome import NOT_RUN, RESULT, Judged
from harness.pytest_plugin.targets import Targets
from harness.reports import export, page, terminal
from harness.results import matrix
from harness.results.log import ResultLog, new_directory
from harness.results.record import Case, Place, record
from harness.results.result import Result
from harness.running.ended import observed
from harness.scenarios.programs import Programs
from harness.scenarios.scenario import Scenario


class Run:
    """The state of one run of pytest: scenarios, targets and results."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.results: List[Result] = []
        self.directory = Path("results")  # of this run
        self.done: Set[str] = set(getattr(config, "workerinput", {}).get("spinlock_done", ()))
        self._before = resume.Before()
        self._log: Optional[ResultLog] = None
        self.kernels = run_options.kernels(config.option.kernel)
        # bcc needs headers, which come with Debian's kernels only.
        own = any(is_path(name) for name in self.kernels if name)
        self.loader: Optional[str] = config.option.loader or ("libbpf" if own else None)
        option = config.option
        settings = Settings(
            option.target,
            None,
            option.cpus,
            append=option.append,
            jit=option.jit == "on",
            bcc=self.loader != "libbpf" and not option.collectonly,
        )
        self._held = ExitStack()  # resources that are closed at the end of the run
        self.targets = self._held.enter_context(Targets(settings, self.kernels, self._progress))
        self.failed_setup: Optional[SetupError] = None
        self._said: Set[str] = set()  # errors of kernels that are already shown
        self._countdown = Countdown(self.kernels)
        self._started = time.monotonic()
        self._together: Dict[Tuple[Optional[str], str, Path], List[Scenario]] = {}
        self.programs = Programs(config.option.programs)  # read when the session starts

    def _begin(self) -> None:
        """Make the directory for results, or read those of the run to resume.

        The main process also prepares what xdist's workers need, since it can show errors. Raises
        UsageError, SetupError.
        """
        option = self.config.option
        if option.resume:
            self.directory = Path(option.results or matrix.LATEST)
            self._before = resume.Before(*resume.read(self.directory))
        else:
            self.directory = new_directory(option.results)
            resume.write_options(self.directory, self._options())
        if _has_workers(self.config) or option.resume:
            self._open()
        if option.resume:
            self._keep_what_holds()

    def _options(self) -> Dict[str, Any]:
        """Return the options that decide which cases run and how, by their command-line names."""
        option = self.config.option
        return {
            "--kernel": [name for name in self.kernels if name],
            "--loader": option.loader,
            "--cpus": option.cpus,
            "--target": option.target,
            "--append": option.append,
            "--lock-path": option.lock_path,
            "--jit": option.jit,
            "--programs": str(option.programs),
            "--shard": option.shard,
            "-k": option.keyword,
            "cases": sorted(option.scenario),
            "tests": sorted(os.path.relpath(name, _root(self.config)) for name in self.config.args),
        }

    def _keep_what_holds(self) -> None:
        """Drop outdated results of the resumed run and report why. Their cases run again."""
        programs, root = self.programs.directory.absolute(), _root(self.config)
        options = self._options()
        for said in self._before.keep_what_holds(options, self.targets.opened, programs, root):
            self._progress(said)
        resume.write_options(self.directory, options)
        self.results = list(self._before.results)
        self.done = self._before.done()
        self._progress(f"{len(self.results)} results from before are kept.")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker which cases already have a result."""
        node.workerinput["spinlock_done"] = sorted(self.done)

    # -- the session --------------------------------------------------------------------------------

    def pytest_sessionstart(self) -> None:
        """Read the C files. Prepare the run if it may have cases."""
        try:
            self.programs = Programs.read(self.config.option.programs, build.PROGRAMS)
            if _runs_cases(self.config):
                self._begin()
        except (SetupError, UsageError) as error:
            self.failed_setup = error if isinstance(error, SetupError) else None
            raise pytest.UsageError(str(error)) from None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Open a kernel before the first test runs, so that an error is shown at once."""
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

        The other kernels are fetched while the first is tested. Workers wait for the kernels that
        they need. A resumed run needs all kernels at once, to compare results with their facts.
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
        show: Any = self.config.pluginmanager.get_plugin("spinlock-show")
        (to_stderr if show is None else show.say)(message)

    # -- running ------------------------------------------------------------------------------------

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Generator[None, Any, None]:
        """Attach the result to the report, which xdist sends between processes. Hide tracebacks."""
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, (Judged, *NOT_RUN)):  # rendering a traceback takes 0.25 s
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
                if sentence in self._said:  # only the first case shows the error
                    path, line, _ = item.location
                    test_report.outcome = "skipped"
                    test_report.longrepr = (path, (line or 0) + 1, str(error))
                    test_report.not_run = True
                self._said.add(sentence)

    def _not_run(self, item: pytest.Item, error: BaseException) -> Result:
        """Return the result of a case that ended before it could be judged."""
        seen = observed(error) if isinstance(error, GuestLost) else None
        verdict = judge.disturbed(seen) if seen is not None else None
        if verdict is None:
            lines = tuple(getattr(error, "console", "").splitlines())
            verdict = Verdict(Kind.ERROR, str(error), lines)
        return record(self.case(item), verdict, seen, Place(kernel=cases.kernel(item) or ""))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Store a result at once. Runs in the main process, not in xdist's workers."""
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
                    log = ResultLog(self.directory / "results.jsonl")
                    self._log = self._held.enter_context(closing(log))
                self._log.add(result)
            except SetupError as error:
                self.failed_setup = error
                pytest.exit(f"spinlock: {error}", returncode=4)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """Count the cases to run as one worker collected them. All workers collect the same."""
        del node
        self._countdown.expect(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """End the run for what an xdist worker found wrong with its options."""
        said = getattr(node, "workeroutput", {}).get("spinlock_usage")
        if said is not None:
            raise pytest.UsageError(said)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, Any, None]:
        """End with a sentence, not a traceback, if pytest cannot write its report."""
        outcome = yield
        try:
            outcome.get_result()
        except OSError as error:
            # The main process of this worker was killed.
            if hasattr(self.config, "workerinput"):
                outcome.force_result(None)
                return
            message = f"spinlock: Cannot write below {self.directory}: {error.strerror}."
            self.failed_setup = SetupError(message)
            outcome.force_exception(pytest.exit.Exception(message, returncode=4))

    def pytest_report_header(self) -> str:
        """Name the kernels, the loader and the number of CPUs."""
        option = self.config.option
        loader = self.loader or "bcc, else libbpf"
        kernels = ", ".join(name or "default" for name in self.kernels)
        return f"spinlock: kernel {kernels}, loader {loader}, {option.cpus} CPUs"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table of verdicts."""
        if self.results:
            # Lines in a log file need not be cut at a terminal's width.
            width = terminalreporter._tw.fullwidth if sys.stdout.isatty() else terminal.LOG_WIDTH
            terminalreporter.section("verdicts")
            terminalreporter.write_line(
                terminal.table(self.results, width, terminalreporter._tw.hasmarkup)
            )
            terminalreporter.line("")
            terminalreporter.write_line(terminal.summary(self.results))
            if self._log is not None:
                terminalreporter.write_line(f"results: {self._log.path}")
                self._write_page(terminalreporter)

    def _write_page(self, terminalreporter: Any) -> None:
        """Write report.html, and junit.xml for continuous integration, beside the results."""
        path, pivot = self.directory / "report.html", matrix.Matrix(self.results)
        try:
            path.write_text(page.html(pivot), encoding="utf-8")
            (self.directory / "junit.xml").write_text(export.junit(pivot), encoding="utf-8")
        except OSError as error:
            terminalreporter.write_line(f"spinlock: no page: {path}: {error.strerror}")
        else:
            terminalreporter.write_line(f"page:    {path}")

    def pytest_unconfigure(self) -> None:
        """Close the targets and the results."""
        self._held.close()

    # -- results ------------------------------------------------------------------------------------

    def case(self, item: pytest.Item) -> Case:
        """Return the case of a test, for its result."""
        written, programs = cases.scenario(item), self.programs.directory.absolute()
        file = item.path if written is None else written.file
        return Case(
            name=cases.name(item),
            loader=cases.loader(item),
            rule=self.programs.rule(cases.rule(item)),
            where=cases.where(item),
            description=cases.description(item),
            comment="" if written is None else written.comment,
            expectations=() if written is None else written.expectations,
            known_bugs=() if written is None else written.known_bugs,
            sources=resume.sources(file, programs, _root(self.config)),
            repeat=self.repeat(item),
        )

    def repeat(self, item: pytest.Item) -> str:
        """Return the command that repeats this case alone."""
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
        if option.lock_path and cases.contends(item):
            words.append(f"--lock-path {option.lock_path}")
        if option.jit == "off":
            words.append("--jit off")
        if option.append:
            words.append(f"--append={shlex.quote(option.append)}")
        return " ".join(words)


def _root(config: pytest.Config) -> Path:
    return Path(config.rootpath).absolute()


def _runs_cases(config: pytest.Config) -> bool:
    """Tell whether this process may run cases: no worker, no listing, not only unit tests."""
    option = config.option
    lists = option.collectonly or option.showfixtures or option.show_fixtures_per_test
    alone = all("tests/unit" in argument for argument in config.args)
    return not (hasattr(config, "workerinput") or lists or alone)


def _has_workers(config: pytest.Config) -> bool:
    return bool(getattr(config.option, "numprocesses", None)) and not hasattr(config, "workerinput")
