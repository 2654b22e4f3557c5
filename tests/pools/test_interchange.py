"""Kernels of other programs: what they write is read, what they read is written, and mistakes are named in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from scipy.io import loadmat, savemat

from realsr.estimation.kernels import gaussian_kernel, x4_from_x2
from realsr.pools.export_kernels import check_form, export_kernels, write_kernels
from realsr.pools.folder import Entry
from realsr.pools.interchange import is_foreign, read_kernels
from realsr.pools.pool import KernelPool
from realsr.runtime.errors import InputError


def kernel(index: int, scale: int = 4) -> np.ndarray:
    x2 = gaussian_kernel(17, (0.7 + 0.1 * index, 1.1 + 0.1 * index), 0.4 * index, 2)
    return x2 if scale == 2 else x4_from_x2(x2)


def kernelgan_results(folder, names="ab", scales=(2, 4)):
    """A results folder as the KernelGAN program leaves it."""
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        (folder / name / f"ZSSR_{name}.png").write_bytes(b"")
        for scale in scales:
            savemat(folder / name / f"{name}_kernel_x{scale}.mat", {"Kernel": kernel(index, scale)})
    return folder


@pytest.mark.parametrize("scale", [2, 4])
def test_results_of_the_kernelgan_program(tmp_path, scale):
    folder = kernelgan_results(tmp_path / "results", ["IMG_1.5", "IMG_2"])
    pool = KernelPool.load(folder, scale)
    assert pool.photos == ["IMG_1.5", "IMG_2"]
    for index, read in enumerate(pool.kernels.numpy()):
        np.testing.assert_allclose(read, kernel(index, scale), atol=1e-8)


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("kind", ["npy", "mat"])
@pytest.mark.parametrize("shape", [(33, 33), (1, 33, 33), (3, 33, 33), (3, 1, 33, 33)])
def test_arrays(tmp_path, shape, kind, single):
    count = 1 if len(shape) == 2 else shape[0]
    array = 2 * np.stack([kernel(i) for i in range(count)]).reshape(shape).astype(np.float32)
    path = tmp_path / "theirs" / f"kernels.{kind}"
    path.parent.mkdir()
    np.save(path, array) if kind == "npy" else savemat(path, {"Kernel": array})
    pool = KernelPool.load(path if single else path.parent, 4)
    assert pool.photos == (["kernels"] if count == 1 else [f"kernels[{i}]" for i in range(count)])
    np.testing.assert_allclose(pool.kernels, array.reshape(count, 33, 33) / 2, atol=1e-7)


def test_a_folder_of_single_kernels_of_several_sizes(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}").mkdir()
        np.save(tmp_path / f"{index}" / f"k{index}.npy", gaussian_kernel(13 + 2 * index, (1, 1.5), 0.3, 4))
    pool = KernelPool.load(tmp_path, 4)
    assert pool.photos == ["k0", "k1", "k2"]
    assert pool.kernels.shape == (3, 17, 17)


def test_mat_files_come_before_arrays(tmp_path):
    np.save(kernelgan_results(tmp_path) / "loss.npy", np.zeros(3000))
    assert len(KernelPool.load(tmp_path, 4)) == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.npy", np.ones((5, 7)), r"a\.npy: a kernel is a square array.*\(5, 7\)"),
        ("a.npy", np.ones((2, 5, 7)), r"a\.npy\[0\]: a kernel is a square"),
        ("a.npy", np.stack([np.ones((5, 5)), np.full((5, 5), np.nan)]), r"a\.npy\[1\].*NaN"),
        ("a.npy", np.zeros((5, 5)), "sums to 0"),
        ("a.npy", np.ones(25), r"\(25,\) is no kernel \(K, K\)"),
        ("a.npy", np.ones((2, 3, 5, 5)), r"is no kernel"),
        ("a.npy", np.ones((0, 5, 5)), r"is no kernel"),
        ("a.npy", np.ones((5, 5)) * 1j, "complex128"),
        ("a.npy", np.array([{"Kernel": 1}], dtype=object), "cannot be read as kernels.*allow_pickle"),
        ("a.npy", b"\x93NUMPY", "cannot be read as kernels"),
        ("a.npy", b"\x80\x04K\x01.", "cannot be read as kernels"),
        ("a_kernel_x4.mat", {"k": np.ones((5, 5)), "b": 1}, "has no variable Kernel, only k, b"),
        ("a_kernel_x4.mat", {"Kernel": np.ones((5, 7))}, "square"),
        ("a_kernel_x4.mat", {"Kernel": "text"}, "real numbers"),
        ("a_kernel_x4.mat", {"Kernel": np.array([np.ones((5, 5)), "b"], dtype=object)}, "real numbers"),
        ("a_kernel_x4.mat", b"text", "cannot be read as kernels"),
        ("a_kernel_x4.mat", b"", "cannot be read as kernels"),
        ("a_kernel_x4.mat", b"MATLAB 7.3".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n", "MATLAB 7.3.*-v7"),
        ("a_kernel_x2.mat", {"Kernel": np.ones((5, 5))}, "has no x4 kernels, only x2"),
        ("a_kernel_x2.npy", np.ones((5, 5)), "has no x4 kernels, only x2"),
    ],
)
@pytest.mark.parametrize("single", [True, False])
def test_what_is_of_no_use_is_named(tmp_path, name, content, says, single):
    path = tmp_path / "theirs" / name
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True) if path.suffix == ".npy" else savemat(path, content)
    with pytest.raises(InputError, match=says) as caught:
        KernelPool.load(path if single else path.parent, 4)
    assert str(path if single else path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_mat_files_are_named(tmp_path):
    path = tmp_path / "a_kernel_x4.mat"
    savemat(path, {"Kernel": kernel(0)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a_kernel_x4\.mat"):
            list(read_kernels(path, 4))


def test_other_files_are_no_pool(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"photo\.png: is no kernel pool"):
        KernelPool.load(path, 4)


def test_what_is_foreign(tmp_path):
    assert not is_foreign(tmp_path / "missing") and not is_foreign(tmp_path)
    assert is_foreign(kernelgan_results(tmp_path))
    assert is_foreign(tmp_path / "a" / "a_kernel_x4.mat")
    Entry(tmp_path / "photo-1234.npz", {"x4": kernel(0)}, {}).write()
    assert not is_foreign(tmp_path)


def own_pool(folder):
    for index, photo in enumerate(["a.JPG", "b.v2.png", "b.v2.jpg"]):
        arrays = {"x2": kernel(index, 2), "x4": kernel(index), "thumbnail": np.zeros((4, 4, 3), np.uint8)}
        Entry(folder / f"{index}.npz", arrays, {"photo": photo, "confidence": 0.3 * index + 0.2}).write()
    return folder


def test_export_as_the_kernelgan_program_does(tmp_path):
    """As its readers look for them: ``*/*_kernel_x4.mat``, a variable ``Kernel``."""
    export_kernels(own_pool(tmp_path / "pool"), tmp_path / "results", "mat")
    for scale, size in ((2, 17), (4, 33)):
        files = sorted((tmp_path / "results").glob(f"*/*_kernel_x{scale}.mat"))
        assert [f.parent.name for f in files] == ["a", "b.v2", "b.v2_2"]
        assert all(f.name == f"{f.parent.name}_kernel_x{scale}.mat" for f in files)
        for index, file in enumerate(files):
            array = loadmat(file)["Kernel"]
            assert array.shape == (size, size) and array.dtype == np.float64
            np.testing.assert_allclose(array, kernel(index, scale), atol=1e-8)
    back = KernelPool.load(tmp_path / "results", 4)
    torch.testing.assert_close(back.kernels, KernelPool.load(tmp_path / "pool", 4).kernels)


