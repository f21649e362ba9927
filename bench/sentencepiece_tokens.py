#!/usr/bin/env python3
"""Tokenise text with a SentencePiece BPE model into the data files that edgepipe reads.

    python3 bench/sentencepiece_tokens.py tokenizer.model text.txt OUT --sequence 128 --train 2000 --valid 200

writes OUT/train.safetensors and OUT/valid.safetensors with `input_ids`: rows of one long stream of ids, the training
rows from its beginning, the others from right behind them. A document, which ends with an empty line or <|endoftext|>,
begins with the model's <s>. For measurements with models whose tokenizer edgepipe does not read; Python's own library
is enough.
"""
import argparse
import json
import pathlib
import re
import struct
import sys

NORMAL, BYTE = 1, 6  # types of pieces
SPACE = "\u2581"


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def fields(data):
    """(number, value) of a protobuf message: bytes, or an int."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}.get(key & 7) or varint(data, at)
            value, at = data[at:at + size], at + size
        yield key >> 3, value


class Tokenizer:
    def __init__(self, path):
        self.score, self.id, self.byte = {}, {}, {}
        self.begin, self.words = 1, {}
        pieces = [dict(fields(value)) for number, value in fields(path.read_bytes()) if number == 1]
        for index, piece in enumerate(pieces):
            text, kind = piece[1].decode(), piece.get(3, NORMAL)
            if kind == NORMAL:
                self.id[text] = index
                self.score[text] = struct.unpack("<f", piece[2])[0]
            elif kind == BYTE:
                self.byte[int(text[3:5], 16)] = index
            elif text == "<s>":
                self.begin = index

    def word(self, text):
        """Again and again, of all neighbours that make a piece the best is joined, the first at equal scores."""
        if text in self.words:
            return self.words[text]
        parts = list(text)
        while True:
            best = max(((self.score[a + b], -i) for i, (a, b) in enumerate(zip(parts, parts[1:]))
                        if a + b in self.score), default=None)
            if best is None:
                break
            i = -best[1]
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        ids = []
        for part in parts:
            ids += [self.id[part]] if part in self.id else [self.byte[b] for b in part.encode()]
        self.words[text] = ids
        return ids

    def encode(self, text):
        """No piece holds a space but as its first letter, so words can be joined one by one."""
        ids = [self.begin]
        for word in re.findall(f"{SPACE}?[^{SPACE}\n]+|{SPACE}|\n", SPACE + text.replace(" ", SPACE)):
            ids += self.word(word)
        return ids


def write(path, rows):
    data = b"".join(struct.pack(f"<{len(row)}i", *row) for row in rows)
    header = json.dumps({"input_ids": {"dtype": "I32", "shape": [len(rows), len(rows[0])],
                                       "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=pathlib.Path)
    p.add_argument("text", type=pathlib.Path)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--sequence", type=int, default=128)
    p.add_argument("--train", type=int, default=2000, help="rows")
    p.add_argument("--valid", type=int, default=200, help="rows")
    args = p.parse_args()
    tokenizer, stream = Tokenizer(args.model), []
    need = (args.train + args.valid) * args.sequence
    for document in re.split("\n\n+|<\\|endoftext\\|>", args.text.read_text()):
        if len(stream) >= need:
            break
        stream += tokenizer.encode(document.strip()) if document.strip() else []
    if len(stream) < need:
        sys.exit(f"edgepipe: error: '{args.text}' has {len(stream)} tokens of {need}")
    rows = [stream[i:i + args.sequence] for i in range(0, need, args.sequence)]
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "train.safetensors", rows[:args.train])
    write(args.out / "valid.safetensors", rows[args.train:])


if __name__ == "__main__":
    main()
