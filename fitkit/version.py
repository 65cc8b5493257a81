"""The version of fitkit; the build reads it from here, and so do saved results and `fitkit --version`."""

__version__ = "0.1.0.dev0"
