#!/usr/bin/env python3
"""llama.cpp peer for the side-by-side decoding benchmark: the same sizes as a GGUF file, through llama-cpp-python.

    python3 llama_cpp_peer.py --model FILE.gguf --type f32 --batch 1 --prompt 32 --new 128

Prints one JSON line. Needs: pip install llama-cpp-python
"""
import argparse, json, os, resource, statistics, time
import numpy as np
from llama_cpp import Llama


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--type", required=True, help="what the file's numbers are, for the table")
    ap.add_argument("--batch", type=int, default=1)
    ap.add_argument("--prompt", type=int, default=32)
    ap.add_argument("--new", type=int, default=128)
    a = ap.parse_args()
    if a.batch != 1:
        raise SystemExit("--batch: llama-cpp-python decodes one row, expected 1")
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    llama = Llama(a.model, n_ctx=a.prompt + a.new, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    rng = np.random.default_rng(0)
    decodes, prefills = [], []
    for _ in range(3):
        llama.reset()
        ids = rng.integers(0, llama.n_vocab(), a.prompt).tolist()
        t = time.perf_counter()
        llama.eval(ids)
        token = llama.sample(temp=0.0)
        prefills.append(a.prompt / (time.perf_counter() - t))
        t = time.perf_counter()
        for _ in range(a.new - 1):
            llama.eval([token])
            token = llama.sample(temp=0.0)
        decodes.append((a.new - 1) / (time.perf_counter() - t))
    print(json.dumps(dict(peer=f"llama.cpp {a.type}", params=0, dtype=a.type, tok_s_median=statistics.median(decodes),
                          tok_s_best=max(decodes), prefill_tok_s=statistics.median(prefills), threads=threads,
                          peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)))


if __name__ == "__main__":
    main()
