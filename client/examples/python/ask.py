#!/usr/bin/env python3
"""Asks a question about a clip and prints the answer as it is written.

    ./generate.sh                                   # once: makes ./stubs, see there for the venv
    ./ask.py clip.mp4 "What happens in this clip?"  # --server HOST:PORT, --fps, --max-tokens

Exit code: 0 answered, 1 refused or failed (reason on stderr).
"""
import argparse
import hashlib
import pathlib
import sys
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "stubs"))

import grpc  # noqa: E402
from google.protobuf import any_pb2  # noqa: E402,F401  (registers Any for the details)
from videonsa.v1 import clip_pb2, clip_pb2_grpc, server_pb2, server_pb2_grpc  # noqa: E402
from videonsa.v1 import video_qa_pb2, video_qa_pb2_grpc  # noqa: E402

INLINE_BYTES = 3 << 20  # what fits beside the text in one message, if the server names no limit


def upload(channel, path):
    """Stores the file and returns the clip's name once it is READY. Bytes stored before are not
    sent again; a broken upload goes on at the committed size when this is called again."""
    stub = clip_pb2_grpc.ClipServiceStub(channel)
    data = pathlib.Path(path).read_bytes()
    digest = hashlib.sha256(data).digest()
    started = stub.StartUpload(clip_pb2.StartUploadRequest(
        request_id=str(uuid.UUID(bytes=digest[:16], version=4)), size_bytes=len(data), sha256=digest,
        display_name=pathlib.Path(path).name))
    if not started.already_stored:
        chunk_bytes = started.max_chunk_bytes or 1 << 20

        def messages():
            offset = started.committed_size
            yield clip_pb2.UploadClipRequest(header=clip_pb2.UploadHeader(
                upload_id=started.upload_id, write_offset=offset))
            # crc32c is optional; the SHA-256 of the whole file is checked anyway.
            while True:
                piece = data[offset:offset + chunk_bytes]
                last = offset + len(piece) == len(data)
                yield clip_pb2.UploadClipRequest(chunk=clip_pb2.UploadChunk(
                    offset=offset, data=piece, finish=last))
                offset += len(piece)
                if last:
                    return

        stub.UploadClip(messages())
    clip = started.clip
    for change in stub.WatchClip(clip_pb2.WatchClipRequest(name=clip.name)):
        clip = change.clip
    if clip.state != clip_pb2.Clip.STATE_READY:
        sys.exit(f"{clip.name} cannot be used: {clip.error_reason}: {clip.error_message}")
    return clip.name


def clip_part(channel, source, fps):
    """The clip as a part of the question: stored, by URL, inside the message, or uploaded."""
    part = video_qa_pb2.Part()
    if fps:
        part.clip.sampling.fps = fps
    if source.startswith("clips/"):
        part.clip.clip = source
    elif source.startswith("https://"):
        part.clip.url = source
    else:
        limits = server_pb2_grpc.ServerServiceStub(channel).GetModel(
            server_pb2.GetModelRequest()).model.limits
        size = pathlib.Path(source).stat().st_size
        if size <= min(limits.max_inline_clip_bytes or INLINE_BYTES, INLINE_BYTES):
            part.clip.inline_data = pathlib.Path(source).read_bytes()
        else:
            part.clip.clip = upload(channel, source)
    return part


def ask(channel, source, question, fps=0.0, max_tokens=0, timeout=None):
    """Yields pieces of the answer, then returns the result with what was really done."""
    request = video_qa_pb2.AskStreamRequest(request_id=str(uuid.uuid4()))
    turn = request.question.turns.add(role=video_qa_pb2.Turn.ROLE_USER)
    if source:
        turn.parts.append(clip_part(channel, source, fps))
    turn.parts.add(text=question)
    if max_tokens:
        request.question.generation.max_output_tokens = max_tokens
    stub = video_qa_pb2_grpc.VideoQaServiceStub(channel)
    for event in stub.AskStream(request, timeout=timeout):
        if event.HasField("delta"):
            yield event.delta.text
        elif event.HasField("final"):
            return event.final
    raise RuntimeError("the stream ended without its final event")


def explain(error):
    """The server's reason, values and advice from the google.rpc details of a failed call."""
    from google.rpc import error_details_pb2, status_pb2
    lines = [f"{error.code().name}: {error.details()}"]
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                lines.append(f"  reason {info.reason} {dict(info.metadata) or ''}".rstrip())
            elif detail.Unpack(retry):
                lines.append(f"  try again in {retry.retry_delay.ToTimedelta()}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("clip", help='a file, clips/ID, an https URL, or "" for none')
    parser.add_argument("question")
    parser.add_argument("--server", default="localhost:8090")
    parser.add_argument("--fps", type=float, default=0.0, help="frames per second of clip time")
    parser.add_argument("--max-tokens", type=int, default=0)
    parser.add_argument("--timeout", type=float, help="seconds")
    args = parser.parse_args()
    try:
        with grpc.insecure_channel(args.server) as channel:
            answer = ask(channel, args.clip, args.question, args.fps, args.max_tokens, args.timeout)
            while True:
                try:
                    print(next(answer), end="", flush=True)
                except StopIteration as end:
                    result = end.value
                    break
    except grpc.RpcError as error:
        print(explain(error), file=sys.stderr)
        return 1
    usage, timing = result.usage, result.timing
    print(f"\n{usage.prompt.vision} vision and {usage.prompt.text} text tokens in, "
          f"{usage.output_tokens} out; first token after "
          f"{timing.time_to_first_token.ToTimedelta().total_seconds():.2f} s; "
          f"{100 * result.attention.budget_fraction:.1f} % of dense attention", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
