"""What the notebooks use: figures, widgets, plugs, checks and the setup; all on a tiny model with random weights."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from helpers import needs_a_compiler, noise, one_sentence, pixel_difference
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import ldm_course as ldm
from ldm_course import lab, sampling, schedulers
from ldm_course.blocks import ResnetBlock
from ldm_course.checkpoint import LatentDiffusion
from ldm_course.groupnorm import GroupNorm, group_norm_by_hand
from ldm_course.lab.checks import verdict
from ldm_course.lab.checks.verdict import NOT_TRIED, RIGHT, WRONG
from ldm_course.lab.plugs import FUNCTIONS, MODULES
from ldm_course.lab.setup import DIFFUSERS

STEPS = 4
PICTURE, MASK = Image.new("RGB", (64, 64), "red"), Image.linear_gradient("L").resize((64, 64))


@pytest.fixture(scope="module")
def frames(model: LatentDiffusion) -> list[lab.plots.Frame]:
    context, empty = ldm.encode_prompt(model, ["a dog", ""]).chunk(2)
    timesteps = model.schedule.timesteps(STEPS)
    states = ldm.denoise(model, noise(1, 4, 8, 8), context, timesteps, negative_context=empty, guidance_scale=3)
    return lab.plots.trajectory(model, list(states))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict, dict]]:
    """What was displayed: pairs of data and metadata."""
    calls: list[tuple[dict, dict]] = []

    def display(bundle, raw, metadata=None):
        assert raw
        calls.append((bundle, metadata or {}))

    for name in ("plots", "widgets", "source"):
        monkeypatch.setattr(f"ldm_course.lab.{name}.display", display)
    return calls


# ---- figures ---------------------------------------------------------------------------------------------------


def test_a_latent_is_drawn_with_its_channels_as_tiles():
    latent = torch.tensor([-9.0, 0.0, 9.0, 1.5])[:, None, None].expand(4, 16, 16)
    picture = lab.plots.latent_picture(latent)
    assert picture.size == (384, 384)
    corners = [picture.getpixel(at) for at in ((0, 0), (383, 0), (0, 383))]
    assert corners == [lab.plots.LOW, lab.plots.MIDDLE, lab.plots.HIGH], (
        "purple below zero, white at it, orange above"
    )
    assert picture.getpixel((192, 5)) == (0, 0, 0), "a line between the channels"


@pytest.mark.parametrize("shape", [(4, 64, 64), (4, 9, 15), (1, 8, 8), (3, 8, 8), (16, 32, 32)])
def test_latents_of_any_shape_are_drawn(shape):
    width, height = lab.plots.latent_picture(noise(*shape)).size
    across = np.ceil(np.sqrt(shape[0]))
    assert width % (across * shape[2]) == 0 and height % shape[1] == 0


def test_a_grid_holds_titles_labels_and_pictures_of_any_size():
    rows = [[Image.new("RGB", (16, 16), "red"), Image.new("L", (512, 512), 9)], [Image.new("RGB", (128, 96), "blue")]]
    plain = lab.plots.grid(rows, side=100)
    assert plain.size == (216, 216) and plain.getpixel((50, 50)) == (255, 0, 0)
    named = lab.plots.grid(rows, ["one", "two"], ["first row", "second row"], side=100)
    assert named.width > plain.width and named.height > plain.height


@pytest.mark.parametrize("figure", [Figure(figsize=(2, 1)), Image.new("RGB", (40, 20))])
def test_a_shown_figure_has_an_alternative_text_and_a_caption(figure, shown):
    lab.plots.show(figure, "Two dogs.")
    (picture, metadata), (caption, _) = shown
    (kind,) = set(picture) - {"text/plain"}
    assert kind in ("image/png", "image/jpeg")
    assert metadata[kind]["alt"] == picture["text/plain"] == "Two dogs." and metadata[kind]["width"] > 0
    assert caption["text/markdown"] == "*Two dogs.*"


def test_a_live_figure_is_drawn_anew_in_its_place(monkeypatch):
    handle, calls = Handle(), []
    monkeypatch.setattr("ldm_course.lab.plots.display", lambda bundle, **settings: calls.append(settings) or handle)
    live = lab.plots.Live(lab.plots.losses({"VAE": [3.0]}, 20), "The loss of each step, falling.")
    live.draw(lab.plots.losses({"VAE": [3.0, 2.0], "AE": [2.0, 1.0]}, 20))
    assert calls[0]["display_id"] and len(calls) == 2, "the figure and its caption, once"
    ((bundle, metadata),) = handle.updates
    assert bundle["text/plain"] == metadata["image/png"]["alt"] == "The loss of each step, falling."


class Handle:
    def __init__(self):
        self.updates = []

    def update(self, bundle, raw, metadata):
        self.updates.append((bundle, metadata))


def test_the_trajectory_ends_where_the_loop_does(frames):
    assert [frame.t for frame in frames] == [751, 501, 251, 1, -1]
    assert frames[-1].distance == 0 and all(frame.distance > 0 for frame in frames[:-1])
    assert all(len(frame.pictures) == len(lab.plots.PANELS) for frame in frames)


def test_the_contact_sheet_shows_first_and_last(frames):
    few, all_of_them, more = (lab.plots.sheet(frames, columns=n) for n in (2, 5, 50))
    assert few.width < all_of_them.width == more.width
    assert lab.plots.strip(frames[0]).width > lab.plots.strip(frames[0]).height


def test_curves_and_tables_are_drawn():
    schedule = schedulers.NoiseSchedule()
    for figure in (
        lab.plots.noise_levels(schedule, schedule.timesteps(50)),
        lab.plots.similarities(torch.tensor([[1.0, 0.2], [0.2, 1.0]]), ["a dog", "a cat"]),
    ):
        assert Image.open(io.BytesIO(lab.plots.png(figure))).format == "PNG"


# ---- widgets ---------------------------------------------------------------------------------------------------


def test_the_scrubber_shows_the_frame_that_the_slider_points_at(frames):
    widget = lab.widgets.scrubber(frames)
    (play, slider), text, picture = widget.children[0].children, *widget.children[1:]
    assert isinstance(play, ipywidgets.Play) and play.max == slider.max == len(frames) - 1
    for i in (3, 0, len(frames) - 1):
        slider.value = i
        drawn = Image.open(io.BytesIO(picture.value))
        assert drawn.size == lab.plots.strip(frames[i]).size
        assert picture.value == lab.plots.jpeg(lab.plots.strip(frames[i]))
        assert text.value == lab.widgets.describe(frames[i])


@pytest.mark.parametrize("kind", ["pictures", "figures"])
def test_the_flipbook_turns_to_the_page_that_the_slider_points_at(kind):
    pages = [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue")]
    if kind == "figures":
        pages = [Figure(figsize=(1, size)) for size in (1, 2)]
    encode = lab.plots.png if kind == "figures" else lab.plots.jpeg
    slider, picture = lab.widgets.flipbook(pages, ["t = 0", "t = 1"], "time").children
    assert slider.label == "t = 0" and picture.value == encode(pages[0])
    slider.label = "t = 1"
    assert picture.value == encode(pages[1])


def test_a_widget_has_words_for_pages_without_a_kernel(frames, shown):
    widget = lab.widgets.scrubber(frames)
    lab.widgets.show(widget, "Run me.")
    ((bundle, _),) = shown
    assert bundle["text/plain"] == "Run me."
    view = bundle.get("application/vnd.jupyter.widget-view+json")
    assert view is None or view["model_id"] == widget.model_id


# ---- the source ------------------------------------------------------------------------------------------------


def test_the_source_is_shown_as_it_is(shown):
    lab.show_source(ldm.denoise, schedulers.NoiseSchedule, ldm.inpaint)
    (loop, _), (schedule, _), (decorated, _) = shown
    assert loop["text/markdown"].startswith("`ldm_course/sampling.py`\n\n```python\ndef denoise(")
    assert "class NoiseSchedule:" in schedule["text/markdown"]
    assert decorated["text/markdown"].startswith("`ldm_course/pipelines.py`\n\n```python\n@")


# ---- plugs -----------------------------------------------------------------------------------------------------


def paint(model: LatentDiffusion, **settings) -> Image.Image:
    return ldm.txt2img(model, "a dog", seed=0, num_inference_steps=STEPS, **settings)


def test_a_plugged_function_runs_and_is_counted(model):
    before = paint(model)
    with lab.plug(ddim_step=schedulers.ddim_step, guided_eps=lambda u, c, s: u + s * (c - u)) as calls:
        assert pixel_difference(paint(model), before) == 0
    assert calls == {"ddim_step": STEPS, "guided_eps": STEPS}


def test_a_wrong_plug_changes_the_picture_and_leaves_no_trace(model):
    before = paint(model)
    with lab.plug(ddim_step=lambda x_t, eps, a, b: x_t - eps):
        assert pixel_difference(paint(model), before) > 1
    assert pixel_difference(paint(model), before) == 0


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_that_can_be_plugged_is_called(name, model):
    scheduler = {"ddpm_step": "ddpm", "euler_step": "euler", "dpmpp_2m_step": "dpm++"}.get(name, "ddim")
    with lab.plug(**{name: getattr(FUNCTIONS[name], name)}) as calls:
        if name == "keep_outside":
            ldm.inpaint(model, "a dog", PICTURE, MASK, seed=0, num_inference_steps=STEPS)
        elif name in ("reparameterize", "strength_timesteps"):
            ldm.img2img(model, "a dog", PICTURE, seed=0, num_inference_steps=STEPS)
        else:
            paint(model, scheduler=scheduler)
    assert calls == {name: 1 if name in ("reparameterize", "strength_timesteps") else STEPS}


class OwnGroupNorm(nn.Module):
    """Written anew, as a learner would."""

    def __init__(self, num_groups, num_channels, eps):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight, self.bias = nn.Parameter(torch.ones(num_channels)), nn.Parameter(torch.zeros(num_channels))

    def forward(self, x):
        return group_norm_by_hand(x, self.num_groups, self.weight, self.bias, self.eps)


class ForgetsTheShift(OwnGroupNorm):
    def forward(self, x):
        return super().forward(x) - self.bias[:, None, None]


class Subclass(ResnetBlock):
    def forward(self, x, temb=None):
        return super().forward(x, temb)


@pytest.mark.parametrize("part", [{"GroupNorm": OwnGroupNorm}, {"ResnetBlock": Subclass}])
def test_a_plugged_module_runs_on_the_models_weights(part, model):
    ((name, yours),) = part.items()
    count = sum(isinstance(m, MODULES[name]) for m in model.unet.modules())
    count_vae = sum(isinstance(m, MODULES[name]) for m in model.vae.decoder.modules())
    before = paint(model)
    with lab.plug(**part) as calls:
        assert pixel_difference(paint(model), before) <= 1
    assert calls == {name: STEPS * count + count_vae}
    assert MODULES[name].forward.__qualname__ == f"{name}.forward"


def test_a_wrong_module_changes_the_picture(model):
    model = copy.deepcopy(model)
    for module in model.unet.modules():  # shifts of a fresh model are zero
        if isinstance(module, GroupNorm):
            module.bias.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    before = paint(model)
    with lab.plug(GroupNorm=ForgetsTheShift):
        assert pixel_difference(paint(model), before) > 1
    assert pixel_difference(paint(model), before) == 0


@pytest.mark.slow
@needs_a_compiler()
def test_a_compiled_model_paints_the_same_and_can_be_plugged_into(tmp_path, model):
    folder = tmp_path / "model"
    ldm.checkpoint.save(model, folder, dtype=torch.float32)
    compiled = ldm.load(folder, compile=True)
    before = paint(model)
    assert pixel_difference(paint(compiled), before) <= 1
    with lab.plug(GroupNorm=OwnGroupNorm) as calls:
        assert pixel_difference(paint(compiled), before) <= 1
    assert calls["GroupNorm"] > STEPS
    assert pixel_difference(paint(compiled), before) <= 1


def test_a_module_with_other_weights_is_refused(model):
    class Scale(OwnGroupNorm):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.scale = self.weight
            del self.weight

    with one_sentence("'scale'", "GroupNorm", "none of that name"), lab.plug(GroupNorm=Scale):
        paint(model)


def test_the_package_is_restored_after_an_error_and_after_nesting():
    original = schedulers.ddim_step
    with pytest.raises(ZeroDivisionError), lab.plug(ddim_step=abs):
        raise ZeroDivisionError
    assert schedulers.ddim_step is original
    with lab.plug(ddim_step=lambda *_: 1) as outer:
        with lab.plug(ddim_step=lambda *_: 2) as inner:
            assert schedulers.ddim_step() == 2
        assert schedulers.ddim_step() == 1
    assert schedulers.ddim_step is original and inner == outer == {"ddim_step": 1}


def test_bad_plugs_are_refused():
    with one_sentence("ddim", "ddim_step"), lab.plug(ddim=abs):
        pass
    with one_sentence("guided_eps", "function", "int"), lab.plug(guided_eps=7):
        pass
    with one_sentence("ddim_step", "function", "class Linear"), lab.plug(ddim_step=nn.Linear):
        pass
    with one_sentence("GroupNorm", "class of modules"), lab.plug(GroupNorm=abs):
        pass
    with one_sentence("Nothing", "guided_eps"), lab.plug(guided_eps=abs):
        pass
    assert sampling.guided_eps.__module__ == "ldm_course.sampling"


# ---- checks ----------------------------------------------------------------------------------------------------

CASES = [(torch.ones(2, 3), 2.0), (torch.arange(3.0), 0.5)]
MISTAKES = [(lambda x, s: x + s, "You added."), (lambda x, s: x - s, "You subtracted.")]


def check(yours) -> verdict.Verdict:
    return verdict.compare(yours, lambda x, s: x * s, CASES, MISTAKES)


def raise_not_implemented(x, s):
    raise NotImplementedError


@pytest.mark.parametrize("yours", [lambda x, s: None, lambda x, s: ..., raise_not_implemented])
def test_not_tried_is_no_error(yours):
    assert check(yours).status == NOT_TRIED and repr(check(yours)).startswith("… Not tried yet.")


@pytest.mark.parametrize("yours", [lambda x, s: s * x, lambda x, s: (s * x).numpy(), lambda x, s: (s * x).tolist()])
def test_a_right_answer_passes_in_any_form(yours):
    assert check(yours).status == RIGHT and repr(check(yours)).startswith("✓ Right.")


@pytest.mark.parametrize(
    "yours, hint",
    [
        (lambda x, s: x + s, "You added."),
        (lambda x, s: x - s, "You subtracted."),
        (lambda x, s: x.undefined, "AttributeError"),
        (lambda x: x, "TypeError"),
        (lambda x, s: x.mul_(s), "in place"),
        (lambda x, s: "six", "str"),
        (lambda x, s: x[:1] * s, "shape (1, 3) where (2, 3)"),
        (lambda x, s: x * s * float("nan"), "off by up to nan"),
        (lambda x, s: x * s * 1.5, "off by up to 1"),
    ],
)
def test_a_wrong_answer_gets_a_hint(yours, hint):
    found = check(yours)
    assert found.status == WRONG and hint in repr(found) and repr(found).startswith("✗ Not yet.")


def test_a_function_must_hold_in_the_pipeline_too(model):
    right = schedulers.ddim_step
    assert verdict.plugged(model, ddim_step=right).status == RIGHT
    off = verdict.plugged(model, ddim_step=lambda *arguments: 0.9 * right(*arguments))
    assert off.status == WRONG and "another picture" in off.message and len(off.pictures) == 2
    broken = verdict.plugged(model, ddim_step=lambda x: x)
    assert broken.status == WRONG and "TypeError" in broken.message
    unused = verdict.plugged(model, euler_step=schedulers.euler_step)
    assert unused.status == WRONG and "called" in unused.message


# ---- the setup -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(model: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved model, standing in for the one that ships with the package."""
    ldm.save(model, tmp_path / "model", dtype=torch.float32)
    for name in ("ldm_course.checkpoint", "ldm_course.lab.setup"):
        monkeypatch.setattr(f"{name}.bundled_path", lambda: tmp_path / "model")
    return tmp_path / "model"


