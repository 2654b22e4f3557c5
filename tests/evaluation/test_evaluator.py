"""The command that makes tables: methods, what is made again and what is not, failures, reports."""

import csv
import io
import json
import math
import os
import shutil
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from conftest import leaves, nearest, save_compact
from forked import run_forked

from realsr.data.folders import find_pairs
from realsr.estimation.patch_matching import PatchMatching
from realsr.evaluate import _run as run_evaluate
from realsr.evaluation.evaluation_report import pool_pictures
from realsr.evaluation.evaluator import RECORD, Evaluator, evaluate
from realsr.evaluation.methods import RESERVED, Enlarged, Method, bicubic, network, split_names, zssr
from realsr.evaluation.tables import check_paper, print_tables, tabulate, write_tables
from realsr.evaluation.zssr import ZSSR
from realsr.imaging import Photo, read_image, to_float, to_uint, write_image
from realsr.imaging.metrics import image_metrics
from realsr.runtime.config import explain
from realsr.runtime.errors import InputError
from realsr.runtime.files import find_images
from realsr.upscaling.export_generator import export


def counted(name="mine", offset=0.0, fails=()):
    """Bicubic that counts its calls, and fails on photos of some widths."""
    calls = []

    def run(lr):
        calls.append(lr)
        if lr.shape[-1] in fails:
            raise InputError("does not like it")
        return Enlarged((bicubic(4).run(lr).sr + offset).clamp(0, 1))

    return Method(name, run, {"method": name, "offset": offset}), calls


def test_the_command_writes_tables_and_pictures_that_agree(checkpoint, photo_folder, tmp_path):
    hr = photo_folder("hr", 3, 96, 128)
    done = run_forked("realsr.evaluate", f"ckpt={checkpoint}", f"hr={hr}", "metrics.lpips=null", cwd=tmp_path)
    folder = tmp_path / "outputs" / "evaluate"
    content = json.loads((folder / "metrics.json").read_text())
    assert list(content["mean"]) == ["bicubic", "model"]
    assert content["mean"]["bicubic"]["psnr"] > content["mean"]["model"]["psnr"]  # the model takes the nearest pixel
    rows = list(csv.DictReader((folder / "images.csv").open()))
    assert len(rows) == 6
    for row in rows:
        sr, truth = (
            to_float(read_image(path).rgb)[None]
            for path in (folder / row["method"] / f"{row['image']}.png", hr / f"{row['image']}.png")
        )
        values = image_metrics(sr, truth, 4)
        assert {key: float(row[key]) for key in values} == pytest.approx(values, abs=1e-9)
    assert "0 of 3" in done.stdout
    first, *_, last = done.stdout.splitlines()
    assert first == "comparing bicubic, model on 3 photos, x4; results that lie in outputs/evaluate stay"
    assert last.startswith("open outputs/evaluate/report.html in a browser")
    assert "| against bicubic | PSNR |" in (folder / "table.md").read_text()
    for name in ("table.md", "report.html", "compare/photo0.png"):
        assert (folder / name).stat().st_size > 0


def test_what_is_there_is_not_made_again(photo_folder, tmp_path):
    photos = find_pairs(photo_folder("hr", 2, 96, 128), None, 4)
    method, calls = counted()
    first = evaluate(photos, [method], Evaluator(4), tmp_path / "out")
    assert len(calls) == 2
    pictures = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "mine").iterdir()}
    again = evaluate(photos, [method, bicubic(4)], Evaluator(4), tmp_path / "out")
    assert len(calls) == 2 and again.results["mine"] == first.results["mine"]
    assert {path: path.stat().st_mtime_ns for path in pictures} == pictures
    assert again.seconds["mine"] == first.seconds["mine"]


WRONG = json.dumps({**dict.fromkeys(sorted(RECORD), 1.0), "kernel": None})  # all keys, but metrics are a number


