"""Asks an advisory database about everything that the locks name, and fails unless each package was really looked at.

Run: ``make audit``, or ``python tests/audit.py LOCK...`` where pip-audit is installed.

pip-audit alone is content when a database knows nothing of a package, or of any.  Exit code 1 for a known
vulnerability, for a package without an answer, and when there was nothing to ask about.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

# A name, a version and perhaps a condition; hashes follow.
_LOCKED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*(?:\[[^]]*\])?==[^\\\n]+)", re.MULTILINE)
_ASK = ("--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off")


def locked(text: str) -> set[str]:
    """Names of what a lock installs here; conditions may rule some out."""
    found = [Requirement(match[1].strip()) for match in _LOCKED.finditer(text)]
    return {_name(each.name) for each in found if each.marker is None or each.marker.evaluate()}


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def judge(names: set[str], report: dict[str, Any]) -> list[str]:
    """What is wrong, in words; nothing only if every package has an answer and none a vulnerability."""
    faults = [] if names else ["there was nothing to ask about"]
    answered = set()
    for part in report.get("dependencies", []):
        if "skip_reason" in part:
            continue
        answered.add(_name(part["name"]))
        for known in part["vulns"]:
            mended = ", ".join(known.get("fix_versions", [])) or "nothing yet"
            faults.append(f"{part['name']} {part['version']}: {known['id']}, mended by {mended}")
    if unknown := sorted(names - answered):
        faults.append(f"no answer about {len(unknown)} packages: {', '.join(unknown)}")
    return faults


def ask(lock: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "pip_audit", "-r", lock, *_ASK]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        print(done.stderr.strip()[-2000:], file=sys.stderr)
        return {}
    return found


def main(locks: Sequence[str]) -> int:
    failed = not locks
    for lock in locks:
        names = locked(Path(lock).read_text(encoding="utf-8"))
        faults = judge(names, ask(lock))
        for fault in faults:
            print(f"{lock}: {fault}")
        if not faults:
            print(f"{lock}: {len(names)} packages looked up, no known vulnerability")
        failed = failed or bool(faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
