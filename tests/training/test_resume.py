"""Runs that are killed or told to stop, at any step, go on bit for bit."""

import csv
import hashlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import zlib
from importlib.metadata import version
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from conftest import call, csv_rows
from conftest import last_checkpoint as read
from forked import run_forked
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import SLURMEnvironment
from scipy.io import savemat

from realsr.pools.folder import Entry, pool_changes, pool_record
from realsr.training.checkpoints import LastCheckpoint, WholeCheckpoints, trainer_plugins
from realsr.training.loggers import CSVCurves

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
STEPS = ["trainer.max_steps=14", "trainer.val_check_interval=3", "callbacks.last.every_n_train_steps=2"]
STEPS += ["model.warmup_steps=2", "model.milestones=[4,8]", "degradation=kernel_noise"]

# a callback that signals its own process, or all of its group, when a hook is called at a step
SEND = """
import os, signal
from pytorch_lightning import Callback

class Send(Callback):
    def __init__(self, number: int, step: int, hook: str, group: bool = False, rank: int = 0):
        self.number, self.step, self.group, self.rank = number, step, group, rank
        setattr(self, hook, self.send)

    def send(self, trainer, *args, **kwargs):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.killpg(0, self.number) if self.group else signal.raise_signal(self.number)
"""


@pytest.fixture
def send(tmp_path, monkeypatch):
    """``send(number, step, hook, group)``: the option that has a training signal itself."""
    (tmp_path / "sending").mkdir()
    (tmp_path / "sending" / "sending.py").write_text(SEND)
    monkeypatch.syspath_prepend(str(tmp_path / "sending"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/sending{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def option(number, step, hook, group=False):
        node = f"_target_:sending.Send,number:{int(number)},step:{step},hook:{hook},group:{str(group).lower()}"
        return f"+callbacks.send={{{node}}}"

    return option


@pytest.fixture
def handlers():
    """Signal handlers as they are when a command starts; put back afterwards."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (*SIGNALS, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def differences(a, b, where=""):
    """Where two checkpoints are not the same, whatever they hold; the configs are those of two folders."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = {*a, *b} - {"config"}
        return [d for k in sorted(keys, key=str) for d in differences(a.get(k, ...), b.get(k, ...), f"{where}/{k}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}/{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    return [] if type(a) is type(b) and a == b else [f"{where}: {a!r} {b!r}"]


def left(folder):
    """All that is to be the same: checkpoints, pictures' names, curves but for those of speed."""
    curves = [{k: v for k, v in row.items() if v and not k.startswith("speed/")} for row in csv_rows(folder)]
    pictures = sorted(path.name for path in folder.glob("pictures/*"))
    return {name: read(folder, name) for name in ("last", "best")}, pictures, sorted(map(str, curves))


@pytest.fixture
def straight(fit, made={}):  # noqa: B006  (kept on purpose)
    """What a run of ``STEPS`` leaves that nobody stops; made once."""
    if not made:
        made["run"] = left(fit("straight", *STEPS))
    return made["run"]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_killed_again_and_again_a_run_equals_a_straight_one(straight, tiny, made_pools, send, tmp_path, seed):
    """With and without workers in turn, which also shows that their number is of no consequence."""
    draw = random.Random(seed)
    folder = tmp_path / "killed"
    hooks = ["on_train_batch_start", "on_train_batch_end", "on_validation_batch_end", "on_validation_end"]
    for number, step in enumerate(sorted(draw.sample(range(1, 14), 3))):
        hook = draw.choice(hooks[:2] if step % 3 else hooks)
        options = [*STEPS, f"hydra.run.dir={folder}", "ckpt=auto", f"data.num_workers={number % 2 * 2}"]
        told = send(signal.SIGKILL, step, hook, group=True)
        killed = run_forked("realsr.train", *tiny, *options, told, cwd=tmp_path, check=False, session=True)
        assert killed.returncode == -signal.SIGKILL, (step, hook, killed.stdout + killed.stderr)
    options = [*STEPS, f"hydra.run.dir={folder}", "ckpt=last", "data.num_workers=2"]
    run_forked("realsr.train", *tiny, *options, cwd=tmp_path)
    assert differences(left(folder), straight) == []
    assert differences(read(folder), read(folder, "best"))


def test_a_validation_that_was_cut_is_made_up_for(straight, fit, send, handlers, tmp_path):
    """Where both are due, ``last.ckpt`` is written after the validation, which a resumed run does not repeat."""

    def power_cut(number, frame):
        raise RuntimeError

    signal.signal(signal.SIGALRM, power_cut)
    with pytest.raises(RuntimeError):
        fit("cut", *STEPS, send(signal.SIGALRM, 6, "on_validation_batch_end"))
    assert differences(left(fit("cut", *STEPS, "ckpt=last")), straight) == []


def test_the_default_degradation_goes_on_as_well(fit):
    camera = [*STEPS[1:], "degradation=camera", "model.warmup_steps=0"]
    whole = read(fit("whole", *camera, "trainer.max_steps=3"))
    fit("halved", *camera, "trainer.max_steps=2")
    assert differences(read(fit("halved", *camera, "trainer.max_steps=3", "ckpt=last")), whole) == []


def test_a_folder_that_was_moved_goes_on_and_keeps_its_best(straight, fit, send, handlers, tmp_path):
    with pytest.raises(SystemExit):
        fit("begun", *STEPS, send(signal.SIGTERM, 12, "on_train_batch_start"))
    shutil.move(tmp_path / "begun", tmp_path / "moved")
    before = (tmp_path / "moved" / "checkpoints" / "best.ckpt").read_bytes()
    fit("moved", *STEPS, "ckpt=last")
    assert differences(left(tmp_path / "moved"), straight) == []
    assert (tmp_path / "moved" / "checkpoints" / "best.ckpt").read_bytes() == before


@pytest.mark.parametrize("number", SIGNALS)
def test_told_to_stop_it_keeps_the_step_in_hand(fit, send, handlers, tmp_path, number):
    with pytest.raises(SystemExit):
        fit("stopped", *STEPS, send(number, 6, "on_train_batch_start"))
    assert read(tmp_path / "stopped")["global_step"] == 7
    assert [signal.getsignal(number) for number in SIGNALS] == [signal.default_int_handler] * 4


def test_told_to_stop_in_a_validation_it_goes_on_exactly(straight, fit, send, handlers, tmp_path):
    with pytest.raises(SystemExit):
        fit("stopped", *STEPS, send(signal.SIGTERM, 9, "on_validation_batch_end"))
    assert read(tmp_path / "stopped")["global_step"] == 9
    assert differences(left(fit("stopped", *STEPS, "ckpt=auto")), straight) == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGUSR2, marks=pytest.mark.slow)])
def test_a_scheduler_signals_all_processes_and_the_command_exits_cleanly(tiny, made_pools, send, tmp_path, number):
    told = send(number, 2, "on_train_batch_start", group=True)
    options = ["degradation=kernel_noise", "trainer.max_steps=100000", "data.num_workers=2"]
    options += [f"hydra.run.dir={tmp_path}/run", told]
    stopped = run_forked("realsr.train", *tiny, *options, cwd=tmp_path, check=False, session=True)
    assert stopped.returncode == 130, stopped.stdout + stopped.stderr
    assert stopped.stderr.splitlines()[-1] == "realsr: interrupted; go on with ckpt=auto"
    assert "Traceback" not in stopped.stderr
    assert read(tmp_path / "run")["global_step"] == 3


def test_who_listened_before_gets_the_signal_after_the_checkpoint(fit, send, handlers, tmp_path):
    """As submitit's handler, which has the job queued again and leaves."""
    steps = []

    def requeue(number, frame):
        steps.append(read(tmp_path / "run")["global_step"])
        sys.exit(144)

    signal.signal(signal.SIGUSR2, requeue)
    with pytest.raises(SystemExit) as left:
        fit("run", *STEPS, send(signal.SIGUSR2, 5, "on_train_batch_start"))
    assert (left.value.code, steps) == (144, [6])
    assert signal.getsignal(signal.SIGUSR2) is requeue


def test_who_listened_before_may_let_the_run_go_on(fit, send, handlers, tmp_path):
    """As submitit's handler of SIGTERM; and what was ignored stays so."""
    steps = []
    signal.signal(signal.SIGTERM, lambda number, frame: steps.append(read(tmp_path / "run")["global_step"]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fit("run", *STEPS, "trainer.max_steps=8", send(signal.SIGTERM, 5, "on_train_batch_start"))
    fit("ignoring", *STEPS, "trainer.max_steps=8", send(signal.SIGINT, 5, "on_train_batch_start"))
    assert steps == [6]
    assert read(tmp_path / "run")["global_step"] == read(tmp_path / "ignoring")["global_step"] == 8


def test_who_listened_comes_before_the_default():
    """Slurm may send several signals at once."""
    last = LastCheckpoint("checkpoints")
    last.handlers = {signal.SIGUSR1: signal.SIG_DFL, signal.SIGUSR2: lambda number, frame: sys.exit(144)}
    last.saved = {signal.SIGUSR1, signal.SIGUSR2}
    with pytest.raises(SystemExit):
        last._forward()
    last.saved = {signal.SIGUSR1}
    with pytest.raises(KeyboardInterrupt):
        last._forward()


@pytest.mark.slow
def test_processes_stop_at_the_same_step_whichever_was_told(tiny, send, tmp_path):
    """Rank 1 alone is told; without an agreement rank 0 would wait for it for ever."""
    several = ["trainer.devices=2", "+trainer.strategy=ddp_find_unused_parameters_true", "accelerator=cpu"]
    told = send(signal.SIGUSR1, 2, "on_train_batch_start").replace("}", ",rank:1}")
    options = [*several, "trainer.max_steps=100000", f"hydra.run.dir={tmp_path}/run", told]
    stopped = call("realsr.train", *tiny, *options, cwd=tmp_path, check=False)
    assert stopped.returncode == 130, stopped.stdout + stopped.stderr
    assert read(tmp_path / "run")["global_step"] == 3


def write(path, number, limit):
    """Write a checkpoint, of which the system kills the process after so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    WholeCheckpoints().save_checkpoint({"numbers": torch.full((100_000,), number)}, path)


def test_a_kill_in_the_middle_of_a_write_leaves_the_file_whole(tmp_path):
    path = tmp_path / "best.ckpt"
    codes = []
    for number, limit in enumerate((10**7, 10**5)):
        process = get_context("fork").Process(target=write, args=(path, number, limit))
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert codes == [0, -signal.SIGXFSZ]
    assert (torch.load(path, weights_only=True)["numbers"] == 0).all()
    cut = [p for p in tmp_path.iterdir() if p != path]
    assert [p.stat().st_size for p in cut] == [10**5]
    LastCheckpoint(str(tmp_path)).setup(Trainer(logger=False, accelerator="cpu"), None, "fit")
    assert list(tmp_path.iterdir()) == [path]


def test_slurm_is_left_its_own_requeue(monkeypatch):
    """Lightning's would write hpc_ckpt files, and go on from them whatever the command says."""
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    _, environment = trainer_plugins()
    assert isinstance(environment, SLURMEnvironment) and not environment.auto_requeue


def entry(folder, name, value, **manifest):
    manifest = {"photo": f"{name}.jpg", "sha256": name * 64, "settings": {"scale": 2}, **manifest}
    Entry(folder / f"{name}.npz", {"x4": np.full((3, 3), float(value))}, manifest).write()


def test_a_record_holds_the_manifests_and_tells_every_change(tmp_path):
    for index, name in enumerate("abcd"):
        entry(tmp_path, name, index, confidence=index / 4)
    was = {"kernel": pool_record(tmp_path)}
    np.save(tmp_path / "same.npy", np.ones((3, 3)))  # the array of b.npz, as a file of its own
    crc = zlib.crc32((tmp_path / "same.npy").read_bytes())
    assert was["kernel"]["shared"] == {"settings": {"scale": 2}}
    assert was["kernel"]["files"]["b.npz"] == {
        "photo": "b.jpg", "sha256": "b" * 64, "confidence": 0.25, "content": f"{crc:08x}"
    }  # fmt: skip
    assert pool_changes(was, {"kernel": pool_record(tmp_path)}) == []
    entry(tmp_path, "a", 2.0, confidence=0.0)
    entry(tmp_path, "b", 1, confidence=0.75)
    (tmp_path / "c.npz").unlink()
    entry(tmp_path, "e", 5, settings={"scale": 3})
    told = ["kernel/a.npz (changed)", "kernel/b.npz (changed)", "kernel/c.npz (gone)", "kernel/e.npz (new)"]
    assert pool_changes(was, {"kernel": pool_record(tmp_path), "noise": was["kernel"]}) == told


def test_the_record_of_another_programs_kernels_is_their_hashes(tmp_path):
    for folder, scale in (("b", 4), ("a", 4)):
        (tmp_path / folder).mkdir()
        savemat(tmp_path / folder / f"{folder}_kernel_x{scale}.mat", {"Kernel": np.ones((33, 33))})
    files = pool_record(tmp_path)["files"]
    assert list(files) == ["a/a_kernel_x4.mat", "b/b_kernel_x4.mat"]
    path = tmp_path / "a" / "a_kernel_x4.mat"
    assert files["a/a_kernel_x4.mat"] == {"content": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert pool_record(path)["files"] == {path.name: files["a/a_kernel_x4.mat"]}


def test_the_record_of_a_large_pool_is_small(tmp_path):
    """With KernelGAN's losses 300 bytes a photo, a millionth of a checkpoint of the paper's generator."""
    for index in range(200):
        name = hashlib.sha256(str(index).encode()).hexdigest()
        losses = {loss: index / (7 + len(loss)) for loss in ("adversarial", "bicubic", "sum", "boundary", "total")}
        Entry(tmp_path / f"IMG_{index}-{name[:8]}.npz", {}, {"photo": f"IMG_{index}", "sha256": name, **losses}).write()
    file = io.BytesIO()
    torch.save(pool_record(tmp_path), file)
    assert len(file.getvalue()) < 200 * 350


def test_a_checkpoint_names_versions_pools_and_photos_and_a_resumed_run_says_what_differs(fit, caplog, tmp_path):
    folder = fit("run", *STEPS)
    content = read(folder)
    assert {"realsr", "torch", "numpy", "pytorch-lightning", "python"} <= content["versions"].keys()
    assert "+debug=fast" in (folder / "options.yaml").read_text()
    assert content["pools"].keys() == {"kernel", "noise", "photos"}
    pools = tmp_path / "pools"
    assert sorted(content["pools"]["kernel"]["files"]) == sorted(path.name for path in pools.glob("kernels/*.npz"))
    assert set(content["pools"]["photos"]["files"]) <= {path.name for path in pools.glob("hr/*.strips")}
    fit("run", *STEPS, "ckpt=last", "trainer.max_steps=15")
    assert "exactly" not in caplog.text
    for path in pools.glob("noise/*.npz"):
        made = Entry.read(path)
        made.arrays["tiles"] = made.arrays["tiles"][::-1]
        made.write()
    content["versions"]["torch"] = "1.0"
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    fit("run", *STEPS, "ckpt=last", "trainer.max_steps=16", "data.batch_size=3", "data.num_workers=1")
    lines = [record.getMessage() for record in caplog.records if "exactly" in record.getMessage()]
    now = version("torch")
    assert len(lines) == 1
    assert f"torch is {now}, was 1.0; data.batch_size=3, was 2; " in lines[0]
    assert "; 3 files of the pools or photos differ, the first noise/photo0-" in lines[0]


def test_curves_are_of_a_run_as_a_whole(tmp_path):
    def lines():
        return list(csv.reader((tmp_path / "csv" / "metrics.csv").read_text().splitlines()))

    curves = CSVCurves(str(tmp_path))
    for step in (1, 2, 4):
        curves.log_metrics({"loss": torch.tensor(0.5) / step}, step)
    curves.log_metrics({"psnr": 20.25}, 2)  # never closed
    assert lines()[0] == ["loss", "psnr", "step"]
    assert lines()[1:] == [["0.5", "", "1"], ["0.25", "", "2"], ["0.125", "", "4"], ["", "20.25", "2"]]
    curves = CSVCurves(str(tmp_path), ckpt="last")
    curves.log_metrics({"loss": 7.0}, 4)
    curves.log_metrics({"loss": 8.0}, 5)
    assert [line[0] for line in lines()[1:]] == ["0.5", "0.25", "7.0", "", "8.0"]
    assert [line[1] for line in lines()[1:]] == ["", "", "", "20.25", ""]
    CSVCurves(str(tmp_path)).log_metrics({"loss": 9.0}, 1)
    assert lines() == [["loss", "step"], ["9.0", "1"]]
