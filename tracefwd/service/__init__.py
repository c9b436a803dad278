"""The cold path: command line, configuration, processes, admin port, logs.  It never touches a span."""
