import itertools
import shutil
from types import SimpleNamespace

import albumentations as A
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from realsr.data.datasets import HRCrops, draw_seed
from realsr.degradation.camera_fit import fit_development
from realsr.imaging import Photo, write_image
from realsr.runtime.errors import InputError

FLIPS = A.Compose([A.D4(p=1)])
COLOURS = "{_target_:albumentations.Compose,transforms:[{_target_:albumentations.ColorJitter,p:0.5}]}"


@pytest.fixture
def data(compose, tiny, tiny_pools, tmp_path):
    """``data(*overrides)``: ready to train; its pools are copied unless they are to be ``fresh``."""

    def make(*overrides, steps=6, done=0, rank=0, world=1, fresh=False):
        others = fresh or any(option.startswith("collector=") for option in overrides)
        if not others and not (tmp_path / "pools").exists():
            shutil.copytree(tiny_pools, tmp_path / "pools")
        paper = [] if any(o.startswith("ablation=") for o in overrides) else ["degradation=kernel_noise"]
        module = instantiate(compose("train", *tiny, *paper, "data.num_workers=0", *overrides).data)
        module.prepare_data()
        module.setup("fit")
        module.trainer = SimpleNamespace(global_step=done, max_steps=steps, global_rank=rank, world_size=world)
        return module

    return make


def batches(module, count=None):
    made = []
    for batch in module.train_dataloader():
        if count is not None and len(made) == count:
            break
        made.append(module.on_after_batch_transfer(module.on_before_batch_transfer(batch, 0), 0))
    return made


def test_batches_are_what_training_expects(data):
    batch = batches(data("data.batch_size=3"), 1)[0]
    assert batch["lr"].shape == (3, 3, 8, 8)
    assert batch["hr"].shape == (3, 3, 32, 32)
    assert batch["hr"].dtype == batch["lr"].dtype == torch.float32
    assert 0 <= batch["lr"].min() <= batch["lr"].max() <= 1


def test_noise_is_collected_once_for_lr_and_for_the_kernels(data, caplog):
    caplog.set_level("INFO")
    module = data(fresh=True)
    assert sum(" tiles of " in record.getMessage() for record in caplog.records) == 1
    caplog.clear()
    module.prepare_data()  # as Trainer.validate calls them once more after fit
    module.setup("validate")
    assert caplog.messages == []


def test_the_development_is_fitted_for_kernels_that_are_missing_alone(data, monkeypatch):
    fits = []
    monkeypatch.setattr(
        "realsr.degradation.camera_fit.fit_development", lambda *pools: fits.append(pools) or fit_development(*pools)
    )
    kernels = data(fresh=True).pools.folders.kernel
    assert len(fits) == 1
    data()
    assert len(fits) == 1
    next(kernels.glob("photo0*.npz")).unlink()
    data()
    assert len(fits) == 2


def test_validation_is_degraded_by_the_camera_of_the_training(data, monkeypatch):
    fits = []
    monkeypatch.setattr(
        "realsr.degradation.camera.fit_development",
        lambda noise, *of: fits.append(noise) or fit_development(noise, *of),
    )
    module = data("degradation=camera")
    noise = module.pools.split(module.validation.folders, 0)[0].noise
    assert len(fits) == 1 and torch.equal(fits[0].tiles, noise.tiles)


def test_lr_is_the_degraded_hr(data):
    """With neither kernels nor noise, LR is bicubic of the HR that comes with it, its margin included."""
    module = data("degradation=bicubic")
    raw = next(iter(module.train_dataloader()))
    batch = module.on_after_batch_transfer(module.on_before_batch_transfer(raw, 0), 0)
    from realsr.imaging.resample import imresize

    whole = imresize(raw["hr"].float() / 255, 1 / 4)
    cut = module.margin // 4
    expected = whole[..., cut:-cut, cut:-cut].clamp(0, 1).mul(255).round().div(255)
    torch.testing.assert_close(batch["lr"], expected)
    torch.testing.assert_close(
        batch["hr"], raw["hr"].float()[..., module.margin : -module.margin, module.margin : -module.margin] / 255
    )


def test_validation_of_a_few_pixels_is_refused_before_lr_is_made(data, monkeypatch):
    monkeypatch.setattr("realsr.data.validation.degraded", None)  # a colour mosaic of less than 3 pixels fails there
    with pytest.raises(InputError, match="has 8x8 pixels, and 19 on a side are needed for SSIM"):
        data("degradation=bicubic", "data.validation.size=8")


@pytest.mark.parametrize("augment", ["flips", COLOURS])
def test_draws_do_not_depend_on_workers_and_resume_from_a_step(data, augment):
    """Bitwise."""
    options = f"augment={augment}", "data.batch_size=4"
    straight = batches(data(*options), 5)
    for other in (
        batches(data(*options, "data.num_workers=1"), 5),
        batches(data(*options, "data.num_workers=3"), 5),
        straight[:3] + batches(data(*options, "data.num_workers=2", done=3), 2),
    ):
        for one, two in zip(straight, other, strict=True):
            assert one["index"] == two["index"]
            assert all(torch.equal(one[name], two[name]) for name in ("lr", "hr"))


