"""Each module has a function `play`, which is run as root in a box of its own."""