@pytest.mark.parametrize("record", ["{", "[]", "null", "3", "{}", '{"made_by": 3}', WRONG])
def test_what_changed_is_made_again(photo_folder, tmp_path, caplog, record):
    hr, out = photo_folder("hr", 2, 96, 128), tmp_path / "out"
    method, calls = counted()
    first = evaluate(find_pairs(hr, None, 4), [method], Evaluator(4), out).results["mine"]
    (out / "mine" / "photo0.json").write_text(record)
    (out / "mine" / "photo1.png").write_bytes(b"no picture")
    evaluate(find_pairs(hr, None, 4), [method], Evaluator(4), out)
    assert len(calls) == 4
    assert caplog.messages == [f"{out}/mine/photo0.json: is damaged, so the picture beside it is made anew"]
    shutil.copy(hr / "photo0.png", hr / "photo1.png")  # another photo under its name
    now = evaluate(find_pairs(hr, None, 4), [method], Evaluator(4), out).results["mine"]
    assert len(calls) == 5 and now["photo1"] == first["photo0"] != first["photo1"]
    other, others = counted(offset=0.1)  # another method under its name
    brighter = evaluate(find_pairs(hr, None, 4), [other], Evaluator(4), out).results["mine"]
    assert len(others) == 2 and brighter["photo0"]["psnr"] < first["photo0"]["psnr"]


def test_another_metric_measures_again_what_was_made(photo_folder, tmp_path):
    photos = find_pairs(photo_folder("hr", 1, 96, 128), None, 4)
    method, calls = counted()
    evaluate(photos, [method], Evaluator(4), tmp_path)
    evaluator = Evaluator(4, lambda sr, hr: (sr - hr).abs().mean(), settings={"net": "mine"})
    values = evaluate(photos, [method], evaluator, tmp_path).results["mine"]["photo0"]
    pair = photos[0].read()
    assert len(calls) == 1
    expected = image_metrics(method.run(pair.lr).sr[None], pair.hr[None], 4, evaluator.lpips)
    assert values["lpips"] == pytest.approx(expected["lpips"], rel=1e-4)


def test_a_run_that_is_killed_between_picture_and_record_goes_on(photo_folder, tmp_path):
    """An old record beside a newer picture would be taken for its own."""
    photos = find_pairs(photo_folder("hr", 1, 96, 128), None, 4)
    old, _ = counted()
    new, _ = counted(offset=0.2)
    first = evaluate(photos, [old], Evaluator(4), tmp_path).results

    class Killed(BaseException):
        pass

    def measure_killed(sr, hr):
        raise Killed

    evaluator = Evaluator(4, measure_killed)
    with pytest.raises(Killed):
        evaluate(photos, [new], evaluator, tmp_path)
    assert evaluate(photos, [old], Evaluator(4), tmp_path).results == first


def test_a_photo_on_which_a_method_fails_does_not_stop_the_others(photo_folder, compose, tmp_path, monkeypatch):
    hr = photo_folder("hr", 2, 96, 128)
    shutil.copy(photo_folder("wide", 1, 96, 160) / "photo0.png", hr / "wide.png")
    method, _ = counted(fails=(40,))
    done = evaluate(find_pairs(hr, None, 4), [bicubic(4), method], Evaluator(4), tmp_path / "out")
    assert done.failures == ["mine, wide: does not like it"]
    assert list(done.results["bicubic"]) == ["photo0", "photo1", "wide"]
    assert list(done.results["mine"]) == ["photo0", "photo1"]
    mean = tabulate(done.results).mean
    assert mean["bicubic"] == pytest.approx(mean["mine"])

    monkeypatch.setattr("realsr.evaluate.build_methods", lambda cfg: [bicubic(4), method])
    with pytest.raises(InputError, match="1 results are missing: mine, wide: does not like it"):
        run_evaluate(compose("evaluate", f"hr={hr}", f"output={tmp_path / 'cli'}", "metrics.lpips=null"))
    assert "Means over the 2 of 3 images" in (tmp_path / "cli" / "table.md").read_text()


def test_photos_without_ground_truth(photo_folder, compose, tmp_path):
    lr = photo_folder("lr", 2, 100, 120)
    run_evaluate(compose("evaluate", f"lr={lr}", f"output={tmp_path / 'out'}", "metrics.niqe=null"))
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(content["mean"]["bicubic"]) == {"noise", "edges"}
    assert read_image(tmp_path / "out" / "bicubic" / "photo1.png").rgb.shape == (400, 480, 3)


