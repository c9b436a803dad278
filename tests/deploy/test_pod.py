"""tracefwd as the pod's security context leaves it: another user, no capability, a read-only root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.kube import render
from tests.deploy.kube.render import DEPLOY, needs_tools
from tests.e2e.parts import Forwarder, forwarder, stand_in
from tests.e2e.processes import Process, get_json, tracefwd
from tests.e2e.test_lifecycle import BODY, SPANS

NOT_TRIED = "NO CONFINEMENT: the pod's security context is not tried on the real process"
BASE = DEPLOY / "kubernetes" / "base"


def confined(spool: Path, user: int, words: list[str]) -> list[str]:
    """``words`` where everything but ``spool`` is read-only, as ``user`` without any right."""
    steps = (
        'mount --make-rprivate / && mount -t tmpfs -o mode=777,size=64m none "$1" '
        '&& mount -o remount,bind,ro / && shift && exec "$@"'
    )
    rights = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
    rights += ["--bounding-set=-all", "--inh-caps=-all"]
    inner = ["setpriv", *rights, *words]
    return ["unshare", "--mount", "sh", "-c", steps, "sh", str(spool), *inner]


def whoever_can(user: int) -> int:
    """``user``, or root without its rights where only root can reach this interpreter; skips where neither can."""
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("setpriv")):
        pytest.skip(f"{NOT_TRIED}: it needs root, unshare and setpriv")
    for each in (user, 0):
        # A second program, as the worker is: the first one still has rights of ours.
        words = ["sh", "-c", 'exec "$@"', "sh", *tracefwd("version")]
        probe = confined(Path("/mnt"), each, words)
        done = subprocess.run(probe, capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return each
    pytest.skip(f"{NOT_TRIED}: {done.stderr.strip()}")


def test_runs_with_a_read_only_root_and_no_rights(tmp_path: Path) -> None:
    spec = yaml.safe_load((BASE / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    user = whoever_can(spec["securityContext"]["runAsUser"])
    # As tracefwd.yaml has it, but for addresses.
    config = yaml.safe_load((BASE / "tracefwd.yaml").read_text())
    spool = tmp_path / "spool"
    spool.mkdir()
    # Others than root may read what pytest keeps to itself.
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    with stand_in(tmp_path) as wavefront:
        target = {"kind": "proxy", "traces": wavefront.trace_url, "metrics": wavefront.url}
        config["exporter"]["targets"] = [target]
        config["spool"]["folder"] = str(spool)
        config["admin"]["listen"] = "127.0.0.1:0"
        otlp = {kind: {"listen": "127.0.0.1:0"} for kind in ("grpc", "http")}
        config["receiver"] = {"listen": "127.0.0.1:0", "otlp": otlp}
        config["service"]["pre_stop_delay"] = "0s"
        file = tmp_path / "tracefwd.yaml"
        file.write_text(yaml.safe_dump(config))
        words = tracefwd("run", "--config", str(file))
        with Process(confined(spool, user, words), tmp_path, "confined") as process:
            ready = process.find(r"ready: intake (https?://\S+) .* admin (http://[^\s\"]+)")
            part = Forwarder(ready[1], ready[2], process)
            # It is what it is said to be.
            status = Path(f"/proc/{process.pid}/status").read_text().split("\n")
            assert f"Uid:\t{user}\t{user}\t{user}\t{user}" in status
            for kind in ("CapEff", "CapPrm", "CapBnd"):
                assert f"{kind}:\t0000000000000000" in status
            mounts = Path(f"/proc/{process.pid}/mounts").read_text().splitlines()
            [root] = [line for line in mounts if line.split()[1] == "/"]
            assert "ro" in root.split()[3].split(",")
            assert part.post(BODY) == 202
            part.delivered(SPANS)
            [worker] = get_json(f"{part.admin}/ledger?verbose")["workers"]
            assert worker["ready"]
            assert part.metric("tracefwd_journal_degraded") == 0
            assert part.metric("tracefwd_journal_writes_total") > 0
            assert part.stop() == f"ledger balanced: received {SPANS} = delivered {SPANS}"


@needs_tools
@pytest.mark.parametrize("intake", ["plain", "tls", "token"])
def test_helm_test_says_whether_the_service_answers_as_envoys_need_it(
    tmp_path: Path, intake: str
) -> None:
    receiver = {"plain": {}, "tls": {"tls": tls_files(tmp_path)}, "token": {}}[intake]
    if intake == "token":
        (tmp_path / "token").write_text("a-token\n")
        receiver["token_file"] = str(tmp_path / "token")
    found = render.objects(render.chart({"config": {"receiver": receiver}}))
    [pod] = [each for each in found if each["kind"] == "Pod"]
    [container] = pod["spec"]["containers"]
    python, *flags, program = container["command"]
    assert (python, flags) == ("python", ["-c"])
    nobody = ["--proxy-traces", "http://127.0.0.1:1", "--proxy-metrics", "http://127.0.0.1:1"]
    service = {"drain_timeout": "0s"}
    with forwarder(tmp_path, nobody, service=service, receiver=receiver) as part:
        scheme = part.intake.partition(":")[0]
        # A token is asked for before anybody looks at the path.
        for path, code in (("", 0), *([] if intake == "token" else [("/nowhere", 1)])):
            here = program.replace(f"{scheme}://tracefwd:9411", part.intake + path)
            assert here != program
            done = subprocess.run([sys.executable, "-c", here], capture_output=True, timeout=60)
            assert done.returncode == code, done.stderr
        assert part.ledger()["received"] == 0


@needs_tools
def test_helm_test_is_not_there_where_it_would_need_a_certificate() -> None:
    tls = {"cert_file": "/tls/tls.crt", "key_file": "/tls/tls.key", "client_ca_file": "/tls/ca.crt"}
    found = render.objects(render.chart({"config": {"receiver": {"tls": tls}}}))
    assert [each["kind"] for each in found if each["kind"] == "Pod"] == []


def tls_files(folder: Path) -> dict[str, str]:
    if shutil.which("openssl") is None:
        pytest.skip("NO OPENSSL: no certificate can be made for the intake")
    files = {"cert_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")}
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tracefwd"]
    words += ["-days", "2", "-out", files["cert_file"], "-keyout", files["key_file"]]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return files
