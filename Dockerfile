# Two stages: wheels are fetched by hash in the first, the second has Python, the wheels and the package.
# No compiler, no package manager's cache, no shell needed at run time; runs with a read-only root file system.
FROM docker.io/library/python:3.12-slim-bookworm AS build
COPY deploy/requirements.lock /build/requirements.lock
RUN python -m venv /opt/tracefwd \
    && /opt/tracefwd/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check \
        --require-hashes --only-binary :all: -r /build/requirements.lock
COPY tracefwd /build/tracefwd
RUN cp -r /build/tracefwd "$(/opt/tracefwd/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/" \
    && printf '#!/opt/tracefwd/bin/python\nimport sys\nfrom tracefwd.service.cli import main\nsys.exit(main())\n' \
        > /opt/tracefwd/bin/tracefwd \
    && chmod 0755 /opt/tracefwd/bin/tracefwd \
    && /opt/tracefwd/bin/python -m compileall -q /opt/tracefwd/lib \
    && rm -rf /opt/tracefwd/lib/python3*/site-packages/pip* /opt/tracefwd/bin/pip* \
    && mkdir /build/state

FROM docker.io/library/python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="tracefwd" \
      org.opencontainers.image.description="Forwards an Istio mesh's Zipkin spans to Wavefront" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/tracefwd /opt/tracefwd
# For a spool (spool.folder: /var/lib/tracefwd/spool): a volume that is mounted here takes over the owner.
COPY --from=build --chown=10001:10001 /build/state /var/lib/tracefwd
ENV PATH=/opt/tracefwd/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 9411 9412
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9412/livez', timeout=2)"]
ENTRYPOINT ["tracefwd"]
CMD ["run"]
