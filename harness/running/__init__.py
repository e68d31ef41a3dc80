# SPDX-License-Identifier: GPL-2.0-only
"""Runs cases on a kernel: loads and observes programs, or drives them on many CPUs.

May import: `machines`, `results`, `provision`, `judging`, `scenarios`, `guest.calls`,
`errors`.
"""
