#!/usr/bin/env python3
"""Records `hf_ernie_moe` and `hf_glm4_moe`: folders of transformers with logits and greedy ids.

    python3 experts.py    (torch 2.x, transformers 5; f32, one thread)

The biases on the scores are drawn, since transformers starts them at zero and they would show
nothing; so are the router weights, wide enough that no choice is a near tie.
"""
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM, Glm4MoeConfig, Glm4MoeForCausalLM

HERE = Path(__file__).parent
COMMON = dict(vocab_size=160, hidden_size=64, intermediate_size=128, moe_intermediate_size=48, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
              pad_token_id=0)
MODELS = {
    "hf_ernie_moe": lambda: Ernie4_5_MoeForCausalLM(Ernie4_5_MoeConfig(
        moe_num_experts=4, moe_k=2, moe_num_shared_experts=2, moe_layer_start_index=1, **COMMON)),
    "hf_glm4_moe": lambda: Glm4MoeForCausalLM(Glm4MoeConfig(
        n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1, head_dim=16,
        partial_rotary_factor=1.0, tie_word_embeddings=True, **COMMON)),
}

torch.set_num_threads(1)
for name, build in MODELS.items():
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for path, param in list(model.named_parameters()) + list(model.named_buffers()):
            if path.endswith("mlp.gate.weight"):
                param.normal_(0, 0.3)
            elif path.endswith("e_score_correction_bias"):
                param.uniform_(-0.2, 0.2)
            elif "norm" not in path and "inv_freq" not in path:
                param.normal_(0, 0.08)
        ids = torch.randint(3, 160, (2, 20))
        logits = model(ids).logits
        greedy = ids[:1, :8]
        while greedy.shape[1] < 20:
            greedy = torch.cat([greedy, model(greedy).logits[:, -1:].argmax(-1)], 1)
    folder = HERE / name
    model.save_pretrained(folder)
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    save_file({"input_ids": ids, "logits": logits.contiguous()}, folder / "expected.safetensors")
    import transformers
    (folder / "expected.json").write_text(json.dumps({"transformers": transformers.__version__, "greedy": greedy[0].tolist()}))
