"""The three ways things go wrong, told apart by whose move is next."""


class TracefwdError(Exception):
    """Root of all errors that tracefwd raises on purpose."""


class Malformed(TracefwdError):
    """The client's bytes hold no readable span: its sender must change them.  Answered with 400.

    The message says what is wrong, where, and what would be accepted.
    """


class TooLarge(TracefwdError):
    """The body exceeds ``receiver.body_bytes_max`` after inflation.  Answered with 413."""


class UnsupportedEncoding(TracefwdError):
    """The body's content-encoding is not one we read.  Answered with 415."""


class ConfigError(TracefwdError):
    """The operator's configuration cannot be used; nothing was started.

    ``problems`` holds one sentence per mistake: key, value, reason, suggestion.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StartError(TracefwdError):
    """Something outside keeps the service from starting: a taken port, an unreadable file."""
