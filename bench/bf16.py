#!/usr/bin/env python3
"""LoRA gradients of one step in bf16 beside fp32, and beside double precision as PyTorch has it.

    python3 bench/bf16.py FP32.safetensors BF16.safetensors
    python bench/bf16.py FP32.safetensors BF16.safetensors --model DIR --adapter DIR --batch FILE

The files are what `edgepipe train --dump` writes of the first step. With a model, the adapter that the step went on from,
and its batch (input_ids, one step), the same gradients are computed by transformers and PEFT in double precision and with
base weights and activations in bf16 (adapters in fp32, as PEFT keeps them): errors are the norm of the difference over the
norm of the double gradient. The first needs Python's own library alone.
"""
import argparse
import array
import json
import math
import pathlib
import struct
import sys


def read(path):
    """name: (shape, numbers) of every F32 or I32 tensor of a safetensors file."""
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name != "__metadata__" and entry["dtype"] in ("F32", "I32"):
            first, last = (8 + size + x for x in entry["data_offsets"])
            kind = "f" if entry["dtype"] == "F32" else "i"
            tensors[name] = (entry["shape"], array.array(kind, data[first:last]))
    return tensors


def gradients(path):
    return {name: list(numbers) for name, (_, numbers) in read(path).items() if "lora_" in name}


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b))


def cosine(a, b):
    scale = math.sqrt(dot(a, a) * dot(b, b))
    return dot(a, b) / scale if scale else float(a == b)


def joined(tensors):
    return [x for name in sorted(tensors) for x in tensors[name]]


def error(of, right):
    """Norm of the difference over the norm, of all tensors together."""
    a, b = joined(of), joined(right)
    return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b)) / dot(b, b))


def worst_error(of, right):
    return max((error({n: of[n]}, {n: right[n]}), n) for n in right if dot(right[n], right[n]))


def peer(args, kind):
    """Gradients by transformers and PEFT: kind "float64" or "bfloat16" of the base; before clipping, by our names."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    shape, ids = read(args.batch)["input_ids"]
    ids = torch.tensor(ids.tolist()).reshape(shape)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, kind), attn_implementation="sdpa")
    model = PeftModel.from_pretrained(base, args.adapter, is_trainable=True)
    if kind == "float64":
        model = model.double()
    model.eval()  # no dropout; gradients all the same
    model(input_ids=ids, labels=ids).loss.backward()
    return {n.replace(".default", ""): p.grad.double().flatten().tolist()
            for n, p in model.named_parameters() if p.requires_grad}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("fp32")
    p.add_argument("bf16")
    p.add_argument("--model")
    p.add_argument("--adapter")
    p.add_argument("--batch")
    args = p.parse_args()
    full, half = gradients(args.fp32), gradients(args.bf16)
    if not full or full.keys() != half.keys():
        sys.exit(f"edgepipe: error: '{args.fp32}' and '{args.bf16}' are not of one adapter")
    least, name = min((cosine(full[n], half[n]), n) for n in full)
    print(f"gradient   cosine {cosine(joined(full), joined(half)):.6f} of all, {least:.6f} of the worst tensor, {name} "
          "(goal: at least 0.999)")
    if not args.model:
        return
    try:
        import peft, torch, transformers  # noqa: E401, F401
    except ImportError as missing:
        print(f"skipped: errors beside PyTorch's own: {missing}")
        return
    right, other = peer(args, "float64"), peer(args, "bfloat16")
    if right.keys() != half.keys():
        sys.exit("edgepipe: error: PEFT names the tensors of the adapter otherwise")
    for who, what in (("fp32", full), ("bf16", half), ("torch bf16", other)):
        most, name = worst_error(what, right)
        print(f"error      {who:10s} {error(what, right):.2e} of double's norm; of the worst tensor {most:.2e}, {name}")
    print(f"           bf16 over torch's bf16: {error(half, right) / error(other, right):.2f} "
          f"(goal: at most 2), worst tensors {worst_error(half, right)[0] / worst_error(other, right)[0]:.2f}")


if __name__ == "__main__":
    main()
