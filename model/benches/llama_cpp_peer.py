#!/usr/bin/env python3
"""llama.cpp peer for the side-by-side decoding benchmark: the same weights as a GGUF file, through llama-cpp-python.

    python3 llama_cpp_peer.py --model HF_FOLDER --batch 1 --prompt 32 --new 128 [--type f32|f16|q8_0]

Prints one JSON line. Needs: pip install llama-cpp-python gguf safetensors numpy
"""
import argparse, json, os, resource, statistics, tempfile, time
import gguf
import numpy as np
from llama_cpp import Llama
from safetensors.numpy import load_file

TYPES = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
         "q8_0": gguf.GGMLQuantizationType.Q8_0}
LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}


def gguf_name(name):
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER[rest.removesuffix('.weight')]}.weight"


def interleaved(weight, heads):
    """Rows of a rotate-half projection in the order of llama.cpp's adjacent pairs."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(folder, path, kind):
    c = json.load(open(os.path.join(folder, "config.json")))
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_dimension_count(c["hidden_size"] // heads)
    w.add_vocab_size(c["vocab_size"])
    w.add_tokenizer_model("no_vocab")
    for name, tensor in load_file(os.path.join(folder, "model.safetensors")).items():
        tensor = tensor.astype(np.float32)
        if "q_proj" in name or "k_proj" in name:
            tensor = interleaved(tensor, heads if "q_proj" in name else kv)
        type_ = TYPES[kind] if tensor.ndim == 2 else TYPES["f32"]
        w.add_tensor(gguf_name(name), gguf.quants.quantize(tensor, type_), raw_dtype=type_)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return c


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--batch", type=int, default=1)
    ap.add_argument("--prompt", type=int, default=32)
    ap.add_argument("--new", type=int, default=128)
    ap.add_argument("--type", default="f32", choices=TYPES)
    a = ap.parse_args()
    if a.batch != 1:
        raise SystemExit("--batch: llama-cpp-python decodes one row, expected 1")
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gguf")
        c = write_gguf(a.model, path, a.type)
        llama = Llama(path, n_ctx=a.prompt + a.new, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False)
        rng = np.random.default_rng(0)
        decodes, prefills = [], []
        for _ in range(3):
            llama.reset()
            ids = rng.integers(0, c["vocab_size"], a.prompt).tolist()
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
