"""The bucket for data and runs, on an S3 in this process: what a new one gets, what is mended, what is left alone."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core.authorization import enable_iam_authentication

from infra.__main__ import main
from infra.storage.s3_location import S3Location
from infra.storage.server import Server, translate_s3_errors
from infra.storage.settings import Row
from infra.storage.setup import set_up, wanted
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT
from tests.policy import allows, wildcards

BUCKET, REGION = "my-lab", "eu-central-1"
LOCATION = S3Location(BUCKET, "brain")
DATA = "brain/dvc/files/md5/00/11"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A client of an AWS in this process, in which nothing is; the caller's own settings do not count."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with mock_aws():
        yield boto3.Session().client("s3", region_name=REGION)


def set_up_bucket(
    asked: str | None = REGION,
    location: S3Location = LOCATION,
    adopt: bool = False,
    days: tuple[int, int] = (30, 7),
) -> list[Row]:
    rows: list[Row] = []
    with translate_s3_errors(location.bucket):
        server = Server.named(None, asked, allow_http=False)
        set_up(location, server, wanted(location, server, *days), adopt, rows)
    return rows


def done(rows: list[Row]) -> dict[str, str]:
    return {row.check: row.found for row in rows if row.done}


def state(aws: Any) -> dict[str, Any]:
    """Everything that is set on the bucket."""
    operations: tuple[str, ...] = ("bucket_tagging", "public_access_block", "bucket_policy")
    operations += ("bucket_encryption", "bucket_versioning", "bucket_lifecycle_configuration")
    found = {}
    for operation in operations:
        try:
            found[operation] = getattr(aws, f"get_{operation}")(Bucket=BUCKET)
        except ClientError as error:
            found[operation] = error.response["Error"]["Code"]
        else:
            del found[operation]["ResponseMetadata"]
    return found


def create_foreign(aws: Any) -> None:
    aws.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    aws.put_object(Bucket=BUCKET, Key=DATA, Body=b"data")


def test_a_new_bucket_has_everything(aws: Any) -> None:
    rows = set_up_bucket()
    assert all(row.done for row in rows)
    assert aws.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] == REGION
    found = state(aws)
    assert {"Key": "project", "Value": "llm4seg"} in found["bucket_tagging"]["TagSet"]
    assert set(found["public_access_block"]["PublicAccessBlockConfiguration"].values()) == {True}
    (statement,) = json.loads(found["bucket_policy"]["Policy"])["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Resource"] == [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert found["bucket_versioning"]["Status"] == "Enabled"


def test_only_runs_are_deleted_by_themselves(aws: Any) -> None:
    set_up_bucket(days=(10, 3))
    uploads, runs = state(aws)["bucket_lifecycle_configuration"]["Rules"]
    assert uploads["Filter"] == {"Prefix": "brain/"}
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert not {"Expiration", "NoncurrentVersionExpiration", "Transitions"} & set(uploads)
    assert runs["Filter"] == {"Prefix": "brain/runs/"}
    assert runs["Expiration"]["Days"] == 10
    assert runs["NoncurrentVersionExpiration"]["NoncurrentDays"] == 3


def test_a_second_run_changes_nothing(aws: Any) -> None:
    set_up_bucket()
    before, written = state(aws), []
    server = Server.named(None, REGION, allow_http=False)
    server.client.meta.events.register("before-call.s3", lambda model, **_: written.append(model.name))
    rows: list[Row] = []
    set_up(LOCATION, server, wanted(LOCATION, server, 30, 7), False, rows)
    assert done(rows) == {}
    assert written
    assert not [name for name in written if not name.startswith(("Get", "Head"))]
    assert state(aws) == before


def other_policy(aws: Any) -> None:
    weak: dict[str, Any] = {"Sid": "llm4segTlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:GetObject"}
    weak |= {"Resource": f"arn:aws:s3:::{BUCKET}/*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    aws.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": weak}))


def other_days(aws: Any) -> None:
    rules = state(aws)["bucket_lifecycle_configuration"]["Rules"]
    rules[1]["Expiration"]["Days"] = 1
    aws.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": rules})


def half_open(aws: Any) -> None:
    block = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True}
    aws.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=block | {"RestrictPublicBuckets": False})


BROKEN: dict[str, Callable[[Any], Any]] = {
    "public access": half_open,
    "transport": other_policy,
    "versioning": lambda aws: aws.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"}),
    "old runs": other_days,
}


@pytest.mark.parametrize("check", BROKEN)
def test_what_is_wrong_is_named_and_mended(aws: Any, check: str) -> None:
    set_up_bucket()
    before = state(aws)
    BROKEN[check](aws)
    assert state(aws) != before
    assert done(set_up_bucket()) == {check: "set otherwise"}
    assert state(aws) == before


def test_a_strangers_bucket_is_left_alone(aws: Any) -> None:
    create_foreign(aws)
    before = state(aws)
    with pytest.raises(InputError, match="s3://my-lab: exists and has no tag project=llm4seg; if it is yours, --adopt"):
        set_up_bucket()
    assert state(aws) == before


def test_an_adopted_bucket_keeps_what_it_has(aws: Any) -> None:
    create_foreign(aws)
    aws.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": [{"Key": "cost", "Value": "42"}]})
    theirs = {"Sid": "Theirs", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject"}
    theirs |= {"Resource": f"arn:aws:s3:::{BUCKET}/locked/*"}
    aws.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": theirs}))
    rule = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 5}}
    aws.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]})
    kms = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "theirs"}}
    aws.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [kms]})
    before = state(aws)
    set_up_bucket(adopt=True)
    found = state(aws)
    assert {"Key": "cost", "Value": "42"} in found["bucket_tagging"]["TagSet"]
    assert theirs in json.loads(found["bucket_policy"]["Policy"])["Statement"]
    assert len(json.loads(found["bucket_policy"]["Policy"])["Statement"]) == 2
    assert len(found["bucket_lifecycle_configuration"]["Rules"]) == 3
    assert found["bucket_lifecycle_configuration"]["Rules"][0] == before["bucket_lifecycle_configuration"]["Rules"][0]
    assert found["bucket_encryption"] == before["bucket_encryption"]
    assert done(set_up_bucket()) == {}  # known from now on
    aws.delete_bucket_policy(Bucket=BUCKET)  # this S3 applies it without its condition, to https too
    assert aws.get_object(Bucket=BUCKET, Key=DATA)["Body"].read() == b"data"


def test_two_projects_share_a_bucket(aws: Any) -> None:
    set_up_bucket()
    assert set(done(set_up_bucket(location=S3Location(BUCKET, "lung")))) == {"old runs"}
    assert len(state(aws)["bucket_lifecycle_configuration"]["Rules"]) == 4
    assert done(set_up_bucket()) == {}


DELETES = {"Status": "Enabled", "ID": "tidy"}
TAGGED = {"And": {"Prefix": "", "Tags": [{"Key": "short", "Value": "lived"}]}}


@pytest.mark.parametrize(
    "rule",
    [
        {"Filter": {"Prefix": ""}, "Expiration": {"Days": 90}},
        {"Prefix": "brain/", "Expiration": {"Days": 90}},
        {"Filter": {"Prefix": "brain/dvc/files/md5/0"}, "Expiration": {"Days": 90}},
        {"Filter": {"Prefix": "brain"}, "Transitions": [{"Days": 90, "StorageClass": "GLACIER"}]},
    ],
)
def test_a_rule_that_deletes_data_is_named(aws: Any, rule: dict[str, Any]) -> None:
    create_foreign(aws)
    aws.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [DELETES | rule]})
    before = state(aws)
    with pytest.raises(InputError, match=r"lifecycle rule 'tidy' deletes or archives what lies under .*brain/dvc/"):
        set_up_bucket(adopt=True)
    assert state(aws) == before


@pytest.mark.parametrize(
    "rule",
    [
        {"Filter": {"Prefix": "brains/"}, "Expiration": {"Days": 90}},
        {"Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 90}},
        {"Filter": TAGGED, "Expiration": {"Days": 90}},
        {"Filter": {"Prefix": ""}, "Expiration": {"Days": 90}, "Status": "Disabled"},
    ],
)
def test_a_rule_that_does_not_is_kept(aws: Any, rule: dict[str, Any]) -> None:
    create_foreign(aws)
    aws.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [DELETES | rule]})
    set_up_bucket(adopt=True)
    assert next(iter(state(aws)["bucket_lifecycle_configuration"]["Rules"]))["ID"] == "tidy"


def test_a_dry_run_asks_nobody(
    aws: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / ".dvc" / "config").read_text()
    with monkeypatch.context() as patch:
        without_credentials(patch)
        main(["storage", "s3://my-lab/brain", "--region", REGION, "--dry-run"])
        shown = capsys.readouterr().out
        assert [
            name for name in ("tags", "public access", "transport", "versioning", "old runs") if name not in shown
        ] == []
        message = r"^s3://my-lab: Unable to locate credentials; credentials come from .*AWS_PR"
        with pytest.raises(InputError, match=message):
            set_up_bucket()
    assert aws.list_buckets()["Buckets"] == []
    assert (tmp_path / ".dvc" / "config").read_text() == before


def without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_regions(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--region: found none, and a new bucket, with your data, must be somewhere"):
        set_up_bucket(None)
    assert set_up_bucket()[0].done == "created, in eu-central-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")  # of what is done elsewhere
    assert set_up_bucket(None)[0].found == "in eu-central-1"


def test_a_strangers_bucket_that_lets_everyone_in_is_no_place_for_data(aws: Any) -> None:
    headers: list[str] = []
    server = Server.named(None, REGION, allow_http=False)
    server.client.meta.events.register(
        "before-call.s3.HeadBucket",
        lambda params, **_: headers.append(params["headers"].get("x-amz-expected-bucket-owner")),
    )
    set_up(LOCATION, server, wanted(LOCATION, server, 30, 7), False, [])
    assert headers == ["123456789012"]


def as_a_user(policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on with the credentials of somebody who may do this and nothing else."""
    iam = boto3.Session().client("iam")
    iam.create_user(UserName="somebody")
    iam.put_user_policy(UserName="somebody", PolicyName="own", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="somebody")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


