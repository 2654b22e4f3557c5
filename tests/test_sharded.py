"""Sharded sets: written by realsr.pack, read from disk and over http, by two processes."""

import functools
import http.server
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import webdataset
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from realsr.data.datasets import HRCrops, StepSampler
from realsr.data.sharded import TOGETHER, ShardedImages
from realsr.errors import InputError
from realsr.files import find_images
from realsr.images import read_image
from realsr.pack import SPARE, Rule, cut, pack
from realsr.pack import _run as run_pack
from realsr.resample import imresize

RULE = Rule(factor=1, tile_size=64, min_size=32, shard_size=0.004)


@pytest.fixture
def packed(photo_folder, tmp_path):
    """A set of 8 photos of 96x160 pixels in several shards, six pieces a photo."""
    pack(find_images(photo_folder("photos", 8, 96, 160)), tmp_path / "set", RULE)
    return tmp_path / "set"


@pytest.fixture
def served(tmp_path):
    """``served(folder)``: its URL, and the list of what has been asked for."""
    servers = []

    def serve(folder):
        asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *arguments):
                asked.append(self.path)

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", asked

    yield serve
    for server in servers:
        server.shutdown()


def images(where, seed=0, factor=1, min_size=32, cache=Path("none"), limit=1.0):
    return ShardedImages(str(where), factor, min_size, cache, limit, seed)


def command(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


# -- writing


def test_the_pieces_of_all_photos_come_back_pixel_by_pixel(packed, tmp_path):
    assert len(list(packed.glob("*.tar"))) > 2 * TOGETHER // 2
    found = Counter(image.tobytes() for image in images(packed))
    photos = [read_image(path).rgb for path in find_images(tmp_path / "photos")]
    corners = [(y, x) for y in (0, 48) for x in (0, 54, 107)]  # 160 = 54 + 53 + 53, 96 = 48 + 48
    sizes = {0: 54, 54: 53, 107: 53}
    assert found == Counter(p[y : y + 48, x : x + sizes[x]].tobytes() for p in photos for y, x in corners)


def test_webdataset_itself_reads_the_shards(packed):
    ours = Counter(image.tobytes() for image in images(packed))
    urls = [str(path) for path in sorted(packed.glob("*.tar"))]
    theirs = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("webp")
    assert Counter(image.tobytes() for (image,) in theirs) == ours


def test_photos_are_scaled_before_they_are_cut(photo_folder, tmp_path):
    (photo,) = find_images(photo_folder("photos", 1, 96, 160))
    pack([photo], tmp_path / "set", RULE._replace(factor=0.5, min_size=8))
    rgb = torch.from_numpy(read_image(photo).rgb / np.float32(255)).permute(2, 0, 1)
    small = imresize(rgb, 0.5).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    found = {image.tobytes() for image in images(tmp_path / "set", factor=0.5, min_size=8)}
    assert found == {small[:, :40].tobytes(), small[:, 40:].tobytes()}


@pytest.mark.parametrize("height, width", [(64, 64), (65, 200), (20, 129)])
def test_pieces_are_about_equal_and_cover_the_image(height, width):
    image = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    pieces = cut(image, 64)
    assert sorted(np.concatenate([p.ravel() for p in pieces])) == list(range(image.size))
    for axis, length in enumerate((height, width)):
        sides = {p.shape[axis] for p in pieces}
        assert max(sides) <= 64
        assert max(sides) - min(sides) <= 1
        assert min(sides) >= min(length, 32)


def test_jobs_share_the_work_and_what_is_there_stays(packed, tmp_path):
    photos, parts = find_images(tmp_path / "photos"), tmp_path / "parts"
    pack(photos, parts, RULE, share=0, shares=2)
    assert not (parts / "index.json").exists()  # half a set is none
    with pytest.raises(InputError, match="is no sharded set"):
        images(parts)
    pack(photos, parts, RULE, share=1, shares=2, workers=2)
    for path in [*packed.glob("*.tar"), packed / "index.json"]:
        assert (parts / path.name).read_bytes() == path.read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in parts.glob("*.tar")}
    lost = sorted(stamps)[1]
    lost.unlink()
    pack(photos, parts, RULE)
    assert {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp} == {lost}


