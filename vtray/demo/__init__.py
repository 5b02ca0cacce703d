"""Draws the vending-machine catalog that `make demo` and the tests work on: no downloads, no network."""
