#!/usr/bin/env python3
"""Makes the golden cases beside this file: what PyTorch, transformers and PEFT compute.

    python make_golden.py [CASE ...]
    python make_golden.py --generated [CASE ...]        # generated.safetensors alone, from the files

A case is a tiny random model of one family, with the features that are easy to get wrong, a PEFT adapter whose B is
not zero, and a few steps of LoRA fine-tuning. Needs torch, transformers, peft, safetensors; runs in seconds. Per case:

    model/                 config.json and model.safetensors
    initial/               the PEFT adapter that training goes on from
    batches.safetensors    input_ids, labels (steps, B, T)
    answers.safetensors    of step 1: logits, hidden_states, loss, and the gradient of every adapter tensor before
                           clipping, under PEFT's names; losses and grad_norms of all steps; final.NAME of every
                           adapter tensor after the last step

Training: AdamW, learning rate 1e-2 linear with 2 warm-up steps, weight decay 0.1, clip 1.0; loss = sum over all
trained tokens of the batch / their number.
"""
import math
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig,
                          MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

HERE = Path(__file__).resolve().parent
STEPS, B, T, WARMUP, RATE, DECAY = 4, 4, 12, 2, 1e-2, 0.1
SMALL = dict(vocab_size=37, hidden_size=24, intermediate_size=40, num_hidden_layers=5, num_attention_heads=4,
             max_position_embeddings=32)

CASES = {
    # tanh GELU, tied head, heads of size 5, LoRA on every linear (fused c_attn, Conv1D)
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=41, n_positions=16, n_embd=20, n_layer=5, n_head=4,
                                         layer_norm_epsilon=1e-4), ["c_attn", "c_proj", "c_fc"], False),
    # exact GELU, untied head, an inner width of its own, LoRA on attention alone
    "gpt2-exact": (GPT2LMHeadModel, GPT2Config(vocab_size=41, n_positions=12, n_embd=24, n_layer=5, n_head=3, n_inner=56,
                                               activation_function="gelu", tie_word_embeddings=False),
                   ["c_attn"], False),
    # one KV head, biases everywhere, linear rotary scaling
    "llama": (LlamaForCausalLM, LlamaConfig(**SMALL, num_key_value_heads=1, attention_bias=True, mlp_bias=True,
                                            rms_norm_eps=1e-5, tie_word_embeddings=False,
                                            rope_parameters={"rope_type": "linear", "factor": 4.0,
                                                             "rope_theta": 10000.0}),
              ["q_proj", "v_proj"], False),
    # llama3 rotary scaling, a head size that is not width / heads, tied head, rsLoRA
    "llama3": (LlamaForCausalLM, LlamaConfig(**SMALL, num_key_value_heads=2, head_dim=10, tie_word_embeddings=True,
                                             rope_parameters={"rope_type": "llama3", "factor": 8.0,
                                                              "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                              "original_max_position_embeddings": 8,
                                                              "rope_theta": 500.0}),
               ["q_proj", "k_proj", "v_proj", "o_proj"], True),
    # a sliding window shorter than the sequence
    "mistral": (MistralForCausalLM, MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=5, rms_norm_eps=1e-6),
                ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"], False),
    # bias on q, k, v; a sliding window on the upper layers only; tied head
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SMALL, num_key_value_heads=2, use_sliding_window=True, sliding_window=4,
                                            max_window_layers=2, tie_word_embeddings=True),
              ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], False),
    # norms on queries and keys, wide heads
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=14),
              ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"], False),
    # sequences of several blocks of attention and of the loss; a sliding block before full ones; stored as BF16 shards
    "qwen3-long": (Qwen3ForCausalLM, Qwen3Config(vocab_size=23, hidden_size=12, intermediate_size=20, num_hidden_layers=5,
                                                 num_attention_heads=2, num_key_value_heads=1, head_dim=6,
                                                 max_position_embeddings=300, use_sliding_window=True, sliding_window=5,
                                                 layer_types=[f"{kind}_attention" for kind in
                                                              ("sliding", "full", "sliding", "full", "full")]),
                   ["q_proj", "k_proj", "v_proj"], False),
    # ranks and alphas of single modules, some blocks without adapters
    "qwen2-pattern": (Qwen2ForCausalLM, Qwen2Config(**SMALL, num_key_value_heads=2),
                      ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"], False),
    "gpt2-pattern": (GPT2LMHeadModel, GPT2Config(vocab_size=41, n_positions=16, n_embd=20, n_layer=5, n_head=4),
                     ["c_attn", "c_proj", "c_fc"], False),
}
# What LoraConfig is told besides.
ADAPTERS = {
    "qwen2-pattern": dict(layers_to_transform=[0, 2, 3, 4], layers_pattern="layers",
                          rank_pattern={"q_proj": 3, "layers.2.self_attn.v_proj": 6, r"^model\.layers\.[03]\.mlp.*": 1},
                          alpha_pattern={"k_proj": 5, r"(o|down)_proj": 1.5}),
    "gpt2-pattern": dict(layers_to_transform=[1, 3],
                         rank_pattern={"attn.c_proj": 7, r"h\.3\.mlp\.(c_fc|c_proj)": 2},
                         alpha_pattern={"1.attn.c_attn": 11, "c_attn": 3}),
}
LENGTHS = {"qwen3-long": 272}
STORED = {"qwen3-long": dict(dtype=torch.bfloat16, max_shard_size="6KB")}


