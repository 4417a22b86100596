"""The parts of the benchmark, one module each with a `TITLE` and a `measure`; `bench.__main__` finds them by name."""