def test_the_command_says_sizes_skips_what_is_bad_and_refuses(photo_folder, tmp_path):
    photos = photo_folder("photos", 3, 96, 160)
    photo_folder("photos/small", 1, 20, 20)
    (photos / "broken.png").write_bytes((photos / "photo0.png").read_bytes()[:3000])
    options = ["tile_size=64", "min_size=32"]
    done = command("realsr.pack", f"input={photos}", "output=set", *options, "shard=0", "shards=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 shards to write" in done.stdout
    assert "broken.png: cannot be decoded" in done.stdout
    assert "small/photo0.png has 20x20 pixels once scaled" in done.stdout.replace("\n", "")
    assert len(images(tmp_path / "set")) == 18


@pytest.mark.parametrize(
    "option, line",
    [
        ("min_size=200", "no photo of 1 has 200 pixels on a side once scaled; lower min_size"),
        ("tile_size=300", "tile_size=300: give 400 or more"),
        ("factor=2", "factor=2: give 1 for clean photos"),
        ("shards=0", "shards=0: give 1 or more"),
        ("shard=2", "shards count from 0 to 0"),
    ],
)
def test_options_of_packing_that_cannot_be(compose, photo_folder, tmp_path, option, line):
    options = [f"input={photo_folder('photos', 1)}", f"output={tmp_path / 'set'}", "min_size=200"]
    with pytest.raises(InputError, match=line):
        run_pack(compose("pack", *options, option))


def test_a_disk_that_is_too_small_is_said_before(photo_folder, tmp_path, monkeypatch):
    photos = find_images(photo_folder("photos", 2))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=SPARE))
    with pytest.raises(InputError, match="set: only 50 MB are free"):
        pack(photos, tmp_path / "set", RULE)
    assert not list((tmp_path / "set").glob("*.tar"))


# -- the order


def test_an_epoch_shows_every_image_once_a_few_shards_at_a_time(packed):
    found = images(packed)
    everything = Counter(image.tobytes() for image in found)
    epochs = [[found[found.in_turn(e * len(found) + n)].tobytes() for n in range(len(found))] for e in range(2)]
    for epoch in epochs:
        assert Counter(epoch) == everything
    assert epochs[0] != epochs[1]
    assert epochs[0] != [found[images(packed, seed=1).in_turn(n)].tobytes() for n in range(len(found))]
    shard_of = {
        image.tobytes(): next(i for i, s in enumerate(found.starts[1:]) if n < s) for n, image in enumerate(found)
    }
    order = [shard_of[image] for image in epochs[0]]
    first = sum(found.shards[shard].images for shard in set(order[:TOGETHER]))
    assert len(found.shards) > TOGETHER
    assert len(set(order[:first])) <= TOGETHER
    assert order[:first] != sorted(order[:first])  # mixed within


def test_crops_are_those_of_the_same_images_in_memory(packed):
    found = images(packed)

    class InMemory(list):
        in_turn, name = found.in_turn.__func__, found.name.__func__
        __hash__ = object.__hash__

    memory = InMemory(np.array(image) for image in found)
    memory.seed, memory.starts, memory.shards = found.seed, found.starts, found.shards
    for per_read in (1, 3):
        one, other = (HRCrops(source, [], 1.0, 32, 5, per_read) for source in (found, memory))
        for index in range(0, 200, 7):
            assert torch.equal(one[index]["hr"], other[index]["hr"])


# -- in training


@pytest.fixture
def data(compose, tiny, photo_folder, packed):
    def make(*overrides, steps=8, done=0, rank=0, world=1):
        options = [o for o in tiny if "clean_dir" not in o] + [f"data.val_hr={photo_folder('val', 1, 64, 64)}"]
        options += [f"data.clean_shards={packed}", "data.source_share=0.3", "data.num_workers=0"]
        module = instantiate(compose("train", *options, *overrides).data)
        module.prepare_data()
        module.setup("fit")
        module.trainer = SimpleNamespace(global_step=done, max_steps=steps, global_rank=rank, world_size=world)
        return module

    return make


def batches(module, count):
    raw = [module.on_before_batch_transfer(b, 0) for b, _ in zip(module.train_dataloader(), range(count), strict=False)]
    return [module.on_after_batch_transfer(batch, 0) for batch in raw]


