"""Pools on disk and in memory: resumable filling, errors that name the file, fair and reproducible draws."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from scipy import ndimage

from realsr import __version__
from realsr.degradation.development import Development
from realsr.estimation.kernels import developed, kernel_of_blur
from realsr.estimation.shrinkage import shrunk_blurs
from realsr.imaging.resample import blur_subsample
from realsr.pools.builder import fill_pool, read_skipped
from realsr.pools.folder import Entry
from realsr.pools.pool import KernelPool, NoisePool, hold_out
from realsr.pools.sampling import NoiseDraw
from realsr.runtime.errors import InputError
from realsr.runtime.files import file_hash


def kernel(size: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((size, size))
    return values / values.sum()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_pool(count: int = 3, side: int = 16) -> NoisePool:
    tiles = torch.randint(90, 110, (count, 3, side, side), generator=seeded(), dtype=torch.uint8)
    tiles[:, 0] += 100  # a mean that is not the same in every channel
    return NoisePool(tiles, [f"photo{i}" for i in range(count)])


def noise(pool: NoisePool, count: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    drawn = NoiseDraw().draw(pool, count, size, seeded(seed))
    return NoiseDraw().noise(pool, drawn, torch.zeros(count, 3, *size))


class Maker:
    """Counts what it is asked to make; a photo named in ``fails`` raises what it says."""

    def __init__(self, fails: dict[str, Exception] | None = None):
        self.made: list[str] = []
        self.fails = fails or {}

    def __call__(self, photo):
        if photo.name in self.fails:
            raise self.fails[photo.name]
        self.made.append(photo.name)
        return {"x4": kernel(5, len(self.made))}, {"seconds": 1.5}


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / "photos" / f"{name}.png" for name in "abcd"]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pool"


def test_entry_round_trip(folder):
    entry = Entry(folder / "a.npz", {"x4": kernel(5), "tiles": np.zeros((0, 4, 4, 3), np.uint8)}, {"photo": "ü.png"})
    entry.write()
    back = Entry.read(entry.path)
    assert back.manifest == entry.manifest and back.path == entry.path
    assert set(back.arrays) == {"x4", "tiles"}
    for name, array in entry.arrays.items():
        assert back.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(back.arrays[name], array)
    assert [p.name for p in folder.iterdir()] == ["a.npz"]


def test_entry_of_another_program(folder):
    folder.mkdir()
    np.savez(folder / "theirs.npz", x4=kernel(5))
    assert Entry.read(folder / "theirs.npz").manifest == {}
    assert KernelPool.load(folder, 4).photos == ["theirs"]


def test_fill_pool_writes_what_it_yields(folder, photos):
    results = list(fill_pool(folder, photos, {"sigma": (1, 2)}, Maker()))
    assert [photo for photo, _ in results] == photos
    for photo, entry in results:
        assert entry.manifest == {
            "photo": photo.name,
            "sha256": file_hash(photo),
            "settings": {"sigma": [1, 2]},
            "realsr": __version__,
            "seconds": 1.5,
        }
        back = Entry.read(entry.path)
        assert back.manifest == entry.manifest
        np.testing.assert_array_equal(back.arrays["x4"], entry.arrays["x4"])
    assert len(list(folder.iterdir())) == 4


def test_fill_pool_skips_what_is_done(folder, photos):
    first = [entry for _, entry in fill_pool(folder, photos, {"sigma": (1, 2)}, Maker())]
    again = Maker()
    second = [entry for _, entry in fill_pool(folder, photos, {"sigma": (1, 2)}, again)]
    assert again.made == []
    assert [e.manifest for e in second] == [e.manifest for e in first]


def test_what_takes_long_to_know_is_learnt_once_where_an_entry_is_missing(folder, photos):
    asked = []

    def fill(noise, redo=True):
        def learn():
            asked.append(noise)
            return {"noise": noise}, {"sigma": noise}

        def make(photo, sigma):
            made.append((photo.stem, sigma))
            return {}, {}

        made = []
        results = list(fill_pool(folder, photos, {"noise": "camera"}, make, redo, learn=learn))
        assert sorted(photo for photo, _ in results) == photos
        return made

    assert fill("photo") == [(name, "photo") for name in "abcd"]
    assert fill("photo") == [] and asked == ["photo", "photo"]
    assert fill("camera", redo=False) == [] and len(asked) == 2
    assert fill("camera") == [(name, "camera") for name in "abcd"]
    assert fill("camera") == fill("photo") == [] and asked == ["photo", "photo", "camera"]
    photos[1].write_bytes(b"another picture")
    assert fill("camera") == [("b", "camera")] and len(asked) == 4


def test_what_another_program_has_made_meanwhile_is_not_made_again(folder, photos):
    other = Maker()

    def make(photo):
        list(fill_pool(folder, photos[2:], {}, other))
        return {}, {}

    results = dict(fill_pool(folder, photos, {}, make))
    assert other.made == ["c.png", "d.png"]
    assert [set(results[photo].arrays) for photo in photos] == [set(), set(), {"x4"}, {"x4"}]


def test_a_photo_that_is_gone_meanwhile_is_skipped(folder, photos):
    def make(photo):
        photos[1].unlink(missing_ok=True)
        if not photo.exists():
            raise InputError(f"{photo}: cannot be read")
        return {}, {}

    results = dict(fill_pool(folder, photos, {}, make))
    assert results[photos[1]] == f"{photos[1]}: cannot be read" and len(results) == 4


def test_fill_pool_redoes_changed_settings(folder, photos):
    list(fill_pool(folder, photos[:2], {"steps": 1}, Maker()))
    kept, redone = Maker(), Maker()
    results = list(fill_pool(folder, photos, {"steps": 2}, kept, redo=False))
    assert kept.made == ["c.png", "d.png"]
    assert [entry.manifest["settings"]["steps"] for _, entry in results] == [1, 1, 2, 2]
    list(fill_pool(folder, photos, {"steps": 2}, redone))
    assert redone.made == ["a.png", "b.png"]
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("redo", [True, False])
def test_fill_pool_redoes_changed_photos(folder, photos, redo):
    list(fill_pool(folder, photos, {}, Maker()))
    photos[1].write_bytes(b"another picture")
    maker = Maker()
    results = dict(fill_pool(folder, photos, {}, maker, redo))
    assert maker.made == ["b.png"]
    assert results[photos[1]].manifest["sha256"] == file_hash(photos[1])


def test_fill_pool_does_not_trust_the_file_name(folder, photos):
    ((_, entry),) = fill_pool(folder, photos[:1], {}, Maker())
    Entry(entry.path, entry.arrays, {**entry.manifest, "sha256": "0" * 64}).write()
    maker = Maker()
    list(fill_pool(folder, photos[:1], {}, maker))
    assert maker.made == ["a.png"]


def test_fill_pool_goes_on_after_an_unusable_photo(folder, photos):
    maker = Maker({"b.png": InputError("b.png: too small")})
    results = dict(fill_pool(folder, photos, {}, maker))
    assert results[photos[1]] == "b.png: too small"
    assert maker.made == ["a.png", "c.png", "d.png"]
    assert len(list(folder.glob("*.npz"))) == 3


@pytest.mark.parametrize("current", [False, True])
def test_why_a_photo_gave_nothing_is_kept_until_it_gives_something(folder, photos, current):
    """Other photos' reasons too, whoever finds them (shards fill one pool)."""
    unusable = {"b.png": InputError(f"{photos[1]}: too small"), "d.png": InputError("d is broken")}
    list(fill_pool(folder, photos[:2], {}, Maker(unusable)))
    list(fill_pool(folder, photos[2:], {}, Maker(unusable)))
    assert read_skipped(folder) == [("b.png", "too small"), ("d.png", "d is broken")]
    photos[1].write_bytes(b"a larger photo")
    if current:  # a copy of the pool's files brought it
        list(fill_pool(folder.parent / "other", photos[1:2], {}, Maker()))
        (made,) = (folder.parent / "other").glob("*.npz")
        made.rename(folder / made.name)
    list(fill_pool(folder, photos, {}, Maker({"d.png": InputError("d is broken")})))
    assert read_skipped(folder) == [("d.png", "d is broken")]
    (folder / "e-0.skipped.json").write_text("half a fi")
    assert read_skipped(folder) == [("d.png", "d is broken")]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_fill_pool_resumes_after_an_interruption(folder, photos, error):
    with pytest.raises(error):
        list(fill_pool(folder, photos, {}, Maker({"c.png": error("stop")})))
    assert [Entry.read(p).manifest["photo"] for p in sorted(folder.iterdir())] == ["a.png", "b.png"]
    rest = Maker()
    assert len(list(fill_pool(folder, photos, {}, rest))) == 4
    assert rest.made == ["c.png", "d.png"]


