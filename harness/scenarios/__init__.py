# SPDX-License-Identifier: GPL-2.0-only
"""What must happen to a program, read from its C file. Pure.

An annotated function becomes a Scenario: its expectations per range of kernels, its rule, its twin.
May import: `errors`.
"""