def test_the_small_model_is_the_default(folder, capsys):
    model, where = lab.load_model()
    assert where == folder and model.device.type == "cpu" and model.dtype == torch.float32
    assert capsys.readouterr().out.startswith("Model: the small one that ships with the course. ")


def test_a_folder_runs_without_a_gpu(folder, capsys):
    model, where = lab.load_model(str(folder))
    assert where == folder and str(folder) in capsys.readouterr().out


@pytest.mark.parametrize("gpu", [False, True])
def test_a_model_that_cannot_be_had_is_replaced_in_one_line(gpu, folder, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr("ldm_course.lab.setup.load", unreachable)
    _, where = lab.load_model("stable-diffusion-v1-5/stable-diffusion-v1-5")
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("Going on with the small model.") and ("GPU" if not gpu else "hub") in first
    assert second.startswith("Model: the small one") and where == folder


def unreachable(name=None, **settings):
    if name is None:
        return ldm.load()
    raise ldm.InputError("The hub cannot be reached.")


def test_diffusers_paints_the_same_picture(folder, model):
    pipe = lab.diffusers_pipeline(model, folder)
    assert isinstance(pipe, StableDiffusionPipeline)
    latents = noise(1, 4, 8, 8)
    theirs = pipe("a dog", latents=latents, num_inference_steps=STEPS).images[0]
    ours = ldm.txt2img(replace(model, known_words=None), "a dog", latents=latents, num_inference_steps=STEPS)
    assert pixel_difference(ours, theirs) <= 1


def test_diffusers_pipeline_is_that_of_the_task(folder, model, capfd):
    for task, name in DIFFUSERS.items():
        assert type(lab.diffusers_pipeline(model, folder, task)).__name__ == name
    out, err = capfd.readouterr()
    assert out == err == "", "no remarks on the page"
    with one_sentence("task", "img2img"):
        lab.diffusers_pipeline(model, folder, "upscale")


def test_diffusers_finds_weights_that_lie_there_in_half_precision_only(folder, model):
    for file in [*folder.glob("*/model.safetensors"), *folder.glob("*/diffusion_pytorch_model.safetensors")]:
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert lab.diffusers_pipeline(model, folder).unet.dtype == torch.float32
