#!/usr/bin/env bash
# The exported model gives the same test accuracy in PyTorch as in `annulus eval`.
# PYTHON names an interpreter with torch and safetensors; without it, one is set up in a throw-away
# environment (torch is a large download).
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -q torch numpy safetensors packaging
  python=$work/venv/bin/python
fi
scripts/launch_local.sh 2 train configs/lenet-mnist.json --out "$work/run" --set train.epochs=2
ours=$(scripts/launch_local.sh 3 eval "$work/run" configs/lenet-mnist.json | sed -n 's/.*(\(.*\)).*/\1/p')
theirs=$("$python" scripts/extra/pytorch_accuracy.py "$work/run/model.safetensors" data/mnist)
echo "annulus eval $ours, PyTorch $theirs"
[ "$ours" = "$theirs" ]
