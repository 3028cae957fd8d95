"""Python stubs of the protocol for tests, made with Debian's protoc and plugin."""
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def generate(folder):
    """Writes modules of videonsa.v1 and of the error details of google.rpc below `folder`, which exists."""
    plugin = shutil.which("grpc_python_plugin")
    assert plugin, "grpc_python_plugin is missing (package protobuf-compiler-grpc)"
    services = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto/videonsa/v1").glob("*.proto"))
    subprocess.run(["protoc", "-I", ROOT / "proto", f"--plugin=protoc-gen-grpc_python={plugin}", f"--python_out={folder}",
                    f"--grpc_python_out={folder}", *services], check=True)
    subprocess.run(["protoc", "-I", ROOT / "proto/third_party", f"--python_out={folder}", "google/rpc/status.proto",
                    "google/rpc/error_details.proto"], check=True)


def load(folder):
    """Generates them and lets this program import them."""
    generate(folder)
    sys.path.insert(0, str(folder))
    import google
    google.__path__.append(f"{folder}/google")  # beside google.protobuf
