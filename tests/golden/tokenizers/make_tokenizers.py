#!/usr/bin/env python3
"""Makes tiny tokenizers of many kinds and the ids and texts that Hugging Face's tokenizers gives.

    python3 make_tokenizers.py

Needs tokenizers (0.23.3 made what is here). Writes one NAME.json for each kind beside this script: the
tokenizer.json as a map, and answers, which check_tokenizers.c compares. pieces.json holds a
tokenizer.model in hexadecimal digits instead, written here field by field, and answers of a
tokenizer.json that joins the same pairs.
"""

import json
import struct
from pathlib import Path

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

HERE = Path(__file__).resolve().parent
CAMPUS = HERE.parent.parent.parent / "topologies" / "campus" / "train.jsonl"
LINES = [p["prompt"] + p["completion"] for p in map(json.loads, CAMPUS.read_text().splitlines())]
LINES += ["naïve café 数学 日本語 12345 été"] * 3
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
MARK = "\u2581"
TEXTS = [
    "", " ", "   ", "a", " a", "   a b  ", "\n", "\r\n\t x \n\n", "Hello world", "The bus leaves at 22:40, doesn't it?",
    "I'LL say it'S 12345678 x 3.14", "caf\u00e9 cafe\u0301 \u1e9b\u0323 \ufb01 \uac00\u1100\u1161", MARK, MARK + " a" + MARK + "b",
    "数学は 日本語! \U0001f468\u200d\U0001f469", "x<tool>y <tool> z", "a <l> b<r>  c <lr>  d", "word words word, sword", "<s>a</s> <s>", "a\x00b\x7f",
    "\u00a0\u3000\u180e.\u2028", "\U00031350\u0c3c\u00b3\u216b", "the" * 40, "a b" * 60, "\u0301" * 40, "bus" + " " * 40 + "bus", "É<n> é<n>", "(a)[b]{c}-_.",
]
ADDED = [AddedToken("<tool>", normalized=True), AddedToken("word", single_word=True, normalized=False),
         AddedToken("<l>", lstrip=True, normalized=False), AddedToken("<r>", rstrip=True, normalized=False),
         AddedToken("<lr>", lstrip=True, rstrip=True, normalized=True), AddedToken("É<n>", normalized=True)]


def answers(tokenizer):
    for text in TEXTS:
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        special = tokenizer.encode(text, add_special_tokens=False).ids
        yield {"text": text, "plain": plain, "special": special, "whole": tokenizer.encode(text).ids,
               "back": tokenizer.decode(special, skip_special_tokens=False),
               "clean": tokenizer.decode(special, skip_special_tokens=True)}


def write(name, tokenizer, **more):
    file = {"answers": list(answers(tokenizer))}
    file.update(more or {"tokenizer": json.loads(tokenizer.to_str())})
    (HERE / f"{name}.json").write_text(json.dumps(file, separators=(",", ":")) + "\n")


def finish(tokenizer):
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_tokens(ADDED)
    return tokenizer


def bytes_bpe(pre_tokenizer, normalizer=None, size=330, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                                             initial_alphabet=alphabet))
    return finish(tokenizer)


def pieces_bpe(normalizer=None, pre_tokenizer=None, fallback=True, fuse=True):
    """Trained on words, as sentencepiece does it; the merges then work on what the tokenizer cuts."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(MARK, "merged_with_next")
    first = ["<unk>", "<s>", "</s>"] + ([f"<0x{i:02X}>" for i in range(256)] if fallback else [])
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=len(first) + 120, show_progress=False,
                                                             special_tokens=first, limit_alphabet=50))
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = file["added_tokens"][:3]
    file["model"].update(byte_fallback=fallback, fuse_unk=fuse)
    file.update(normalizer=None, pre_tokenizer=None)
    tokenizer = Tokenizer.from_str(json.dumps(file))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    return tokenizer


def words(pre_tokenizer, normalizer=None):
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(LINES, trainers.WordLevelTrainer(vocab_size=60, show_progress=False,
                                                                   special_tokens=["[UNK]"]))
    return finish(tokenizer)


def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def number(field_number, value):
    return varint(field_number << 3) + varint(value)


def model_file(tokenizer):
    """A tokenizer.model whose scores are the order of the merges."""
    file = json.loads(tokenizer.to_str())["model"]
    rank = {a + b: -float(i) for i, (a, b) in reversed(list(enumerate(file["merges"])))}
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3}
    out = b""
    for text, _ in sorted(file["vocab"].items(), key=lambda item: item[1]):
        kind = kinds.get(text, 6 if text.startswith("<0x") else 1)
        piece = field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", rank.get(text, -1e6))
        out += field(1, piece + (number(3, kind) if kind != 1 else b""))
    trainer = number(3, 2) + number(35, 1)
    normal = field(1, b"identity") + number(3, 1) + number(4, 0)
    return out + field(2, trainer) + field(3, normal)


def byte_level(prefix=False, cut=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=cut)


def main():
    both = pre_tokenizers.Sequence
    legacy = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    llama3 = bytes_bpe(both([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level(cut=False)]),
                       ignore_merges=True)
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                                 processors.TemplateProcessing(single="<s> $A", special_tokens=[
                                                     ("<s>", llama3.token_to_id("<s>"))])])
    write("llama3", llama3)
    write("qwen", bytes_bpe(both([pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"),
                                  byte_level(cut=False)]), normalizers.NFC()))
    write("whole", bytes_bpe(byte_level(True, False), normalizers.NFKC()))
    write("digits", bytes_bpe(both([pre_tokenizers.Digits(True), pre_tokenizers.Punctuation("contiguous"),
                                    byte_level(True)]),
                    normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase(),
                                          normalizers.Replace(Regex(r"\s+"), " ")])))
    for behaviour in ("merged_with_previous", "merged_with_next", "contiguous", "removed"):
        write(behaviour, bytes_bpe(both([pre_tokenizers.Split(Regex(r"[aeiou ]|\w(?=\d)"), behaviour,
                                                              behaviour == "removed"), byte_level(cut=False)])))
    fallback = pieces_bpe(legacy)
    fallback.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    write("fallback", finish(fallback))
    write("unknown", finish(pieces_bpe(legacy, fallback=False)))
    write("unfused", finish(pieces_bpe(legacy, fallback=False, fuse=False)))
    for scheme in ("first", "always", "never"):
        write(f"metaspace_{scheme}", finish(pieces_bpe(pre_tokenizer=pre_tokenizers.Metaspace(
            prepend_scheme=scheme, split=scheme == "first"))))
    plain = pieces_bpe(legacy)
    plain.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    texts = [text for text in TEXTS if "<s>" not in text]
    TEXTS[:] = texts
    write("pieces", plain, model=model_file(plain).hex())
    TEXTS[:] = texts + ["<s>a</s> <s>"]
    write("words", words(pre_tokenizers.Whitespace()))
    write("words_split", words(both([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("removed")]),
                               normalizers.NFKC()))


main()
