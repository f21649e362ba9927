#!/usr/bin/env python3
"""Makes the base model of the demo: a tokenizer and a tiny GPT-2 that has only read the prose.

    python3 make_model.py [--steps N] [--out DIR]

Needs torch, transformers and tokenizers; takes about ten minutes on one core. The result is
checked in, so that neither a user nor a test has to run this.

The tokenizer is a byte-level BPE like GPT-2's, of 1024 tokens, trained on the prose and on the
questions (not on their answers). The model has ten narrow blocks, so that five unequal servers get
different shares of it, and is stored in BF16: 2.5 MB. It learns English sentences and the names of
the places; what happens when and where is left for fine-tuning to teach (see make_text.py).
"""

import argparse
import json
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

import make_text

END = "<|endoftext|>"
VOCABULARY = 1024
WINDOW = 128
BATCH = 16
LEARNING_RATE = 3e-3
WARMUP = 50


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def token_stream(tokenizer, pages):
    """All pages in one row of tokens, each followed by the end-of-text token."""
    end = tokenizer.token_to_id(END)
    rows = (tokenizer.encode(page).ids + [end] for page in pages)
    return torch.tensor([token for row in rows for token in row])


def new_model(tokenizer):
    end = tokenizer.token_to_id(END)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCABULARY, n_positions=256, n_embd=96, n_layer=10, n_head=4,
        activation_function="gelu_new", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=end, eos_token_id=end))


def learning_rate(step, steps):
    """Linear warmup, then half a cosine to zero."""
    return LEARNING_RATE * min((step + 1) / WARMUP, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def pretrain(model, stream, steps):
    """Predicts the next token in windows cut from the stream at random."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    random = torch.Generator().manual_seed(make_text.SEED)
    for step in range(steps):
        starts = torch.randint(len(stream) - WINDOW, (BATCH,), generator=random)
        windows = torch.stack([stream[start:start + WINDOW] for start in starts])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        logits = model(input_ids=windows[:, :-1]).logits
        loss = cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:5}  loss {loss.item():.3f}", flush=True)


def save(model, tokenizer, out):
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    about = {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": False,
             "bos_token": END, "eos_token": END, "unk_token": END, "model_max_length": 256}
    (out / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "model")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(make_text.SEED)
    torch.set_num_threads(1)

    pages = make_text.campus_prose()
    questions = [one["prompt"] for one in make_text.campus_pairs()[0]]
    tokenizer = train_tokenizer(pages + questions)
    stream = token_stream(tokenizer, pages)
    model = new_model(tokenizer)
    print(f"{len(stream)} tokens of prose, {model.num_parameters()} parameters", flush=True)
    pretrain(model, stream, options.steps)
    save(model, tokenizer, options.out)


if __name__ == "__main__":
    main()
