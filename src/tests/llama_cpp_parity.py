"""GGUF files in llama.cpp beside the folder they were made of in transformers: ids, chat prompt, logits, greedy tokens.

A file in f32 must agree; of one with fewer bits it is printed how far it does.
Run with llama-cpp-python and transformers: python3 llama_cpp_parity.py FOLDER FILE.gguf ..
"""

import sys

import llama_cpp
import numpy
import torch
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from transformers import AutoModelForCausalLM, AutoTokenizer

NUM_NEW = 32
TEXTS = ["1+1=?", "The fox", "小明今年12岁", "Once upon a time, in 1984,", "def main():\n    return 3.14"]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "12加30等于几?"},
        {"role": "assistant", "content": "42"}, {"role": "user", "content": "Who are you?"}]


def main(folder, *files):
    # Threads that wait for each other wait long on a busy machine.
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = [greedy(reference, ids) for ids in prompts]
    failed = False
    for file in files:
        # The cache in f32 too: by default llama.cpp rounds keys and values to f16.
        model = llama_cpp.Llama(file, n_ctx=256, n_batch=256, n_threads=1, n_threads_batch=1, type_k=0, type_v=0,
                                logits_all=True, flash_attn=False, verbose=False)
        same_ids = [model.tokenize(text.encode(), add_bos=False, special=False) for text in TEXTS] == prompts
        same_tokens, largest = 0, 0.0
        for ids, (tokens, logits) in zip(prompts, expected):
            found = [token for token, _ in zip(model.generate(ids, temp=0.0), range(NUM_NEW))]
            same_tokens += sum(a == b for a, b in zip(found, tokens))
            model.reset()
            model.eval(ids + tokens)
            largest = max(largest, float(abs(numpy.array(model.scores[:len(logits)]) - logits).max()))
        same_chat = chat_ids(model) == theirs_chat_ids(tokenizer)
        num_tokens = NUM_NEW * len(TEXTS)
        print(f"{file}: ids {'equal' if same_ids else 'differ'}, chat prompt {'equal' if same_chat else 'differs'}, "
              f"{same_tokens} of {num_tokens} greedy tokens equal, largest difference of a logit {largest:.1e}", flush=True)
        is_f32 = model.metadata["general.file_type"] == "0"
        failed |= not (same_ids and same_chat) or is_f32 and same_tokens < num_tokens
    return failed


def greedy(model, ids):
    """The likeliest tokens after a prompt, end tokens like any other, and the logits of all of it."""
    tokens = []
    with torch.no_grad():
        past = None
        for _ in range(NUM_NEW):
            out = model(torch.tensor([tokens[-1:] or ids]), past_key_values=past, use_cache=True)
            past = out.past_key_values
            tokens.append(int(out.logits[0, -1].argmax()))
        return tokens, model(torch.tensor([ids + tokens])).logits[0].numpy()


def chat_ids(model):
    template = model.metadata.get("tokenizer.chat_template")
    if template is None:
        return None
    token = lambda kind: model._model.token_get_text(int(model.metadata[f"tokenizer.ggml.{kind}_token_id"]))
    prompt = Jinja2ChatFormatter(template=template, eos_token=token("eos"), bos_token=token("bos"))(messages=CHAT).prompt
    return model.tokenize(prompt.encode(), add_bos=False, special=True)


def theirs_chat_ids(tokenizer):
    if tokenizer.chat_template is None:
        return None
    return list(tokenizer.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"])


sys.exit(main(*sys.argv[1:]))
