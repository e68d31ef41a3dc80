# SPDX-License-Identifier: GPL-2.0-only
"""Results put before people and other tools: terminal, HTML, JUnit, KTAP, KCIDB, the rule book.

May import: `results`, `judging`, `scenarios`, `provision.catalogue`, `errors`.
"""
