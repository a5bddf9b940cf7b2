"""KubeRay's files: what a Kubernetes API server says of them, what we ask beyond that, and how a bad one is refused."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from infra.launchers import read
from infra.launchers.kuberay_file import LABEL, at, read_kuberay
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT
from tests.kube import refused

FILE = ROOT / "infra" / "kuberay" / "cluster.yaml"
Part = dict[str, Any]


def parts(file: str) -> list[Part]:
    return read(ROOT / "infra" / "kuberay" / file)


def ray(found: list[Part]) -> Part:
    return next(part for part in found if part["kind"] == "RayCluster")


def pods(found: list[Part]) -> list[Part]:
    """The templates of every pod that a file leads to."""
    spec = ray(found)["spec"]
    clocks = [part["spec"]["jobTemplate"]["spec"]["template"] for part in found if part["kind"] == "CronJob"]
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"]), *clocks]


def containers(found: list[Part]) -> list[Part]:
    options = ray(found)["spec"].get("autoscalerOptions")
    return [*(one for pod in pods(found) for one in pod["spec"]["containers"]), *([options] if options else [])]


def test_an_api_server_takes_every_object() -> None:
    assert [why for part in read(FILE) if (why := refused(part))] == []


def test_the_schemas_refuse_unknown_fields_and_wrong_types() -> None:
    cluster = ray(parts("cluster.yaml"))
    cluster["spec"]["workerGroupSpecs"][0]["maxReplica"] = 1
    assert "'maxReplica' was unexpected" in str(refused(cluster))
    cluster = ray(parts("cluster.yaml"))
    cluster["spec"]["authOptions"]["mode"] = "password"
    assert "spec.authOptions.mode" in str(refused(cluster))
    policy = next(part for part in parts("cluster.yaml") if part["kind"] == "NetworkPolicy")
    policy["spec"]["podSelektor"] = {}
    assert "podSelektor" in str(refused(policy))


def test_ours_pass_our_own_check_and_name_what_is_left_to_fill_in() -> None:
    found = read_kuberay(FILE, read(FILE))
    assert found.cluster["rayVersion"] == version("ray")
    assert "allowed: your own ACCOUNT" in str(found.left_to_fill_in())


def test_pods_are_held_to_the_restricted_standard() -> None:
    """Kubernetes' "restricted" Pod Security Standard, which the namespace enforces."""
    found = read(FILE)
    for pod in pods(found):
        assert at(pod, "spec.securityContext.runAsNonRoot") is True
        assert at(pod, "spec.securityContext.runAsUser") == 1000
        assert all("emptyDir" in volume for volume in pod["spec"].get("volumes", []))
    for container in containers(found):
        context = container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_only_the_clusters_own_pods_reach_its_ports() -> None:
    found = read(FILE)
    (policy,) = (part["spec"] for part in found if part["kind"] == "NetworkPolicy")
    own = {"matchLabels": {LABEL: ray(found)["metadata"]["name"]}}
    assert policy["podSelector"] == own
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [{"from": [{"podSelector": own}]}]
    own_pods = [pod["metadata"]["labels"] for pod in pods(found)]
    assert all(labels.items() >= own["matchLabels"].items() for labels in own_pods)


