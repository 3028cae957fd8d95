#!/usr/bin/env python3
"""Times the same network in transformers on torch's CPU build: prefill and decode, bf16, random weights.

Usage: peer_transformers.py CONFIG TOKENS DECODED THREADS. Prints one line: prefill_s decode_ms.
Needs torch and transformers from PyPI.
"""
import json
import statistics
import sys
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


def main():
    config_path, tokens, decoded, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    with open(config_path, encoding="utf-8") as file:
        source = json.load(file)
    keys = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
            "max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings"]
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen2ForCausalLM(Qwen2Config(**{key: source[key] for key in keys})).eval()
    ids = torch.randint(0, 1000, (1, tokens))
    prefill = []
    with torch.inference_mode():
        for _ in range(3):
            begin = time.perf_counter()
            output = model(ids, use_cache=True, logits_to_keep=1)
            prefill.append(time.perf_counter() - begin)
        cache, token, times = output.past_key_values, ids[:, :1], []
        for _ in range(decoded):
            begin = time.perf_counter()
            output = model(token, past_key_values=cache, use_cache=True)
            token = output.logits[:, -1].argmax(-1, keepdim=True)
            times.append(time.perf_counter() - begin)
    print(f"{min(prefill):.6f} {1e3 * statistics.median(times):.6f}")


main()
