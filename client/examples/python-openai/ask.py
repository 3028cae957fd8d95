#!/usr/bin/env python3
"""Asks about a clip with the `openai` package, through videonsa-openai, and prints the answer as it is written.

    pip install openai
    videonsa-openai --server 127.0.0.1:8090 &
    ./ask.py clip.mp4 "What happens in this clip?" --base-url http://127.0.0.1:8080/v1

A file goes along inside the request; "https://…" is fetched by the server if it allows the host; "clips/ID"
names what was uploaded before. Exit code: 0 answered, 1 refused or failed (reason on stderr).
"""
import argparse
import base64
import mimetypes
import pathlib
import sys

import openai


def visual(source, fps):
    """A part of the question: a clip or a picture."""
    kind = mimetypes.guess_type(source)[0] or "video/mp4"
    url = source
    if not source.startswith(("https://", "http://", "clips/")):
        url = f"data:{kind};base64,{base64.b64encode(pathlib.Path(source).read_bytes()).decode()}"
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    # Everything of VideoSampling may stand beside the url: fps, num_frames, range, …
    return {"type": "video_url", "video_url": {"url": url, "fps": fps}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("question")
    parser.add_argument("--base-url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--api-key", default="none", help="a token of the server; any text if it asks for none")
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=128)
    args = parser.parse_args()
    client = openai.OpenAI(base_url=args.base_url, api_key=args.api_key)
    try:
        model = client.models.list().data[0].id
        stream = client.chat.completions.create(
            model=model, stream=True, stream_options={"include_usage": True}, max_completion_tokens=args.max_tokens,
            temperature=0,
            messages=[{"role": "user",
                       "content": [visual(args.clip, args.fps), {"type": "text", "text": args.question}]}])
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
            if chunk.usage:
                print(f"\n{chunk.usage.prompt_tokens} tokens in, {chunk.usage.completion_tokens} out", file=sys.stderr)
    except (openai.OpenAIError, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