def test_leftovers_of_killed_writes_are_no_entries_and_go_in_time(folder, photos):
    folder.mkdir()
    old, young = (folder / f".a-0000.npz.{name}" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half a file")
    os.utime(old, (0, 0))
    list(fill_pool(folder, photos, {}, Maker()))
    assert not old.exists()
    assert young.exists()  # perhaps of a program that is at work
    assert len(KernelPool.load(folder, 4)) == 4


def test_photos_of_one_name_do_not_collide(folder, photos):
    other = photos[0].parent / "sub" / "a.png"
    other.parent.mkdir()
    other.write_bytes(b"another a")
    list(fill_pool(folder, [photos[0], other], {}, Maker()))
    assert len(list(folder.iterdir())) == 2


def write_kernel(path, array, name="x4"):
    Entry(path, {name: np.asarray(array)}, {"photo": f"{path.stem}.png"}).write()


def test_a_pipe_in_a_pool_is_not_waited_for(folder):
    write_kernel(folder / "a.npz", np.full((3, 3), 1 / 9))
    os.mkfifo(folder / "pipe.npz")
    with pytest.raises(InputError, match=r"pipe\.npz: is no file"):
        KernelPool.load(folder, 4)


@pytest.mark.parametrize("load", [lambda f: KernelPool.load(f, 4), NoisePool.load], ids=["kernel", "noise"])
def test_missing_and_empty_folders_are_named(folder, load):
    with pytest.raises(InputError, match=f"{folder}.*does not exist.*realsr"):
        load(folder)
    folder.mkdir()
    with pytest.raises(InputError, match=f"{folder}.*is empty.*realsr"):
        load(folder)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((5, 5), np.nan), "NaN"),
        (np.diag([1, 1, np.inf]), "infinite"),
        (np.zeros((5, 5)), "sums to 0"),
        (-kernel(5), "sums to -1"),
        (np.ones((5, 7)), r"square.*\(5, 7\)"),
        (np.ones((1, 5, 5)), "square"),
        (np.zeros((0, 0)), "sums to 0"),
    ],
)
def test_bad_kernels_are_named(folder, array, message):
    write_kernel(folder / "a.npz", kernel(5))
    write_kernel(folder / "broken.npz", array)
    with pytest.raises(InputError, match=rf"broken\.npz.*{message}"):
        KernelPool.load(folder, 4)


