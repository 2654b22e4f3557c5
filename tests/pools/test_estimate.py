"""Photos side by side and over jobs: the pool is the same, and what was made is not lost."""

import functools
import os
import re
import signal
import time

import numpy as np
import pytest
from forked import Command, run_forked
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from realsr.estimate import _run as run
from realsr.estimation.kernelgan.module import KernelGAN
from realsr.estimation.patch_matching import PatchMatching
from realsr.imaging import Photo, write_image
from realsr.pools.estimate import estimate_kernels
from realsr.pools.folder import Entry
from realsr.pools.pool import NoisePool
from realsr.pools.shards import CountShards, jobs_here, shard_of
from realsr.runtime.errors import InputError
from realsr.runtime.files import find_images

TINY = ["estimator.iterations=15", "accelerator=cpu"]


def content(folder):
    """All arrays of a pool, as bytes."""
    entries = [Entry.read(path) for path in sorted(folder.glob("*.npz"))]
    return {(entry.path.name, name): array.tobytes() for entry in entries for name, array in entry.arrays.items()}


def wait_until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def nobody_left(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    "estimator",
    [functools.partial(PatchMatching, iterations=15), functools.partial(KernelGAN, iterations=15, channels=8)],
)
def test_the_pool_does_not_depend_on_the_number_of_workers(photo_folder, tmp_path, caplog, estimator):
    photos = photo_folder("photos", 3, 96, 96)
    (photos / "broken.png").write_bytes(b"no picture")
    for folder, workers in ((tmp_path / "alone", 1), (tmp_path / "together", 3)):
        caplog.clear()
        estimate_kernels(find_images(photos), folder, estimator, 4, "cpu", workers=workers)
        assert "broken.png" in caplog.text
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert len(names) == 3 + 2  # the contact sheet, and why the broken one gave nothing
    assert names == sorted(path.name for path in (tmp_path / "together").iterdir())
    for name in names:
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "together" / name).read_bytes()


def add_noise_photo(folder):
    """A photo beside the others that shows noise and nothing else."""
    gray = np.clip(0.5 + 0.1 * np.random.default_rng(0).standard_normal((160, 192, 1)), 0, 1)
    write_image(folder / "noise.png", Photo((255 * gray).round().astype(np.uint8).repeat(3, 2)))
    return folder


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("rough_fit")
def test_entries_say_what_was_looked_at_and_how_sure_it_is(photo_folder, tmp_path, compose, caplog, workers):
    photos = add_noise_photo(photo_folder("photos", 2, 320, 160, 0.02))
    options = [f"data.source_dir={photos}", f"pool_dir={tmp_path / 'pools'}", f"workers={workers}"]
    run(compose("estimate", *TINY, *options, "pool.min_confidence=0.5", "export=npy"))
    entries = {entry.manifest["photo"]: entry for entry in map(Entry.read, (tmp_path / "pools/kernels").glob("*.npz"))}
    assert sorted(entries) == ["noise.png", "photo0.png", "photo1.png"]
    for name, entry in entries.items():
        assert set(entry.arrays) == {"x2", "x3", "x4", "thumbnail", "density", "response"}
        sides = (160, 80) if name != "noise.png" else (133, 160)
        assert entry.arrays["thumbnail"].shape == (*sides, 3) and entry.arrays["density"].shape == sides
        assert entry.arrays["thumbnail"].dtype == entry.arrays["density"].dtype == np.uint8
        assert entry.arrays["density"].max() == 255
        assert {"estimator": "PatchMatching", "iterations": 15}.items() <= entry.manifest["settings"].items()
        assert (entry.manifest["iterations"], set(entry.manifest["losses"])) == (15, {"distance"})
    good, bad = entries["photo0.png"].manifest, entries["noise.png"].manifest
    assert good["confidence"] > 0.8 and good["reasons"] == [] and not good["doubtful"]
    assert bad["confidence"] < 0.5 and "of the detail is noise" in bad["reasons"][0]
    assert f"{photos / 'noise.png'}: confidence {bad['confidence']:.2f}, {bad['reasons'][0]}" in caplog.text
    assert "photo0.png: confidence" not in caplog.text
    assert len(np.load(tmp_path / "pools" / "kernels_npy" / "kernels_x4.npy")) == 2


@pytest.mark.usefixtures("rough_fit")
def test_the_cameras_noise_comes_first(photo_folder, tmp_path, compose, caplog):
    caplog.set_level("INFO")
    photos = photo_folder("photos", 2, 160, 192, 0.02)
    wall = 0.5 + 0.02 * np.random.default_rng(0).standard_normal((160, 192, 3))
    write_image(photos / "wall.png", Photo((255 * wall).round().astype(np.uint8)))
    options = [*TINY, f"data.source_dir={photos}", f"pool_dir={tmp_path}", "workers=1"]
    run(compose("estimate", *options))
    assert len(NoisePool.load(tmp_path / "noise")) > 4
    entries = [Entry.read(path) for path in (tmp_path / "kernels").glob("*.npz")]
    assert {entry.manifest["settings"]["noise"] for entry in entries} == {"camera"}
    assert "without the camera's noise" not in caplog.text


