"""What answers the calls of calls.py, a module per subject; each function is marked with its call."""