def test_zero_shot_methods(tmp_path):
    write_image(tmp_path / "lr" / "leaves.png", Photo(to_uint(leaves(80, 96))))
    small = partial(ZSSR, iterations=4, again=2, channels=8, back_projections=1)
    estimator = partial(PatchMatching, iterations=4)
    methods = [zssr(4, small, "cpu"), zssr(4, small, "cpu", estimator)]
    done = evaluate(find_pairs(None, tmp_path / "lr", 4), methods, Evaluator(4), tmp_path / "out")
    assert not done.failures
    assert done.kernels["leaves"].shape == (33, 33)
    pictures = [read_image(tmp_path / "out" / name / "leaves.png").rgb for name in ("zssr", "k_zssr")]
    assert pictures[0].shape == pictures[1].shape == (320, 384, 3)
    assert not np.array_equal(*pictures)
    json.dumps([dict(method.made_by) for method in methods])


def test_networks_of_a_name_each(checkpoint, photo_folder, compose, tmp_path):
    bright = save_compact(nearest((0.1, 0.1, 0.1)), tmp_path / "bright.ckpt")
    hr, out = photo_folder("hr", 1, 96, 128), tmp_path / "out"
    given = f"methods=[bicubic,a:{checkpoint},b.2:{bright}]"
    run_evaluate(compose("evaluate", given, f"hr={hr}", f"output={out}", "metrics.lpips=null", "accelerator=cpu"))
    means = [read_image(path / "photo0.png").rgb.mean() for path in (out / "bicubic", out / "a", out / "b.2")]
    assert abs(means[0] - means[1]) < 2 and means[2] > means[1] + 20
    assert len(find_images(out / "compare")) == 1


def test_a_network_is_known_by_its_weights_not_its_name(checkpoint, tmp_path):
    shutil.copy(checkpoint, tmp_path / "copy.ckpt")
    assert network("a", checkpoint, 4).made_by == network("a", tmp_path / "copy.ckpt", 4).made_by
    assert network("a", checkpoint, 4).made_by != network("a", checkpoint, 4, keep_colours=True).made_by
    with pytest.raises(InputError, match="enlarges by 4, not by 2; give scale=4"):
        network("a", checkpoint, 2)


def test_a_network_as_onnx_is_measured_too(checkpoint, tmp_path):
    """With half=true it is another one."""
    file = export(checkpoint, tmp_path / "model.onnx", "onnx")
    lr = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
    method = network("a", file, 4)
    torch.testing.assert_close(method.run(lr).sr, network("b", checkpoint, 4).run(lr).sr, atol=1e-5, rtol=0)
    assert method.made_by != network("b", checkpoint, 4).made_by
    with pytest.raises(InputError, match="enlarges by 4, not by 2; give scale=4"):
        network("a", file, 2)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["edsr"], "'edsr' is none of bicubic, zssr, k_zssr; a network is given as NAME:FILE"),
        (["mine:a", "b.ckpt"], "in quotes where the file has a comma in its name: \"methods=[bicubic,'NAME:a,b.ckpt']"),
        (["edsr:x", "EDSR:y"], "two of the name 'EDSR'"),  # one folder on some systems
        (["zssr", "zssr"], "two of the name 'zssr'"),
        (["a/b:x"], "give NAME:FILE"),
        ([":x"], "give NAME:FILE"),
        (["a:"], "give NAME:FILE"),
        (["..:x"], "give NAME:FILE"),
        *(([f"{name}:x"], "a NAME of letters and digits of its own") for name in RESERVED),
        (["Compare:x"], "a NAME of letters and digits of its own"),
    ],
)
def test_methods_that_are_none(given, says):
    with pytest.raises(InputError) as error:
        split_names(given)
    assert says in str(error.value)
    assert split_names(["a:C:\\x.pth", "bicubic"]) == [("a", "C:\\x.pth"), ("bicubic", None)]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["methods=[]"], "nothing to evaluate"),
        ([], "no test images: give hr=DIR"),
        (["testset=df2k_val"], "testset.root is not set"),
        (["testset=df2k_val", "testset.root=nowhere"], "nowhere/DIV2K_valid_HR: no such folder"),
        (["hr=hr", "ckpt=missing.ckpt"], "missing.ckpt: no such checkpoint"),
        (["hr=hr", "report.side=8"], "report.side=8: give 64 to 16383"),
        (["hr=hr", "methods=[zssr]", "scale=3"], "scale=3: ZSSR doubles photos"),
        (["hr=hr", "methods=[k_zssr]", "scale=8"], "scale=8: ZSSR doubles photos"),
        (["hr=hr", "methods=[zssr]", "zssr.crop=3"], "zssr.crop=3: give an even number"),
        (["hr=hr", "methods=[k_zssr]", "estimator.iterations=0"], "estimator.iterations=0: give 1 or more"),
        (["hr=hr", "seed=-1"], "seed=-1: give 0 to"),
        (["hr=hr", "seed=18446744073709551616"], "give 0 to 4294967295"),
        (["hr=hr", "testset=samples"], "hr=hr: goes with testset=folder; here it is quickstart/photos/test_hr"),
    ],
)
def test_mistakes(compose, photo_folder, tmp_path, monkeypatch, given, says):
    monkeypatch.chdir(tmp_path)
    photo_folder("hr", 1, 96, 128)
    with pytest.raises(Exception) as error:
        run_evaluate(compose("evaluate", "metrics.lpips=null", *given))
    line = explain(error.value)
    assert says in line and "results are missing" not in line