def test_missing_scale_says_what_there_is(folder):
    Entry(folder / "a.npz", {"x2": kernel(5), "thumbnail": np.zeros((4, 4, 3), np.uint8)}, {}).write()
    assert len(KernelPool.load(folder, 2)) == 1
    with pytest.raises(InputError, match=r"a\.npz.*no x4 kernel, only x2"):
        KernelPool.load(folder, 4)


@pytest.mark.parametrize("load", [lambda f: KernelPool.load(f, 4), NoisePool.load], ids=["kernel", "noise"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "plain array", "no manifest"])
def test_damaged_files_are_named(folder, load, damage):
    path = folder / "broken.npz"
    Entry(path, {"x4": kernel(5), "tiles": np.zeros((2, 4, 4, 3), np.uint8)}, {}).write()
    load(folder)
    if damage == "plain array":
        with path.open("wb") as file:
            np.save(file, kernel(5))
    elif damage == "no manifest":
        np.savez(path, x4=kernel(5), tiles=np.zeros((2, 4, 4, 3), np.uint8), manifest=np.array("{no json"))
    else:
        whole = path.read_bytes()
        path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(InputError, match=r"broken\.npz"):
        load(folder)


def test_kernels_are_normalised(folder):
    write_kernel(folder / "a.npz", 3 * kernel(5))
    pool = KernelPool.load(folder, 4)
    assert pool.kernels.dtype == torch.float32 and pool.photos == ["a.png"]
    np.testing.assert_allclose(pool.kernels[0], kernel(5), atol=1e-7)


