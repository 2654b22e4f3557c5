"""A photo's blur without a critic: match patches of the photo with patches of the downscaled photo.

KernelGAN's premise (Bell-Kligler et al., NeurIPS 2019, section 2) is that small patches of a scene look alike at all
scales. Here sliced Wasserstein distance (Bonneel et al., 2015) replaces the critic, and a Gaussian of three parameters
replaces the generator.

A photo of blur ``B`` (a covariance in its pixels) that is correlated with a kernel of covariance ``K`` and subsampled
by 2 has blur ``(B + K) / 4`` in its new pixels. It looks like the photo where that equals ``B``, so ``B = K / 3``: the
matching kernel is narrower than the kernel that made the photo, which is 4 B in HR pixels at x2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from realsr.estimation import kernels as K
from realsr.estimation.crops import PARTS, RATIO, Map, PatchCrops
from realsr.estimation.evidence import Evidence, foreign_pixels, interlacing
from realsr.estimation.noise_model import NoiseModel, noise_level
from realsr.estimation.patch_matching import functions
from realsr.imaging import to_uint
from realsr.imaging.colour import LUMA
from realsr.imaging.resample import blur
from realsr.runtime.errors import InputError, at_least

WINDOW = 50  # iterations of a batch, over which parameters are averaged
NOISY = 0.7 / 255  # standard deviation of noise over which equal neighbours are no coincidence
WHITE = 0.85  # fineness of noise over which neither it nor the finest detail was processed
SHARPEST = 0.15  # squared pixels: half the contrast is left at 0.48 cycles per pixel, by lens and pixel area
PATCH = 7  # side of the patches
USUAL = torch.tensor([0.3, 0.3, 0.0])  # parameters of an isotropic blur of 1.35 pixels
PRIOR = 0.003  # weight of the squared distance to it, which matters where the photo has no evidence
EVEN = 0.04  # weight of the squared logarithm of the contrast between both scales


class PatchMatching(LightningModule):
    """Fits the Gaussian blur under which the photo's patches have the same distribution at both scales.

    The photo is divided into four parts with equally many edges. Each part gives an estimate, all in one batch; the
    result is their geometric mean, and their agreement enters the confidence. The noise that the crops lose by
    downscaling (:class:`realsr.estimation.noise_model.NoiseModel`) is added to them.

    Three effects are separated from the lens' blur. The development of small details is common to a camera's photos and
    measured from its noise: the photo is filtered by its inverse first, and the kernels contain it again. Scenes have
    more or less contrast at fine scales than at coarse ones: a contrast factor is fitted too. Where the noise is not
    white, the finest detail was processed as well: there patches are smoothed a little before they are compared.

    A batch has up to 50 iterations, ``(large, small)`` of :class:`realsr.estimation.crops.PatchCrops`.

    Args:
        iterations: at most.
        settled: fitting ends once the parameters' means over 50 iterations and all parts change by less than this from
            one batch to the next; 0 runs all iterations.
        crops_per_part: crops of each part in an iteration.
        crop: side of the large crops in pixels.
        kernel_size: side of the kernel at ratio 2, 13 as KernelGAN's; the resulting kernels are larger (17 for x2, 25
            for x3, 33 for x4).
        projections: random directions per iteration, along which the whitened patches are sorted and compared.
        learning_rate: of Adam.
        smooth: share that a pixel of a patch gives to each neighbour along both axes where the noise is not white; half
            of it where the development is known.
        seed: of crops, noise and directions.
        shrink: whether a pool shrinks the kernels towards those of the camera's other photos
            (:func:`realsr.estimation.shrinkage.shrunk_blurs`).
    """

    scales: tuple[int, ...] = (2, 3, 4)

    def __init__(
        self,
        iterations: int = 300,
        settled: float = 0.02,
        crops_per_part: int = 4,
        crop: int = 64,
        kernel_size: int = 13,
        projections: int = 32,
        learning_rate: float = 0.03,
        smooth: float = 0.25,
        seed: int = 0,
        shrink: bool = True,
    ) -> None:
        super().__init__()
        at_least(1, "estimator.", iterations=iterations, crops_per_part=crops_per_part, projections=projections)
        at_least(5, "estimator.", kernel_size=kernel_size)
        at_least(0, "estimator.", settled=settled, learning_rate=learning_rate, smooth=smooth, seed=seed)
        if smooth > 0.33:
            raise InputError(f"estimator.smooth={smooth}: is the share that goes to each neighbour, give 0 to 0.33")
        # so that noise, which the kernel correlates, and a few patches fit into the smaller crops
        at_least(RATIO * max(kernel_size, 2 * PATCH) + kernel_size, "estimator.", crop=crop)
        self.iterations, self.settled, self.count, self.crop = iterations, settled, crops_per_part, crop
        self.kernel_size, self.projections, self.learning_rate = kernel_size, projections, learning_rate
        self.smooth, self.seed, self.shrink = smooth, seed, shrink
        self.output_size = (crop - kernel_size) // RATIO + 1
        self.automatic_optimization = False
        # log widths and shear, see `functions.triangle`
        self.theta = torch.nn.Parameter(torch.zeros(PARTS, 3))
        self.contrast = torch.nn.Parameter(torch.zeros(()))  # its logarithm
        self.usual, self.smoothing = USUAL, torch.eye(PATCH**2)
        self.response: K.Kernel = np.ones((1, 1))
        self.density: Map = np.zeros((0, 0))
        self.means: list[Tensor] = []  # of theta, over each window
        self.iterations_done = 0
        self.losses: dict[str, Tensor] = {}

    def crops(self, image: Tensor, noise: NoiseModel | None = None) -> DataLoader[tuple[Tensor, Tensor]]:
        """The loader to fit the module on.

        Args:
            image: a photo ``(3, H, W)`` in [0, 1].
            noise: the camera's, which is scaled to the photo's flat tiles since ISO speeds differ; None takes that of
                the flat tiles, or, without any, white noise of the strength that the flattest patches show.

        Raises:
            InputError: the photo is smaller than a crop, or has no edges.
        """
        own = NoiseModel.of_photo(to_uint(image))
        noise = own if noise is None else noise if own is None else noise.as_strong_as(own)
        foreign = foreign_pixels(image, flat=noise is not None and noise.variance > NOISY**2)
        rows_differ = interlacing(image.double().permute(1, 2, 0).numpy() @ LUMA)
        white = noise is None or noise.fineness() >= WHITE
        if noise is not None:
            self.response = noise.response
            undone = K.inverse(self.response)
            image, noise = blur(image[None], torch.from_numpy(undone).to(image)[None])[0], noise.filtered(undone)
        data = PatchCrops(image, self.iterations, self.count, self.crop, self.output_size, self.seed, foreign)
        self.density, gray = data.density, data.image.double().numpy()
        spread = functions.patch_covariance(data.image, PATCH, self.seed)
        noise = (noise or NoiseModel.white(noise_level(gray))).within(spread.numpy())
        self.set_noise(noise)
        self.smoothing = functions.smoothing(PATCH, 0.0 if white else self.smooth / (1 + (self.response.size > 1)))
        values, vectors = torch.linalg.eigh(spread)
        least = 1e-6 * float(values.sum())  # relative, for dark photos
        self.whitening = (vectors / (values.clamp_min(0) + least).sqrt()).float()
        detail = float(values[:-1].sum())  # without the first direction, which is the patch's brightness
        if detail <= 0:
            raise InputError("hardly an edge to estimate a kernel from, nearly all of the photo is flat")
        of_noise = torch.from_numpy(noise.of_patches(PATCH)) @ vectors[:, :-1]
        # where no noise can be measured, as in a clipped photo, the smallest eigenvalue may be noise in all directions
        strength = float((vectors[:, :-1] * of_noise).sum()) or (len(values) - 1) * max(float(values[0]), 0.0)
        slopes = np.stack(np.gradient(gray)).reshape(2, -1)
        low, high = np.linalg.eigvalsh(slopes @ slopes.T / slopes.shape[1] - noise.of_slopes())
        self.evidence = Evidence(
            signal=max(1 - strength / detail, 0.0),
            roundness=float(max(low, 0.0) / max(high, 1e-12)),
            edges=float(self.density.sum() ** 2 / (self.density**2).sum()),
            clear=data.clear,
            fineness=own.fineness() if own else 1.0,
            interlacing=rows_differ,
        )
        return DataLoader(data, batch_size=WINDOW, generator=torch.Generator())

    def set_noise(self, noise: NoiseModel) -> None:
        """Set the noise of the photo that is matched."""
        self.covariance = torch.from_numpy(noise.covariance).float()
        self.gains = torch.from_numpy(noise.gains(np.arange(256) / 255)).float()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam([self.theta, self.contrast], self.learning_rate)

    def on_train_start(self) -> None:
        """Draw from a generator of this photo alone, so that nothing that runs beside it changes the result."""
        self.draws = torch.Generator(self.device).manual_seed(self.seed)
        for name in ("usual", "whitening", "smoothing", "covariance", "gains"):
            setattr(self, name, getattr(self, name).to(self.device))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Up to 50 iterations; training ends once their mean parameters have settled."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        total = torch.zeros_like(self.theta)
        for large, small in zip(*batch, strict=True):
            optimizer.zero_grad()
            distance = self.distance(large, small)
            prior = PRIOR * ((self.theta - self.usual) ** 2).sum() + EVEN * self.contrast**2 * PARTS
            torch.autograd.backward(distance.sum() + prior)
            optimizer.step()
            total += self.theta.detach()
        self.losses = {"distance": distance.mean().detach()}
        self.means.append(total / len(batch[0]))
        self.iterations_done += len(batch[0])
        if len(self.means) > 1 and (self.means[-1] - self.means[-2]).mean(0).abs().max() < self.settled:
            self.trainer.should_stop = True

    def distance(self, large: Tensor, small: Tensor) -> Tensor:
        """Squared sliced Wasserstein distance of the downscaled large crops to the small ones, of each part ``(4,)``.

        Crops are gray in [0, 1], ``(4, crops, crop, crop)`` and ``(4, crops, output_size, output_size)``.
        """
        kernels = functions.gaussians(self.theta, self.kernel_size)
        fake = functions.blur_halve(large, kernels)
        contrast, middle = self.contrast.exp(), fake.mean((2, 3), keepdim=True)
        fake = middle + contrast * (fake - middle)
        gains = self.gains[(255 * fake.detach()).nan_to_num().round().clamp(0, 255).long()]
        fake = fake + gains * self._missing_noise(contrast * kernels, fake.shape)
        directions = F.normalize(self._normal(self.projections, PATCH**2)) @ self.whitening.T @ self.smoothing
        filters = directions.view(-1, 1, PATCH, PATCH)
        rows, others = (functions.project(images, filters) for images in (fake, small))
        return functions.sorted_distance(rows, others).view(PARTS, -1).mean(1)

    def kernels(self) -> dict[int, K.Kernel]:
        """The kernels of all ``scales``."""
        return {scale: K.developed(self._lens(self.mean_blur(), scale), self.response, scale) for scale in self.scales}

    def confidence(self) -> tuple[float, list[str]]:
        """Confidence in the kernel in [0, 1], and the reasons that lower it."""
        lens = self._lens(self.mean_blur(), RATIO)
        parts = [K.max_normalised_correlation(self._lens(part, RATIO), lens) for part in self.blur()]
        border = 1 - float(lens[2:-2, 2:-2].sum())
        return self.evidence.confidence(min(parts), border)

    def mean_blur(self) -> K.Array:
        """Geometric mean of :meth:`blur` over the parts, ``(2, 2)``."""
        return K.of_eigenvalues(K.of_eigenvalues(self.blur(), np.log).mean(0), np.exp)

    @torch.no_grad()
    def blur(self) -> K.Array:
        """Covariance of each part's blur in the photo's squared pixels, ``(4, 2, 2)`` (x, y).

        Mean of the last two batches. Where the development is known, it is at least as wide as the sharpest lens.
        """
        theta = torch.stack(self.means[-2:]).mean(0).double().cpu()
        root = functions.triangle(theta)
        found = (root @ root.mT / (RATIO**2 - 1)).numpy()
        return found if self.response.size == 1 else K.of_eigenvalues(found, lambda values: values.clip(SHARPEST))

    def _lens(self, blur: K.Array, scale: int) -> K.Kernel:
        return K.kernel_of_blur(blur, scale, (self.kernel_size + 3) * scale // 2 + 1)

    def _missing_noise(self, kernels: Tensor, shape: torch.Size) -> Tensor:
        """Noise with the power that the photo's noise loses by correlation with the kernels and subsampling."""
        spectrum = functions.missing_spectrum(self.covariance, kernels, shape[-1])
        grid = spectrum.shape[1]
        white = torch.fft.rfft2(self._normal(*shape[:2], grid, grid))
        return torch.fft.irfft2(white * spectrum[:, None], s=(grid, grid))[..., : shape[-1], : shape[-1]]

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.draws, device=self.device)
