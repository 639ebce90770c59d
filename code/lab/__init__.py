"""The parts that the modules of code/ share; none of it depends on a module."""


class UserError(SystemExit):
    """An error that the user can fix: one line on stderr, exit status 1."""