def test_kernels_of_a_pool_hold_the_cameras_development(folder):
    response = Development("malvar", sharpening=0.4).response()
    blurs = [np.diag([0.3, 0.4]), np.diag([0.4, 0.3])]
    for i, blur in enumerate(blurs):
        whole = developed(kernel_of_blur(blur, 4, 33), response, 4)
        Entry(folder / f"{i}.npz", {"x4": whole, "response": response}, {"blur": blur.tolist()}).write()
    for found, blur in zip(
        KernelPool.load(folder, 4).kernels.double().numpy(), shrunk_blurs(np.array(blurs), np.ones(2)), strict=True
    ):
        assert found == pytest.approx(developed(kernel_of_blur(blur, 4, 33), response, 4), abs=1e-6)
        assert found.min() < -1e-3
    Entry(folder / "2.npz", {"x4": kernel(33), "response": np.zeros((3, 2))}, {}).write()
    with pytest.raises(InputError, match=r"2\.npz: a kernel is a square array"):
        KernelPool.load(folder, 4)


def test_mixed_sizes_keep_the_centre_convention(folder):
    """Padded to one odd frame, each kernel still makes the LR that it made alone."""
    sizes = [5, 8, 4, 7]
    for i, size in enumerate(sizes):
        write_kernel(folder / f"{i}.npz", kernel(size, i))
    pool = KernelPool.load(folder, 4)
    assert pool.kernels.shape == (4, 9, 9)
    hr = torch.rand(1, 3, 32, 32, generator=seeded())
    for i, size in enumerate(sizes):
        alone = blur_subsample(hr, torch.from_numpy(kernel(size, i))[None], 4)
        torch.testing.assert_close(blur_subsample(hr, pool.kernels[i : i + 1], 4), alone, rtol=0, atol=1e-5)
        centre = np.array(ndimage.center_of_mass(pool.kernels[i].double().numpy())) - 9 // 2
        np.testing.assert_allclose(centre, np.array(ndimage.center_of_mass(kernel(size, i))) - size // 2, atol=1e-5)


def test_min_confidence_leaves_kernels_out(folder, caplog):
    caplog.set_level("INFO")
    for name, confidence in {"a": 0.2, "b": 0.5, "c": 0.9}.items():
        Entry(folder / f"{name}.npz", {"x4": kernel(5)}, {"photo": name, "confidence": confidence}).write()
    assert KernelPool.load(folder, 4).photos == list("abc") and "keeps" not in caplog.text
    assert KernelPool.load(folder, 4, 0.5).photos == ["b", "c"]
    assert "min_confidence=0.5 keeps 2 of 3 kernels" in caplog.text
    with pytest.raises(InputError, match=rf"{folder}: min_confidence=0.95 leaves no kernel, the best has 0.90"):
        KernelPool.load(folder, 4, 0.95)
    write_kernel(folder / "d.npz", kernel(5))  # of an older pool
    assert KernelPool.load(folder, 4, 0.95).photos == ["d.png"]


def write_tiles(path, count=2, side=4, photo="a.png"):
    tiles = np.random.default_rng(count).integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    Entry(path, {"tiles": tiles}, {"photo": photo}).write()
    return tiles


def test_noise_pool_loads_all_tiles(folder):
    first, _, third = (write_tiles(folder / f"{i}.npz", n, photo=f"{i}.png") for i, n in enumerate((2, 0, 3)))
    pool = NoisePool.load(folder)
    assert pool.photos == ["0.png"] * 2 + ["2.png"] * 3 and len(pool) == 5
    assert pool.tiles.dtype == torch.uint8
    np.testing.assert_array_equal(pool.tiles, np.concatenate([first, third]).transpose(0, 3, 1, 2))


def test_noise_pool_errors(folder):
    write_tiles(folder / "a.npz", 0)
    with pytest.raises(InputError, match=f"{folder}.*no tile.*realsr.collect"):
        NoisePool.load(folder)
    write_tiles(folder / "b.npz", 2, 4)
    write_tiles(folder / "c.npz", 2, 6)
    with pytest.raises(InputError, match=r"c\.npz: tiles of 6 pixels, others have 4"):
        NoisePool.load(folder)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x4": kernel(5)},
        {"tiles": np.zeros((2, 4, 4, 3), np.float32)},
        {"tiles": np.zeros((2, 3, 4, 4), np.uint8)},
        {"tiles": np.zeros((4, 4, 3), np.uint8)},
    ],
)
def test_what_is_no_noise_is_named(folder, arrays):
    Entry(folder / "broken.npz", arrays, {}).write()
    with pytest.raises(InputError, match=r"broken\.npz"):
        NoisePool.load(folder)