def test_seeds_steps_and_ranks_draw_differently(data):
    """No crop and no LR image is seen twice; the steps that follow are what elsewhere are further epochs."""
    parts = []
    for module in (data(world=2), data("seed=1", world=2)):
        for rank, done in itertools.product((0, 1), (0, 3)):
            module.trainer.global_rank, module.trainer.global_step = rank, done
            parts.append(batches(module, 3))
    for name in ("hr", "lr"):
        drawn = [image.numpy().tobytes() for part in parts for batch in part for image in batch[name]]
        assert len(set(drawn)) == len(drawn)
    for half in (parts[:4], parts[4:]):
        indices = [index for part in half for batch in part for index in batch["index"]]
        assert len(set(indices)) == len(indices)


def test_kernels_of_too_little_confidence_are_not_used(data, tmp_path, caplog):
    """A photo that shows noise and nothing else is left out."""
    noise = np.clip(0.5 + 0.1 * np.random.default_rng(0).standard_normal((160, 192, 1)), 0, 1)
    write_image(tmp_path / "camera" / "noise.png", Photo((255 * noise).round().astype(np.uint8).repeat(3, 2)))

    def photos(*overrides):
        module = data(*overrides)
        _, held = module.pools.split(module.validation.folders, module.validation.seed)
        return {*module.degradation.kernels.photos, *held.kernels.photos}

    assert photos() == {"noise.png", "photo0.png", "photo1.png", "photo2.png"}
    assert "noise.png: confidence 0." in caplog.text
    assert photos("pool.min_confidence=0.5") == {"photo0.png", "photo1.png", "photo2.png"}
    with pytest.raises(InputError, match=r"min_confidence=1 leaves no kernel, the best has"):
        data("pool.min_confidence=1")


def test_seeds_share_validation_and_what_training_may_see(data):
    """So that the spread over seeds is that of training."""
    first, other = (data(f"seed={seed}") for seed in (0, 1))
    for a, b in zip(first.pairs, other.pairs, strict=True):
        assert torch.equal(a.hr, b.hr) and torch.equal(a.lr, b.lr)
    assert not torch.equal(batches(first, 1)[0]["hr"], batches(other, 1)[0]["hr"])
    moved = [data(f"data.validation.seed={seed}").pairs[0].hr for seed in range(1, 5)]
    assert not all(torch.equal(first.pairs[0].hr, hr) for hr in moved)


def test_an_ablation_row_is_validated_on_the_full_degradation(data):
    full = data()
    row = data(
        "degradation=bicubic",
        f"data.validation.kernel_dir={full.pools.kernel_dir}",
        f"data.validation.noise_dir={full.pools.noise_dir}",
    )
    assert row.degradation.kernels is None
    assert row.degradation.noise is None
    for one, other in zip(full.pairs, row.pairs, strict=True):
        assert torch.equal(one.lr, other.lr)


def test_validation_without_pools_is_bicubic(data):
    without = data("data.validation.kernel_dir=null", "data.validation.noise_dir=null")
    for one, other in zip(without.pairs, data("degradation=bicubic").pairs, strict=True):
        assert torch.equal(one.lr, other.lr)


@pytest.mark.parametrize("row", ["esrgan", "bsrgan"])
def test_a_rival_is_trained_on_its_own_degradation_and_validated_on_the_cameras(data, row):
    full, rival = data(), data("+sweep=rivals", f"ablation={row}")
    for one, other in zip(full.pairs, rival.pairs, strict=True):
        assert torch.equal(one.lr, other.lr)
    ours, theirs = batches(full, 1)[0], batches(rival, 1)[0]
    assert ours["lr"].shape == theirs["lr"].shape
    assert not torch.equal(ours["lr"], theirs["lr"])
    assert type(rival.degradation).__name__ == {"bsrgan": "BSRGANDegradation", "esrgan": "PaperDegradation"}[row]


def test_paired_folders_are_taken_as_they_are(data, photo_folder):
    hr, lr = photo_folder("hr", 2, 96, 128), photo_folder("lr", 2, 24, 32)
    pairs = data(f"data.validation.hr={hr}", f"data.validation.lr={lr}").pairs
    assert [(pair.name, tuple(pair.lr.shape), tuple(pair.hr.shape)) for pair in pairs] == [
        (f"photo{i}", (3, 24, 32), (3, 96, 128)) for i in range(2)
    ]


def test_ground_truth_alone_is_degraded_with_held_out_kernels(data, photo_folder):
    pairs = data(f"data.validation.hr={photo_folder('hr', 2, 96, 130)}").pairs
    assert [tuple(pair.lr.shape) for pair in pairs] == [(3, 24, 32)] * 2
    assert [tuple(pair.hr.shape) for pair in pairs] == [(3, 96, 128)] * 2