@pytest.mark.usefixtures("rough_fit")
def test_the_cameras_noise_is_asked_for_where_a_kernel_is_missing(photo_folder, tmp_path, compose, monkeypatch):
    photos = photo_folder("photos", 2, 160, 192, 0.02)
    options = [*TINY, f"data.source_dir={photos}", f"pool_dir={tmp_path}", "workers=1"]
    asked = []
    monkeypatch.setattr("realsr.estimate.camera_noise", lambda photos, *_: asked.append([p.name for p in photos]))
    run(compose("estimate", *options, "estimator=kernelgan", "estimator.channels=8"))
    assert not asked
    run(compose("estimate", *options, "shards=2", "shard=1"))
    assert asked == [["photo1.png", "photo0.png"]]  # its own first: the other shard measures the others meanwhile
    made = content(tmp_path / "kernels")
    monkeypatch.undo()
    run(compose("estimate", *options))  # there is noise, so kernels without it are made anew
    assert content(tmp_path / "kernels") != made
    monkeypatch.setattr("realsr.estimate.camera_noise", lambda *_: pytest.fail("no kernel is missing"))
    run(compose("estimate", *options))


def test_photos_without_a_flat_tile_have_noise_of_their_own(photo_folder, tmp_path, compose, caplog):
    photos = photo_folder("photos", 2, 96, 96)
    run(compose("estimate", *TINY, f"data.source_dir={photos}", f"pool_dir={tmp_path}", "workers=1"))
    assert "kernels are estimated without the camera's noise, with each photo's own: no noise tile" in caplog.text
    entries = [Entry.read(path) for path in (tmp_path / "kernels").glob("*.npz")]
    assert [entry.manifest["settings"]["noise"] for entry in entries] == ["photo", "photo"]


def test_kernels_of_an_earlier_version_are_made_anew(photo_folder, tmp_path, caplog):
    """In training, too, where kernels of other settings stay."""
    caplog.set_level("INFO")
    photos = find_images(photo_folder("photos", 2, 96, 96))
    settled = functools.partial(PatchMatching, iterations=15)
    estimate_kernels(photos, tmp_path, settled, 4, "cpu")
    made = content(tmp_path)
    estimate_kernels(photos, tmp_path, functools.partial(PatchMatching, iterations=16), 4, "cpu", redo=False)
    assert content(tmp_path) == made and "earlier version" not in caplog.text
    for path in tmp_path.glob("*.npz"):
        entry = Entry.read(path)
        del entry.arrays["response"]
        entry.manifest["settings"]["smooth"] = 1
        entry.arrays["x4"] = entry.arrays["x4"].T.copy()
        entry.write()
    estimate_kernels(photos, tmp_path, settled, 4, "cpu", redo=False)
    assert content(tmp_path) == made
    assert caplog.text.count("is of an earlier version, which took sharpening for the lens; it is made anew") == 1


def test_a_pool_draws_kernels_towards_the_cameras(photo_folder, tmp_path):
    photos = find_images(photo_folder("photos", 3, 160, 160))
    spreads = {}
    for shrink in (True, False):
        folder = tmp_path / str(shrink)
        pool = estimate_kernels(
            photos, folder, functools.partial(PatchMatching, iterations=50, shrink=shrink), 4, "cpu"
        )
        own = [Entry.read(path).arrays["x4"] for path in sorted(folder.glob("*.npz"))]
        assert shrink != np.allclose(pool.kernels, np.stack(own), atol=1e-6)
        spreads[shrink] = pool.kernels.std(0).sum()
        np.testing.assert_allclose(pool.kernels.sum((1, 2)), 1, atol=1e-5)
    assert spreads[True] < spreads[False]


