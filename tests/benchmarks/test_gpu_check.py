# SPDX-License-Identifier: Apache-2.0
"""``gpu_check.py`` without a GPU: all of it in a dry run, its parts by hand."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from core.devices import CpuStandIn, Limits
from core.records import SUITES as SUITE_NAMES
from core.records import Record, Run, load, save
from core.timed_cases import bind
from gpu import check, steps
from gpu.commands import Command, Outcome, run_together
from gpu.operator_plan import CLASSIC, DRY_PLAN, PLAN, contenders, jobs
from gpu.result_file import DIED, Key, ResultFile
from gpu.suites import SUITES
from gpu.summary import summary
from gpu.targets import TARGETS, judge

ROOT = Path(__file__).resolve().parents[2]
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
KEY, OTHER = Key("forward", "a", "rtdetr_ops cuda"), Key("forward", "a", "peer")


@pytest.fixture
def setting(tmp_path):
    return steps.Setting("9.0", tmp_path, "/cuda/bin/nvcc", dry_run=True)


@pytest.fixture
def result(tmp_path):
    path = tmp_path / "result.json"
    save(Run({"gpu": "Some GPU"}, {}, (), {"dry_run": True, "steps": []}), path)
    return path


def test_dry_run_goes_through_everything_and_says_what_it_is(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--dry-run"]
    command += ["--work", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("dry-run/*/*.json")
    run = load(path)
    assert run.gpu_check["dry_run"] is True
    assert run.gpu_check["failures"] == []
    assert {record.suite for record in run.records} == {*SUITES, "detector"}
    status = {step["name"]: step["status"] for step in run.gpu_check["steps"]}
    assert status["package"] == status["backends"] == "printed"
    assert status["tests"] == status["detector"] == status["benchmarks"] == "passed"
    assert [target["met"] for target in run.gpu_check["targets"]] == [None] * len(TARGETS)
    assert "Dry run: these numbers mean nothing." in done.stdout
    assert "pip install --no-build-isolation --no-deps" in done.stdout


def test_without_a_gpu_nothing_is_measured(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--work", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "expected a CUDA device, found none" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_check_starts_before_the_package_is_installed():
    code = "import sys; sys.modules.update(rtdetr=None, rtdetr_ops=None); import gpu.check"
    folders = (ROOT / "benchmarks", ROOT / "build_tools")
    environment = {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


class FakeRunner:
    """Instead of programs: what each left behind, and whether it passed."""

    def __init__(self, path, statuses=()):
        self.path, self.statuses, self.groups = path, dict(statuses), []

    def __call__(self, commands, logs):
        self.groups.append([command.name for command in commands])
        return [self.run(command, logs) for command in commands]

    def run(self, command, logs):
        if command.name == "micro":
            (logs / "micro.log").write_text('{"device": "Some GPU", "gather_64B_22MB": 6e12}')
        if command.name == "benchmarks":
            return self.measure(command)
        status = self.statuses.get(command.name, "passed")
        return Outcome(command.name, status, required=command.required)

    def measure(self, command):
        """Die in the first contender, measure the second."""
        result_file = ResultFile(next(self.path.glob("*/*.json")))
        result_file.begin([OTHER if result_file.has(KEY) else KEY])
        if not result_file.has(OTHER):
            return Outcome(command.name, "failed", required=False)
        result_file.add(OTHER, [1e-3, 1e-3], gather_bytes=1e6)
        return Outcome(command.name, "passed", required=False)


@pytest.fixture
def check_with(tmp_path, monkeypatch):
    """Run the check as on a GPU, with programs that are not run."""

    def run(statuses=()):
        runner = FakeRunner(tmp_path / "results", statuses)
        device = Mock(describe=lambda: {"gpu": "Some GPU", "capability": "9.0", "cuda": "13.0"})
        monkeypatch.setattr(check, "find_device", lambda dry_run: device)
        monkeypatch.setattr(check, "run_together", runner)
        monkeypatch.setattr(check, "nvcc_path", lambda: Path("/cuda/bin/nvcc"))
        places = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
        status = check.main([*places, "--commit", "abc1234"])
        (path,) = (tmp_path / "results").glob("some-gpu/*-abc1234.json")
        return status, runner.groups, load(path)

    return run


def test_parts_run_in_order_and_the_benchmarks_go_on_where_they_died(check_with):
    status, groups, run = check_with()
    assert [group[0] for group in groups] == [
        "package",
        "backends",
        "nvcc micro.cu",
        "micro",
        "detector",
        "benchmarks",
        "benchmarks",
        "tests",
    ]
    assert run.gpu_check["ceilings"]["gather_64B_22MB"] == 6e12
    assert run.gpu_check["failures"] == [[*KEY, DIED]]
    assert [record.contender for record in run.records] == ["peer"]
    assert run.gpu_check["dry_run"] is False
    assert status == 1  # a contender of ours died


@pytest.mark.parametrize(
    ("broken", "parts"),
    [("package", 2), ("tests", 8), ("nvcc micro.cu", 7)],
)
def test_a_failed_step_fails_the_check_and_the_others_still_run(check_with, broken, parts):
    status, groups, run = check_with({broken: "failed"})
    assert status == 1
    assert len(groups) == parts  # without the package there is nothing to look at
    assert len(run.gpu_check["targets"]) == len(TARGETS)


def test_benchmarks_that_die_at_once_are_not_started_for_ever(check_with, monkeypatch):
    monkeypatch.setattr(
        FakeRunner, "measure", lambda self, command: Outcome("benchmarks", "failed")
    )
    status, groups, run = check_with()
    assert status == 1
    assert groups[-3:] == [["detector"], ["benchmarks"], ["tests"]]
    notes = {step["name"]: step["note"] for step in run.gpu_check["steps"]}
    assert notes["benchmarks"] == "died before it did anything"


def test_commands_run_side_by_side_and_leave_logs(tmp_path):
    outcomes = run_together(
        [
            Command("good", (sys.executable, "-c", "print('one\\ntwo')"), 60),
            Command("bad", (sys.executable, "-c", "raise SystemExit(3)"), 60, required=False),
            Command("slow", (sys.executable, "-c", "import time; time.sleep(600)"), 0.5),
        ],
        tmp_path / "logs",
    )
    assert [outcome.status for outcome in outcomes] == ["passed", "failed", "stopped"]
    assert [outcome.fails_the_check for outcome in outcomes] == [False, False, True]
    assert outcomes[0].note == "two"
    assert (tmp_path / "logs" / "good.log").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("status", "fails"),
    [("passed", False), ("failed", True), ("stopped", True), ("absent", False), ("printed", False)],
)
def test_absence_is_no_failure(status, fails):
    assert Outcome("step", status).fails_the_check == fails


def test_build_names_the_architecture_and_the_peers(setting, tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr("gpu.steps.PEERS", tmp_path)
    (tmp_path / "peer-1.0.tar.gz").touch()
    package, peer = steps.build(setting)
    assert package.environment == {"TORCH_CUDA_ARCH_LIST": "9.0"}
    assert package.required
    assert package.words[-1] == str(ROOT)
    assert peer.environment == {"TORCH_CUDA_ARCH_LIST": "9.0", "FORCE_CUDA": "1"}
    assert not peer.required
    assert peer.words[-1] == str(tmp_path / "peer-1.0.tar.gz")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")
    assert steps.build(setting)[0].environment == {"TORCH_CUDA_ARCH_LIST": "8.0"}


def test_sanitizers_run_the_short_set_where_the_tool_is(setting, tmp_path, monkeypatch):
    assert steps.sanitize(replace(setting, nvcc=None)) == [] or shutil.which("compute-sanitizer")
    tool = tmp_path / "compute-sanitizer"
    tool.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    commands = steps.sanitize(setting)
    assert [command.words[:2] for command in commands] == [
        (str(tool), f"--tool={name}") for name in ("memcheck", "racecheck", "initcheck")
    ]
    assert all((command.folder / command.words[-1]).is_file() for command in commands)


def test_every_folder_and_file_a_command_names_exists(setting, tmp_path):
    commands = [*steps.build(setting)[:1], *steps.micro(setting), *steps.test(setting)]
    commands += [step(setting, tmp_path / "x", 1.0) for step in (steps.measure, steps.detect)]
    for command in commands:
        assert command.folder.is_dir(), command.name
    assert (ROOT / "tests" / "gpu").is_dir()
    assert steps.MICRO.is_file()
    assert steps.ceilings(setting).words == (steps.micro(setting)[0].words[-1],)


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize("capability", ["8.0", "9.0"])
def test_microbenchmarks_compile(setting, capability):
    (command,) = steps.micro(replace(setting, nvcc=NVCC, capability=capability))
    words = [*command.words, "-Werror=all-warnings"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_result_file_keeps_what_was_measured_and_what_failed(result):
    result_file = ResultFile(result)
    result_file.add_versions({"peer": None})
    result_file.begin([KEY, OTHER])
    result_file.add(KEY, [3.0, 1.0, 2.0], gather_bytes=8.0)
    result_file.attempt(OTHER, Mock(side_effect=RuntimeError("no\nat all")))
    result_file.add_versions({"other": "1.0"})
    run = load(result)
    assert run.contenders == {"peer": None, "other": "1.0"}
    details = {"q1_s": 1.0, "q3_s": 3.0, "gather_bytes": 8.0}
    assert run.records == (Record(*KEY, 2.0, 1.0, 3, details),)
    assert run.gpu_check["failures"] == [[*OTHER, "RuntimeError: no"]]
    assert run.gpu_check["dry_run"] is True


def test_result_file_goes_on_after_the_entry_a_process_died_in(result):
    first = ResultFile(result)
    first.begin([KEY])
    first.attempt(KEY, lambda: ([1.0, 1.0], {}))
    first.begin([OTHER])  # and here it dies
    second = ResultFile(result)
    assert second.has(KEY)
    assert second.has(OTHER)
    assert not second.has(Key("forward", "b", "peer"))
    assert load(result).gpu_check["failures"] == [[*OTHER, DIED]]


@pytest.mark.parametrize("plan", [PLAN, DRY_PLAN], ids=["plan", "dry_plan"])
def test_a_line_of_the_plan_has_known_suites_of_one_entry(plan):
    for item in plan:
        assert set(item.suites) <= set(SUITES)
        assert len({SUITES[suite].fused for suite in item.suites}) == 1


def test_suites_have_their_names_in_the_form_of_results():
    assert set(SUITES) <= set(SUITE_NAMES)


def test_jobs_are_unique_and_ours_alone_run_deterministically():
    keys = [key for job in jobs(CpuStandIn(), dry_run=True) for key in job.keys]
    assert len(set(keys)) == len(keys)
    deterministic = {
        contender for suite, _, contender in keys if suite == "backward, deterministic"
    }
    assert deterministic == {"rtdetr_ops cpu"}


def test_no_entry_of_the_plan_is_measured_twice():
    keys = [key for job in jobs(CpuStandIn(), dry_run=False) for key in job.keys]
    assert len(set(keys)) == len(keys)


def test_a_wrong_contender_is_not_timed():
    job = next(iter(jobs(CpuStandIn(), dry_run=True)))
    good = bind(job.case, job.contender)
    bad = replace(good, kernel=lambda *leaves: good.kernel(*leaves) * 1.001)
    for suite in (s for s in SUITES if not SUITES[s].fused):
        assert SUITES[suite].run(good, job.case, CpuStandIn(), Limits(0, 2, 2))
        with pytest.raises(AssertionError, match="of the largest entry"):
            SUITES[suite].run(bad, job.case, CpuStandIn(), Limits(0, 2, 2))


def test_the_classic_operator_comes_right_after_ours():
    names = [contender.name for contender in contenders()]
    ours = [name for name in names if name.startswith("rtdetr_ops")]
    assert names[: len(ours) + 2] == [*ours, CLASSIC, "reference"]


ENCODER, DECODER = "encoder_800x1333", "decoder_b1"
OURS, TRITON = "rtdetr_ops cuda", "rtdetr_ops triton"


def record(suite, case, contender, microseconds, **details):
    return Record(suite, case, contender, microseconds * 1e-6, microseconds * 1e-6, 9, details)


MEASURED = Run(
    {},
    {},
    (
        record("forward", f"{ENCODER} bfloat16 ring", OURS, 200, gather_bytes=1e9),
        record("forward", f"{ENCODER} float32 ring", OURS, 500),
        record("forward", f"{ENCODER} float32 ring", CLASSIC, 800),
        record("forward+backward", f"{ENCODER} float32 ring", OURS, 1000),
        record("forward+backward", f"{ENCODER} float32 ring", CLASSIC, 4000),
        record("backward", f"{ENCODER} float32 ring", OURS, 600),
        record("backward, deterministic", f"{ENCODER} float32 ring", OURS, 1500),
        record("fused forward, graph", f"{DECODER} float32 ring", OURS, 5),
        record("fused forward, graph", f"{DECODER} float32 ring", CLASSIC, 20),
        record("fused forward, graph", f"{DECODER} bfloat16 ring", OURS, 7),
        record("forward", f"{ENCODER} float32 ring", TRITON, 550),
        record("forward", f"{ENCODER} float32 ring", "msda-triton", 1100),
        record("detector", "R18, batch 1", "rtdetr eager", 2000),
    ),
    {"dry_run": False, "steps": [], "ceilings": {"gather_64B_22MB": 6e12, "red_f32_22MB": 4e12}},
)

ANSWERS = [
    (200e-6 / (1e9 / 6e12), True),  # over the floor
    (4.0, True),  # bfloat16 against the classic op
    (1.6, False),  # float32 against the classic op
    (5.0, True),
    (4.0, True),
    (7.0, False),
    (None, None),  # the classic op has no bfloat16 entry here
    (4.0, True),  # forward and backward
    (2.5, False),  # deterministic
    (500 / 550, True),  # Triton against CUDA
    (None, None),
    (2.0, True),  # against the other Triton kernels
    (None, None),
]


@pytest.mark.parametrize(
    ("index", "value", "met"), [(i, *answer) for i, answer in enumerate(ANSWERS)]
)
def test_targets_are_judged_line_by_line(index, value, met):
    judgment = judge(MEASURED)[index]
    assert judgment.met is met
    assert judgment.value == (None if value is None else pytest.approx(value))


def test_nothing_measured_is_no_failure_to_reach():
    answers = judge(Run({}, {}, (), None))
    assert [answer.met for answer in answers] == [None] * len(TARGETS)


def test_summary_answers_every_target():
    quartiles = {"q1_s": 4.9e-6, "q3_s": 5.1e-6, "gather_bytes": 1.2e9}
    records = tuple(replace(r, details=quartiles | r.details) for r in MEASURED.records)
    notes = MEASURED.gpu_check | {
        "targets": [vars(answer) for answer in judge(MEASURED)],
        "failures": [["forward", case, "peer", "RuntimeError: no"] for case in ("a", "b")],
        "not_reached": [["forward", "b", "peer"], ["forward", "b", "other"]],
    }
    run = Run({}, {OURS: None, CLASSIC: None}, records, notes)
    text = summary(run)
    assert "peer, forward | a and 1 more: RuntimeError: no" in text
    assert "forward | b: 2 contenders" in text
    assert "gather_64B_22MB: 6000" in text
    assert "encoder_800x1333 bfloat16 ring, forward" in text
    assert "5.00 TB/s, 83 %" in text
    assert "R18, batch 1, rtdetr eager: 2.00 ms" in text
    assert "2.00 TB/s, 50 %" in text  # the atomic backward: 1.2 GB in 600 microseconds
    assert "at most 1.5x   yes" in text
    assert text.count("not measured") == 3
