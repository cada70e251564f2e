"""Records what transformers' logits processors leave of seeded logits: sampling.json beside this file.

Run: python sampling.py > sampling.json   (recorded with torch 2.15.0 and transformers 5.23.0, f32, CPU)
"""

import json
import sys

import torch
import transformers
from transformers.generation import logits_process as lp

generator = torch.Generator().manual_seed(20250211)
VOCAB = 24
cases = []
for number in range(24):
    logits = torch.randn(1, VOCAB, generator=generator) * 3.0
    prompt = torch.randint(0, VOCAB, (1, 9), generator=generator)
    settings = {
        "repetition_penalty": [1.0, 1.3, 0.8][number % 3],
        "temperature": [0.7, 1.0, 1.6, 0.85][number % 4],
        "top_k": [0, 12, 5][(number // 2) % 3],
        "top_p": [1.0, 0.85, 0.6][(number // 3) % 3],
        "min_p": [0.0, 0.04][(number // 4) % 2],
    }
    processors = lp.LogitsProcessorList()
    if settings["repetition_penalty"] != 1.0:
        processors.append(lp.RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"]))
    processors.append(lp.TemperatureLogitsWarper(settings["temperature"]))
    if settings["top_k"]:
        processors.append(lp.TopKLogitsWarper(settings["top_k"]))
    if settings["top_p"] < 1.0:
        processors.append(lp.TopPLogitsWarper(settings["top_p"]))
    if settings["min_p"] > 0.0:
        processors.append(lp.MinPLogitsWarper(settings["min_p"]))
    scores = processors(prompt, logits.clone())
    probabilities = torch.softmax(scores[0].double(), dim=-1)
    kept = [
        [i, probabilities[i].item()] for i in range(VOCAB) if scores[0, i].item() != -float("inf")
    ]
    cases.append(
        {**settings, "prompt": prompt[0].tolist(), "logits": logits[0].tolist(), "kept": kept}
    )

note = f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
print('{"note": ' + json.dumps(note) + ', "cases": [')
print(",\n".join(json.dumps(case) for case in cases))
print("]}")
print(sum(len(case["kept"]) for case in cases), "tokens kept in all", file=sys.stderr)
