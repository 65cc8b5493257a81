"""Errors that a user can mend; each message says what was wrong, what was got, and what to do."""

from __future__ import annotations


class FitkitError(Exception):
    """Base of all errors meant for a user's eyes: one or two sentences, no traceback on the command line."""

    exit_code = 1


class UsageError(FitkitError):
    """The call itself is wrong: an unknown name, options that contradict each other."""

    exit_code = 2


class InputError(FitkitError):
    """A file or a value given by the user cannot be used."""


class ModelNotFoundError(FitkitError):
    """A body model's or a network's file is not installed."""


class OutputError(FitkitError):
    """A result cannot be written."""
