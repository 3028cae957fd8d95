#!/usr/bin/env python3
"""Compares the encoding rate of the server's tokenizer with the `tokenizers` package on one file.

Usage: text_vs_tokenizers.py TEXT_BENCH MODEL_DIR FILE. One thread each; the package must be
installed. Prints both rates and their ratio.
"""
import os
import pathlib
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402  (reads the variable above)


def main():
    bench, model, file = sys.argv[1:4]
    lines = subprocess.run([bench, model, file], capture_output=True, text=True, check=True).stdout.splitlines()
    own = max(float(line.split(" MB/s")[0].split()[-1]) for line in lines if "MB/s" in line)
    theirs = tokenizers.Tokenizer.from_file(str(pathlib.Path(model) / "tokenizer.json"))
    theirs.encode_special_tokens = True
    data = pathlib.Path(file).read_bytes()
    text = data.decode()
    rates = []
    for _ in range(2):
        begin = time.monotonic()
        theirs.encode(text, add_special_tokens=False)
        rates.append(len(data) / 1e6 / (time.monotonic() - begin))
    print(f"videonsa {own:.2f} MB/s, tokenizers {tokenizers.__version__} {max(rates):.2f} MB/s, ratio {own / max(rates):.1f}")


main()
