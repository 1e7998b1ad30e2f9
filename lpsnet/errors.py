"""The exception a user's mistake raises, which the command line turns into one line and exit code 2, and that of a lost training."""


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, the value found, and what would be right."""


class TrainingFailed(RuntimeError):
    """A training that cannot give a score: its loss or its output stopped being finite."""
