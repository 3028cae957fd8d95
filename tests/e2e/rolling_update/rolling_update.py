#!/usr/bin/env python3
"""A rolling update of two servers under load: 0 failed requests.

Usage: rolling_update.py BIN_DIR, with an interpreter that has grpcio and protobuf. Eight callers ask both servers in turn
(round_robin with health checks, as behind a headless Service) and follow the README's rule for clients: UNAVAILABLE before any
text is asked again. The first server is told to end (SIGTERM), is replaced on its port, then the second. Every question must
be answered with the same words, both servers must exit with 0 and cut nothing short. Prints one line; exits 1 otherwise.
"""
import pathlib
import socket
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/support"))
import processes  # noqa: E402
import stubs  # noqa: E402

CALLERS, STEP, MOST_TRIES = 8, 40, 20
SERVICE_CONFIG = '{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}'


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Load:
    """Callers that ask until told to stop; counts what came of it."""

    def __init__(self, addresses):
        import grpc
        from videonsa.v1 import video_qa_pb2, video_qa_pb2_grpc
        self.grpc, self.pb = grpc, video_qa_pb2
        self.target = "ipv4:" + ",".join(addresses)
        self.stub = video_qa_pb2_grpc.VideoQaServiceStub
        self.changed = threading.Condition()
        self.answers, self.failures, self.retries, self.stopping = [], [], 0, False
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def question(self):
        return self.pb.Question(
            turns=[self.pb.Turn(role=self.pb.Turn.ROLE_USER, parts=[self.pb.Part(text="What is a circle?")])],
            generation=self.pb.GenerationConfig(temperature=0, max_output_tokens=24))

    def run(self, number):
        options = [("grpc.service_config", SERVICE_CONFIG), ("grpc.use_local_subchannel_pool", 1),
                   ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
        with self.grpc.insecure_channel(self.target, options) as channel:
            stub = self.stub(channel)
            asked = 0
            while not self.stopping:
                asked += 1
                stream = (number + asked) % 2 == 0
                try:
                    self.note(self.answers, self.ask(stub, self.streamed if stream else self.whole))
                except AssertionError as error:
                    self.note(self.failures, str(error))
                except self.grpc.RpcError as error:
                    self.note(self.failures, f"{'AskStream' if stream else 'Ask'}: {error.code().name}: {error.details()}")

    def whole(self, stub):
        return stub.Ask(self.pb.AskRequest(question=self.question()), timeout=60).result.text, False

    def streamed(self, stub):
        """The text, and whether the stream broke after some of it."""
        text, ended = "", False
        try:
            for event in stub.AskStream(self.pb.AskStreamRequest(question=self.question()), timeout=60):
                text += event.delta.text
                ended = ended or event.HasField("final")
        except self.grpc.RpcError:
            if not text:
                raise
            return text, True
        assert ended, "a stream without its final event"
        return text, False

    def ask(self, stub, once):
        for attempt in range(MOST_TRIES):
            try:
                text, broken = once(stub)
                assert not broken, "a stream broke after its first text"
                return text
            except self.grpc.RpcError as error:
                if error.code() != self.grpc.StatusCode.UNAVAILABLE or attempt + 1 == MOST_TRIES:
                    raise
                with self.changed:
                    self.retries += 1
                    self.changed.wait(0.05 * (attempt + 1))
        raise AssertionError("unreachable")

    def note(self, where, what):
        with self.changed:
            where.append(what)
            self.changed.notify_all()

    def wait_for_more(self, count):
        with self.changed:
            wanted = len(self.answers) + count
            assert self.changed.wait_for(lambda: len(self.answers) >= wanted or self.failures, 120), "the load came to a halt"

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()


def end(server, name):
    code = server.stop(90)
    log = server.log.read_text()
    assert code == 0, f"{name} exited with {code}: {log}"
    assert '"questions_cut_short":0' in log.replace(" ", ""), f"{name} cut questions short: {log[-2000:]}"


def main():
    bin_dir = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        stubs.load(folder)
        ports = [free_port(), free_port()]

        def start(index, name):
            # Clients notice within the grace that the health has changed.
            return processes.server(bin_dir, folder, "--listen", f"127.0.0.1:{ports[index]}", "--drain-grace", "1",
                                    "--drain-timeout", "60", name=name)

        first, second = start(0, "first"), start(1, "second")
        load = Load([f"127.0.0.1:{port}" for port in ports])
        try:
            load.wait_for_more(STEP)
            end(first, "first")
            load.wait_for_more(STEP)
            third = start(0, "third")
            load.wait_for_more(STEP)
            end(second, "second")
            load.wait_for_more(STEP)
        finally:
            load.stop()
        end(third, "third")
    for failure in load.failures[:5]:
        print("FAILED", failure)
    different = len(set(load.answers))
    print(f"rolling update: {len(load.answers)} answered, {len(load.failures)} failed, {load.retries} asked again, "
          f"{different} different answers to one question")
    return 0 if not load.failures and different == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
