# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: whose it is, what its files may hold, and which file of options is read."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from data_sets import coco_folder
from runs import make_trainer, prepare

from rtdetr.errors import UsageError
from rtdetr.training.run_folder import claim_run_folder, read_config, write_config, write_json
from rtdetr.training.trainer import Trainer

NOT_UTF8 = os.fsdecode(b"caf\xe9")


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        folders = list(threads.map(claim_run_folder, [tmp_path / "run"] * 24))
    assert len(set(folders)) == 24


@pytest.mark.parametrize("out", [".", "..", "../here"])
def test_a_folder_may_be_named_in_relation_to_another(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / ("below" if out == ".." else ""))
    (tmp_path / "here" / "file").touch()
    assert claim_run_folder(out).resolve() == tmp_path / "here-2"


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("/", "out: expected a folder for a run"),
        ("file", "out: expected a folder, and file is a file"),
        ("file/run", "out: cannot write to file/run: Not a directory"),
        (NOT_UTF8, r"out: expected a name in UTF-8.*caf\\xe9"),
    ],
)
def test_what_is_no_folder_is_said(
    out: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(UsageError, match=sentence):
        claim_run_folder(out)


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    write_config(tmp_path, {"data": NOT_UTF8})
    write_json(tmp_path, {"data": NOT_UTF8})
    assert read_config(tmp_path / "config.yaml")[0] == {"data": NOT_UTF8}
    assert json.loads((tmp_path / "run.json").read_text()) == {"data": NOT_UTF8}


def test_data_in_a_folder_that_is_not_named_in_utf8_are_trained_on(tmp_path: Path) -> None:
    prepare(tmp_path)
    data = coco_folder(tmp_path / NOT_UTF8)
    lines: list[str] = []
    run = make_trainer(tmp_path, data=data, epochs=1).train().folder
    Trainer.resume(run, epochs=2, say=lines.append).train()
    assert all(line.isprintable() for line in lines)


def test_control_codes_in_names_of_classes_do_not_reach_the_terminal(tmp_path: Path) -> None:
    prepare(tmp_path)
    for file in (tmp_path / "data" / "annotations").iterdir():
        file.write_text(file.read_text().replace('"head"', '"\\u001b[31mred\\nline"'))
    lines: list[str] = []
    make_trainer(tmp_path, dry_run=True, say=lines.append).train()
    assert r"classes 2: helmet, \x1b[31mred\nline" in lines


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# epochs: 3\n", {}),
        ("<<: {epochs: 3}\nseed: 1\n", {"epochs": 3, "seed": 1}),
    ],
)
def test_files_of_options(text: str, values: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    options, lines = read_config(file)
    assert options == values
    assert set(lines) == set(values)
