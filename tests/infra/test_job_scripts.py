"""The end of the scripts that start a Ray for one job: what they clean up does not decide the job's exit code."""

import re
import subprocess

import pytest
import yaml

from tests.import_graph import ROOT

SLURM = (ROOT / "infra" / "slurm" / "job.sh").read_text(encoding="utf-8")
SLURM_END = re.findall(r"^end_ray\(\) \{.*?^\}\n|^trap end_ray EXIT\n", SLURM, re.MULTILINE | re.DOTALL)
SKY = yaml.safe_load((ROOT / "infra" / "sky" / "task.yaml").read_text(encoding="utf-8"))["run"]
SKY_END = re.findall(r"^trap .* EXIT\n", SKY, re.MULTILINE)
# the last of Ray still writes into the folder; nobody waits in a test
STUBS = "set -euo pipefail\nTMPDIR=/nowhere\nrm() { return 1; }\nsleep() { :; }\n"


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("ending", [SLURM_END, SKY_END], ids=["slurm", "sky"])
def test_a_folder_that_cannot_be_deleted_yet_leaves_the_jobs_code(ending: list[str], code: int) -> None:
    assert ending
    done = subprocess.run(["bash", "-c", STUBS + "".join(ending) + f"exit {code}"], timeout=30)
    assert done.returncode == code
