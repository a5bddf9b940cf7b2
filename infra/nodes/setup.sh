#!/bin/bash
# What every node needs: the environment of requirements.lock, which lies beside this file. Safe to repeat; a node that
# has it already is left as it is.
set -euo pipefail
cd "$(dirname "$0")"

# For the shells of `infra attach`; what Ray starts is told so in the cluster's file.
line="export RAY_AUTH_MODE=token PATH=$PWD/venv/bin:\$PATH"
grep -qxF "$line" ~/.bashrc || echo "$line" >> ~/.bashrc

wanted=$(sha256sum requirements.lock)
if [ "$(cat venv/installed 2>/dev/null)" = "$wanted" ]; then exit 0; fi

find_python() { command -v python3.12 || command -v python3.11; }
if ! "$(find_python || echo false)" -c 'import ensurepip' 2>/dev/null || ! command -v git >/dev/null; then
  sudo apt-get -qq -o DPkg::Lock::Timeout=600 update
  sudo apt-get -qq -o DPkg::Lock::Timeout=600 install -y python3-venv git
fi
python=$(find_python) || { echo "neither Python 3.12 nor 3.11 is installed here" >&2; exit 1; }

"$python" -m venv --clear venv
torch=$(grep '^torch==' requirements.lock)
if ! command -v nvidia-smi >/dev/null; then  # the CUDA libraries are gigabytes that a node without a GPU can do without
  venv/bin/python -m pip install --quiet --no-deps "$torch" --index-url https://download.pytorch.org/whl/cpu
fi
venv/bin/python -m pip install --quiet --use-pep517 -r requirements.lock
echo "$wanted" > venv/installed
