"""``make image-check``: the Dockerfile's steps run, and what comes out is looked into and started.

1. A base, once, kept by buildah: Debian by debootstrap, CPython as the official image configures it (base.Dockerfile).
   It stands in for the base that the Dockerfile pins, which only a registry has.
2. The Dockerfile as it is, with the base as its one build argument.
3. What is in the image: its programs, owners, packages and settings; how large it is, folder by folder.
4. It runs as a `restricted` pod does, which inside.py makes of plain system calls: says its version, runs the demo to
   its balance, takes spans, ends on SIGTERM; the image's own health check passes.

As root, with Debian's buildah and debootstrap.  ``--fresh`` makes the base anew, in minutes; the rest takes one.
"""

import argparse
import importlib.metadata
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tracefwd
from tests.e2e.processes import Process, eventually, free_port, request

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
DEBIAN, BASE, IMAGE = (f"localhost/tracefwd-check-{each}" for each in ("debian", "base", "image"))
# What CPython links to, as in the official image.
LIBRARIES = (
    "ca-certificates,netbase,tzdata,libbz2-1.0,libffi8,libgdbm6t64,liblzma5,libncursesw6,libreadline8t64,"
    "libsqlite3-0,libssl3t64,libuuid1,zlib1g"
)
HOST_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def pinned() -> tuple[str, str]:
    """CPython's minor version and Debian's release, of the base that the Dockerfile pins."""
    found = re.search(
        r"^ARG PYTHON=docker\.io/library/python:([\d.]+)-slim-(\w+)@sha256:[0-9a-f]{64}$",
        (ROOT / "Dockerfile").read_text(),
        re.MULTILINE,
    )
    assert found, "the Dockerfile's base"
    return found[1], found[2]


VERSION, RELEASE = pinned()
TAG = f"cpython-{VERSION.replace('.', '')}"
SITE = f"opt/tracefwd/lib/python{VERSION}/site-packages"
# All that may be started in it: the interpreter and what stands before it.
PROGRAMS = {"tracefwd", f"python{VERSION}"}


def run(*words: str | Path, **more: Any) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def say(text: str) -> None:
    print(text, flush=True)


def missing() -> str:
    """What keeps the check from running here, or nothing."""
    if os.geteuid():
        return "root is needed: buildah's chroot isolation, debootstrap and mounts want it"
    absent = [
        each for each in ("buildah", "debootstrap", "unshare", "ldd") if not shutil.which(each)
    ]
    return (
        f"missing: {', '.join(absent)} (Debian: apt-get install buildah crun debootstrap)"
        * bool(absent)
    )


# 1. The base -------------------------------------------------------------------------------------


def make_base(fresh: bool) -> None:
    if not fresh and run("buildah", "images", "--quiet", "--filter", f"reference={BASE}"):
        say(f"base: {BASE}, made before (--fresh makes it anew)")
        return
    say(
        f"base: Debian {RELEASE} by debootstrap, CPython {VERSION} from Debian's source; some minutes"
    )
    with tempfile.TemporaryDirectory() as folder:
        run("debootstrap", "--variant=minbase", f"--include={LIBRARIES}", RELEASE, folder)
        shutil.rmtree(f"{folder}/var/lib/apt/lists")
        for each in Path(folder, "var/cache/apt/archives").glob("*.deb"):
            each.unlink()
        # Whatever stands between this machine and PyPI is trusted as the machine itself trusts it.
        if HOST_AUTHORITIES.exists():
            shutil.copyfile(HOST_AUTHORITIES, f"{folder}{HOST_AUTHORITIES}")
        Path(folder, "etc/pip.conf").write_text(f"[global]\ncert = {HOST_AUTHORITIES}\n")
        empty = run("buildah", "from", "scratch")
        run("buildah", "add", "--quiet", empty, folder, "/")
        run("buildah", "commit", "--quiet", "--rm", empty, DEBIAN)
    arguments = (f"--build-arg=RELEASE={RELEASE}", f"--build-arg=VERSION={VERSION}")
    build(BASE, HERE / "base.Dockerfile", HERE, *arguments)
    run("buildah", "rmi", DEBIAN)


def build(name: str, file: Path, context: Path, *more: str) -> None:
    run(
        *("buildah", "bud", "--pull-never", "--isolation=chroot", "--format=docker"),
        *(*more, "--tag", name, "--file", file, context),
    )


# 3. What is in it --------------------------------------------------------------------------------


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    container = run("buildah", "from", "--pull-never", image)
    try:
        yield Path(run("buildah", "mount", container))
    finally:
        run("buildah", "rm", container)


def settings(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("buildah", "inspect", "--type=image", image))["Docker"]
    return found["config"]