def test_export_as_arrays(tmp_path):
    export_kernels(own_pool(tmp_path / "pool"), tmp_path / "arrays", "npy", min_confidence=0.5)
    assert sorted(p.name for p in (tmp_path / "arrays").iterdir()) == ["kernels_x2.npy", "kernels_x4.npy"]
    assert np.load(tmp_path / "arrays" / "kernels_x2.npy").shape == (2, 17, 17)
    assert KernelPool.load(tmp_path / "arrays", 4).photos == ["kernels_x4[0]", "kernels_x4[1]"]
    torch.testing.assert_close(
        KernelPool.load(tmp_path / "arrays", 4).kernels, KernelPool.load(tmp_path / "pool", 4, 0.5).kernels
    )


def test_photos_of_kernels_that_were_read_keep_their_names(tmp_path):
    write_kernels(tmp_path, "mat", 4, ["IMG_1.5", "stack[3]"], np.stack([kernel(0), kernel(1)]))
    assert KernelPool.load(tmp_path, 4).photos == ["IMG_1.5", "stack[3]"]


def test_form():
    check_form(None)
    check_form("mat")
    with pytest.raises(InputError, match="export=matlab: choose mat or npy"):
        check_form("matlab")


def test_kernels_that_move_the_picture_are_reported(tmp_path, caplog):
    """Centred on ``K//2``, as many programs have them for another subsampling."""
    np.save(tmp_path / "off.npy", np.stack([gaussian_kernel(21, (2, 3), a, 1) for a in (0, 1, 2)]))
    KernelPool.load(tmp_path / "off.npy", 4)
    assert "move the picture by 1.5 pixels" in caplog.text
    caplog.clear()
    KernelPool.load(kernelgan_results(tmp_path / "results"), 4)
    assert not caplog.text


