"""Errors that a user can cause and mend."""


class UserError(Exception):
    """What is wrong and how to mend it, in one sentence. The command line exits with 2."""
