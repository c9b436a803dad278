"""What people see of a running forwarder: pure tables and words behind the admin API (``openapi.yaml``)."""