def test_draws_do_not_depend_on_workers_and_resume_from_a_step(data):
    straight = batches(data(), 6)
    workers = batches(data("data.num_workers=2"), 6)
    resumed = batches(data(done=3), 3)
    for one, other in [*zip(straight, workers, strict=True), *zip(straight[3:], resumed, strict=True)]:
        assert one["index"] == other["index"]
        assert all(torch.equal(one[key], other[key]) for key in ("lr", "hr"))
    assert not torch.equal(straight[0]["hr"], straight[1]["hr"])


RANK = """
import sys, torch, torch.distributed as dist
from pathlib import Path
from torch.utils.data import DataLoader
from realsr.data.datasets import HRCrops, StepSampler
from realsr.data.sharded import ShardedImages

if __name__ == "__main__":
    rank, world, where, cache, limit, meet, out = sys.argv[1:]
    rank, world = int(rank), int(world)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=world)
    crops = HRCrops([], ShardedImages(where, 1, 32, Path(cache), float(limit), 0), 0.0, 32, 0)
    loader = DataLoader(crops, batch_size=4, sampler=StepSampler(0, 11, 4, rank, world), num_workers=2)
    drawn = [(batch["index"], batch["hr"]) for batch in loader]
    everything = [None] * world
    dist.all_gather_object(everything, drawn)
    if rank == 0:
        torch.save(everything, out)
"""