@pytest.mark.parametrize("size", [(16, 16), (5, 9), (40, 7), (37, 50)])
def test_noise_sample(size):
    """Zero mean in every channel, units of [0, 1] images; larger than the tile too."""
    pool = noise_pool()
    patch = noise(pool, 6, size)
    assert patch.shape == (6, 3, *size) and patch.dtype == torch.float32
    np.testing.assert_allclose(patch.mean((2, 3)), 0, atol=1e-6)
    steps = patch * 255 - (patch * 255)[..., :1, :1]  # tiles of 20 whole levels
    np.testing.assert_allclose(steps, steps.round(), atol=1e-3)
    spread = 255 * (patch.amax((2, 3)) - patch.amin((2, 3)))
    assert spread.min() > 10 and spread.max() < 19.5
    torch.testing.assert_close(noise(pool, 6, size), patch)
    assert not torch.equal(noise(pool, 6, size, 1), patch)


def test_noise_larger_than_the_tile_is_the_tile_mirrored():
    pool = noise_pool(1, 8)
    mirrored = np.pad(pool.tiles[0].numpy().astype(float), ((0, 0), (0, 12), (0, 20)), mode="symmetric")
    expected = (mirrored - mirrored.mean((1, 2), keepdims=True)) / 255
    np.testing.assert_allclose(noise(pool, 1, (20, 28))[0], expected, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_hold_out_splits_by_photo(share, count):
    photos = [f"photo{i}" for i in range(count) for _ in range(3)]
    pool = NoisePool(torch.arange(len(photos), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2), photos)
    train, held = hold_out(pool, share, seed=0)
    assert not set(train.photos) & set(held.photos)
    assert sorted(train.photos + held.photos) == sorted(photos)
    assert len(set(held.photos)) == min(max(round(share * count), 1), count - 1)
    for part in (train, held):  # tiles went with their names
        assert [photos[i] for i in part.tiles[:, 0, 0, 0].tolist()] == part.photos
    assert hold_out(pool, share, seed=0)[1].photos == held.photos
    assert len({tuple(hold_out(pool, share, seed)[1].photos) for seed in range(20)}) > 1


def test_hold_out_of_a_single_photo_splits_its_tiles():
    pool = NoisePool(torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2), ["a"] * 5)
    train, held = hold_out(pool, 0.2, seed=0)
    assert sorted(train.tiles[:, 0, 0, 0].tolist() + held.tiles[:, 0, 0, 0].tolist()) == list(range(5))
    assert len(held) == 1


def test_hold_out_of_a_single_item():
    pool = KernelPool(torch.rand(1, 3, 3), ["a"])
    assert [len(part) for part in hold_out(pool, 0.5, seed=0)] == [1, 1]


def test_doubtful_entries_are_made_anew_with_other_settings(tmp_path):
    photo = tmp_path / "a.png"
    photo.write_bytes(b"photo")
    made = []

    def fill(iterations, doubtful):
        def make(path):
            made.append(iterations)
            return {"x2": np.ones((3, 3))}, {"doubtful": doubtful}

        list(fill_pool(tmp_path / "pool", [photo], {"iterations": iterations}, make, redo=False))

    for iterations, doubtful in ((10, True), (10, True), (20, False), (30, False)):
        fill(iterations, doubtful)
    assert made == [10, 20]


def test_what_is_made_anew_is_told_with_what_differs(folder, photos, caplog):
    caplog.set_level("INFO")
    list(fill_pool(folder, photos[:2], {"estimator": "A", "steps": 1, "crop": 8}, Maker()))
    assert "made anew" not in caplog.text
    list(fill_pool(folder, photos, {"estimator": "A", "steps": 2, "crop": 8}, Maker()))
    assert f"{folder}: 2 of other settings (steps=1, now 2) are made anew" in caplog.text
    caplog.clear()
    list(fill_pool(folder, photos, {"estimator": "A", "steps": 2, "crop": 8}, Maker()))
    assert not caplog.text


