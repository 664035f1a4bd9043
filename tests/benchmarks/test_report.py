# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from core.records import Record, Run, from_pytest, load, save, summarize
from core.tables import full_report, readme_block, seconds_text, speedups
from report import BEGIN, END, newest_results, of_clean_commits, rewrite_readme

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RESULTS = BENCHMARKS / "results"

OURS, PEER, ABSENT = "rtdetr_ops cpu", "grid_sample", "torch-ms-deform-attn"
MACHINE = {
    "cpu": "Some CPU",
    "isa": "AVX2",
    "cores": 4,
    "threads": 2,
    "torch": "2.13.0",
    "commit": "abc1234",
    "modified": False,
    "date": "2030-01-02",
}
PARTS = {"losses": 0.02, "backward": 1.98}
RUN = Run(
    MACHINE,
    {OURS: "this repository", PEER: "torch 2.13.0", ABSENT: None},
    (
        Record("forward", "decoder_b1 float32 ring", PEER, 8e-3, 7e-3, 9),
        Record("forward", "decoder_b1 float32 ring", OURS, 2e-3, 1.5e-3, 9),
        Record("forward", "decoder_b1 bfloat16 ring", OURS, 1e-3, 0.9e-3, 9),
        Record("forward", "decoder_discrete float32 ring", OURS, 5e-4, 4e-4, 9),
        Record("model", "Some DETR", "unpatched", 1.2, 1.1, 3, {"max_difference": 1e-6}),
        Record("model", "Some DETR", "rtdetr_ops patched", 0.6, 0.5, 3, {"max_difference": 1e-6}),
        Record("detector", "R18", "transformers eager", 0.6, 0.5, 3),
        Record("detector", "R18", "rtdetr optimized", 0.3, 0.2, 3),
        Record("training step", "R18", "transformers", 3.0, 2.5, 3, {"max_difference": 1e-6}),
        Record("training step", "R18", "rtdetr", 2.0, 1.9, 3, {"max_difference": 1e-6} | PARTS),
    ),
)


def test_json_survives_the_round_trip(tmp_path):
    path = tmp_path / "machine" / "run.json"
    save(RUN, path)
    assert load(path) == RUN


def test_recorded_names_are_read_as_todays(tmp_path):
    path = tmp_path / "run.json"
    save(RUN, path)
    recorded = path.read_text()
    assert '"unpatched"' in recorded
    path.write_text(recorded.replace('"unpatched"', '"as it comes"'))
    assert full_report(load(path)) == full_report(RUN)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*.md")), ids=lambda path: path.name)
def test_recorded_results_give_the_recorded_tables(path):
    tables = path.read_text(encoding="utf-8").replace("as it comes", "unpatched")
    assert full_report(load(path.with_suffix(".json"))) == tables


def test_another_schema_is_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="expected schema 2, got 99"):
        load(path)


def test_rounds_of_a_contender_become_one_record():
    info = {"suite": "forward", "case": "a", "contender": "r"}
    rounds = [(3.0, 2.0, 5), (1.0, 0.5, 7), (2.0, 1.0, 1)]
    entries = [
        {"extra_info": info, "stats": {"median": median, "min": low, "rounds": count}}
        for median, low, count in rounds
    ]
    assert from_pytest({"benchmarks": entries}) == [Record("forward", "a", "r", 2.0, 0.5, 13)]


def test_turns_become_records():
    records = summarize("model", "m", {"a": [1.0, 3.0, 2.0], "b": [4.0]}, max_difference=0.5)
    details = {"max_difference": 0.5}
    assert records == [
        Record("model", "m", "a", 2.0, 1.0, 3, details),
        Record("model", "m", "b", 4.0, 4.0, 1, details),
    ]


def test_detectors_stand_below_each_other_and_are_compared_with_that_of_transformers():
    for text in (full_report(RUN), readme_block(RUN, "x.json")):
        assert "| rtdetr optimized | **300 ms** (2.00x) |\n| transformers eager | 600 ms |" in text


def test_training_is_compared_with_that_of_transformers_and_shows_its_parts():
    table = "| rtdetr | **2.00 s** (1.50x) |\n| transformers | 3.00 s |"
    assert table in full_report(RUN)
    assert table in readme_block(RUN, "x.json")
    assert "| losses | 20.0 ms (1.0%) |\n| backward | 1.98 s (99.0%) |" in full_report(RUN)