def test_an_export_alone_estimates_nothing(photo_folder, tmp_path, compose):
    options = [f"data.source_dir={photo_folder('photos', 2, 96, 96)}", *TINY, f"pool_dir={tmp_path}", "workers=1"]
    run(compose("estimate", *options))
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "kernels").glob("*.npz")}
    run(compose("estimate", *options, "export=mat", "pool.min_confidence=0.01", "scale=2"))
    assert {path: path.stat().st_mtime_ns for path in made} == made and len(made) == 2
    assert len(list((tmp_path / "kernels_mat").glob("*/*_kernel_x4.mat"))) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_stopped_leaves_no_process_and_loses_no_kernel(photo_folder, tmp_path, compose, number):
    """SIGKILL hits the command alone, Ctrl-C all of its processes."""
    photos, kernels = photo_folder("photos", 4, 96, 96), tmp_path / "pools" / "kernels"
    options = [f"data.source_dir={photos}", *TINY, "estimator.iterations=60"]
    process = Command("realsr.estimate", *options, "pool_dir=pools", "workers=2", cwd=tmp_path, session=True)
    wait_until(lambda: list(kernels.glob("*.npz")) or process.poll() is not None)
    (os.killpg if number is signal.SIGINT else os.kill)(process.pid, number)
    _, err = process.communicate()
    wait_until(lambda: nobody_left(process.pid))
    made = {path: path.stat().st_mtime_ns for path in kernels.glob("*.npz")}
    assert 1 <= len(made) < 4
    if number is signal.SIGINT:
        assert (process.returncode, err) == (130, "realsr: interrupted; the same command goes on\n")
        return
    assert (process.returncode, err) == (-signal.SIGKILL, "")
    run(compose("estimate", *options, f"pool_dir={tmp_path / 'pools'}", "workers=1"))
    assert {path: path.stat().st_mtime_ns for path in made} == made
    run(compose("estimate", *options, f"pool_dir={tmp_path / 'straight'}", "workers=1"))
    assert content(kernels) == content(tmp_path / "straight" / "kernels")
    assert not list(kernels.glob(".*"))


@pytest.mark.parametrize(("launcher", "workers"), [("joblib", 2), ("submitit_local", 1)])
@pytest.mark.slow
def test_shards_fill_one_pool(photo_folder, tmp_path, compose, launcher, workers):
    options = [f"data.source_dir={photo_folder('photos', 3, 96, 96)}", *TINY]  # one for the second shard
    sweep = ["shard=range(0,2)", f"hydra/launcher={launcher}", f"workers={workers}", "pool_dir=pools"]
    done = run_forked("realsr.estimate", "-m", *sweep, *options, cwd=tmp_path)
    assert "shards=2" in done.stdout
    run(compose("estimate", *options, f"pool_dir={tmp_path / 'straight'}", "workers=1"))
    assert content(tmp_path / "pools" / "kernels") == content(tmp_path / "straight" / "kernels")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "pools", "straight"]
    assert sorted(path.name for path in (tmp_path / "pools").iterdir()) == ["kernels", "noise", "report.html", "sweep"]


def test_shards_without_a_usable_photo_do_not_end_a_sweep(photo_folder, tmp_path, compose, caplog):
    caplog.set_level("INFO")
    photos = photo_folder("photos", 1, 96, 96)
    (photos / "broken.png").write_bytes(b"no picture")
    options = [f"data.source_dir={photos}", *TINY, f"pool_dir={tmp_path}", "shards=3"]
    for shard in range(3):
        run(compose("estimate", *options, f"shard={shard}"))
    assert "no kernel from 1 photo:" in caplog.text and "broken.png" in caplog.text
    assert re.search(r"kernels of 0 photos in .* \(shard 2 of 3\)", caplog.text)
    assert len(list((tmp_path / "kernels").glob("*.npz"))) == 1


@pytest.mark.parametrize(
    ("given", "added"),
    [
        (["shard=range(0,4)"], ["shards=4"]),
        (["data.source_dir=x", "shard=1,0"], ["shards=2"]),
        (["shard=choice(0,1,2)", "shards=3"], []),
        (["shard=1,3"], []),
        (["shard=2"], []),
        (["scale=2,4"], []),
    ],
)
def test_a_sweep_over_all_shards_counts_them(given, added):
    config = OmegaConf.create({"hydra": {"overrides": {"task": list(given)}}})
    OmegaConf.set_readonly(config, True)
    CountShards().on_multirun_start(config)
    assert list(config.hydra.overrides.task) == given + added


def test_every_photo_is_in_one_shard():
    photos = list(range(7))
    shards = [shard_of(photos, shard, 3) for shard in range(3)]
    assert shards == [[0, 3, 6], [1, 4], [2, 5]]
    with pytest.raises(InputError, match="shard=3 shards=3: shards count from 0 to 2"):
        shard_of(photos, 3, 3)


@pytest.mark.parametrize(
    ("launcher", "mode", "jobs"),
    [
        ({"_target_": "x.JoblibLauncher", "n_jobs": -1}, RunMode.MULTIRUN, 8),
        ({"_target_": "x.JoblibLauncher", "n_jobs": 3}, RunMode.MULTIRUN, 3),
        ({"_target_": "x.LocalLauncher"}, RunMode.MULTIRUN, 8),
        ({"_target_": "x.SlurmLauncher"}, RunMode.MULTIRUN, 1),
        ({"_target_": "x.BasicLauncher"}, RunMode.MULTIRUN, 1),
        ({"_target_": "x.JoblibLauncher", "n_jobs": -1}, RunMode.RUN, 1),
    ],
)
def test_jobs_that_share_a_machine_are_known(monkeypatch, launcher, mode, jobs):
    config = OmegaConf.create({"hydra": {"launcher": launcher, "mode": mode}})
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: config.hydra))
    assert jobs_here(8) == jobs