def test_gpu_workers_go_where_gpus_are_and_may_not_ask_kubernetes_anything() -> None:
    (group,) = ray(read(FILE))["spec"]["workerGroupSpecs"]
    spec = group["template"]["spec"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["automountServiceAccountToken"] is False
    assert "nvidia.com/gpu" not in str(ray(read(FILE))["spec"]["headGroupSpec"])


def test_the_clock_may_end_this_cluster_and_nothing_else() -> None:
    found = parts("cluster.yaml")
    (role,) = (part for part in found if part["kind"] == "Role")
    one = {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "resourceNames": ["llm4seg"]}
    assert role["rules"] == [one | {"verbs": ["get", "delete"]}]
    (bound,) = (part for part in found if part["kind"] == "RoleBinding")
    (clock,) = (part["spec"]["jobTemplate"]["spec"]["template"]["spec"] for part in found if part["kind"] == "CronJob")
    assert clock["serviceAccountName"] == bound["subjects"][0]["name"] == "llm4seg-end"


def changed(file: str, dotted: str, value: Any) -> list[Part]:
    """A file's objects with a field of its RayCluster changed."""
    found = json.loads(json.dumps(parts(file)))  # YAML's anchors make one object of several
    *above, name = dotted.split(".")
    place: Any = ray(found)
    for part in above:
        place = place[int(part) if part.isdigit() else part]
    if value is None:
        del place[name]
    else:
        place[name] = value
    return found


HEAD, WORKER = "spec.headGroupSpec.template", "spec.workerGroupSpecs.0.template"
BAD: list[tuple[str, str, Any, str]] = [
    ("cluster.yaml", "spec.authOptions.mode", "disabled", "found disabled, allowed: token"),
    ("cluster.yaml", "spec.authOptions.secretName", None, "found none, allowed: a name"),
    ("cluster.yaml", "spec.rayVersion", "2.9.0", f"found 2.9.0, allowed: {version('ray')}"),
    ("cluster.yaml", "spec.headGroupSpec.serviceType", "LoadBalancer", "found LoadBalancer, allowed: ClusterIP"),
    ("cluster.yaml", "spec.workerGroupSpecs", [], "found none, allowed: one or more"),
    ("cluster.yaml", f"{WORKER}.spec.containers", [], "found none, allowed: one or more"),
    ("cluster.yaml", f"{WORKER}.metadata.labels", {}, "found none, allowed: llm4seg"),
    ("cluster.yaml", "metadata.namespace", None, "found none, allowed: a namespace"),
]


@pytest.mark.parametrize(("file", "dotted", "value", "message"), BAD, ids=[one[1] for one in BAD])
def test_a_bad_file_is_refused_by_the_dotted_field(file: str, dotted: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_kuberay(Path(file), changed(file, dotted, value))
    where, _, rest = str(raised.value).partition(dotted)
    assert where == f"{file}: RayCluster "
    assert rest.startswith((": ", ".app.kubernetes.io/instance: "))
    assert message in rest
    assert "\n" not in rest


def test_no_secret_in_a_file() -> None:
    env = [{"name": "RAY_AUTH_TOKEN", "value": "abc"}]
    with pytest.raises(InputError, match=r"env\.0\.value: found a secret \(RAY_AUTH_TOKEN\)") as raised:
        read_kuberay(Path("f"), changed("cluster.yaml", f"{HEAD}.spec.containers.0.env", env))
    assert "abc" not in str(raised.value)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"auth_token": "abc"}}
    with pytest.raises(InputError, match="Secret: found one"):
        read_kuberay(Path("f"), [*parts("cluster.yaml"), secret])


def test_a_namespace_enforces_the_restricted_standard() -> None:
    found = parts("cluster.yaml")
    next(part for part in found if part["kind"] == "Namespace")["metadata"]["labels"] = {}
    with pytest.raises(
        InputError, match=r"Namespace\.metadata\.labels\.pod-security\S+: found none, allowed: restricted"
    ):
        read_kuberay(Path("f"), found)


def test_a_cluster_without_a_clock_is_refused() -> None:
    with pytest.raises(InputError, match="CronJob: found none that ends llm4seg"):
        read_kuberay(Path("f"), [part for part in parts("cluster.yaml") if part["kind"] != "CronJob"])


def test_objects_that_have_no_name_or_are_two_clusters() -> None:
    with pytest.raises(InputError, match="found 2 objects of kind RayCluster, allowed: one"):
        read_kuberay(Path("f"), [*parts("cluster.yaml"), *parts("cluster.yaml")])
    with pytest.raises(InputError, match=r"metadata\.name or kind: found none"):
        read_kuberay(Path("f"), [*parts("cluster.yaml"), {"kind": "Secret"}])


def test_files_have_no_secret_and_no_fixed_address() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert not [word for word in ("AKIA", "BEGIN", "stringData", "0.0.0.0") if word in text]
