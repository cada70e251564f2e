#!/usr/bin/env python3
"""PyTorch peer for the side-by-side training and decoding benchmarks.

The same decoder as a model folder's config.json describes (pre-norm, RMSNorm, RoPE, GQA, SwiGLU, tied head), written with the
fastest calls stock PyTorch offers: F.rms_norm, scaled_dot_product_attention, fused AdamW, autocast with its GradScaler, torch.compile.
Prints one JSON line per run.

    python3 torch_peer.py train  --config v1-26m.json --batch 4 --seq 512 --steps 8 --dtype f32|bf16|f16 [--compile]
    python3 torch_peer.py decode --config v1-26m.json --batch 1 --prompt 32 --new 128 --dtype f32|bf16|f16

Decoding is what a plain PyTorch user has: eager, with a growing cache. Needs: pip install torch numpy
"""
import argparse, json, resource, statistics, time
import torch
import torch.nn as nn
import torch.nn.functional as F


def shape_of(path):
    """The sizes that decide the cost, from a Hugging Face config.json."""
    with open(path) as file:
        c = json.load(file)
    first = lambda *names: next((c[name] for name in names if c.get(name)), 0)
    return dict(width=c["hidden_size"], layers=c["num_hidden_layers"], heads=c["num_attention_heads"],
                kv=c["num_key_value_heads"], head_dim=c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"],
                ffn=c["intermediate_size"], vocab=c["vocab_size"], qk_norm=c["model_type"].startswith("qwen3"),
                experts=first("num_experts", "moe_num_experts", "n_routed_experts"), top_k=first("num_experts_per_tok", "moe_k"),
                shared=first("moe_num_shared_experts", "n_shared_experts"), expert_ffn=c.get("moe_intermediate_size"))


def rope_table(length, head_dim, theta, device):
    freq = theta ** (-torch.arange(0, head_dim, 2, device=device).float() / head_dim)
    angle = torch.outer(torch.arange(length, device=device).float(), freq)
    return torch.cat([angle.cos(), angle.cos()], -1), torch.cat([angle.sin(), angle.sin()], -1)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Mlp(nn.Module):
    def __init__(self, width, ffn):
        super().__init__()
        self.gate, self.up = nn.Linear(width, ffn, bias=False), nn.Linear(width, ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Moe(nn.Module):
    """Tokens by expert, one dense call per expert: the usual eager formulation, without an auxiliary loss."""

    def __init__(self, c):
        super().__init__()
        self.top_k = c["top_k"]
        self.router = nn.Linear(c["width"], c["experts"], bias=False)
        self.experts = nn.ModuleList(Mlp(c["width"], c["expert_ffn"]) for _ in range(c["experts"]))
        self.shared = Mlp(c["width"], c["shared"] * c["expert_ffn"]) if c["shared"] else None

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        weight, index = self.router(flat).float().softmax(-1).topk(self.top_k, -1)
        weight = (weight / weight.sum(-1, keepdim=True)).to(flat.dtype)
        out = torch.zeros_like(flat)
        for e, expert in enumerate(self.experts):
            row, slot = (index == e).nonzero(as_tuple=True)
            out = out.index_add(0, row, (expert(flat[row]) * weight[row, slot, None]).to(out.dtype))
        if self.shared is not None:
            out = out + self.shared(flat)
        return out.view_as(x)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.h, self.kv, self.d = c["heads"], c["kv"], c["head_dim"]
        w = c["width"]
        self.n1, self.n2 = nn.RMSNorm(w, 1e-5), nn.RMSNorm(w, 1e-5)
        self.q, self.k = nn.Linear(w, self.h * self.d, bias=False), nn.Linear(w, self.kv * self.d, bias=False)
        self.v, self.o = nn.Linear(w, self.kv * self.d, bias=False), nn.Linear(self.h * self.d, w, bias=False)
        self.ffn = Moe(c) if c["experts"] else Mlp(w, c["ffn"])
        self.qn = nn.RMSNorm(self.d, 1e-6) if c["qk_norm"] else nn.Identity()
        self.kn = nn.RMSNorm(self.d, 1e-6) if c["qk_norm"] else nn.Identity()

    def forward(self, x, cos, sin, cache=None):
        b, t, _ = x.shape
        y = self.n1(x)
        q = rotate(self.qn(self.q(y).view(b, t, self.h, self.d)).transpose(1, 2), cos, sin)
        k = rotate(self.kn(self.k(y).view(b, t, self.kv, self.d)).transpose(1, 2), cos, sin)
        v = self.v(y).view(b, t, self.kv, self.d).transpose(1, 2)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        a = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), is_causal=t > 1, enable_gqa=True)
        x = x + self.o(a.transpose(1, 2).reshape(b, t, -1))
        return x + self.ffn(self.n2(x))