def rng(*names):
    """A generator of its own for every named thing, so that adding one changes no other."""
    return np.random.default_rng([zlib.crc32(str(n).encode()) for n in names])


def fill(model, case):
    """Random weights of a scale at which every part of the model matters."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            x = rng(case, name).standard_normal(tuple(p.shape))
            if p.dim() == 1:
                x = 0.2 * x + (0 if name.endswith("bias") else 1)
            else:
                x = 1.5 / math.sqrt(p.shape[1 if "embed" in name or "wte" in name else 0]) * x
            p.copy_(torch.from_numpy(x))


def store(model, folder, dtype=torch.float32, **how):
    """Writes the weights as dtype and leaves the same numbers in the model, widened."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(dtype))
    model.save_pretrained(folder, state_dict={n: t.to(dtype) for n, t in model.state_dict().items()}, **how)


def batches(case, vocabulary):
    """Random tokens; each row starts with some untrained labels, and one row of every second batch has none at all."""
    g = rng(case, "batches")
    length = LENGTHS.get(case, T)
    ids = g.integers(0, vocabulary, (STEPS, B, length))
    labels = ids.copy()
    for s in range(STEPS):
        for r in range(B):
            labels[s, r, : g.integers(0, length - 2)] = -100
        if s % 2:
            labels[s, g.integers(B)] = -100
    return torch.from_numpy(ids), torch.from_numpy(labels)


def adapt(model, case, targets, rslora):
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_rslora=rslora, task_type="CAUSAL_LM",
                        fan_in_fan_out=model.config.model_type == "gpt2", **ADAPTERS.get(case, {}))
    model = get_peft_model(model, config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.from_numpy(rng(case, name).standard_normal(tuple(p.shape)) * 0.1))
    return model


def adapters(model):
    """PEFT's parameters under the names that its files use."""
    return {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}


def loss_of(logits, labels):
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100)


def first_step(model, ids, labels):
    """Everything of the first step; hidden states before the final norm, which transformers applies to the last one."""
    kept = []
    blocks = model.base_model.model.transformer.h if hasattr(model.base_model.model, "transformer") else \
        model.base_model.model.model.layers
    hooks = [blocks[0].register_forward_pre_hook(lambda m, a, k: kept.append(a[0] if a else k["hidden_states"]),
                                                 with_kwargs=True)]
    hooks += [b.register_forward_hook(lambda m, a, o: kept.append(o[0] if isinstance(o, tuple) else o)) for b in blocks]
    model.zero_grad()
    logits = model(input_ids=ids[0]).logits
    for h in hooks:
        h.remove()
    loss = loss_of(logits, labels[0])
    loss.backward()
    answers = {n: p.grad.clone() for n, p in adapters(model).items()}
    answers |= {"logits": logits.detach(), "hidden_states": torch.stack([k.detach() for k in kept]),
                "loss": loss.detach().reshape(1)}
    return answers


def steps(model, ids, labels):
    parameters = adapters(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=DECAY)
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (step / WARMUP if step < WARMUP else (STEPS - step) / (STEPS - WARMUP))
        optimizer.zero_grad()
        loss = loss_of(model(input_ids=ids[step]).logits, labels[step])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0).item())
        losses.append(loss.item())
        optimizer.step()
    return {"losses": torch.tensor(losses), "grad_norms": torch.tensor(norms)} | \
        {"final." + n: p.detach().clone() for n, p in parameters.items()}


def make(case):
    kind, config, targets, rslora = CASES[case]
    folder = HERE / case
    shutil.rmtree(folder, ignore_errors=True)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = kind(config).eval()
    fill(model, case)
    store(model, folder / "model", **STORED.get(case, {}))
    (folder / "model" / "generation_config.json").unlink(missing_ok=True)
    ids, labels = batches(case, config.vocab_size)
    save_file({"input_ids": ids.int(), "labels": labels.int()}, folder / "batches.safetensors")
    model = adapt(model, case, targets, rslora)
    model.save_pretrained(folder / "initial")
    (folder / "initial" / "README.md").unlink(missing_ok=True)
    answers = first_step(model, ids, labels) | steps(model, ids, labels)
    save_file({n: t.contiguous() for n, t in answers.items()}, folder / "answers.safetensors")
    print(case, answers["losses"].tolist(), answers["grad_norms"].tolist())


def generate(case):
    """From the files, as a user would."""
    folder = HERE / case
    kind = CASES[case][0]
    model = kind.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(model, folder / "initial").eval()
    length = min(getattr(model.config, "max_position_embeddings", 0) or model.config.n_positions, 64)
    prompt = load_file(folder / "batches.safetensors")["input_ids"].reshape(-1, LENGTHS.get(case, T))[:1, :5].long()
    how = dict(max_new_tokens=length - 5, do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(prompt))
    made = {"prompt": prompt, "greedy": model.generate(prompt, **how)[:, 5:],
            "penalised": model.generate(prompt, repetition_penalty=1.3, **how)[:, 5:]}
    save_file({n: t[0].int().contiguous() for n, t in made.items()}, folder / "generated.safetensors")
    print(case, {n: t[0].tolist() for n, t in made.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    alone = sys.argv[1:2] == ["--generated"]
    for name in sys.argv[1 + alone:] or CASES:
        if not alone:
            make(name)
        generate(name)
