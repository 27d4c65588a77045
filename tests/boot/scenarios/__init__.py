"""Each module has `STAGES`: functions that are run as root in a box of its own, which is booted again before each of them."""
