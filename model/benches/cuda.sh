#!/usr/bin/env bash
# Everything that is to be measured on a machine with an NVIDIA card, in one command:
#
#     model/benches/cuda.sh [PYTHON] [FOLDER]
#
# PYTHON has torch (python3), FOLDER takes the report (out/cuda). Each measurement runs ours and PyTorch in turn. The ten
# minutes of training at the end want the tokenizer and the corpora of configs/1-pretrain.real-26m.toml.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
folder=${2:-out/cuda}
mkdir -p "$folder"
exec > >(tee "$folder/report.txt") 2>&1

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
"$python" -c 'import torch; print("PyTorch", torch.__version__, "CUDA", torch.version.cuda)'
cargo build --release --features cuda
kindling=target/release/kindling

for model in v1-26m v1-108m v1-26m-moe; do
    shape=(--config "configs/model/$model.json" --device cuda:0 --rounds 2 --vs-torch "$python")
    echo "== $model: training, rows of 512 tokens, bf16"
    "$kindling" bench train "${shape[@]}" --precision bf16 --batch 32 --steps 30 --torch-kinds bf16-compile
    echo "== $model: 256 rows decoded together"
    "$kindling" bench decode "${shape[@]}" --batch 256 --prompt 32 --new 64
done

echo "== where a training step's time goes"
if command -v nsys > /dev/null; then
    nsys profile --force-overwrite true --stats true --output "$folder/train" \
        "$kindling" bench train --device cuda:0 --precision bf16 --batch 32 --steps 10
else
    echo "skipped: nsys is not there"
fi

echo "== ten minutes of training on real text"
if [ -e out/0-tokenizer.real/tokenizer.json ]; then
    "$kindling" pretrain --config configs/1-pretrain.real-26m.toml --device cuda:0 --out "$folder/real-26m" --overwrite \
        --set train.length="10 minutes" --set train.precision=bf16 --set train.micro_batch_size=32 \
        --set train.grad_accumulation_steps=1 --set schedule.warmup_steps=0 --set schedule.warmup_ratio=0.02
    grep '"kind":"sample"' "$folder/real-26m/metrics.jsonl" | tail -n 4
else
    echo "skipped: out/0-tokenizer.real is not there (kindling tokenizer --config configs/0-tokenizer.real.toml)"
fi
