# Two stages: the first has wheels by hash and puts a root together, the second is that root and nothing else: Python, our
# packages and the libraries that they link to (deploy/image/root.py).  In it are no shell, no compiler, no package manager.
#   docker build --build-arg REVISION=$(git rev-parse HEAD) -t tracefwd:0.1.0 .
# The digest is the index of all platforms, from docker-library/repo-info (PINNED); deploy/README.md says how to renew it.
ARG PYTHON=docker.io/library/python:3.13-slim-trixie@sha256:9662417aace5ae7b8e2609cce472b72a8958e134ba372808abe9cc1a0c0125e6
FROM ${PYTHON} AS build
COPY deploy/requirements.lock /build/requirements.lock
RUN python -m venv --without-pip /opt/tracefwd \
    && python -m pip --python /opt/tracefwd/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
        --require-hashes --only-binary :all: -r /build/requirements.lock
COPY deploy/image/root.py /build/root.py
COPY deploy/LICENSE /build/LICENSE
COPY tracefwd /build/tracefwd
RUN cp -r /build/tracefwd "$(/opt/tracefwd/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/" \
    && printf '#!/opt/tracefwd/bin/python\nimport sys\nfrom tracefwd.service.cli import main\nsys.exit(main())\n' \
        > /opt/tracefwd/bin/tracefwd \
    && chmod 0755 /opt/tracefwd/bin/tracefwd \
    && python /build/root.py /root.image /opt/tracefwd \
    # Compiled here, because nothing can be written at run time; by content, so that the same source is the same file.
    && python -m compileall -q --invalidation-mode unchecked-hash -s /root.image /root.image \
    && install -D -m 0644 /build/LICENSE /root.image/usr/share/doc/tracefwd/LICENSE \
    && install -d -o 10001 -g 10001 /root.image/var/lib/tracefwd

FROM scratch
ARG PYTHON
ARG REVISION=""
LABEL org.opencontainers.image.title="tracefwd" \
      org.opencontainers.image.description="Forwards an Istio mesh's Zipkin spans to Wavefront" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON}"
# /var/lib/tracefwd belongs to the user: for a spool (spool.folder: /var/lib/tracefwd/spool) in a volume mounted there.
COPY --from=build /root.image /
ENV PATH=/opt/tracefwd/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 9411 9412
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9412/livez', timeout=2)"]
ENTRYPOINT ["tracefwd"]
CMD ["run"]
