# SPDX-License-Identifier: GPL-2.0-only
"""Which cases a run has: kernels, loaders and scenarios make items, and options choose among them."""

from __future__ import annotations

from typing import List, Sequence

import pytest

from harness.pytest_plugin import cases, resume, run_options
from harness.pytest_plugin.run import Run
from harness.scenarios import scenario


class Selection:
    """Makes the items of a run and keeps those that it is to run, in their order."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._config = run.config

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give each test that asks for a scenario or a guest its kernels and loaders."""
        option = self._run.loader
        if "kernel" in metafunc.fixturenames:
            ids = [name or "running" for name in self._run.kernels]
            metafunc.parametrize("kernel", self._run.kernels, ids=ids)
        if "scenario" in metafunc.fixturenames:
            pairs = [
                pytest.param(case, loader, id=f"{case.name}-{loader}")
                for case in self._run.programs.in_order()
                for loader in run_options.loaders(option, case.loaders)
            ]
            metafunc.parametrize("scenario,loader", pairs)
        elif "guest" in metafunc.fixturenames:
            able = getattr(metafunc.module, "LOADERS", scenario.LOADERS)
            metafunc.parametrize("loader", run_options.loaders(option, able))

    @pytest.hookimpl(tryfirst=True)  # before xdist's, which reads the marks
    def pytest_collection_modifyitems(self, items: List[pytest.Item]) -> None:
        """Keep the cases asked for, kernel by kernel; keep on one worker those that share a request."""
        for item in filter(cases.needs_guest, items):
            item.extra_keyword_matches.add(cases.name(item))  # -k takes the name that results show
        if self._config.option.scenario:
            try:
                self._keep_named(items, self._config.option.scenario)
            except pytest.UsageError as error:
                # What an xdist worker raises its controller does not see.
                getattr(self._config, "workeroutput", {})["spinlock_usage"] = str(error)
                raise
        self._keep(items, [i for i in items if not cases.needs_guest(i) or cases.has_loader(i)])
        items[:] = cases.in_turn(items, self._run.kernels)
        if self._config.option.shard is not None:
            self._keep(items, cases.in_shard(items, self._config.option.shard))
        self._keep(items, [i for i in items if not cases.needs_guest(i) or not self._is_done(i)])
        # Without xdist there are no workers, nor the mark that tells them apart.
        if self._config.pluginmanager.hasplugin("xdist"):
            for item in filter(cases.needs_guest, items):
                item.add_marker(pytest.mark.xdist_group(cases.group(item, self._run.kernels)))

    def _keep_named(self, items: List[pytest.Item], names: Sequence[str]) -> None:
        """Keep the cases of these names. Raises pytest.UsageError for a name that no case has."""
        named = [(cases.name(item), item) for item in items if cases.needs_guest(item)]
        known = sorted({name for name, _ in named})
        for name in names:
            if name not in known:
                items.clear()  # pytest goes on to pytest_collection_finish, which opens their kernels
                raise pytest.UsageError(self._run.programs.unknown(name, known))
        for name, item in named:
            if name in names and not cases.has_loader(item):
                items.clear()
                raise pytest.UsageError(
                    f"The scenario '{name}' cannot be expressed through {self._run.loader}:"
                    f" LOADERS in {item.path.name} says why."
                )
        self._keep(items, [item for name, item in named if name in names])

    def _keep(self, items: List[pytest.Item], kept: Sequence[pytest.Item]) -> None:
        """Keep these of the items; pytest counts the others as deselected."""
        chosen = set(kept)
        self._config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = kept

    def _is_done(self, item: pytest.Item) -> bool:
        """Tell whether a case has a result from before the run was interrupted."""
        kernel = cases.kernel(item) or ""
        return resume.key(cases.name(item), kernel, cases.loader(item)) in self._run.done
