"""The learner's functions and modules in the real pipeline."""

from __future__ import annotations

import pytest
import torch
from helpers import needs_a_compiler, one_sentence, pixel_difference
from PIL import Image
from torch import nn

import ldm_course as ldm
from ldm_course import pipelines, samplers, sampling
from ldm_course.blocks import ResnetBlock
from ldm_course.groupnorm import group_norm_by_hand
from ldm_course.lab.shared.plugs import FUNCTIONS, MODULES, STEPS, plug
from ldm_course.model import LatentDiffusion

COUNT = 4  # steps of an image
IMAGE, MASK = Image.new("RGB", (64, 64), "red"), Image.linear_gradient("L").resize((64, 64))


def generate(model: LatentDiffusion, **settings) -> Image.Image:
    return ldm.txt2img(model, "a dog", seed=0, num_inference_steps=COUNT, **settings)


def ddim(now, alpha_bar, before, noise):
    """Written as a learner would."""
    x0_hat = (now.x_t - (1 - now.alpha_bar) ** 0.5 * now.eps) / now.alpha_bar**0.5
    return alpha_bar**0.5 * x0_hat + (1 - alpha_bar) ** 0.5 * now.eps


def test_a_plugged_function_runs_and_is_counted(model):
    before = generate(model)
    with plug(ddim=ddim, guide=lambda u, c, s: u + s * (c - u)) as calls:
        assert pixel_difference(generate(model), before) <= 1
    assert calls == {"ddim": COUNT, "guide": COUNT}


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_plugged_step_ends_at_the_level_of_the_one_it_replaces(name, model):
    """It is 1 for all but DDIM, and a function of one's own would end where DDIM does."""
    step, levels = getattr(samplers, name), []

    def noting(now, alpha_bar, before, noise):
        levels.append(alpha_bar)
        return step(now, alpha_bar, before, noise)

    before = generate(model, scheduler=STEPS[name])
    with plug(**{name: noting}):
        assert pixel_difference(generate(model, scheduler=STEPS[name]), before) == 0
    assert levels[-1] == samplers.final_alpha_bar(model.schedule, step)
    assert (levels[-1] == 1) == (name != "ddim")


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_that_can_be_plugged_is_called(name, model):
    with plug(**{name: getattr(FUNCTIONS[name], name)}) as calls:
        if name == "keep_known_region":
            ldm.inpaint(model, "a dog", IMAGE, MASK, seed=0, num_inference_steps=COUNT)
        elif name in ("reparameterize", "strength_timesteps"):
            ldm.img2img(model, "a dog", IMAGE, seed=0, num_inference_steps=COUNT)
        else:
            generate(model)
    assert calls == {name: 1 if name in ("reparameterize", "strength_timesteps") else COUNT}


class OwnGroupNorm(nn.Module):
    """Written as a learner would."""

    def __init__(self, num_groups, num_channels, eps):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight, self.bias = nn.Parameter(torch.ones(num_channels)), nn.Parameter(torch.zeros(num_channels))

    def forward(self, x):
        return group_norm_by_hand(x, self.num_groups, self.weight, self.bias, self.eps)


class Doubled(OwnGroupNorm):
    def forward(self, x):
        return 2 * super().forward(x)


class Subclass(ResnetBlock):
    def forward(self, x, temb=None):
        return super().forward(x, temb)


@pytest.mark.parametrize("part", [{"GroupNorm": OwnGroupNorm}, {"ResnetBlock": Subclass}])
def test_a_plugged_module_runs_on_the_models_weights(part, model):
    (name,) = part
    count, in_decoder = (
        sum(isinstance(m, MODULES[name]) for m in net.modules()) for net in (model.unet, model.vae.decoder)
    )
    original, before = MODULES[name].forward, generate(model)
    with plug(**part) as calls:
        assert pixel_difference(generate(model), before) <= 1
    assert calls == {name: COUNT * count + in_decoder}
    assert MODULES[name].forward is original


@pytest.mark.parametrize("part", [{"ddim": lambda now, alpha_bar, before, noise: now.x_t}, {"GroupNorm": Doubled}])
def test_a_wrong_part_changes_the_image_and_leaves_no_trace(part, model):
    before = generate(model)
    with plug(**part):
        assert pixel_difference(generate(model), before) > 1
    assert pixel_difference(generate(model), before) == 0


@pytest.mark.slow
@needs_a_compiler()
def test_a_compiled_model_gives_the_same_image_and_can_be_plugged_into(tmp_path, model):
    folder = tmp_path / "model"
    ldm.save(model, folder, dtype=torch.float32)
    compiled = ldm.load(folder, device="cpu", compile=True)
    before = generate(model)
    assert pixel_difference(generate(compiled), before) <= 1
    with plug(GroupNorm=OwnGroupNorm) as calls:
        assert pixel_difference(generate(compiled), before) <= 1
    assert calls["GroupNorm"] > COUNT
    assert pixel_difference(generate(compiled), before) <= 1


def test_a_module_with_other_weights_is_refused(model):
    class Scale(OwnGroupNorm):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.scale = self.weight
            del self.weight

    with one_sentence("'scale'", "GroupNorm", "none of that name"), plug(GroupNorm=Scale):
        generate(model)


def test_the_package_is_restored_after_an_error_and_after_nesting():
    with pytest.raises(ZeroDivisionError), plug(ddim=abs, guide=abs):
        raise ZeroDivisionError
    assert pipelines.SAMPLERS["ddim"] is samplers.ddim and sampling.final_alpha_bar is samplers.final_alpha_bar
    original = sampling.guide
    with plug(guide=lambda *_: 1) as outer:
        with plug(guide=lambda *_: 2) as inner:
            assert sampling.guide() == 2
        assert sampling.guide() == 1
    assert sampling.guide is original and inner == outer == {"guide": 1}


@pytest.mark.parametrize(
    "part, words",
    [
        ({"ddim_step": abs}, ("ddim_step", "ddim, euler")),
        ({"guide": 7}, ("guide", "function", "int")),
        ({"ddim": nn.Linear}, ("ddim", "function", "class Linear")),
        ({"GroupNorm": abs}, ("GroupNorm", "class of modules")),
        ({"guide": abs}, ("Nothing", "guide")),
    ],
)
def test_bad_and_unused_plugs_are_refused(part, words):
    with one_sentence(*words), plug(**part):
        pass
