#!/bin/bash
# Has this node end itself after so many minutes with nothing to do: `watch.sh MINUTES`, on the head `watch.sh MINUTES --head`.
# A service of its own, so that it outlives this shell and Ray.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sudo systemctl stop infra-idle 2>/dev/null || true
sudo systemd-run --quiet --unit=infra-idle --collect --property=Restart=on-failure --uid="$USER" --setenv=HOME="$HOME" \
  "$here/venv/bin/python" "$here/idle.py" "${@:2}" --minutes "$1" -- sudo shutdown -h now