def test_speedups_are_ratios_of_medians_to_ours():
    assert speedups(RUN, "forward", "decoder_b1 float32 ring") == {PEER: 4.0}
    assert speedups(RUN, "model", "Some DETR") == {"unpatched": 2.0}
    assert speedups(RUN, "forward", "no such case") == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.345, "2.35 s"),
        (0.1234, "123 ms"),
        (0.01234, "12.3 ms"),
        (1.234e-3, "1.23 ms"),
        (15e-6, "15.0 µs"),
        (2e-7, "0.20 µs"),
    ],
)
def test_seconds_have_three_digits_and_a_unit(seconds, text):
    assert seconds_text(seconds) == text


def test_report_has_ours_first_ratios_dashes_and_the_absent():
    lines = full_report(RUN).splitlines()
    assert f"|  | {OURS} | {PEER} |" in lines
    assert (
        "| decoder_b1 float32 ring | **2.00 ms**, min 1.50 ms | 8.00 ms (4.0x), min 7.00 ms |"
        in lines
    )
    assert "| decoder_discrete float32 ring | **500 µs**, min 400 µs | - |" in lines
    assert f"- {ABSENT}: not installed" in lines
    assert "Some DETR: logits and boxes before and after patching differ by 1e-06 at most." in lines
    assert f"| decoder_b1 ring, forward, {OURS} | 2.00 ms | 1.00 ms | 2.00x |" in lines


@pytest.mark.parametrize(("median", "warned"), [(1.4, False), (1.6, True)])
def test_report_warns_when_the_machine_was_busy(median, warned):
    run = Run(MACHINE, RUN.contenders, (Record("forward", "a", OURS, median, 1.0, 9),))
    assert ("**The machine was busy:** 1 of 1 medians" in full_report(run)) == warned


def test_readme_block_names_its_source():
    block = readme_block(RUN, "benchmarks/results/x/y.json")
    assert "| decoder_b1 float32 ring, forward | **2.00 ms** | 8.00 ms (4.0x) |" in block
    assert "| Some DETR | **600 ms** | 1.20 s (2.0x) |" in block
    assert "`benchmarks/results/x/y.json`" in block


def test_readme_is_rewritten_between_the_markers_only(tmp_path):
    source, readme = tmp_path / "run.json", tmp_path / "README.md"
    save(RUN, source)
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rewrite_readme(readme, [source])
    once = readme.read_text()
    assert once.startswith(f"before\n{BEGIN}\n|")
    assert once.endswith(f"{END}\nafter\n")
    assert "old" not in once
    rewrite_readme(readme, [source])
    assert readme.read_text() == once


def test_readme_without_markers_is_refused(tmp_path):
    source, readme = tmp_path / "run.json", tmp_path / "README.md"
    save(RUN, source)
    readme.write_text("nothing here\n")
    with pytest.raises(ValueError, match="expected the lines <!-- benchmarks: begin -->"):
        rewrite_readme(readme, [source])
    assert readme.read_text() == "nothing here\n"


def test_the_newest_file_of_every_machine_is_reported(tmp_path):
    names = ("a/2030-01-01-fff.json", "a/2030-01-02-aaa.json", "b/2029-05-05-ccc.json")
    for name in names:
        save(RUN, tmp_path / name)
    same_day = tmp_path / "a" / "2030-01-02-000.json"
    save(RUN, same_day)
    os.utime(tmp_path / names[1], (1, 1))
    assert newest_results(tmp_path) == [same_day, tmp_path / names[2]]


def test_the_readme_takes_results_of_clean_commits_alone(tmp_path):
    clean, modified = tmp_path / "clean.json", tmp_path / "modified.json"
    save(Run(MACHINE | {"modified": False}, RUN.contenders, RUN.records), clean)
    save(Run(MACHINE | {"modified": True}, RUN.contenders, RUN.records), modified)
    assert of_clean_commits([modified, clean]) == [clean]
    with pytest.raises(SystemExit, match="without uncommitted changes"):
        of_clean_commits([modified])


def test_report_command_writes_markdown_and_plot(tmp_path):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    path = tmp_path / "run.json"
    save(RUN, path)
    command = [sys.executable, str(BENCHMARKS / "report.py"), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == full_report(RUN).strip()
    assert path.with_suffix(".md").read_text() == full_report(RUN)
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "suites"),
    [
        (["op", "call", "import"], {"forward", "forward+backward", "call", "import"}),
        (["model", "detector", "training"], {"model", "detector", "training step"}),
    ],
)
def test_quick_run_measures_and_reports(tmp_path, parts, suites):
    path = tmp_path / "quick.json"
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--json", str(path)]
    subprocess.run([*command, "--only", *parts], check=True)
    run = load(path)
    assert {record.suite for record in run.records} == suites
    assert all(0 < record.min_s <= record.median_s for record in run.records)
    assert json.loads(path.read_text())["machine"]["threads"] == 2
    assert full_report(run).startswith("# Benchmarks")
