"""Puts together the root of the image, from the stage that built it: Python, our packages, what both link to.

``python root.py TARGET VENV``.  Nothing else goes in: no shell, no package manager, no program that changes its user.
What is Debian's is written down as scanners expect it (/var/lib/dpkg/status.d), with its licences.
"""

import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path

# Of the standard library: what no service imports, and what would bring a library of its own along.
LEFT_OUT = (
    *(
        "test",
        "idlelib",
        "tkinter",
        "turtledemo",
        "ensurepip",
        "lib2to3",
        "pydoc_data",
        "turtle.py",
    ),
    *("site-packages", "dist-packages", "__pycache__", "config-*", "sqlite3", "curses", "dbm"),
    *("_sqlite3.*", "_curses*", "_dbm.*", "_gdbm.*", "_tkinter.*", "readline.*"),
    *("_test*", "_xx*", "xx*", "_ctypes_test.*", "macholib"),
)
USER = "tracefwd:x:10001:10001::/nonexistent:/nonexistent\n"


def run(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def copy(source: Path, target: Path) -> None:
    """A file to its own place below ``target``; what a link leads to comes along."""
    place = target / source.parent.resolve().relative_to("/") / source.name
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        copy(source.resolve(), target)
        place.unlink(missing_ok=True)
        place.symlink_to(source.readlink())
    else:
        shutil.copy2(source, place)


def python(target: Path) -> Path:
    """The standard library and the interpreter, under the names that the virtual environment knows."""
    standard = Path(sysconfig.get_path("stdlib"))
    ignore = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(standard, target / standard.relative_to("/"), ignore=ignore)
    for name in ("python", "python3"):
        copy(Path(sys.base_prefix, "bin", name), target)
    return Path(sys.executable).resolve()


def libraries(files: list[Path]) -> set[Path]:
    """Every shared library that one of ``files`` needs, and the loader."""
    found = set()
    for file in files:
        said = run("ldd", file)
        assert "not found" not in said, f"{file}: {said}"
        found |= {Path(each) for each in re.findall(r"(?:=> |^\s+)(/\S+)", said, re.MULTILINE)}
    return found


def authorities(target: Path) -> None:
    """Whom TLS trusts, where OpenSSL looks."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    copy(bundle, target)
    default = target / Path(ssl.get_default_verify_paths().openssl_cafile).relative_to("/")
    default.parent.mkdir(parents=True, exist_ok=True)
    default.symlink_to(bundle)


def surroundings(target: Path) -> None:
    etc = target / "etc"
    (etc / "passwd").write_text(f"root:x:0:0::/nonexistent:/nonexistent\n{USER}")
    (etc / "group").write_text("root:x:0:\ntracefwd:x:10001:\n")
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    shutil.copy2("/usr/lib/os-release", etc / "os-release")
    # Where a runtime mounts what it brings along.
    for name in ("dev", "proc", "sys", "tmp"):
        (target / name).mkdir()
    (target / "tmp").chmod(0o1777)


def origins(target: Path, files: set[Path]) -> None:
    """Which of Debian's packages ``files`` are of; CPython's own libraries are of none."""
    names = {"ca-certificates"}
    for file in files:
        # Packages of before /lib became /usr/lib are listed under the old name.
        pattern = "*" + str(file.resolve()).removeprefix("/usr")
        if not file.resolve().is_relative_to(sys.base_prefix):
            names |= set(re.findall(r"^([^\s:]+)", run("dpkg-query", "--search", pattern)))
    status = target / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for name in sorted(names):
        (status / name).write_text(run("dpkg-query", "--status", name))
        licence = Path("/usr/share/doc", name, "copyright")
        place = target / licence.relative_to("/")
        place.parent.mkdir(parents=True)
        shutil.copy2(licence, place)


def environment(target: Path, venv: Path) -> None:
    """The virtual environment, without what its packages and it would like to have started."""
    place = target / venv.relative_to("/")
    shutil.copytree(venv, place, symlinks=True)
    for each in (place / "bin").iterdir():
        if not each.name.startswith(("python", "tracefwd")):
            each.unlink()


def only_libraries(target: Path) -> None:
    """Modules that are scripts as well are modules here."""
    for each in target.rglob("*.py"):
        each.chmod(0o644)


def main(target: Path, venv: Path) -> None:
    environment(target, venv)
    interpreter = python(target)
    only_libraries(target)
    # Where a library is, is known here, not in the copy.
    modules = [
        Path("/") / each.relative_to(target) for each in target.rglob("*.so*") if each.is_file()
    ]
    needed = libraries([interpreter, *modules])
    for library in needed:
        copy(library, target)
    for link in (Path("/lib"), Path("/lib64")):
        if link.is_symlink():
            (target / link.name).symlink_to(link.readlink())
    authorities(target)
    surroundings(target)
    origins(target, needed)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