def test_a_photo_that_cannot_be_read_is_skipped(folder, photos, monkeypatch):
    def refuse(path):
        if path == photos[1]:
            raise PermissionError(13, "Permission denied", str(path))
        return file_hash(path)

    monkeypatch.setattr("realsr.pools.builder.file_hash", refuse)
    results = dict(fill_pool(folder, photos, {}, Maker()))
    assert results[photos[1]] == f"{photos[1]}: cannot be read (Permission denied)"
    assert len(list(folder.iterdir())) == 3


def test_a_file_that_may_not_be_read_is_not_called_damaged(folder, monkeypatch):
    write_kernel(folder / "a.npz", kernel(5))

    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(InputError, match=r"a\.npz: cannot be read \(Permission denied\); give yourself the perm"):
        Entry.read(folder / "a.npz")


def test_a_renamed_photo_keeps_its_entry_and_counts_once(folder, photos):
    list(fill_pool(folder, photos, {"steps": 1}, Maker()))
    photos[1] = photos[1].rename(photos[1].with_name("renamed.png"))
    again, redone = Maker(), Maker()
    list(fill_pool(folder, photos, {"steps": 1}, again))
    assert again.made == []
    list(fill_pool(folder, photos, {"steps": 2}, redone))
    assert sorted(redone.made) == ["a.png", "c.png", "d.png", "renamed.png"]
    assert sorted(KernelPool.load(folder, 4).photos) == ["a.png", "c.png", "d.png", "renamed.png"]


def test_of_copies_of_a_photo_the_first_counts(folder, photos):
    copy = photos[0].with_name("copy.png")
    copy.write_bytes(photos[0].read_bytes())
    results = dict(fill_pool(folder, [*photos, copy], {}, Maker()))
    assert results[copy] == f"{copy}: is the same photo as {photos[0]}"
    assert len(list(folder.iterdir())) == 4


def test_files_of_one_photo_count_once(folder):
    """As pools have it that were filled before the photo was renamed, or merged."""
    for name, sha256 in {"a": "1", "b": "2", "c": "1"}.items():
        arrays = {"x4": kernel(5), "tiles": np.zeros((2, 4, 4, 3), np.uint8)}
        Entry(folder / f"{name}.npz", arrays, {"photo": name, "sha256": sha256}).write()
    assert KernelPool.load(folder, 4).photos == ["a", "b"]
    assert NoisePool.load(folder).photos == ["a", "a", "b", "b"]


@pytest.mark.parametrize("whole", [True, False])
def test_files_of_photos_that_are_gone_are_told_and_stay(folder, photos, caplog, whole):
    caplog.set_level("INFO")
    list(fill_pool(folder, photos, {}, Maker(), whole=whole))
    assert "photos that are not in the folder" not in caplog.text
    photos[1].unlink()
    list(fill_pool(folder, [photos[0], *photos[2:]], {}, Maker(), whole=whole))
    assert (f"{folder}: 1 files are of photos that are not in the folder" in caplog.text) is whole
    assert ("delete them: b-" in caplog.text) is whole
    assert len(KernelPool.load(folder, 4)) == 4


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ([], r"manifest is \[\]"),
        ({"photo": 3}, "photo is 3"),
        ({"sha256": [1]}, r"sha256 is \[1\]"),
        ({"settings": "x"}, "settings is 'x'"),
        ({"confidence": "high"}, "confidence is 'high'"),
        ({"confidence": None}, "confidence is None"),
        ({"reasons": "blurred"}, "reasons is 'blurred'"),
        ({"blur": 3}, "blur is 3"),
        ({"confidence": 95}, "confidence is 95, not 0 to 1"),
        ({"confidence": float("nan")}, "confidence is nan, not 0 to 1"),
        ({"reasons": [3, 0.5]}, r"reasons is \[3, 0.5\], not a list of texts"),
        ({"blur": [1, 0, 0, 1]}, r"blur is \[1, 0, 0, 1\], not a covariance"),
        ({"blur": [[1, 2], [3]]}, "blur is .*, not a covariance"),
        ({"blur": [[1, 0], [0, -1]]}, "blur is .*, not a covariance"),
        ({"blur": [[1, 0], [0, float("nan")]]}, "blur is .*, not a covariance"),
    ],
)
def test_odd_manifests_are_named(folder, manifest, says):
    Entry(folder / "odd.npz", {"x4": kernel(5)}, manifest).write()
    with pytest.raises(InputError, match=rf"odd\.npz: .*{says}"):
        KernelPool.load(folder, 4)
