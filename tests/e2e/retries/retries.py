#!/usr/bin/env python3
"""gRPC's own retries against refusals of a real server.

Usage: retries.py BIN_DIR, with an interpreter that has grpcio and protobuf. More callers than the server takes at once ask the same
question: without a retry policy some are refused, with one in their service config all are answered, because a refusal sends nothing
before its trailers and says there when to come back. Once for a full queue (UNAVAILABLE) and once for a tenant's
quota (RESOURCE_EXHAUSTED). Prints one line a case; exits 1 if it is otherwise.
"""
import concurrent.futures
import json
import pathlib
import re
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/support"))
import processes  # noqa: E402
import stubs  # noqa: E402

CALLERS, TOKENS = 4, 32
CASES = {"UNAVAILABLE": ["--max-running", "1", "--max-waiting", "1"], "RESOURCE_EXHAUSTED": ["--tenant-questions", "2"]}


def service_config(codes):
    policy = {"maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "5s", "backoffMultiplier": 2, "retryableStatusCodes": codes}
    return json.dumps({"methodConfig": [{"name": [{"service": "videonsa.v1.VideoQaService", "method": "Ask"}], "retryPolicy": policy}]})


def ask_all(address, options):
    """Status names of callers that ask at once, the details of the refusals, and the longest wait."""
    import grpc
    from google.rpc import error_details_pb2, status_pb2
    from videonsa.v1 import video_qa_pb2 as pb, video_qa_pb2_grpc
    question = pb.Question(turns=[pb.Turn(role=pb.Turn.ROLE_USER, parts=[pb.Part(text="What is a circle? " * 200)])],
                           generation=pb.GenerationConfig(temperature=0, max_output_tokens=TOKENS, ignore_eos=True))
    together = threading.Barrier(CALLERS)

    def ask(_):
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1), *options]) as channel:
            grpc.channel_ready_future(channel).result(30)
            together.wait(60)
            try:
                answer = video_qa_pb2_grpc.VideoQaServiceStub(channel).Ask(pb.AskRequest(question=question), timeout=60)
                return "OK", answer.result.text
            except grpc.RpcError as error:
                details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
                retry = error_details_pb2.RetryInfo()
                found = any(any_.Unpack(retry) for any_ in status_pb2.Status.FromString(details).details)
                return error.code().name, "RetryInfo" if found else "no RetryInfo"

    with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(ask, range(CALLERS)))


def started(server):
    text = urllib.request.urlopen(f"http://{server.port('metrics')}/metrics", timeout=10).read().decode()
    return int(float(re.search(r'^grpc_server_call_started_total\{grpc_method="videonsa.v1.VideoQaService/Ask"\} (\S+)$', text, re.M)[1]))


def check(bin_dir, work, code, flags):
    with processes.server(bin_dir, work, *flags, name=code) as server:
        without = ask_all(server.address, [("grpc.enable_retries", 0)])
        refused = [got for got in without if got[0] != "OK"]
        assert refused and all(got == (code, "RetryInfo") for got in refused), without
        before, begin = started(server), time.monotonic()
        answers = ask_all(server.address, [("grpc.service_config", service_config([code]))])
        assert all(got[0] == "OK" for got in answers), answers
        assert len({text for _, text in answers}) == 1, answers
        attempts = started(server) - before
        assert attempts > CALLERS, f"nobody was refused: {attempts} attempts"
        print(f"retries: {code}: {len(refused)} of {CALLERS} refused without a policy, {CALLERS} of {CALLERS} answered with one, "
              f"in {attempts} attempts and {time.monotonic() - begin:.1f} s")


def main():
    with tempfile.TemporaryDirectory() as folder:
        stubs.load(folder)
        for code, flags in CASES.items():
            check(pathlib.Path(sys.argv[1]), folder, code, flags)


if __name__ == "__main__":
    main()
