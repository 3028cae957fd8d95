#!/usr/bin/env python3
"""Looks at a clip once and asks several questions about it, in a session.

    ./generate.sh                                             # once: makes ./stubs
    ./session.py clip.mp4 "What happens?" "And before that?"  # --server HOST:PORT, --append CLIP

Each question is asked with all that came before. Exit code: 0 answered, 1 refused or failed.
"""
import argparse
import sys
import uuid

from ask import clip_part, explain  # also makes the stubs importable

import grpc
from videonsa.v1 import video_qa_pb2, video_qa_pb2_grpc


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("clip", help="a file, clips/ID or an https URL")
    parser.add_argument("questions", nargs="+")
    parser.add_argument("--append", metavar="CLIP", help="shown before the last question")
    parser.add_argument("--server", default="localhost:8090")
    parser.add_argument("--fps", type=float, default=0.0)
    args = parser.parse_args()
    with grpc.insecure_channel(args.server) as channel:
        stub = video_qa_pb2_grpc.VideoQaServiceStub(channel)
        create = video_qa_pb2.CreateSessionRequest(request_id=str(uuid.uuid4()))
        turn = create.turns.add(role=video_qa_pb2.Turn.ROLE_USER)
        turn.parts.append(clip_part(channel, args.clip, args.fps))
        session = stub.CreateSession(create).session
        try:
            for i, text in enumerate(args.questions):
                if args.append and i + 1 == len(args.questions):
                    stub.AppendToSession(video_qa_pb2.AppendToSessionRequest(
                        session=session, parts=[clip_part(channel, args.append, args.fps)]))
                request = video_qa_pb2.AskRequest()
                request.question.session = session
                request.question.turns.add(role=video_qa_pb2.Turn.ROLE_USER).parts.add(text=text)
                result = stub.Ask(request).result
                print(result.text)
                print(f"  {result.usage.cached_prompt_tokens} prompt tokens were not computed again",
                      file=sys.stderr)
        finally:
            stub.DeleteSession(video_qa_pb2.DeleteSessionRequest(session=session))


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(explain(error))
