# SPDX-License-Identifier: GPL-2.0-only
"""Makes a run's items from kernels, loaders and scenarios, and selects among them by options."""

from __future__ import annotations

from typing import List, Sequence, Set

import pytest

from harness.pytest_plugin import cases, resume, run_options
from harness.pytest_plugin.run import Run
from harness.scenarios import scenario


class Selection:
    """Makes the items of a run, selects those that are asked for, and orders them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._config = run.config
        self._scenarios: Set[str] = set()  # the names of those that this run's loaders can express

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize each test of a scenario or a guest with its kernels and loaders.

        Of scenarios only the named ones are made, as pytest takes a second for all of them.
        """
        option, named = self._run.loader, set(self._config.option.scenario)
        if "kernel" in metafunc.fixturenames:
            ids = [name or "running" for name in self._run.kernels]
            metafunc.parametrize("kernel", self._run.kernels, ids=ids)
        if "scenario" in metafunc.fixturenames:
            able = [
                (case, loader)
                for case in self._run.programs.in_order()
                for loader in run_options.loaders(option, case.loaders)
            ]
            self._scenarios.update(case.name for case, _ in able)
            pairs = [
                pytest.param(case, loader, id=f"{case.name}-{loader}")
                for case, loader in able
                if not named or case.name in named
            ]
            metafunc.parametrize("scenario,loader", pairs or [pytest.param(None, None, id="none")])
        elif "guest" in metafunc.fixturenames:
            loaders = getattr(metafunc.module, "LOADERS", scenario.LOADERS)
            metafunc.parametrize("loader", run_options.loaders(option, loaders))
            mark = metafunc.definition.get_closest_marker("contends")
            if mark is not None:
                both = bool(mark.kwargs.get("both"))
                paths = run_options.lock_paths(self._config.option.lock_path, both)
                metafunc.parametrize("lock_path", paths)

    def _is_for_path(self, item: pytest.Item) -> bool:
        """Tell whether a test runs on the path of the lock that it was made for.

        Its marker may name the parameters for which it is queued without --lock-path.
        """
        named = set(self._config.option.scenario)
        return (
            self._config.option.lock_path is not None
            or cases.name(item) in named
            or cases.matters_queued(item)
        )

    @pytest.hookimpl(tryfirst=True)  # before xdist's, which reads the marks
    def pytest_collection_modifyitems(self, items: List[pytest.Item]) -> None:
        """Select the cases and order them by kernel. Cases of one request go to one worker."""
        self._keep(items, [item for item in items if not cases.is_of_no_scenario(item)])
        for item in filter(cases.needs_guest, items):
            item.extra_keyword_matches.add(cases.name(item))  # -k matches the name in results
        if self._config.option.scenario:
            try:
                self._keep_named(items, self._config.option.scenario)
            except pytest.UsageError as error:
                # What an xdist worker raises its controller does not see.
                getattr(self._config, "workeroutput", {})["spinlock_usage"] = str(error)
                raise
        self._keep(items, [i for i in items if not cases.needs_guest(i) or cases.has_loader(i)])
        self._keep(items, [i for i in items if self._is_for_path(i)])
        items[:] = cases.in_turn(items, self._run.kernels)
        if self._config.option.shard is not None:
            self._keep(items, cases.in_shard(items, self._config.option.shard))
        self._keep(items, [i for i in items if not cases.needs_guest(i) or not self._is_done(i)])
        # Without xdist there are no workers, and its mark is unknown.
        if self._config.pluginmanager.hasplugin("xdist"):
            for item in filter(cases.needs_guest, items):
                item.add_marker(pytest.mark.xdist_group(cases.group(item, self._run.kernels)))

    def _keep_named(self, items: List[pytest.Item], names: Sequence[str]) -> None:
        """Keep the cases with these names. Raises pytest.UsageError for an unknown name."""
        named = [(cases.name(item), item) for item in items if cases.needs_guest(item)]
        known = sorted(self._scenarios.union(name for name, _ in named))
        for name in names:
            if name not in known:
                items.clear()  # else pytest_collection_finish still opens their kernels
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
        """Keep only the items in `kept`. pytest reports the others as deselected."""
        chosen = set(kept)
        self._config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = kept

    def _is_done(self, item: pytest.Item) -> bool:
        """Tell whether a case of a resumed run already has a result."""
        kernel = cases.kernel(item) or ""
        return resume.key(cases.name(item), kernel, cases.loader(item)) in self._run.done
