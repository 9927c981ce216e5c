"""What the paper printed (Rombach et al. 2022, arXiv 2112.10752 v2), by table and cell; never measured here."""

from typing import Final

from darkroom.studies.reading import Table

PAPER: Final = "Rombach et al. 2022 (arXiv 2112.10752 v2)"

COMPRESSION: Final = Table(
    "The paper: compression",
    ("where", "what", "printed"),
    (
        ("Fig. 6, text", "FID of LDM-1 less that of LDM-8 after 2 million steps, ImageNet by class", "38"),
        ("Fig. 6, caption", "samples, steps of DDIM, device", "5,000, 100, one A100 for each"),
        ("Fig. 7", "steps of DDIM along each curve, right to left", "10, 20, 50, 100, 200; no numbers printed"),
        ("Sec. 4.1, text", "factors with the best balance", "4 to 16; LDM-4 and LDM-8 recommended"),
        ("Sec. 4.1, text", "LDM-1 and LDM-2", "train slowly"),
        ("Sec. 4.1, text", "LDM-32", "stagnates after few steps"),
        ("Tab. 13, row Model size", "LDM-1, -2, -4, -8, -16, -32", "396, 391, 391, 395, 395, 395 M"),
        ("Tab. 13, row Batch Size", "LDM-1, -2, -4, -8, -16, -32", "7, 9, 40, 64, 112, 112"),
        ("Tab. 6 and its text", "LDM-4 beside LDM-1, inpainting: faster, FID lower by", ">= 2.7 x, >= 1.6 x"),
    ),
    source=PAPER,
)

_SPEED: Final = (
    ("LDM-1 (no first stage)", "0.11", "0.26", "0.07", "20.66", "24.74"),
    ("LDM-4 (KL, w/ attn)", "0.32", "0.97", "0.34", "7.66", "15.21"),
    ("LDM-4 (VQ, w/ attn)", "0.33", "0.97", "0.34", "7.04", "14.99"),
    ("LDM-4 (VQ, w/o attn)", "0.35", "0.99", "0.36", "6.66", "15.95"),
)

EFFICIENCY: Final = Table(
    "The paper: efficiency of inpainting, Tab. 6",
    ("row", "train throughput", "sampling @256", "sampling @512", "train+val h/epoch", "FID@2k, epoch 6"),
    _SPEED,
    source=f"{PAPER}, Tab. 6; samples a second on one A100, Places 256 x 256",
)

SUPER_RESOLUTION: Final = Table(
    "The paper: super-resolution, Tab. 5 and 11",
    ("row", "FID", "IS", "PSNR", "SSIM", "parameters", "samples/s"),
    (
        ("Tab. 5, Image Regression", "15.2", "121.1", "27.9", "0.801", "625M", "not printed"),
        ("Tab. 5, SR3", "5.2", "180.1", "26.4", "0.762", "625M", "not printed"),
        ("Tab. 5, LDM-4 (100 steps)", "2.8 / 4.8", "166.3", "24.4±3.8", "0.69±0.14", "169M", "4.62"),
        ("Tab. 5, LDM-4 (big, 100 steps)", "2.4 / 4.3", "174.9", "24.7±4.1", "0.71±0.15", "552M", "4.5"),
        ("Tab. 5, LDM-4 (50 steps, guiding)", "4.4 / 6.4", "153.7", "25.8±3.7", "0.74±0.12", "184M", "0.38"),
        ("Tab. 11, LDM-4 (+15 epochs)", "2.6 / 4.6", "169.76", "24.4", "0.69", "not printed", "not printed"),
        ("Tab. 11, Pixel-DM (+15 epochs)", "5.1 / 7.1", "163.06", "24.1", "0.59", "not printed", "not printed"),
    ),
    source=f"{PAPER}; ImageNet 64 to 256, FID beside validation / training features",
)

INPAINTING: Final = Table(
    "The paper: inpainting, Tab. 7",
    ("row", "40–50 % masked: FID", "LPIPS", "all: FID", "LPIPS"),
    (
        ("LDM-4 (big, w/ ft)", "9.39", "0.246±0.042", "1.50", "0.137±0.080"),
        ("LDM-4 (big, w/o ft)", "12.89", "0.257", "2.40", "0.142"),
        ("LDM-4 (w/ attn)", "11.87", "0.257", "2.15", "0.144"),
        ("LDM-4 (w/o attn)", "12.60", "0.259", "2.37", "0.145"),
        ("LaMa (recomputed)", "12.31", "0.243", "2.23", "0.134"),
        ("LaMa (reported)", "12.0", "0.24", "2.21", "0.14"),
        ("CoModGAN", "10.4", "0.26", "1.82", "0.15"),
    ),
    source=f"{PAPER}, Tab. 7; 30,000 crops of 512 x 512, Places",
)

GUIDANCE: Final = Table(
    "The paper: guidance, Tab. 3 and 10",
    ("row", "FID", "IS", "precision", "recall"),
    (
        ("LDM-4 (no guidance, 250 steps)", "10.56", "103.49±1.24", "0.71", "0.62"),
        ("LDM-4-G (scale 1.25)", "3.95", "178.22±2.43", "0.81", "0.55"),
        ("LDM-4-G (scale 1.5)", "3.60", "247.67±5.59", "0.87", "0.48"),
        ("Tab. 2, LDM-KL-8 (text, 250 steps)", "23.31", "20.03±0.33", "not printed", "not printed"),
        ("Tab. 2, LDM-KL-8-G (text, scale 1.5)", "12.63", "30.29±0.42", "not printed", "not printed"),
    ),
    source=f"{PAPER}; ImageNet by class and MS-COCO, 256 x 256",
)

SOLVERS: Final = Table(
    "The paper: steps",
    ("where", "what", "printed"),
    (
        ("Fig. 7", "quality against throughput, DDIM of 10 to 200 steps", "curves, no numbers"),
        ("Tab. 1, CelebA-HQ", "LDM-4, 500 steps: FID, precision, recall", "5.11, 0.72, 0.49"),
        ("Tab. 1, FFHQ", "LDM-4, 200 steps: FID, precision, recall", "4.98, 0.73, 0.50"),
        ("Tab. 1, LSUN-Churches", "LDM-8, 200 steps: FID, precision, recall", "4.02, 0.64, 0.52"),
        ("Tab. 1, LSUN-Bedrooms", "LDM-4, 200 steps: FID, precision, recall", "2.95, 0.66, 0.48"),
    ),
    source=f"{PAPER}; it compares no solvers with one another",
)
