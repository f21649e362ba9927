#!/usr/bin/env python3
"""Makes a tiny byte-level BPE and the ids that Hugging Face's tokenizers gives for some hard texts.

    python3 make_tokenizer.py

Needs tokenizers (0.23.3 made what is here). Writes tokenizer.json, vocab.json, merges.txt and
answers.json beside this script: check_tokenizer.c compares with them.
"""

import json
import random
import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
CAMPUS = HERE.parent.parent.parent / "topologies" / "campus" / "train.jsonl"
END = "<|endoftext|>"
TEXTS = [
    "", " ", "  ", "\n", "\t \n", "a", " a", "Hello world", " Hello  world ", "The bus leaves at 22:40.",
    "I'm sure they'll say it's what we've got, don't they'd? YOU'RE 'S", "x'll'd've're", "''' 'tis",
    "12345 1 22 333 4½ ²³ Ⅷ ٣", "!!! ... ,,, (a) [b] {c} <d>", "tab\tand\r\nline\u00a0and\u3000wide",
    "\u1680a\u180eb\u2003c\u200bd\u2028e\x85f\x1cg", "naïve café — “quoted”…", "Žluťoučký kůň", "Ελληνικά",
    "数学是科学的语言。", "日本語のテキスト 123", "हिन्दी पाठ", "العربية", "👩‍👩‍👧 family 🇩🇪🇫🇷", "e\u0301 e\u0301e",
    f"one{END}two{END}{END} three", f"{END}", "<|endof text|> <|endoftext|", "call <tool> and <tool>x<tool>xy",
    "<tool><|endoftext|><tool>x ", "<think>er <think>e<think><think>ers", "zero\x00byte\x7f\x01", "a" * 300, "ab" * 100 + " " * 50 + "x", " \n" * 20,
]


def hard_texts(count):
    """Mixtures of all kinds of characters, the same every time."""
    pick = random.Random(7)
    ranges = [(32, 127), (9, 14), (0x80, 0x250), (0x2000, 0x2070), (0x370, 0x700), (0x4e00, 0x4f00),
              (0x1f300, 0x1f600)]
    for _ in range(count):
        chars = (chr(pick.randrange(*pick.choice(ranges))) for _ in range(60))
        yield "".join(c for c in chars if unicodedata.category(c) != "Cn")


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    pairs = [json.loads(line) for line in CAMPUS.read_text().splitlines()]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[END], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator((p["prompt"] + p["completion"] for p in pairs), trainer)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=True), AddedToken("<tool>x", normalized=True),
                          AddedToken("l>x", normalized=False), AddedToken("<think>", normalized=True),
                          AddedToken("<think>er", normalized=True)])
    return tokenizer


def answer(tokenizer, text):
    """The ids: special tokens found, taken as plain text, and found behind a space put before."""
    tokenizer.encode_special_tokens = False
    special = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    spaced = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return {"text": text, "special": special, "plain": plain, "spaced": spaced}


def main():
    tokenizer = train()
    tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
    tokenizer.model.save(str(HERE))
    answers = [answer(tokenizer, text) for text in TEXTS + list(hard_texts(12))]
    lines = ",\n".join(json.dumps(one) for one in answers)
    (HERE / "answers.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
