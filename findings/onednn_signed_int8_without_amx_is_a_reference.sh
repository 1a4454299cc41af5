#!/usr/bin/env bash
# torch 2.13.0 (oneDNN 3.12), x86-64 with AVX-512 VNNI. `torch.ops.onednn.qlinear_pointwise` takes inputs of int8 and of
# uint8. One would expect VNNI to serve both. Seen on Zen 5, without AMX (ONEDNN_MAX_CPU_ISA asks for the same on other
# processors): int8 inputs are computed by oneDNN's reference implementation, `ref_int8`, without a word. 16 rows through
# a layer of 576 x 1,728 took 150 ms on an AMD EPYC where uint8 inputs with a zero point of 128, which have exactly the
# same result, took 0.05 ms (`brg_matmul:avx512_core_vnni`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.4.6"
cat > "$folder/product.py" <<'PYTHON'
import sys

import torch

if not torch.cpu._is_vnni_supported():
    sys.exit("this needs a processor with VNNI")
torch.manual_seed(0)
weight = torch.randint(-127, 128, (1728, 576), dtype=torch.int8)
packed = torch.ops.onednn.qlinear_prepack(weight, None)
scales, zeros = torch.ones(1728), torch.zeros(1728, dtype=torch.int64)
signed = torch.randint(-127, 128, (16, 576))
zero = {"int8": 0, "uint8": 128}[sys.argv[1]]
given = (signed + zero).to(getattr(torch, sys.argv[1]))
found = torch.ops.onednn.qlinear_pointwise(
    given, 1.0, zero, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
)
assert torch.equal(found.long(), signed.long() @ weight.long().T), "the product is not exact"
PYTHON
implementation() {
  ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI ONEDNN_VERBOSE=1 "$folder/venv/bin/python" "$folder/product.py" "$1" |
    grep ",exec,cpu,matmul," | tail -n 1 | cut -d, -f7
}
signed=$(implementation int8)
unsigned=$(implementation uint8)
echo "int8 inputs: $signed; uint8 inputs: $unsigned"
[[ $signed == ref_int8* ]]
[[ $unsigned == brg_matmul* ]]
