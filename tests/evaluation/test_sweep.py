"""What a multirun leaves: one table over seeds, one picture, and a failed run that takes no other with it."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
import torch
from forked import run_forked
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from offline_run import OfflineRun
from omegaconf import OmegaConf

from realsr import sweep
from realsr.evaluation.sweep import comparison, read_runs, report, row_names, send
from realsr.imaging import Photo, read_image, to_uint, write_image
from realsr.reports.pictures import GAP, LABEL_HEIGHT
from realsr.runtime.config import command, output_dir
from realsr.runtime.errors import InputError
from realsr.runtime.help import conf_dir
from realsr.training.callbacks import ValidationPictures


def leave(folder: Path, number: int, options: list[str], seed: int = 0, metrics=None, failure=None) -> Path:
    """What Hydra and a training leave of a run."""
    hydra_dir = folder / ".hydra"
    hydra_dir.mkdir(parents=True)
    OmegaConf.save({"hydra": {"job": {"num": number}}}, hydra_dir / "hydra.yaml")
    OmegaConf.save({"seed": seed}, hydra_dir / "config.yaml")
    OmegaConf.save(OmegaConf.create(options), hydra_dir / "overrides.yaml")
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps({f"val/{key}": value for key, value in metrics.items()}))
    if failure is not None:
        (folder / "failed.txt").write_text(f"{failure}\nTraceback ...")
    return folder


@pytest.fixture
def swept(tmp_path):
    """Rows of three, one and no finished runs, launched in an order that is not that of their names."""
    values = np.random.default_rng(0).uniform([20, 0.5], [30, 0.9], (3, 2))
    for seed, (psnr, ssim) in enumerate(values.tolist()):
        leave(
            tmp_path / f"zebra_seed{seed}", seed, ["animal=zebra", f"seed={seed}"], seed, {"psnr": psnr, "ssim": ssim}
        )
    leave(tmp_path / "ape_seed0", 3, ["animal=ape", "seed=0"], 0, {"psnr": 25.5, "ssim": 0.75, "other": 3.0})
    leave(tmp_path / "ape_seed1", 4, ["animal=ape", "seed=1"], 1, failure="no a|b; give c")
    leave(tmp_path / "ape_seed2", 5, ["animal=ape", "seed=2", "ckpt=auto"], 2)
    leave(tmp_path / "bear_seed0", 6, ["animal=bear", "seed=0"], failure="too large")
    return tmp_path, values


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([["ablation=a", "seed=0"], ["ablation=b", "seed=0"], ["ablation=a", "seed=1"]], ["a", "b", "a"]),
        ([["seed=0", "lr=1"], ["seed=1", "lr=1"]], ["default", "default"]),
        ([["x=1", "y=1", "z=3"], ["x=1", "y=2", "z=3"], ["x=2", "y=1", "z=3"]], ["x=1 y=1", "x=1 y=2", "x=2 y=1"]),
        ([["+x=1"], ["ckpt=auto"]], ["1", "default"]),
        ([["m={a:1,b:2}"], ["m={a:1,b:3}"]], ["{a:1,b:2}", "{a:1,b:3}"]),
    ],
)
def test_a_row_is_named_by_what_differs_but_for_the_seed(options, names):
    assert row_names(options) == names


def test_the_table_has_mean_and_spread_over_seeds(swept, capsys):
    folder, values = swept
    runs = report(folder)
    assert [run.row for run in runs] == ["zebra"] * 3 + ["ape"] * 3 + ["bear"]
    rows = {row["run"]: row for row in csv.DictReader((folder / "table.csv").open())}
    assert list(rows) == ["zebra", "ape", "bear"]
    for index, key in enumerate(("psnr", "ssim")):
        assert float(rows["zebra"][key]) == pytest.approx(np.mean(values[:, index]), rel=1e-12)
        assert float(rows["zebra"][f"{key}_std"]) == pytest.approx(np.std(values[:, index], ddof=1), rel=1e-12)
        assert [row[f"{key}_n"] for row in rows.values()] == ["3", "1", "0"]
    assert (float(rows["ape"]["psnr"]), rows["ape"]["psnr_std"], rows["bear"]["psnr"]) == (25.5, "", "")
    assert [row["failed"] for row in rows.values()] == ["0", "2", "1"]
    mean, deviation = np.mean(values, 0), np.std(values, 0, ddof=1)
    zebra = f"| zebra | {mean[0]:.2f} ± {deviation[0]:.2f} (3) | {mean[1]:.4f} ± {deviation[1]:.4f} (3) | 0 of 3 |"
    table = (folder / "table.md").read_text().splitlines()
    assert table[:5] == [
        "| run | PSNR | SSIM | failed |",
        "| --- | --- | --- | --- |",
        zebra,
        "| ape | 25.50 | 0.7500 | 2 of 3 |",
        "| bear |  |  | 1 of 1 |",
    ]
    assert table[6] == "- ape, seed 1: no a|b; give c"
    assert "killed" in table[7]
    assert table[8] == "- bear, seed 0: too large"
    printed = capsys.readouterr().out
    assert f"{mean[0]:.2f} ± {deviation[0]:.2f} (3)" in printed
    assert "bear, seed 0: too large" in printed
    each = {row["folder"]: row for row in csv.DictReader((folder / "runs.csv").open())}
    assert [float(each[f"zebra_seed{seed}"]["psnr"]) for seed in range(3)] == values[:, 0].tolist()
    assert (each["ape_seed1"]["seed"], each["ape_seed1"]["failure"]) == ("1", "no a|b; give c")


def test_a_run_that_could_not_be_run_again_keeps_its_metrics_and_is_named(tmp_path, capsys):
    leave(tmp_path / "a", 0, ["x=[bold,b]"], metrics={"psnr": 21.0}, failure="holds a run already")
    leave(tmp_path / "b", 1, ["x=b"], metrics={"psnr": 22.0})
    report(tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert table.startswith("| run | PSNR |\n| --- | --- |\n| [bold,b] | 21.00 |\n| b | 22.00 |\n")
    assert "[bold,b]" in capsys.readouterr().out.partition("22.00")[0]
    assert "- [bold,b], seed 0: holds a run already" in table


@pytest.mark.parametrize("text", ['{"val/psnr": ', "", '["val/psnr"]', '{"val/psnr": "a"}', "3"])
def test_metrics_that_are_damaged_lose_no_other_run(tmp_path, text):
    (leave(tmp_path / "a", 0, ["x=a"], metrics={}) / "metrics.json").write_text(text)
    leave(tmp_path / "b", 1, ["x=b"], metrics={"psnr": 22.0})
    runs = report(tmp_path)
    assert [run.metrics for run in runs] == [None, {"psnr": 22.0}]
    assert "metrics.json is damaged" in runs[0].failure and runs[1].failure is None


def test_a_value_that_is_not_finite_has_no_spread(tmp_path):
    for number, value in enumerate((21.0, float("inf"), float("nan"))):
        leave(tmp_path / f"a{number}", number, ["x=a"], number, metrics={"psnr": value})
    assert [run.metrics for run in report(tmp_path)] == [{"psnr": 21.0}, {}, {}]


def test_metrics_stay_under_the_options_that_they_were_trained_with(tmp_path):
    """Hydra has already replaced its file when a second run is refused in the folder of a first."""
    for number, (first, second) in enumerate([("ragan", "hinge"), ("lsgan", "lsgan")]):
        folder = leave(
            tmp_path / first, number, [f"gan={second}"], metrics={"psnr": 20 + number}, failure="holds a run"
        )
        OmegaConf.save(OmegaConf.create([f"gan={first}"]), folder / "options.yaml")
    found = [(run.row, run.metrics) for run in read_runs(tmp_path)]
    assert found == [("ragan", {"psnr": 20}), ("lsgan", {"psnr": 21})]


@pytest.mark.parametrize("name", ["overrides.yaml", "config.yaml", "hydra.yaml"])
def test_a_run_of_which_nothing_is_known_is_left_out(tmp_path, caplog, name):
    folder = leave(tmp_path / "a", 0, ["x=a"], metrics={"psnr": 21.0})
    leave(tmp_path / "b", 1, ["x=b"], metrics={"psnr": 22.0})
    (folder / ".hydra" / name).write_text("a: [")
    assert [run.metrics for run in report(tmp_path)] == [{"psnr": 22.0}]
    assert "is left out" in caplog.text and str(folder) in caplog.text


def test_the_command_tabulates_a_folder_at_any_time(swept, tmp_path, monkeypatch, capsys):
    folder, _ = swept
    monkeypatch.setattr(sys, "argv", ["sweep", str(folder)])
    sweep.main()
    first, *_, last = capsys.readouterr().out.splitlines()
    assert (first, last) == (f"tabulating the runs in {folder}", f"table: {folder / 'table.md'}")
    assert (folder / "table.csv").exists()
    (folder / "runs.csv").unlink()
    (folder / "runs.csv").mkdir()
    wrong = (
        ([], "give the folder"),
        ([""], "give the folder"),
        ([str(tmp_path / "none")], "there is no run"),
        ([str(folder)], "Is a directory"),
    )
    for arguments, says in wrong:
        monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
        with pytest.raises(SystemExit) as end:
            sweep.main()
        assert end.value.code == 2
        assert says in capsys.readouterr().err


def picture(value: int, side: int = 40) -> Photo:
    return Photo(np.full((side, side, 3), value, np.uint8))


def validated(run: Path, value: int, hr: int = 200) -> None:
    for kind, shown in (("bicubic", 100), ("sr", value), ("hr", hr)):
        write_image(run / "validation" / f"0_00_cat_{kind}.png", picture(shown))
    for kind, shown in (("bicubic", 110), ("sr", value + 1)):  # the camera's: no ground truth
        write_image(run / "validation" / f"1_00_dog_{kind}.png", picture(shown))


def test_the_picture_has_the_same_crop_of_every_row(tmp_path):
    assert comparison([]) is None
    for seed in (0, 1):  # of seed 0 there are fewer rows
        for number, row in enumerate(["bicubic", "noise", "kernel"]):
            metrics = None if (seed, row) == (0, "kernel") else {"psnr": 20.0}
            run = leave(tmp_path / f"{row}{seed}", number, [f"a={row}"], seed, metrics)
            validated(run, 10 * number + 5 * seed)
    alien = leave(tmp_path / "alien", 3, ["a=alien"], 1, {"psnr": 20.0})
    validated(alien, 50, hr=201)  # validated on something else
    report(tmp_path)
    sheet = read_image(tmp_path / "compare.png").rgb
    step, line = 40 + GAP, 40 + GAP + LABEL_HEIGHT
    assert sheet.shape == (2 * line + GAP, 5 * step + GAP, 3)
    centres = sheet[GAP + LABEL_HEIGHT + 20 :: line, GAP + 20 :: step, 0]
    assert centres.tolist() == [[100, 5, 15, 25, 200], [110, 6, 16, 26, 255]]


def test_validation_leaves_the_busiest_crop_of_every_kind(tmp_path):
    hr = torch.full((3, 96, 128), 0.5)
    hr[:, 32:64, 60:92] = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    sr = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(1))
    leaving = ValidationPictures(str(tmp_path), str(tmp_path / "v"), count=1, size=32)
    trainer = SimpleNamespace(is_global_zero=True, global_step=3)
    for number, (dataloader, truth) in enumerate(((0, hr), (0, hr), (1, None))):
        outputs = {"name": f"p{number}", "lr": hr[:, ::4, ::4], "sr": sr, "hr": truth}
        leaving.on_validation_batch_end(trainer, None, outputs, None, batch_idx=number % 2, dataloader_idx=dataloader)
    kinds = ["0_00_p0_bicubic", "0_00_p0_hr", "0_00_p0_sr", "1_00_p2_bicubic", "1_00_p2_sr"]
    assert sorted(path.stem for path in (tmp_path / "v").iterdir()) == kinds
    for kind, image in (("hr", hr), ("sr", sr)):
        found = read_image(tmp_path / "v" / f"0_00_p0_{kind}.png").rgb
        assert np.array_equal(found, to_uint(image)[32:64, 60:92])


def test_the_table_and_the_picture_go_to_a_run_of_the_sweeps_group(swept, compose, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder, values = swept
    for path in sorted(folder.glob("*_seed0")):
        validated(path, 7)
    runs = report(folder)
    send(runs, folder, compose("train", "data.source_dir=x", "logger=wandb", "group=animals").logger.wandb)
    found = OfflineRun(next(folder.rglob("offline-run-*")))
    assert (found.run.display_name, found.run.run_group, found.run.project) == ("table", "animals", "realsr")
    files = [entry for artifact in found.artifacts for entry in artifact.manifest.contents]
    tables = {Path(entry.path).name: json.loads(Path(entry.local_path).read_text()) for entry in files}
    table, each = (tables[f"{name}.table.json"] for name in ("table", "runs"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["run"] for row in rows] == ["zebra", "ape", "bear"]
    assert rows[0]["psnr_std"] == pytest.approx(np.std(values[:, 0], ddof=1))
    assert len(each["data"]) == 7
    (sheet,) = found.pictures("compare").values()
    assert np.array_equal(sheet, read_image(folder / "compare.png").rgb)


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "submitit_slurm", "slurm"])
def test_launchers_compose_and_build(name):
    with hydra.initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = hydra.compose("train", [f"hydra/launcher={name}"], return_hydra_config=True)
    launcher = cfg.hydra.launcher
    if name == "slurm":
        own = OmegaConf.load(Path(conf_dir()) / "hydra" / "launcher" / "slurm.yaml")
        for key in ("timeout_min", "signal_delay_s", "max_num_timeout", "gpus_per_node"):
            assert launcher[key] == own[key] > 0
        assert launcher._target_.endswith("SlurmLauncher")
        known = hydra.utils.get_class(
            "hydra_plugins.hydra_submitit_launcher.config.SlurmQueueConf"
        ).__dataclass_fields__
        assert set(launcher) <= set(known)
    cfg.hydra.sweep.dir = cfg.hydra.job.name = "x"
    assert isinstance(Plugins.instance()._instantiate(launcher), Launcher)


def act(cfg):
    """A training in which seeds go wrong in their own ways."""
    print("begin", cfg.seed, flush=True)
    if cfg.seed == 1:
        raise KeyError("a bug")
    if cfg.seed == 2:
        raise KeyboardInterrupt
    if cfg.seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if (output_dir() / "metrics.json").exists():
        raise InputError("holds a run already")
    (output_dir() / "metrics.json").write_text(json.dumps({"val/psnr": 20.0 + cfg.seed}))
    return 1.0


@pytest.fixture
def main(tmp_path, monkeypatch):
    """``main("seed=0,1")``: a sweep over :func:`act` in this process; gives the exit status."""
    handler = signal.getsignal(signal.SIGTERM)
    for name in ("HYDRA_FULL_ERROR", "OC_CAUSE", "NO_ALBUMENTATIONS_UPDATE"):
        monkeypatch.setenv(name, "1")
    # where a launcher's jobs find this file and what it imports
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]))

    def run(*options: str) -> int:
        quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        arguments = ["-m", "data.source_dir=x", f"hydra.sweep.dir={tmp_path / 'out'}", *quiet, *options]
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        try:
            command("train", then="and then")(act)()
        except SystemExit as e:
            return e.code
        return 0

    yield run
    signal.signal(signal.SIGTERM, handler)


def test_a_bug_in_a_run_leaves_its_traceback_and_ends_no_other(main, tmp_path, capsys):
    assert main("seed=0,1,4") == 2
    printed = capsys.readouterr()
    assert "begin 4" in printed.out
    runs = {run.seed: run for run in read_runs(tmp_path / "out")}
    assert [runs[seed].metrics for seed in (0, 1, 4)] == [{"psnr": 20.0}, None, {"psnr": 24.0}]
    text = (runs[1].folder / "failed.txt").read_text()
    assert text.startswith("KeyError: 'a bug' (a fault of the program, see ")
    assert 'raise KeyError("a bug")' in text
    assert "1 of 3 runs failed" in printed.err
    assert "Traceback" not in printed.err
    assert "22.00 ± 2.83 (2)" in printed.out


def test_the_flag_may_stand_between_options(main, monkeypatch, tmp_path):
    assert main("seed=0") == 0
    arguments = [f"hydra.sweep.dir={tmp_path / 'out'}", "data.source_dir=x", "--multirun", "seed=4,5"]
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    command("train")(act)()
    assert [run.seed for run in read_runs(tmp_path / "out")] == [0, 4, 5]


def test_a_sweep_that_is_repeated_leaves_done_runs_done(main, tmp_path, capsys):
    assert (main("seed=0,4"), main("seed=0,4")) == (0, 2)
    assert "2 of 2 runs failed" in capsys.readouterr().err
    assert "default, seed 4: holds a run already" in (tmp_path / "out" / "table.md").read_text()
    assert [run.failure for run in read_runs(tmp_path / "out")] == [None, None]


def test_without_its_table_a_sweep_raises_as_hydra_does(main):
    with pytest.raises(KeyError, match="a bug"):
        main("seed=0,1", "~hydra.callbacks.table")


def test_ctrl_c_ends_the_whole_sweep(main, capsys):
    assert main("seed=0,2,4") == 130
    printed = capsys.readouterr()
    assert "begin 2" in printed.out
    assert "begin 4" not in printed.out
    assert printed.err.endswith("realsr: interrupted; and then\n")


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "limit"), [("joblib", ["hydra.launcher.n_jobs=2"]), ("submitit_local", [])])
def test_a_run_that_is_killed_leaves_the_table_of_the_others(main, tmp_path, capsys, launcher, limit):
    assert main("seed=0,3", f"hydra/launcher={launcher}", *limit) == 2
    assert "a job of the sweep was killed" in capsys.readouterr().err
    assert "not done" in report(tmp_path / "out")[-1].failure


def train(tmp_path, *options):
    return run_forked("realsr.train", "-m", "+sweep=ablation", *options, cwd=tmp_path, check=False)


def check_the_numbers(folder: Path) -> None:
    """The table against the metrics that the runs left, by numpy."""
    for row in csv.DictReader((folder / "table.csv").open()):
        left = [json.loads(path.read_text()) for path in folder.glob(f"{row['run']}_seed*/metrics.json")]
        assert int(row["psnr_n"]) == len(left)
        for key in ("psnr", "psnr_y", "ssim", "ssim_y"):
            values = [metrics[f"val/{key}"] for metrics in left]
            if values:
                assert float(row[key]) == pytest.approx(np.mean(values), rel=1e-9)
            if len(values) > 1:
                assert float(row[f"{key}_std"]) == pytest.approx(np.std(values, ddof=1), rel=1e-6)


def test_a_row_that_fails_loses_no_other(tiny, made_pools, tmp_path):
    """VGG-128's crops are multiples of 32."""
    swept = "hydra.sweeper.params.ablation='patch,vgg128'"
    done = train(tmp_path, *tiny, swept, "data.crop_size=40", "seed=0,1")
    assert done.returncode == 2, done.stderr
    folder = tmp_path / "outputs" / "ablation"
    runs = {run.folder.name: run for run in read_runs(folder)}
    assert list(runs) == ["patch_seed0", "patch_seed1", "vgg128_seed0", "vgg128_seed1"]
    assert [run.metrics is None for run in runs.values()] == [False, False, True, True]
    for run in (runs["vgg128_seed0"], runs["vgg128_seed1"]):
        assert run.failure == "disc=vgg128 takes crops that are a multiple of 32, not 40; set data.crop_size"
    assert "2 of 4 runs failed" in done.stderr
    check_the_numbers(folder)
    assert "(2)" in (folder / "table.md").read_text()
    assert read_image(folder / "compare.png").rgb.shape[1] > 3 * 64


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["basic"], ["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]])
def test_every_launcher_runs_the_ablation_at_once_without_pools(tiny, tmp_path, launcher):
    """Five rows that all want to fill the same empty pools, one of which fails."""
    options = [
        f"hydra/launcher={launcher[0]}",
        *launcher[1:],
        "data.crop_size=40",
        "ablation=bicubic,noise,kernel,vgg128,patch",
    ]
    done = train(tmp_path, *tiny, *options)
    assert done.returncode == 2, done.stderr
    folder = tmp_path / "outputs" / "ablation"
    runs = {run.row: run for run in read_runs(folder)}
    assert [row for row, run in runs.items() if run.metrics is not None] == ["bicubic", "noise", "kernel", "patch"]
    assert "a multiple of 32" in runs["vgg128"].failure
    check_the_numbers(folder)
    assert len(list((tmp_path / "pools" / "kernels").glob("*.npz"))) == 3
    again = train(tmp_path, *tiny, *options[:-1], "ckpt=last", "ablation=patch,noise")
    assert again.returncode == 2  # the row that failed is still in the table
    after = {run.row: run for run in read_runs(folder)}
    assert after["patch"].metrics == pytest.approx(runs["patch"].metrics)
