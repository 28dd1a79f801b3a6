"""The Kubernetes manifests: least rights, probes that ask the right page, and commands and settings that tradetape knows.

Where the package kubernetes-validate is installed they are also held against Kubernetes' own schemas; it brings the
schemas of thirteen versions, 110 MB, and is not among the packages of development.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tradetape.console import cli
from tradetape.producers.settings import UNPREFIXED, load

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
MANIFESTS: dict[str, dict[str, Any]] = {
    f"{one['kind']} {one['metadata']['name']}": one
    for path in sorted(FOLDER.glob("*.yaml"))
    for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))
}
PODS = {name: one["spec"]["template"]["spec"] for name, one in MANIFESTS.items() if "template" in one.get("spec", {})}
DEPLOYMENTS = {name: one for name, one in MANIFESTS.items() if one["kind"] == "Deployment"}
VERSIONS = ("1.30", "1.34", "1.37")


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_would_take_it(name: str, version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_least_rights_and_bounds(name: str) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] >= 10_000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["resources"]["limits"]["memory"]
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_worker_is_killed_for_standing_still_and_not_for_waiting(name: str) -> None:
    (container,) = PODS[name]["containers"]
    pages = {kind: container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {kind: page["path"] for kind, page in pages.items()} == {
        "startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz",
    }  # fmt: skip
    (port,) = container["ports"]
    assert {page["port"] for page in pages.values()} == {port["name"]}
    assert PODS[name]["terminationGracePeriodSeconds"] > 10


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_finds_its_own_pods_and_no_others(name: str) -> None:
    selectors = [one["spec"]["selector"]["matchLabels"] for one in DEPLOYMENTS.values()]
    own = DEPLOYMENTS[name]["spec"]
    assert own["selector"]["matchLabels"] == own["template"]["metadata"]["labels"]
    assert selectors.count(own["selector"]["matchLabels"]) == 1


@pytest.mark.parametrize("name", PODS)
def test_it_runs_commands_with_settings_that_tradetape_knows(name: str) -> None:
    (container,) = PODS[name]["containers"]
    lines = (
        container["args"][0].splitlines() if "command" in container else [f"tradetape {' '.join(container['args'])}"]
    )
    for line in lines:
        assert line.startswith("tradetape ")
        cli._parser().parse_args(line.split()[1:])
    load(MANIFESTS["ConfigMap tradetape"]["data"])
    assert {one["name"] for one in container.get("env", ())} <= set(UNPREFIXED)
    assert all("secretKeyRef" in one["valueFrom"] for one in container.get("env", ())), "no secret stands in a manifest"


def test_every_worker_of_the_compose_file_has_a_deployment() -> None:
    compose = yaml.safe_load((FOLDER.parents[1] / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    workers = {name for name, one in compose.items() if one.get("command", [""])[0] == "work" and "profiles" not in one}
    assert {name.removeprefix("Deployment tradetape-") for name in DEPLOYMENTS} == workers
