# SPDX-License-Identifier: GPL-2.0-only
"""Reports of results for people and tools: terminal, HTML, JUnit, KTAP, KCIDB, the rule book.

May import: `results`, `judging`, `scenarios`, `provision.catalogue`, `errors`.
"""