def two_processes(where, tmp_path, limit=1.0):
    """What each of two ranks has drawn in 12 steps of 4, with two workers each."""
    (tmp_path / "rank.py").write_text(RANK)
    (tmp_path / "meet").unlink(missing_ok=True)
    arguments = [where, tmp_path / "cache", limit, tmp_path / "meet", tmp_path / "drawn.pt"]
    processes = [
        subprocess.Popen(
            [sys.executable, tmp_path / "rank.py", str(rank), "2", *map(str, arguments)], stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return torch.load(tmp_path / "drawn.pt")


def check_draws(ranks, packed):
    """Two ranks' batches, alternating, are what one process draws with batches twice as large."""
    alone = HRCrops([], images(packed), 0.0, 32, 0)
    indices = [set(torch.cat([index for index, _ in rank]).tolist()) for rank in ranks]
    assert not indices[0] & indices[1]
    assert indices[0] | indices[1] == set(range(12 * 8)) == set(StepSampler(0, 11, 8))
    for rank in ranks:
        for index, hr in rank:
            assert torch.equal(hr, torch.stack([alone[i]["hr"] for i in index.tolist()]))


def test_two_processes_share_out_the_set_from_disk(packed, tmp_path):
    check_draws(two_processes(packed, tmp_path), packed)


def test_two_processes_share_one_small_cache_of_a_server(photo_folder, tmp_path, served):
    """A cache of two groups of shards, for a set of three and more: what was thrown out is fetched again."""
    folder = tmp_path / "many"
    pack(find_images(photo_folder("photos", 16, 96, 160)), folder, RULE)
    sizes = [path.stat().st_size for path in folder.glob("*.tar")]
    assert len(sizes) > 2 * TOGETHER
    url, asked = served(folder)
    limit = 2 * TOGETHER * max(sizes) + 1000
    ranks = two_processes(url, tmp_path, limit / 1e9)
    check_draws(ranks, folder)
    tars = Counter(path for path in asked if path.endswith(".tar"))
    assert len(tars) == len(sizes)
    assert tars.total() <= 2 * len(sizes)  # the two ranks and their workers wait for each other, not each for itself
    held = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert held <= limit + 3 * max(sizes)  # four processes fetched


def test_the_cache_makes_room_for_what_comes(packed, tmp_path, served):
    url, _ = served(packed)
    sizes = [path.stat().st_size for path in packed.glob("*.tar")]
    limit, cache = 2 * TOGETHER * max(sizes), tmp_path / "cache"
    few = images(url, cache=cache, limit=limit / 1e9)
    few.limit = 2 * max(sizes)
    for shard in range(len(sizes)):
        few.file(shard)
        assert sum(path.stat().st_size for path in cache.iterdir()) <= few.limit
    assert any(path.name.endswith(few.shards[-1].name) for path in cache.iterdir())


def test_training_on_two_processes(photo_folder, tiny, packed, tmp_path):
    """Lightning's DDP, the command as a user gives it."""
    options = [o for o in tiny if "clean_dir" not in o] + [f"data.val_hr={photo_folder('val', 1, 64, 64)}"]
    options += [f"data.clean_shards={packed}", "trainer.devices=2", "+trainer.strategy=ddp_find_unused_parameters_true"]
    done = command("realsr.train", *options, "accelerator=cpu", f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


# -- bad input


def test_webdataset_is_asked_for_where_it_is_missing(photo_folder, tmp_path, packed, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset.cache", None)
    for call in (
        lambda: pack(find_images(tmp_path / "photos"), tmp_path / "new", RULE),
        lambda: images("https://nowhere.invalid/set"),
    ):
        with pytest.raises(InputError, match=r"pip install 'realsr\[shards\]'"):
            call()
    assert len(images(packed)) == 48  # a folder needs it not


def test_what_is_no_set_or_damaged_is_named(packed, tmp_path, photo_folder):
    def refused(match, **options):
        with pytest.raises(InputError, match=match) as error:
            images(options.pop("where", packed), **options)
        assert "\n" not in str(error.value)

    refused("photos: is no sharded set.*realsr.pack", where=tmp_path / "photos")
    refused("nothing: is no sharded set", where=tmp_path / "nothing")
    refused("has images of 48 pixels, smaller than the crop of 64", min_size=64)
    refused("packed with factor=1, and 0.5 is needed", factor=0.5)
    shard = sorted(packed.glob("*.tar"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-700])
    refused("it was cut off; delete the file")
    shard.unlink()
    refused("is missing, though the index names it")
    shard.write_bytes(b"\0" * len(whole))
    with pytest.raises(InputError, match=f"{shard.name}: holds 0 images"):
        images(packed)[0]
    with tarfile.open(tmp_path / "copy.tar", "w") as tar:
        tar.add(packed / "index.json")
    shard.write_bytes(whole[:700] + b"x" * 900 + whole[1600:])
    with pytest.raises(InputError, match=f"{shard.name}: .* is damaged"):
        for image in range(6):
            images(packed)[image]
    for text in ("{", "[]", '{"shards": [{"name": 1}]}'):
        (packed / "index.json").write_text(text)
        refused("is damaged or of another program")
    (packed / "index.json").write_text(json.dumps({"factor": 1, "shards": []}))
    refused("is an empty set")


def test_a_server_that_fails_is_named(packed, tmp_path, served):
    url, _ = served(tmp_path)
    with pytest.raises(InputError, match=r"nothing: cannot be fetched \(exit code 22\)"):
        images(f"{url}/nothing")
    found = images(f"{url}/set", cache=tmp_path / "cache")
    shard = sorted(packed.glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(InputError, match="gave a file of another size"):
        found[0]
    shard.unlink()
    with pytest.raises(InputError, match=f"{shard.name}: cannot be fetched"):
        found[0]
    with pytest.raises(InputError, match=r"shard_cache_limit=1e-06 GB: .* are needed"):
        images(f"{url}/set", cache=tmp_path / "cache", limit=1e-6)


def test_s3_is_read_by_its_command(packed, tmp_path, monkeypatch):
    """A stand-in for ``aws`` that takes the bucket for a folder."""
    script = tmp_path / "bin" / "aws"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n[ "$1 $2 $3 $5" = "s3 cp --quiet -" ] && cat "{tmp_path}/${{4#s3://bucket/}}"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    remote, local = images("s3://bucket/set/", cache=tmp_path / "cache"), images(packed)
    assert all(np.array_equal(remote[i], local[i]) for i in range(len(local)))


@pytest.mark.parametrize(
    "options, line",
    [
        (["data.clean_dir=x"], "give one of them"),
        (["data.source_shards={0}", "data.val_hr=null"], "hold no image out for validation; give data.val_hr"),
        (["data.source_shards={0}"], "packed with factor=1, and 0.5 is needed here"),
        (["data.crop_size=96"], "smaller than the crop of 96"),
    ],
)
def test_options_that_do_not_fit(data, packed, options, line):
    with pytest.raises(InstantiationException, match=line) as error:
        data(*(option.format(packed) for option in options))
    assert isinstance(error.value.__cause__, InputError)