class Decoder(nn.Module):
    def __init__(self, c, device):
        super().__init__()
        self.c, self.device = c, device
        self.embed = nn.Embedding(c["vocab"], c["width"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = nn.RMSNorm(c["width"], 1e-5)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, 0, 0.02)
        self.cos, self.sin = rope_table(4096, c["head_dim"], 1e4, device)

    def forward(self, ids, start=0, caches=None):
        cos, sin = self.cos[start : start + ids.shape[1]], self.sin[start : start + ids.shape[1]]
        x = self.embed(ids)
        for i, block in enumerate(self.blocks):
            x = block(x, cos, sin, None if caches is None else caches[i])
        return self.norm(x) @ self.embed.weight.to(x.dtype).T


def peak_mib(device):
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("what", choices=["train", "decode"])
    ap.add_argument("--config", required=True)
    ap.add_argument("--batch", type=int, default=4)
    ap.add_argument("--seq", type=int, default=512)
    ap.add_argument("--steps", type=int, default=8)
    ap.add_argument("--prompt", type=int, default=32)
    ap.add_argument("--new", type=int, default=128)
    ap.add_argument("--dtype", default="f32", choices=["f32", "bf16", "f16"])
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--device", default="cpu")
    ap.add_argument("--threads", type=int, default=0)
    a = ap.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    c = shape_of(a.config)
    model = Decoder(c, a.device).to(a.device)
    sync = torch.cuda.synchronize if a.device == "cuda" else (lambda: None)
    half = torch.float16 if a.dtype == "f16" else torch.bfloat16
    amp = lambda: torch.autocast(a.device, half, enabled=a.dtype != "f32")
    params = sum(p.numel() for p in model.parameters())
    if a.what == "train":
        opt = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
        scaler = torch.amp.GradScaler(a.device, enabled=a.dtype == "f16")
        run = torch.compile(model) if a.compile else model
        times = []
        for _ in range(a.steps):
            ids = torch.randint(0, c["vocab"], (a.batch, a.seq + 1), device=a.device)
            sync(); t = time.perf_counter()
            with amp():
                logits = run(ids[:, :-1])
            loss = F.cross_entropy(logits.float().view(-1, c["vocab"]), ids[:, 1:].reshape(-1))
            scaler.scale(loss).backward()
            scaler.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(opt); scaler.update(); opt.zero_grad(set_to_none=True)
            sync(); times.append(time.perf_counter() - t)
        best, median = min(times), statistics.median(times[len(times) // 2 :])
        tokens = a.batch * a.seq
        out = dict(tok_s_median=tokens / median, tok_s_best=tokens / best)
    else:
        model.eval()
        with torch.inference_mode(), amp():
            times, prefills = [], []
            for _ in range(3):
                ids = torch.randint(0, c["vocab"], (a.batch, a.prompt), device=a.device)
                caches = [[] for _ in model.blocks]
                sync(); t = time.perf_counter()
                nxt = model(ids, 0, caches)[:, -1].argmax(-1, keepdim=True)
                sync(); prefills.append(time.perf_counter() - t)
                t = time.perf_counter()
                for step in range(a.new):
                    nxt = model(nxt, a.prompt + step, caches)[:, -1].argmax(-1, keepdim=True)
                sync(); times.append(time.perf_counter() - t)
        out = dict(tok_s_best=a.batch * a.new / min(times), tok_s_median=a.batch * a.new / statistics.median(times),
                   prefill_tok_s=a.batch * a.prompt / statistics.median(prefills))
    kind = a.dtype + (" compiled" if a.compile else "")
    print(json.dumps(dict(peer=f"PyTorch {torch.__version__} {kind}", what=a.what, params=params, batch=a.batch,
                          seq=a.seq, dtype=a.dtype, compile=a.compile, device=a.device,
                          threads=torch.get_num_threads(), peak_mib=peak_mib(a.device), **out)))


if __name__ == "__main__":
    main()
