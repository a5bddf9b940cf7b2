"""Create or check the bucket for data and runs.

It is made private, TLS only and versioned, and becomes this checkout's DVC remote `storage`, with data under
PREFIX/dvc, runs under PREFIX/runs. What is in order stays as it is; nothing in it is ever deleted by this command. Only
old runs are deleted, by the bucket itself, after --run-days. Credentials come from the environment, ~/.aws or the
machine's role.
"""

import argparse
import json
import re
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.launchers.policies import Account, storage_policy
from infra.storage.remote import set_remote
from infra.storage.s3_location import S3Location
from infra.storage.server import Server, translate_s3_errors
from infra.storage.settings import Row
from infra.storage.setup import set_up, wanted
from llm4seg.utils.errors import InputError

EXAMPLE = "storage s3://my-lab-llm4seg/brain --region eu-central-1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="s3://BUCKET/PREFIX", help="a bucket's name is unique in all of AWS")
    parser.add_argument("--region", help="where a new bucket is to be; default: AWS_DEFAULT_REGION, or the profile's")
    parser.add_argument("--endpoint-url", help="of a server other than AWS; default: AWS_ENDPOINT_URL")
    parser.add_argument("--allow-http", action="store_true", help="take an endpoint that does not encrypt")
    parser.add_argument("--adopt", action="store_true", help="take a bucket that this command did not create")
    parser.add_argument("--run-days", type=_days, default=30, help="keep checkpoints of runs so long (%(default)s)")
    parser.add_argument("--version-days", type=_days, default=7, help="and their old versions (%(default)s)")
    parser.add_argument(
        "--print-policy", action="store_true", help="print the IAM policy that a cluster's nodes need, and do nothing"
    )
    parser.add_argument("--kms-key", metavar="ARN", help="the bucket's own key of KMS, for --print-policy")


def _days(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"found {word!r}, allowed: 1 or more")
    return int(word)


def run(options: argparse.Namespace) -> None:
    location = S3Location.parse(options.url)
    if options.print_policy:
        print(json.dumps(_nodes_policy(location, options.region, options.kms_key), indent=2))
        return
    if options.kms_key:
        raise InputError("--kms-key: allowed with --print-policy; S3's own tools set a bucket's key (docs/storage.md)")
    rows: list[Row] = []
    try:
        with translate_s3_errors(location.bucket):
            server = Server.named(options.endpoint_url, options.region, options.allow_http)
            settings = wanted(location, server, options.run_days, options.version_days)
            if options.dry_run:
                rows += [Row(one.name, "not asked", f"would be: {one.right}") for one in settings]
            else:
                server = set_up(location, server, settings, options.adopt, rows)
        remote = {"endpointurl": server.endpoint, "region": server.region}
        rows.append(set_remote(location.url("dvc"), remote, options.dry_run))
    finally:
        _print_rows(rows)
    if not any(row.done and not row.missing for row in rows):
        print("all is in order; nothing was changed")
    if rows[-1].done and not options.dry_run:
        print("the DVC remote is in .dvc/config, without credentials: commit it")
    storage = location.run_storage(server.endpoint, server.region)
    print(f"cluster.storage in params.yaml, for runs on a cluster:\n{storage}")


def _nodes_policy(location: S3Location, region: str | None, key: str | None) -> dict[str, Any]:
    """What `up` gives the nodes of a cluster on AWS; other clusters get it by hand. Raises InputError."""
    if key and not re.fullmatch(r"arn:[\w-]+:kms:[\w-]+:\d+:key/[\w-]+", key):
        raise InputError(f"--kms-key: found {key}, allowed: arn:aws:kms:REGION:ACCOUNT:key/ID")
    with translate_s3_errors(location.bucket):
        partition = Server(None, region).client.meta.partition
    return storage_policy(Account(partition, "", ""), location.bucket, location.prefix, key)


def _print_rows(rows: list[Row]) -> None:
    table = Table("check", "found", "done", box=box.SIMPLE)
    for row in rows:
        style = "yellow" if row.missing else "green" if row.done else None
        table.add_row(row.check, escape(row.found), escape(row.done or "-"), style=style)
    if rows:
        Console().print(table)
