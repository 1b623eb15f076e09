// The call in Python that generates the image on the page.

import type { Job } from "./messages";

/** How Python gets at the image and the mask. */
export interface Sources {
  scene: string | null; // a Scene's code; null for an image that the reader saves
  mask: string; // code that may name `scene`, `image` and `region_mask`
}

export function pythonCall(job: Omit<Job, "id">, sources: Sources): string {
  if (job.second) return mixedCall(job);
  const lines = ["import ldm_course as ldm", "", 'model = ldm.load(device="cpu")'];
  const first = [`model, ${text(job.prompt)}`];
  const options = [
    `seed=${job.seed}`,
    `num_inference_steps=${job.steps}`,
    `guidance_scale=${decimal(job.guidance)}`,
    `scheduler="${job.scheduler}"`,
  ];
  if (job.task !== "txt2img") {
    if (sources.scene === null) lines.push('image = ldm.load_image("image.png")  # by "Save it"');
    else lines.push(`scene = ${sources.scene}`, "image = scene.render(128)");
    first.push("image");
    options.unshift(`strength=${decimal(job.strength)}`);
  }
  if (job.task === "inpaint") {
    lines.push(`mask = ${sources.mask}`);
    if (sources.mask.startsWith("region_mask")) lines.splice(1, 0, "from ldm_course.masks import region_mask");
    first.push("mask");
    options.splice(1, 0, `composite=${job.composite ? "True" : "False"}`);
  }
  lines.push(`ldm.${job.task}(`, ...[...first, ...options].map((line) => `    ${line},`), ")");
  return lines.join("\n");
}

/** Two prompts: their text vectors are mixed, and the loop runs with the mixture. */
function mixedCall(job: Omit<Job, "id">): string {
  const step = job.scheduler === "dpm++" ? "dpmpp_2m" : job.scheduler;
  return `import torch
import ldm_course as ldm

model = ldm.load(device="cpu")
first, second = model.embed([
    ${text(job.prompt)},
    ${text(job.second)},
]).split(1)
generator = torch.Generator().manual_seed(${job.seed})
*_, last = ldm.denoise(
    model,
    torch.randn(1, 4, 16, 16, generator=generator),
    torch.lerp(first, second, ${decimal(job.mix)}),
    model.schedule.timesteps(${job.steps}),
    negative_context=model.embed([""]),
    guidance_scale=${decimal(job.guidance)},
    step=ldm.samplers.${step},
    generator=generator,
)
ldm.images.to_pil(model.decode(last.x_t))[0]`;
}

function decimal(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}

/** A string of Python; JSON's escapes mean the same there, but for letters beyond U+FFFF, which stay as they are. */
function text(value: string): string {
  return JSON.stringify(value);
}