def test_the_mixture_is_as_stated():
    source, clean = [np.full((40, 40, 3), 10, np.uint8)], [np.full((40, 40, 3), 200, np.uint8)]
    crops = HRCrops(source, clean, 0.25, 32, 3, FLIPS)
    share = np.mean([crops[i]["hr"][0, 0, 0].item() == 10 for i in range(600)])
    assert share == pytest.approx(0.25, abs=0.05)
    assert HRCrops(source, [], 0.25, 32, 0, FLIPS)[0]["hr"][0, 0, 0] == 10
    assert HRCrops([], clean, 0.75, 32, 0, FLIPS)[0]["hr"][0, 0, 0] == 200


def numbered(height, width):
    """An image whose pixels say where they are."""
    image = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    return np.stack([image % 256, image // 256, 0 * image], 2).astype(np.uint8)


def test_crops_show_all_eight_orientations_and_places_alike():
    crops = HRCrops([numbered(40, 40)], [], 1.0, 32, 0, FLIPS)
    places, turns = [], []
    for index in range(2000):
        crop = crops[index]["hr"].long()
        position = crop[0] + 256 * crop[1]
        places.append(divmod(int(position.min()), 40))
        turns.append((int(position[0, 1] - position[0, 0]), int(position[1, 0] - position[0, 0])))
    assert all(190 < turns.count(turn) < 310 for turn in set(turns))
    assert len(set(turns)) == 8
    assert {y for y, _ in places} == {x for _, x in places} == set(range(9))
    assert len(set(places)) == 81
    assert max(map(places.count, set(places))) < 50


def test_small_images_are_mirrored_up_to_the_margin():
    image = np.random.default_rng(0).integers(0, 255, (20, 5, 3), dtype=np.uint8)
    crops = HRCrops([image], [], 1.0, 32, 0, FLIPS)
    mirrored = np.pad(image, ((6, 6), (13, 14), (0, 0)), "symmetric").transpose(2, 0, 1)
    turned = [np.rot90(m, k, (1, 2)) for m in (mirrored, mirrored.swapaxes(1, 2)) for k in range(4)]
    seen = {next(i for i, t in enumerate(turned) if np.array_equal(crops[n]["hr"], t)) for n in range(100)}
    assert seen == set(range(8))


@pytest.mark.parametrize("transform", [A.RandomCrop(16, 16), A.ToFloat()])
def test_an_augmentation_that_changes_sizes_or_types_is_refused(transform):
    with pytest.raises(InputError, match=r"augment: makes \(.*leave out transforms that change sizes or types"):
        HRCrops([numbered(40, 40)], [], 1.0, 32, 0, A.Compose([transform]))


def test_crops_without_augmentation_lie_as_they_are(compose):
    image, none = numbered(40, 40), instantiate(compose("train", "data.source_dir=x", "augment=none").augment)
    crops = HRCrops([image], [], 1.0, 32, 0, none)
    for index in range(20):
        crop = crops[index]["hr"].numpy().transpose(1, 2, 0)
        y, x = divmod(int(crop[0, 0, 0]) + 256 * int(crop[0, 0, 1]), 40)
        np.testing.assert_array_equal(crop, image[y : y + 32, x : x + 32])


def test_draw_seed_separates_its_keys():
    seeds = {draw_seed(seed, index) for seed in range(20) for index in range(200)}
    assert len(seeds) == 4000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_rule_that_found_no_noise_gives_way_to_the_next_one(data):
    with pytest.raises(ValueError, match="no noise tile"):
        data("collector={tile_size:32,stride:32,max_variance:1e-6,keep_best:0}")
    noise = data("collector={tile_size:16,stride:16,keep_best:20}").degradation.noise
    assert noise.tiles.shape[-1] == 16


def test_a_pool_of_another_rule_is_taken_as_it_is(data):
    tiles = data("collector={tile_size:32,stride:32,keep_best:9}").degradation.noise.tiles
    again = data("collector={tile_size:16,stride:16,keep_best:20}").degradation.noise.tiles
    assert torch.equal(tiles, again)


def test_photos_are_compressed_with_tables_of_the_photos(data, tmp_path):
    """JPEG photos bring them, held-out ones for validation alone; PNG photos bring none."""
    from PIL import Image

    with pytest.raises(InputError, match="none of 3 photos is a JPEG file"):
        data("degradation=noise_jpeg", fresh=True)
    for index, quality in enumerate((50, 70, 90)):
        photo = tmp_path / "camera" / f"photo{index}.png"
        Image.open(photo).save(photo.with_suffix(".jpg"), quality=quality)
        photo.unlink()
    module = data("degradation=noise_jpeg")
    held = module.pools.split(module.validation.folders, module.validation.seed)[1].jpeg
    train = module.degradation.jpeg
    assert sorted(held.photos + train.photos) == ["photo0.jpg", "photo1.jpg", "photo2.jpg"]
    assert not (train.tables == held.tables).flatten(1).all(1).any()
    compressed, plain = batches(module, 1)[0], batches(data("degradation=noise"), 1)[0]
    assert torch.equal(compressed["hr"], plain["hr"])
    assert not torch.equal(compressed["lr"], plain["lr"])
    row = data("degradation=noise", f"data.validation.jpeg_dir={module.pools.jpeg_dir}")
    assert row.degradation.jpeg is None
    for one, other in zip(module.pairs, row.pairs, strict=True):
        assert torch.equal(one.lr, other.lr)
