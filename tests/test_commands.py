"""The commands as a user runs them, on folders of small photos."""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call
from forked import run_forked
from PIL import Image

from realsr import train
from realsr.estimation.kernelgan.module import KernelGAN
from realsr.imaging import read_image
from realsr.pools.estimate import estimate_kernels
from realsr.pools.folder import Entry
from realsr.runtime.files import find_images


def test_estimate_then_collect_fill_the_pools_and_resume(photo_folder, tmp_path):
    photos = photo_folder("photos with spaces", 2, noise=0.01)
    (photos / "broken.png").write_bytes((photos / "photo0.png").read_bytes()[:500])
    options = ["estimator=kernelgan", "estimator.iterations=30", "estimator.channels=8", f"pool_dir={tmp_path}/pools"]
    done = call("realsr.estimate", f"data.source_dir='{photos}'", *options, cwd=tmp_path)
    kernels = tmp_path / "pools" / "kernels"
    entries = [Entry.read(path) for path in sorted(kernels.glob("*.npz"))]
    first, *_, gap, train = done.stdout.splitlines()
    assert first == f"estimating the kernels of 3 photos in {photos}, about 11 s of a core each"
    assert gap == "  python -m realsr.gap 'data.source_dir=photos with spaces' pool_dir=pools"
    assert train == "  python -m realsr.train experiment=laptop 'data.source_dir=photos with spaces' pool_dir=pools"
    assert "broken.png" in done.stdout
    assert "1 photo skipped" in done.stdout
    assert [entry.manifest["photo"] for entry in entries] == ["photo0.png", "photo1.png"]
    for entry in entries:
        assert entry.manifest["iterations"] == 30
        assert entry.manifest["settings"]["channels"] == 8
        assert len(entry.manifest["sha256"]) == 64
        assert {"total", "bicubic", "critic"} <= set(entry.manifest["losses"])
        assert entry.arrays["x2"].sum() == pytest.approx(1)
        assert entry.arrays["x4"].sum() == pytest.approx(1)
    assert read_image(kernels / "contact_sheet.png").rgb.shape[0] > 128

    stamps = {entry.path: entry.path.stat().st_mtime_ns for entry in entries}
    entries[1].path.unlink()
    run_forked("realsr.estimate", f"data.source_dir='{photos}'", *options, cwd=tmp_path)
    assert entries[0].path.stat().st_mtime_ns == stamps[entries[0].path]
    again = Entry.read(entries[1].path)
    assert all(np.array_equal(again.arrays[name], entries[1].arrays[name]) for name in ("x2", "x4"))

    rule = ["collector=df2k", "collector.tile_size=16", "collector.stride=16", f"pool_dir={tmp_path}/pools"]
    done = call("realsr.collect", f"data.source_dir='{photos}'", "collector.max_variance=30", *rule, cwd=tmp_path)
    first, *_, where, estimate = done.stdout.splitlines()
    assert first.startswith(f"collecting noise and JPEG tables from 3 photos in {photos}: ")
    assert where == "the pools lie in pools; next:"
    assert estimate == "  python -m realsr.estimate 'data.source_dir=photos with spaces' pool_dir=pools"
    assert "photo0.png: " in done.stdout
    assert "of 120 tiles" in done.stdout
    strict = [f"data.source_dir='{photos}'", "collector.max_variance=0.01", *rule]
    done = run_forked("realsr.collect", *strict, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "have a variance of collector.max_variance=0.01 or more" in done.stderr
    done = run_forked("realsr.collect", *strict, "collector.keep_best=7", cwd=tmp_path)
    assert "7 tiles" in done.stdout


def test_a_pool_of_a_photo_does_not_depend_on_the_others(photo_folder, tmp_path):
    def estimator():
        return KernelGAN(iterations=20, channels=8)

    photos = find_images(photo_folder("photos", 2))
    together = estimate_kernels(photos, tmp_path / "a", estimator, 4, "cpu")
    alone = estimate_kernels(photos[1:], tmp_path / "b", estimator, 4, "cpu")
    size = alone.kernels.shape[-1]
    cut = (together.kernels.shape[-1] - size) // 2
    assert torch.equal(together.kernels[1, cut : cut + size, cut : cut + size], alone.kernels[0])


def test_upscale_keeps_structure_names_and_kinds(checkpoint, tmp_path):
    rng = np.random.default_rng(0)
    photos = tmp_path / "in" / "sub"
    photos.mkdir(parents=True)
    rgb = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(photos / "a.jpg")
    Image.fromarray(rgb).save(photos / "a.bmp")
    Image.fromarray(rgb[..., 0]).save(photos / "gray.png")
    Image.fromarray(np.dstack([rgb, rgb[..., :1]])).save(photos / "alpha.png")
    (photos / "bad.png").write_text("no picture")
    options = [f"ckpt={checkpoint}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "tile=16", "overlap=12"]
    done = call("realsr.upscale", *options, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "bad.png" in done.stderr
    first, *_, last = done.stdout.splitlines()
    assert re.fullmatch(rf"enlarging 5 photos in {tmp_path}/in, [\d.]+ s a megapixel on cpu", first)
    assert last == f"4 photos written to {tmp_path}/out, 1 failed; open it in a file browser"
    out = tmp_path / "out" / "sub"
    assert sorted(p.name for p in out.iterdir()) == ["a.bmp.png", "a.jpg.png", "alpha.png", "gray.png"]
    assert all(read_image(p).rgb.shape == (80, 120, 3) for p in out.iterdir())
    assert read_image(out / "gray.png").gray
    assert read_image(out / "alpha.png").alpha is not None
    assert np.array_equal(read_image(out / "a.bmp.png").rgb, rgb.repeat(4, 0).repeat(4, 1))


def test_quickstart_ends_with_tables_and_a_picture(tmp_path):
    tiny = ["estimator.iterations=20", "model.warmup_steps=2", "trainer.max_steps=4"]
    tiny += ["trainer.val_check_interval=4", "callbacks.last.every_n_train_steps=2"]
    options = f"options={tiny}"
    done = call("realsr.quickstart", "folder=q", "lpips=null", options, cwd=tmp_path)
    first, *_, where, train = done.stdout.splitlines()
    assert first.startswith("the whole method on photos in the package, into q: 2.4 minutes of one core")
    assert where.startswith("the network lies in q/run_seed0; your own photos")
    assert train == "  python -m realsr.train experiment=laptop data.source_dir=photos data.clean_dir=clean"
    steps = "missing pools are made, then 4 steps of 4 crops; a bar tells the time"
    assert f"training into q/run_seed0 on the embedded sample: {steps}" in done.stdout
    for text in ("estimated", "assuming bicubic", "PSNR", "bicubic", "model", "comparison.png"):
        assert text in done.stdout
    results = tmp_path / "q" / "results_seed0"
    assert read_image(results / "comparison.png").rgb.shape[1] > 3 * 256
    assert read_image(results / "model" / "coffee.png").rgb.shape == (396, 600, 3)
    assert done.stdout.count("quantisation tables of 4 of 4 photos") == 1
    again = run_forked("realsr.quickstart", "folder=q", "lpips=null", options, cwd=tmp_path)
    assert "comparison.png" in again.stdout


def test_a_training_says_what_it_does_and_what_people_run_next(compose, tiny, caplog, monkeypatch, tmp_path):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    cfg, run = compose("train", *tiny), tmp_path / "run"
    train._begin(cfg, run)
    train._end(cfg.data, run)
    first, last = caplog.messages
    assert first.startswith("training into run on 3 photos in camera and 3 photos in clean: missing pools are made, ")
    assert last.splitlines() == [
        "the network lies in run; next:",
        "  python -m realsr.upscale ckpt=run input=camera output=large",
    ]


def test_the_ablation_sweep_ends_with_one_table(samples, sample_pools, tmp_path):
    shutil.copytree(sample_pools, tmp_path / "pools")
    run_forked(
        "realsr.train", "-m", "+sweep=ablation", "experiment=quickstart", f"data.samples_dir={samples}",
        f"pool_dir={tmp_path / 'pools'}", "model.warmup_steps=1", "trainer.max_steps=2", "data.crop_size=64",
        "data.validation.size=128", "data.validation.look_count=0",
        "trainer.val_check_interval=2", "callbacks.last.every_n_train_steps=1", cwd=tmp_path,
    )  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "outputs" / "ablation" / "table.csv").open()))
    assert [row["run"] for row in rows] == ["bicubic", "noise", "kernel", "vgg128", "patch", "camera"]
    assert all(float(row["psnr"]) > 20 for row in rows)
    table = (tmp_path / "outputs" / "ablation" / "table.md").read_text()
    assert table.startswith("| run | PSNR |")
    states = {
        name: torch.load(tmp_path / f"outputs/ablation/{name}_seed0/checkpoints/last.ckpt", weights_only=True)["config"]
        for name in ("vgg128", "patch")
    }
    assert states["vgg128"]["model"]["discriminator"]["input_size"] == 64
    assert "layers" in states["patch"]["model"]["discriminator"]


def test_the_wheel_brings_its_configs_and_what_a_page_is_made_of(tmp_path):
    root = Path(__file__).parents[1]
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(root)]
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import realsr, realsr.runtime.help as h;"
        f"assert realsr.__file__.startswith({str(site)!r}); print(h.conf_dir());"
        "sys.argv = ['realsr-train', '--cfg', 'job', 'model=compact', 'data.source_dir=x'];"
        "from realsr.train import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site / "realsr" / "conf"))
    assert "spandrel.architectures.Compact.Compact" in done.stdout
    assert (site / "bin" / "realsr-train").exists()
    report = (site / "realsr" / "reports" / "templates").iterdir()
    assert {path.name for path in report} == {path.name for path in (root / "realsr/reports/templates").iterdir()}


def test_every_benchmark_finds_what_it_imports(monkeypatch, tmp_path):
    folder = Path(__file__).parent / "benchmarks"
    (tmp_path / "imports.py").write_text("\n".join(f"import {file.stem}" for file in sorted(folder.glob("*.py"))))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    run_forked("imports", cwd=tmp_path)
