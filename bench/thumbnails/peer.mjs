// The peer: sharp as the first requirements' handler calls it, and sharp done well. One order a line on stdin.
import { createInterface } from "node:readline";
import { readFile, writeFile } from "node:fs/promises";
import sharp from "sharp";

sharp.concurrency(1);
sharp.cache(false);
const SIZES = { primary: [1280, 720], medium: [640, 360], small: [320, 180] };

// seeds/001, section 7.2: three separate resizes of the whole source.
async function handler(source) {
  const made = {};
  for (const [name, [width, height]] of Object.entries(SIZES)) {
    made[name] = await sharp(source).resize(width, height, { fit: "cover" }).jpeg({ quality: 85 }).toBuffer();
  }
  return made;
}

// One decode, upright, in sRGB, alpha on white; each size from the one before.
async function tuned(source) {
  const { orientation } = await sharp(source).metadata(); // turning what stands upright would cost the scaled decode
  const opened = sharp(source, { sequentialRead: true });
  const first = (orientation > 1 ? opened.autoOrient() : opened)
    .resize(1280, 720, { fit: "cover" }).flatten({ background: "white" }).toColourspace("srgb").raw();
  let { data, info } = await first.toBuffer({ resolveWithObject: true });
  const made = {};
  for (const [name, [width, height]] of Object.entries(SIZES)) {
    const raw = { width: info.width, height: info.height, channels: info.channels };
    if (info.width !== width) {
      ({ data, info } = await sharp(data, { raw }).resize(width, height).raw().toBuffer({ resolveWithObject: true }));
    }
    const now = { width: info.width, height: info.height, channels: info.channels };
    made[name] = await sharp(data, { raw: now }).jpeg({ quality: 85 }).toBuffer();
  }
  return made;
}

const SIDES = { handler, tuned };
for await (const line of createInterface({ input: process.stdin })) {
  const { side, path, keep } = JSON.parse(line);
  const before = process.cpuUsage();
  const began = process.hrtime.bigint();
  const made = await SIDES[side](await readFile(path));
  const wall = Number(process.hrtime.bigint() - began) / 1e9;
  const used = process.cpuUsage(before);
  let bytes = 0;
  for (const [name, body] of Object.entries(made)) {
    bytes += body.length;
    if (keep) await writeFile(`${keep}/${name}.jpg`, body);
  }
  const peak = process.resourceUsage().maxRSS * 1024;
  console.log(JSON.stringify({ wall, cpu: (used.user + used.system) / 1e6, bytes, peak }));
}
