"""The one exception type a user's mistake raises; the command line turns it into one line and exit code 2."""


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, the value found, and what would be right."""