def stated_policy() -> dict[str, Any]:
    text = (ROOT / "infra" / "policies" / "owner.json").read_text(encoding="utf-8")
    policy: dict[str, Any] = json.loads(text.replace("BUCKET", BUCKET).replace("PREFIX", LOCATION.prefix))
    policy["Statement"][0]["Action"].append("s3:HeadBucket")  # what this S3 calls s3:ListBucket for HEAD
    return policy


def test_the_stated_permissions_are_enough(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    as_a_user(stated_policy(), monkeypatch)
    with enable_iam_authentication():
        assert all(row.done for row in set_up_bucket())
        assert done(set_up_bucket()) == {}


@pytest.mark.parametrize("action", ["s3:CreateBucket", "s3:PutBucketPolicy", "s3:GetLifecycleConfiguration"])
def test_a_lacking_permission_is_one_line(aws: Any, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    policy = stated_policy()
    policy["Statement"][0]["Action"].remove(action)
    as_a_user(policy, monkeypatch)
    with enable_iam_authentication(), pytest.raises(InputError, match=r"^s3://my-lab: forbidden: "):
        set_up_bucket()


@pytest.mark.parametrize(("region", "partition"), [([], "aws"), (["--region", "cn-north-1"], "aws-cn")])
def test_the_nodes_policy_is_printed_ready_for_iam(
    aws: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    region: list[str],
    partition: str,
) -> None:
    without_credentials(monkeypatch)
    main(["storage", "s3://my-lab/team/brain", "--print-policy", *region])
    policy = json.loads(capsys.readouterr().out)
    assert not wildcards(policy)
    assert "${" not in json.dumps(policy)
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        assert allows([policy], action, f"arn:{partition}:s3:::my-lab/team/brain/dvc/files/md5/00/1")
        assert not allows([policy], action, f"arn:{partition}:s3:::my-lab/team/other/1")
    assert allows([policy], "s3:PutObject", f"arn:{partition}:s3:::my-lab/team/")  # Arrow marks it


def test_the_nodes_policy_has_the_buckets_key(aws: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["storage", "s3://my-lab/brain", "--print-policy", "--kms-key"]
    key = "arn:aws:kms:eu-central-1:123456789012:key/1"
    main([*command, key])
    policy = json.loads(capsys.readouterr().out)
    assert [part["Resource"] for part in policy["Statement"] if "kms:Decrypt" in part["Action"]] == [[key]]
    with pytest.raises(SystemExit, match="--kms-key: found alias/mine, allowed: arn:aws:kms"):
        main([*command, "alias/mine"])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("my-lab/brain", r"found 'my-lab/brain', allowed: s3://BUCKET/PREFIX"),
        ("s3://my-lab", r"found 's3://my-lab', allowed: s3://BUCKET/PREFIX"),
        ("s3://My_Lab/brain", r"bucket: found 'My_Lab', allowed: 3 to 63 of a-z, 0-9 and -"),
        ("s3://key:hidden@my-lab/brain", r"bucket: found '...@my-lab', allowed"),
        ("s3://my-lab/brain//x", r"prefix: found 'brain//x', allowed"),
        ("s3://my-lab/../brain", r"prefix: found '../brain', allowed"),
    ],
)
def test_bad_addresses(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        S3Location.parse(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("minio:9000", "allowed: https://HOST"),
        ("https://minio/path", "allowed: https://HOST"),
        ("https://key:hidden@minio", "allowed: https://HOST"),
        ("http://minio:9000", "travel in the clear"),
    ],
)
def test_bad_endpoints(aws: Any, url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Server.named(url, None, allow_http=False)
    assert "hidden" not in str(caught.value)


def test_endpoints(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Server.named("http://minio:9000", None, allow_http=True).endpoint == "http://minio:9000"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/")
    assert Server.named(None, None, allow_http=False).endpoint == "http://127.0.0.1:9000"
    address = LOCATION.run_storage("https://minio:9000", "eu-1")
    assert address == "s3://my-lab/brain/runs?endpoint_override=minio:9000&scheme=https&region=eu-1"
    assert LOCATION.run_storage(None, REGION) == "s3://my-lab/brain/runs"


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["storage", "s3://b/x"])
    assert (
        str(caught.value) == "infra storage: bucket: found 'b', allowed: 3 to 63 of a-z, 0-9 and -, no - first or last"
    )
