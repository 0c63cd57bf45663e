// Texts of clips by transformers.js: node transformers_js.mjs FOLDER_WITH_NODE_MODULES MODEL_DIRECTORY JOB.json
//
// JOB.json: {"dtype": "fp32" or "int8", "clips": [paths of raw little-endian float32 at 16 kHz], "options": {...}}.
// Prints {"version", "texts"} as JSON. Nothing is fetched.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, resolve } from "node:path";

const [, , packages, model, jobFile] = process.argv;
const require = createRequire(join(resolve(packages), "package.json"));
const { env, pipeline } = require("@huggingface/transformers");
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(model));

const job = JSON.parse(readFileSync(jobFile, "utf-8"));
const transcribe = await pipeline("automatic-speech-recognition", basename(model), {
  dtype: job.dtype,
  session_options: { intraOpNumThreads: 1, interOpNumThreads: 1 },
});
const texts = [];
for (const path of job.clips) {
  const bytes = readFileSync(path);
  const samples = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  texts.push((await transcribe(samples, job.options)).text);
}
console.log(JSON.stringify({ version: env.version, texts }));
