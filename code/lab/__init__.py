"""What the modules of code/ share; it knows none of them."""


class UserError(SystemExit):
    """What the user can put right: one line on stderr, exit status 1."""
