"""Records PyTorch files with the names of three programs, and the same weights as model folders.

Run with torch 2.15 and safetensors: python3 pth.py
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).parent / "pth"
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WIDE, VOCAB = 8, 2, 1, 4, 16, 24
V1_HIDDEN, V1_HEADS = 32, 16
TIED = {"output.weight": "tok_embeddings.weight", "lm_head.weight": "model.embed_tokens.weight"}


def draw(*shape):
    return torch.randn(*shape) * 0.3


def network(prefix, names, hidden):
    gate, down, up = names
    return {
        f"{prefix}.{gate}.weight": draw(WIDE, hidden),
        f"{prefix}.{down}.weight": draw(hidden, WIDE),
        f"{prefix}.{up}.weight": draw(WIDE, hidden),
    }


def record(name, tensors, config, dtype, prefix="", more=None):
    """`prefix` stands before every name in the .pth, `more` is only there."""
    halves = {key: value.to(dtype) for key, value in tensors.items()}
    state = {prefix + key: value for key, value in {**halves, **(more or {})}.items()}
    for head, embedding in TIED.items():
        if prefix + head in state:
            state[prefix + head] = state[prefix + embedding]
    torch.save(state, OUT / f"{name}.pth")
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    wide = {key: value.float() for key, value in halves.items() if key not in TIED}
    save_file(wide, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def v1():
    dim = V1_HIDDEN
    tensors = {"tok_embeddings.weight": draw(VOCAB, dim), "norm.weight": draw(dim), "output.weight": draw(1)}
    block = "layers.0"
    for name, rows in (("wq", dim), ("wk", dim // 2), ("wv", dim // 2), ("wo", dim)):
        tensors[f"{block}.attention.{name}.weight"] = draw(rows, dim)
    tensors[f"{block}.attention_norm.weight"] = draw(dim)
    tensors[f"{block}.ffn_norm.weight"] = draw(dim)
    tensors[f"{block}.feed_forward.gate.weight"] = draw(2, dim)
    for expert in ("experts.0", "experts.1", "shared_experts"):
        tensors.update(network(f"{block}.feed_forward.{expert}", ("w1", "w2", "w3"), dim))
    config = {
        "dim": dim, "n_layers": 1, "n_heads": V1_HEADS, "n_kv_heads": 8, "vocab_size": VOCAB,
        "hidden_dim": WIDE, "norm_eps": 1e-5, "max_seq_len": 512, "use_moe": True,
        "num_experts_per_tok": 2, "n_routed_experts": 2,
    }
    mask = {f"{block}.attention.mask": torch.zeros(1, 1, 4, 4)}
    record("v1", tensors, config, torch.float32, "_orig_mod.", mask)


def hugging_face(name, dtype, attention, norms, config):
    tensors = {
        "model.embed_tokens.weight": draw(VOCAB, HIDDEN),
        "model.norm.weight": draw(HIDDEN),
        "lm_head.weight": draw(1),
    }
    block = "model.layers.0"
    widths = {"q_proj": HEADS * HEAD_DIM, "k_proj": KV_HEADS * HEAD_DIM, "v_proj": KV_HEADS * HEAD_DIM}
    for projection, rows in widths.items():
        tensors[f"{block}.self_attn.{projection}.weight"] = draw(rows, HIDDEN)
    tensors[f"{block}.self_attn.o_proj.weight"] = draw(HIDDEN, HEADS * HEAD_DIM)
    for norm in norms:
        tensors[f"{block}.self_attn.{norm}.weight"] = draw(HEAD_DIM)
    for norm in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"{block}.{norm}.weight"] = draw(HIDDEN)
    tensors.update(network(f"{block}.mlp", ("gate_proj", "down_proj", "up_proj"), HIDDEN))
    shape = {
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": WIDE, "num_hidden_layers": 1,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "max_position_embeddings": 32768, "rope_theta": 1e6, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }
    record(name, tensors, {**shape, **config}, dtype)
    if attention != "self_attn":
        path = OUT / f"{name}.pth"
        state = torch.load(path, weights_only=True)
        torch.save({key.replace("self_attn", attention): value for key, value in state.items()}, path)


torch.manual_seed(20)
OUT.mkdir(exist_ok=True)
v1()
hugging_face("head", torch.bfloat16, "self_attn", ("q_norm", "k_norm"),
             {"model_type": "qwen3", "rms_norm_eps": 1e-6})
hugging_face("third", torch.float16, "self_attention", (), {"model_type": "llama", "rms_norm_eps": 1e-5})
