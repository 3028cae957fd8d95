#!/usr/bin/env python3
"""Asks the real server through videonsa-openai with the `openai` package, as its users do.

Usage: openai_package_test.py BIN_DIR, with an interpreter that has `openai` (venv.sh). Prints one line a check.
"""
import asyncio
import base64
import hashlib
import json
import pathlib
import re
import struct
import subprocess
import sys
import time
import unittest
import urllib.request

import openai

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(sys.argv.pop(1)).resolve()
sys.path.insert(0, str(ROOT / "tests/support"))
import processes  # noqa: E402

CLIP = ROOT / "deploy/demo/clips/diamond.mp4"
PICTURE = ROOT / "tests/data/e2e/leopard.jpg"
QUESTION = "Which color does the diamond have?"


def data_url(path, kind, padding=0):
    """The file as a data: URL; `padding` bytes are added in an MP4 box that readers skip."""
    content = path.read_bytes()
    if padding:
        content += struct.pack(">I4s", padding, b"free") + bytes(padding - 8)
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def question(url, text=QUESTION, **sampling):
    return [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": url, **sampling}},
                                         {"type": "text", "text": text}]}]


def metric(address, name):
    text = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))


class OpenAiPackage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = processes.workplace()
        cls.server = processes.server(BIN, cls.place.name)
        cls.front = processes.front(BIN, cls.place.name, cls.server.address)
        cls.base = f"http://{cls.front.address}/v1"
        cls.client = openai.OpenAI(base_url=cls.base, api_key="sk-test", max_retries=0, timeout=300)
        cls.model = cls.client.models.list().data[0].id
        cls.common = {"model": cls.model, "temperature": 0, "max_completion_tokens": 12}

    @classmethod
    def tearDownClass(cls):
        codes = cls.front.stop(), cls.server.stop()
        cls.place.cleanup()
        assert codes == (0, 0), codes

    def test_answer_equals_that_of_our_own_client(self):
        ours = subprocess.run([BIN / "videonsa", "ask", CLIP, "-q", QUESTION, "--server", self.server.address, "--fps", "2",
                               "--temperature", "0", "--max-tokens", "12", "--json"], capture_output=True, text=True, check=True)
        result = json.loads(ours.stdout)["result"]
        reply = self.client.chat.completions.create(messages=question(data_url(CLIP, "video/mp4"), fps=2), **self.common)
        self.assertEqual(reply.choices[0].message.content, result["text"])
        self.assertIn(reply.choices[0].finish_reason, ("stop", "length"))
        usage = result["usage"]
        self.assertEqual(reply.usage.prompt_tokens, usage["prompt"]["text"] + usage["prompt"]["vision"])
        self.assertEqual(reply.usage.completion_tokens, usage["output_tokens"])
        self.assertEqual(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens)
        self.assertTrue(reply.id.startswith("chatcmpl-"))
        self.assertEqual(reply.model, self.model)
        self.assertGreater(reply.videonsa["frames_used"], 0)

    def test_stream_equals_the_whole_answer(self):
        messages = question(data_url(CLIP, "video/mp4"))
        whole = self.client.chat.completions.create(messages=messages, **self.common)
        chunks = list(self.client.chat.completions.create(messages=messages, stream=True,
                                                          stream_options={"include_usage": True}, **self.common))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual([c.choices[0].finish_reason for c in chunks if c.choices][-1], whole.choices[0].finish_reason)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(len({c.id for c in chunks}), 1)

    def test_large_inline_clip_is_uploaded_and_answered_alike(self):
        small = self.client.chat.completions.create(messages=question(data_url(CLIP, "video/mp4")), **self.common)
        before = metric(self.server.port("metrics"), "videonsa_upload_bytes_total")
        large = self.client.chat.completions.create(messages=question(data_url(CLIP, "video/mp4", 6 << 20)), **self.common)
        self.assertEqual(large.choices[0].message.content, small.choices[0].message.content)
        self.assertGreater(metric(self.server.port("metrics"), "videonsa_upload_bytes_total"), before + (6 << 20))

    def test_pictures_systems_and_several_turns(self):
        reply = self.client.chat.completions.create(messages=[
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(PICTURE, "image/jpeg"), "detail": "low"}},
                                         {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": "A leopard."},
            {"role": "user", "content": "Are you sure?"}], **self.common)
        self.assertGreater(reply.usage.prompt_tokens_details.model_extra["video_tokens"], 0)
        self.assertGreater(reply.usage.completion_tokens, 0)

    def test_async_client_and_many_at_once(self):
        async def ask_all():
            async with openai.AsyncOpenAI(base_url=self.base, api_key="x", max_retries=0, timeout=300) as client:
                async def one(_):
                    return await client.chat.completions.create(messages=question(data_url(CLIP, "video/mp4")), **self.common)
                return await asyncio.gather(*(one(i) for i in range(6)))
        texts = {reply.choices[0].message.content for reply in asyncio.run(ask_all())}
        self.assertEqual(len(texts), 1)

    def refused(self, kind, code, param=None, **changes):
        arguments = {**self.common, "messages": question(data_url(CLIP, "video/mp4")), **changes}
        for stream in (False, True):
            with self.assertRaises(kind) as caught:
                list(self.client.chat.completions.create(stream=stream, **arguments))
            self.assertEqual(caught.exception.code, code)
            self.assertEqual(caught.exception.param, param)

    def test_errors_are_the_exceptions_of_the_package(self):
        self.refused(openai.NotFoundError, "MODEL_NOT_FOUND", model="gpt-4o")
        self.refused(openai.BadRequestError, "FIELD_INVALID", "temperature", temperature=99)
        self.refused(openai.BadRequestError, "FIELD_INVALID", "max_completion_tokens", max_completion_tokens=0)
        self.refused(openai.BadRequestError, "UNSUPPORTED_PARAMETER", "n", n=3)
        self.refused(openai.BadRequestError, "UNKNOWN_PARAMETER", "colour", extra_body={"colour": 1})
        self.refused(openai.PermissionDeniedError, "URL_NOT_ALLOWED", messages=question("https://clips.example/a.mp4"))
        self.refused(openai.NotFoundError, "CLIP_NOT_FOUND", messages=question("clips/aaaaaaaaaaaaaaaaaaaaaaaaaa"))

    def test_media_that_cannot_be_read_is_a_bad_request(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(messages=question("data:video/mp4;base64," + base64.b64encode(b"no clip" * 99).decode()),
                                                **self.common)
        self.assertRegex(caught.exception.code, "^MEDIA_")

    def test_caller_that_stops_reading_frees_the_server(self):
        stream = self.client.chat.completions.create(
            messages=question(data_url(CLIP, "video/mp4"), "Describe it at length."), stream=True,
            **{**self.common, "max_completion_tokens": 512, "extra_body": {"repetition_penalty": 1.0}})
        next(iter(stream))
        stream.close()
        end = time.monotonic() + 30
        while metric(self.server.port("metrics"), "videonsa_requests_running") > 0:
            self.assertLess(time.monotonic(), end, "the question still runs 30 s after its caller left")
            time.sleep(0.05)

    def test_example_of_the_client_folder(self):
        example = ROOT / "client/examples/python-openai/ask.py"
        ran = subprocess.run([sys.executable, example, CLIP, QUESTION, "--base-url", self.base], capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertTrue(ran.stdout.strip())
        self.assertIn("tokens in", ran.stderr)
        ran = subprocess.run([sys.executable, example, "clips/none", "x", "--base-url", self.base], capture_output=True, text=True)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("no such clip", ran.stderr)

    def test_tokens_are_the_servers_to_judge(self):
        def digest(token):
            return hashlib.sha256(token.encode()).hexdigest()

        with processes.workplace() as work:
            access = pathlib.Path(work) / "access.yaml"
            access.write_text("tokens:\n"
                              f"  - {{sha256: {digest('asks-and-uploads-01')}, tenant: acme, scopes: [ask, clips]}}\n"
                              f"  - {{sha256: {digest('looks-at-clips-only')}, tenant: acme, scopes: [clips]}}\n")
            access.chmod(0o600)
            with processes.server(BIN, work, "--access-file", access) as server, processes.front(BIN, work, server.address) as front:
                def client(key):
                    return openai.OpenAI(base_url=f"http://{front.address}/v1", api_key=key, max_retries=0, timeout=300)

                answer = {**self.common, "messages": [{"role": "user", "content": "What is a circle?"}]}
                self.assertGreater(client("asks-and-uploads-01").chat.completions.create(**answer).usage.completion_tokens, 0)
                large = client("asks-and-uploads-01").chat.completions.create(messages=question(data_url(CLIP, "video/mp4", 4 << 20)), **self.common)
                self.assertGreater(large.usage.completion_tokens, 0)
                # The model is in the front's memory by now; the right to ask is not.
                for stream in (False, True):
                    with self.assertRaises(openai.AuthenticationError):
                        list(client("no-token-of-yours").chat.completions.create(stream=stream, **answer))
                    with self.assertRaises(openai.PermissionDeniedError):
                        list(client("looks-at-clips-only").chat.completions.create(stream=stream, **answer))
                with self.assertRaises(openai.AuthenticationError):
                    client("no-token-of-yours").models.list()

    def test_health_follows_the_server(self):
        self.assertEqual(urllib.request.urlopen(f"http://{self.front.address}/healthz", timeout=10).status, 200)


if __name__ == "__main__":
    unittest.main(verbosity=2)
