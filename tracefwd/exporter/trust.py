"""Whom a client of ours trusts: one rule for targets, scrapes and the admin port, and the same on every Python."""

import ssl


def trusting(ca_file: str | None) -> ssl.SSLContext:
    """A client's context: trusts the authorities in ``ca_file`` (PEM), or whom this machine trusts.

    Since 3.13 Python also wants of every certificate what RFC 5280 says (such as the key identifier of whom it is by).
    Many private authorities leave that out, and neither Java's nor Go's clients ask for it: who moved here from them,
    or from an older Python, would be cut off.  Signatures, dates, names and who may sign are verified as ever.

    Raises ``OSError`` for a file that cannot be used.
    """
    context = ssl.create_default_context(cafile=ca_file or None)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
