"""Starts the project's programs for tests written in Python."""
import pathlib
import re
import subprocess
import tempfile


class Program:
    """A program that prints one line with "ready on ADDRESS" on stdout. Use as a context manager."""

    def __init__(self, words, log):
        self.log = pathlib.Path(log)
        with self.log.open("w") as err:
            self.process = subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, stderr=err, text=True)
        self.line = self.process.stdout.readline()
        found = re.search(r"ready on (\S+)", self.line)
        if not found:
            self.process.kill()
            raise AssertionError(f"{words[0]} did not start: {self.line}{self.log.read_text()}")
        self.address = found[1]

    def port(self, name):
        """Address of another port that the line names: "metrics", "admin"."""
        return re.search(rf"{name} on ([^\s,)]+)", self.line)[1]

    def stop(self, seconds=60):
        """Asks it to end and returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(seconds)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def server(bin_dir, work, *flags, name="server"):
    """A videonsa-server with the bundled model on free ports, its clips below `work`."""
    clips = pathlib.Path(work) / f"{name}-clips"
    clips.mkdir(exist_ok=True)
    return Program([pathlib.Path(bin_dir) / "videonsa-server", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
                    "--admin-listen", "127.0.0.1:0", "--clip-dir", clips, "--kv-bytes", "64M", *flags],
                   pathlib.Path(work) / f"{name}.log")


def front(bin_dir, work, address, *flags):
    """A videonsa-openai before the server at `address`."""
    return Program([pathlib.Path(bin_dir) / "videonsa-openai", "--listen", "127.0.0.1:0", "--server", address, *flags],
                   pathlib.Path(work) / "front.log")


def workplace():
    return tempfile.TemporaryDirectory(prefix="videonsa-test-")