@pytest.mark.parametrize("given", ["data.pools.kernel_dir", "pool_dir"])
def test_training_takes_them_as_they_are(compose, tiny, tmp_path, given):
    folder = kernelgan_results(tmp_path / "theirs" / "kernels", "abcd")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    value = folder if given == "data.pools.kernel_dir" else folder.parent
    data = instantiate(compose("train", *tiny, "degradation=kernel", f"{given}={value}").data)
    data.prepare_data()
    data.setup("fit")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert set(data.degradation.kernels.photos) < set("abcd")
    assert data.degradation.kernels.kernels.shape == (3, 33, 33)


def test_names_of_exported_kernels_do_not_collide(tmp_path):
    photos = ["a.png", "a.jpg", "a_2.png", "a.tif", "é" * 120 + ".png"]
    write_kernels(tmp_path, "mat", 4, photos, np.stack([kernel(i) for i in range(5)]))
    for name, index in {"a": 0, "a_3": 1, "a_2": 2, "a_4": 3, "é" * 100: 4}.items():
        np.testing.assert_allclose(loadmat(tmp_path / name / f"{name}_kernel_x4.mat")["Kernel"], kernel(index))


@pytest.mark.parametrize("form", ["mat", "npy"])
def test_an_export_takes_the_place_of_an_earlier_one(tmp_path, form):
    pool, target = own_pool(tmp_path / "pool"), tmp_path / "theirs"
    export_kernels(pool, target, form)
    (target / "notes.txt").write_text("mine")
    export_kernels(pool, target, form, min_confidence=0.5)
    assert len(KernelPool.load(target, 4)) == 2 == len(KernelPool.load(target, 2))
    assert (target / "notes.txt").exists()


def test_a_pool_of_two_estimators_is_exported_at_the_scales_that_all_have(tmp_path, caplog):
    pool = own_pool(tmp_path / "pool")
    entry = Entry.read(pool / "0.npz")
    Entry(entry.path, {**entry.arrays, "x3": kernel(0)}, entry.manifest).write()
    export_kernels(pool, tmp_path / "theirs", "npy")
    assert sorted(p.name for p in (tmp_path / "theirs").iterdir()) == ["kernels_x2.npy", "kernels_x4.npy"]
    assert "x3 is not exported, only 1 of 3 files have it" in caplog.text
    for path in pool.glob("[12].npz"):
        Entry(path, {"x3": kernel(0)}, {}).write()
    entry.write()
    with pytest.raises(InputError, match="no scale is in all of its files"):
        export_kernels(pool, tmp_path / "theirs", "npy")


def test_the_folder_of_all_pools_is_no_kernel_pool(tmp_path):
    """One level too high: decoded HR images are arrays, too."""
    own_pool(tmp_path / "pools" / "kernels")
    (tmp_path / "pools" / "hr").mkdir()
    np.save(tmp_path / "pools" / "hr" / "a.npy", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"pools: is a folder of pools; give .*pools/kernels, the one with kernels"):
        KernelPool.load(tmp_path / "pools", 4)
