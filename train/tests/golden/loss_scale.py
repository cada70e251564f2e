"""Records how PyTorch's GradScaler moves its scale: loss_scale.json beside this file.

Run: python loss_scale.py > loss_scale.json   (recorded with torch 2.15.0, CPU)
"""

import json

import torch

# Runs of steps whose gradients are finite, or not.
RUNS = [
    (False, 3), (True, 1999), (True, 1), (True, 1999), (False, 1), (True, 1999), (False, 2), (True, 2000),
    (True, 4000), (False, 1), (True, 1), (False, 25), (True, 6000), (False, 1), (True, 280000), (False, 1), (True, 2001),
]

parameter = torch.nn.Parameter(torch.zeros(2))
optimizer = torch.optim.SGD([parameter], lr=0.0)
scaler = torch.amp.GradScaler("cpu")
scaler.scale(torch.ones(()))
rows, steps = [], 0
for is_finite, count in RUNS:
    for _ in range(count):
        spoiled = float("inf") if steps % 2 else float("nan")
        parameter.grad = torch.tensor([1.0, 1.0 if is_finite else spoiled])
        scaler.step(optimizer)
        scaler.update()
        steps += 1
    state = scaler.state_dict()
    rows.append([is_finite, count, state["scale"], state["_growth_tracker"]])

print('{"note": ' + json.dumps(f"torch {torch.__version__.split('+')[0]}") + ', "runs": [')
print(",\n".join(json.dumps(row) for row in rows))
print("]}")
