"""What a wheel must do right after its installation, with NumPy alone: python tests/smoke.py."""

from __future__ import annotations

import argparse

import numpy as np

import protoseg_fast as psf


def main() -> None:
    """Import, say what was built, and score something whose scores are known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuda-compiled", action="store_true", help="the CUDA engine must be in")
    arguments = parser.parse_args()
    config = psf.build_config()
    print(config)
    if ("compiled for" in config["cuda"]) != arguments.cuda_compiled:
        raise SystemExit(f"the CUDA engine: {config['cuda']}")
    target = np.zeros((1, 1, 8, 8), bool)
    target[..., 2:6, 2:6] = True
    features = np.stack([target[0, 0], np.ones((8, 8))])[None].astype(np.float32)
    scores = psf.sa_score(features, target.astype(np.float32), target, groups="unit")[0, :, 0]
    if scores.tolist() != [1.0, 0.0]:
        raise SystemExit(f"scores are {scores}")


if __name__ == "__main__":
    main()
