# A stand-in for the base that the Dockerfile pins, for machines that reach no registry: the same Debian, and CPython in
# /usr/local as the official recipe configures it (docker-library/python).  Different are CPython's last digit (Debian's
# source) and that there is no profiling and no link-time optimization.  check.py builds it; nobody may ship it.
FROM localhost/tracefwd-check-debian AS build
ARG RELEASE
ARG VERSION
RUN echo "deb-src http://deb.debian.org/debian ${RELEASE} main" > /etc/apt/sources.list.d/source.list \
    && apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends build-essential dpkg-dev libbz2-dev libffi-dev \
        libgdbm-dev liblzma-dev libncursesw5-dev libreadline-dev libsqlite3-dev libssl-dev uuid-dev xz-utils zlib1g-dev >/dev/null
WORKDIR /src
RUN apt-get source -qq --download-only "python${VERSION}" && tar --strip-components=1 -xf ./*.orig.tar.xz
RUN ./configure --quiet --enable-loadable-sqlite-extensions --enable-shared --with-ensurepip LDFLAGS='-Wl,--strip-all' >/dev/null \
    && make -s -j "$(nproc)" >/dev/null 2>&1 \
    && rm python \
    && make -s -j "$(nproc)" LDFLAGS="-Wl,--strip-all,-rpath='\$\$ORIGIN/../lib'" python >/dev/null \
    && make -s install >/dev/null \
    && find /usr/local -depth \( -type d -a \( -name test -o -name tests -o -name idle_test \) \
        -o -type f -a \( -name '*.pyc' -o -name 'libpython*.a' \) \) -exec rm -rf '{}' +

FROM localhost/tracefwd-check-debian
COPY --from=build /usr/local /usr/local
RUN ldconfig && ln -s python3 /usr/local/bin/python && python --version
