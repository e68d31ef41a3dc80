"""What runs as root in the guest: it loads, runs, drives and reports facts. It judges nothing."""