def test_images_too_small_to_be_measured_are_named_before_anything_is_made(photo_folder, tmp_path):
    method, calls = counted()
    with pytest.raises(InputError, match=r"photo0\.png: 20x16 pixels are too few, SSIM needs 19 on a side"):
        evaluate(find_pairs(photo_folder("hr", 1, 16, 20), None, 4), [method], Evaluator(4), tmp_path / "out")
    assert not calls


@pytest.mark.parametrize("name", ["df2k_val", "dped_val"])
def test_the_papers_sets_by_name(compose, photo_folder, tmp_path, name):
    root = tmp_path / "ntire"
    if name == "df2k_val":
        shutil.copytree(photo_folder("hr", 1, 96, 128), root / "DIV2K_valid_HR")
        shutil.copytree(photo_folder("lr", 1, 24, 32), root / "Corrupted-va-x")
    else:
        shutil.copytree(photo_folder("lr", 1, 64, 64), root / "DPEDiphone-va")
    given = [
        f"testset={name}",
        f"testset.root={root}",
        f"output={tmp_path / 'out'}",
        "metrics.lpips=null",
        "metrics.niqe=null",
    ]
    run_evaluate(compose("evaluate", *given))
    table = (tmp_path / "out" / "table.md").read_text()
    assert ("| realsr |" in table) and ("24.82" if name == "df2k_val" else "5.00") in table


@pytest.mark.parametrize("place", ["mine", "compare"])
def test_results_are_never_written_over_the_photos(photo_folder, tmp_path, place):
    hr = photo_folder(f"data/{place}", 1, 96, 128)
    before, (method, calls) = (hr / "photo0.png").read_bytes(), counted()
    with pytest.raises(InputError, match=rf"{place}/photo0\.png: lies where results go, in .*data; give"):
        evaluate(find_pairs(hr, None, 4), [method], Evaluator(4), tmp_path / "data")
    assert not calls and (hr / "photo0.png").read_bytes() == before


def test_results_are_not_the_next_runs_photos(compose, photo_folder, tmp_path, monkeypatch):
    photo_folder("hr", 1, 96, 128)
    monkeypatch.chdir(tmp_path)
    for output in ("hr", "hr/out"):
        with pytest.raises(InputError, match=f"output={output}: lies in hr"):
            run_evaluate(compose("evaluate", "hr=hr", f"output={output}", "metrics.lpips=null"))
    run_evaluate(compose("evaluate", "hr=.", "output=outputs/evaluate", "metrics.lpips=null"))  # is left out
    run_evaluate(compose("evaluate", "hr=.", "output=outputs/evaluate", "metrics.lpips=null"))


