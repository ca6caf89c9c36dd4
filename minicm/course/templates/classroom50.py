"""Grades the assignment beside this file in Classroom 50: runs in the student's checkout and writes result.json (schema classroom50/result/v1)."""

import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PIP = [sys.executable, "-m", "pip", "install", "--quiet"]

subprocess.run([*PIP, "--index-url", "@TORCH_INDEX@", "torch"], check=True)  # the CPU build
subprocess.run([*PIP, str(HERE / "package")], check=True)

with tempfile.TemporaryDirectory() as folder:
    report = Path(folder) / "results.json"
    command = [
        sys.executable,
        "-m",
        "minicm",
        "grade",
        str(HERE / "assignment"),
        str(Path.cwd()),
        "--json",
        str(report),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)  # not where a student's torch.py may lie
    print(done.stdout, done.stderr, sep="\n")
    graded = json.loads(report.read_text()) if report.exists() else {"tests": []}

tests = [
    {
        "test-name": test["name"],
        "passed": test["status"] == "passed",
        "score": test["score"],
        "max-score": test["max_score"],
        "output": test["output"],
    }
    for test in graded["tests"]
] or [
    {
        "test-name": "there is something to grade",
        "passed": False,
        "score": 0,
        "max-score": 1,
        "output": done.stderr[-2000:],
    }
]

result = {
    "schema": "classroom50/result/v1",
    "classroom": os.environ["CLASSROOM"],
    "assignment": os.environ["ASSIGNMENT"],
    "submission": os.environ["SUBMISSION_TAG"],
    "commit": os.environ["COMMIT_URL"],
    "release": os.environ["RELEASE_URL"],
    "review": os.environ.get("REVIEW_URL") or os.environ["COMMIT_URL"],
    "datetime": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    "score": sum(test["score"] for test in tests),
    "max-score": sum(test["max-score"] for test in tests),
    "tests": tests,
}
Path("result.json").write_text(json.dumps(result, indent=2))
