#!/bin/sh
# Encoding text beside Hugging Face's tokenizers: the same ids, and how fast each is on one thread.
#
#     bench/tokenizer.sh BUILD TEXT FOLDER...
#
# BUILD is the build folder, TEXT a UTF-8 file (2 MB or more), each FOLDER holds a tokenizer. Needs a
# Python (PYTHON, else python3) with tokenizers, and transformers for folders without tokenizer.json.
set -eu
build=$1 text=$2
shift 2
for folder; do
	"${PYTHON:-python3}" "$(dirname "$0")/tokenizer.py" "$build/bench/tokenizer" "$folder" "$text"
done
