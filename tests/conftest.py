"""What several tests use: one tiny Stable Diffusion with random weights, as diffusers' pipeline and as our model."""

from __future__ import annotations

import pytest
from diffusers import StableDiffusionPipeline
from helpers import our_model, tiny_pipeline

from ldm_course.checkpoint import LatentDiffusion


@pytest.fixture(scope="session")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    pipe = tiny_pipeline(tmp_path_factory.mktemp("tiny"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def model(pipe: StableDiffusionPipeline) -> LatentDiffusion:
    return our_model(pipe)
