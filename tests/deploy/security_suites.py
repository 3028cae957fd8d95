#!/usr/bin/python3
"""Runs the suites that stand between callers and the host, and says how many cases each has.

Usage: security_suites.py TESTS_DIR [--count]. --count only compares the numbers of cases with the least that is
promised, so that none gets lost. Prints a line a suite, exits 1 if a case fails or cases are missing.
"""
import argparse
import pathlib
import re
import subprocess
import sys

# What, program, cases by name, least number of them.
SUITES = (
    ("forms of URLs that must not be fetched", "url_fetch_test", "Forms/RefusedUrlTest.*:UrlGuardTest.*", 63),
    ("ways to lead a fetch inside: redirects, rebinding, proxies, slow or endless answers", "url_fetch_test", "Targets/RedirectTest.*:UrlFetcherTest.*", 24),
    ("URLs through the API", "server_url_import_test", "*", 9),
    ("a hostile program instead of the decoder", "decoder_sandbox_test", "*/EscapeTest.*", 39),
    ("the decoder's limits and what it gives up", "decoder_sandbox_test", "DecoderLaunchTest.*:InsideTest.*", 7),
    ("a decoder that lies or dies", "decoder_process_test", "*", 28),
    ("tokens, scopes and tenants", "server_access_test", "*", 18),
    ("TLS and client certificates", "server_tls_test", "*", 7),
    ("quotas", "server_quota_test", "*", 14),
    ("slow connections", "server_slowloris_test", "*", 2),
    ("configuration: unknown keys, checks, reload", "server_config_test", "*", 10),
)


def cases(program, names):
    listed = subprocess.run([program, "--gtest_list_tests", f"--gtest_filter={names}"], capture_output=True, text=True, check=True).stdout
    return len(re.findall(r"^  \S", listed, re.M))


def run(program, names):
    """How many cases passed, and the output."""
    ran = subprocess.run([program, f"--gtest_filter={names}"], capture_output=True, text=True, check=False)
    passed = re.search(r"\[  PASSED  \] (\d+) test", ran.stdout)
    return int(passed[1]) if passed and ran.returncode == 0 else -1, ran.stdout + ran.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tests_dir", type=pathlib.Path)
    parser.add_argument("--count", action="store_true")
    options = parser.parse_args()
    failed, total = False, 0
    for what, name, names, least in SUITES:
        program = (options.tests_dir / name).resolve()
        number = cases(program, names)
        total += number
        good, said = number >= least, f"{number} cases" if number >= least else f"{number} cases, {least} are promised"
        if not options.count and good:
            passed, output = run(program, names)
            good = passed == number
            said = f"{number} of {number} passed" if good else f"FAILED\n{output[-3000:]}"
        failed = failed or not good
        print(f"{what} ({name}): {said}", flush=True)
    print(f"security suites: {total} cases, {'FAILED' if failed else 'ok'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
