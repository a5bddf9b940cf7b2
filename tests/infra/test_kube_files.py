"""KubeRay's files: what a Kubernetes API server says of them, what we ask beyond that, and how a bad one is refused."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.launchers import read
from infra.launchers.kuberay_file import LABEL, at, cluster_spec, read_kuberay
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT
from tests.kube import queued_job, refused

FILES = [ROOT / "infra" / "kuberay" / name for name in ("cluster.yaml", "job.yaml")]
Part = dict[str, Any]


def parts(file: str) -> list[Part]:
    return read(ROOT / "infra" / "kuberay" / file)


def ray(found: list[Part]) -> Part:
    return next(part for part in found if part["kind"] in ("RayCluster", "RayJob"))


def pods(found: list[Part]) -> list[Part]:
    """The templates of every pod that a file leads to."""
    spec = cluster_spec(ray(found))
    clocks = [part["spec"]["jobTemplate"]["spec"]["template"] for part in found if part["kind"] == "CronJob"]
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"]), *clocks]


def containers(found: list[Part]) -> list[Part]:
    options = cluster_spec(ray(found)).get("autoscalerOptions")
    return [*(one for pod in pods(found) for one in pod["spec"]["containers"]), *([options] if options else [])]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_api_server_takes_every_object(file: Path) -> None:
    assert [why for part in read(file) if (why := refused(part))] == []


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


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_ours_pass_our_own_check_and_name_what_is_left_to_fill_in(file: Path) -> None:
    found = read_kuberay(file, read(file))
    assert found.cluster["rayVersion"] == version("ray")
    assert "allowed: your own ACCOUNT" in str(found.left_to_fill_in())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_pods_are_held_to_the_restricted_standard(file: Path) -> None:
    """Kubernetes' "restricted" Pod Security Standard, which the namespace enforces."""
    found = read(file)
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


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_only_the_clusters_own_pods_reach_its_ports(file: Path) -> None:
    found = read(file)
    (policy,) = (part["spec"] for part in found if part["kind"] == "NetworkPolicy")
    own = {"matchLabels": {LABEL: ray(found)["metadata"]["name"]}}
    assert policy["podSelector"] == own
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"][0] == {"from": [{"podSelector": own}]}
    # of a RayJob, KubeRay's operator asks the dashboard
    others = [(rule["ports"], rule["from"][0]["podSelector"]["matchLabels"]) for rule in policy["ingress"][1:]]
    operator = ([{"protocol": "TCP", "port": 8265}], {"app.kubernetes.io/name": "kuberay-operator"})
    assert others == ([operator] if ray(found)["kind"] == "RayJob" else [])
    own_pods = [pod["metadata"]["labels"] for pod in pods(found)]
    assert all(labels.items() >= own["matchLabels"].items() for labels in own_pods)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_gpu_workers_go_where_gpus_are_and_may_not_ask_kubernetes_anything(file: Path) -> None:
    (group,) = cluster_spec(ray(read(file)))["workerGroupSpecs"]
    spec = group["template"]["spec"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["automountServiceAccountToken"] is False
    assert "nvidia.com/gpu" not in str(cluster_spec(ray(read(file)))["headGroupSpec"])


def test_a_job_and_a_cluster_are_the_same_cluster() -> None:
    """But for their names."""
    job = json.dumps(ray(parts("job.yaml"))["spec"]["rayClusterSpec"]).replace("llm4seg-job", "llm4seg")
    assert json.loads(job) == ray(parts("cluster.yaml"))["spec"]


def test_our_files_share_nothing_but_the_namespace() -> None:
    """Neither an object, which `down` of one file would take from another, nor the label by which pods are found."""
    named = [{(part["kind"], part["metadata"]["name"]) for part in read(file)} for file in FILES]
    assert set.intersection(*named) == {("Namespace", "llm4seg")}
    assert sum(map(len, named)) == len(set.union(*named)) + len(FILES) - 1
    labels = [{at(part, f"metadata.labels.{LABEL}") for part in read(file)} - {None} for file in FILES]
    secrets = [cluster_spec(ray(read(file)))["authOptions"]["secretName"] for file in FILES]
    assert len(set.union(*labels)) == len(set(secrets)) == len(FILES)
    for file in FILES:
        accounts = {part["metadata"]["name"] for part in read(file) if part["kind"] == "ServiceAccount"}
        assert {pod["spec"]["serviceAccountName"] for pod in pods(read(file))} == accounts


def test_the_clock_may_end_this_cluster_and_nothing_else() -> None:
    found = parts("cluster.yaml")
    (role,) = (part for part in found if part["kind"] == "Role")
    one = {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "resourceNames": ["llm4seg"]}
    assert role["rules"] == [one | {"verbs": ["get", "delete"]}]
    (bound,) = (part for part in found if part["kind"] == "RoleBinding")
    (clock,) = (part["spec"]["jobTemplate"]["spec"]["template"]["spec"] for part in found if part["kind"] == "CronJob")
    assert clock["serviceAccountName"] == bound["subjects"][0]["name"] == "llm4seg-end"


def test_kueue_admits_a_fixed_gang_that_fits_its_quota(tmp_path: Path) -> None:
    """All or nothing: without autoscaling, suspended until Kueue starts it, and the queue's quota holds all of it."""
    (tmp_path / "queued.yaml").write_text(queued_job(), encoding="utf-8")
    assert [why for part in read(tmp_path / "queued.yaml") if (why := refused(part))] == []
    job = ray(read(tmp_path / "queued.yaml"))
    spec = job["spec"]["rayClusterSpec"]
    assert job["spec"]["suspend"] is True
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert "enableInTreeAutoscaling" not in spec
    (group,) = spec["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    assert [why for part in parts("queues.yaml") if (why := refused(part))] == []
    kinds = {(part["kind"], part["metadata"]["name"]): part for part in parts("queues.yaml")}
    local = kinds["LocalQueue", job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]]
    (quotas,) = kinds["ClusterQueue", local["spec"]["clusterQueue"]]["spec"]["resourceGroups"]
    assert all(("ResourceFlavor", flavor["name"]) in kinds for flavor in quotas["flavors"])
    cpu, gpu = ({one["name"]: one["nominalQuota"] for one in flavor["resources"]} for flavor in quotas["flavors"])
    worker = group["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert set(quotas["coveredResources"]) >= set(worker)
    assert gpu["nvidia.com/gpu"] == group["replicas"] * int(worker["nvidia.com/gpu"])
    assert gpu["cpu"] == group["replicas"] * int(worker["cpu"])
    head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert cpu["cpu"] == int(head["cpu"])


def changed(file: str, dotted: str, value: Any) -> list[Part]:
    """A file's objects with a field of its RayCluster or RayJob changed."""
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
    ("job.yaml", "spec.activeDeadlineSeconds", None, "allowed: seconds, after which the cluster ends"),
    ("job.yaml", "spec.preRunningDeadlineSeconds", None, "allowed: seconds, after which the cluster ends"),
    ("job.yaml", "spec.shutdownAfterJobFinishes", False, "found false, allowed: true"),
    ("job.yaml", "spec.rayClusterSpec.authOptions.mode", "disabled", "found disabled, allowed: token"),
]


@pytest.mark.parametrize(("file", "dotted", "value", "message"), BAD, ids=[one[1] for one in BAD])
def test_a_bad_file_is_refused_by_the_dotted_field(file: str, dotted: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_kuberay(Path(file), changed(file, dotted, value))
    where, _, rest = str(raised.value).partition(dotted)
    assert where in (f"{file}: RayCluster ", f"{file}: RayJob ")
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
    with pytest.raises(InputError, match="found 2 objects of kind RayCluster or RayJob, allowed: one"):
        read_kuberay(Path("f"), [*parts("cluster.yaml"), *parts("job.yaml")])
    with pytest.raises(InputError, match=r"metadata\.name or kind: found none"):
        read_kuberay(Path("f"), [*parts("cluster.yaml"), {"kind": "Secret"}])


def test_files_have_no_secret_and_no_fixed_address() -> None:
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert not [word for word in ("AKIA", "BEGIN", "stringData", "0.0.0.0") if word in text]
        assert yaml.safe_load_all(text)