def test_a_damaged_photo_does_not_stop_the_others(compose, photo_folder, tmp_path):
    hr = photo_folder("hr", 3, 96, 128)
    whole = (hr / "photo1.png").read_bytes()
    (hr / "photo1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"1 results are missing: .*photo1\.png: cannot be decoded"):
        run_evaluate(compose("evaluate", f"hr={hr}", f"output={tmp_path / 'out'}", "metrics.lpips=null"))
    rows = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    assert [row["image"] for row in rows] == ["photo0", "photo2"]
    assert "photo1.png: cannot be decoded" in (tmp_path / "out" / "report.html").read_text()


def test_a_network_that_gives_nan_has_no_result(photo_folder, tmp_path):
    method, _ = counted(offset=float("nan"))
    done = evaluate(find_pairs(photo_folder("hr", 1, 96, 128), None, 4), [method], Evaluator(4), tmp_path / "out")
    assert done.failures == ["mine, photo0: its picture has pixels that are NaN or infinite"]
    assert not list((tmp_path / "out" / "mine").glob("*"))


@pytest.mark.parametrize("content", [{"config": "text"}, {"config": {"data": None}}, {"config": {"data": {}}}])
def test_a_checkpoint_of_another_program_says_nothing_of_its_pools(content):
    assert pool_pictures([Method("a", bicubic(4).run, {}, content)]) == {}


def test_pools_that_were_emptied_since_are_left_out_of_the_report(tmp_path, caplog):
    content = {"config": {"data": {"pools": {"kernel_dir": str(tmp_path), "noise_dir": None, "scale": 4}}}}
    assert pool_pictures([Method("a", bicubic(4).run, {}, content)]) == {}
    assert "left out of the report" in caplog.text and "kernel pool is empty" in caplog.text


@pytest.mark.parametrize(
    ("paper", "says"),
    [
        ({"rows": {"x": {"psnr": 3.0}}}, "give source"),
        ({"source": 3, "rows": {"x": {"psnr": 3.0}}}, "give source"),
        ({"source": "a", "rows": {"x": 3}}, "give source"),
        ({"source": "a", "rows": {"x": {"psnr": "high"}}}, "give source"),
        ({"source": "a", "rows": {"x": {"pnsr": 3.0}}}, "pnsr is none of the metrics psnr, "),
    ],
)
def test_a_papers_figures_that_are_none(paper, says):
    with pytest.raises(InputError, match=says):
        check_paper(paper)


def test_brackets_in_titles_and_sources_are_text(capsys):
    paper = {"source": "Ji [et al]", "rows": {"[x]": {"psnr": 3.0}}}
    print_tables(tabulate({"bicubic": {"a": {"psnr": 30.0}}}, paper), "mine [/b]")
    printed = capsys.readouterr().out
    assert "mine [/b]" in printed and "Ji [et al]" in printed and "[x]" in printed


@pytest.mark.skipif(os.name != "posix", reason="names of files are text elsewhere")
def test_names_of_files_that_are_no_text(tmp_path):
    results = {"bicubic": {os.fsdecode(b"a\xff"): {"psnr": 30.0}}}
    write_tables(tabulate(results), results, tmp_path)
    assert "bicubic,a?,30.0" in (tmp_path / "images.csv").read_text()


def test_photos_too_small_for_niqe_are_named_before_anything_is_made(photo_folder, tmp_path):
    method, calls = counted()
    photos = find_pairs(None, photo_folder("lr", 1, 24, 30), 4)
    with pytest.raises(InputError, match=r"photo0\.png: its result of 120x96 pixels is too small for NIQE"):
        evaluate(photos, [method], Evaluator(4, niqe=lambda sr: 3.0), tmp_path / "out")
    assert not calls
    assert evaluate(photos, [method], Evaluator(4), tmp_path / "out").results["mine"]["photo0"].keys() == {
        "noise",
        "edges",
    }


def test_the_table_is_printed_where_there_is_no_minus_sign(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", stream)
    print_tables(tabulate({"bicubic": {"a": {"psnr": math.inf}}, "b": {"a": {"psnr": -3.0}}}), "日 a")
    stream.flush()
    printed = stream.buffer.getvalue().decode("cp1252")
    assert "-3.00" in printed and "inf" in printed and "? a" in printed


def test_another_file_of_weights_measures_again(compose, photo_folder, tmp_path):
    hr, weights = photo_folder("hr", 1, 96, 128), tmp_path / "squeeze.pth"
    values = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(torchvision.models.squeezenet1_1().state_dict(), weights)
        lpips = ["metrics.lpips.net=squeeze", f"metrics.lpips.backbone={weights}"]
        run_evaluate(compose("evaluate", f"hr={hr}", f"output={tmp_path / 'out'}", *lpips))
        values.append(json.loads((tmp_path / "out" / "metrics.json").read_text())["mean"]["bicubic"])
    assert values[0]["psnr"] == values[1]["psnr"] and values[0]["lpips"] != values[1]["lpips"]


def test_a_test_photo_that_training_saw_is_told_at_once(fit, compose, photo_folder, tmp_path, capsys):
    """By its pixels: the copy has another name and format."""
    folder = fit("run", "degradation=bicubic", "trainer.max_steps=1", "data.validation.count=1")
    held = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["held_out"]["photos"]["photos"]
    test = tmp_path / "test"
    for photo in find_images(tmp_path / "clean"):
        write_image(test / f"copy_of_{photo.stem}.bmp", read_image(photo))
    given = [f"ckpt={folder / 'checkpoints' / 'last.ckpt'}", f"hr={test}", f"output={tmp_path / 'out'}"]
    run_evaluate(compose("evaluate", *given, "metrics.lpips=null", "accelerator=cpu"))
    line = "model was trained on 2 of these 3 photos"
    assert line in capsys.readouterr().out.replace("\n", " ")
    for name in ("table.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert line in text and f"copy_of_{held[0]}," not in text.partition(line)[2].partition(".")[0]
        assert "LR was made of the ground truth by bicubic" in text


def test_a_metric_that_could_not_be_had_is_measured_once_it_is_there(photo_folder, tmp_path):
    photos = find_pairs(photo_folder("hr", 1, 96, 128), None, 4)
    settings = {"lpips": {"net": "alex", "backbone": None}}  # the same, whether it could be downloaded or not
    without = evaluate(photos, [bicubic(4)], Evaluator(4, settings=settings), tmp_path).results["bicubic"]["photo0"]
    evaluator = Evaluator(4, lambda sr, hr: (sr - hr).abs().mean(), settings=settings)
    values = evaluate(photos, [bicubic(4)], evaluator, tmp_path).results["bicubic"]["photo0"]
    assert "lpips" not in without and values["lpips"] > 0


def test_no_memory_for_one_method_does_not_stop_the_others(photo_folder, tmp_path):
    photos = find_pairs(photo_folder("hr", 1, 96, 128), None, 4)

    def fail(lr):
        raise torch.OutOfMemoryError("CUDA out of memory")

    done = evaluate(photos, [Method("large", fail, {}), bicubic(4)], Evaluator(4), tmp_path)
    assert done.failures == ["large, photo0: CUDA out of memory"]
    assert list(done.results["bicubic"]) == ["photo0"]


def test_a_picture_that_is_not_the_one_that_was_measured_is_made_anew(photo_folder, tmp_path):
    photos = find_pairs(photo_folder("hr", 2, 96, 128), None, 4)
    method, calls = counted()
    first = evaluate(photos, [method], Evaluator(4), tmp_path / "out").results
    shutil.copy(tmp_path / "out/mine/photo1.png", tmp_path / "out/mine/photo0.png")
    again = evaluate(photos, [method], Evaluator(4), tmp_path / "out").results
    assert len(calls) == 3 and again == first
    assert find_images(tmp_path / "out/mine")[0].read_bytes() != find_images(tmp_path / "out/mine")[1].read_bytes()
