"""Means, intervals, differences and the paper's figures."""

import csv
import json
import math
import re
import statistics

import numpy as np
import pytest

from realsr.evaluation.tables import bootstrap_interval, print_tables, tabulate, write_tables

PSNR = {"bicubic": [24.0, 26.0, 28.0, 27.0], "model": [25.0, 27.5, 27.9, 29.0]}
RESULTS = {m: {f"p{i}": {"psnr": v, "lpips": v / 100} for i, v in enumerate(vs)} for m, vs in PSNR.items()}
PAPER = {"source": "Ji et al.", "rows": {"model": {"psnr": 24.82, "lpips": 0.227}, "edsr": {"psnr": 25.31}}}
ODD = {"a": {"p": {"psnr": math.inf, "edges": math.nan}, "q": {"psnr": 30.0, "edges": 2.0}}}
MANY = np.random.default_rng(3).gamma(4, 1.5, 40) + 22  # skewed, as PSNRs of photos are


def test_means_and_intervals_are_over_images():
    found = tabulate(RESULTS)
    assert found.mean["model"]["psnr"] == pytest.approx(statistics.fmean(PSNR["model"]))
    low, high = found.interval["model"]["psnr"]
    assert min(PSNR["model"]) <= low < found.mean["model"]["psnr"] < high <= max(PSNR["model"])


def test_two_images_have_no_interval():
    found = tabulate({m: dict(list(photos.items())[:2]) for m, photos in RESULTS.items()})
    assert found.interval == {"bicubic": {}, "model": {}}
    assert "(" not in found.cells[0][1][1]
    assert found.cells[1][1] == ["model", "+1.25, 2 of 2", "+0.0125, 0 of 2"]


def test_infinity_makes_only_the_bounds_infinite_that_it_reaches():
    low, high = bootstrap_interval([*MANY, math.inf])  # in a third of the draws there is none
    assert 22 < low < MANY.mean() + 2 and high == math.inf
    assert bootstrap_interval([math.inf] * 3) == (math.inf, math.inf)


def test_methods_are_compared_on_the_images_that_all_have():
    lacking = tabulate({**RESULTS, "zssr": {"p1": {"psnr": 20.0, "lpips": 0.5}}})
    assert lacking.mean["bicubic"]["psnr"] == 26.0
    assert "Means over the 1 of 4 images that all methods have." in lacking.notes
    whole, none = tabulate(RESULTS), tabulate({"none": {}, **RESULTS})
    assert none.mean == {"none": {}, **whole.mean}  # one that failed on every photo takes nothing from the others
    assert len(none.cells) == 1 and tabulate({**RESULTS, "none": {}}).cells[1] == whole.cells[1]
    assert [row[0] for row in none.cells[0]] == ["method", "none", "bicubic", "model"]
    assert tabulate({"none": {}}).cells == [[["method"], ["none"]]]


def test_the_papers_figures_stand_beside_ours():
    found = tabulate(RESULTS, PAPER)
    head, bicubic, model, edsr = found.cells[0]
    assert head == ["method", "PSNR", "LPIPS", "paper's PSNR", "paper's LPIPS"]
    assert bicubic[0] == "bicubic" and bicubic[3:] == ["", ""]
    assert model[1].startswith("27.35 (") and model[3:] == ["24.82", "0.2270"]
    assert edsr == ["edsr", "", "", "25.31", ""]
    assert "The paper's figures: Ji et al." in found.notes


def test_differences_are_paired():
    head, (name, psnr, lpips) = tabulate(RESULTS).cells[1]
    assert head == ["against bicubic", "PSNR", "LPIPS"] and name == "model"
    found = re.fullmatch(r"\+1\.10 \((\S+) to (\S+)\), 3 of 4", psnr)
    low, high = (float(bound.replace("−", "-")) for bound in found.groups())
    assert -0.1 <= low < 1.1 < high <= 2.0  # of the differences; methods drawn apart would have a wider one
    assert lpips.startswith("+0.0110 (") and lpips.endswith(", 1 of 4")


def test_values_that_are_not_finite():
    assert tabulate(ODD).mean["a"] == {"psnr": math.inf, "edges": 2.0}
    assert tabulate({**ODD, "b": ODD["a"]}).cells[1][1] == ["b", "+0.00, 0 of 1"]


def test_files(tmp_path, capsys):
    tables = tabulate(RESULTS, PAPER, ["Seen before."])
    write_tables(tables, RESULTS, tmp_path)
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[0] == "| method | PSNR | LPIPS | paper's PSNR | paper's LPIPS |"
    assert len({line.count("|") for line in table[:5]}) == 1
    assert "- Seen before." in table and table[table.index("- Seen before.") - 1] == ""
    rows = list(csv.DictReader((tmp_path / "images.csv").open()))
    assert [float(row["psnr"]) for row in rows if row["method"] == "model"] == PSNR["model"]
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["mean"] == tables.mean and content["images"] == RESULTS
    print_tables(tables, "four images")
    shown = capsys.readouterr().out
    assert "four images" in shown and "against bicubic" in shown and "bootstrap" in shown


def test_json_is_strict(tmp_path):
    write_tables(tabulate(ODD), ODD, tmp_path)

    def refuse(name):
        raise AssertionError(name)

    content = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert content["images"]["a"] == {"p": {"psnr": None, "edges": None}, "q": {"psnr": 30.0, "edges": 2.0}}
    assert "a,p,inf,nan" in (tmp_path / "images.csv").read_text()


def test_a_metric_that_a_photo_lacks_by_one_method_is_averaged_over_the_others():
    widths = {"a": {"p": {"edges": 2.0}, "q": {"edges": 6.0}}, "b": {"p": {"edges": 3.0}, "q": {"edges": math.nan}}}
    assert tabulate(widths).mean == {"a": {"edges": 2.0}, "b": {"edges": 3.0}}