def check_settings(config: dict[str, Any]) -> None:
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["tracefwd"]
    assert config["Cmd"] == ["run"]
    assert sorted(config["ExposedPorts"]) == ["9411/tcp", "9412/tcp"]
    assert config["Healthcheck"]["Test"][0] == "CMD", "CMD-SHELL would want a shell"
    labels = config["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}version"] == tracefwd.__version__
    assert labels[f"{prefix}revision"] == "checked"
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert labels[f"{prefix}title"] == "tracefwd"
    assert labels[f"{prefix}base.name"] == BASE
    say("  settings: user 10001, SIGTERM, labels, ports, health check without a shell")


def files(root: Path) -> list[Path]:
    return [each for each in sorted(root.rglob("*")) if each.is_file() and not each.is_symlink()]


def check_content(root: Path) -> None:
    programs, loose, compiled = set(), [], 0
    for each in files(root):
        status, inside = each.stat(), each.relative_to(root)
        head = each.open("rb").read(4)
        assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH), inside
        assert status.st_uid == status.st_gid == 0, f"{inside} could be changed by the user"
        is_library = ".so" in each.suffixes or each.name.startswith("ld-linux")
        if status.st_mode & 0o111 and not is_library and (head == b"\x7fELF" or head[:2] == b"#!"):
            programs.add(each.name)
        if each.suffix == ".py":
            cache = each.parent / "__pycache__" / f"{each.stem}.{TAG}.pyc"
            compiled += cache.exists()
            loose += [] if cache.exists() else [str(inside)]
    assert programs == PROGRAMS, f"other programs than wanted: {programs ^ PROGRAMS}"
    assert not loose, f"compiled at every start: {loose[:5]}"
    state = (root / "var/lib/tracefwd").stat()
    assert (state.st_uid, state.st_gid) == (10001, 10001), "a new volume takes its owner from here"
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert not [*root.rglob("pip")], "pip is only for building"
    assert not [*root.rglob("ensurepip")]
    say(
        f"  programs: {', '.join(sorted(programs))}, and no other; {compiled} modules, all compiled"
    )
    check_packages(root)


