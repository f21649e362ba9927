"""The E2E NLG set for bench/e2e.sh: to prompts and completions, and BLEU-4 of what was generated.

    python e2e.py prepare DATA_DIR OUT_DIR INPUTS
    python e2e.py score OUT_DIR
"""
import csv
import gzip
import json
import re
import sys
from pathlib import Path

# BLEU-4 on the test set: Dušek et al., "Evaluating the state of the art of end-to-end natural language generation", 2020
PUBLISHED = {"TGen, the challenge's baseline": 0.6593, "Slug, its winner": 0.6619}


def pairs(file):
    """(meaning, text) of every line."""
    return [tuple(part.strip() for part in line.split("||", 1)) for line in file if line.strip()]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def prompt(meaning):
    return meaning + " ||"


def prepare(data, out, inputs):
    with gzip.open(data / "train.txt.gz", "rt", encoding="utf-8") as file:
        train = pairs(file)
    valid = pairs((data / "valid.txt").read_text(encoding="utf-8").splitlines())
    for name, rows in ("train", train), ("valid", valid):
        write(out / f"{name}.jsonl", [{"prompt": prompt(m), "completion": " " + t} for m, t in rows])
    test = pairs((data / "test.txt").read_text(encoding="utf-8").splitlines())
    with open(data / "testset_w_refs.csv", encoding="utf-8", newline="") as file:
        references = [row["ref"] for row in csv.DictReader(file)]
    if len(test) != len(references):
        sys.exit(f"test.txt has {len(test)} lines, testset_w_refs.csv {len(references)} references")
    grouped = {}
    for (meaning, _), reference in zip(test, references):
        grouped.setdefault(meaning, []).append(reference)
    grouped = dict(list(grouped.items())[: inputs or None])
    write(out / "prompts.jsonl", [{"prompt": prompt(m)} for m in grouped])
    (out / "references.json").write_text(json.dumps(list(grouped.values()), ensure_ascii=False), encoding="utf-8")
    print(f"data    {len(train)} samples to train on, {len(valid)} held out, {len(grouped)} inputs with "
          f"{sum(map(len, grouped.values()))} references")


def plain(text):
    """The references' way of writing: the training texts have blanks around punctuation."""
    text = re.sub(r"\s+([.,!?;:%)]|'s\b|n't\b)", r"\1", " ".join(text.split()))
    return re.sub(r"([£$(])\s+", r"\1", text)


def score(out):
    import sacrebleu

    answers = [plain(a["text"]) for a in json.loads((out / "answers.json").read_text(encoding="utf-8"))["prompts"]]
    references = json.loads((out / "references.json").read_text(encoding="utf-8"))
    if len(answers) != len(references):
        sys.exit(f"{len(answers)} answers to {len(references)} inputs")
    most = max(map(len, references))
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    for answer in answers[:3]:
        print(f"answer  {answer[:160]}")
    metric = sacrebleu.metrics.BLEU()
    print(f"BLEU-4  {metric.corpus_score(answers, streams).score / 100:.4f} on {len(answers)} inputs")
    print(f"        sacrebleu {metric.get_signature()}")
    for name, bleu in PUBLISHED.items():
        print(f"        {bleu:.4f} {name} (published, all 630 inputs)")


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        score(Path(sys.argv[2]))
