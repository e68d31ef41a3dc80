# SPDX-License-Identifier: GPL-2.0-only
"""Reads programs and their expected outcomes from C files. Pure.

An annotated function becomes a Scenario: its expectations per range of kernels, rule and twin.
May import: `errors`.
"""
