"""Encodes a file with edgepipe and with Hugging Face's tokenizers in turns, one thread each.

    tokenizer.py PROGRAM DIR FILE [ROUNDS]

PROGRAM is bench/tokenizer. DIR holds a tokenizer.json, or a folder that transformers opens. The ids
are compared first; then the best and the median of the rounds are printed.
"""

import array
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def open_peer(folder):
    from tokenizers import Tokenizer

    path = os.path.join(folder, "tokenizer.json")
    start = time.perf_counter()
    if os.path.exists(path):
        peer = Tokenizer.from_file(path)
    else:
        from transformers import AutoTokenizer

        start = time.perf_counter()
        peer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    peer.encode_special_tokens = True
    return peer, time.perf_counter() - start


def main():
    program, folder, path = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    text = open(path, encoding="utf-8", newline="").read()
    peer, opened = open_peer(folder)
    ids = tempfile.NamedTemporaryFile(suffix=".ids")
    ours = subprocess.Popen([program, folder, path, ids.name], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    print(f"{folder}\n  open: edgepipe {float(ours.stdout.readline().split()[1]):.3f} s, "
          f"tokenizers {opened:.3f} s")
    times = {"edgepipe": [], "tokenizers": []}
    for turn in range(rounds):
        ours.stdin.write("\n")
        ours.stdin.flush()
        times["edgepipe"].append(float(ours.stdout.readline().split()[1]))
        start = time.perf_counter()
        encoding = peer.encode(text, add_special_tokens=False)
        times["tokenizers"].append(time.perf_counter() - start)
        if turn == 0:
            mine = array.array("i")
            mine.frombytes(open(ids.name, "rb").read())
            if mine.tolist() != encoding.ids:
                sys.exit(f"{folder}: the ids differ")
            print(f"  {len(mine)} ids, the same")
    ours.stdin.close()
    size = os.path.getsize(path) / 1e6
    for name, all_s in times.items():
        print(f"  {name:10} best {size / min(all_s):7.2f} MB/s, median "
              f"{size / statistics.median(all_s):7.2f} MB/s")
    print(f"  ratio of the medians: "
          f"{statistics.median(times['tokenizers']) / statistics.median(times['edgepipe']):.2f}")


main()
