"""Greedy tokens of a GGUF file in llama.cpp beside those of its folder in transformers.

Run with llama-cpp-python and transformers: python3 llama_cpp_parity.py FOLDER FILE.gguf [TEXT ..]
"""

import sys

import llama_cpp
import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NUM_NEW = 32
TEXTS = ["1+1=?", "The fox", "小明今年12岁", "Once upon a time, in 1984,", "def main():\n    return 3.14"]


def main(folder, gguf, *texts):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    # The cache in f32 too: by default llama.cpp rounds keys and values to f16.
    model = llama_cpp.Llama(gguf, n_ctx=256, type_k=0, type_v=0, logits_all=True, verbose=False, flash_attn=False)
    failed = False
    for text in texts or TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        theirs = model.tokenize(text.encode(), add_bos=False, special=False)
        expected = ids + greedy(reference, ids)
        found, largest = list(ids), 0.0
        model.reset()
        model.eval(ids)
        for step in range(NUM_NEW):
            logits = numpy.array(model.scores[len(found) - 1])
            with torch.no_grad():
                exact = reference(torch.tensor([found])).logits[0, -1].numpy()
            largest = max(largest, float(abs(logits - exact).max()))
            found.append(int(logits.argmax()))
            model.eval(found[-1:])
        same_ids, same_tokens = theirs == ids, found == expected
        failed |= not (same_ids and same_tokens)
        print(f"{text!r}: {len(ids)} ids {'equal' if same_ids else f'differ: {theirs} {ids}'}, {NUM_NEW} greedy tokens "
              f"{'equal' if same_tokens else f'differ: {found} {expected}'}, largest difference of a logit {largest:.1e}")
    return failed


def greedy(model, ids):
    written = []
    for _ in range(NUM_NEW):
        with torch.no_grad():
            written.append(int(model(torch.tensor([ids + written])).logits[0, -1].argmax()))
    return written


sys.exit(main(*sys.argv[1:]))
