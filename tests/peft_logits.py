#!/usr/bin/env python3
"""Compares logits of transformers, with or without an adapter in peft, with those that edgepipe dumped.

    python peft_logits.py MODEL_DIR ADAPTER_DIR|- BATCHES.safetensors DUMP.safetensors [MOST]

BATCHES holds input_ids, of which the first sequences are the dump's. Ends with 1 where any two logits are further
apart than MOST (1e-4); with 77 where Python lacks torch, transformers, peft or safetensors.
"""
import sys

try:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

model, adapter, batches, dump = sys.argv[1:5]
most = float(sys.argv[5]) if len(sys.argv) > 5 else 1e-4
want = load_file(dump)["logits"]
ids = load_file(batches)["input_ids"].long()
ids = ids.reshape(-1, ids.shape[-1])[: want.shape[0]]
network, seen = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
wrong = [f"{kind}: {seen[kind]}" for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if seen[kind]]
if adapter != "-":
    network = PeftModel.from_pretrained(network, adapter)
    if not network.peft_config["default"].inference_mode:
        wrong.append("inference_mode is not true")
with torch.no_grad():
    logits = network.eval()(ids).logits
apart = (logits - want).abs().max().item()
base = apart
if adapter != "-":
    with torch.no_grad(), network.disable_adapter():
        base = (network(ids).logits - want).abs().max().item()
print(f"{model}: logits at most {apart:.3g} apart (without the adapter {base:.3g})")
if adapter != "-" and not base > most:
    wrong.append("the adapter makes no difference, so that this proves nothing")
if not apart <= most:
    wrong.append(f"further apart than {most:g}")
for line in wrong:
    print(f"FAILED {line}")
sys.exit(bool(wrong))
