"""Scores some C-Eval subjects with EleutherAI's lm-eval and compares the letters with kindling's.

    kindling eval ceval --model MODEL --data CEVAL --style harness --subjects law,logic --out OUT
    pip install 'lm-eval[hf]'
    python3 lm_eval_parity.py MODEL CEVAL OUT

The task is lm-eval's own `ceval-valid` with its data read from the folder instead of the network.
"""

import csv
import json
import sys
import tempfile
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

COLUMNS = ["id", "question", "A", "B", "C", "D", "answer"]
model, ceval, out = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3])
header, *replies = [json.loads(line) for line in open(out / "answers.jsonl")]
assert header["style"] == "harness" and header["shots"] == 0, header
subjects = sorted({reply["subject"] for reply in replies})
tasks_dir = Path(lm_eval.__file__).parent / "tasks" / "ceval"

with tempfile.TemporaryDirectory() as folder:
    default = (tasks_dir / "_default_ceval_yaml").read_text()
    for subject in subjects:
        own = (tasks_dir / f"ceval-valid_{subject}.yaml").read_text()
        own = own.replace(f"ceval-valid_{subject}", f"local_{subject}")
        own = "\n".join(line for line in own.splitlines() if "dataset_name" not in line)
        (Path(folder) / f"{subject}.yaml").write_text(
            own.replace("_default_ceval_yaml", f"{subject}_default")
        )
        # The library wants the same columns in both splits, and only dev has explanations.
        data = {split: str(Path(folder) / f"{subject}_{split}.csv") for split in ("val", "dev")}
        for split, path in data.items():
            rows = csv.DictReader(open(ceval / split / f"{subject}_{split}.csv", newline=""))
            with open(path, "w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
        local = default.replace("dataset_path: ceval/ceval-exam", "dataset_path: csv")
        local += f"dataset_kwargs:\n  data_files: {json.dumps(data)}\n"
        (Path(folder) / f"{subject}_default").write_text(local)
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={model},dtype=float32,device=cpu",
        tasks=[f"local_{subject}" for subject in subjects],
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        batch_size=8,
        log_samples=True,
    )

num_same, largest, num_right = 0, 0.0, [0, 0]
for subject in subjects:
    samples = sorted(results["samples"][f"local_{subject}"], key=lambda sample: sample["doc_id"])
    ours = [reply for reply in replies if reply["subject"] == subject]
    assert len(samples) == len(ours), (subject, len(samples), len(ours))
    for sample, reply in zip(samples, ours):
        theirs = [float(response[0][0]) for response in sample["resps"]]
        logps = reply["letters"][0]
        largest = max(largest, *(abs(a - b) for a, b in zip(theirs, logps)))
        picks = theirs.index(max(theirs)), logps.index(max(logps))
        num_same += picks[0] == picks[1]
        num_right = [num_right[i] + (picks[i] == reply["answer"]) for i in range(2)]
print(f"lm-eval {lm_eval.__version__ if hasattr(lm_eval, '__version__') else ''}, {', '.join(subjects)}")
print(f"same letter: {num_same} of {len(replies)} questions")
print(f"right: lm-eval {num_right[0]}, kindling {num_right[1]}")
print(f"largest difference of a log-probability: {largest:.2e} nats")
