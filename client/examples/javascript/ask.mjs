// Asks a question about a clip and prints the answer as it is written.
//
//   npm install                                          # once
//   node ask.mjs clip.mp4 "What happens in this clip?"   # --server HOST:PORT --fps 1 --token T
//
// Exit code: 0 answered, 1 refused or failed (reason on stderr).
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const INLINE_BYTES = 3 << 20; // what fits beside the text in one message
const PROTO = process.env.VIDEONSA_PROTO ?? join(dirname(fileURLToPath(import.meta.url)), "../../../proto");

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: "string", default: "127.0.0.1:8090" },
    fps: { type: "string", default: "1" },
    token: { type: "string" },
  },
});
if (positionals.length !== 2) {
  console.error("usage: ask.mjs [flags] CLIP QUESTION");
  process.exit(2);
}

const { videonsa } = grpc.loadPackageDefinition(
  loader.loadSync(["videonsa/v1/clip.proto", "videonsa/v1/video_qa.proto"], {
    includeDirs: [PROTO], keepCase: true, longs: Number, enums: String, oneofs: true,
  }),
);
// Plain text, for the loopback; grpc.credentials.createSsl() elsewhere.
const plain = grpc.credentials.createInsecure();
const clips = new videonsa.v1.ClipService(values.server, plain);
const questions = new videonsa.v1.VideoQaService(values.server, plain);
const metadata = new grpc.Metadata();
if (values.token) metadata.set("authorization", `Bearer ${values.token}`);

const call = (client, method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, metadata, (error, response) => (error ? reject(error) : resolve(response))),
  );

// Stores the file and returns the clip's name once it is READY.
async function upload(path, data) {
  const sha256 = createHash("sha256").update(data).digest();
  const started = await call(clips, "StartUpload", { size_bytes: data.length, sha256, display_name: basename(path) });
  const { name } = started.clip;
  if (started.already_stored) return name;
  await new Promise((resolve, reject) => {
    const stream = clips.UploadClip(metadata, (error, response) => (error ? reject(error) : resolve(response)));
    let offset = started.committed_size;
    stream.write({ header: { upload_id: started.upload_id, write_offset: offset } });
    while (offset < data.length) {
      const piece = data.subarray(offset, offset + started.max_chunk_bytes);
      stream.write({ chunk: { offset, data: piece, finish: offset + piece.length === data.length } });
      offset += piece.length;
    }
    stream.end();
  });
  for await (const { clip } of clips.WatchClip({ name }, metadata)) {
    if (clip.state === "STATE_FAILED") throw new Error(`${clip.error_reason}: ${clip.error_message}`);
    if (clip.state === "STATE_READY") break;
  }
  return name;
}

// What stands on the command line as the clip of the question.
async function source(clip) {
  if (clip.startsWith("clips/")) return { clip };
  if (clip.startsWith("https://")) return { url: clip };
  const data = await readFile(clip);
  return data.length <= INLINE_BYTES ? { inline_data: data } : { clip: await upload(clip, data) };
}

try {
  const [clip, text] = positionals;
  const input = { ...(await source(clip)), sampling: { fps: Number(values.fps) } };
  const question = { turns: [{ role: "ROLE_USER", parts: [{ clip: input }, { text }] }] };
  for await (const event of questions.AskStream({ question }, metadata)) {
    if (event.delta) process.stdout.write(event.delta.text);
    if (event.final) {
      const { usage, attention } = event.final;
      console.error(`\n${usage.frames_used} frames, ${(100 * attention.budget_fraction).toFixed(1)} % of dense attention`);
    }
  }
  process.stdout.write("\n");
} catch (error) {
  console.error(`failed: ${error.details ?? error.message}`);
  process.exitCode = 1;
} finally {
  clips.close();
  questions.close();
}
