// What the page says in Python and in links.

import { expect, test } from "vitest";
import { pythonCall } from "../src/python";
import { firstSettings, fromLink, toLink } from "../src/settings";

test("the call in Python names every setting", () => {
  const { strength, ...rest } = firstSettings().txt2img;
  const job = { ...rest, strength, task: "txt2img" as const, composite: true, image: null, mask: null, drag: false };
  const said = pythonCall({ ...job, prompt: 'a "dog"\n\\' }, { scene: null, mask: "" });
  expect(said.split("\n").slice(2)).toEqual([
    'model = ldm.load(device="cpu")',
    "ldm.txt2img(",
    '    model, "a \\"dog\\"\\n\\\\",',
    "    seed=12,",
    "    num_inference_steps=20,",
    "    guidance_scale=4.0,",
    '    scheduler="ddim",',
    ")",
  ]);
  const crossed = pythonCall({ ...job, second: "a pig", mix: 0.25 }, { scene: null, mask: "" });
  expect(crossed).toContain("torch.lerp(first, second, 0.25)");
  const masked = pythonCall({ ...job, task: "inpaint", strength: 0.5 }, { scene: "ldm.scenes.Scene()", mask: 'region_mask("x")' });
  expect(masked).toContain("from ldm_course.masks import region_mask");
  expect(masked).toContain("    image,\n    mask,\n    strength=0.5,\n    composite=True,");
});

test("a link brings the settings back", () => {
  const mine = { prompt: "a cat & a dog #1", seed: 7, steps: 8, guidance: 2.5, scheduler: "dpm++" as const, strength: 0.35, second: "", mix: 0.5 };
  const all = firstSettings();
  expect(fromLink(toLink("img2img", mine), all)).toBe("img2img");
  expect(all.img2img).toEqual(mine);
  expect(all.txt2img).toEqual(firstSettings().txt2img);
  const crossed = { ...firstSettings().txt2img, second: "a pig", mix: 0.25 };
  expect(fromLink(toLink("txt2img", crossed), all)).toBe("txt2img");
  expect(all.txt2img).toEqual(crossed);
  expect(toLink("txt2img", { ...crossed, second: "" })).not.toContain("mix");
});

test("a link that makes no sense changes nothing", () => {
  const all = firstSettings();
  expect(fromLink("#task=x&seed=-1&steps=1e9&guidance=nan&strength=2&scheduler=toString&steps=2.5", all)).toBe("txt2img");
  expect(all).toEqual(firstSettings());
});
