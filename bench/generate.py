#!/usr/bin/env python3
"""How fast transformers generates, greedily, and how fast memory is copied; see generate.sh.

    python bench/generate.py MODEL fp32|bf16 BATCH TOKENS     # tokens/s after the first of every prompt
    python bench/generate.py copy                             # bytes/s, read and written
"""
import sys
import time

import torch


def best(run, rounds):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def copy():
    a = torch.ones(1 << 28)
    b = torch.empty_like(a)
    b.copy_(a)
    return 2 * a.numel() * 4 / best(lambda: b.copy_(a), 5)


def generate(folder, precision, batch, tokens):
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    ids = torch.tensor([[(37 * i + 11 * k) % 5000 for k in range(32)] for i in range(batch)])
    mask = torch.ones_like(ids)

    def run(count):
        model.generate(ids, attention_mask=mask, do_sample=False, min_new_tokens=count, max_new_tokens=count, pad_token_id=0)

    with torch.inference_mode():
        run(4)
        first = best(lambda: run(1), 2)
        return batch * (tokens - 1) / (best(lambda: run(tokens), 1) - first)


if sys.argv[1] == "copy":
    print(copy())
else:
    print(generate(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
