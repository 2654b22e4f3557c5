"""What bench_camera.py measures of a camera: kernels, noise and made LR, against the truth."""

import functools
import io
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from scipy.optimize import minimize_scalar

from realsr.degradation.camera_fit import camera_noise
from realsr.estimation.kernels import (
    bicubic_kernel,
    gaussian_kernel,
    kernel_psnr,
    max_normalised_correlation,
    normalise,
    widths_and_angle,
)
from realsr.estimation.noise import cut_tiles, in_pool
from realsr.estimation.patch_statistics import opponent
from realsr.evaluation.gap import CUT, cut_patches, load_variants, measure
from realsr.imaging import read_image
from realsr.pools.collect import collect_noise
from realsr.pools.estimate import estimate_kernels
from realsr.pools.folder import kernel_entries, read_entries
from realsr.pools.jpeg_tables import collect_tables
from realsr.pools.pool import KernelPool
from realsr.pools.sampling import without_slope
from realsr.runtime.errors import InputError
from realsr.runtime.help import conf_dir

OTHERS = 8  # shots of a scene, whose mean tells the noise of the first
THIRDS = {"dark": (0, 85), "middle": (85, 170), "bright": (170, 256)}  # levels


def read_cut(path, scale):
    """A scene ``(H, W, 3)`` uint8, of whole pixels of the camera."""
    picture = read_image(path).rgb
    height, width = (side // (2 * scale) * 2 * scale for side in picture.shape[:2])
    return picture[:height, :width]


def photograph(camera, scenes, scale, folder, shot):
    """Files of a camera's photos of scenes, by the names of the scenes; ``shot`` is of the draws."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = [folder / f"{path.stem}{camera.suffix}" for path in scenes]
    for index, (path, photo) in enumerate(zip(scenes, photos, strict=True)):
        picture = camera.photograph(read_cut(path, scale) / 255, scale, np.random.default_rng([shot, index]))
        photo.write_bytes(camera.file(picture))
    return photos


def true_kernels(camera, scenes, scale, shot):
    """Effective kernels of the photos that :func:`photograph` takes, at any scale, by the names of the scenes."""
    spreads = [camera.spreads(scale, np.random.default_rng([shot, index])) for index in range(len(scenes))]
    return {path.stem: camera.effective_kernel(spread, scale) for path, spread in zip(scenes, spreads, strict=True)}


def settings(*options):
    """How pools are made, as a user of the quickstart's settings has it."""
    folders = ["experiment=quickstart", "data=folders", "data.source_dir=photos", "data.clean_dir=photos"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", [*folders, *options])


def learn(photos, pools, scale, options):
    """Fill the pools as ``realsr.train`` does; gives what could not be."""
    cfg, failed = settings(*options), []
    steps = {
        "jpeg": lambda: collect_tables(photos, pools / "jpeg"),
        "noise": lambda: collect_noise(photos, pools / "noise", instantiate(cfg.collector)),
        "kernels": lambda: estimate_kernels(
            photos,
            pools / "kernels",
            instantiate(cfg.estimator),
            scale,
            noise=functools.partial(camera_noise, photos, pools / "noise", instantiate(cfg.collector)),
        ),
    }
    for name, step in steps.items():
        try:
            with redirect_stdout(io.StringIO()):  # bars
                step()
        except InputError as e:
            failed.append(name)
            print(f"  no pool: {e}")
    return failed


def variants(names, pools, scale):
    """Degradations by the names of their options: those that there are, and whose pools there are."""
    there = [name for name in names if (Path(conf_dir()) / "degradation" / f"{name}.yaml").is_file()]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        added = [f"+degradation@variants.own_{name}={name}" for name in there]
        cfg = compose("gap", ["data.source_dir=photos", "pool_dir=pools", f"scale={scale}", *added])
    cfg.pool_dir, ways = str(pools), {}
    for name in there:
        with suppress(InputError):
            ways |= load_variants({name: cfg.variants[f"own_{name}"]}, scale, 0.0, (pools / "jpeg").is_dir())
    return ways


def lobe_widths(kernel):
    """Standard deviations of the main lobe along its axes, without halos and tails under a twentieth of its height."""
    wide, narrow, _ = widths_and_angle(normalise(np.clip(kernel - 0.05 * kernel.max(), 0, None)))
    return wide, narrow


def best_round(truth, scale):
    """MNC of the round Gaussian that comes nearest."""

    def loss(sigma):
        return -max_normalised_correlation(gaussian_kernel(len(truth), (sigma, sigma), 0, scale), truth)

    return -float(minimize_scalar(loss, bounds=(0.2 * scale, 2 * scale), method="bounded", options={"xatol": 0.02}).fun)


def kernel_rows(folder, truth, scale):
    """What each photo's kernel is worth, as the pool gives it and (``alone``) as the photo by itself did."""
    rows, pool = [], KernelPool.load(folder, scale)
    drawn = dict(zip(pool.photos, pool.kernels.double().numpy(), strict=True))
    for entry in kernel_entries(folder, scale):
        kernel, true = drawn[entry.manifest["photo"]], truth[Path(entry.manifest["photo"]).stem]
        rows.append({
            "photo": entry.manifest["photo"],
            "mnc": max_normalised_correlation(kernel, true),
            "alone": max_normalised_correlation(entry.arrays[f"x{scale}"], true),
            "psnr": kernel_psnr(kernel, true),
            "widths": lobe_widths(kernel),
            "true_widths": lobe_widths(true),
            "confidence": entry.manifest["confidence"],
            "round": best_round(true, scale),
            "bicubic": max_normalised_correlation(bicubic_kernel(scale), true),
        })  # fmt: skip
    return rows


def noise_of(tiles):
    """Brightness, variance, covariance of neighbours of the luma of tiles ``(N, t, t, 3)`` in levels, each ``(N,)``."""
    luma = opponent(torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255)[:, :1]
    mean = luma.mean((2, 3), keepdim=True)
    rest = without_slope(luma - mean)
    pairs = [(rest[..., 1:] * rest[..., :-1]).mean((1, 2, 3)), (rest[..., 1:, :] * rest[..., :-1, :]).mean((1, 2, 3))]
    return mean.flatten().numpy(), rest.square().mean((1, 2, 3)).numpy(), (sum(pairs) / 2).numpy()


def noise_row(camera, folder, scenes, scale, shot):
    """The pool's noise against the camera's in the very tiles: ratios of standard deviations, neighbours' correlation.

    The camera's is what the photo differs by from the mean of other shots of the scene with the same lens and motion.
    """
    by_stem, made, true = {path.stem: index for index, path in enumerate(scenes)}, [], []
    for entry in read_entries(folder, "noise"):
        corners, side = entry.arrays["corner"][in_pool(entry.arrays["reason"])], entry.arrays["tiles"].shape[1]
        stem = Path(entry.manifest["photo"]).stem
        rng = np.random.default_rng([shot, by_stem[stem]])
        scene = read_cut(scenes[by_stem[stem]], scale) / 255
        light = camera.expose(scene, scale, camera.spreads(scale, rng))
        first, *others = (camera.stored(camera.develop(light, rng)).astype(np.float32) for _ in range(1 + OTHERS))
        noise = (first - np.mean(others, axis=0)) * np.sqrt(OTHERS / (OTHERS + 1))
        made += [*entry.arrays["tiles"]]
        true += [*cut_tiles(noise, corners, side)]
    level, variance, neighbours = noise_of(np.stack(made))
    _, expected, theirs = noise_of(np.stack(true))
    row = {"tiles": len(made), "true_level": float(np.sqrt(expected.mean()))}
    for name, (low, high) in {"all": (0, 256), **THIRDS}.items():
        here = (level >= low) & (level < high)
        row[name] = float(np.sqrt(variance[here].mean() / expected[here].mean())) if here.any() else np.nan
    row["neighbours"] = float(neighbours.sum() / variance.sum())
    row["true_neighbours"] = float(theirs.sum() / expected.sum())
    return row


def gap_row(photos, again, scenes, ways, scale, patches):
    """AUC of LR made of the very scenes, and of other photos of them by the same camera."""
    real = cut_patches(photos, 32, patches, 1)
    made = measure(real, cut_patches(scenes, scale * (32 + 2 * CUT), patches, 2), ways)
    itself = measure(real, cut_patches(again, 32 + 2 * CUT, patches, 3), {"itself": lambda lr, _: lr})
    return {name: gap.separation.auc for name, gap in {**made, **itself}.items()}