def check_packages(root: Path) -> None:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    there = {
        plain(each.metadata["Name"]): each.version
        for each in importlib.metadata.distributions(path=[str(root / SITE)])
    }
    lock = (ROOT / "deploy" / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", lock, re.MULTILINE))
    assert there == {plain(name): version for name, version in locked.items()}
    debian = sorted(each.name for each in (root / "var/lib/dpkg/status.d").iterdir())
    for each in debian:
        assert (root / "usr/share/doc" / each / "copyright").is_file(), each
    own = (ROOT / "deploy" / "LICENSE").read_bytes()
    assert (root / "usr/share/doc/tracefwd/LICENSE").read_bytes() == own
    say(f"  packages: {len(there)} of the lock, each in its version; {len(debian)} of Debian:")
    say(f"    {' '.join(debian)}")


class _Counter(io.RawIOBase):
    """Counts what is written to it, compressed as a layer is."""

    def __init__(self) -> None:
        self.bytes = 0
        self._zip = zlib.compressobj(6, zlib.DEFLATED, 31)

    def feed(self, data: bytes) -> None:
        self.bytes += len(self._zip.compress(data))

    def end(self) -> int:
        return self.bytes + len(self._zip.flush())


def compressed(root: Path) -> int:
    """Bytes of the one layer as a registry keeps it (tar, gzip)."""
    counter = _Counter()
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        assert tar.stdout
        while block := tar.stdout.read(1 << 20):
            counter.feed(block)
    assert tar.returncode == 0
    return counter.end()


def check_size(root: Path) -> None:
    by_folder: Counter[str] = Counter()
    for each in files(root):
        inside = each.relative_to(root)
        under_site = str(inside).startswith(SITE)
        depth = len(Path(SITE).parts) + 1 if under_site else 4
        by_folder[str(Path(*inside.parts[:depth]))] += each.stat().st_size
    total = sum(by_folder.values())
    say(f"  size: {total / 1e6:.1f} MB, {compressed(root) / 1e6:.1f} MB compressed:")
    rest = total
    for name, size in by_folder.most_common(16):
        say(f"    {size / 1e6:6.1f} MB  {name.replace(SITE, '.../site-packages')}")
        rest -= size
    say(f"    {rest / 1e6:6.1f} MB  everything else")


# 4. It runs --------------------------------------------------------------------------------------


class Pod:
    """Starts commands in a root as inside.py does."""

    def __init__(self, root: Path, folder: Path, environment: list[str]) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        os.chown(self.state, 10001, 10001)
        self._root, self._folder, self._environment = root, folder, environment

    def command(self, *words: str, **more: str) -> list[str]:
        variables = [*self._environment, *(f"{name}={value}" for name, value in more.items())]
        return [
            *("unshare", "--mount", sys.executable, str(HERE / "inside.py")),
            *(str(self._root), str(self.state), *variables, "--", *words),
        ]

    def run(self, *words: str) -> str:
        return run(*self.command(*words), timeout=120)

    def start(self, name: str, *words: str, **more: str) -> Process:
        return Process(self.command(*words, **more), self._folder, name)


PROBE = """
import errno, os
said = {line.split(":")[0]: line.split(":")[1].strip() for line in open("/proc/self/status")}
assert os.getuid() == os.getgid() == 10001 and not os.getgroups()
assert int(said["CapBnd"], 16) == int(said["CapEff"], 16) == int(said["CapPrm"], 16) == 0
assert said["NoNewPrivs"] == "1"
for path in ("/x", "/opt/tracefwd/x", "/etc/passwd", "/tmp/x"):
    try:
        open(path, "w")
    except OSError as error:
        assert error.errno in (errno.EROFS, errno.EACCES), (path, error)
    else:
        raise SystemExit(path + " can be written")
import ssl
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50, "no authorities"
import socket
socket.getaddrinfo("localhost", 80)
import importlib, pkgutil, tracefwd
for each in pkgutil.walk_packages(tracefwd.__path__, "tracefwd."):
    if not each.name.endswith("__main__"):
        try:
            importlib.import_module(each.name)
        except ModuleNotFoundError as error:
            # Of the optional dependencies `tracefwd top` is the one user.
            assert error.name in ("rich", "textual"), error
"""


def check_runs(pod: Pod, config: dict[str, Any]) -> None:
    said = pod.run("tracefwd", "--version")
    assert said.startswith(f"tracefwd {tracefwd.__version__} ("), said
    say(f"  {said}")
    pod.run("python", "-c", PROBE)
    say(
        "  read-only root, no capability, no way to more; authorities, names and all modules are found"
    )
    demo = pod.run("tracefwd", "demo", "--seconds", "5", "--rate", "200")
    balance = [line.strip() for line in demo.splitlines() if "received" in line]
    assert balance, demo
    say(f"  demo: {balance[-1]}")
    check_service(pod, config)


def check_service(pod: Pod, config: dict[str, Any]) -> None:
    intake, dead = free_port(), f"http://127.0.0.1:{free_port()}"
    # The health check asks at the port that the image documents.
    admin = "http://127.0.0.1:9412"
    words = (
        *("--listen", f"127.0.0.1:{intake}", "--admin", "127.0.0.1:9412"),
        *("--spool", "/var/lib/tracefwd/spool"),
        *("--proxy-traces", dead, "--proxy-metrics", dead),
    )
    with pod.start("run", *config["Entrypoint"], *config["Cmd"], *words) as service:

        def is_ready() -> bool:
            assert service.is_running, service.output[-3000:]
            try:
                return request("GET", f"{admin}/readyz")[0] == 200
            except OSError:
                return False

        eventually(is_ready, lambda: f"ready: {service.output[-3000:]}")
        pod.run(*config["Healthcheck"]["Test"][1:])
        span = {"traceId": "1" * 32, "id": "2" * 16, "name": "/x", "kind": "SERVER"}
        body = json.dumps([span | {"timestamp": 1, "duration": 5}]).encode()
        kind = {"content-type": "application/json"}
        url = f"http://127.0.0.1:{intake}/api/v2/spans"
        assert request("POST", url, body=body, headers=kind)[0] == 202
        code = service.stop()
        assert code == 0, f"{code}: {service.output[-3000:]}"
    held = [each for each in pod.state.rglob("*") if each.is_file()]
    assert held, "what the dead target did not take is in the volume"
    say(f"  service: ready, healthy, 202, SIGTERM ends it with 0; {len(held)} files in the volume")


def main() -> None:
    parser = argparse.ArgumentParser(description="make image-check")
    parser.add_argument("--fresh", action="store_true", help="make the base anew")
    wanted = parser.parse_args()
    if reason := missing():
        raise SystemExit(f"image-check cannot run: {reason}")
    say(run("buildah", "--version"))
    make_base(wanted.fresh)
    build(
        IMAGE,
        ROOT / "Dockerfile",
        ROOT,
        f"--build-arg=PYTHON={BASE}",
        "--build-arg=REVISION=checked",
    )
    try:
        config = settings(IMAGE)
        check_settings(config)
        with mounted(IMAGE) as root, tempfile.TemporaryDirectory() as folder:
            check_content(root)
            check_size(root)
            check_runs(Pod(root, Path(folder), config["Env"]), config)
    finally:
        # It trusts what this machine trusts, so it goes.
        run("buildah", "rmi", IMAGE)
    say("all as it should be")


if __name__ == "__main__":
    main()
