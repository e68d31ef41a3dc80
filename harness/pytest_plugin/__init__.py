# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: options, collection, running, and a result for every case.

It is no entry point, so pytest in another project does not load it. A project asks for it by
`-p harness.pytest_plugin.hooks`, as this one does in setup.cfg.

May import: `running`, `reports`, `results`, `machines`, `provision`, `judging`, `scenarios`, `paths`,
`progress`, `errors`.
"""
