"""The service measured: against what a user would pick instead, and against the floor. See docs/benchmark.md."""
