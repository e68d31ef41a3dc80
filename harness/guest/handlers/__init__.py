# SPDX-License-Identifier: GPL-2.0-only
"""Handlers of the agent's calls, a module per subject.

Each is registered by @answers(class). The class in calls.py documents the call.
"""
