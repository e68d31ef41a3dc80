# SPDX-License-Identifier: GPL-2.0-only
"""What answers the agent's calls, a module per subject.

Each function is marked with the class of its call in calls.py, which says what it does.
"""
