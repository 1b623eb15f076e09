"""What several tests use: one tiny Stable Diffusion with random weights, as diffusers' pipeline and as our model."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from diffusers import StableDiffusionPipeline
from helpers import our_model, tiny_pipeline
from hypothesis import HealthCheck, settings

from ldm_course.model import LatentDiffusion

# How long hypothesis searches: "short" tries the same cases each time, "long" (make test-long) others.
SLOW = {"deadline": timedelta(minutes=1), "suppress_health_check": list(HealthCheck)}
settings.register_profile("short", max_examples=25, derandomize=True, database=None, **SLOW)
settings.register_profile("long", max_examples=1000, print_blob=True, **SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="session")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    pipe = tiny_pipeline(tmp_path_factory.mktemp("tiny"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def model(pipe: StableDiffusionPipeline) -> LatentDiffusion:
    return our_model(pipe)
