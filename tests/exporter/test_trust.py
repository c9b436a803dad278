"""Clients trust the same certificates on every Python."""

import ssl

import pytest

from tracefwd.exporter.trust import trusting


def test_no_python_asks_more_of_a_private_authority_than_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ssl.create_default_context

    def strict(cafile: str | None = None) -> ssl.SSLContext:
        """As since Python 3.13."""
        context = made(cafile=cafile)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    context = trusting(None)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    with pytest.raises(OSError, match="No such file"):
        trusting("/nowhere.pem")
