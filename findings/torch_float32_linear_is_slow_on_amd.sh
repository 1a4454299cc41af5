#!/usr/bin/env bash
# torch 2.13.0 (with its MKL and oneDNN 3.12), x86-64. `torch.nn.functional.linear` of float32 calls MKL. One would expect that to
# be the fastest product that torch has. Seen on an AMD EPYC (Zen 5, AVX-512, 2 cores): the operators that torch's compiler
# uses for frozen weights (`mkldnn._reorder_linear_weight` once, then `mkldnn._linear_pointwise`) give the same numbers, up
# to rounding, in a third to a half of the time. 120 layers of the sizes of SmolLM2-135M, 1, 4, 32 and 128 rows: 27.6, 49.3,
# 66.9 and 195.9 ms by MKL, 12.2, 11.4, 25.0 and 79.4 ms by oneDNN. It fails where neither 4 nor 32 rows gain a third.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
grep -q AuthenticAMD /proc/cpuinfo || { echo "this needs a processor of AMD"; exit 1; }
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.4.6"
cat > "$folder/products.py" <<'PYTHON'
import statistics
import time

import torch

SHAPES = [(960, 576), (576, 576), (3072, 576), (576, 1536)]
torch.manual_seed(0)
weights = [torch.randn(shape) * 0.02 for _ in range(30) for shape in SHAPES]
packed = [torch.ops.mkldnn._reorder_linear_weight(weight, None) for weight in weights]


def by_mkl(inputs):
    return [torch.nn.functional.linear(inputs[weight.shape[1]], weight) for weight in weights]


def by_onednn(inputs):
    return [
        torch.ops.mkldnn._linear_pointwise(inputs[weight.shape[1]], own, None, "none", [], "")
        for weight, own in zip(weights, packed)
    ]


gains = {}
for rows in (4, 32):
    inputs = {size: torch.randn(rows, size) for size in (576, 1536)}
    for one, other in zip(by_mkl(inputs), by_onednn(inputs)):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    seen = {by_mkl: [], by_onednn: []}
    for _ in range(31):
        for way, times in seen.items():
            begun = time.perf_counter()
            way(inputs)
            times.append(time.perf_counter() - begun)
    mkl, onednn = (1000 * statistics.median(times) for times in seen.values())
    gains[rows] = mkl / onednn
    print(f"{rows} rows: MKL {mkl:.1f} ms, oneDNN {onednn:.1f} ms, {gains[rows]:.1f} times as fast")
assert max(gains.values()) > 1.5, "MKL is about as fast"
PYTHON
"$folder/venv/bin/python" "$folder/products.py"
